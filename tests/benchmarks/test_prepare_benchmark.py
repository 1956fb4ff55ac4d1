"""What the benchmark of preparation measures, on a small set."""

import psutil
import pytest

from deeplab_ray.benchmarks import prepare


@pytest.mark.usefixtures("ray_cluster")
def test_a_drawn_set_is_prepared_and_its_rate_and_memory_are_told() -> None:
    row = prepare.measure(cores=2, images=40, height=48, width=64, shard_mb=0.1)
    assert (row.cores, row.images) == (2, 40)
    assert row.images_per_s > 1
    # At least this process and two workers that have imported NumPy and Pillow.
    assert 100 < row.peak_mib < psutil.virtual_memory().total / 2**20
    assert prepare.table([row]).splitlines()[1].split()[:2] == ["2", "40"]
