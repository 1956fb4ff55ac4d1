"""Write pydensecrf.npz: what pydensecrf makes of small images, so that tests can compare without a C++ compiler.

PYTHONPATH=tests/crf uv run --extra pydensecrf tests/reference/make_pydensecrf.py

`tests/crf/stored.py` chooses the images and reads the file; where pydensecrf is installed, `tests/crf` checks that
the file is what pydensecrf gives.
"""

import numpy as np
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


if __name__ == "__main__":
    main()
