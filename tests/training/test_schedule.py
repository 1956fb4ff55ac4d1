"""The learning-rate policies against figures worked out by hand."""

import itertools
from dataclasses import replace
from typing import Literal

import pytest

from deeplab_ray.config.recipe import SolverConfig
from deeplab_ray.training.schedule import learning_rate


def test_poly_falls_from_the_base_rate_to_almost_nothing() -> None:
    solver = SolverConfig(learning_rate=2.5e-4, power=0.9, iterations=20_000)
    rates = [learning_rate(solver, iteration) for iteration in range(20_000)]
    assert rates[0] == 2.5e-4
    assert rates[10_000] == pytest.approx(2.5e-4 * 0.535887, rel=1e-5)  # 0.5^0.9
    assert rates[-1] == pytest.approx(2.5e-4 * 1.3459e-4, rel=1e-3)  # (1/20000)^0.9
    assert all(later < earlier for earlier, later in itertools.pairwise(rates))


def test_poly_of_power_1_is_a_line_and_of_power_0_is_flat() -> None:
    line, flat = (SolverConfig(learning_rate=1.0, power=power, iterations=8) for power in (1, 0))
    assert [learning_rate(line, i) for i in range(8)] == [1 - i / 8 for i in range(8)]
    assert {learning_rate(flat, i) for i in range(8)} == {1.0}


def test_steps_come_at_every_multiple() -> None:
    solver = SolverConfig(learning_rate=1e-3, policy="step", iterations=6000)
    assert learning_rate(solver, 0) == learning_rate(solver, 1999) == 1e-3
    assert learning_rate(solver, 2000) == learning_rate(solver, 3999) == pytest.approx(1e-4)
    assert learning_rate(solver, 4000) == learning_rate(solver, 5999) == pytest.approx(1e-5)


@pytest.mark.parametrize("policy", ["poly", "step", "fixed"])
def test_warmup_rises_in_a_line_to_the_policys_rate(policy: Literal["poly", "step", "fixed"]) -> None:
    plain = SolverConfig(learning_rate=0.4, policy=policy, iterations=100, step_every=10)
    warm = replace(plain, warmup=20)
    for iteration, factor in ((0, 1 / 20), (9, 10 / 20), (19, 1), (20, 1), (99, 1)):
        assert learning_rate(warm, iteration) == pytest.approx(factor * learning_rate(plain, iteration))
