"""Mean field in PyTorch: many images at once, on CPU or GPU, with gradients.

The lattice is the same as the numba backend's, built by sorting instead of hashing, so results agree to rounding.
Use this backend to train a CRF end to end, as CRF-RNN does, or on an idle GPU; on a CPU the numba backend is several
times faster. Shapes: P pixels of all images, C classes, V vertices, D features (d in the code).
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deeplab_ray.crf.checks import SMALLEST, check_values, measure_values
from deeplab_ray.crf.lattice import elevation, pack
from deeplab_ray.crf.params import CRFParams


@dataclass(frozen=True)
class _Lattice:
    """The lattice of one kernel over P pixels, with V vertices. Index V stands for a missing neighbour."""

    offsets: Tensor
    """int64 P×(d+1)."""
    weights: Tensor
    """P×(d+1): barycentric weights, normalised symmetrically; without the kernel's weight."""
    neighbours: Tensor
    """int64 (d+1)×2×V."""


def mean_field(
    images: Tensor,
    probabilities: Tensor,
    params: CRFParams,
    *,
    w1: Tensor | None = None,
    w2: Tensor | None = None,
    compatibility: Tensor | None = None,
    on_iteration: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Refine a batch: images uint8 N×H×W×3, probabilities N×C×H×W (float32 or float64, same device) → N×C×H×W.

    Differentiable with respect to the probabilities (clamped at 1e-5), the kernels' weights w1 and w2 (scalars; None:
    those of `params`) and the compatibility (None: Potts; C or C×C, as `DenseCRF` takes it).
    on_iteration: called after each iteration with its number, from 1, and the probabilities so far.
    Raises ValueError if the images are too many, or the widths too small, for the lattice's keys.
    """
    return _iterate(images, probabilities.clamp(SMALLEST, 1).log(), params, w1, w2, compatibility, on_iteration)


def _iterate(
    images: Tensor,
    scores: Tensor,
    params: CRFParams,
    w1: Tensor | None,
    w2: Tensor | None,
    compatibility: Tensor | None,
    on_iteration: Callable[[int, Tensor], None] | None,
) -> Tensor:
    n, classes, height, width = scores.shape
    kernels = []
    if w1 is not None or params.w1:
        lattice = _build(images, params.sigma_alpha, params.sigma_beta, scores.dtype)
        kernels.append((params.w1 if w1 is None else w1, lattice))
    if w2 is not None or params.w2:
        lattice = _build(images, params.sigma_gamma, None, scores.dtype)
        kernels.append((params.w2 if w2 is None else w2, lattice))
    rows = scores.permute(0, 2, 3, 1).reshape(-1, classes)
    beliefs = rows.softmax(dim=1)
    for iteration in range(1, params.iterations + 1):
        message = torch.zeros_like(rows)
        for weight, lattice in kernels:
            message = message + weight * _Filter.apply(beliefs, lattice)
        if compatibility is not None:
            message = message * compatibility if compatibility.ndim == 1 else -(message @ compatibility.T)
        beliefs = (rows + message).softmax(dim=1)
        if on_iteration is not None:
            on_iteration(iteration, beliefs.reshape(n, height, width, classes).permute(0, 3, 1, 2))
    return beliefs.reshape(n, height, width, classes).permute(0, 3, 1, 2)


class _Filter(torch.autograd.Function):
    """Splat, blur and slice; the transpose blurs the directions in reverse order."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, lattice: _Lattice) -> Tensor:
        ctx.lattice = lattice
        return _filter(values, lattice, False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _filter(gradient, ctx.lattice, True), None


def _filter(values: Tensor, lattice: _Lattice, transposed: bool) -> Tensor:
    """Filter P×C on the lattice → P×C."""
    vertices = lattice.neighbours.shape[2]
    held = values.new_zeros(vertices + 1, values.shape[1])
    for k in range(lattice.offsets.shape[1]):
        held.index_add_(0, lattice.offsets[:, k], values * lattice.weights[:, k, None])
    directions = lattice.neighbours.flip(0) if transposed else lattice.neighbours
    for before, after in directions:
        held[:-1] = held[:-1] + 0.5 * (held[before] + held[after])
    result = torch.zeros_like(values)
    for k in range(lattice.offsets.shape[1]):
        result += held[lattice.offsets[:, k]] * lattice.weights[:, k, None]
    return result


@torch.no_grad()
def _build(images: Tensor, spatial: float, colour: float | None, dtype: torch.dtype) -> _Lattice:
    """Build one lattice over all pixels of all images; they share no vertex, as a key holds the image's number."""
    n, height, width, _ = images.shape
    device = images.device
    # Divide by a tensor: PyTorch may turn division by a number into multiplication, which rounds differently.
    sigma = torch.tensor(spatial, device=device, dtype=torch.float32)
    places = [torch.arange(size, device=device, dtype=torch.float32) / sigma for size in (width, height)]
    features = [places[0].repeat(n * height), places[1].repeat_interleave(width).repeat(n)]
    tones = np.zeros(1, np.float32)
    if colour is not None:
        tones = np.arange(256, dtype=np.float32) / np.float32(colour)
        features += list(torch.from_numpy(tones).to(device)[images.reshape(-1, 3).long()].unbind(1))
    d = len(features)
    packing = pack(d, (places[0].cpu().numpy(), places[1].cpu().numpy()), tones)
    if packing.bits + n.bit_length() > 62:
        raise ValueError(f"{n} images at a time are too many for these sigmas: take fewer")
    # Each image is padded with zero pixels to a multiple of four, as in Krähenbühl's code; their vertices stay.
    vertices_of, weights = _simplices(torch.stack(features), packing.units, packing.origin)
    filler, _ = _simplices(torch.zeros(d, 1, device=device), packing.units, packing.origin)
    image = torch.arange(n, device=device) << packing.bits
    keys = [(vertices_of.reshape(n, -1) + image[:, None]).reshape(-1)]
    if height * width % 4:
        keys.append((filler + image[:, None]).reshape(-1))
    known, inverse = torch.unique(torch.cat(keys), return_inverse=True)
    offsets = inverse[: weights.numel()].reshape(-1, d + 1)
    neighbours = []
    for direction in range(d + 1):
        step = int((d + 1) * packing.units[direction] - packing.units.sum())
        neighbours.append(torch.stack([_lookup(known, known + sign * step) for sign in (1, -1)]))
    scale = 1 / (1 + 2.0**-d)
    lattice = _Lattice(offsets, weights.to(dtype), torch.stack(neighbours))
    ones = scale * _filter(torch.ones(len(offsets), 1, dtype=dtype, device=device), lattice, False)
    return _Lattice(offsets, lattice.weights * (scale / (ones + 1e-20)).sqrt(), lattice.neighbours)


def _lookup(known: Tensor, keys: Tensor) -> Tensor:
    """Return the index of each key among the sorted known ones, or their number if the key is not among them."""
    at = torch.searchsorted(known, keys).clamp_(max=len(known) - 1)
    return torch.where(known[at] == keys, at, len(known))


def _simplices(features: Tensor, units: NDArray[np.int64], origin: int) -> tuple[Tensor, Tensor]:
    """Features float32 d×P → keys int64 P×(d+1), weights float32 P×(d+1), computed in the reference's order."""
    d, pixels = features.shape
    scale = elevation(d)
    step, part = np.float32(d + 1), np.float32(1) / np.float32(d + 1)
    elevated: list[Tensor] = [features[0]] * (d + 1)
    total = torch.zeros_like(features[0])
    for j in range(d, 0, -1):
        scaled = features[j - 1] * float(scale[j - 1])
        elevated[j] = total - j * scaled
        total = total + scaled
    elevated[0] = total
    e = torch.stack(elevated)
    whole = (e * float(part)).round()
    base, shift = whole * float(step), whole.sum(0)
    rest = e - base
    rank = torch.zeros_like(e)
    for i, j in itertools.combinations(range(d + 1), 2):
        below = (rest[i] < rest[j]).float()
        rank[i] += below
        rank[j] += 1 - below
    rank += shift
    turn = (rank < 0).float() * float(step) - (rank > d).float() * float(step)
    rank, base = (rank + turn).long(), base + turn
    rest = (e - base) * float(part)
    # Coordinate i of rank r adds to weight d − r and takes from weight d − r + 1.
    by_rank = torch.empty_like(rest).scatter_(0, rank, rest)
    weights = torch.empty(pixels, d + 1, device=features.device)
    weights[:, 0] = by_rank[d] + (1 - by_rank[0])
    for k in range(1, d + 1):
        weights[:, k] = by_rank[d - k] - by_rank[d - k + 1]
    unit = torch.from_numpy(units).to(features.device)
    unit_by_rank = torch.empty_like(rank).scatter_(0, rank, unit[:, None].expand(-1, pixels).contiguous())
    keys = torch.empty(pixels, d + 1, dtype=torch.int64, device=features.device)
    keys[:, 0] = origin + (base.long() * unit[:, None]).sum(0)
    for k in range(1, d + 1):
        keys[:, k] = keys[:, k - 1] + int(units.sum()) - (d + 1) * unit_by_rank[d - k + 1]
    return keys, weights


class Engine:
    """One image at a time for `DenseCRF`, on a GPU if there is one."""

    def __init__(self, params: CRFParams, compatibility: NDArray[np.float32] | None, tolerance: float) -> None:
        self.params = params
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.compatibility = None if compatibility is None else torch.from_numpy(compatibility).to(self.device)

    def refine(
        self,
        image: NDArray[np.uint8],
        planes: NDArray[np.float32],
        energies: bool,
        on_iteration: Callable[[int, NDArray[np.float32]], None] | None,
    ) -> NDArray[np.float32]:
        """Return the refined probabilities, float32 C×H×W; see `DenseCRF.refine`."""
        check_values(energies, *measure_values(planes))

        def tell(iteration: int, beliefs: Tensor) -> None:
            if on_iteration is not None:
                on_iteration(iteration, _array(beliefs))

        with torch.no_grad():
            given = torch.tensor(planes, device=self.device)[None]
            scores = -given if energies else given.clamp(SMALLEST, 1).log()
            pixels = torch.tensor(image, device=self.device)[None]
            return _array(_iterate(pixels, scores, self.params, None, None, self.compatibility, tell))

    def labels(self, image: NDArray[np.uint8], planes: NDArray[np.float32], energies: bool) -> NDArray[Any]:
        """Return the most probable label of every pixel, H×W; see `DenseCRF.labels`."""
        kind = np.uint8 if len(planes) <= 256 else np.uint16
        return self.refine(image, planes, energies, None).argmax(axis=0).astype(kind)


def _array(beliefs: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(beliefs[0].cpu().numpy())
