"""The plan of a training: which samples each task fetches, written down only as far as the training has come.

One task, a generator, yields the plan row by row, and Ray Data reads it a bounded number of rows ahead. So neither the
driver nor the training's controller ever holds more of the plan, however long the training and however many its
workers.

The generator takes no CPU, since training may hold all that its workers and its tasks leave. It runs on the node that
makes the plan, where Ray Data's coordinator runs as well: where that node dies, the whole worker group starts again
from its checkpoint, with a new plan from there. Where the generator's process alone dies, Ray runs it again from the
plan's first row and drops the rows that were read before: about a millisecond a row, during which the tasks that are
planned already go on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import ray
import ray.data
from numpy.typing import NDArray
from ray.data._internal.execution.backpressure_policy import (
    ENABLED_BACKPRESSURE_POLICIES,
    ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY,
    BackpressurePolicy,
)
from ray.data._internal.execution.interfaces import PhysicalOperator
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from deeplab_ray.config.recipe import Recipe

# Large enough for the scheduler's cost of some ms a task, small enough to start soon.
_TASK_SAMPLES = 32
# Rows that the generator yields, and that the scheduler takes, before they are needed. The scheduler looks about ten
# times a second, so this many tasks can start in a tenth of a second.
_ROWS_AHEAD = 32
# What a row takes in the object store, roughly.
_ROW_BYTES = 1024
_OPERATOR = "ReadPlan"


@dataclass(frozen=True)
class Portion:
    """What one task fetches: one worker's share of a few successive iterations, whose crops have one size."""

    first: int
    """The first iteration."""
    iterations: int
    worker: int

    def positions(self, batch: int, share: int) -> NDArray[np.int64]:
        """Positions of its samples in the sequence of all epochs, int64 iterations×share.

        batch: samples of an iteration; share: those of one worker.
        """
        firsts = np.arange(self.first, self.first + self.iterations) * batch + self.worker * share
        return firsts[:, None] + np.arange(share)


def portions(recipe: Recipe, workers: int, start: int) -> Iterator[Portion]:
    """The plan of iterations `start` … end: portions in the order of their iterations, going round the workers."""
    solver = recipe.solver
    each = max(1, _TASK_SAMPLES // (solver.batch // workers))
    first = start
    while first < solver.iterations:
        phase_end = recipe.small_iterations if first < recipe.small_iterations else solver.iterations
        iterations = min(each, phase_end - first)
        for worker in range(workers):
            yield Portion(first, iterations, worker)
        first += iterations


def read_plan(recipe: Recipe, workers: int, start: int) -> ray.data.Dataset:
    """`portions(recipe, workers, start)` as a dataset: a row each, in a block of its own, which no other operation
    shares.

    Rows: first, iterations and worker, all int64. What is mapped over it must also give blocks of one row.
    """
    plan = ray.data.read_datasource(
        _PlanDatasource(recipe, workers, start),
        override_num_blocks=1,
        num_cpus=0,
        label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()},
    )
    context = plan.context
    # Whatever has a byte is a full block: by default Ray Data would collect rows up to 128 MiB before the first task.
    context.target_max_block_size = 1
    context._max_num_blocks_in_streaming_gen_buffer = _ROWS_AHEAD
    policies = context.get_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, ENABLED_BACKPRESSURE_POLICIES)
    context.set_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, [*policies, _ReadAhead])
    return plan


class _PlanDatasource(Datasource):
    def __init__(self, recipe: Recipe, workers: int, start: int) -> None:
        super().__init__()
        self.recipe, self.workers, self.start = recipe, workers, start

    def get_name(self) -> str:
        return _OPERATOR.removeprefix("Read")

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: ray.data.DataContext | None = None
    ) -> list[ReadTask]:
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(partial(_tables, self.recipe, self.workers, self.start), unknown)]


def _tables(recipe: Recipe, workers: int, start: int) -> Iterator[pa.Table]:
    for portion in portions(recipe, workers, start):
        yield pa.table({name: [value] for name, value in vars(portion).items()})


class _ReadAhead(BackpressurePolicy):
    """Read the plan only as far as _ROWS_AHEAD: Ray Data's own limits are in bytes, of which the rows have few.

    While rows keep coming, Ray Data takes them without a look at anything else; hence a number of bytes, not just a
    stop.
    """

    def max_task_output_bytes_to_read(self, op: PhysicalOperator) -> int | None:
        if op.name != _OPERATOR:
            return None
        return _ROW_BYTES * max(0, _ROWS_AHEAD - self._topology[op].total_enqueued_output_blocks())
