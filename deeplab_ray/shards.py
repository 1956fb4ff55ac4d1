"""Shards: Parquet files of encoded images and labels, and the manifest that says which of them count.

    OUTPUT/<split>/manifest.json
    OUTPUT/<split>/shards-<digest of what was prepared>/00000.parquet

A prepared split describes itself: its manifest holds the classes with their colours and values, so that whoever
trains, measures or predicts needs nothing of the dataset that it was made of. The manifest is written last, and what
it does not name does not exist for a reader.

Every row is a row group of its own, without dictionary, statistics or compression (the bytes are PNG and JPEG files),
so that any one sample is a single range read. Two checks keep a damaged shard from being taken for a whole one: a
shard that is read whole is compared with the manifest's sha256; a range read verifies the pages' checksums and the
file's size.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deeplab_ray.errors import UserError
from deeplab_ray.labels import ClassTable
from deeplab_ray.storage.location import Location, locate
from deeplab_ray.storage.patience import with_patience

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.binary()),
        ("label", pa.binary()),
        ("height", pa.int32()),
        ("width", pa.int32()),
    ]
)
"""A sample: its id, the image file's bytes as they came or as a PNG (see `images.normalise`), the label as an 8-bit PNG
of train ids (null: it has none), height and width in pixels (of both)."""

FORMAT = 2
"""Version of all this. A set of another one is refused."""
MANIFEST = "manifest.json"
_OPEN_SHARDS = 256


@dataclass(frozen=True)
class Shard:
    """One Parquet file."""

    path: str
    """Relative to the split's folder."""
    rows: int
    sha256: str
    bytes: int
    unlabelled: tuple[int, ...] = ()
    """Numbers of the rows that have no label."""

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Shard":
        """What `asdict` gave, after its way through JSON."""
        return cls(**{**fields, "unlabelled": tuple(fields["unlabelled"])})


@dataclass(frozen=True)
class Bad:
    """A pair that was left out, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """What a prepared split is, and what it holds."""

    reader: str
    """Name of the dataset whose module read it."""
    split: str
    classes: ClassTable
    pixels: list[int]
    """Labelled pixels of each class."""
    shards: list[Shard]
    bad: list[Bad]
    options: dict[str, Any] = field(default_factory=dict)
    """What it was asked for that decides what it holds, such as tiles; what is left out was not asked for."""
    dropped: int = 0
    """Images left out because they show too little of any object."""
    changed: dict[str, int] = field(default_factory=dict)
    """Images that are not the file as it came, by why they are not."""
    findings: list[dict[str, Any]] = field(default_factory=list)
    """What was odd about the files, the most serious first: severity, code, message, fix."""

    @property
    def images(self) -> int:
        return sum(shard.rows for shard in self.shards)

    @property
    def labelled(self) -> int:
        """Number of images that have a label."""
        return self.images - sum(len(shard.unlabelled) for shard in self.shards)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over the class table and, in order, the shards' digests and row counts: equal if the same bytes
        lie in the same shards and mean the same."""
        table = json.dumps(self.classes.to_json(), sort_keys=True)
        lines = (f"{shard.sha256} {shard.rows}\n" for shard in self.shards)
        return hashlib.sha256("".join([table, *lines]).encode()).hexdigest()

    def to_json(self) -> str:
        fields = {
            "format": FORMAT,
            "reader": self.reader,
            "split": self.split,
            **self.classes.to_json(),
            "images": self.images,
            "labelled": self.labelled,
            "pixels": self.pixels,
            "digest": self.digest,
            "shards": [asdict(shard) for shard in self.shards],
            "bad": [asdict(bad) for bad in self.bad],
            "options": self.options,
            "dropped": self.dropped,
            "changed": self.changed,
            "findings": self.findings,
        }
        return json.dumps(fields, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Manifest":
        """Raises ValueError if the text is not a manifest of this format, or contradicts itself."""
        try:
            fields = json.loads(text)
            if fields["format"] != FORMAT:
                raise ValueError(f"format {fields['format']}, not {FORMAT}")
            manifest = cls(
                reader=fields["reader"],
                split=fields["split"],
                classes=ClassTable.from_json(fields),
                pixels=fields["pixels"],
                shards=[Shard.from_json(shard) for shard in fields["shards"]],
                bad=[Bad(**bad) for bad in fields["bad"]],
                # These came later.
                options=fields.get("options", {}),
                dropped=fields.get("dropped", 0),
                changed=fields.get("changed", {}),
                findings=fields.get("findings", []),
            )
            for name in ("images", "labelled", "digest"):
                if fields[name] != getattr(manifest, name):
                    raise ValueError(f"{name} is not what its shards add up to")
            if len(manifest.pixels) != len(manifest.classes):
                raise ValueError(f"{len(manifest.classes)} classes, but pixels of {len(manifest.pixels)}")
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a manifest: {error}") from None
        return manifest


@dataclass(frozen=True)
class Sample:
    """One image and its label (8-bit PNG of train ids; None: it has none), encoded; height and width in pixels."""

    id: str
    image: bytes
    label: bytes | None
    height: int
    width: int


@dataclass(frozen=True)
class Split:
    """A prepared split. Picklable; opens its files when they are first read, and may be read by many threads.

    Samples are counted through the shards in the manifest's order, then through their rows.
    """

    folder: Location
    manifest: Manifest

    @property
    def classes(self) -> ClassTable:
        return self.manifest.classes

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(shard.rows for shard in self.manifest.shards))

    def paths(self) -> list[str]:
        """The shards' paths, as `folder.filesystem` wants them."""
        return [(self.folder / shard.path).path for shard in self.manifest.shards]

    def labelled(self) -> Sequence[int]:
        """The samples that have a label, in their order."""
        if self.manifest.labelled == len(self):
            return range(len(self))
        without = {
            end - shard.rows + row
            for end, shard in zip(self._ends, self.manifest.shards, strict=True)
            for row in shard.unlabelled
        }
        return [index for index in range(len(self)) if index not in without]

    def place(self, index: int) -> tuple[Shard, int]:
        """The shard that holds sample `index`, and its row there. IndexError outside of 0 ≤ index < len(self)."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)} in {self.folder}")
        number = bisect_right(self._ends, index)
        return self.manifest.shards[number], index - (self._ends[number - 1] if number else 0)

    def read(self, index: int) -> Sample:
        """Sample `index`, 0 ≤ index < len(self), by one range read (and one more for a shard's first).

        Raises IndexError outside of the range, UserError naming the shard if it is damaged or missing, OSError if
        storage fails.
        """
        shard, row = self.place(index)
        try:
            file, footer = _open(self.folder / shard.path, shard.bytes)
            reader = pq.ParquetFile(file, metadata=footer, pre_buffer=True, page_checksum_verification=True)
            return _samples(reader.read_row_group(row))[0]
        except FileNotFoundError:
            raise _missing(self.folder / shard.path) from None
        except (OSError, pa.ArrowException):
            # Either it is damaged or storage failed, perhaps as the keys that it was opened with have expired: read
            # whole, and anew, which tells.
            _open.cache_clear()
            return read_shard(self.folder, shard)[row]


def read_shard(folder: Location, shard: Shard) -> list[Sample]:
    """All samples of a shard of the split in `folder`, once its sha256 is found to be the manifest's.

    Raises UserError naming the shard if it is damaged or missing, OSError if storage fails.
    """
    location = folder / shard.path
    try:
        content = location.read_bytes()
    except FileNotFoundError:
        raise _missing(location) from None
    if hashlib.sha256(content).hexdigest() != shard.sha256:
        raise UserError(
            f"shard {location} is damaged (its sha256 is not the manifest's): copy it again from where it is whole, "
            "or prepare the set again with --overwrite"
        )
    return _samples(pq.read_table(pa.BufferReader(content)))


def _missing(location: Location) -> UserError:
    return UserError(
        f"shard {location} is missing: copy it again from where it is whole, or prepare the set again with --overwrite"
    )


def _samples(table: pa.Table) -> list[Sample]:
    if not table.schema.equals(SCHEMA):
        raise pa.ArrowInvalid(f"the columns are {table.schema.names}")
    return [Sample(**row) for row in table.to_pylist()]


@lru_cache(maxsize=_OPEN_SHARDS)
def _open(location: Location, size: int) -> tuple[pa.NativeFile, pq.FileMetaData]:
    """A shard's handle and footer; OSError unless the file has `size` bytes.

    Shards never change, and reading a handle at offsets is thread-safe.
    """
    file = location.filesystem.open_input_file(location.path)
    if file.size() != size:
        raise OSError(f"{location} has {file.size()} bytes, not {size}")
    return file, pq.read_metadata(file)


def write_shard(folder: Location, name: str, rows: Iterable[Mapping[str, Any]]) -> Shard | None:
    """Write rows of SCHEMA to folder/name in one step; `Shard.path` is the folder's name / name.

    The file is put together in memory. Nothing is written, and None returned, if there are no rows. Storage that fails
    is waited for; raises JobError if it goes on failing.
    """
    sink = pa.BufferOutputStream()
    count = 0
    unlabelled = []
    with pq.ParquetWriter(
        sink, SCHEMA, use_dictionary=False, write_statistics=False, compression="none", write_page_checksum=True
    ) as writer:
        for row in rows:
            if row["label"] is None:
                unlabelled.append(count)
            writer.write_table(pa.Table.from_pylist([row], SCHEMA))
            count += 1
    if not count:
        return None
    content = sink.getvalue()
    with_patience(lambda: (folder / name).write_bytes(content), folder / name)
    digest = hashlib.sha256(content).hexdigest()
    return Shard(f"{folder.name}/{name}", count, digest, content.size, tuple(unlabelled))


def open_split(uri: str, split: str) -> Split:
    """The prepared split at uri/split, or at uri itself if that is a split's folder.

    Raises UserError if there is none, if its manifest is broken, and if it is of another format.
    """
    for folder in (locate(uri) / split, locate(uri)):
        try:
            text = (folder / MANIFEST).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        _check_format(folder, text)
        try:
            manifest = Manifest.from_json(text)
        except ValueError as error:
            raise UserError(f"{folder / MANIFEST} is broken ({error}): prepare again with --overwrite") from None
        if manifest.split != split:
            raise UserError(f"{folder} holds the split {manifest.split!r}, not {split!r}")
        return Split(folder, manifest)
    raise UserError(f"no prepared split {split!r} at {locate(uri)}: run jobs/prepare.py with --output {uri}")


def _check_format(folder: Location, text: bytes) -> None:
    """Raise UserError for a manifest of another format; what is no manifest at all passes."""
    try:
        fields = json.loads(text)
    except ValueError:
        return
    # The first format had no number.
    if not isinstance(fields, dict) or not {"format", "dataset"} & set(fields) or fields.get("format") == FORMAT:
        return
    name = fields.get("reader") or fields.get("dataset")
    raise UserError(
        f"{folder} was prepared by another version (format {fields.get('format', 1)}; this one reads {FORMAT}): "
        f"prepare it again by jobs/prepare.py {name} --source FOLDER --output {folder.parent} --overwrite"
    )


def require_labels(split: Split) -> None:
    """Raise UserError for a split without a single labelled pixel, on which nothing can be learnt or measured."""
    if not sum(split.manifest.pixels):
        raise UserError(
            f"{split.folder} has no labelled pixel (images with a label: {split.manifest.labelled} of {len(split)}): "
            "take a split whose labels are public, or prepare it again with its labels"
        )


def check_pair(train: Split, validation: Split | None, channels: int) -> None:
    """Raise UserError unless a network for images of `channels` can be trained on one split and validated on the other:
    both have labelled pixels and the same classes, and images are of three colours."""
    if channels != 3:
        raise UserError(f"channels {channels}: the images of a prepared set have 3: leave out --channels")
    require_labels(train)
    if validation is None:
        return
    require_labels(validation)
    if train.classes.names != validation.classes.names:
        raise UserError(
            f"{train.folder} and {validation.folder} have other classes ({', '.join(train.classes.names)}; "
            f"{', '.join(validation.classes.names)}): prepare both from one dataset"
        )
