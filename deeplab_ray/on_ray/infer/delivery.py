"""A job that writes files for every image of its input, each exactly once, whatever dies on the way.

OUTPUT/predict.json       what was asked for (of jobs/refine.py: refine.json)
OUTPUT/cityscapes/…       the files of each format (see `outputs.formats`)
OUTPUT/errors.parquet     what could not be done: id, stage, reason
OUTPUT/.progress/         the journal of what is done (see `outputs.journal`)
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from deeplab_ray.config.io import as_dict, json_text
from deeplab_ray.config.resources import InferenceResources
from deeplab_ray.errors import UserError
from deeplab_ray.inputs import Inputs
from deeplab_ray.on_ray import session
from deeplab_ray.on_ray.infer.chain import Stage
from deeplab_ray.on_ray.infer.stages import Target
from deeplab_ray.on_ray.infer.work import Allowance, Todo, Work, find_todo, say
from deeplab_ray.outputs import record
from deeplab_ray.outputs.journal import PROGRESS, Done, Journal
from deeplab_ray.outputs.publish import publish, sweep
from deeplab_ray.runs import Software
from deeplab_ray.storage.claim import claimed
from deeplab_ray.storage.location import Location, locate

ERRORS = "errors.parquet"
_FINISHED = f"{PROGRESS}/finished.json"


@dataclass(frozen=True)
class Order:
    """What is to be written, of which images, where."""

    inputs: Inputs
    target: Target
    record: dict[str, Any]
    """What decides the result, as JSON has it. Another run into the same place must ask for the same."""
    record_name: str
    ids_by_reading: bool = False
    """Whether an image's id stands in its file, and is not the file's name."""

    @property
    def output(self) -> Location:
        return self.target.output

    def check_output(self) -> None:
        """Raise UserError, naming each difference, if the output holds the results of another order."""
        earlier = record.read(self.output / self.record_name)
        if earlier is not None:
            record.refuse(self.output, record.differences(self.record, earlier))


@dataclass(frozen=True)
class Begun:
    """An order that is noted in its output, and what of it is to be done."""

    order: Order
    journal: Journal
    resumed: bool
    """Whether an earlier run began it."""
    todo: Todo

    @property
    def there(self) -> Target | None:
        """Where to look for files that the journal does not name: after a kill it may lack its last second."""
        return self.order.target if self.resumed else None


@dataclass(frozen=True)
class Delivery:
    """How it ended."""

    images: int
    """Of the input."""
    done_before: int
    """By earlier runs."""
    errors: list[Done]
    """Of all runs."""
    files: list[str]
    """URIs of what belongs to all images together."""
    seconds: float
    figures: dict[str, Any]
    """Of this run's stages, see `progress.Summary`; empty if there was nothing to do."""

    def as_result(self, output: Location) -> dict[str, Any]:
        """For RESULT."""
        return {
            "images": self.images,
            "done_before": self.done_before,
            "errors": len(self.errors),
            "output": output.uri,
            "files": self.files,
            "seconds": round(self.seconds, 1),
            "run": self.figures,
        }


def check_place(output: Location, input_uri: str, record_name: str) -> None:
    """Raise UserError if the output's folder is the input, or that of another job."""
    if output == locate(input_uri):
        raise UserError(f"--output {output} is the input: give a folder of its own")
    record.refuse_others(output, record_name)


def begin(order: Order, retry_errors: bool = False) -> Begun:
    """Note in the output what is asked for, and find out what is not done yet. Needs no running Ray, reads no image.

    retry_errors: what failed in earlier runs is to be done again. Raises UserError if there is no image.
    """
    journal, file = Journal(order.output), order.output / order.record_name
    resumed = record.read(file) is not None
    todo = find_todo(order.inputs, journal if resumed else None, retry_errors, order.ids_by_reading)
    if not todo.total:
        raise UserError(f"there is no image in {order.inputs.uri}")
    if not resumed:
        # Of a job whose record somebody has removed.
        (order.output / PROGRESS).delete_tree()
    record.note(file, order.record | {record.UNCOMPARED: as_dict(Software.here())})
    if resumed:
        left = "" if len(todo) else ": nothing is left to do"
        say(f"{todo.total - len(todo)} of {todo.total} images are done already{left}")
    return Begun(order, journal, resumed, todo)


def run(
    begun: Begun,
    plan: Callable[[Begun], tuple[Sequence[Stage], int]],
    price_per_node_hour: float | None = None,
    check: Callable[[], None] = lambda: None,
) -> Delivery:
    """Do what is not done yet. Ray must be initialised, unless nothing is to be done.

    plan: gives the stages, and how many images make a unit. check: called after every image, to end all by what it
    raises. Raises UserError for a cluster too small, JobError if storage fails for long or a worker cannot start.
    """
    started = time.monotonic()
    todo, output = begun.todo, begun.order.output
    errors, figures = list(todo.failed), dict[str, Any]()
    finished = record.read(output / _FINISHED) or {}
    # Images may have gone since, or a job was killed between the last image and the end.
    if not len(todo) and (finished.get("images"), finished.get("errors")) == (todo.total, len(errors)):
        return Delivery(todo.total, todo.total, errors, finished["files"], time.monotonic() - started, figures)
    if len(todo):
        publish(output, _FINISHED, b"{}")
        sweep(output)
        stages, unit = plan(begun)
        with Work(stages, price_per_node_hour) as work:
            for done, _ in work.run(todo, unit, begun.journal):
                errors += [done] if done.stage is not None else []
                check()
        assert work.summary
        figures = work.summary.as_result()
    files = _finish(begun.order, todo.total, errors)
    return Delivery(todo.total, todo.total - len(todo), errors, files, time.monotonic() - started, figures)


class Request(Protocol):
    """What a job was asked for, checked."""

    @property
    def order(self) -> Order:
        """What is to be written."""

    def stages(self, begun: Begun, resources: InferenceResources) -> tuple[Sequence[Stage], int]:
        """The stages that fill the cluster, and how many images make a unit."""


def deliver(
    request: Request,
    resources: InferenceResources,
    allowance: Allowance,
    retry_errors: bool = False,
    price_per_node_hour: float | None = None,
) -> dict[str, Any]:
    """Begin, start Ray if anything is left to do, run, and return what RESULT says.

    Raises UserError if another job writes there, JobError if more images failed than allowed, after all others are
    done; and as `begin` and `run` do.
    """
    output = request.order.output
    with claimed(output, request.order.record_name.removesuffix(".json")) as claim:
        begun = begin(request.order, retry_errors)
        if len(begun.todo):
            session.start_ray()
        result = run(begun, lambda begun: request.stages(begun, resources), price_per_node_hour, claim.check)
    allowance.check(result.errors, result.images, (output / ERRORS).uri)
    return result.as_result(output)


def _finish(order: Order, images: int, errors: list[Done]) -> list[str]:
    """Write what belongs to all images together, and note that all is done. Returns the URIs of those files."""
    output = order.output
    write_errors(output, errors)
    files = [uri for each in order.target.formats if (uri := each.finish(output))]
    finished = {"images": images, "errors": len(errors), "files": files}
    publish(output, _FINISHED, json_text(finished).encode())
    sweep(output)
    return files


def write_errors(output: Location, errors: Iterable[Done]) -> None:
    """Write errors.parquet: id, stage and reason of each image that failed, by id; no row if none did."""
    rows = [{"id": each.id or each.key, "stage": each.stage, "reason": each.reason} for each in errors]
    schema = pa.schema([(name, pa.string()) for name in ("id", "stage", "reason")])
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(sorted(rows, key=lambda row: str(row["id"])), schema), sink)
    publish(output, ERRORS, sink.getvalue().to_pybytes())
