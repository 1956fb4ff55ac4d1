"""What is known of a set of images and labels that were looked at, for `datasets.doctor` and for who plans shards."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from deeplab_ray.datasets.base import Pair
from deeplab_ray.datasets.formats import Value
from deeplab_ray.shards import Bad

MOST_VALUES = 4096
"""So many different values are counted over all labels, the most frequent."""

SignName = Literal[
    "turned",
    "left as stored",
    "fits",
    "not upright",
    "not stored",
    "void",
    "photo",
    "swapped",
    "lossy",
    "soft",
    "snapped",
    "unknown",
    "compared",
    "aligned",
    "aligned stored",
    "aligned upright",
]
"""What may be seen of a pair.

EXIF turns or mirrors its image ("turned", or "left as stored" by --exif ignore). By its size or its outlines the label
"fits" such an image, or is "not upright" where it should be and fits the stored picture, or "not stored" the other way
round; where sizes do not tell, outlines may: "aligned stored", "aligned upright".

All of the label is ignored ("void"). It is a photograph, and so is its image or not ("photo", "swapped"). Lossy
compression or smoothed borders gave it values that mean nothing ("lossy", "soft"), its format took the nearest colours
for such ("snapped"), or it has others ("unknown"). It was laid over its image ("compared"), and where its outlines are
the image's could be told ("aligned").
"""


@dataclass
class Sign:
    """How often something was seen that the doctor looks for."""

    images: int = 0
    pixels: int = 0
    """Pixels concerned, where it is about pixels."""
    most: int = 0
    """Different values in that label of them which has most."""
    example: str = ""
    """Id of the first."""
    detail: str = ""
    """What is to be said of the first."""

    def add(self, other: "Sign") -> None:
        self.images += other.images
        self.pixels += other.pixels
        self.most = max(self.most, other.most)
        if not self.example:
            self.example, self.detail = other.example, other.detail


@dataclass
class Facts:
    """What is known of many pairs. Picklable; the lists have an entry a pair, in the pairs' order."""

    ids: list[str] = field(default_factory=list)
    image_sha: list[bytes] = field(default_factory=list)
    """First 16 bytes of the image file's SHA-256."""
    label_sha: list[bytes | None] = field(default_factory=list)
    """The same of the label file and of what is drawn; None: no label."""
    bytes: list[int] = field(default_factory=list)
    """Size of both files."""
    sizes: list[tuple[int, int]] = field(default_factory=list)
    """Height and width in pixels of the image, upright unless `Options.exif` is off; (0, 0) where it is not known."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Labels of each kind (`Look.kind`)."""
    pixels: Counter[Value] = field(default_factory=Counter)
    """Pixels of each value over all labels, of those that look like labels. Values that are nothing but the smoothed
    border between two others are left out."""
    images_with: Counter[Value] = field(default_factory=Counter)
    """Labels in which a value occurs."""
    first_with: dict[Value, str] = field(default_factory=dict)
    """Id of the first label in which a value occurs."""
    snapped: Counter[int] = field(default_factory=Counter)
    """Pixels of each train id that got it as that of the nearest colour."""
    capped: bool = False
    """Whether there were more than MOST_VALUES values, of which the rare ones are left out."""
    coloured: bool = False
    """Whether some labels hold colours."""
    signs: dict[SignName, Sign] = field(default_factory=dict)
    unread: dict[str, Sign] = field(default_factory=dict)
    """Labels that are whole pictures but not of the kind that the dataset's labels have, by their kind."""
    misfits: dict[str, Sign] = field(default_factory=dict)
    """Labels of another size than their image, by how they differ, such as "are 1/2 as large as their images"."""
    offsets: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    """How far labels lie to the right of their images' outlines, and below, in pixels, and the accuracy of both."""
    bad: list[Bad] = field(default_factory=list)
    """Pairs that cannot be prepared, with the reason."""

    @property
    def labels(self) -> int:
        """Number of labels, readable or not."""
        return sum(sha is not None for sha in self.label_sha)

    def sign(self, name: SignName) -> Sign:
        """How often it was seen; of what was not, a Sign of zeros."""
        return self.signs.get(name, Sign())


def merge(parts: Iterable[Facts]) -> Facts:
    """The facts of all parts together, in their order."""
    whole = Facts()
    for part in parts:
        for name in ("ids", "image_sha", "label_sha", "bytes", "sizes", "bad"):
            getattr(whole, name).extend(getattr(part, name))
        for name in ("kinds", "pixels", "images_with", "snapped", "offsets"):
            getattr(whole, name).update(getattr(part, name))
        for name in ("signs", "unread", "misfits"):
            for key, sign in getattr(part, name).items():
                getattr(whole, name).setdefault(key, Sign()).add(sign)
        for value, id in part.first_with.items():
            whole.first_with.setdefault(value, id)
        whole.capped |= part.capped
        whole.coloured |= part.coloured
    if len(whole.pixels) > MOST_VALUES:
        whole.pixels = Counter(dict(whole.pixels.most_common(MOST_VALUES)))
        whole.images_with = Counter({value: whole.images_with[value] for value in whole.pixels})
        whole.first_with = {value: whole.first_with[value] for value in whole.pixels}
        whole.capped = True
    return whole


def of_bad(pair: Pair, reason: str) -> Facts:
    """The facts of a pair whose files could not even be got."""
    has_label = b"" if pair.has_label else None
    return Facts([pair.id], [b""], [has_label], [0], [(0, 0)], bad=[Bad(pair.id, reason)])
