"""A predicted image, and what a format makes of it. Shapes: C classes, H×W pixels, h×w cells of scores."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deeplab_ray.storage.location import Location


@dataclass(frozen=True)
class Prediction:
    """An image with its labels and all that they were made of."""

    id: str
    image: NDArray[np.uint8]
    """RGB, H×W×3."""
    labels: NDArray[np.uint8]
    """H×W train ids, after the CRF if it ran."""
    encoded: bytes
    """The image file as it came; if EXIF turns it, a PNG of `image`."""
    truth: bytes | None
    """The label as 8-bit PNG of train ids; None: it has none."""
    scores: NDArray[np.float16]
    """C×h×w, as the network gives them."""
    grid: str
    """Where the scores' cells lie on the image: `str` of a `deeplab_ray.models.grid.Grid`."""


class Format(Protocol):
    """A kind of file that is written for every image, in a folder of its own. Picklable, small."""

    @property
    def name(self) -> str:
        """What the user calls it."""

    def path(self, id: str) -> str:
        """Where an image's file belongs, relative to the output's folder; another for every id."""

    def encode(self, prediction: Prediction) -> bytes:
        """Return the file's content, the same bytes for the same prediction.

        Raises ValueError, with a short reason, for a prediction that the format cannot hold.
        """

    def finish(self, output: Location) -> str | None:
        """Write what belongs to all images together, once the files of all lie in `output`, in one step.

        Returns its URI; None if there is no such thing. May be called again.
        """
