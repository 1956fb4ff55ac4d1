"""A dataset's folder → checked shards and their manifest, as a Ray Data job: one task a shard.

Nothing is re-encoded: a task reads its pairs, opens and checks each, and writes the good ones; what it returns is a
few lines about them. A task that runs twice writes the same file twice.
"""

import contextlib
import json
import pickle
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab_ray import datasets
from deeplab_ray.datasets import Dataset, Pair, decode_image
from deeplab_ray.datasets.base import IGNORE
from deeplab_ray.errors import UserError
from deeplab_ray.shards import MANIFEST, Bad, Manifest, Shard, write_shard
from deeplab_ray.storage.access import check_access
from deeplab_ray.storage.location import Location, locate

REJECTED = "manifest.rejected.json"
_PROGRESS_EVERY_S = 5.0
_NAMED_IN_ERROR = 3


@dataclass(frozen=True)
class _Task:
    """One shard to write."""

    dataset: str
    source: Location
    split: str
    folder: Location
    name: str
    pairs: list[Pair]

    def run(self) -> dict[str, Any]:
        dataset = datasets.get(self.dataset)
        bad: list[Bad] = []
        pixels = np.zeros(len(dataset.classes), np.int64)

        def good_rows() -> Iterator[dict[str, Any]]:
            for pair in self.pairs:
                try:
                    row, label = check_pair(dataset, self.source, pair)
                except ValueError as error:
                    bad.append(Bad(pair.id, str(error)))
                    continue
                pixels[:] += np.bincount(label[label != IGNORE], minlength=len(pixels))
                yield row

        shard = write_shard(self.folder, self.name, good_rows())
        return {
            "split": self.split,
            "shard": shard and asdict(shard),
            "bad": [asdict(b) for b in bad],
            "checked": len(self.pairs),
            "pixels": pixels.tolist(),
        }


@dataclass
class _Outcome:
    """What is known of a split so far."""

    pairs: int
    pixels: NDArray[np.int64]
    """Labelled ones, of each class."""
    checked: int = 0
    shards: list[Shard] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)


def check_pair(dataset: Dataset, source: Location, pair: Pair) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """Read and decode a pair fully → its row in a shard (`shards.SCHEMA`), and its train ids (uint8 H×W).

    Raises ValueError with the reason where the pair is bad, OSError where S3 fails.
    """
    if pair.label is None:
        raise ValueError("it has no label file")
    image, label = _read(source / pair.image), _read(source / pair.label)
    height, width = decode_image(image).shape[:2]
    ids = dataset.decode_label(label)
    if ids.shape != (height, width):
        raise ValueError(f"label is {ids.shape[1]}×{ids.shape[0]}, image {width}×{height} pixels")
    return {"id": pair.id, "image": image, "label": label, "height": height, "width": width}, ids


def _read(file: Location) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{file} is missing") from None
    except OSError as error:
        if file.is_s3:
            raise
        raise ValueError(f"{file} cannot be read: {error}") from error


def prepare(
    dataset: str,
    source: str,
    output: str,
    splits: list[str] | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
    rows_per_shard: int = 64,
) -> dict[str, Manifest]:
    """Check every pair of a dataset and write it as shards below `output`/<split>; returns the manifests by split.

    `splits`: None takes every split that the source holds and whose labels are public. Nothing is published before
    all splits are found good (or, with `skip_bad`, their bad pairs dropped and listed in the manifest). A run that
    fails leaves nothing behind but, for bad pairs, their list in `output`/<split>/manifest.rejected.json.

    Raises UserError for a wrong dataset, source, split or output, for what is already prepared (unless `overwrite`:
    replaced in one step), and for bad pairs. Ray must run.
    """
    what, place, target = datasets.get(dataset), locate(source), locate(output)
    if rows_per_shard < 1:
        raise UserError(f"rows per shard must be at least 1, not {rows_per_shard}")
    check_access(read=[place], write=[target])
    if not place.exists():
        raise UserError(f"there is no folder {place}: --source is where {dataset} lies")
    pairs = _find_pairs(what, place, splits)
    replaced = {split: target / split / MANIFEST for split in pairs if (target / split / MANIFEST).exists()}
    if replaced and not overwrite:
        raise UserError(f"{next(iter(replaced.values()))} exists: give --overwrite to prepare it again")
    run = f"shards-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    old = {split: manifest.read_bytes() for split, manifest in replaced.items()}
    try:
        _forget_rejected(target, pairs)
        outcomes = _check_and_write(what, place, target, pairs, run, rows_per_shard)
        _refuse_bad(what, target, outcomes, skip_bad)
        manifests = {
            split: Manifest(
                dataset=what.name,
                split=split,
                classes=list(what.classes),
                images=sum(shard.rows for shard in outcome.shards),
                pixels=outcome.pixels.tolist(),
                shards=sorted(outcome.shards, key=lambda shard: shard.path),
                bad=sorted(outcome.bad, key=lambda bad: bad.id),
            )
            for split, outcome in outcomes.items()
        }
        for split, manifest in manifests.items():
            (target / split / MANIFEST).write_bytes(manifest.to_json().encode())
    except BaseException:
        with contextlib.suppress(OSError):
            _withdraw(target, list(pairs), run, old)
        raise
    for split, text in old.items():
        _delete_shards_of(target / split, text)
    return manifests


def _find_pairs(dataset: Dataset, source: Location, splits: list[str] | None) -> dict[str, list[Pair]]:
    for split in splits or []:
        if split not in dataset.splits:
            raise UserError(f"{dataset.name} has no split {split!r}: take some of {', '.join(dataset.splits)}")
    if splits:
        return {split: dataset.pairs(source, split) for split in dict.fromkeys(splits)}
    found, missing = {}, []
    for split in dataset.splits:
        if split not in dataset.unlabelled:
            try:
                found[split] = dataset.pairs(source, split)
            except UserError as error:
                missing.append(error)
    if not found:
        raise missing[0]
    return found


def _check_and_write(
    dataset: Dataset,
    source: Location,
    target: Location,
    pairs: dict[str, list[Pair]],
    run: str,
    rows_per_shard: int,
) -> dict[str, _Outcome]:
    import ray

    tasks = [
        _Task(dataset.name, source, split, target / split / run, f"{start // rows_per_shard:05d}.parquet", chunk)
        for split, found in pairs.items()
        for start in range(0, len(found), rows_per_shard)
        for chunk in [found[start : start + rows_per_shard]]
    ]
    classes = len(dataset.classes)
    outcomes = {split: _Outcome(len(found), np.zeros(classes, np.int64)) for split, found in pairs.items()}
    spoken = time.monotonic()
    items = [{"task": pickle.dumps(task)} for task in tasks]
    rows = ray.data.from_items(items, override_num_blocks=len(items)).map(_run_task)
    for row in rows.iter_rows():
        report = json.loads(row["report"])
        outcome = outcomes[report["split"]]
        outcome.checked += report["checked"]
        outcome.pixels += np.array(report["pixels"])
        outcome.bad += [Bad(**bad) for bad in report["bad"]]
        if report["shard"]:
            outcome.shards.append(Shard(**report["shard"]))
        if outcome.checked == outcome.pairs or time.monotonic() - spoken > _PROGRESS_EVERY_S:
            print(f"{report['split']}: {outcome.checked}/{outcome.pairs} images checked", flush=True)
            spoken = time.monotonic()
    return outcomes


def _run_task(row: dict[str, Any]) -> dict[str, str]:
    # As text: tasks without bad pairs or without a shard would give Arrow another type than the rest.
    return {"report": json.dumps(pickle.loads(row["task"]).run())}


def _refuse_bad(dataset: Dataset, target: Location, outcomes: dict[str, _Outcome], skip_bad: bool) -> None:
    """Raise UserError, having listed all bad pairs, unless they may be skipped and leave something in each split."""
    refused = {
        split: outcome for split, outcome in outcomes.items() if (outcome.bad and not skip_bad) or not outcome.shards
    }
    if not refused:
        return
    files = []
    for split, outcome in refused.items():
        listing = {"dataset": dataset.name, "split": split, "pairs": outcome.pairs}
        listing["bad"] = [asdict(bad) for bad in sorted(outcome.bad, key=lambda bad: bad.id)]
        files.append(target / split / REJECTED)
        files[-1].write_bytes((json.dumps(listing, indent=1, ensure_ascii=False) + "\n").encode())
    bad = [bad for outcome in refused.values() for bad in sorted(outcome.bad, key=lambda bad: bad.id)]
    first = "; ".join(f"{b.id}: {b.reason}" for b in bad[:_NAMED_IN_ERROR])
    more = "; …" if len(bad) > _NAMED_IN_ERROR else ""
    total = sum(outcome.pairs for outcome in refused.values())
    good = [split for split in outcomes if split not in refused]
    other = f"; or leave out what is bad by --splits {' '.join(good)}" if good else ""
    raise UserError(
        f"{len(bad)} of {total} pairs of {dataset.name} ({', '.join(refused)}) are bad ({first}{more}): mend them"
        + ("" if skip_bad else " or give --skip-bad to leave them out")
        + f"; all are listed in {', '.join(map(str, files))}"
        + other
    )


def _forget_rejected(target: Location, splits: dict[str, list[Pair]]) -> None:
    for split in splits:
        _delete_file(target / split / REJECTED)


def _delete_file(file: Location) -> None:
    if file.exists():
        file.filesystem.delete_file(file.path)


def _withdraw(target: Location, splits: list[str], run: str, old: dict[str, bytes]) -> None:
    """Leave the output as it was before this run."""
    for split in splits:
        manifest = target / split / MANIFEST
        if split in old:
            manifest.write_bytes(old[split])
        else:
            _delete_file(manifest)
        (target / split / run).delete_tree()
        if not target.is_s3:
            with contextlib.suppress(OSError):
                Path((target / split).path).rmdir()


def _delete_shards_of(folder: Location, manifest: bytes) -> None:
    """Delete what an overwritten manifest named; a broken one names nothing."""
    with contextlib.suppress(ValueError):
        for run in {shard.path.split("/", 1)[0] for shard in Manifest.from_json(manifest).shards}:
            (folder / run).delete_tree()
