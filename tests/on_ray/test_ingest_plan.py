"""The plan of a training: every sample in its turn, and never read further than it is needed."""

import gc
import os
import signal
import time
from itertools import islice

import pytest
import ray
from ray.data._internal.execution.streaming_executor import StreamingExecutor
from ray.util.state import list_tasks

from deeplab_ray.config.recipe import AugmentConfig, Recipe, SolverConfig
from deeplab_ray.models.configs import DeepLabV2Config
from deeplab_ray.on_ray.ingest_plan import Portion, portions, read_plan


def recipe(iterations: int, batch: int = 12, small_share: float = 0.0) -> Recipe:
    solver = SolverConfig(batch=batch, iterations=iterations)
    return Recipe(DeepLabV2Config(), AugmentConfig(small_share=small_share), solver)


@pytest.mark.parametrize("start", [0, 7, 8, 21])
@pytest.mark.parametrize("workers", [1, 2, 3, 12])
def test_the_workers_together_take_every_sample_of_every_iteration_in_order(workers: int, start: int) -> None:
    plan = list(portions(recipe(iterations=22, small_share=0.35), workers, start))
    # Round after round, every worker's turn, with the same iterations for each.
    rounds = [plan[i : i + workers] for i in range(0, len(plan), workers)]
    taken = []
    for portions_of_round in rounds:
        assert [portion.worker for portion in portions_of_round] == list(range(workers))
        assert len({(portion.first, portion.iterations) for portion in portions_of_round}) == 1
        positions = [portion.positions(batch=12, share=12 // workers) for portion in portions_of_round]
        for shares in zip(*positions, strict=True):
            taken += [int(position) for share in shares for position in share]
    assert taken == list(range(start * 12, 22 * 12))
    # The crops of the first 8 iterations are small: no portion has both sizes.
    assert all(portion.first >= 8 or portion.first + portion.iterations <= 8 for portion in plan)


def rows(iterations: int) -> ray.data.Dataset:
    """The plan of four workers."""
    plan = read_plan(recipe(iterations), 4, 0)
    plan.context.execution_options = ray.data.ExecutionOptions(preserve_order=True)
    return plan


@pytest.mark.usefixtures("ray_cluster")
def test_it_is_read_a_bounded_number_of_rows_ahead() -> None:
    stream = iter(rows(iterations=100_000).iter_batches(batch_size=None))
    first = list(islice(stream, 10))
    assert [len(row["first"]) for row in first] == [1] * 10
    # Left alone, it would read some hundred rows a second.
    time.sleep(4)
    (executor,) = (each for each in gc.get_objects() if type(each) is StreamingExecutor and each.is_alive())
    read = {op.name: op.metrics.num_task_outputs_generated for op in executor._topology}
    assert 32 <= read["ReadPlan"] < 128


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_it_goes_on_in_order_when_its_process_is_killed() -> None:
    read = []
    for row in rows(iterations=3000).iter_batches(batch_size=None, prefetch_batches=0):
        read.append(Portion(*(int(row[name][0]) for name in ("first", "iterations", "worker"))))
        if len(read) == 300:
            # Our Ray's address: others may run on this machine.
            address = ray.get_runtime_context().gcs_address
            (task,) = list_tasks(address, filters=[("name", "=", "ReadPlan"), ("state", "=", "RUNNING")], detail=True)
            os.kill(task.worker_pid, signal.SIGKILL)
    assert read == list(portions(recipe(iterations=3000), 4, 0))
