"""What a set of images and labels holds, found by looking at each once before anything is written.

A pair costs one decode of its label and a look at its image's header. Labels that look odd are looked at again, and a
sample is laid over its images. What is kept of a pair takes some 100 bytes, so that the facts of a whole set fit into
one process: `datasets.doctor` tells what they mean.
"""

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from deeplab_ray.datasets.alignment import find_offset
from deeplab_ray.datasets.base import Pair
from deeplab_ray.datasets.facts import Facts, Sign, merge, of_bad
from deeplab_ray.datasets.formats import LabelFormat, Look, takes_nearest
from deeplab_ray.datasets.texture import PHOTO_VALUES, looks_even, numbers, texture, texture_of
from deeplab_ray.images import MAX_PIXELS, Header, decode_image, load, read_header
from deeplab_ray.labels import IGNORE
from deeplab_ray.shards import Bad

__all__ = ["Facts", "Options", "hashes", "look_at", "merge", "of_bad", "share_compared"]

# Smoothed borders hold several values that mean nothing, in lines instead of areas.
_SOFT_VALUES = 4
# While classes are not known, what covers less of a label than this may be a border.
_RARE = 0.01
_FACTORS = (2, 3, 4, 8)
_COMPARED = 64
_SMALL_SHIFT = 32


@dataclass(frozen=True)
class Options:
    """How a set is looked at."""

    max_pixels: int | None = MAX_PIXELS
    """Larger images are bad; None: no limit."""
    exif: bool = True
    """Whether images are turned as EXIF says, so that labels must fit the upright picture."""
    needs_labels: bool = True
    """Whether an image without a label is bad."""
    knows_values: bool = True
    """Whether a value that means nothing makes a label bad. It does not while the classes are still to be found."""
    compared: float = 1.0
    """Share of the pairs whose image is decoded, too, to see whether the label lies on it: see `share_compared`."""


def share_compared(pairs: int) -> float:
    """`Options.compared` for a split of so many pairs: enough of them, and at little cost."""
    return min(1.0, _COMPARED / max(pairs, 1))


def look_at(format: LabelFormat, pair: Pair, image: bytes, label: bytes, options: Options) -> Facts:
    """The facts of one pair, whose files hold `image` and `label` (empty if it has no label file)."""
    image_sha, label_sha = hashes(pair, image, label)
    facts = Facts(
        ids=[pair.id],
        image_sha=[image_sha],
        label_sha=[label_sha],
        bytes=[len(image) + len(label)],
        sizes=[(0, 0)],
    )
    try:
        if options.needs_labels and not pair.has_label:
            raise ValueError("it has no label file")
        header = read_header(image, options.max_pixels)
        facts.sizes = [header.upright if options.exif else header.stored]
        if header.turned:
            facts.signs["turned" if options.exif else "left as stored"] = Sign(1, example=pair.id)
        if pair.has_label:
            _look_at_label(facts, format, pair, image, label, header, options)
            if int.from_bytes(facts.image_sha[0][:4]) < options.compared * 2**32:
                _lay_over(facts, format, pair, image, label, header, options)
    except ValueError as error:
        facts.bad.append(Bad(pair.id, str(error)))
    return facts


def hashes(pair: Pair, image: bytes, label: bytes) -> tuple[bytes, bytes | None]:
    """`Facts.image_sha` and `Facts.label_sha` of a pair."""
    return _sha(image), _label_sha(pair, label) if pair.has_label else None


def _sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:16]


def _label_sha(pair: Pair, label: bytes) -> bytes:
    drawn = b"" if pair.drawn is None else json.dumps(pair.drawn, sort_keys=True, default=repr).encode()
    return _sha(label + b"\0" + drawn)


def _look_at_label(
    facts: Facts, format: LabelFormat, pair: Pair, image: bytes, label: bytes, header: Header, options: Options
) -> None:
    """Add what a label holds to the facts of its pair. ValueError with the reason if it is bad."""
    size = facts.sizes[0]
    try:
        look = format.look(label, *size, pair.drawn)
    except ValueError:
        _look_at_unread(facts, pair, image, label)
        raise
    facts.kinds[look.kind] += 1
    facts.coloured = any(isinstance(value, tuple) for value in look.counts)
    _look_at_values(facts, format, pair, image, label, look, options)
    own = (look.height, look.width)
    if own != size:
        sizes = f"label {own[1]}×{own[0]}, image {size[1]}×{size[0]}"
        sign = Sign(1, example=pair.id, detail=sizes)
        if own in (header.stored, header.upright):
            facts.signs["not upright" if options.exif else "not stored"] = sign
        else:
            facts.misfits[_size_difference(own, size)] = sign
    elif header.stored != header.upright:
        facts.signs["fits"] = Sign(1, example=pair.id)
    if own != size:
        raise ValueError(f"label is {own[1]}×{own[0]}, image {size[1]}×{size[0]} pixels")


def _look_at_values(
    facts: Facts, format: LabelFormat, pair: Pair, image: bytes, label: bytes, look: Look, options: Options
) -> None:
    """Count a label's values, and see whether they make a label at all. ValueError if one of them means nothing."""
    pixels = look.height * look.width
    if options.knows_values:
        good = {value for value in look.counts if format.train_id(value) is not None}
    else:
        good = {value for value, count in look.counts.items() if count >= _RARE * pixels}
    others = look.distinct - len(good)
    refused = train_ids = None
    if others and options.knows_values:
        try:  # it says in its own words what is wrong, unless it takes the nearest value instead
            train_ids = format.decode(label, *facts.sizes[0], pair.drawn)
        except ValueError as error:
            refused = error
    odd = pixels - sum(look.counts[value] for value in good)
    sign = Sign(1, odd, look.distinct, pair.id)
    counts = look.counts
    closer = None
    if others >= _SOFT_VALUES or look.distinct > PHOTO_VALUES:
        closer = texture_of(label, facts.coloured)
    borders = {} if closer is None else {v: n for v, n in closer.lines().items() if v not in good}
    if closer and closer.is_photo:
        facts.signs["swapped" if looks_even(image) else "photo"] = sign
        counts = {}
    elif train_ids is not None:
        facts.signs["snapped"] = sign
        counts = {value: look.counts[value] for value in good}
        facts.snapped.update(dict(enumerate(np.bincount(train_ids.ravel()).tolist())))
        for value, count in counts.items():
            facts.snapped[format.train_id(value) or 0] -= count
        facts.snapped = +facts.snapped
    elif others and refused and takes_nearest(format):
        counts = {value: count for value, count in look.counts.items() if value in good or count >= _RARE * pixels}
    elif others and look.kind.startswith("JPEG"):
        facts.signs["lossy"] = sign
        counts = {value: look.counts[value] for value in good}
    elif len(borders) >= _SOFT_VALUES:
        facts.signs["soft"] = Sign(1, sum(borders.values()), look.distinct, pair.id)
        counts = {value: count for value, count in look.counts.items() if value not in borders}
    facts.pixels.update(counts)
    facts.images_with.update(dict.fromkeys(counts, 1))
    facts.first_with.update(dict.fromkeys(counts, pair.id))
    if not others and all(format.train_id(value) == IGNORE for value in look.counts):
        facts.signs["void"] = Sign(1, pixels, example=pair.id)
    if refused:
        unknown = sum(count for value, count in counts.items() if value not in good)
        if unknown:
            facts.signs["unknown"] = Sign(1, unknown, look.distinct, pair.id)
        raise refused


def _look_at_unread(facts: Facts, pair: Pair, image: bytes, label: bytes) -> None:
    """Tell what a label is that is not of the kind which the dataset's labels have."""
    try:
        picture = load(label)
    except ValueError:
        return
    seen = texture(picture)
    sign = Sign(1, picture.height * picture.width, len(seen.values), pair.id)
    if seen.is_photo:
        facts.signs["swapped" if looks_even(image) else "photo"] = sign
    elif picture.format == "JPEG":
        facts.signs["lossy"] = sign
    else:
        equal = picture.mode == "RGB" and len({band.tobytes() for band in picture.split()}) == 1
        kind = f"{picture.format} of mode {picture.mode}" + (" with three equal channels" if equal else "")
        facts.unread[kind] = sign


def _lay_over(
    facts: Facts, format: LabelFormat, pair: Pair, image: bytes, label: bytes, header: Header, options: Options
) -> None:
    """See whether a good label's outlines are those of its image. ValueError if the image cannot be decoded."""
    if "photo" in facts.signs or "swapped" in facts.signs:
        return
    if header.turned and header.kind.startswith("TIFF"):  # which `decode_image` turns in any case
        return
    pixels = decode_image(image, options.exif, options.max_pixels)
    try:
        areas = numbers(load(label))
    except ValueError:  # it is no picture
        if not options.knows_values:
            return
        areas = format.decode(label, *facts.sizes[0], pair.drawn)
    sign = Sign(1, example=pair.id)
    facts.signs["compared"] = sign
    offset = find_offset(pixels, areas)
    if offset is not None:
        facts.signs["aligned"] = sign
        facts.offsets[offset] = 1
        if header.turned:
            facts.signs["fits"] = sign
    elif header.turned:
        other = decode_image(image, not options.exif, options.max_pixels)
        if other.shape == pixels.shape and find_offset(other, areas) is not None:
            facts.signs["aligned stored" if options.exif else "aligned upright"] = sign


def _size_difference(label: tuple[int, int], image: tuple[int, int]) -> str:
    """How labels of such a size differ from their images: the end of a sentence."""
    if label == image[::-1]:
        return "are turned by 90° against their images"
    for factor in _FACTORS:
        if all(abs(small * factor - large) < factor for small, large in zip(label, image, strict=True)):
            return f"are 1/{factor} as large as their images"
        if all(abs(small * factor - large) < factor for small, large in zip(image, label, strict=True)):
            return f"are {factor} times as large as their images"
    down, right = (mine - other for mine, other in zip(label, image, strict=True))
    if max(abs(down), abs(right)) <= _SMALL_SHIFT:
        return f"differ from their images by {right:+d} pixels in width and {down:+d} in height"
    return "have other sizes than their images"
