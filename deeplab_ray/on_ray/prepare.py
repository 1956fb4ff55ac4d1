"""A dataset's folder → checked shards and their manifest, as a Ray Data job: one task a shard.

A task reads its pairs, opens and checks each, and writes the good ones: the image file as it came, the label as a PNG
of train ids. What it returns is a few lines about them. A task that runs twice writes the same file twice.

Ray is imported late: `check_request` tells a user's mistakes before it starts.
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
from deeplab_ray.datasets import Dataset, Pair
from deeplab_ray.errors import UserError
from deeplab_ray.images import decode_image, encode_label
from deeplab_ray.labels import IGNORE
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
                    row, label = check_pair(dataset, self.source, self.split, pair)
                except ValueError as error:
                    bad.append(Bad(pair.id, str(error)))
                    continue
                if label is not None:
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


def check_pair(
    dataset: Dataset, source: Location, split: str, pair: Pair
) -> tuple[dict[str, Any], NDArray[np.uint8] | None]:
    """Read and decode a pair fully → its row in a shard (`shards.SCHEMA`), and its train ids (uint8 H×W).

    A pair without a label file, in a split whose labels are not public, gives a row without label, and None.
    Raises ValueError with the reason if the pair is bad, OSError if S3 fails.
    """
    if pair.label is None and split not in dataset.unlabelled:
        raise ValueError("it has no label file")
    image = _read(source / pair.image)
    label = None if pair.label is None else _read(source / pair.label)
    height, width = decode_image(image).shape[:2]
    row = {"id": pair.id, "image": image, "label": None, "height": height, "width": width}
    if label is None:
        return row, None
    ids = dataset.labels.decode(label, height, width, pair.drawn)
    if ids.shape != (height, width):
        raise ValueError(f"label is {ids.shape[1]}×{ids.shape[0]}, image {width}×{height} pixels")
    return row | {"label": encode_label(ids)}, ids


def _read(file: Location) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{file} is missing") from None
    except OSError as error:
        if file.is_s3:
            raise
        raise ValueError(f"{file} cannot be read: {error}") from error


@dataclass(frozen=True)
class Request:
    """What is to be prepared, once it is known that it can be."""

    dataset: Dataset
    source: Location
    output: Location
    pairs: dict[str, list[Pair]]
    """By split."""
    rows_per_shard: int


def check_request(
    dataset: str,
    source: str,
    output: str,
    splits: list[str] | None = None,
    overwrite: bool = False,
    rows_per_shard: int = 64,
) -> Request:
    """What `prepare` will do; it finds the pairs, but opens none of their files. Needs no Ray.

    Raises UserError for a wrong dataset, source, split or output, and for what is already prepared (unless
    `overwrite`).
    """
    what, place, target = datasets.get(dataset), locate(source), locate(output)
    if rows_per_shard < 1:
        raise UserError(f"rows per shard must be at least 1, not {rows_per_shard}")
    check_access(read=[place], write=[target])
    if not place.exists():
        raise UserError(f"there is no folder {place}: --source is where {dataset} lies")
    pairs = _find_pairs(what, place, splits)
    manifests = (target / split / MANIFEST for split in pairs)
    if not overwrite and (prepared := next((manifest for manifest in manifests if manifest.exists()), None)):
        raise UserError(f"{prepared} exists: give --overwrite to prepare it again")
    return Request(what, place, target, pairs, rows_per_shard)


def prepare(
    dataset: str,
    source: str,
    output: str,
    splits: list[str] | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
    rows_per_shard: int = 64,
) -> dict[str, Manifest]:
    """Check a request and carry it out, see `check_request` and `carry_out`. Ray must run."""
    return carry_out(check_request(dataset, source, output, splits, overwrite, rows_per_shard), skip_bad)


def carry_out(request: Request, skip_bad: bool = False) -> dict[str, Manifest]:
    """Check every pair and write it as shards below the output's <split>; returns the manifests by split.

    Nothing is published before all splits are found good (or, with `skip_bad`, their bad pairs dropped and listed in
    the manifest). A run that fails leaves nothing behind but, for bad pairs, their list in
    <output>/<split>/manifest.rejected.json. What was prepared there before is replaced in one step.

    Raises UserError for bad pairs. Ray must run.
    """
    what, target, pairs = request.dataset, request.output, request.pairs
    replaced = {split: target / split / MANIFEST for split in pairs if (target / split / MANIFEST).exists()}
    run = f"shards-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    old = {split: manifest.read_bytes() for split, manifest in replaced.items()}
    try:
        _forget_rejected(target, pairs)
        outcomes = _check_and_write(request, run)
        _refuse_bad(what, target, outcomes, skip_bad)
        manifests = {
            split: Manifest(
                reader=what.name,
                split=split,
                classes=what.table,
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


def _check_and_write(request: Request, run: str) -> dict[str, _Outcome]:
    import ray

    size = request.rows_per_shard
    tasks = [
        _Task(
            dataset=request.dataset.name,
            source=request.source,
            split=split,
            folder=request.output / split / run,
            name=f"{start // size:05d}.parquet",
            pairs=found[start : start + size],
        )
        for split, found in request.pairs.items()
        for start in range(0, len(found), size)
    ]
    none = np.zeros(len(request.dataset.classes), np.int64)
    outcomes = {split: _Outcome(len(found), none.copy()) for split, found in request.pairs.items()}
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
            outcome.shards.append(Shard.from_json(report["shard"]))
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
        f"{len(bad)} of {total} pairs of {dataset.name} ({', '.join(refused)}) are bad ({first}{more}): fix them"
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
    """Delete what an overwritten manifest, of whichever format, named; a broken one names nothing."""
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        runs = {shard["path"].split("/", 1)[0] for shard in json.loads(manifest)["shards"]}
        for run in runs:
            if run.startswith("shards-"):
                (folder / run).delete_tree()
