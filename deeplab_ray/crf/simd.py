"""Rows of float32 as SIMD vectors inside Numba functions.

LLVM does not vectorise a Numba loop over classes well (3 to 10 times slower in the CRF's kernels), so a row of
values is one vector here. An array of rows has the dtype `row_dtype(lanes)`: the width is part of its type, and
functions are compiled, and cached, once for each width. `load` and `store` move a row between an array and a vector;
`+`, `-` and `*` work on vectors and scalars. A width that is not a power of two is split into parts that are
(20 = 16 + 4): LLVM would move the lanes of one such vector through memory all the time, which took twice as long.

Numba's cache notices only changes of the file that a function is in: after a change here, remove *.nbi and *.nbc.
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin, models, register_model
from numpy.typing import NDArray

from deeplab_ray.crf.simd_math import call, constant, emit_exponential, emit_logarithm

LANES = 16
"""Width of a vector whose lanes are not classes but pixels: a 512-bit register of float32."""

# As Any, because Numba annotates the typing function, not the one that is called.
intrinsic: Any = extending.intrinsic

_F32 = ir.FloatType()
_I32 = ir.IntType(32)


def row_dtype(lanes: int) -> np.dtype[Any]:
    """Return the dtype of one row of `lanes` float32."""
    return np.dtype([("row", np.float32, (lanes,))])


def as_rows(flat: NDArray[np.float32], lanes: int) -> NDArray[Any]:
    """View contiguous float32 of any shape as rows of `lanes` numbers."""
    return flat.reshape(-1).view(row_dtype(lanes))


class Vector(types.Type):
    """Numba type of a vector of float32."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"Vector({lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        parts = [ir.VectorType(_F32, lanes) for lanes in _parts(kind.lanes)]
        super().__init__(manager, kind, parts[0] if len(parts) == 1 else ir.LiteralStructType(parts))


def _parts(lanes: int) -> list[int]:
    """Split a width into powers of two, the largest first."""
    return [1 << bit for bit in reversed(range(lanes.bit_length())) if lanes >> bit & 1]


def _split(builder: Any, value: Any) -> list[Any]:
    if isinstance(value.type, ir.LiteralStructType):
        return [builder.extract_value(value, k) for k in range(len(value.type.elements))]
    return [value]


def _join(builder: Any, parts: list[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    value = ir.Constant(ir.LiteralStructType([part.type for part in parts]), ir.Undefined)
    for k, part in enumerate(parts):
        value = builder.insert_value(value, part, k)
    return value


def _by_parts(builder: Any, emit: Callable[..., Any], args: Any) -> Any:
    """Call `emit` for each part of the vectors among the arguments; scalars go to all parts."""
    split = [_split(builder, arg) for arg in args]
    count = max(map(len, split))
    spread = [parts if len(parts) == count else parts * count for parts in split]
    return _join(builder, [emit(*parts) for parts in zip(*spread, strict=True)])


def _addresses(context: Any, builder: Any, sig: Any, args: Any) -> list[Any]:
    """Return pointers to the parts of a row; checks the index under NUMBA_BOUNDSCHECK, as Numba does for its arrays."""
    array = context.make_array(sig.args[0])(context, builder, args[0])
    index = context.cast(builder, args[1], sig.args[1], types.intp)
    if context.enable_boundscheck:
        cgutils.do_boundscheck(context, builder, index, cgutils.unpack_tuple(builder, array.shape)[0])
    start = builder.bitcast(builder.gep(array.data, [index]), _F32.as_pointer())
    pointers, offset = [], 0
    for lanes in _parts(sig.args[0].dtype.size // 4):
        pointers.append(builder.bitcast(builder.gep(start, [_I32(offset)]), ir.VectorType(_F32, lanes).as_pointer()))
        offset += lanes
    return pointers


@intrinsic
def load(typing_context: Any, rows: Any, index: Any) -> Any:
    """Return rows[index] as a vector."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _join(builder, [builder.load(part, align=4) for part in _addresses(context, builder, sig, args)])

    return Vector(rows.dtype.size // 4)(rows, index), emit


@intrinsic
def store(typing_context: Any, rows: Any, index: Any, vector: Any) -> Any:
    """Set rows[index] to the vector."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        for part, pointer in zip(_split(builder, args[2]), _addresses(context, builder, sig, args), strict=True):
            builder.store(part, pointer, align=4)
        return context.get_dummy_value()

    return types.void(rows, index, vector), emit


@intrinsic
def prefetch(typing_context: Any, rows: Any, index: Any) -> Any:
    """Prefetch the cache lines of rows[index], which will be read and written soon."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bytes_pointer = ir.IntType(8).as_pointer()
        start = builder.bitcast(_addresses(context, builder, sig, args)[0], bytes_pointer)
        kind = ir.FunctionType(ir.VoidType(), [bytes_pointer, _I32, _I32, _I32])
        ask = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        last = sig.args[0].dtype.size - 4
        for offset in sorted({0, last}) if last >= 64 else [0]:
            builder.call(ask, [builder.gep(start, [_I32(offset)]), _I32(0), _I32(3), _I32(1)])
        return context.get_dummy_value()

    return types.void(rows, index), emit


def _spread(builder: Any, scalar: Any, kind: Any) -> Any:
    """Return a vector with the scalar in all lanes."""
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, _I32(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(_I32, kind.count), [0] * kind.count))


def _broadcast(builder: Any, args: Any) -> list[Any]:
    kind = next(a.type for a in args if isinstance(a.type, ir.VectorType))
    return [a if isinstance(a.type, ir.VectorType) else _spread(builder, a, kind) for a in args]


def _signature(args: Any) -> Any:
    """Return the signature for vectors of one width and scalars as float32; None for anything else."""
    vectors = [a for a in args if isinstance(a, Vector)]
    if not vectors or any(v != vectors[0] for v in vectors):
        return None
    return signature(vectors[0], *(a if isinstance(a, Vector) else types.float32 for a in args))


class _Arithmetic(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        return _signature(args)


def _define_operator(symbol: Any, method: str) -> None:
    infer_global(symbol)(type(f"_Vector_{method}", (_Arithmetic,), {}))

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _by_parts(builder, lambda *parts: getattr(builder, method)(*_broadcast(builder, parts)), args)

    for kinds in ((Vector, Vector), (types.Float, Vector), (Vector, types.Float)):
        lower_builtin(symbol, *kinds)(emit)


_define_operator(operator.add, "fadd")
_define_operator(operator.sub, "fsub")
_define_operator(operator.mul, "fmul")


@intrinsic
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a × b + c, fused if the processor can; each is a vector or a scalar."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _by_parts(builder, lambda *parts: call(builder, "fmuladd", *_broadcast(builder, parts)), args)

    return _signature((a, b, c)), emit


def _each_lane(function: Callable[[Any, Any], Any]) -> Any:
    """Make an intrinsic from a vector to a vector of the same width."""

    def typed(typing_context: Any, vector: Any) -> Any:
        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _by_parts(builder, lambda part: function(builder, part), args)

        return vector(vector), emit

    return _named(typed, function)


def _all_lanes(function: Callable[[Any, list[Any]], Any], result: Any) -> Any:
    """Make an intrinsic from a vector to a number."""

    def typed(typing_context: Any, vector: Any) -> Any:
        return result(vector), lambda context, builder, sig, args: function(builder, _split(builder, args[0]))

    return _named(typed, function)


def _named(typed: Any, function: Any) -> Any:
    typed.__name__ = function.__name__.strip("_")
    typed.__doc__ = function.__doc__
    return intrinsic(typed)


def _reduce(builder: Any, parts: list[Any], combine: Callable[[Any, Any], Any]) -> Any:
    """Combine halves with halves; LLVM's own reductions go lane by lane unless they may reorder."""
    x, rest = parts[0], parts[1:]
    while x.type.count > 1 or rest:
        if rest and rest[0].type.count == x.type.count:
            x = combine(x, rest.pop(0))
            continue
        half = x.type.count // 2
        kind = ir.VectorType(_I32, half)
        low, high = (ir.Constant(kind, list(range(k, k + half))) for k in (0, half))
        x = combine(builder.shuffle_vector(x, x, low), builder.shuffle_vector(x, x, high))
    return builder.extract_element(x, _I32(0))


def _maximum(builder: Any, parts: list[Any]) -> Any:
    """Return the largest lane."""
    return _reduce(builder, parts, lambda a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))


def _largest(builder: Any, parts: list[Any]) -> Any:
    """Return the largest absolute value of any lane."""
    return _maximum(builder, [call(builder, "fabs", part) for part in parts])


def _total(builder: Any, parts: list[Any]) -> Any:
    """Return the sum of all lanes."""
    return _reduce(builder, parts, builder.fadd)


def _first_maximum(builder: Any, parts: list[Any]) -> Any:
    """Return the index of the largest lane, the first of equals."""
    top, whole = _maximum(builder, parts), ir.IntType(64)
    found, offset = whole(0), sum(part.type.count for part in parts)
    for part in reversed(parts):
        offset -= part.type.count
        equal = builder.fcmp_ordered("==", part, _spread(builder, top, part.type))
        mask = builder.zext(builder.bitcast(equal, ir.IntType(part.type.count)), whole)
        lane = builder.add(builder.cttz(mask, ir.IntType(1)(0)), whole(offset))
        found = builder.select(builder.icmp_unsigned("!=", mask, whole(0)), lane, found)
    return found


def _nearest(builder: Any, x: Any) -> Any:
    """Round to the nearest whole number, halves to even."""
    return call(builder, "rint", x)


maximum = _all_lanes(_maximum, types.float32)
largest = _all_lanes(_largest, types.float32)
total = _all_lanes(_total, types.float32)
first_maximum = _all_lanes(_first_maximum, types.int64)
nearest = _each_lane(_nearest)
exponential = _each_lane(emit_exponential)
logarithm = _each_lane(emit_logarithm)


@intrinsic
def at_least(typing_context: Any, vector: Any, bound: Any) -> Any:
    """Return the larger of each lane and a scalar."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def clamp(*parts: Any) -> Any:
            x, low = _broadcast(builder, parts)
            return builder.select(builder.fcmp_ordered(">", x, low), x, low)

        return _by_parts(builder, clamp, args)

    return vector(vector, types.float32), emit


@intrinsic
def less(typing_context: Any, a: Any, b: Any) -> Any:
    """Return 1.0 in the lanes where a < b, else 0.0; each is a vector or a scalar."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def compare(*parts: Any) -> Any:
            a, b = _broadcast(builder, parts)
            return builder.select(builder.fcmp_ordered("<", a, b), constant(a, 1.0), constant(a, 0.0))

        return _by_parts(builder, compare, args)

    return _signature((a, b)), emit
