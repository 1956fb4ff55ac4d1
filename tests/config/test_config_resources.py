"""Resources: nonsense is refused with a way out."""

from collections.abc import Callable
from typing import Any

import pytest

from deeplab_ray.config.resources import InferenceResources, TrainingResources
from deeplab_ray.errors import UserError

NONSENSE: list[tuple[Callable[[], Any], str]] = [
    (lambda: TrainingResources(workers=2.5), r"workers 2\.5 is not of type int"),
    (lambda: TrainingResources(workers=0), "workers 0 must be at least 1"),
    (lambda: TrainingResources(accumulation=0), "accumulation 0 must be at least 1"),
    (lambda: TrainingResources(gpus_per_worker=-1), "0 trains on CPU"),
    (lambda: TrainingResources(cpus_per_worker=0), "cpus_per_worker 0 must be above 0"),
    (lambda: TrainingResources(log_every=0), "log_every 0 must be at least 1"),
    (lambda: TrainingResources(validate_every=-1), "validate_every -1 must not be negative"),
    (lambda: TrainingResources(checkpoint_every=0), "checkpoint_every 0 must be at least 1"),
    (lambda: TrainingResources(keep_checkpoints=0), "keep_checkpoints 0 must be at least 1"),
    (lambda: TrainingResources(max_failures=-1), "max_failures -1 must not be negative"),
    (lambda: InferenceResources(gpus_per_predictor=-1), "0 predicts on CPU"),
]


@pytest.mark.parametrize(("make", "sentence"), NONSENSE, ids=[sentence[:30] for _, sentence in NONSENSE])
def test_nonsense_is_refused_in_one_line(make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as refusal:
        make()
    assert "\n" not in str(refusal.value)
