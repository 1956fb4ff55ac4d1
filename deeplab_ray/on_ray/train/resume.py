"""What may change when a run resumes, and what may not."""

from typing import Any

from deeplab_ray.config.io import as_dict, flat, text
from deeplab_ray.errors import UserError
from deeplab_ray.runs import DataRecord, Provenance

_SCHEDULE = {
    f"solver.{name}"
    for name in ("learning_rate", "policy", "power", "step_every", "step_factor", "warmup", "iterations")
}
"""What a user may change, knowing that it changes the result, to let a run learn longer or slower."""
_LATER = {f"crf.{name}" for name in ("w1", "sigma_alpha", "sigma_beta", "w2", "sigma_gamma", "iterations")}
"""What training does not use."""


def check_same_run(asked: Provenance, started: Provenance, output: str) -> list[str]:
    """Raise UserError, naming every difference, if a run that resumes would learn something else than before.

    The schedule may change: its differences are returned, as text for the user. Resources may change without notice.
    """
    theirs, ours = flat(as_dict(started.recipe)), flat(as_dict(asked.recipe))
    changed: list[str] = []
    refused: list[str] = []
    for name in sorted(ours.keys() | theirs.keys()):
        before, now = theirs.get(name), ours.get(name)
        # The run goes on with its own weights, which also decide what is "auto" now.
        if before == now or name in _LATER or name == "network.weights" or (name.startswith("network.") and _open(now)):
            continue
        (changed if name in _SCHEDULE else refused).append(f"{name} {text(before)}, not {text(now)}")
    for what in ("train", "validation"):
        refused += _data(what, getattr(asked, what), getattr(started, what))
    if refused:
        raise UserError(
            f"the run at {output} has {'; '.join(refused)}: go on with that, or start another run with another --output"
        )
    return changed


def _open(value: Any) -> bool:
    return value == "auto" or value is None


def _data(what: str, asked: DataRecord | None, started: DataRecord | None) -> list[str]:
    if asked is None or started is None or asked.digest == started.digest:
        return []
    return [
        f"{what} data of digest {started.digest[:12]} ({started.uri}, {started.images} images), not "
        f"{asked.digest[:12]} ({asked.uri}, {asked.images} images)"
    ]
