"""What a search tries: nonsense is refused with a way out."""

import pytest

from deeplab_ray.config.search import SearchConfig
from deeplab_ray.errors import UserError


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"trials": 0}, "trials 0 must be at least 1"),
        ({"learning_rate_min": 1e-2, "learning_rate_max": 1e-3}, "need 0 < min < max"),
        ({"batches": ()}, "at least one batch"),
        ({"batches": (4, 0)}, "at least 1 crop"),
        ({"power_min": 2.0}, r"powers 2\.0\.\.1\.5 are not a range"),
        ({"reports": 0}, "reports 0 must be at least 1"),
        ({"concurrent": -1}, "concurrent -1 must not be negative"),
    ],
)
def test_nonsense_is_refused_in_one_line(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as refusal:
        SearchConfig(**options)
    assert "\n" not in str(refusal.value)
