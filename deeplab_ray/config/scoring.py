"""Options of scoring: scales, mirror images and tiles."""

from dataclasses import dataclass

from deeplab_ray.checks import check_types, require


@dataclass(frozen=True)
class ScoringConfig:
    """How images are scored in validation, evaluation and prediction."""

    test_scales: tuple[float, ...] = (1.0,)
    """Factors by which an image is scaled to be scored; the scores are averaged. Empty: score the image as it is."""
    test_mirror: bool = False
    """Average with the scores of the mirrored image, too."""
    tile: int = 0
    """Side in pixels of the tiles in which larger images are scored; 0: score whole images."""
    tile_overlap: int = 128
    """Least overlap of neighbouring tiles in pixels; their scores are blended there."""

    def __post_init__(self) -> None:
        check_types(self)
        if not self.test_scales:
            object.__setattr__(self, "test_scales", (1.0,))
        require(
            all(0 < scale <= 8 for scale in self.test_scales),
            f"test_scales {self.test_scales} must be factors in (0, 8]",
        )
        require(self.tile >= 0, f"tile {self.tile} must not be negative; 0 scores whole images")
        if self.tile:
            require(
                0 <= self.tile_overlap <= self.tile - 16,
                f"tile_overlap {self.tile_overlap} must lie in 0..{self.tile - 16} for tiles of {self.tile}",
            )
