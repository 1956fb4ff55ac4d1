"""What the benchmark of atrous convolution measures, on a layer that takes a moment."""

import pytest

from deeplab_ray.benchmarks import atrous


def test_both_are_timed_and_their_ratio_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atrous, "CASES", (("a layer", 1, 4, 4, 9, 4),))
    (row,) = atrous.measure(repeats=2)
    assert row.pytorch > 0
    assert row.taps > 0
    assert atrous.table([atrous.Row("slow", 3.0, 1.5)]).splitlines()[-1].split() == ["slow", "3.000", "1.500", "2.00"]
