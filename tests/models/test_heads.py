"""Atrous convolution, the variants of LargeFOV, MSC's geometry and FCN's, each against an independent computation."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from deeplab_ray.config.recipe import SolverConfig
from deeplab_ray.models.configs import DeepLabV2Config, FCNConfig
from deeplab_ray.models.grid import DeconvolvedGrid
from deeplab_ray.models.heads import fcn
from deeplab_ray.models.heads.branches import BRANCHES, ResNetHead, VGGHead
from deeplab_ray.models.heads.multiscale import multiscale
from deeplab_ray.models.network import Network
from deeplab_ray.models.networks import create
from deeplab_ray.training.optimizer import build_optimizer
from deeplab_ray.training.step import train_step


@pytest.mark.parametrize("head", ["plain", "largefov", "k7r4", "k4r4", "k4r8", "aspp-l"])
@torch.no_grad()
def test_atrous_convolution_is_a_dense_one_with_the_zero_stuffed_kernel(head: str) -> None:
    torch.manual_seed(0)
    for branch in BRANCHES[head]:  # type: ignore[index]
        atrous = branch.convolution(3, 2)
        side = branch.rate * (branch.kernel - 1) + 1
        dense = nn.Conv2d(3, 2, side, padding=side // 2)
        dense.weight.zero_()
        dense.weight[:, :, :: branch.rate, :: branch.rate] = atrous.weight
        dense.bias.copy_(atrous.bias)  # type: ignore[union-attr, arg-type]
        x = torch.randn(1, 3, 41, 30)
        assert dense(x).shape[-2:] == x.shape[-2:]
        torch.testing.assert_close(atrous(x), dense(x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_branches_are_summed() -> None:
    for kind, head in ((VGGHead, "aspp-s"), (ResNetHead, "aspp-l")):
        model = kind(8, 3, head).eval()  # type: ignore[arg-type]
        x = torch.randn(1, 8, 9, 11)
        branches = next(iter(model.children()))
        assert len(branches) == 4  # type: ignore[arg-type]
        expected = sum(branch(x) for branch in branches)  # type: ignore[attr-defined]
        torch.testing.assert_close(model(x), expected)


def _bilinear_corners(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    """One plane, resampled with aligned corners, point by point."""
    h, w = plane.shape
    rows = np.arange(height) * ((h - 1) / max(1, height - 1))
    columns = np.arange(width) * ((w - 1) / max(1, width - 1))
    along = np.stack([np.interp(columns, np.arange(w), row) for row in plane])
    return np.stack([np.interp(rows, np.arange(h), column) for column in along.T], axis=1)


def test_msc_is_the_maximum_over_three_scales_with_aligned_corners() -> None:
    rng = np.random.default_rng(0)
    image = rng.standard_normal((33, 65))
    seen = []

    def network(images: torch.Tensor) -> torch.Tensor:
        seen.append(images[0, 0].numpy())
        return images[:, :1, ::8, ::8] * torch.tensor([1.0, -1.0]).view(1, 2, 1, 1)

    scores = multiscale(network, torch.from_numpy(image)[None, None], corners=True)
    assert [plane.shape for plane in seen] == [(33, 65), (25, 49), (17, 33)]  # ×0.75 and ×0.5 of 32 and 64
    np.testing.assert_allclose(seen[1], _bilinear_corners(image, 25, 49), atol=1e-12)
    np.testing.assert_allclose(seen[2], _bilinear_corners(image, 17, 33), atol=1e-12)
    parts = [_bilinear_corners(plane[::8, ::8], 5, 9) for plane in seen]
    np.testing.assert_allclose(scores.fused[0, 0], np.max(parts, axis=0), atol=1e-12)
    np.testing.assert_allclose(scores.fused[0, 1], -np.min(parts, axis=0), atol=1e-12)
    np.testing.assert_allclose(scores.three_quarters[0, 0], parts[1], atol=1e-12)
    assert scores.half.shape == (1, 2, 3, 5)


def test_msc_has_four_losses() -> None:
    """321 → 41 cells, and 21 at ×0.5: here 65 → 9 and 5, 41 → 6 and 3. In training all four scores come out."""
    torch.manual_seed(0)
    model = create(DeepLabV2Config("resnet18", "plain", weights="random", msc=True), 4).train()
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (2, 65, 41, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 4, (2, 65, 41), dtype=torch.uint8, generator=generator)
    labels[:, 20:, :20] = 255
    with torch.no_grad():
        scores = model(images)
        fused = scores[0]
        assert [tuple(part.shape[2:]) for part in scores] == [(9, 6)] * 3 + [(5, 3)]
        assert torch.equal(copy.deepcopy(model).eval()(images), fused)
        truth = [labels[:, ::8, ::8].long()] * 3 + [labels[:, ::16, ::16].long()]
        expected = sum(F.cross_entropy(s, t, ignore_index=255) for s, t in zip(scores, truth, strict=True))
    loss = train_step(model, build_optimizer(model, SolverConfig()), [(images, labels)])
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_sizes_of_msc_at_the_papers_crop() -> None:
    with torch.device("meta"):
        model = create(DeepLabV2Config("resnet101", "aspp-l", weights="random", msc=True), 21).train()
    scores = model(torch.empty(1, 321, 321, 3, dtype=torch.uint8, device="meta"))
    assert [tuple(part.shape[2:]) for part in scores] == [(41, 41)] * 3 + [(21, 21)]


# FCN


def _positions(stride: int, first: float, cells: int, channels: int) -> torch.Tensor:
    """Planes 1×channels×cells×cells whose first holds each column's centre in pixels of the image, plus 200."""
    planes = torch.zeros(1, channels, cells, cells)
    planes[:, 0] = first + 200 + stride * torch.arange(cells)
    return planes


def _pick_first(layer: nn.Conv2d) -> None:
    """Output channel by channel the middle of the first input."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    middle = layer.kernel_size[0] // 2
    layer.weight.data[:, 0, middle, middle] = 1


@pytest.mark.parametrize(
    ("variant", "grid", "scores"),
    [("32s", DeconvolvedGrid(32, 19), 1), ("16s", DeconvolvedGrid(16, 27), 2), ("8s", DeconvolvedGrid(8, 31), 3)],
)
@torch.no_grad()
def test_fcns_scores_meet_and_come_back_where_they_saw_the_image(
    variant: str, grid: DeconvolvedGrid, scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers that score the place they look at: after both crops, every pixel has its own, once a layer.

    Convolutions of the first block see pixels −99, −98, … (padding 100, one lost to the 3×3); pools of 2×2 put
    the centre of cell k of pool n at 2ⁿk + (2ⁿ − 1)/2 − 99.
    """
    monkeypatch.setattr(fcn, "_CHANNELS", 2)
    with torch.device("meta"):
        assert create(FCNConfig(variant, weights="random"), 2).grid == grid
    model = fcn.FCNHead(4, 2, variant).eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            _pick_first(module)
    pools = tuple(
        _positions(2**n, (2**n - 1) / 2 - 99, cells, channels)
        for n, cells, channels in ((3, 60, 256), (4, 30, 512), (5, 15, 4))
    )
    full = grid.to_image(model(pools), 200, 200)[0, 1] / scores
    # Before the first window's centre and behind the last the deconvolution thins out.
    torch.testing.assert_close(full[100, 32:168], 200.0 + torch.arange(32, 168), rtol=1e-5, atol=1e-3)


@pytest.fixture(scope="module")
def fcn_outline() -> Network:
    with torch.device("meta"):
        return create(FCNConfig("8s", weights="random"), 21)


def test_fcns_scores_are_at_full_size_in_training(fcn_outline: Network) -> None:
    image = torch.empty(1, 33, 57, 3, dtype=torch.uint8, device="meta")
    (full,) = fcn_outline.train()(image)
    assert full.shape == (1, 21, 33, 57)
    coarse = fcn_outline.eval()(image)
    assert coarse.shape[-1] < 57
    assert fcn_outline.grid.to_image(coarse, 33, 57).shape == (1, 21, 33, 57)


def test_fcns_score_layers_start_at_zero() -> None:
    """FCN-16s then starts at the output of the FCN-32s whose weights it takes."""
    for layer in (fcn._score(512, 21), fcn._score(256, 21)):
        assert not layer.weight.any()
        assert not layer.bias.any()
