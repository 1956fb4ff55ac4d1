"""Score → refine → measure, each a step on a Ray Dataset.

What crosses the object store between the predictors (GPU, or CPU) and the CRF pool (CPU) are the encoded bytes
and float16 scores at the network's resolution; probabilities at full size exist only inside a CRF actor. What comes
out at the end, and goes to the driver, are ids and matrices; labels only if they are asked for.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import ray.data
import torch
from numpy.typing import NDArray

from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.config.recipe import Precision
from deeplab_ray.config.scoring import ScoringConfig
from deeplab_ray.crf import CRFParams, DenseCRF
from deeplab_ray.images import decode_image, decode_label, encode_label
from deeplab_ray.machine import usable_cpus
from deeplab_ray.metrics import confusion_matrix
from deeplab_ray.models import checkpoint
from deeplab_ray.models.grid import parse
from deeplab_ray.models.scoring import score_image
from deeplab_ray.on_ray.resources import Pools
from deeplab_ray.shards import Sample, Shard, Split, read_shard
from deeplab_ray.storage.location import Location

Row = dict[str, Any]
_BLOCK_IMAGES = 4
# Shards up to this size are read whole, and a process keeps so many of them.
_WHOLE_BYTES = 16 * 2**20
_WHOLE_KEPT = 4
_LARGEST = float(np.finfo(np.float16).max)


def blocks(images: int) -> int:
    """Into how many blocks, which are what actors work on, `images` images go."""
    return -(-images // _BLOCK_IMAGES)


def read(split: Split, indices: Sequence[int]) -> ray.data.Dataset:
    """These samples of the split, each exactly once: index, id, image, label, height, width (encoded bytes).

    In blocks of a few images, so that the CRF starts as soon as the first are scored. A block is a small part of a
    shard, and neighbouring blocks are read by different processes, each of which would fetch a large shard whole for
    it. So only small shards are read whole, and kept for the next blocks; of a large one each sample is a range read.
    Both are verified: a damaged shard raises UserError, which names it.
    """
    positions = ray.data.range(len(indices), override_num_blocks=blocks(len(indices)))
    return positions.map(_Reader(split, indices))


class _Reader:
    """Positions in a list of indices → samples, on whichever node the task runs."""

    def __init__(self, split: Split, indices: Sequence[int]) -> None:
        self.split, self.indices, self.whole_bytes = split, indices, _WHOLE_BYTES

    def __call__(self, row: Row) -> Row:
        index = self.indices[int(row["id"])]
        shard, number = self.split.place(index)
        small = shard.bytes <= self.whole_bytes
        sample = _whole(self.split.folder, shard)[number] if small else self.split.read(index)
        return {"index": index} | dataclasses.asdict(sample)


@lru_cache(maxsize=_WHOLE_KEPT)
def _whole(folder: Location, shard: Shard) -> list[Sample]:
    return read_shard(folder, shard)


@dataclass(frozen=True)
class Scorer:
    """What the actors with the network are told."""

    checkpoint: Location
    network: NetworkConfig
    """As the checkpoint's recipe has it; an actor needs nothing else to know the network, be it one of ours or not."""
    classes: int
    precision: Precision
    scoring: ScoringConfig


def score(rows: ray.data.Dataset, scorer: Scorer, pools: Pools) -> ray.data.Dataset:
    """Add to each row "scores", float16 bytes of C×h×w ("scores_shape") as the network gives them, and their "grid"."""
    return rows.map(
        Predictor,  # type: ignore[arg-type]
        fn_constructor_args=(scorer, "cuda" if pools.predictor_gpus else "cpu"),
        compute=pools.strategy(pools.predictors),
        num_cpus=pools.predictor_cpus,
        num_gpus=pools.predictor_gpus or None,
    )


def measure(
    rows: ray.data.Dataset, classes: int, params: CRFParams | None, pools: Pools, labels: bool = False
) -> ray.data.Dataset:
    """Scored rows → per image: index, id and "confusion", "confusion_crf" (bytes of int64 C×C, rows the truth).

    With `labels` also what was predicted: "network", "network_crf" (8-bit PNGs of train ids). `params` None leaves the
    CRF out; then the columns that end in "_crf" are missing.
    """
    return rows.map(
        Measurer,  # type: ignore[arg-type]
        fn_constructor_args=(classes, params, labels),
        compute=pools.strategy(pools.refiners),
        num_cpus=pools.refiner_cpus,
    )


def try_crfs(rows: ray.data.Dataset, classes: int, candidates: Sequence[CRFParams], pools: Pools) -> ray.data.Dataset:
    """Scored rows → per image: id, confusion matrices (int64 (1 + candidates)×C×C): the network's, then each CRF's."""
    return rows.map(
        CRFTester,  # type: ignore[arg-type]
        fn_constructor_args=(classes, tuple(candidates)),
        compute=pools.strategy(pools.refiners),
        num_cpus=pools.refiner_cpus,
    )


class Predictor:
    """An actor with the network: encoded image → scores."""

    def __init__(self, scorer: Scorer, device: str) -> None:
        self.scorer, self.device = scorer, torch.device(device)
        self.network = checkpoint.load_model(scorer.checkpoint, scorer.network, scorer.classes).on(self.device)
        if self.device.type == "cpu":
            # Ray sets one thread for a fraction of a CPU; the CRF actors are idle until scores arrive.
            torch.set_num_threads(usable_cpus())

    def __call__(self, row: Row) -> Row:
        image = decode_image(row["image"])
        scores, grid = score_image(self.network, image, self.device, self.scorer.precision, self.scorer.scoring)
        # Larger scores would become infinite, and no probability.
        half = scores.clamp(-_LARGEST, _LARGEST).to(torch.float16).cpu().numpy()
        return row | {"scores": half.tobytes(), "scores_shape": list(half.shape), "grid": str(grid)}


class Measurer:
    """An actor with a CRF: scores → labels before and after, counted against the truth."""

    def __init__(self, classes: int, params: CRFParams | None, labels: bool) -> None:
        torch.set_num_threads(1)
        self.classes, self.labels = classes, labels
        self.crf = DenseCRF(params) if params else None
        if self.crf:
            self.crf.warm(classes)

    def __call__(self, row: Row) -> Row:
        truth = decode_label(row["label"])
        probabilities = full_size_probabilities(row, *truth.shape)
        predicted = {"": probabilities.argmax(axis=0).astype(np.uint8)}
        if self.crf:
            predicted["_crf"] = self.crf.labels(decode_image(row["image"]), probabilities)
        result = {"index": row["index"], "id": row["id"]}
        for ending, label in predicted.items():
            result[f"confusion{ending}"] = confusion_matrix(truth, label, self.classes).tobytes()
            if self.labels:
                result[f"network{ending}"] = encode_label(label)
        return result


class CRFTester:
    """An actor with many CRFs: scores → how each of them would count, by the same network's output."""

    def __init__(self, classes: int, candidates: Sequence[CRFParams]) -> None:
        torch.set_num_threads(1)
        first = DenseCRF(candidates[0])
        first.warm(classes)
        self.crfs = [first, *(DenseCRF(params, share=first) for params in candidates[1:])]

    def __call__(self, row: Row) -> Row:
        image, truth = decode_image(row["image"]), decode_label(row["label"])
        probabilities = full_size_probabilities(row, *truth.shape)
        labels = [probabilities.argmax(axis=0).astype(np.uint8)]
        labels += [crf.labels(image, probabilities) for crf in self.crfs]
        matrices = [confusion_matrix(truth, predicted, len(probabilities)) for predicted in labels]
        return {"id": row["id"], "confusions": np.stack(matrices).tobytes()}


def full_size_probabilities(row: Row, height: int, width: int) -> NDArray[np.float32]:
    """A scored row → softmax probabilities float32 C×H×W: upsample the scores, then normalise."""
    half = np.frombuffer(row["scores"], np.float16).reshape([int(n) for n in row["scores_shape"]])
    scores = parse(row["grid"]).to_image(torch.from_numpy(half.astype(np.float32))[None], height, width)
    return scores.softmax(dim=1)[0].numpy()


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
