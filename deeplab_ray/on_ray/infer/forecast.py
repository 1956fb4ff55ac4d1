"""What was measured, told for other numbers of images and other nodes: hours, nodes and money, as a table."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from deeplab_ray.config.resources import InferenceResources
from deeplab_ray.errors import UserError
from deeplab_ray.on_ray.infer.costs import Estimate, Job, NodeKind, Nodes, balance, beside, estimate, within
from deeplab_ray.on_ray.infer.plan import Measured, Node
from deeplab_ray.on_ray.infer.progress import duration
from deeplab_ray.on_ray.infer.work import unit_size
from deeplab_ray.on_ray.resources import fill

_MANY = 10**6
"""Images that no node runs out of."""


@dataclass(frozen=True)
class Wanted:
    """What is to be planned."""

    images: tuple[int, ...]
    gpu_node: Node | None = None
    """Nodes that could be rented; None: those of the cluster."""
    cpu_node: Node | None = None
    predict_seconds: float | None = None
    """Of a GPU for an image, where the cluster has none to measure."""
    losses_per_node_hour: float = 0.0
    replacement_seconds: float = 0.0
    deadline_seconds: float | None = None


@dataclass(frozen=True)
class Row:
    """So many images on so many nodes."""

    nodes: Nodes
    estimate: Estimate

    def as_result(self) -> dict[str, Any]:
        """For RESULT: numbers with few digits; None where it takes for ever."""
        found = self.estimate
        figures = {
            "hours": found.seconds / 3600,
            "images_per_s": found.images_per_s,
            "node_hours": found.node_hours,
            "cost": found.cost,
        }
        return {
            "images": found.images,
            "nodes": {kind.name: count for kind, count in self.nodes if count},
            "bottleneck": found.bottleneck,
            **{name: _short(value) for name, value in figures.items()},
        }


@dataclass(frozen=True)
class Forecast:
    """Rows for each number of images."""

    here: list[Row]
    """On this cluster as it is; empty for one that grows by itself."""
    best: list[Row | None]
    """On the fewest nodes that balance, or that are in time; None: no number of nodes is."""
    main: NodeKind
    other: NodeKind | None
    others_per_main: float
    """How many nodes of the other kind keep one of the main kind busy."""
    refiners_per_predictor: float | None
    """How many CRF actors keep up with a predictor."""

    @property
    def redundant(self) -> bool:
        """Whether the best is to keep the cluster as it is."""
        return [row.estimate for row in self.here] == [row and row.estimate for row in self.best]

    def advice(self, images: int) -> str:
        """The recommendation for so many images, one of the numbers that were planned, in one line."""
        row = next((row for row in self.best if row and row.estimate.images == images), None)
        if row is None:
            return f"no number of nodes does {images:,} images in time: give --deadline-hours more"
        parts = [f"{images:,} images: {_names(row.nodes)}, {_time(row.estimate.seconds)}"]
        if row.estimate.cost is not None:
            parts.append(f"{1000 * row.estimate.cost / images:.3g} per 1000 images")
        if self.other and self.others_per_main:
            parts.append(f"{self.others_per_main:.2g} nodes of {self.other.name} keep one of {self.main.name} busy")
        elif self.refiners_per_predictor:
            parts.append(f"{self.refiners_per_predictor:.2g} CRF actors keep up with a predictor")
        return "; ".join(parts)


def forecast(
    measured: Measured, wanted: Wanted, nodes: Sequence[Node], resources: InferenceResources, gpus: float
) -> Forecast:
    """Plan each of the wanted numbers of images.

    nodes: the cluster's. gpus: those of a predictor on it; 0: it was measured on CPUs. Raises UserError if GPU nodes
    are wanted whose speed is not known, and if the nodes cannot hold the stages.
    """
    here = _here(measured, wanted, nodes, resources, gpus)
    main, other = _kinds(measured, wanted, nodes, gpus)
    on_gpus = _gpus(wanted, gpus)
    rented = measured
    if wanted.predict_seconds is not None:
        known = replace(measured.stages[0], compute_s=wanted.predict_seconds)
        rented = replace(measured, stages=(known, *measured.stages[1:]))

    def job(of: Measured, images: int, gpu: float) -> Job:
        return of.job(images, unit_size(images, resources.batch, gpu))

    best: list[Row | None] = []
    for images in wanted.images:
        todo = job(rented, images, on_gpus)
        found: Nodes | None = beside(todo, main, 1, other)
        if wanted.deadline_seconds is not None:
            found = within(todo, wanted.deadline_seconds, main, other)
        best.append(None if found is None else Row(found, estimate(todo, found)))
    stages = rented.stages
    return Forecast(
        [Row(here, estimate(todo, here)) for todo in (job(measured, n, gpus) for n in wanted.images)] if here else [],
        best,
        main,
        other,
        balance(job(rented, _MANY, on_gpus), main, other),
        stages[1].cycle_s / stages[0].cycle_s if len(stages) > 1 and stages[0].cycle_s else None,
    )


def _here(
    measured: Measured, wanted: Wanted, nodes: Sequence[Node], resources: InferenceResources, gpus: float
) -> Nodes:
    if resources.autoscaling:
        return []
    pools = fill([node.resources() for node in nodes], _MANY, gpus, resources.predictors, resources.refiners)
    priced = {(node.cpus, node.gpus): node.price_per_hour for node in (wanted.gpu_node, wanted.cpu_node) if node}
    prices = [priced.get((node.cpus, node.gpus)) for node in nodes]
    known = [price for price in prices if price is not None]
    count, workers = len(nodes), (pools.predictors, pools.refiners)[: len(measured.stages)]
    kind = NodeKind(
        "of this cluster",
        tuple(each / count for each in workers),
        sum(known) / count if len(known) == count else None,
        wanted.losses_per_node_hour,
        wanted.replacement_seconds,
    )
    return [(kind, count)]


def check(wanted: Wanted, nodes: Sequence[Node], gpus: float) -> None:
    """Raise UserError, before anything is measured, if `forecast` will not know what to plan."""
    main, _ = _choose(wanted, nodes, gpus)
    _main(main, wanted, _gpus(wanted, gpus), 2)


def _gpus(wanted: Wanted, gpus: float) -> float:
    """Of a predictor on the nodes that are planned."""
    return gpus or float(wanted.predict_seconds is not None)


def _choose(wanted: Wanted, nodes: Sequence[Node], gpus: float) -> tuple[Node, Node | None]:
    """The kind of node that predicts, and the kind that refines beside it."""
    if not gpus and wanted.predict_seconds is None:
        if wanted.gpu_node:
            raise UserError(
                "how fast a GPU predicts cannot be measured here, where no predictor has one: give --predict-seconds, "
                "or leave --gpu-node out to plan nodes of CPUs alone"
            )
        return wanted.cpu_node or max(nodes, key=lambda node: node.cpus), None
    main = wanted.gpu_node or max((node for node in nodes if node.gpus), key=lambda node: node.gpus, default=None)
    if main is None:
        raise UserError("the cluster has no GPU node yet: say by --gpu-node what one of them has")
    without = (node for node in nodes if not node.gpus)
    return main, wanted.cpu_node or max(without, key=lambda node: node.cpus, default=None)


def _kinds(measured: Measured, wanted: Wanted, nodes: Sequence[Node], gpus: float) -> tuple[NodeKind, NodeKind | None]:
    main, other = _choose(wanted, nodes, gpus)
    kind = _main(main, wanted, _gpus(wanted, gpus), len(measured.stages))
    if other is None or len(measured.stages) < 2:
        return kind, None
    # A node without a GPU keeps a CPU for reading, as `fill` does.
    refiners = max(1, int(other.cpus) - 1)
    spot = wanted.losses_per_node_hour, wanted.replacement_seconds
    return kind, NodeKind(str(other), (0, refiners), other.price_per_hour, *spot)


def _main(node: Node, wanted: Wanted, gpus: float, stages: int) -> NodeKind:
    """A node that predicts, with as many CRF actors as fit beside its predictors."""
    try:
        pools = fill([node.resources()], _MANY, gpus)
    except UserError as error:
        raise UserError(f"a node of {node} alone cannot predict and refine ({error})") from None
    workers = (pools.predictors, pools.refiners)[:stages]
    spot = wanted.losses_per_node_hour, wanted.replacement_seconds
    return NodeKind(str(node), workers, node.price_per_hour, *spot)


def table(measured: Measured, found: Forecast, hardware: str) -> str:
    """What was measured and what follows from it, for a terminal."""
    lines = [
        f"measured {measured.images} images on {hardware}: "
        + ", ".join(f"{n} × {stage.name}" for n, stage in zip(measured.workers, measured.stages, strict=True))
        + f"; {measured.images / measured.seconds:.3g} images/s, filling and draining counted",
        "",
        f"{'a worker':<12}{'computes':>10}{'reads, writes':>15}{'an image every':>16}{'starts in':>11}",
    ]
    lines += [
        f"{each.name:<12}{each.compute_s:>8.3f} s{each.storage_s:>13.3f} s{each.cycle_s:>14.3f} s{each.start_s:>9.1f} s"
        for each in measured.stages
    ]
    head = f"{'images':>12}  {'takes':<12}{'images/s':>9}{'node hours':>12}{'cost':>10}  {'slowest':<9}nodes"
    if found.here:
        lines += ["", "this cluster:", head, *map(_line, found.here)]
    if found.redundant:
        return "\n".join(lines)
    lines += ["", "nodes to rent:", head]
    lines += [
        _line(row) if row else "no number of nodes is in time: workers alone take as long to start"
        for row in found.best
    ]
    return "\n".join(lines)


def as_result(measured: Measured, found: Forecast, hardware: str, images: int) -> dict[str, Any]:
    """For RESULT; images: those of the recommendation."""
    stages = [{name: _short(value) for name, value in asdict(each).items()} for each in measured.stages]
    return {
        "measured": measured.images,
        "failed": len(measured.failed),
        "hardware": hardware,
        "stages": [{**stage, "workers": count} for stage, count in zip(stages, measured.workers, strict=True)],
        "cpu_nodes_per_gpu_node": _short(found.others_per_main) if found.other else None,
        "refiners_per_predictor": _short(found.refiners_per_predictor),
        "here": [row.as_result() for row in found.here],
        "plans": [] if found.redundant else [row and row.as_result() for row in found.best],
        "advice": found.advice(images),
    }


def _line(row: Row) -> str:
    each = row.estimate
    cost = "" if each.cost is None else f"{each.cost:,.2f}"
    return (
        f"{each.images:>12,}  {_time(each.seconds):<12}{each.images_per_s:>9.3g}{each.node_hours:>12.3g}{cost:>10}"
        f"  {each.bottleneck:<9}{_names(row.nodes)}"
    )


def _names(nodes: Nodes) -> str:
    return " + ".join(f"{count} node{'s' * (count != 1)} {_of(kind)}" for kind, count in nodes if count)


def _of(kind: NodeKind) -> str:
    return kind.name if kind.name.startswith("of ") else f"of {kind.name}"


def _time(seconds: float) -> str:
    if seconds == math.inf:
        return "for ever"
    days = seconds / 86400
    return duration(seconds) if days < 4 else f"{days:.3g} days"


def _short(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return float(f"{value:.4g}") if math.isfinite(value) else None
