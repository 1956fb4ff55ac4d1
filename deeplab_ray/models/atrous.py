"""Atrous convolution on CPUs, without products with padding.

On a small feature map most taps of a kernel with a large rate fall into the padding, whose zeros PyTorch multiplies,
too. For LargeFOV's 3×3 at rate 12 on 21×21 cells (a crop of 161), only 38 % of the products meet a cell.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# If more than this share of the products meets cells, PyTorch's own convolution is as fast.
_WORTH = 0.82

Window = tuple[slice, slice]
"""For a tap, along one axis: the output cells that it adds to, and the input cells that it reads for them."""


class AtrousConv2d(nn.Conv2d):
    """`nn.Conv2d` of stride 1 whose padding keeps the size: float N×I×h×w → N×O×h×w.

    In float32 training on a CPU, once `lay_out_by_taps` was called, each tap is a matrix product over the cells that it
    adds to, if this saves enough products. Results differ by rounding only.
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
    """Store the kernels of all atrous convolutions tap by tap in memory, so that training on a CPU need not copy them.

    Values, shapes and names stay the same.
    """
    for module in model.modules():
        if isinstance(module, AtrousConv2d):
            module.weight.data = _from_taps(_by_taps(module.weight.data).contiguous())


def _by_taps(weight: Tensor) -> Tensor:
    """View O×I×rows×columns as rows×columns×O×I."""
    return weight.permute(2, 3, 0, 1)


def _from_taps(kernel: Tensor) -> Tensor:
    """View rows×columns×O×I as O×I×rows×columns."""
    return kernel.permute(2, 3, 0, 1)


def _window(offset: int, size: int) -> Window:
    """Return the window of a tap that reads cell p + offset for cell p, among `size` cells."""
    first = min(max(0, -offset), size)
    last = max(first, min(size, size - offset))
    return slice(first, last), slice(first + offset, last + offset)


class _Taps(torch.autograd.Function):
    """The convolution as a sum over its taps.

    Maps are laid out as channels×h×N×w here: the rows that a tap reads are then a matrix without a copy. Only columns
    are copied, once for all taps of a column.
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
    """Copy N×C×h×w to C×h×N×w."""
    return x.permute(1, 2, 0, 3).contiguous()


def _cut(maps: Tensor, columns: slice) -> Tensor:
    """Copy these columns of C×h×N×w; if they are all columns, return the maps themselves."""
    return maps[..., columns].contiguous()


def _room_for(maps: Tensor, columns: slice) -> Tensor:
    """Return where to add up these columns: the maps themselves if they are all columns, else zeros for `_put_back`."""
    part = maps[..., columns]
    return maps if part.shape == maps.shape else part.new_zeros(part.shape)


def _put_back(part: Tensor, maps: Tensor, columns: slice) -> None:
    if part is not maps:
        maps[..., columns] += part


def _matrix(maps: Tensor, rows: slice) -> Tensor:
    """View these rows of C×h×N×w as a matrix of C rows."""
    return maps[:, rows].flatten(1)
