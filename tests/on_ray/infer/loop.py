"""Prediction without Ray: one image after another through the same functions, and a short way to run it with Ray."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from deeplab_ray.config.recipe import Recipe
from deeplab_ray.config.resources import InferenceResources
from deeplab_ray.crf import CRFParams, DenseCRF
from deeplab_ray.machine import usable_cpus
from deeplab_ray.models.checkpoint import load_model
from deeplab_ray.models.scoring import score_image
from deeplab_ray.on_ray.infer import delivery, predict, refine
from deeplab_ray.outputs.formats import Prediction
from deeplab_ray.storage.location import Location, locate

PHOTOS, PREDICTED = "s3://tests/photos", "s3://tests/photos-predicted"
ALL = ("cityscapes", "voc", "index", "overlay", "scores")
ONE_EACH = InferenceResources(predictors=1, refiners=1)


@dataclass(frozen=True)
class Loop:
    """A checkpoint's network, and the CRF."""

    checkpoint: str
    recipe: Recipe
    classes: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "network", load_model(locate(self.checkpoint), self.recipe.network, self.classes))

    def predict(
        self, id: str, image: np.ndarray, encoded: bytes, truth: bytes | None = None, crf: CRFParams | None = None
    ) -> Prediction:
        """What batch prediction has to give: scores rounded to float16, upsampled, softmax, the CRF."""
        network: Any = self.network  # type: ignore[attr-defined]
        # The last bit of a score depends on how many threads add it up.
        threads = torch.get_num_threads()
        torch.set_num_threads(usable_cpus())
        try:
            scores, grid = score_image(network, image, torch.device("cpu"), "float32", self.recipe.scoring)
        finally:
            torch.set_num_threads(threads)
        half = scores.half()
        probabilities = grid.to_image(half.float()[None], *image.shape[:2]).softmax(1)[0].numpy()
        labels = DenseCRF(crf).labels(image, probabilities) if crf else probabilities.argmax(0).astype(np.uint8)
        return Prediction(id, image, labels, encoded, truth, half.numpy(), str(grid))


def run(request: predict.Request | refine.Request, retry_errors: bool = False) -> delivery.Delivery:
    """Do what is asked for, with one actor of each kind."""
    begun = delivery.begin(request.order, retry_errors)
    return delivery.run(begun, lambda begun: request.stages(begun, ONE_EACH))


def contents(folder: Location | Path) -> dict[str, bytes]:
    """All files below the folder but those of the job itself, by their paths."""
    place = folder if isinstance(folder, Location) else locate(folder)
    return {name: (place / name).read_bytes() for name in place.files(recursive=True) if not name.startswith(".")}


def photo(pixels: np.ndarray, kind: str, orientation: int = 1) -> bytes:
    """An image file of this kind, whose EXIF says how the stored pixels are turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    return file.getvalue()


def seen(data: bytes) -> np.ndarray:
    """What people see of an image file, RGB."""
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
