"""The recipe: all that decides what is learned.

Its defaults are those of DeepLab v2 (Chen et al., PAMI 2017, section 4), and are written nowhere else.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import tyro

from deeplab_ray.checks import check_types, require
from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.config.scoring import ScoringConfig
from deeplab_ray.crf.params import CRFParams

Policy = Literal["poly", "step", "fixed"]
Precision = Literal["float32", "bfloat16"]

FLAT = tyro.conf.arg(name="")
"""On the command line, the fields of this group are flags without the group's name in front."""


@dataclass(frozen=True)
class AugmentConfig:
    """Random scale, mirror and crop of training images."""

    crop: int = 321
    """Side of the square training crop in pixels; it must fit the network (DeepLab: ≡ 1 (mod 8))."""
    scale_min: float = 0.5
    """Smallest factor of the random scale."""
    scale_max: float = 1.5
    """Largest factor of the random scale."""
    mirror: bool = True
    """Mirror half of the samples left to right."""
    small_share: float = 0.0
    """Share of the iterations, from the first on, that see smaller crops of images scaled down alike (progressive
    resizing): random weights learn as much from them at a fraction of the cost."""
    small_scale: float = 0.67
    """Size of the smaller crops relative to the others; the nearest crop that fits the network's grid is taken."""

    def __post_init__(self) -> None:
        check_types(self)
        require(0 <= self.small_share <= 1, f"small_share {self.small_share} must lie in [0, 1]; 0 leaves it out")
        require(0 < self.small_scale <= 1, f"small_scale {self.small_scale} must lie in (0, 1]")
        require(
            0 < self.scale_min <= self.scale_max <= 8,
            f"scales {self.scale_min}..{self.scale_max} are not a range: need 0 < scale_min <= scale_max <= 8",
        )


@dataclass(frozen=True)
class SolverConfig:
    """SGD with momentum under the poly, the step or the fixed policy, applied at every iteration."""

    learning_rate: float = 2.5e-4
    """Base learning rate of the weights; biases learn at twice this rate."""
    classifier_factor: float = 10.0
    """How many times faster the classifier learns, since it starts at random on a pretrained trunk."""
    policy: Policy = "poly"
    """poly: rate × (1 − i/iterations)^power; step: rate × step_factor every step_every iterations; fixed: rate."""
    power: float = 0.9
    """Exponent of the poly policy."""
    step_every: int = 2000
    """Iterations between two steps of the step policy."""
    step_factor: float = 0.1
    """Factor by which each step of the step policy multiplies the rate."""
    warmup: int = 0
    """Iterations of linear warm-up to the policy's rate; this helps random weights."""
    iterations: int = 20_000
    """Number of weight updates."""
    batch: int = 10
    """Global batch in crops per iteration, over all workers and accumulation steps."""
    momentum: float = 0.9
    """Momentum of SGD. The rate multiplies the velocity, as in PyTorch; in Caffe the velocity is made of steps, rates
    and all. Where the rate changes they differ: by 0.1 % of the weights after 2000 updates under poly or step."""
    nesterov: bool = False
    """Use Nesterov's momentum instead of the paper's: random weights learn faster."""
    weight_decay: float = 5e-4
    """L2 penalty of the weights; biases have none."""
    normalise: bool = True
    """Divide the loss by the number of labelled pixels; FCN does not."""
    class_balance: float = 0.0
    """Weight a pixel in the loss by its class's frequency^−class_balance. 0: all pixels alike, as in the paper; 1: all
    classes alike (median frequency balancing: Eigen and Fergus, ICCV 2015; SegNet)."""

    def __post_init__(self) -> None:
        check_types(self)
        require(
            0 < self.learning_rate < math.inf,
            f"learning rate {self.learning_rate} must be a number above 0, e.g. 1e-3",
        )
        require(self.classifier_factor > 0, f"classifier_factor {self.classifier_factor} must be above 0")
        require(self.power >= 0, f"poly power {self.power} must not be negative; the paper's is 0.9")
        require(self.step_every >= 1, f"step_every {self.step_every} must be at least 1 iteration")
        require(0 < self.step_factor <= 1, f"step_factor {self.step_factor} must lie in (0, 1]")
        require(self.warmup >= 0, f"warmup {self.warmup} must not be negative")
        require(self.iterations >= 1, f"iterations {self.iterations} must be at least 1")
        require(self.batch >= 1, f"batch {self.batch} must be at least 1 crop")
        require(0 <= self.momentum < 1, f"momentum {self.momentum} must lie in [0, 1)")
        require(self.momentum > 0 or not self.nesterov, "nesterov needs a momentum above 0, such as 0.9")
        require(self.weight_decay >= 0, f"weight decay {self.weight_decay} must not be negative")
        require(0 <= self.class_balance <= 1, f"class_balance {self.class_balance} must lie in [0, 1]; 0 leaves it out")


@dataclass(frozen=True)
class Recipe:
    """One training: network, augmentation, solver, data splits, and how the result is tested.

    It is saved beside every result (`io.to_json`) and can be given back (`io.from_json`). Raises UserError if a value
    is out of range, or the crop or tile does not fit the network.
    """

    network: Annotated[NetworkConfig, FLAT]
    augment: Annotated[AugmentConfig, FLAT] = field(default_factory=AugmentConfig)
    solver: Annotated[SolverConfig, FLAT] = field(default_factory=SolverConfig)
    crf: CRFParams = field(default_factory=CRFParams)
    scoring: Annotated[ScoringConfig, FLAT] = field(default_factory=ScoringConfig)
    train_split: str = "train"
    """Split to train on."""
    validation_split: str = "val"
    """Split to validate on."""
    precision: Precision = "float32"
    """Arithmetic of forward and backward (autocast); weights and updates stay float32."""
    seed: int = 0
    """Seed of initialisation, sample order and augmentation."""

    def __post_init__(self) -> None:
        check_types(self)
        require(0 <= self.seed < 2**63, f"seed {self.seed} must lie in 0..2^63 − 1")
        self.network.check_side("crop", self.augment.crop)
        if self.scoring.tile:
            self.network.check_side("tile", self.scoring.tile)

    @property
    def small_iterations(self) -> int:
        """Number of iterations, from the first on, that have small crops."""
        return round(self.augment.small_share * self.solver.iterations)

    def augmentation(self, iteration: int) -> AugmentConfig:
        """Return the augmentation of an iteration's samples, with its crop and scales."""
        if iteration >= self.small_iterations:
            return self.augment
        full = self.augment
        crop = self.network.nearest_side((full.crop - 1) * full.small_scale + 1)
        factor = crop / full.crop
        return replace(full, crop=crop, scale_min=full.scale_min * factor, scale_max=full.scale_max * factor)
