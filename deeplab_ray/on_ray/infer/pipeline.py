"""Score → refine → measure, each a step on a Ray Dataset.

What crosses the object store between the predictors (GPU, or CPU) and the CRF pool (CPU) are the encoded bytes
and float16 scores at output stride 8; probabilities at full size exist only inside a CRF actor.
"""

import dataclasses
import io
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import ray.data
import torch
from numpy.typing import NDArray
from PIL import Image

from deeplab_ray.config.recipe import CRFParams, TestConfig
from deeplab_ray.crf import DenseCRF
from deeplab_ray.datasets.base import Dataset, decode_image
from deeplab_ray.machine import usable_cpus
from deeplab_ray.metrics import confusion_matrix
from deeplab_ray.models import DeepLab, checkpoint, score_images, upsample_scores
from deeplab_ray.models.grid import Alignment
from deeplab_ray.on_ray.resources import Pools
from deeplab_ray.shards import Split
from deeplab_ray.storage.location import Location
from deeplab_ray.training.step import autocast

Row = dict[str, Any]
_BLOCK_IMAGES = 4
_LARGEST = float(np.finfo(np.float16).max)


def blocks(images: int) -> int:
    """Into how many blocks, which are what actors work on, `images` images go."""
    return -(-images // _BLOCK_IMAGES)


def read(split: Split, indices: Sequence[int]) -> ray.data.Dataset:
    """These samples of the split (id, image, label, height, width; encoded bytes), each exactly once.

    In blocks of a few images, so that the CRF starts as soon as the first are scored.
    """
    return ray.data.range(len(indices), override_num_blocks=blocks(len(indices))).map(
        lambda row: dataclasses.asdict(split.read(indices[int(row["id"])]))
    )


def score(
    rows: ray.data.Dataset, place: Location, precision: str, pools: Pools, test: TestConfig | None = None
) -> ray.data.Dataset:
    """Add "scores" to each row: float16 bytes of C×h×w at output stride, by the network of the checkpoint `place`.

    `test` None scores images as the checkpoint's config says.
    """
    return rows.map(
        Predictor,  # type: ignore[arg-type]
        fn_constructor_args=(place, precision, test, "cuda" if pools.predictor_gpus else "cpu"),
        compute=pools.strategy(pools.predictors),
        num_cpus=pools.predictor_cpus,
        num_gpus=pools.predictor_gpus or None,
    )


def measure(rows: ray.data.Dataset, dataset: Dataset, params: CRFParams | None, pools: Pools) -> ray.data.Dataset:
    """Scored rows → per image: id, confusion matrices (int64 C×C) and PNGs of the predicted train ids.

    `params` None leaves the CRF out; then the columns that end in "_crf" are missing.
    """
    return rows.map(
        Measurer,  # type: ignore[arg-type]
        fn_constructor_args=(dataset.name, params),
        compute=pools.strategy(pools.refiners),
        num_cpus=pools.refiner_cpus,
    )


def try_crfs(
    rows: ray.data.Dataset, dataset: Dataset, candidates: Sequence[CRFParams], pools: Pools
) -> ray.data.Dataset:
    """Scored rows → per image: id, confusion matrices (int64 (1 + candidates)×C×C): the network's, then each CRF's."""
    return rows.map(
        CRFTester,  # type: ignore[arg-type]
        fn_constructor_args=(dataset.name, tuple(candidates)),
        compute=pools.strategy(pools.refiners),
        num_cpus=pools.refiner_cpus,
    )


class Predictor:
    """An actor with the network: encoded image → scores."""

    def __init__(self, place: Location, precision: str, test: TestConfig | None, device: str) -> None:
        self.precision = precision
        self.device = torch.device(device)
        model, meta = checkpoint.load_model(place)
        self.test = test or meta.config.test
        self.model = model.on(self.device)
        if self.device.type == "cpu":
            # Ray sets one thread for a fraction of a CPU; the CRF actors are idle until scores arrive.
            torch.set_num_threads(usable_cpus())

    def __call__(self, row: Row) -> Row:
        image = decode_image(row["image"])
        scores, alignment = predict(self.model, image, self.device, self.precision, self.test)
        # Larger scores would become infinite, and no probability.
        half = scores.clamp(-_LARGEST, _LARGEST).to(torch.float16).cpu().numpy()
        return row | {"scores": half.tobytes(), "scores_shape": list(half.shape), "alignment": alignment}


def predict(
    model: DeepLab, image: NDArray[np.uint8], device: torch.device, precision: str, test: TestConfig
) -> tuple[torch.Tensor, Alignment]:
    """uint8 RGB H×W×3 → scores float32 C×h×w at output stride, and where they lie (see `upsample_scores`)."""
    with torch.inference_mode(), autocast(device, precision):
        scores, alignment = score_images(model, torch.from_numpy(image.copy())[None].to(device), test)
    return scores[0].float(), alignment


class Measurer:
    """An actor with a CRF: scores → labels before and after, counted against the truth."""

    def __init__(self, dataset: str, params: CRFParams | None) -> None:
        from deeplab_ray import datasets

        torch.set_num_threads(1)
        self.dataset = datasets.get(dataset)
        self.crf = DenseCRF(params) if params else None
        if self.crf:
            self.crf.warm(len(self.dataset.classes))

    def __call__(self, row: Row) -> Row:
        truth = self.dataset.decode_label(row["label"])
        classes = len(self.dataset.classes)
        probabilities = full_size_probabilities(row, *truth.shape)
        network = probabilities.argmax(axis=0).astype(np.uint8)
        result = {
            "id": row["id"],
            "image": row["image"],
            "label": row["label"],
            "confusion": confusion_matrix(truth, network, classes).tobytes(),
            "network": _png(network),
        }
        if self.crf:
            refined = self.crf.labels(decode_image(row["image"]), probabilities)
            result["confusion_crf"] = confusion_matrix(truth, refined, classes).tobytes()
            result["network_crf"] = _png(refined)
        return result


class CRFTester:
    """An actor with many CRFs: scores → how each of them would count, by the same network's output."""

    def __init__(self, dataset: str, candidates: Sequence[CRFParams]) -> None:
        from deeplab_ray import datasets

        torch.set_num_threads(1)
        self.dataset = datasets.get(dataset)
        first = DenseCRF(candidates[0])
        first.warm(len(self.dataset.classes))
        self.crfs = [first, *(DenseCRF(params, share=first) for params in candidates[1:])]

    def __call__(self, row: Row) -> Row:
        image, truth = decode_image(row["image"]), self.dataset.decode_label(row["label"])
        probabilities = full_size_probabilities(row, *truth.shape)
        labels = [probabilities.argmax(axis=0).astype(np.uint8)]
        labels += [crf.labels(image, probabilities) for crf in self.crfs]
        matrices = [confusion_matrix(truth, predicted, len(probabilities)) for predicted in labels]
        return {"id": row["id"], "confusions": np.stack(matrices).tobytes()}


def full_size_probabilities(row: Row, height: int, width: int) -> NDArray[np.float32]:
    """A scored row → softmax probabilities float32 C×H×W: upsample the scores, then normalise."""
    half = np.frombuffer(row["scores"], np.float16).reshape([int(n) for n in row["scores_shape"]])
    scores = upsample_scores(torch.from_numpy(half.astype(np.float32))[None], height, width, row["alignment"])
    return scores.softmax(dim=1)[0].numpy()


def _png(label: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(label).save(file, "PNG")
    return file.getvalue()


def iterate_once(measured: ray.data.Dataset, images: int, progress: Callable[[str], None]) -> Iterator[Row]:
    """The measured rows as they come, with lines of progress; RuntimeError unless each image came exactly once."""
    seen: set[str] = set()
    start = first = last = time.monotonic()
    for row in measured.iter_rows():
        if row["id"] in seen:
            raise RuntimeError(f"image {row['id']} came twice out of the pipeline")
        seen.add(row["id"])
        now = time.monotonic()
        if len(seen) == 1:
            # The actors' start says nothing about how long the rest takes.
            first = last = now
            progress(f"1/{images} images, the first after {now - start:.0f} s")
        elif len(seen) == images:
            progress(f"{images}/{images} images in {now - start:.0f} s")
        elif now - last > 5:
            rate = (len(seen) - 1) / (now - first)
            progress(f"{len(seen)}/{images} images, {rate:.2f} images/s, {(images - len(seen)) / rate:.0f} s left")
            last = now
        yield row
    if len(seen) != images:
        raise RuntimeError(f"{images - len(seen)} of {images} images are missing from the results")
