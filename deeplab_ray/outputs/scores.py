"""The format for the CRF: scores as the network gives them beside their image and label, one Parquet file an image."""

import io
import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from deeplab_ray.errors import quote
from deeplab_ray.outputs.names import safe_name
from deeplab_ray.outputs.prediction import Prediction
from deeplab_ray.storage.location import Location

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.binary()),
        ("label", pa.binary()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("scores", pa.binary()),
        ("scores_shape", pa.list_(pa.int32(), 3)),
        ("grid", pa.string()),
    ]
)
"""An image as `deeplab_ray.shards.SCHEMA` has it, its scores (float16, little-endian, C×h×w in C order), their shape
C, h, w, and the text of their grid."""

_DTYPE = np.dtype("<f2")


@dataclass(frozen=True)
class StoredScores:
    """What a file of scores holds. All sizes fit, all scores are finite."""

    id: str
    image: bytes
    """The image file as it came, or a PNG of the upright picture if EXIF turned it."""
    label: bytes | None
    """8-bit PNG of train ids, H×W; None: there is none."""
    height: int
    width: int
    scores: NDArray[np.float16]
    """C×h×w; not to be written to."""
    grid: str
    """`str` of a `deeplab_ray.models.grid.Grid`."""


@dataclass(frozen=True)
class Scores:
    """Parquet of one row, with checksums of its pages."""

    name = "scores"

    def path(self, id: str) -> str:
        return f"{self.name}/{safe_name(id)}.parquet"

    def encode(self, prediction: Prediction) -> bytes:
        """A label of another size than the image is left out: nothing can be measured against it.

        Raises ValueError for what `read_scores` would refuse: scores that are not finite or not C×h×w, an image of
        another size than the prediction; and for an id that is no Unicode (it has lone surrogates).
        """
        scores = prediction.scores
        if scores.ndim != 3 or not scores.size:
            raise ValueError(f"scores of {scores.shape} are not classes × rows × columns")
        if not np.isfinite(scores).all():
            raise ValueError("scores are not finite")
        height, width = prediction.labels.shape
        _check_size("image", prediction.encoded, height, width)
        truth = prediction.truth
        row = {
            "id": prediction.id,
            "image": prediction.encoded,
            "label": truth if truth and _size(truth) == (height, width) else None,
            "height": height,
            "width": width,
            "scores": scores.astype(_DTYPE).tobytes(),
            "scores_shape": scores.shape,
            "grid": prediction.grid,
        }
        try:
            table = pa.Table.from_pylist([row], SCHEMA)
        except UnicodeEncodeError:
            raise ValueError(f"the id {prediction.id!a} is no Unicode text") from None
        sink = pa.BufferOutputStream()
        # zstd pays for scores, not for PNG and JPEG files. Those of 19 classes at stride 8 on a drawn scene of
        # 1024×2048 (1.2 MB) shrink to 0.5 or 0.7, with a little or much noise on them, for 2 to 5 ms of one core and
        # 1 ms to read; the JPEG of its overlay takes 88 ms. Level 3 saves another 3 %, for twice the time or more.
        pq.write_table(
            table,
            sink,
            use_dictionary=False,
            write_statistics=False,
            compression={"scores": "zstd"},
            compression_level={"scores": 1},
            write_page_checksum=True,
        )
        return sink.getvalue().to_pybytes()

    def finish(self, output: Location) -> str | None:
        return None


def read_scores(content: bytes) -> StoredScores:
    """Return what `Scores.encode` put into a file.

    Raises ValueError, with a short reason, for anything else: a damaged or truncated file, other columns or rows,
    sizes that do not fit the image, the label or the scores, scores that are not finite.
    """
    try:
        table = pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
    except Exception as error:  # broken bytes raise almost anything in Arrow
        raise ValueError(f"not a Parquet file, or a damaged one ({quote(error)})") from None
    if not table.schema.equals(SCHEMA):
        raise ValueError(f"the columns are {', '.join(table.schema.names)}, or of other types: not a file of scores")
    if table.num_rows != 1:
        raise ValueError(f"{table.num_rows} rows: a file of scores has one")
    if empty := [name for name in SCHEMA.names if name != "label" and table[name].null_count]:
        raise ValueError(f"there is no {empty[0]}")
    try:
        row = table.to_pylist()[0]
    except UnicodeDecodeError:
        raise ValueError("the id or the grid is no text") from None
    height, width, shape = row["height"], row["width"], row["scores_shape"]
    if None in shape or min(height, width, *shape) < 1:
        raise ValueError(f"image of {height}×{width}, scores of {shape}: sizes must be positive")
    _check_size("image", row["image"], height, width)
    _check_size("label", row["label"], height, width)
    if len(row["scores"]) != _DTYPE.itemsize * math.prod(shape):
        raise ValueError(f"{len(row['scores'])} bytes of scores do not fit their shape {shape}")
    scores = np.frombuffer(row["scores"], _DTYPE).reshape(shape)
    if not np.isfinite(scores).all():
        raise ValueError("scores are not finite")
    return StoredScores(row["id"], row["image"], row["label"], height, width, scores, row["grid"])


def _check_size(name: str, data: bytes | None, height: int, width: int) -> None:
    """Raise ValueError unless an image file, if there is one, has this size."""
    if data is not None and (size := _size(data)) != (height, width):
        found = "unreadable" if size is None else f"of {size[0]}×{size[1]}"
        raise ValueError(f"the {name} is {found}, but should be of {height}×{width}")


def _size(data: bytes) -> tuple[int, int] | None:
    """Height and width by the file's first bytes; None if it is no image."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.height, image.width
    except Exception:  # broken bytes raise almost anything in Pillow's decoders
        return None
