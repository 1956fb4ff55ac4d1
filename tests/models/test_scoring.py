"""Scales, mirror images and tiles: what they leave as it is, and what they add up to."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from deeplab_ray.config.recipe import ModelConfig, TestConfig
from deeplab_ray.models import DeepLab, grid_size, score_images, upsample_scores


class Local(nn.Module):
    """A network without borders: each cell scores the pixels around its own, outside the image the edge's."""

    alignment = "corners"

    def __init__(self, look: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.look = look
        self.seen: list[tuple[int, int]] = []

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[1:3]
        self.seen.append((height, width))
        rows, columns = ((8 * torch.arange(grid_size(n))).clamp(max=n - 1) for n in (height, width))
        return self.look(images.permute(0, 3, 1, 2).float()[..., rows, :][..., columns])


def noise(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (1, height, width, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def smooth(height: int, width: int) -> Tensor:
    """Linear in both directions, so that any bilinear resampling returns the same picture."""
    y, x = torch.arange(height).view(-1, 1), torch.arange(width).view(1, -1)
    return torch.stack([(x + 0 * y), (y + 0 * x), x + y], dim=-1)[None].float()


def scored(model: nn.Module, images: Tensor, options: TestConfig) -> Tensor:
    scores, alignment = score_images(model, images, options)  # type: ignore[arg-type]
    assert alignment == "corners"
    return scores


def test_without_options_the_network_sees_the_image_alone() -> None:
    model = Local()
    images = noise(30, 50)
    assert torch.equal(scored(model, images, TestConfig()), Local()(images))
    assert model.seen == [(30, 50)]


@pytest.mark.parametrize(("height", "width"), [(65, 97), (50, 70), (1, 1), (1, 90)])
def test_tiles_leave_no_seam(height: int, width: int) -> None:
    """A network whose view ends inside the overlap scores tiles as it scores the whole."""
    model = Local()
    images = noise(height, width)
    options = TestConfig(tile=33, tile_overlap=16)
    torch.testing.assert_close(scored(model, images, options), Local()(images))
    assert all(max(size) <= 33 for size in model.seen)
    assert (len(model.seen) > 1) == (max(height, width) > 33)


@pytest.mark.parametrize("size", range(18, 200, 7))
@pytest.mark.parametrize(("tile", "overlap"), [(17, 0), (33, 8), (65, 40)])
def test_tiles_cover_every_size_and_overlap_as_told(size: int, tile: int, overlap: int) -> None:
    class Marks(Local):
        def forward(self, images: Tensor) -> Tensor:
            starts.append(int(images[0, 0, 0, 0]))
            return super().forward(images)

    starts: list[int] = []
    images = torch.arange(size).float().view(1, 1, size, 1).expand(1, 1, size, 3)
    scores = scored(Marks(), images, TestConfig(tile=tile, tile_overlap=overlap))
    assert scores.shape[-1] == grid_size(size)
    assert starts == sorted(set(starts))
    assert all(start % 8 == 0 for start in starts)
    ends = [min(start + tile, size) for start in starts]
    assert ends[-1] == size
    assert all(end - start >= min(overlap, size) for start, end in zip(starts[1:], ends[:-1], strict=True))


def test_blending_is_gradual_where_tiles_disagree() -> None:
    """Each tile scores its own constant: from one tile's middle to the next the mixture never jumps."""
    count = iter(range(100))
    model = Local(lambda x: torch.full_like(x[:, :1], float(next(count))))
    scores = scored(model, noise(9, 129), TestConfig(tile=65, tile_overlap=40))[0, 0, 0]
    steps = scores.diff()
    assert (steps >= 0).all()
    assert scores[0] == 0
    assert scores[-1] == scores.max()
    assert float(steps.max()) <= 0.5


def test_scores_of_scales_and_mirror_images_are_averaged_where_they_belong() -> None:
    """On a linear picture every scale and the mirror image say the same, at the same place."""
    for height, width in ((65, 97), (50, 71)):
        images = smooth(height, width)
        expected = upsample_scores(Local()(images), height, width)
        model = Local()
        options = TestConfig(test_scales=(0.5, 1.0, 1.5), test_mirror=True)
        scores = scored(model, images, options)
        assert len(model.seen) == 6
        assert model.seen[0] == (round(height * 0.5), round(width * 0.5))
        inner = upsample_scores(scores, height, width)[..., 16:-24, 16:-24]
        torch.testing.assert_close(inner, expected[..., 16:-24, 16:-24], rtol=1e-3, atol=0.6)


def test_averages_are_averages() -> None:
    count = iter(range(100))
    model = Local(lambda x: torch.full_like(x[:, :1], float(next(count))))
    scores = scored(model, noise(33, 33), TestConfig(test_scales=(1.0, 2.0), test_mirror=True))
    torch.testing.assert_close(scores, torch.full_like(scores, (0 + 1 + 2 + 3) / 4))


@pytest.mark.parametrize("alignment", ["auto", "centres"])
@torch.no_grad()
def test_a_network_scores_any_size_with_all_options_on(alignment: str) -> None:
    torch.manual_seed(0)
    config = ModelConfig("voc12", "resnet18", "plain", "random", alignment=alignment)  # type: ignore[arg-type]
    model = DeepLab(config, 4).eval()
    options = TestConfig((0.5, 1.0), test_mirror=True, tile=33, tile_overlap=16)
    for height, width in ((1, 1), (2, 61), (47, 50)):
        scores, where = score_images(model, noise(height, width), options)
        assert upsample_scores(scores, height, width, where).shape == (1, 4, height, width)
        assert torch.isfinite(scores).all()


@torch.no_grad()
def test_the_mirror_image_of_a_mirrored_answer_is_the_answer() -> None:
    """With sizes on the grid, averaging over mirror images makes a network blind to left and right."""
    torch.manual_seed(0)
    model = DeepLab(ModelConfig("voc12", "resnet18", "aspp-l", "random"), 4).eval()
    images, options = noise(33, 57), TestConfig(test_mirror=True)
    scores = scored(model, images, options)
    mirrored = scored(model, images.flip(2), options)
    torch.testing.assert_close(mirrored.flip(3), scores, rtol=1e-3, atol=1e-3 * float(scores.std()))
