"""Formats of label maps: one PNG an image, as the benchmarks of Cityscapes and PASCAL VOC take it, or of any values."""

import io
import re
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deeplab_ray.labels import ClassTable
from deeplab_ray.outputs.archive import write_tar
from deeplab_ray.outputs.names import safe_name
from deeplab_ray.outputs.prediction import Prediction
from deeplab_ray.storage.location import Location

VOC_FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"
"""Where the evaluation server looks for segmentations by a method that was trained on more than VOC's own images."""

# The colour of void in VOC's own label files.
_VOC_VOID = (224, 224, 192)
_PALETTE_LEVEL = 6


@dataclass(frozen=True)
class Cityscapes:
    """Label maps as Cityscapes' evaluation takes them: 8-bit PNG of the table's own values (label ids), H×W.

    The official script finds a file below its results' folder by the beginning of its name,
    `<city>_<sequence>_<frame>`.
    """

    classes: ClassTable
    name = "cityscapes"

    def path(self, id: str) -> str:
        """Return `cityscapes/<tree>/<city>_<sequence>_<frame>_pred_labelIds.png`.

        With F for frankfurt_000000_000294:

            val/frankfurt/F_leftImg8bit               val/frankfurt/F_pred_labelIds.png
            leftImg8bit/val/frankfurt/F_leftImg8bit   the same: one image, seen from the folder above
            F                                         frankfurt/F_pred_labelIds.png
            frankfurt/F_leftImg8bit                   frankfurt/F_leftImg8bit_pred_labelIds.png
            val/frankfurt/F                           val/frankfurt/F_labelIds.png
            anything else                             its `safe_name`, and _pred_labelIds.png

        The second line is the only case of two ids with one path. The fourth keeps its ending, and the fifth has
        another one, since they would take the paths of the third and the first.
        """
        cut = id.rfind("/") + 1
        folder, file = id[:cut], id[cut:]
        frame = re.fullmatch(r"(([^_]+)_[0-9]+_[0-9]+)(_leftImg8bit)?", file)
        ending = "_pred_labelIds.png"
        if not frame:
            key = id
        elif not frame[3]:
            key = f"{folder}{file}" if folder else f"{frame[2]}/{file}"
            ending = "_labelIds.png" if folder else ending
        elif folder == f"{frame[2]}/":
            key = id
        else:
            official = re.fullmatch(rf"leftImg8bit/([^/]+/{re.escape(frame[2])}/)", folder)
            key = f"{official[1] if official else folder}{frame[1]}"
        return f"{self.name}/{safe_name(key)}{ending}"

    def encode(self, prediction: Prediction) -> bytes:
        """Raises ValueError for a train id that the table lacks."""
        return _grey_png(self.classes.to_values(prediction.labels))

    def finish(self, output: Location) -> str | None:
        return None


@dataclass(frozen=True)
class Voc:
    """Label maps as PASCAL VOC has them: palette PNG of the table's own values in its colours, H×W.

    What the table does not use is black, but for 255, which has the colour of VOC's void.
    """

    classes: ClassTable
    name = "voc"

    def path(self, id: str) -> str:
        return f"{VOC_FOLDER}/{safe_name(id)}.png"

    def encode(self, prediction: Prediction) -> bytes:
        """Raises ValueError for a train id that the table lacks."""
        picture = Image.fromarray(self.classes.to_values(prediction.labels))
        palette = np.zeros((256, 3), np.uint8)
        palette[255] = _VOC_VOID
        palette[list(self.classes.values)] = self.classes.colours
        picture.putpalette(palette.tobytes())
        file = io.BytesIO()
        # 2 ms for 500×366 pixels, and half as large as at level 1, which takes 0.5 ms.
        picture.save(file, "PNG", compress_level=_PALETTE_LEVEL)
        return file.getvalue()

    def finish(self, output: Location) -> str | None:
        """Write `results.tar`, which the evaluation server takes. None if there is no image."""
        return write_tar(output, "results.tar", VOC_FOLDER, ".png")


@dataclass(frozen=True)
class Index:
    """Label maps as 8-bit PNG of train ids, or of the table's own values, H×W."""

    classes: ClassTable
    values: Literal["train-ids", "own"] = "train-ids"
    name = "index"

    def path(self, id: str) -> str:
        return f"{self.name}/{safe_name(id)}.png"

    def encode(self, prediction: Prediction) -> bytes:
        """Raises ValueError for a train id that the table lacks, if its own values are asked for."""
        labels = prediction.labels
        return _grey_png(self.classes.to_values(labels) if self.values == "own" else labels)

    def finish(self, output: Location) -> str | None:
        return None


def _grey_png(values: NDArray[np.uint8]) -> bytes:
    """Return uint8 H×W as an 8-bit single-channel PNG."""
    file = io.BytesIO()
    # After PNG's filters a label map is runs of zeros. For a street scene of 1024×2048 pixels this takes 15 ms and
    # 19 KB; zlib's usual way 29 ms and 35 KB at level 1, 45 ms and 21 KB at level 6.
    Image.fromarray(values).save(file, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return file.getvalue()
