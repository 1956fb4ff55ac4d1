"""Scores and probability maps that lie in files, ours and other people's, as an input of the CRF."""

import io
import json
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deeplab_ray.errors import UserError, first_sentence
from deeplab_ray.inputs import FolderInputs, open_inputs
from deeplab_ray.labels import ClassTable
from deeplab_ray.outputs.record import PREDICT
from deeplab_ray.storage.location import Location, locate

Kind = Literal["probabilities", "scores"]
"""What a map holds: numbers that sum to one at each pixel, or what goes into the softmax."""
ENDINGS = (".npy", ".npz")


def open_scores(uri: str, exclude: Location | None = None) -> FolderInputs:
    """The files of scores that jobs/predict.py wrote (format "scores") into the output `uri`, or below that folder, but
    for those in `exclude`.

    Raises UserError if there are none.
    """
    place = locate(uri)
    folder = place / "scores" if (place / "scores").exists() or (place / PREDICT).exists() else place
    inputs = FolderInputs(folder, ("*.parquet",), exclude)
    if not folder.exists() or not len(inputs.keys()):
        raise UserError(f"there are no scores below {place}: write them by jobs/predict.py --format scores")
    return inputs


def read_record(uri: str) -> dict[str, object]:
    """What jobs/predict.py was asked for when it wrote scores into `uri` or the folder above; {} if that is unknown."""
    place = locate(uri)
    for folder in (place, place.parent):
        try:
            fields = json.loads((folder / PREDICT).read_bytes())
        except (OSError, ValueError):
            continue
        return fields if isinstance(fields, dict) else {}
    return {}


@dataclass(frozen=True)
class MappedInputs:
    """Images with a map of probabilities or scores each: a .npy or .npz file of the same path in another folder."""

    images: FolderInputs
    maps: Location
    kind: Kind = "probabilities"

    @property
    def uri(self) -> str:
        return self.images.uri

    def keys(self) -> pa.Array:
        return self.images.keys()

    def read_map(self, key: str) -> NDArray[np.float32]:
        """The image's map, float32 C×h×w. Raises FileNotFoundError or ValueError if there is none, or it is none."""
        stem = key.rsplit(".", 1)[0]
        for ending in ENDINGS:
            try:
                content = (self.maps / f"{stem}{ending}").read_bytes()
            except FileNotFoundError:
                continue
            return decode_map(content)
        raise FileNotFoundError(f"there is no {stem}.npy or .npz below {self.maps}")


def open_maps(images_uri: str, maps_uri: str, kind: Kind, exclude: Location | None = None) -> MappedInputs:
    """Images below one folder, but for those in `exclude`, with their maps below another. Raises UserError if there are
    none."""
    inputs = open_inputs(images_uri, exclude=exclude)
    if not isinstance(inputs, FolderInputs):
        raise UserError(f"{images_uri} is a prepared set: --probabilities go with a folder of images")
    maps = locate(maps_uri)
    if not maps.exists():
        raise UserError(f"there is no folder {maps}: --probabilities is a folder of .npy or .npz files")
    return MappedInputs(inputs, maps, kind)


def decode_map(content: bytes) -> NDArray[np.float32]:
    """A .npy file, or a .npz file of one array → float32 C×h×w. Raises ValueError, with a short reason, for others."""
    try:
        loaded = np.load(io.BytesIO(content), allow_pickle=False)
        names = loaded.files if isinstance(loaded, np.lib.npyio.NpzFile) else None
        if names is not None:
            # Of what is no .npy file inside it gives the bytes.
            loaded = np.asarray(loaded[names[0]]) if len(names) == 1 else None
    except Exception as error:  # broken zip files raise almost anything
        raise ValueError(f"not a .npy or .npz file: {first_sentence(str(error)) or type(error).__name__}") from None
    if loaded is None:
        raise ValueError(f"a .npz file of {len(names or ())} arrays, not one")
    if loaded.ndim != 3 or loaded.shape[0] < 2 or not loaded.size:
        raise ValueError(f"a map of shape {loaded.shape}; it must be classes × rows × columns")
    if not np.issubdtype(loaded.dtype, np.floating):
        raise ValueError(f"a map of {loaded.dtype}, not of floating-point numbers")
    with np.errstate(over="ignore"):
        found = loaded.astype(np.float32)
    if not np.isfinite(found).all():
        raise ValueError("the map is not finite")
    return found


def anonymous(count: int) -> ClassTable:
    """Classes of which nothing is known but their number: names, and the colours that PASCAL VOC gives to numbers."""

    def colour(number: int) -> tuple[int, int, int]:
        parts = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                parts[channel] |= (number >> (3 * bit + channel) & 1) << (7 - bit)
        return parts[0], parts[1], parts[2]

    return ClassTable(
        names=tuple(f"class {number}" for number in range(count)),
        colours=tuple(colour(number) for number in range(count)),
        values=tuple(range(count)),
    )
