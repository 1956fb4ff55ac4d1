"""Atrous convolution on CPUs: on a small map a large rate leaves most of a kernel in the padding, whose zeros PyTorch's
convolution multiplies, too. Of LargeFOV's 3×3 at rate 12 on 21×21 cells (a crop of 161), 38 % meets anything else."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Where more than this share of the products does not meet padding, PyTorch's own convolution is as fast.
_WORTH = 0.82

Window = tuple[slice, slice]
"""The cells that a tap serves in one direction, and the cells that it sees from there."""


class AtrousConv2d(nn.Conv2d):
    """`nn.Conv2d` of stride 1 whose padding keeps the size: float N×I×h×w → N×O×h×w.

    Once it is laid out for that (`lay_out_by_taps`), in float32 training on a CPU, each tap becomes a matrix product
    over the cells that it serves, where that leaves enough out. The result is the same but for rounding.
    """

    def forward(self, x: Tensor) -> Tensor:
        suits = self.training and x.device.type == "cpu" and x.dtype == torch.float32
        if not suits or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
            return super().forward(x)
        if not _by_taps(self.weight).is_contiguous():
            return super().forward(x)
        assert not isinstance(self.padding, str)
        rows, columns = (
            [_window(tap * rate - padding, size) for tap in range(taps)]
            for taps, rate, padding, size in zip(
                self.kernel_size, self.dilation, self.padding, x.shape[2:], strict=True
            )
        )
        seen = sum(of.stop - of.start for of, _ in rows) * sum(of.stop - of.start for of, _ in columns)
        if seen > _WORTH * len(rows) * len(columns) * x.shape[2] * x.shape[3]:
            return super().forward(x)
        y: Tensor = _Taps.apply(x, self.weight, rows, columns)
        return y if self.bias is None else y + self.bias[:, None, None]


def lay_out_by_taps(model: nn.Module) -> None:
    """Store the kernels of all atrous convolutions tap by tap, for training on a CPU: as matrices they need no copies.

    Values, shapes and names stay.
    """
    for module in model.modules():
        if isinstance(module, AtrousConv2d):
            module.weight.data = _from_taps(_by_taps(module.weight.data).contiguous())


def _by_taps(weight: Tensor) -> Tensor:
    """O×I×rows×columns → rows×columns×O×I, a view."""
    return weight.permute(2, 3, 0, 1)


def _from_taps(kernel: Tensor) -> Tensor:
    """The way back, a view."""
    return kernel.permute(2, 3, 0, 1)


def _window(offset: int, size: int) -> Window:
    """Of a tap that sees cell p + offset from cell p, among `size` cells."""
    first = min(max(0, -offset), size)
    last = max(first, min(size, size - offset))
    return slice(first, last), slice(first + offset, last + offset)


class _Taps(torch.autograd.Function):
    """The convolution as a sum over its taps.

    Within, maps are channels×h×N×w: what a tap sees of their rows is then a matrix in place, and only columns are cut
    out, once for all taps of a column.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, rows: list[Window], columns: list[Window]) -> Tensor:
        seen, kernel = _rows_first(x), _by_taps(weight)
        ctx.save_for_backward(seen, kernel)
        ctx.rows, ctx.columns = rows, columns
        y = seen.new_zeros(kernel.shape[2], *seen.shape[1:])
        for j, (to_column, from_column) in enumerate(columns):
            part, whole = _cut(seen, from_column), _room_for(y, to_column)
            for i, (to_row, from_row) in enumerate(rows):
                _matrix(whole, to_row).addmm_(kernel[i, j], _matrix(part, from_row))
            _put_back(whole, y, to_column)
        return y.permute(2, 0, 1, 3)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        seen, kernel = ctx.saved_tensors
        of_y = _rows_first(gradient)
        of_x, of_kernel = torch.zeros_like(seen), torch.empty_like(kernel)
        for j, (to_column, from_column) in enumerate(ctx.columns):
            part, given, whole = _cut(seen, from_column), _cut(of_y, to_column), _room_for(of_x, from_column)
            for i, (to_row, from_row) in enumerate(ctx.rows):
                output = _matrix(given, to_row)
                _matrix(whole, from_row).addmm_(kernel[i, j].T, output)
                torch.mm(output, _matrix(part, from_row).T, out=of_kernel[i, j])
            _put_back(whole, of_x, from_column)
        return of_x.permute(2, 0, 1, 3), _from_taps(of_kernel), None, None


def _rows_first(x: Tensor) -> Tensor:
    """N×C×h×w → C×h×N×w."""
    return x.permute(1, 2, 0, 3).contiguous()


def _cut(maps: Tensor, columns: slice) -> Tensor:
    """These columns of C×h×N×w; the maps themselves where that is all of them."""
    return maps[..., columns].contiguous()


def _room_for(maps: Tensor, columns: slice) -> Tensor:
    """Where to add what comes to these columns: the maps themselves, or zeros to be put back."""
    part = maps[..., columns]
    return maps if part.shape == maps.shape else part.new_zeros(part.shape)


def _put_back(part: Tensor, maps: Tensor, columns: slice) -> None:
    if part is not maps:
        maps[..., columns] += part


def _matrix(maps: Tensor, rows: slice) -> Tensor:
    """These rows of C×h×N×w as a matrix of C rows, a view."""
    return maps[:, rows].flatten(1)
