"""One Gaussian kernel of a fully connected CRF, over any points."""

from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deeplab_ray.crf import lattice, point_lattice
from deeplab_ray.crf.checks import check_compatibility
from deeplab_ray.crf.point_lattice import PointLattice

Normalisation = Literal["none", "before", "after", "symmetric"]


class Kernel:
    """A kernel k(i, j) = weight × exp(−|f(i) − f(j)|² / 2) of the pairwise energy. Its lattice is built at first use.

    features: D×N, or D× any shape of N points, in standard deviations: positions, colours or whatever else, each
        divided by its width.
    compatibility: as in `DenseCRF`: None (Potts), C numbers (what is favoured at both of two points), or what label
        costs beside label, C×C and symmetric.
    normalisation: with n(i) = Σ k(i, j) / weight, "symmetric" divides k(i, j) by √(n(i) n(j)), "before" by n(j),
        "after" by n(i), "none" by nothing: messages are then the lattice's, weaker than the formula's; for a random
        cloud of points by a tenth in one dimension, by two thirds in five.

    Raises ValueError if features are not finite, or so far from 0 that float32 cannot tell places on the lattice; or
    for a wrong weight, compatibility or normalisation.
    """

    def __init__(
        self,
        features: ArrayLike,
        weight: float = 1.0,
        *,
        compatibility: ArrayLike | None = None,
        normalisation: Normalisation = "symmetric",
    ) -> None:
        given = np.asarray(features, np.float32)
        if given.ndim < 2:
            raise ValueError(f"features must be D×N, not {given.shape}")
        self.features: NDArray[np.float32] = given.reshape(len(given), -1)
        self.weight = float(weight)
        self.compatibility = None if compatibility is None else np.array(compatibility, np.float32)
        self.normalisation = normalisation
        point_lattice.check_features(self.features)
        check_compatibility(self.compatibility)
        if not np.isfinite(self.weight):
            raise ValueError(f"the weight of a kernel must be finite, not {weight}")
        if normalisation not in get_args(Normalisation):
            raise ValueError(
                f"unknown normalisation {normalisation!r}: choose one of {', '.join(get_args(Normalisation))}"
            )

    @cached_property
    def lattice(self) -> PointLattice:
        """Return the lattice of the points."""
        return point_lattice.build(self.features)

    @cached_property
    def factors(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return two factors of each point, float32 N: before splatting, and after slicing."""
        response = self.lattice.response.astype(np.float64) + 1e-20
        norm = {"none": np.ones_like(response), "symmetric": response**-0.5}.get(self.normalisation, 1 / response)
        before, after = (
            norm if self.normalisation in ("symmetric", side) else np.ones_like(norm) for side in ("before", "after")
        )
        return before.astype(np.float32), (after * lattice.scale(len(self.features))).astype(np.float32)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("lattice", "factors")}
