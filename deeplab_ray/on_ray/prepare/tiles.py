"""Tiles that cover an image, for images too large to be read whole a thousand times."""

from dataclasses import dataclass
from typing import NamedTuple

from deeplab_ray.errors import UserError


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def name(self, id: str) -> str:
        """Id of this part of an image."""
        return f"{id}_y{self.top}_x{self.left}"


@dataclass(frozen=True)
class Tiling:
    """Tiles of one size, whose neighbours overlap. Raises UserError for a size or an overlap that cannot be."""

    height: int
    width: int
    overlap: int = 0
    """Pixels that neighbours share at least."""

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1:
            raise UserError(f"--tiles {self.height} {self.width}: a tile has at least one pixel")
        if not 0 <= self.overlap < min(self.height, self.width):
            raise UserError(
                f"--overlap {self.overlap} must be at least 0 and below --tiles {self.height} {self.width}: neighbours "
                "have to differ"
            )

    def boxes(self, height: int, width: int) -> list[Box]:
        """The tiles of an image, row by row; none if it is no larger than a tile, so that it stays whole.

        The last of a row or column is moved back, so that all have full size. Along a side that is shorter than a tile
        there is one, as long as that side.
        """
        if height <= self.height and width <= self.width:
            return []
        return [
            Box(top, left, min(self.height, height), min(self.width, width))
            for top in self._starts(height, self.height)
            for left in self._starts(width, self.width)
        ]

    def _starts(self, length: int, size: int) -> list[int]:
        last = max(0, length - size)
        return [*range(0, last, size - self.overlap), last]
