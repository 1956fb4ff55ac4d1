"""What the benchmarks of networks measure and print, on crops that take a moment."""

import pytest

from deeplab_ray.benchmarks import networks


def test_kernels_are_measured_beside_the_papers_table(monkeypatch: pytest.MonkeyPatch) -> None:
    # The smallest alone; the largest takes half a gigabyte.
    monkeypatch.setattr(networks, "KERNELS", networks.KERNELS[-1:])
    rows = networks.measure_kernels(size=17, batch=1, repeats=1, train=False)
    (row,) = rows
    assert (row.field_of_view, row.parameters, row.published_images_per_s) == (224, 20_505_429, 4.84)
    assert row.images_per_s > 0
    assert "3×3, rate 12" in networks.format_kernels(rows)


def test_multiples_are_of_the_slowest_network() -> None:
    rows = [
        networks.KernelRow("a", "7×7", 224, 10, 10, 1.44, 0.5),
        networks.KernelRow("b", "3×3", 224, 5, 5, 4.84, 2.0),
    ]
    last = networks.format_kernels(rows).splitlines()[-1].split()
    assert last[-4:] == ["2.000", "4.00", "4.84", "3.36"]


def test_a_steps_rate_counts_backward_twice_as_much_as_forward() -> None:
    ours = networks.StepRow("ours", images_per_s=10, multiply_adds=10**9, peak_bytes=0)
    rival = networks.StepRow("rival", images_per_s=5, multiply_adds=10**9, peak_bytes=0)
    assert ours.flops == 6e10
    found = networks.StepComparison("CPU", ours, rival, 1.2e11)
    assert found.ratio == 2
    assert "50.0%" in networks.format_steps(found)


@pytest.mark.slow
def test_the_training_step_is_compared_with_torchvisions() -> None:
    found = networks.compare_steps(size=33, batch=2, repeats=1, precision="float32", compiled=False)
    assert found.ours.images_per_s > 0
    assert found.rival.images_per_s > 0
    assert found.matrix_flops > 0
    # Three scales of ASPP against one of deeplabv3: neither is far from the other.
    assert 0.2 < found.ours.multiply_adds / found.rival.multiply_adds < 5
