"""Every knob: one frozen dataclass a topic, checked when made, with units beside the names.

A `Config` is the whole of a training run. It is saved beside every result (`to_json`) and can be given back
(`from_json`). Defaults are the recipe of DeepLab v2 (Chen et al., PAMI 2017, section 4) and are written
nowhere else.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import tyro

from deeplab_ray.checks import check_types, require
from deeplab_ray.config.io import from_json, load, to_json
from deeplab_ray.crf.params import CRFParams

__all__ = [
    "AugmentConfig",
    "Backbone",
    "CRFParams",
    "Config",
    "Head",
    "ModelConfig",
    "Policy",
    "RuntimeConfig",
    "SearchConfig",
    "SolverConfig",
    "TestConfig",
    "from_json",
    "load",
    "to_json",
]

Backbone = Literal["vgg16", "resnet18", "resnet101"]
Policy = Literal["poly", "step", "fixed"]
Precision = Literal["float32", "bfloat16"]
InputConvention = Literal["auto", "caffe", "torchvision", "torchvision-features"]
Strides = Literal["auto", "caffe", "torchvision"]
Head = Literal["plain", "largefov", "k7r4", "k4r4", "k4r8", "aspp-s", "aspp-l", "fcn32s", "fcn16s", "fcn8s"]
FCN_HEADS: tuple[Head, ...] = ("fcn32s", "fcn16s", "fcn8s")
_VGG_HEADS: tuple[Head, ...] = ("largefov", "k7r4", "k4r4", "k4r8", "aspp-s", "aspp-l", *FCN_HEADS)
_RESNET_HEADS: tuple[Head, ...] = ("plain", "largefov", "aspp-s", "aspp-l")
HEADS: dict[Backbone, tuple[Head, ...]] = {
    "vgg16": _VGG_HEADS,
    "resnet18": _RESNET_HEADS,
    "resnet101": _RESNET_HEADS,
}
"""Which heads go on which trunk."""
NAMED_WEIGHTS = ("torchvision", "torchvision-features", "random", "coco", "fcn32s", "fcn16s")
"""Weights that are no path; see `ModelConfig.weights`."""

FLAT = tyro.conf.arg(name="")
"""On the command line, the fields of this group are flags without the group's name in front."""


@dataclass(frozen=True)
class ModelConfig:
    """Which network, for which dataset's classes, from which weights."""

    dataset: str = "voc12"
    """Name of the dataset whose classes are predicted."""
    backbone: Backbone = "resnet101"
    """Trunk, at output stride 8."""
    head: Head = "aspp-l"
    """plain: a 1×1 classifier; largefov: 3×3 at rate 12; k7r4, k4r4, k4r8: the LargeFOV variants of that kernel and
    rate; aspp-s: rates 2, 4, 8, 12; aspp-l: rates 6, 12, 18, 24; fcn32s, fcn16s, fcn8s: those networks."""
    weights: str = "torchvision"
    """Start: "torchvision" (ImageNet, downloaded), "torchvision-features" (the same for VGG-16 as Caffe trained it),
    "random", or a path or s3:// URI of a .pth state dict, a .caffemodel, or a checkpoint; "coco", "fcn32s" and
    "fcn16s" stand for the network that a preset starts from, which has to be named."""
    input: InputConvention = "auto"
    """What the weights saw: caffe: RGB 0..255 minus the mean; torchvision: divided by a standard deviation, too;
    torchvision-features: caffe's with the mean rounded; auto: as the weights say."""
    strides: Strides = "auto"
    """ResNet's blocks: caffe: stride in the first 1×1, one dilation throughout res4 and res5; torchvision: stride in
    the 3×3, whose first in res4 and res5 keeps the dilation before; auto: as the weights say."""
    msc: bool = False
    """Maximum over the scores of the image at ×1, ×0.75 and ×0.5, with a loss each and one on the maximum."""
    alignment: Literal["auto", "corners", "centres"] = "auto"
    """What resampling aligns: the paper's corners, or pixel centres on unpadded images, as deeplab-pytorch's; auto:
    as the weights say."""
    dropout: float = 0.5
    """Of fc6 and fc7 of VGG-16 in training; 0 leaves it out, for runs too short to overfit."""

    def __post_init__(self) -> None:
        check_types(self)
        fitting = ", ".join(HEADS[self.backbone])
        require(self.head in HEADS[self.backbone], f"no head {self.head} on {self.backbone}: it takes {fitting}")
        require(
            not (self.head in FCN_HEADS and (self.msc or self.alignment == "centres")),
            f"{self.head} has its own geometry: leave out --msc and --alignment",
        )
        require(0 <= self.dropout < 1, f"dropout {self.dropout} must lie in [0, 1); the paper's is 0.5")


@dataclass(frozen=True)
class AugmentConfig:
    """Random scale, mirror and crop of training images."""

    crop: int = 321
    """Side of the square training crop in pixels, ≡ 1 (mod 8)."""
    scale_min: float = 0.5
    """Smallest factor of the random scale."""
    scale_max: float = 1.5
    """Largest factor of the random scale."""
    mirror: bool = True
    """Mirror half of the samples left to right."""
    small_share: float = 0.0
    """Share of the iterations, the first ones, that see smaller crops of images smaller in the same proportion:
    progressive resizing, for random weights, which learn as much from them at a fraction of the cost."""
    small_scale: float = 0.67
    """How large those are against the others; the crop is the nearest that fits the grid."""

    def __post_init__(self) -> None:
        check_types(self)
        require(0 <= self.small_share <= 1, f"small_share {self.small_share} must lie in [0, 1]; 0 leaves it out")
        require(0 < self.small_scale <= 1, f"small_scale {self.small_scale} must lie in (0, 1]")
        lower = max(17, self.crop - (self.crop - 1) % 8)
        require(
            self.crop >= 17 and self.crop % 8 == 1,
            f"crop {self.crop} does not fit the stride-8 grid: take a size ≡ 1 (mod 8), such as {lower} or {lower + 8}",
        )
        require(
            0 < self.scale_min <= self.scale_max <= 8,
            f"scales {self.scale_min}..{self.scale_max} are no range: need 0 < scale_min <= scale_max <= 8",
        )


@dataclass(frozen=True)
class SolverConfig:
    """SGD with momentum under the poly, the step or the fixed policy, applied at every iteration."""

    learning_rate: float = 2.5e-4
    """Base learning rate of the weights; biases take twice of it."""
    classifier_factor: float = 10.0
    """How many times faster the classifier learns: it starts at random, on a trunk that is pretrained."""
    policy: Policy = "poly"
    """poly: rate × (1 − i/iterations)^power; step: rate × step_factor every step_every iterations; fixed: rate."""
    power: float = 0.9
    """Exponent of the poly policy."""
    step_every: int = 2000
    """Iterations between two steps of the step policy."""
    step_factor: float = 0.1
    """What a step of the step policy multiplies the rate by."""
    warmup: int = 0
    """Iterations over which the rate rises in a line to the policy's; helps random weights."""
    iterations: int = 20_000
    """Number of weight updates."""
    batch: int = 10
    """Global batch in crops per iteration, over all workers and accumulation steps."""
    accumulation: int = 1
    """Micro-batches whose gradients each worker adds up before an update."""
    momentum: float = 0.9
    """Momentum of SGD."""
    nesterov: bool = False
    """Nesterov's momentum in the place of the paper's: faster from random weights."""
    weight_decay: float = 5e-4
    """L2 penalty of the weights; biases that the recipe exempts have none."""
    normalise: bool = True
    """Divide the loss by the number of labelled pixels; FCN's is their sum."""
    class_balance: float = 0.0
    """What a pixel counts in the loss is in proportion to its class's frequency^−class_balance. 0: all the same, as the
    paper's; 1: all classes the same (median frequency balancing: Eigen and Fergus, ICCV 2015; SegNet)."""

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
        require(self.accumulation >= 1, f"accumulation {self.accumulation} must be at least 1")
        require(0 <= self.momentum < 1, f"momentum {self.momentum} must lie in [0, 1)")
        require(self.momentum > 0 or not self.nesterov, "nesterov needs a momentum above 0, such as 0.9")
        require(self.weight_decay >= 0, f"weight decay {self.weight_decay} must not be negative")
        require(0 <= self.class_balance <= 1, f"class_balance {self.class_balance} must lie in [0, 1]; 0 leaves it out")


@dataclass(frozen=True)
class RuntimeConfig:
    """How the run is spread over the cluster, and how often it reports."""

    workers: int = 1
    """Number of DDP workers."""
    gpus_per_worker: float | None = None
    """GPUs of a worker; unset: 1 where the cluster has GPUs, else 0 (train on CPU)."""
    cpus_per_worker: float = 0.5
    """Logical CPUs that a worker takes; what is left feeds it, at least 1 CPU must be."""
    precision: Precision = "float32"
    """Arithmetic of forward and backward (autocast); weights and updates stay float32."""
    compile: bool = False
    """Compile the training step's network with torch.compile (minutes at the start, faster on a GPU after)."""
    fused: bool | None = None
    """Update the weights in one fused kernel; unset: on a GPU."""
    seed: int = 0
    """Seed of initialisation, sample order and augmentation."""
    log_every: int = 20
    """Iterations between two lines of progress."""
    validate_every: int = 1000
    """Iterations between two passes over the validation split (and one at the end); 0: never."""
    checkpoint_every: int = 500
    """Iterations between two checkpoints (and one at the end)."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints are kept."""
    autoscaling: bool = False
    """Count on nodes that the autoscaler has yet to bring: do not check that the workers fit now."""
    max_failures: int = 3
    """How often the worker group may be restarted from its last checkpoint after a worker died."""

    def __post_init__(self) -> None:
        check_types(self)
        require(self.workers >= 1, f"workers {self.workers} must be at least 1")
        require(
            self.gpus_per_worker is None or self.gpus_per_worker >= 0,
            f"gpus_per_worker {self.gpus_per_worker} must not be negative; 0 trains on CPU",
        )
        require(self.cpus_per_worker > 0, f"cpus_per_worker {self.cpus_per_worker} must be above 0")
        require(self.log_every >= 1, f"log_every {self.log_every} must be at least 1 iteration")
        require(self.validate_every >= 0, f"validate_every {self.validate_every} must not be negative")
        require(self.checkpoint_every >= 1, f"checkpoint_every {self.checkpoint_every} must be at least 1")
        require(self.keep_checkpoints >= 1, f"keep_checkpoints {self.keep_checkpoints} must be at least 1")
        require(self.max_failures >= 0, f"max_failures {self.max_failures} must not be negative")
        require(0 <= self.seed < 2**63, f"seed {self.seed} must lie in 0..2^63 − 1")


@dataclass(frozen=True)
class InferenceConfig:
    """What inference takes of the cluster: by default all that is there."""

    gpus_per_predictor: float | None = None
    """GPUs of each actor with the network; unset: 1 where the cluster has GPUs, else 0 (predict on CPU)."""
    autoscaling: bool = False
    """Count on nodes that the autoscaler has yet to bring: start with one actor of a kind, and grow with the
    cluster (on CPUs the network keeps one)."""

    def __post_init__(self) -> None:
        check_types(self)
        require(
            self.gpus_per_predictor is None or self.gpus_per_predictor >= 0,
            f"gpus_per_predictor {self.gpus_per_predictor} must not be negative; 0 predicts on CPU",
        )


@dataclass(frozen=True)
class TestConfig:
    """How images are scored in validation, evaluation and prediction."""

    # pytest takes every Test… for a class of tests.
    __test__ = False

    test_scales: tuple[float, ...] = (1.0,)
    """Factors at which an image is scored; the scores are averaged."""
    test_mirror: bool = False
    """Average with the scores of the mirrored image, too."""
    tile: int = 0
    """Side in pixels, ≡ 1 (mod 8), of the tiles that larger images are scored in; 0: whole images."""
    tile_overlap: int = 128
    """Pixels that neighbouring tiles share at least; their scores are blended there."""

    def __post_init__(self) -> None:
        check_types(self)
        require(
            len(self.test_scales) > 0 and all(0 < scale <= 8 for scale in self.test_scales),
            f"test_scales {self.test_scales} must be at least one factor in (0, 8]",
        )
        if self.tile:
            require(
                self.tile >= 17 and self.tile % 8 == 1,
                f"tile {self.tile} does not fit the stride-8 grid: take a size ≡ 1 (mod 8), such as 513",
            )
            require(
                0 <= self.tile_overlap <= self.tile - 16,
                f"tile_overlap {self.tile_overlap} must lie in 0..{self.tile - 16} for tiles of {self.tile}",
            )


@dataclass(frozen=True)
class Config:
    """One training run: network, augmentation, solver, CRF, runtime, and how it is tested."""

    model: Annotated[ModelConfig, FLAT] = field(default_factory=ModelConfig)
    augment: Annotated[AugmentConfig, FLAT] = field(default_factory=AugmentConfig)
    solver: Annotated[SolverConfig, FLAT] = field(default_factory=SolverConfig)
    crf: CRFParams = field(default_factory=CRFParams)
    runtime: Annotated[RuntimeConfig, FLAT] = field(default_factory=RuntimeConfig)
    test: Annotated[TestConfig, FLAT] = field(default_factory=TestConfig)

    def __post_init__(self) -> None:
        check_types(self)
        parts = self.runtime.workers * self.solver.accumulation
        lower = max(parts, self.solver.batch - self.solver.batch % parts)
        require(
            self.solver.batch % parts == 0,
            f"batch {self.solver.batch} is not divisible by workers × accumulation = {self.runtime.workers} × "
            f"{self.solver.accumulation}: take a batch of {lower} or {lower + parts}, or change --workers",
        )

    @property
    def small_iterations(self) -> int:
        """How many iterations, the first ones, have small crops."""
        return round(self.augment.small_share * self.solver.iterations)

    def augmentation(self, iteration: int) -> AugmentConfig:
        """Scale and crop of an iteration's samples."""
        if iteration >= self.small_iterations:
            return self.augment
        full = self.augment
        crop = max(17, 8 * round((full.crop - 1) * full.small_scale / 8) + 1)
        factor = crop / full.crop
        return replace(full, crop=crop, scale_min=full.scale_min * factor, scale_max=full.scale_max * factor)

    @property
    def micro_batch(self) -> int:
        """Crops in one forward pass of one worker."""
        return self.solver.batch // (self.runtime.workers * self.solver.accumulation)


@dataclass(frozen=True)
class SearchConfig:
    """What a search tries, and how often."""

    trials: int = 8
    """Number of configurations tried."""
    learning_rate_min: float = 1e-4
    """Lower end of the base learning rate, drawn log-uniformly."""
    learning_rate_max: float = 1e-2
    """Upper end of the base learning rate."""
    batches: tuple[int, ...] = (4, 8)
    """Global batches to choose from."""
    power_min: float = 0.5
    """Lower end of the poly policy's power, drawn uniformly."""
    power_max: float = 1.5
    """Upper end of the poly policy's power."""
    reports: int = 4
    """Validations of a full trial; after each, ASHA may stop the worse ones."""
    concurrent: int = 0
    """Trials at the same time; 0: as many as the cluster holds."""

    def __post_init__(self) -> None:
        check_types(self)
        require(self.trials >= 1, f"trials {self.trials} must be at least 1")
        require(
            0 < self.learning_rate_min < self.learning_rate_max,
            f"learning rates {self.learning_rate_min}..{self.learning_rate_max} are no range: need 0 < min < max",
        )
        require(
            len(self.batches) > 0 and min(self.batches) >= 1,
            f"batches {self.batches} must name at least one batch of at least 1 crop",
        )
        require(
            0 <= self.power_min < self.power_max,
            f"powers {self.power_min}..{self.power_max} are no range: need 0 <= min < max",
        )
        require(self.reports >= 1, f"reports {self.reports} must be at least 1")
        require(self.concurrent >= 0, f"concurrent {self.concurrent} must not be negative; 0 fills the cluster")
