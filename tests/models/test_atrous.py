"""Atrous convolution on CPUs against PyTorch's own."""

import pytest
import torch
from torch import Tensor, nn, optim

from deeplab_ray.models import atrous
from deeplab_ray.models.atrous import AtrousConv2d, lay_out_by_taps


def twins(kernel: int, rate: int, bias: bool = True) -> tuple[AtrousConv2d, nn.Conv2d]:
    torch.manual_seed(0)
    options = {"padding": rate * (kernel - 1) // 2, "dilation": rate, "bias": bias}
    ours, theirs = AtrousConv2d(6, 10, kernel, **options), nn.Conv2d(6, 10, kernel, **options)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def results(convolution: nn.Conv2d, x: Tensor) -> list[Tensor]:
    """The output, and the gradients of the input and of all parameters."""
    x = x.clone().requires_grad_()
    y = convolution(x)
    generator = torch.Generator().manual_seed(1)
    return [y, *torch.autograd.grad(y, (x, *convolution.parameters()), torch.randn(y.shape, generator=generator))]


@pytest.mark.parametrize(("kernel", "rate"), [(3, 1), (3, 2), (3, 4), (3, 12), (3, 24), (4, 4), (4, 8), (7, 4), (1, 1)])
@pytest.mark.parametrize("size", [(13, 13), (5, 20), (1, 1), (30, 41)])
def test_output_and_gradients_are_those_of_pytorch(
    kernel: int, rate: int, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # However little there is to leave out.
    monkeypatch.setattr(atrous, "_WORTH", 1.0)
    ours, theirs = twins(kernel, rate)
    lay_out_by_taps(ours)
    x = torch.randn(2, 6, *size)
    found = results(ours, x)
    assert "_Taps" in str(found[0].grad_fn.next_functions)
    for value, expected in zip(found, results(theirs, x), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)


def test_taps_are_taken_only_where_they_leave_enough_out() -> None:
    ours, _ = twins(3, 12, bias=False)
    assert "_Taps" not in str(ours(torch.randn(1, 6, 21, 21)).grad_fn)
    lay_out_by_taps(ours)
    assert "_Taps" in str(ours(torch.randn(1, 6, 21, 21)).grad_fn)
    assert "_Taps" not in str(ours(torch.randn(1, 6, 200, 200)).grad_fn)
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(torch.randn(1, 6, 21, 21)).dtype == torch.bfloat16
    assert "_Taps" not in str(ours.eval()(torch.randn(1, 6, 21, 21)).grad_fn)


@pytest.mark.parametrize("fused", [False, True])
def test_kernels_laid_out_by_taps_learn_the_same(fused: bool) -> None:
    ours, theirs = twins(3, 4)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    lay_out_by_taps(ours)
    for name, value in ours.state_dict().items():
        assert torch.equal(value, before[name])
    for convolution, kind in ((ours, fused), (theirs, False)):
        optimizer = optim.SGD(convolution.parameters(), 0.01, momentum=0.9, weight_decay=5e-4, fused=kind)
        for step in range(3):
            optimizer.zero_grad()
            x = torch.randn(2, 6, 9, 9, generator=torch.Generator().manual_seed(step))
            convolution(x).square().mean().backward()
            optimizer.step()
    for value, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
