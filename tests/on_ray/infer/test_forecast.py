"""The planner: what it measures is what a run takes, and what it says of nodes that nobody has yet."""

import json
import math
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import tiny

from deeplab_ray import datasets
from deeplab_ray.benchmarks.balance import Sleep
from deeplab_ray.config.resources import InferenceResources
from deeplab_ray.errors import JobError, UserError
from deeplab_ray.on_ray.infer import delivery, plan, predict
from deeplab_ray.on_ray.infer.chain import IN_FLIGHT, Chain, Stage
from deeplab_ray.on_ray.infer.costs import Job, NodeKind, Nodes, StageCost, estimate
from deeplab_ray.on_ray.infer.forecast import Wanted, as_result, check, forecast, table
from deeplab_ray.on_ray.infer.plan import Measured, Node
from deeplab_ray.on_ray.infer.stage import Row
from deeplab_ray.on_ray.infer.work import unit_size
from deeplab_ray.on_ray.resources import Pool
from deeplab_ray.scenes import draw
from deeplab_ray.storage.location import locate

JOB = Path(__file__).parents[3] / "jobs" / "plan.py"
AGREES = 0.15
UNIT = 2


def sleeping(name: str, seconds: float, storage: float, workers: int, lives: float = math.inf) -> Stage:
    """A stage whose workers read and compute by sleeping."""
    steps = partial(Sleep, storage, "read", exclusive=False), partial(Sleep, seconds, "work", lives=lives)
    return Stage(name, steps, Pool(workers, 0.25))


def units(images: int) -> list[list[Row]]:
    rows = [{"key": str(number), "id": str(number)} for number in range(images)]
    return [rows[start : start + UNIT] for start in range(0, images, UNIT)]


def workers(*counts: int) -> Nodes:
    return [(NodeKind("all", tuple(map(float, counts))), 1)]


def ready(measured: Measured) -> tuple[StageCost, ...]:
    """Without the start, which is over when `measure` begins to count."""
    return tuple(replace(stage, start_s=0.0) for stage in measured.stages)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    ("costs", "storage", "counts", "images", "slowest"),
    [
        ((0.03, 0.3), 0.05, (1, 3), 60, "refine"),
        # Two places a worker, each taken for 0.5 s: storage is what is slow.
        ((0.05, 0.05), 0.45, (2, 2), 50, None),
    ],
    ids=["1:10", "storage"],
)
def test_a_few_images_tell_what_many_take(
    costs: tuple[float, float], storage: float, counts: tuple[int, int], images: int, slowest: str | None
) -> None:
    stages = [
        sleeping(name, *each) for name, *each in zip(("predict", "refine"), costs, [storage] * 2, counts, strict=True)
    ]
    few = plan.measure(stages, units(24), units(4))
    many = plan.measure(stages, units(images), units(4))
    assert few.workers == counts
    for cost, seconds in zip(few.stages, costs, strict=True):
        assert cost.compute_s == pytest.approx(seconds, rel=0.15, abs=0.005)
        assert cost.storage_s == pytest.approx(storage, rel=0.15, abs=0.005)
        assert 0 < cost.start_s < 60
    found = estimate(Job(images, ready(few), UNIT, few.driver_s), workers(*counts))
    print(f"{costs}: estimated {found.seconds:.2f} s, took {many.seconds:.2f} s")
    assert found.seconds == pytest.approx(many.seconds, rel=AGREES)
    assert slowest in (None, found.bottleneck)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_what_workers_that_die_lose() -> None:
    """How often they died and how long each was away is that of the run; what that does to its length is the model's.

    Those of the second stage have time to spare.
    """
    stages = [sleeping("predict", 0.2, 0.05, 3, lives=8), sleeping("refine", 0.02, 0.0, 1)]
    images = 240
    with Chain(stages, print) as chain:
        for _ in chain.run(units(8), keep=True):
            pass
        state = chain.states[0]
        while state.workers < 3:
            for _ in chain.run(units(2), keep=True):
                pass
        deaths, alive, began = state.deaths, state.ready_seconds, time.monotonic()
        reports = list(chain.run(units(images), keep=True))
        seconds = time.monotonic() - began
        deaths, alive = state.deaths - deaths, state.ready_seconds - alive
    assert sum(len(report.rows) for report in reports) == images
    assert deaths >= 3
    away = max(0.0, 3 * seconds - alive) / deaths
    spot = NodeKind("spot", (1.0, 1 / 3), None, deaths / alive * 3600, away)
    costs = StageCost("predict", 0.2, 0.05, 0.0, IN_FLIGHT), StageCost("refine", 0.02, 0.0, 0.0, IN_FLIGHT)
    found, safe = (estimate(Job(images, costs, UNIT), [(kind, 3)]) for kind in (spot, replace(spot, losses_per_hour=0)))
    print(f"{deaths} deaths, each away for {away:.1f} s: estimated {found.seconds:.2f} s, took {seconds:.2f} s")
    assert safe.seconds < seconds
    assert found.seconds == pytest.approx(seconds, rel=AGREES)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_plan_and_the_run_that_it_is_for(tmp_path: Path) -> None:
    """Other work on the machine makes everything slower from one moment to the next: the run's time is compared with
    the model at the run's own seconds of a worker and of the start, and the plan's are compared with these."""
    images, output = 80, tmp_path / "output"
    draw.draw(locate(tmp_path / "scenes"), {"train": images}, 96, 128, seed=0)
    (tmp_path / "network").mkdir()
    network = tiny.checkpoint(tmp_path / "network", tiny.recipe(), datasets.get("scenes").table)
    pictures = next((tmp_path / "scenes").rglob("train/*/*_leftImg8bit.png")).parent
    resources = InferenceResources(refiners=2)
    request = predict.check_request(str(network), str(pictures), str(output))
    assert plan.count(request) == (images, 0)
    planned = plan.measure_request(request, resources, 24)
    assert planned.images >= 24
    assert not planned.failed
    # Nothing stays, and nothing is claimed.
    assert [path for path in output.rglob("*") if path.is_file()] == []

    done = delivery.run(delivery.begin(request.order), lambda begun: request.stages(begun, resources))
    assert plan.count(request) == (images, images)
    figures = done.figures
    costs = []
    for stage, said in zip(figures["stages"], planned.stages, strict=True):
        compute = stage["busy_s_per_image"]
        storage = sum(stage["seconds"].values()) / images - compute
        costs.append(StageCost(stage["name"], compute, storage, stage["start_s"], said.in_flight))
        assert compute / 4 < said.compute_s < compute * 4
    counts = [stage["workers"] for stage in figures["stages"]]
    job = Job(images, tuple(costs), unit_size(images, 0, 0), planned.driver_s)
    found = estimate(job, workers(*counts))
    plain = estimate(replace(job, stages=planned.stages), workers(*counts))
    took = figures["seconds"]
    print(f"planned {plain.seconds:.2f} s, at the run's own costs {found.seconds:.2f} s, took {took:.2f} s")
    assert found.seconds == pytest.approx(took, rel=AGREES)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_images_none_of_which_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "network").mkdir()
    network = tiny.checkpoint(tmp_path / "network", tiny.recipe(), datasets.get("scenes").table)
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.png").write_bytes(b"no image")
    request = predict.check_request(str(network), str(tmp_path / "in"), str(tmp_path / "out"))
    with pytest.raises(JobError, match="none of 3 images that were tried could be predicted; the first: not an image"):
        plan.measure_request(request, InferenceResources(refiners=1), 24)


CPU_COSTS = StageCost("predict", 2.0, 0.02, 20.0, IN_FLIGHT), StageCost("refine", 1.2, 0.05, 10.0, IN_FLIGHT)
ON_CPUS = Measured(24, 40.0, CPU_COSTS, (1, 6), 4, 0.0005, [])
GPU, CPU = Node(8, 1, 1.2), Node(16, 0, 0.7)


def test_a_gpu_is_planned_by_what_it_is_said_to_take() -> None:
    wanted = Wanted((1000, 10**6), GPU, CPU, predict_seconds=0.05)
    found = forecast(ON_CPUS, wanted, [Node(8)], InferenceResources(), gpus=0)
    # 20 images a second, of which the GPU node's six CPUs left refine 5 and a CPU node 12.5.
    assert (found.main.workers, found.other and found.other.workers) == ((1, 6), (0, 15))
    assert found.others_per_main == pytest.approx(1.2)
    assert len(found.here) == len(found.best) == 2
    # As it is, it predicts an image every 2 s.
    assert found.here[1].estimate.images_per_s == pytest.approx(0.5)
    row = found.best[1]
    assert row
    assert found.advice(10**6).startswith("1,000,000 images: 1 node of 1 GPU and 8 CPU + ")
    assert "1.2 nodes of 16 CPU keep one of 1 GPU and 8 CPU busy" in found.advice(10**6)
    assert row.estimate.cost == pytest.approx(
        row.estimate.seconds / 3600 * sum(kind.price_per_hour * count for kind, count in row.nodes)
    )
    text = table(ON_CPUS, found, "1 node of 8 CPU")
    assert "measured 24 images on 1 node of 8 CPU: 1 × predict, 6 × refine" in text
    json.dumps(as_result(ON_CPUS, found, "", 1000), allow_nan=False)


def test_a_deadline_says_how_many() -> None:
    measured = replace(ON_CPUS, stages=(replace(CPU_COSTS[0], compute_s=0.05), CPU_COSTS[1]))
    wanted = Wanted((10**7,), GPU, CPU, deadline_seconds=8 * 3600)
    found = forecast(measured, wanted, [Node(8, 1), Node(16)], InferenceResources(), gpus=1)
    (row,) = found.best
    assert row
    assert row.estimate.seconds <= 8 * 3600
    # 10^7 × 0.05 s are 17.4 times 8 h; the CRF's 10^7 × 1.2 s are those of 417 CPUs.
    assert {kind.name: count for kind, count in row.nodes}["1 GPU and 8 CPU"] >= 18
    assert sum(kind.workers[1] * count for kind, count in row.nodes) >= 417
    hopeless = forecast(measured, replace(wanted, deadline_seconds=10), [Node(8, 1)], InferenceResources(), gpus=1)
    assert hopeless.best == [None]
    assert "give --deadline-hours more" in hopeless.advice(10**7)
    spot = replace(wanted, losses_per_node_hour=1.0, replacement_seconds=600)
    dearer = forecast(measured, spot, [Node(8, 1), Node(16)], InferenceResources(), gpus=1).best[0]
    assert dearer
    assert sum(count for _, count in dearer.nodes) > sum(count for _, count in row.nodes)


def test_a_cluster_of_cpus_is_planned_as_it_is() -> None:
    found = forecast(ON_CPUS, Wanted((1000,)), [Node(8)], InferenceResources(), gpus=0)
    assert found.redundant
    assert found.other is None
    assert found.refiners_per_predictor == pytest.approx(0.6)
    assert "0.6 CRF actors keep up with a predictor" in found.advice(1000)
    assert as_result(ON_CPUS, found, "", 1000)["plans"] == []
    grows = forecast(ON_CPUS, Wanted((1000,)), [Node(8)], InferenceResources(autoscaling=True), gpus=0)
    assert grows.here == []
    assert grows.best


def test_scores_alone_have_nothing_to_balance() -> None:
    alone = replace(ON_CPUS, stages=CPU_COSTS[:1], workers=(1,))
    found = forecast(alone, Wanted((1000,), GPU, CPU, 0.05), [Node(8)], InferenceResources(), gpus=0)
    assert (found.other, found.others_per_main, found.refiners_per_predictor) == (None, 0, None)


@pytest.mark.parametrize("text", ["", "8", "1,8", "1,8,x", "1,8,1,1", "0,8,1", "-1,8,1", "1,8,nan", "1,8,-1"])
def test_nodes_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match=f"--gpu-node {text} is not GPUS,CPUS,PRICE, such as 1,8,1.2"):
        Node.parse(text, "--gpu-node", gpus=True)


def test_nodes_that_are_some() -> None:
    assert Node.parse("1,8,1.2", "--gpu-node", gpus=True) == GPU
    assert Node.parse("16,0.7", "--cpu-node", gpus=False) == CPU


def test_what_cannot_be_planned_is_said_before_anything_is_measured() -> None:
    with pytest.raises(UserError, match="how fast a GPU predicts cannot be measured here"):
        check(Wanted((1000,), GPU), [Node(8)], gpus=0)
    with pytest.raises(UserError, match="the cluster has no GPU node yet: say by --gpu-node"):
        check(Wanted((1000,)), [Node(8)], gpus=1)
    with pytest.raises(UserError, match="a node of 4 GPU and 1 CPU alone cannot predict and refine"):
        check(Wanted((1000,), Node(1, 4, 1.0)), [Node(8, 1)], gpus=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--predict-seconds", "0.1"], "--predict-seconds is of a GPU: say by --gpu-node which node it is in"),
        (["--images", "100", "0"], "--images 0 must be at least 1"),
        (["--deadline-hours", "0"], "--deadline-hours 0 must be above 0"),
        (["--losses-per-node-hour", "-1"], "--losses-per-node-hour -1 must not be negative"),
    ],
)
def test_usage(arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "network").mkdir()
    network = tiny.checkpoint(tmp_path / "network", tiny.recipe(), tiny.classes(2))
    where = ["--checkpoint", str(network), "--input", str(tmp_path), "--output", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, JOB, *where, *arguments], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, f"error: {message}")
