"""Write pydensecrf.npz and pydensecrf_programs.npz: what pydensecrf makes of small images and of programs of its calls,
so that tests can compare without a C++ compiler.

PYTHONPATH=tests/crf uv run --extra pydensecrf tests/reference/make_pydensecrf.py

`tests/crf/stored.py` and `tests/crf/programs.py` choose the inputs and read the files; where pydensecrf is installed,
`tests/crf` checks that the files are what pydensecrf gives.
"""

import numpy as np
import programs
from pydensecrf import densecrf, utils
from stored import FILE, as_probabilities, inputs, pack

from deeplab_ray.crf import DenseCRF


def main() -> None:
    arrays: dict[str, np.ndarray] = {}
    for name, image, whole, params, compatibility in inputs():
        crf = DenseCRF(params, "pydensecrf", compatibility=compatibility)
        beliefs = crf.refine(image, as_probabilities(whole))
        arrays |= pack(name, image, whole, params, compatibility, beliefs)
    np.savez_compressed(FILE, **arrays)  # type: ignore[arg-type]
    print(f"{FILE}: {FILE.stat().st_size} bytes, {len({key.split('/')[0] for key in arrays})} cases")
    np.savez_compressed(programs.FILE, **programs.record(densecrf, utils))  # type: ignore[arg-type]
    print(f"{programs.FILE}: {programs.FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
