"""Options that every network has."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from deeplab_ray.checks import check_types, require


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Options of a network. Each network has its own subclass with further options (see `models.network`).

    In JSON they are an object with the network's `name` beside its options; on the command line each is a flag.
    Raises UserError if a value is of a wrong type or out of range.
    """

    name: ClassVar[str] = ""
    """The network's name in recipes."""
    built_by: ClassVar[Any] = None
    """The network's class; `models.network.register` sets it."""
    step: ClassVar[int] = 1
    """Sides of crops and tiles are ≡ `remainder` (mod `step`), in pixels."""
    remainder: ClassVar[int] = 0

    weights: str = "random"
    """Weights to start from: "random", or a path or s3:// URI of a file of weights or of a checkpoint."""
    channels: int = 3
    """Number of channels of an image; pretrained weights are for 3 (red, green, blue)."""

    def __post_init__(self) -> None:
        check_types(self)
        require(self.channels >= 1, f"channels {self.channels} must be at least 1; a colour image has 3")

    @classmethod
    def kinds(cls) -> dict[str, type["NetworkConfig"]]:
        """Return the options of every network whose module is imported, by the network's name."""
        found: dict[str, type[NetworkConfig]] = {}
        for kind in cls.__subclasses__():
            # Options that extend others' are another network only under a name of their own.
            own = {kind.name: kind} if vars(kind).get("name") else {}
            found |= own | kind.kinds()
        return found

    @property
    def classifier(self) -> str | None:
        """torchvision's name of the image classifier that the network is made from, whose weights can be downloaded;
        None: there is none."""
        return None

    def nearest_side(self, pixels: float) -> int:
        """Return the side in pixels, at least 17, that fits this network's grid and is nearest to `pixels`."""
        side = self.remainder + self.step * round((pixels - self.remainder) / self.step)
        return max(side, self.remainder + self.step * math.ceil((17 - self.remainder) / self.step))

    def check_side(self, what: str, pixels: int) -> None:
        """Raise UserError, naming `what` it is the side of, if a side of `pixels` does not fit this network's grid."""
        fits = pixels >= 17 and pixels % self.step == self.remainder
        smallest = self.nearest_side(17)
        lower = max(smallest, pixels - (pixels - self.remainder) % self.step)
        grid = f"stride-{self.step} grid" if self.step > 1 else "network"
        sizes = f" ≡ {self.remainder} (mod {self.step})" if self.step > 1 else " of at least 17 pixels"
        require(
            fits,
            f"{what} {pixels} does not fit the {grid}: take a size{sizes}, such as {lower} or {lower + self.step}",
        )

    def shares_classifier(self, other: "NetworkConfig") -> bool:
        """Return whether this network can take the last layers of one trained as `other` for the same classes."""
        return type(self) is type(other)
