"""What the benchmark of a training's plan measures, on one that is short; and that a longer one costs the same."""

import pytest

from deeplab_ray.benchmarks import plan


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_longer_training_costs_its_driver_no_more() -> None:
    costs = plan.measure(iterations=1_000_000, workers=64, ids=10_000)
    assert costs.seconds < 1
    assert costs.mib < costs.short_mib + 1 < 50
    assert costs.order_cached_seconds < costs.order_seconds
    assert costs.rows_per_second > 10
    assert costs.first_batch_seconds < 3 * costs.short_first_batch_seconds
    assert "dataset on the driver, MiB" in plan.table(costs)
