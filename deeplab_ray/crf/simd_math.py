"""Exponential and logarithm of float32 vectors as LLVM code, since library calls would go lane by lane."""

from typing import Any

from llvmlite import ir
from numba.core import cgutils

_I32 = ir.IntType(32)


def constant(like: Any, value: float) -> Any:
    """Return a constant of the type of the vector `like`, with `value` in all lanes."""
    return ir.Constant(like.type, [value] * like.type.count)


def call(builder: Any, name: str, *args: Any) -> Any:
    """Call the LLVM intrinsic `name` in its version for the vector type of the last argument."""
    vector = args[-1].type
    kind = ir.FunctionType(vector, [a.type for a in args])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{vector.count}f32")
    return builder.call(function, args)


def emit_exponential(builder: Any, x: Any) -> Any:
    """Emit e^x by Cephes' polynomial (error 1e-7).

    x is clamped to −50..88: smaller values only make denormals, which are slow, and larger ones would overflow.
    """
    for bound, side in ((-50.0, ">"), (88.0, "<")):
        x = builder.select(builder.fcmp_ordered(side, x, constant(x, bound)), x, constant(x, bound))
    n = call(builder, "rint", builder.fmul(x, constant(x, 1.44269504088896341)))
    r = call(builder, "fmuladd", n, constant(x, -0.693359375), x)
    r = call(builder, "fmuladd", n, constant(x, 2.12194440e-4), r)
    y = _polynomial(
        builder, r, 1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5
    )
    y = call(builder, "fmuladd", y, builder.fmul(r, r), builder.fadd(r, constant(x, 1.0)))
    whole = ir.VectorType(_I32, x.type.count)
    power = builder.add(builder.fptosi(n, whole), ir.Constant(whole, [127] * whole.count))
    return builder.fmul(y, builder.bitcast(builder.shl(power, ir.Constant(whole, [23] * whole.count)), x.type))


def emit_logarithm(builder: Any, x: Any) -> Any:
    """Emit the natural logarithm of normal x > 0 by Cephes' polynomial (error 1e-7)."""
    whole = ir.VectorType(_I32, x.type.count)

    def every(value: int) -> Any:
        return ir.Constant(whole, [value] * whole.count)

    bits = builder.bitcast(x, whole)
    e = builder.sitofp(builder.sub(builder.lshr(bits, every(23)), every(126)), x.type)
    m = builder.bitcast(builder.or_(builder.and_(bits, every(0x007FFFFF)), every(0x3F000000)), x.type)
    small = builder.fcmp_ordered("<", m, constant(x, 0.707106781186547524))
    e = builder.select(small, builder.fsub(e, constant(x, 1.0)), e)
    m = builder.fsub(builder.select(small, builder.fadd(m, m), m), constant(x, 1.0))
    z = builder.fmul(m, m)
    y = _polynomial(
        builder, m, 7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
        -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
    )  # fmt: skip
    y = builder.fmul(builder.fmul(y, m), z)
    y = call(builder, "fmuladd", e, constant(x, -2.12194440e-4), y)
    y = call(builder, "fmuladd", z, constant(x, -0.5), y)
    return call(builder, "fmuladd", e, constant(x, 0.693359375), builder.fadd(m, y))


def _polynomial(builder: Any, x: Any, *coefficients: float) -> Any:
    """Emit a polynomial by Horner's scheme; the coefficient of the highest power comes first."""
    y = constant(x, coefficients[0])
    for coefficient in coefficients[1:]:
        y = call(builder, "fmuladd", y, x, constant(x, coefficient))
    return y
