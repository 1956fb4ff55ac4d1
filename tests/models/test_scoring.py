"""Scales, mirror images and tiles: what they leave as it is, and what they add up to."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.config.scoring import ScoringConfig
from deeplab_ray.models.configs import DeepLabV2Config, FCNConfig
from deeplab_ray.models.grid import CentreGrid, CornerGrid, normalise
from deeplab_ray.models.heads import fcn
from deeplab_ray.models.network import Network
from deeplab_ray.models.networks import create
from deeplab_ray.models.scoring import predict_labels, score_image, score_images

GRID = CornerGrid(8)


class Local(Network):
    """A network without borders: each cell scores the pixel at its place, outside the image the edge's."""

    def __init__(
        self, look: Callable[[Tensor], Tensor] = lambda x: x, stride: int = 8, step: int = 8, remainder: int = 1
    ) -> None:
        @dataclass(frozen=True)
        class LocalConfig(NetworkConfig):
            step: ClassVar[int]
            remainder: ClassVar[int]

        LocalConfig.step, LocalConfig.remainder = step, remainder
        super().__init__(LocalConfig(), 3, "caffe")
        self.grid, self.look = CornerGrid(stride), look
        self.seen: list[tuple[int, int]] = []
        self.eval()

    def prepare(self, images: Tensor) -> Tensor:
        height, width = images.shape[1:3]
        self.seen.append((height, width))
        remainder, step = self.config.remainder, self.config.step
        behind = (0, (remainder - width) % step, 0, (remainder - height) % step)
        return F.pad(normalise(images, self.mean, self.scale), behind, mode="replicate")

    def score(self, prepared: Tensor) -> Tensor:
        return self.look(prepared[..., :: self.grid.stride, :: self.grid.stride])


def noise(height: int, width: int, count: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, height, width, 3), generator=generator, dtype=torch.uint8)


def smooth(height: int, width: int) -> Tensor:
    """Linear in both directions, so that any bilinear resampling returns the same picture."""
    y, x = torch.arange(height).view(-1, 1), torch.arange(width).view(1, -1)
    return torch.stack([(x + 0 * y), (y + 0 * x), x + y], dim=-1)[None].float()


def scored(model: Network, images: Tensor, options: ScoringConfig) -> Tensor:
    scores, grid = score_images(model, images, options)
    assert grid == model.grid
    return scores


@functools.cache
def deeplab(head: str = "aspp-l", **options: object) -> Network:
    torch.manual_seed(0)
    model = create(DeepLabV2Config("resnet18", head, weights="random", **options), 4).eval()
    model.calibrate(noise(33, 33, 2))
    return model


@pytest.fixture(scope="module")
def small_fcn() -> Network:
    """FCN-8s with narrow fc6 and fc7, and scores that are not zero."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcn, "_CHANNELS", 16)
        model = create(FCNConfig("8s", weights="random"), 4).eval()
    for classifier in model.classifiers():
        torch.nn.init.normal_(classifier.get_parameter("weight"), std=0.1)
    return model


def test_without_options_the_network_sees_the_image_alone() -> None:
    model = Local()
    images = noise(30, 50)
    assert torch.equal(scored(model, images, ScoringConfig()), Local()(images))
    assert model.seen == [(30, 50)]


# Tiles


@pytest.mark.parametrize(("stride", "step", "remainder"), [(8, 8, 1), (1, 1, 0), (1, 2, 0), (1, 8, 1)])
@pytest.mark.parametrize(("height", "width"), [(65, 97), (50, 70), (1, 1), (1, 90)])
def test_tiles_leave_no_seam(height: int, width: int, stride: int, step: int, remainder: int) -> None:
    """A network whose view ends inside the overlap scores tiles as it scores the whole."""
    model, other = (Local(stride=stride, step=step, remainder=remainder) for _ in range(2))
    images, tile = noise(height, width), 32 + remainder
    scores = scored(model, images, ScoringConfig(tile=tile, tile_overlap=16))
    assert scores.shape[-2:] == (model.grid.cells(height), model.grid.cells(width))
    torch.testing.assert_close(scores, other(images))
    assert all(max(size) <= tile for size in model.seen)
    assert (len(model.seen) > 1) == (max(height, width) > tile)


@pytest.mark.parametrize("size", range(18, 200, 7))
@pytest.mark.parametrize(("tile", "overlap"), [(17, 0), (33, 8), (65, 40)])
@pytest.mark.parametrize("stride", [8, 1])
def test_tiles_cover_every_size_and_overlap_as_told(size: int, tile: int, overlap: int, stride: int) -> None:
    class Marks(Local):
        def prepare(self, images: Tensor) -> Tensor:
            starts.append(int(images[0, 0, 0, 0]))
            return super().prepare(images)

    starts: list[int] = []
    images = torch.arange(size).float().view(1, 1, size, 1).expand(1, 1, size, 3)
    model = Marks(stride=stride, step=stride)
    scores = scored(model, images, ScoringConfig(tile=tile, tile_overlap=overlap))
    assert scores.shape[-1] == model.grid.cells(size)
    assert starts == sorted(set(starts))
    assert all(start % stride == 0 for start in starts)
    ends = [min(start + tile, size) for start in starts]
    assert ends[-1] == size
    assert all(end - start >= min(overlap, size) for start, end in zip(starts[1:], ends[:-1], strict=True))


def test_blending_is_gradual_where_tiles_disagree() -> None:
    """Each tile scores its own constant: from one tile's middle to the next the mixture never jumps."""
    count = iter(range(100))
    model = Local(lambda x: torch.full_like(x[:, :1], float(next(count))))
    scores = scored(model, noise(9, 129), ScoringConfig(tile=65, tile_overlap=40))[0, 0, 0]
    steps = scores.diff()
    assert (steps >= 0).all()
    assert scores[0] == 0
    assert scores[-1] == scores.max()
    assert float(steps.max()) <= 0.5


# Scales and mirror images


@pytest.mark.parametrize(("stride", "step", "remainder"), [(8, 8, 1), (1, 1, 0), (1, 2, 0)])
def test_scores_of_scales_and_mirror_images_are_averaged_where_they_belong(
    stride: int, step: int, remainder: int
) -> None:
    """On a linear picture every scale and the mirror image say the same, at the same place."""
    for height, width in ((65, 97), (50, 71)):
        images = smooth(height, width)
        model, other = (Local(stride=stride, step=step, remainder=remainder) for _ in range(2))
        expected = model.grid.to_image(other(images), height, width)
        options = ScoringConfig(test_scales=(0.5, 1.0, 1.5), test_mirror=True)
        scores = scored(model, images, options)
        assert model.seen == [(round(height * scale), round(width * scale)) for scale in options.test_scales]
        inner = model.grid.to_image(scores, height, width)[..., 16:-24, 16:-24]
        torch.testing.assert_close(inner, expected[..., 16:-24, 16:-24], rtol=1e-3, atol=0.6)


def test_averages_are_averages() -> None:
    count = iter(range(100))
    model = Local(lambda x: torch.full_like(x[:, :1], float(next(count))))
    scores = scored(model, noise(33, 33), ScoringConfig(test_scales=(1.0, 2.0), test_mirror=True))
    torch.testing.assert_close(scores, torch.full_like(scores, (0 + 1 + 2 + 3) / 4))


def mirrored_by_hand(model: Network, images: Tensor) -> Tensor:
    """Scores at the cells of `images`, of the mean with those of the image that was padded and then flipped.

    Where pixel centres are aligned, or scores are of every pixel, nothing is padded: what is averaged is full-size.
    """
    height, width = images.shape[1:3]
    if isinstance(model.grid, CornerGrid):
        multiple = 32 if model.config.msc else 8
        padded = model.mean.repeat(1, height + (1 - height) % multiple, width + (1 - width) % multiple, 1)
        padded[:, :height, :width] = images
        mean = (model(padded) + model(padded.flip(2)).flip(3)) / 2
        return mean[..., : GRID.cells(height), : GRID.cells(width)]
    full, flipped = (model.grid.to_image(model(x), height, width) for x in (images, images.flip(2)))
    mean = (full + flipped.flip(3)) / 2
    if isinstance(model.grid, CentreGrid):
        rows, columns = ((8 * torch.arange(GRID.cells(n))).clamp(max=n - 1) for n in (height, width))
        return mean[..., rows, :][..., columns]
    return mean


def assert_mirrored_by_hand(model: Network, width: int) -> None:
    images = noise(26, width)
    scores, grid = score_images(model, images, ScoringConfig(test_mirror=True))
    expected = mirrored_by_hand(model, images)
    assert grid == model.grid.combined
    assert scores.shape[-2:] == (grid.cells(26), grid.cells(width))
    assert not torch.allclose(scores, model.grid.onto_combined(model(images), 26, width), atol=1e-2 * scores.std())
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5 * float(expected.std()))


@pytest.mark.parametrize("width", [57, 50, 55])
@pytest.mark.parametrize("msc", [False, True])
@pytest.mark.parametrize("alignment", ["corners", "centres"])
@torch.no_grad()
def test_mirroring_is_flipping_by_hand(width: int, msc: bool, alignment: str) -> None:
    assert_mirrored_by_hand(deeplab("plain", msc=msc, alignment=alignment), width)


@torch.no_grad()
def test_mirroring_for_fcn_is_flipping_by_hand(small_fcn: Network) -> None:
    assert_mirrored_by_hand(small_fcn, 50)


@torch.no_grad()
def test_the_mirror_image_of_a_mirrored_answer_is_the_answer() -> None:
    """With sizes on the grid, averaging over mirror images makes a network blind to left and right."""
    model = deeplab()
    images, options = noise(33, 57), ScoringConfig(test_mirror=True)
    scores = scored(model, images, options)
    mirrored = scored(model, images.flip(2), options)
    torch.testing.assert_close(mirrored.flip(3), scores, rtol=1e-3, atol=1e-3 * float(scores.std()))


# All together


@pytest.mark.parametrize(("alignment", "msc"), [("auto", False), ("auto", True), ("centres", False)])
@torch.no_grad()
def test_a_network_scores_any_size_with_all_options_on(alignment: str, msc: bool) -> None:
    model = deeplab("plain", alignment=alignment, msc=msc)
    options = ScoringConfig((0.5, 1.0), test_mirror=True, tile=33, tile_overlap=16)
    for height, width in ((1, 1), (2, 61), (47, 50)):
        scores, where = score_images(model, noise(height, width), options)
        assert where.to_image(scores, height, width).shape == (1, 4, height, width)
        assert torch.isfinite(scores).all()


@pytest.mark.parametrize("step", [1, 2])
def test_a_network_that_scores_every_pixel_does_so_with_all_options_on(step: int) -> None:
    options = ScoringConfig((0.5, 1.0, 1.5), test_mirror=True, tile=32, tile_overlap=16)
    for height, width in ((1, 1), (2, 61), (47, 50)):
        scores = scored(Local(stride=1, step=step, remainder=0), noise(height, width), options)
        assert scores.shape == (1, 3, height, width)
        assert torch.isfinite(scores).all()


@torch.no_grad()
def test_fcn_scores_every_pixel_under_scales_and_in_tiles(small_fcn: Network) -> None:
    images = noise(20, 31)
    for options in (ScoringConfig((0.5, 1.0)), ScoringConfig(tile=20, tile_overlap=0)):
        scores, grid = score_images(small_fcn, images, options)
        assert grid == CornerGrid(1)
        assert scores.shape == (1, 4, 20, 31)
    # One scale other than 1 is the network's answer at that size, interpolated at every pixel.
    scores, _ = score_images(small_fcn, images, ScoringConfig((2.0,)))
    double = F.interpolate(
        images.permute(0, 3, 1, 2).float(), scale_factor=2, mode="bilinear", align_corners=False, antialias=True
    )
    at_double = small_fcn.grid.to_image(small_fcn(double.permute(0, 2, 3, 1)), 40, 62)
    expected = F.interpolate(at_double, (20, 31), mode="bilinear", align_corners=False)
    torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-3 * float(expected.std()))


@torch.no_grad()
def test_an_images_labels_are_the_best_classes_of_its_pixels() -> None:
    model = deeplab()
    image = noise(33, 57)[0].numpy()
    scores, grid = score_image(model, image, torch.device("cpu"), "float32", ScoringConfig())
    labels = predict_labels(scores, grid, 33, 57)
    assert (labels.dtype, labels.shape) == (np.uint8, (33, 57))
    assert np.array_equal(labels[::8, ::8], model(torch.from_numpy(image)[None])[0].argmax(0).numpy())
    coarse, _ = score_image(model, image, torch.device("cpu"), "bfloat16", ScoringConfig())
    assert coarse.dtype == torch.float32
    assert not torch.equal(coarse, scores)
    torch.testing.assert_close(coarse, scores, rtol=0, atol=0.1 * float(scores.std()))
