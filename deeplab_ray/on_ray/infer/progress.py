"""How a job is doing: images a second of each stage, what waits, which pool is the bottleneck, and what it cost."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import ray
from ray.util.metrics import Counter, Gauge

from deeplab_ray.on_ray.infer.chain import StageState
from deeplab_ray.outputs.journal import Done

_EVERY_S = 5.0
# In shorter runs the start decides, about which the pools say nothing.
_LONG_ENOUGH_S = 60.0
# A pool whose workers compute for this share of the time has no room.
_FULL = 0.85


@dataclass(frozen=True)
class StageSummary:
    """What a stage did."""

    name: str
    workers: int
    images: int
    computed: int
    """Images that its workers took up: more than `images` if some were lost with a worker, and done again."""
    images_per_s: float
    use: float
    """Share of its workers' time that went into computing."""
    busy_s_per_image: float
    """Seconds of a worker for an image, reading and writing left out."""
    bytes_per_image: int
    """What goes to the next stage through the object store."""
    seconds: dict[str, float]
    """By step, added up over workers."""
    deaths: int
    start_s: float = 0.0
    """Seconds until its first worker was ready."""


@dataclass(frozen=True)
class Summary:
    """What a job did, in this run."""

    images: int
    errors: int
    seconds: float
    first_image_s: float
    """Seconds from the start of the workers to the first image that was through."""
    images_per_s: float
    """Between the first image and the last; of a single image, 1 by the time it took."""
    node_hours: float
    cost_per_1000: float | None
    bottleneck: str
    advice: str
    stages: list[StageSummary]

    def as_result(self) -> dict[str, Any]:
        """For RESULT: numbers with few digits."""
        fields = asdict(self)
        return {name: _rounded(value) for name, value in fields.items() if value is not None}


class Meter:
    """Counts images, says how it goes every five seconds, and tells Ray's metrics."""

    def __init__(self, states: Sequence[StageState], total: int, say: Callable[[str], None]) -> None:
        self.states, self.total, self._say = states, total, say
        self.images = self.errors = 0
        self._start = self._said = time.monotonic()
        self._first: float | None = None
        self._metrics = _Metrics([state.name for state in states])

    def count(self, done: Done) -> None:
        """Note an image that is through."""
        now = time.monotonic()
        self.images += 1
        self.errors += done.stage is not None
        self._metrics.image(done)
        if self._first is None:
            self._first = self._said = now
            self._say(f"1/{self.total} images, the first after {now - self._start:.0f} s")

    def tick(self) -> None:
        """Say how it goes, if it is time to."""
        now = time.monotonic()
        if now - self._said < _EVERY_S or self._first is None or self.images < 2:
            return
        self._said = now
        rate = (self.images - 1) / (now - self._first)
        self._metrics.stages(self.states)
        parts = [f"{state.name} {100 * state.use:.0f} % busy, {state.waiting} waiting" for state in self.states]
        errors = f", {self.errors} errors" if self.errors else ""
        self._say(
            f"{self.images}/{self.total} images{errors}, {rate:.2f} images/s, "
            f"{duration((self.total - self.images) / rate)} left | {'; '.join(parts)}"
        )

    def summary(self, seconds: float, price_per_node_hour: float | None) -> Summary:
        """What it came to, after the last image."""
        self._metrics.stages(self.states)
        first = (self._first or time.monotonic()) - self._start
        steady = seconds - first
        rate = (self.images - 1) / steady if self.images > 1 and steady > 0 else self.images / max(seconds, 1e-9)
        hours = seconds / 3600 * sum(node["Alive"] for node in ray.nodes())
        cost = None
        if price_per_node_hour is not None and self.images:
            cost = hours * price_per_node_hour / self.images * 1000
        name, advice = bottleneck(self.states)
        stages = [_stage_summary(state, steady) for state in self.states]
        self._say(
            f"{self.images} images, {self.errors} errors, {rate:.2f} images/s, {hours:.3g} node hours"
            + (f", {cost:.4g} per 1000 images" if cost is not None else "")
        )
        if advice and seconds > _LONG_ENOUGH_S:
            self._say(advice)
        return Summary(self.images, self.errors, seconds, first, rate, hours, cost, name, advice, stages)


def bottleneck(states: Sequence[StageState]) -> tuple[str, str]:
    """Name the stage whose workers have least time to spare, and say what to change ("" if nothing)."""
    slow = max(states, key=lambda state: state.use)
    others = [state for state in states if state is not slow and state.images and state.size]
    if slow.use < _FULL:
        return "none", "no pool is full: images come in or go out more slowly than they are computed; look at storage"
    if not others or not slow.images:
        return slow.name, f"{slow.name} is the bottleneck: more of its workers would make it faster"
    other = max(others, key=lambda state: state.use)
    # How many workers would keep the other pool busy.
    wanted = math.ceil(slow.size * slow.use / max(other.use, 0.01) - 1e-9)
    more = wanted - slow.size
    if more < 1:
        return slow.name, ""
    return slow.name, (
        f"{slow.name} is the bottleneck: {more} more of its workers would keep all {other.size} of {other.name} busy "
        f"({100 * other.use:.0f} % now)"
    )


def duration(seconds: float) -> str:
    """ "40 s", "12 min", "3 h 20 min"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _stage_summary(state: StageState, seconds: float) -> StageSummary:
    images = max(state.images, 1)
    return StageSummary(
        name=state.name,
        workers=state.size,
        images=state.images,
        computed=state.computed,
        images_per_s=state.images / seconds if seconds > 0 else 0.0,
        use=state.use,
        busy_s_per_image=state.busy / images,
        bytes_per_image=state.bytes // images,
        seconds=dict(state.seconds),
        deaths=state.deaths,
        start_s=state.start,
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value


class _Metrics:
    """The same figures as Ray's metrics, which Prometheus collects."""

    def __init__(self, stages: Sequence[str]) -> None:
        self._images = Counter("deeplab_ray_images", "Images that are through.", tag_keys=("outcome",))
        self._through = dict.fromkeys(stages, 0)
        self._stage_images = Counter("deeplab_ray_stage_images", "Images that a stage did.", tag_keys=("stage",))
        self._gauges = {
            name: Gauge(f"deeplab_ray_stage_{name}", text, tag_keys=("stage",))
            for name, text in (
                ("workers", "Workers that are ready."),
                ("waiting", "Units of images that wait for a worker."),
                ("use", "Share of the workers' time that goes into computing."),
            )
        }

    def image(self, done: Done) -> None:
        self._images.inc(1, {"outcome": "good" if done.stage is None else "failed"})

    def stages(self, states: Sequence[StageState]) -> None:
        for state in states:
            tags = {"stage": state.name}
            if more := state.images - self._through[state.name]:
                self._stage_images.inc(more, tags)
                self._through[state.name] = state.images
            for name, gauge in self._gauges.items():
                gauge.set(getattr(state, name), tags)
