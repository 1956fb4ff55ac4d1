"""The numba backend against the reference on random cases, under bound checking, and over many images."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fields import random_case, scene
from stored import Case, stored_cases

from deeplab_ray.crf import PAPER_CRFS, CRFParams, DenseCRF
from deeplab_ray.crf.model import TOLERANCE


@pytest.mark.parametrize("case", stored_cases(), ids=lambda case: case.name)
def test_skipping_stays_near_the_reference(case: Case) -> None:
    crf = DenseCRF(case.params, compatibility=case.compatibility)
    assert np.abs(crf.refine(case.image, case.probabilities) - case.beliefs).max() < 10 * TOLERANCE


@pytest.mark.parametrize("first", range(0, 500, 100))
def test_random_cases_equal_the_reference(first: int) -> None:
    pytest.importorskip("pydensecrf", reason="the extra 'pydensecrf' is not installed")
    for seed in range(first, first + 100):
        image, probabilities, params, compatibility = random_case(seed)
        # Far from a fixed point mean field can double any rounding in each iteration; the first few tell all.
        params = replace(params, iterations=4)
        expected = DenseCRF(params, "pydensecrf", compatibility=compatibility).refine(image, probabilities)
        for tolerance, most in ((0.0, 1e-4), (TOLERANCE, 1e-3)):
            crf = DenseCRF(params, compatibility=compatibility, tolerance=tolerance)
            assert np.abs(crf.refine(image, probabilities) - expected).max() < most, f"case {seed}, {tolerance}"


@pytest.mark.slow
def test_random_cases_under_bound_checking(tmp_path: Path) -> None:
    """Indices of all arrays, rows included, are checked; a fresh cache, as checks are compiled in."""
    script = (
        "import numpy as np, pytest\n"
        "from fields import random_case\n"
        "from deeplab_ray.crf import DenseCRF\n"
        "from deeplab_ray.crf import simd\n"
        "import numba\n"
        "peek = numba.njit(lambda rows, index: simd.total(simd.load(rows, index)))\n"
        "with pytest.raises(IndexError):\n"
        "    peek(simd.as_rows(np.zeros(32, np.float32), 16), 2)\n"
        "for seed in range(500):\n"
        "    image, probabilities, params, compatibility = random_case(seed)\n"
        "    q = DenseCRF(params, compatibility=compatibility).refine(image, probabilities)\n"
        "    assert np.abs(q.sum(0) - 1).max() < 1e-4, seed\n"
    )
    environment = os.environ | {
        "NUMBA_BOUNDSCHECK": "1",
        "NUMBA_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).parent),
    }
    check = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=580, env=environment)
    assert check.returncode == 0, check.stderr


def test_skipping_leaves_beliefs_within_reach() -> None:
    image, probabilities = scene(11, 80, 120)
    every = DenseCRF(CRFParams(), tolerance=0).refine(image, probabilities)
    for tolerance in (1e-6, 1e-5, 1e-4):
        assert np.abs(DenseCRF(CRFParams(), tolerance=tolerance).refine(image, probabilities) - every).max() < (
            100 * tolerance
        )


def test_widths_that_do_not_fit_the_keys_are_refused() -> None:
    image, probabilities = scene()
    with pytest.raises(ValueError, match="take larger sigmas"):
        DenseCRF(CRFParams(sigma_beta=1e-3)).refine(image, probabilities)


def test_a_callback_that_raises_leaves_no_trace() -> None:
    def interrupt(number: int, beliefs: np.ndarray) -> None:
        raise KeyboardInterrupt

    image, probabilities = scene()
    crf = DenseCRF(CRFParams())
    expected = crf.refine(image, probabilities)
    with pytest.raises(KeyboardInterrupt):
        crf.refine(image, probabilities, on_iteration=interrupt)
    assert np.array_equal(crf.refine(image, probabilities), expected)


def test_sharing_buffers_changes_nothing() -> None:
    first = DenseCRF(CRFParams())
    second = DenseCRF(CRFParams(3, 20, 13, 2, 3, 4), share=first)
    for classes, height, width in [(4, 15, 13), (21, 30, 40), (4, 50, 9)]:
        image, probabilities = scene(classes, height, width)
        for crf in (first, second):
            assert np.array_equal(crf.refine(image, probabilities), DenseCRF(crf.params).refine(image, probabilities))


def test_threads_take_turns_on_one_object() -> None:
    image, probabilities = scene(5, 60, 60)
    crf = DenseCRF(CRFParams())
    expected = crf.refine(image, probabilities)
    with ThreadPoolExecutor(4) as pool:
        results = pool.map(lambda _: crf.refine(image, probabilities), range(16))
    assert all(np.array_equal(result, expected) for result in results)


def test_it_imports_neither_ray_nor_torch() -> None:
    script = (
        "import sys\n"
        "import numpy as np\n"
        "from deeplab_ray.crf import CRFParams, DenseCRF\n"
        "DenseCRF(CRFParams()).refine(np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 2), 0.5, np.float32))\n"
        "assert not {'ray', 'torch'} & set(sys.modules), sorted(sys.modules)\n"
    )
    check = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert check.returncode == 0, check.stderr


def test_the_papers_crfs_go_by_name() -> None:
    image, probabilities = scene()
    results = [DenseCRF(params).refine(image, probabilities) for params in PAPER_CRFS.values()]
    assert PAPER_CRFS["deeplab-v2-resnet101-voc12"] == CRFParams(4, 67, 3, 3, 1, 10)
    assert not np.allclose(results[0], results[1])


def test_after_warming_nothing_is_left_to_compile() -> None:
    """In a process of its own, where nothing else has compiled before."""
    script = (
        "from fields import scene\n"
        "from numba.core.dispatcher import Dispatcher\n"
        "from deeplab_ray.crf import CRFParams, DenseCRF\n"
        "crf = DenseCRF(CRFParams())\n"
        "crf.warm(4)\n"
        "from deeplab_ray.crf import kernels, lattice_kernels\n"
        "every = [f for m in (kernels, lattice_kernels) for f in vars(m).values() if isinstance(f, Dispatcher)]\n"
        "before = {f.__name__: len(f.signatures) for f in every}\n"
        "crf.refine(*scene(4, 60, 60))\n"
        "crf.labels(*scene(4, 60, 60))\n"
        "assert before['update'] == before['sweep'] == 1, before\n"
        "assert before == {f.__name__: len(f.signatures) for f in every}\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    check = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, env=environment)
    assert check.returncode == 0, check.stderr
