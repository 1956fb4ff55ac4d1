"""Take all images of an input through the stages, each exactly once, and keep a journal of those that are through."""

import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from deeplab_ray.errors import JobError, UserError
from deeplab_ray.inputs import Inputs, ids
from deeplab_ray.on_ray.infer.chain import Chain, Stage, StageState
from deeplab_ray.on_ray.infer.progress import Meter, Summary
from deeplab_ray.on_ray.infer.stage import Row
from deeplab_ray.outputs.journal import Done, Journal, missing

FEW, UNIT = 64, 4
"""Up to so many images each is a unit of its own; else so many make one."""


def say(line: str) -> None:
    """Print a line of progress."""
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Todo:
    """What of an input is to be done."""

    keys: pa.Array | pa.ChunkedArray
    ids: pa.Array | pa.ChunkedArray | None
    """None: only reading tells."""
    total: int
    """Images of the input, those that are done included."""
    failed: list[Done] = field(default_factory=list)
    """Failed ones of earlier runs that are not to be done again."""
    taken: dict[int, str] = field(default_factory=dict)
    """Of images that are done, if only reading tells ids: the hash of the id, and the key."""
    also: Row = field(default_factory=dict)
    """For the steps: the same for every image."""

    def __len__(self) -> int:
        return len(self.keys)

    def units(self, size: int) -> Iterator[list[Row]]:
        """The images in units of `size`: rows with key, id ("" if unknown) and `also`."""
        for start in range(0, len(self.keys), size):
            keys = self.keys.slice(start, size).to_pylist()
            ids = [""] * len(keys) if self.ids is None else self.ids.slice(start, size).to_pylist()
            yield [{"key": key, "id": id, **self.also} for key, id in zip(keys, ids, strict=True)]


def find_todo(
    inputs: Inputs, journal: Journal | None = None, retry_errors: bool = False, ids_by_reading: bool = False
) -> Todo:
    """Find out what is to be done by the names of the images and by the journal; no image is read.

    What the journal says of images that are no longer there counts no more. retry_errors: what failed before is to be
    done again. ids_by_reading: the files' names are not the images' ids.
    """
    keys = inputs.keys()
    names = None if ids_by_reading else ids(inputs, keys)
    if journal is None:
        return Todo(keys, names, len(keys))
    failed, taken = dict[str, Done](), dict[int, str]()

    def through() -> Iterator[pa.ChunkedArray]:
        for table in journal.tables(["key", "id", "stage", "reason"]):
            good = table["stage"].is_null()
            failed.update((row["key"], Done(**row)) for row in table.filter(pc.invert(good)).to_pylist())
            done = table.filter(good)
            if names is None:
                taken.update(zip(map(hash, done["id"].to_pylist()), done["key"].to_pylist(), strict=True))
            yield done["key"]

    left = pa.array(missing(keys, through()))
    # Of an image that was done again there are two rows, in any order: the good one counts.
    errors = pc.is_in(keys.take(left), value_set=pa.array(failed, keys.type))
    still = [] if retry_errors else [failed[key] for key in keys.take(left.filter(errors)).to_pylist()]
    if not retry_errors:
        left = left.filter(pc.invert(errors))
    return Todo(keys.take(left), None if names is None else names.take(left), len(keys), still, taken)


def unit_size(images: int, batch: int, gpus: float) -> int:
    """How many images make a unit: those that are scored together, and few where there are few."""
    if batch or gpus:
        return batch or 16
    return 1 if images <= FEW else UNIT


class Work:
    """Images on their way through stages. `with Work(stages) as work: for done, row in work.run(todo, unit): …`

    All workers start when it is entered, and end when it is left. It can run several times.
    """

    def __init__(self, stages: Sequence[Stage], price_per_node_hour: float | None = None) -> None:
        self._chain, self._price = Chain(stages, say), price_per_node_hour
        self.summary: Summary | None = None
        """How the last run went."""

    @property
    def states(self) -> Sequence[StageState]:
        """What is known of the stages now."""
        return self._chain.states

    def __enter__(self) -> "Work":
        self._started = time.monotonic()
        self._chain.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._chain.__exit__(*error)

    def run(
        self, todo: Todo, unit: int, journal: Journal | None = None, keep: bool = False
    ) -> Iterator[tuple[Done, Row]]:
        """Yield every image once, and what the last step has left of its row; failed ones with their reason.

        Each is in the journal within two seconds, at the latest when this ends, however it ends. keep: let the workers
        live for another run, instead of ending those of a stage once it has nothing left to do.
        Raises JobError as `Chain.run` does.
        """
        seen = dict(todo.taken)
        meter = Meter(self._chain.states, len(todo), say)

        def tick() -> None:
            meter.tick()
            if journal:
                journal.keep_up()

        try:
            for report in self._chain.run(todo.units(unit), tick, keep):
                for done, row in _entries(report.failed, report.rows):
                    # Those of a folder differ by themselves.
                    done = _once(done, seen) if todo.ids is None else done
                    if journal:
                        journal.add(done)
                    meter.count(done)
                    yield done, row
        finally:
            if journal:
                journal.flush()
        self.summary = meter.summary(time.monotonic() - self._started, self._price)
        self._started = time.monotonic()
        if meter.images != len(todo):
            raise JobError(f"{len(todo) - meter.images} of {len(todo)} images did not come back: run the same again")


def _entries(failed: Sequence[Done], rows: Sequence[Row]) -> Iterator[tuple[Done, Row]]:
    for done in failed:
        yield done, {}
    for row in rows:
        yield Done(row["key"], row["id"], measured=row.get("measured", {})), row


def _once(done: Done, seen: dict[int, str]) -> Done:
    """The image; as a failed one if another had the same id, whose files it has replaced or was replaced by."""
    if done.stage is None and (other := seen.setdefault(hash(done.id), done.key)) != done.key:
        return Done(done.key, done.id, "read", f"its id is that of another image, too ({other}): give each its own")
    return done


def check_price(per_node_hour: float | None) -> None:
    """Raise UserError unless it is a price, or None."""
    if per_node_hour is not None and not 0 <= per_node_hour < math.inf:
        raise UserError(f"--price-per-node-hour {per_node_hour:g} must be a number, 0 or above")


@dataclass(frozen=True)
class Allowance:
    """How many images may fail: a number, or a share of all."""

    number: float
    share: bool

    @classmethod
    def parse(cls, text: str) -> "Allowance":
        """ "5", "1%" or "0.01". Raises UserError for anything else."""
        try:
            value = float(text.removesuffix("%"))
            if text.endswith("%"):
                value /= 100
            share = text.endswith("%") or "." in text
            if value < 0 or (share and value > 1) or value != value:
                raise ValueError
        except ValueError:
            raise UserError(
                f"--max-errors {text} is neither a number of images, such as 5, nor a share, such as 1%"
            ) from None
        return cls(value, share)

    def check(self, errors: Sequence[Done], images: int, listing: str) -> None:
        """Raise JobError, which says where all errors are listed, if more images failed than allowed."""
        allowed = self.number * images if self.share else self.number
        if len(errors) > allowed:
            first = errors[0]
            raise JobError(
                f"{len(errors)} of {images} images failed, above --max-errors ({allowed:g}): see {listing}; the first: "
                f"{first.id}: {first.reason}; all others are done"
            )
