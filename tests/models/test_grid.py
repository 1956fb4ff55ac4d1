"""Grids: where cells lie on the image, and how scores come back to its size."""

import pickle

import pytest
import torch
from torch.nn import functional as F

from deeplab_ray.models.grid import (
    CentreGrid,
    CornerGrid,
    DeconvolvedGrid,
    Grid,
    deconvolve,
    normalise,
    pad_to,
    parse,
)

GRID = CornerGrid(8)
EVERY: list[Grid] = [CornerGrid(8), CornerGrid(1), CentreGrid(), DeconvolvedGrid(8, 31)]


def test_grid_sizes_are_the_papers() -> None:
    assert [GRID.cells(n) for n in (1, 2, 8, 9, 10, 161, 241, 321)] == [1, 2, 2, 2, 3, 21, 31, 41]
    for n in range(1, 100):
        assert pad_to(torch.zeros(1, 3, n, 1), 8, 1).shape == (1, 3, 8 * (GRID.cells(n) - 1) + 1, 1)
        assert CornerGrid(1).cells(n) == n


def test_padding_goes_to_the_right_and_to_the_bottom() -> None:
    padded = pad_to(torch.ones(1, 1, 3, 4), 4, 2)
    assert padded.shape == (1, 1, 6, 6)
    assert padded[..., :3, :4].all()
    assert padded.sum() == 12


def test_labels_at_stride_are_every_eighth_pixel() -> None:
    label = torch.randint(0, 256, (2, 33, 41), dtype=torch.uint8)
    assert torch.equal(GRID.labels(label), label[:, ::8, ::8])
    assert GRID.labels(label).shape == (2, 5, 6)
    assert torch.equal(CornerGrid(1).labels(label[:, :32]), label[:, :32])
    for shape in ((1, 32, 33), (1, 33, 40)):
        with pytest.raises(ValueError, match=r"must be ≡ 1 \(mod 8\)"):
            GRID.labels(torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.parametrize(("height", "width"), [(33, 41), (1, 1), (30, 38), (2, 9)])
def test_upsampling_keeps_the_scores_at_multiples_of_8(height: int, width: int) -> None:
    scores = torch.randn(2, 3, GRID.cells(height), GRID.cells(width))
    full = GRID.to_image(scores, height, width)
    assert full.shape == (2, 3, height, width)
    exact = full[..., ::8, ::8]
    torch.testing.assert_close(exact, scores[..., : exact.shape[-2], : exact.shape[-1]], rtol=1e-6, atol=1e-6)


def test_upsampling_is_linear_between_the_scores() -> None:
    ramp = torch.arange(6.0).expand(1, 1, 5, 6)
    expected = (torch.arange(38) / 8).expand(1, 1, 30, 38)
    torch.testing.assert_close(GRID.to_image(ramp, 30, 38), expected)


@pytest.mark.parametrize(
    ("grid", "sentence"),
    [
        (GRID, "scores of 5×6 do not belong to an image of 34×41"),
        (CornerGrid(1), "scores of 5×6 do not belong to an image of 34×41"),
        (DeconvolvedGrid(8, 31), "scores of 5×6 are too few for an image of 34×41"),
    ],
)
def test_scores_of_another_image_are_refused(grid: Grid, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        grid.to_image(torch.zeros(1, 1, 5, 6), 34, 41)


def test_scores_at_every_pixel_stay_as_they_are() -> None:
    scores = torch.randn(2, 3, 7, 9)
    assert torch.equal(CornerGrid(1).to_image(scores, 7, 9), scores)


@pytest.mark.parametrize("grid", EVERY, ids=str)
def test_grids_survive_as_text_and_on_the_way_to_other_processes(grid: Grid) -> None:
    assert parse(str(grid)) == grid
    assert pickle.loads(pickle.dumps(grid)) == grid


@pytest.mark.parametrize("text", ["", "squares 8", "8", "corners 8 9", "corners of nothing"])
def test_text_that_is_no_grid_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"'{text}' is not a grid"):
        parse(text)


@pytest.mark.parametrize("grid", [CentreGrid(), DeconvolvedGrid(8, 31)], ids=str)
@pytest.mark.parametrize("mirrored", [False, True])
def test_what_is_combined_are_the_scores_of_the_pixels_at_the_cells(grid: Grid, mirrored: bool) -> None:
    """The last cell may lie behind the last pixel, whose score it then takes."""
    height, width = 30, 38
    scores = torch.randn(1, 2, 14, 14)
    full = grid.to_image(scores, height, width)
    full = full.flip(-1) if mirrored else full
    combined = grid.onto_combined(scores, height, width, mirrored)
    stride = grid.combined.stride
    assert combined.shape[-2:] == (grid.combined.cells(height), grid.combined.cells(width))
    for row in range(combined.shape[-2]):
        for column in range(combined.shape[-1]):
            pixel = full[..., min(stride * row, height - 1), min(stride * column, width - 1)]
            assert torch.equal(combined[..., row, column], pixel)


def test_centres_are_those_of_pixels() -> None:
    """A cell of 8×8 pixels has its centre between two of them."""
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    full = CentreGrid().to_image(ramp, 32, 32)[0, 0, 16]
    torch.testing.assert_close(full[4:28], (torch.arange(4, 28) + 0.5) / 8 - 0.5)


def test_deconvolution_is_bilinear() -> None:
    """Inside, a ramp stays a ramp; a filter is that of the authors' `upsample_filt`."""
    tent = deconvolve(torch.ones(1, 1, 1, 1), 2)[0, 0]
    row = torch.tensor([0.25, 0.75, 0.75, 0.25])
    torch.testing.assert_close(tent, row[:, None] * row)
    ramp = torch.arange(6.0).expand(1, 2, 6, 6)
    inside = deconvolve(ramp, 8)[0, 1, 20, 8:-8]
    torch.testing.assert_close(inside.diff(), torch.full((39,), 1 / 8))


def test_deconvolved_scores_are_cut_from_the_offset_on() -> None:
    scores = torch.randn(1, 2, 14, 15)
    full = F.conv_transpose2d(scores.transpose(0, 1), deconvolve(torch.ones(1, 1, 1, 1), 8), stride=8).transpose(0, 1)
    torch.testing.assert_close(DeconvolvedGrid(8, 31).to_image(scores, 30, 41), full[..., 31:61, 31:72])


def test_channels_come_first_and_normalised() -> None:
    images = torch.tensor([[[[10, 20, 30], [40, 50, 60]]]], dtype=torch.uint8)
    found = normalise(images, torch.tensor([10.0, 10.0, 10.0]), torch.tensor([1.0, 2.0, 10.0]))
    assert found.dtype == torch.float32
    assert found.tolist() == [[[[0.0, 30.0]], [[5.0, 20.0]], [[2.0, 5.0]]]]
