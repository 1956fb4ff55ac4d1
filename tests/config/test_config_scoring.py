"""Scoring options: nonsense is refused with a way out, and they can be switched off."""

import pytest

from deeplab_ray import cli
from deeplab_ray.config.scoring import ScoringConfig
from deeplab_ray.errors import UserError


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"test_scales": (0.0, 1.0)}, r"test_scales \(0\.0, 1\.0\) must be factors in \(0, 8\]"),
        ({"test_scales": (9.0,)}, r"must be factors in \(0, 8\]"),
        ({"test_scales": 1.0}, r"test_scales 1\.0 is not of type tuple"),
        ({"tile": -1}, "tile -1 must not be negative"),
        ({"tile": 129, "tile_overlap": 128}, r"must lie in 0\.\.113"),
        ({"tile": 129, "tile_overlap": -1}, r"must lie in 0\.\.113"),
    ],
)
def test_nonsense_is_refused_in_one_line(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as refusal:
        ScoringConfig(**options)
    assert "\n" not in str(refusal.value)


def test_no_scales_are_the_image_as_it_is() -> None:
    assert ScoringConfig(()) == ScoringConfig((1.0,)) == ScoringConfig()


def test_flags_switch_off_what_was_on() -> None:
    on = ScoringConfig((0.5, 1.0), test_mirror=True, tile=513)
    flags = ["--test-scales", "--no-test-mirror", "--tile", "0"]
    assert cli.parse(ScoringConfig, prog="evaluate.py", description="", argv=flags, default=on) == ScoringConfig()
