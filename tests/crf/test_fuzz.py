"""Random calls of pydensecrf's interface: finite, and equal to pydensecrf's. `--fuzz 10000` runs as many."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from fuzz import SHORT, random_call

from deeplab_ray.crf import compat


@pytest.fixture
def seeds(request: pytest.FixtureRequest) -> range:
    return range(request.config.getoption("fuzz"))


def test_random_calls_are_finite_and_equal_the_reference(seeds: range) -> None:
    reference = find_spec("pydensecrf") and pytest.importorskip("pydensecrf.densecrf")
    for seed in seeds:
        call = random_call(seed)
        if call.reach > 2**20:
            # Widths so small that float32 holds no place on the lattice; pydensecrf's numbers run over long before.
            with pytest.raises(ValueError, match="too far for float32"):
                call.beliefs(compat)
            continue
        beliefs = call.beliefs(compat)
        assert np.isfinite(beliefs).all(), seed
        np.testing.assert_allclose(beliefs.sum(axis=0), 1, atol=1e-4, err_msg=str(seed))
        # Energies of millions are steps of ¼ apart in float32: their rounding may decide between two labels.
        if reference and call.reach < SHORT and np.abs(call.energies).max() < 1e5:
            assert np.abs(beliefs - call.beliefs(reference)).max() < 1e-4, seed


@pytest.mark.slow
def test_random_calls_under_bound_checking(seeds: range, tmp_path: Path) -> None:
    """Indices of all arrays, rows included, are checked; a fresh cache, as checks are compiled in."""
    script = (
        "import sys\n"
        "from fuzz import random_call\n"
        "from deeplab_ray.crf import compat\n"
        "for seed in range(int(sys.argv[1])):\n"
        "    call = random_call(seed)\n"
        "    if call.reach <= 2**20:\n"
        "        assert abs(call.beliefs(compat).sum(0) - 1).max() < 1e-4, seed\n"
    )
    environment = os.environ | {
        "NUMBA_BOUNDSCHECK": "1",
        "NUMBA_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).parent),
    }
    command = [sys.executable, "-c", script, str(len(seeds))]
    check = subprocess.run(command, capture_output=True, text=True, timeout=580, env=environment)
    assert check.returncode == 0, check.stderr
