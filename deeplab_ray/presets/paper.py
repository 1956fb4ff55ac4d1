"""The paper's tables, and those of FCN, as data: network, splits, start weights, test protocol, published figure.

Names are dataset-backbone-head and what is switched on: msc (maximum over three scales), coco (starts from a network
trained on COCO), full (crops at full resolution) and aug (random scale 0.5–1.5). Published figures are mean IoU in
per cent on the dataset's validation split.
"""

from dataclasses import replace
from typing import NamedTuple

from deeplab_ray.config.recipe import AugmentConfig, Policy, Recipe, SolverConfig
from deeplab_ray.config.scoring import ScoringConfig
from deeplab_ray.crf.params import PAPER_CRFS
from deeplab_ray.models.configs import Backbone, DeepLabV2Config, FCNConfig, Head, Variant
from deeplab_ray.presets.preset import Preset, Published

KERNELS = "Kernel size and rate (VOC 2012; step policy, batch 30, 6K iterations)"
POLICIES = "Learning policy (VOC 2012; LargeFOV)"
TABLE3 = "Table 3: ASPP with VGG-16 (VOC 2012)"
TABLE4 = "Table 4: ResNet-101 (VOC 2012)"
TABLE6 = "Table 6: PASCAL-Context"
TABLE7 = "Table 7: PASCAL-Person-Part"
TABLE9 = "Table 9: Cityscapes"
FCN = "FCN (VOC 2011, seg11valid)"

SPLITS = {
    # VOC's 1,464 images and SBD's, together 10,582.
    "voc12": ("trainaug", "val"),
    "context": ("train", "val"),
    "personpart": ("train", "val"),
    "cityscapes": ("train", "val"),
    # train: SBD's training images that are not in seg11valid. seg11valid: the 736 images of VOC 2011's val not in SBD.
    "voc11": ("train", "seg11valid"),
    "coco": ("train", "val"),
}
"""Training and validation split of each dataset, as in the paper."""
UNSCALED = AugmentConfig(scale_min=1.0, scale_max=1.0)
_HALVED = AugmentConfig(scale_min=0.5, scale_max=0.5)
VGG_SOLVER = SolverConfig(learning_rate=1e-3)
VGG_CRF = PAPER_CRFS["deeplab-v2-vgg16-voc12"]
_HEADS: dict[Head, tuple[str, str]] = {
    "plain": ("", "1×1 classifier"),
    "largefov": ("largefov", "LargeFOV (3×3, rate 12)"),
    "k7r4": ("k7r4", "7×7, rate 4"),
    "k4r4": ("k4r4", "4×4, rate 4"),
    "k4r8": ("k4r8", "4×4, rate 8"),
    "aspp-s": ("aspp-s", "ASPP at rates 2, 4, 8, 12"),
    "aspp-l": ("aspp-l", "ASPP at rates 6, 12, 18, 24"),
}
_SWITCHES = {"msc": "MSC", "coco": "COCO", "full": "Full", "aug": "Aug"}


class Row(NamedTuple):
    """A row of a table of the paper."""

    table: str
    dataset: str
    backbone: Backbone
    head: Head
    on: str = ""
    """What is switched on, in the order of the names."""
    published: Published = (None, None)


class Schedule(NamedTuple):
    """A learning policy in the paper's comparison of policies (LargeFOV on VOC 2012)."""

    policy: Policy
    batch: int
    thousands: int
    """Iterations / 1000."""
    published: Published


ROWS = (
    Row(TABLE3, "voc12", "vgg16", "largefov", "", (65.76, 69.84)),
    Row(TABLE3, "voc12", "vgg16", "aspp-s", "", (66.98, 69.73)),
    Row(TABLE3, "voc12", "vgg16", "aspp-l", "", (68.96, 71.57)),
    Row(TABLE4, "voc12", "resnet101", "plain", "", (68.72, None)),
    Row(TABLE4, "voc12", "resnet101", "plain", "msc", (71.27, None)),
    Row(TABLE4, "voc12", "resnet101", "plain", "msc coco", (73.28, None)),
    Row(TABLE4, "voc12", "resnet101", "plain", "msc coco aug", (74.87, None)),
    Row(TABLE4, "voc12", "resnet101", "largefov", "msc coco aug", (75.54, None)),
    Row(TABLE4, "voc12", "resnet101", "aspp-l", "msc coco aug", (76.35, 77.69)),
    Row(TABLE6, "context", "vgg16", "largefov", "", (37.6, 39.6)),
    Row(TABLE6, "context", "resnet101", "plain", "", (39.6, None)),
    Row(TABLE6, "context", "resnet101", "plain", "msc aug", (41.4, None)),
    Row(TABLE6, "context", "resnet101", "plain", "msc coco aug", (42.9, None)),
    Row(TABLE6, "context", "resnet101", "largefov", "msc coco aug", (43.5, None)),
    Row(TABLE6, "context", "resnet101", "aspp-l", "msc coco aug", (44.7, 45.7)),
    Row(TABLE7, "personpart", "resnet101", "plain", "", (58.90, None)),
    Row(TABLE7, "personpart", "resnet101", "plain", "msc aug", (63.10, None)),
    Row(TABLE7, "personpart", "resnet101", "plain", "msc coco aug", (64.40, 64.94)),
    Row(TABLE7, "personpart", "resnet101", "largefov", "msc coco aug", (62.18, None)),
    Row(TABLE7, "personpart", "resnet101", "aspp-l", "msc coco aug", (62.76, None)),
    Row(TABLE9, "cityscapes", "vgg16", "largefov", "", (62.97, 64.18)),
    Row(TABLE9, "cityscapes", "vgg16", "largefov", "full", (64.89, 65.94)),
    Row(TABLE9, "cityscapes", "resnet101", "plain", "full", (66.6, None)),
    Row(TABLE9, "cityscapes", "resnet101", "largefov", "full", (69.2, None)),
    Row(TABLE9, "cityscapes", "resnet101", "aspp-l", "full", (70.4, None)),
    Row(TABLE9, "cityscapes", "resnet101", "aspp-l", "full aug", (71.0, 71.4)),
)
KERNEL_ROWS = (
    Row(KERNELS, "voc12", "vgg16", "k7r4", "", (64.38, 67.64)),
    Row(KERNELS, "voc12", "vgg16", "k4r4", "", (59.80, 63.74)),
    Row(KERNELS, "voc12", "vgg16", "k4r8", "", (63.41, 67.14)),
)
KERNEL_SCHEDULE = Schedule("step", 30, 6, (62.25, 67.64))
SCHEDULES = (
    Schedule("poly", 30, 6, (63.42, None)),
    Schedule("poly", 30, 10, (64.90, None)),
    Schedule("poly", 10, 10, (64.71, None)),
    Schedule("poly", 10, 20, (65.88, None)),
)


def preset(row: Row) -> Preset:
    """Make the preset of a row."""
    switches = row.on.split()
    part, text = _HEADS[row.head]
    if row.head == "aspp-l" and row.backbone == "resnet101":
        part = "aspp"
    start = "coco" if "coco" in switches else "torchvision"
    network = DeepLabV2Config(row.backbone, row.head, msc="msc" in switches, weights=start)
    augment, scoring = (AugmentConfig() if "aug" in switches else UNSCALED), ScoringConfig()
    if row.dataset == "cityscapes" and "full" not in switches:
        # The paper halves the images, both for training and for testing.
        augment, scoring = _HALVED, ScoringConfig(test_scales=(0.5,))
    train, validation = SPLITS[row.dataset]
    recipe = Recipe(network, augment, scoring=scoring, train_split=train, validation_split=validation)
    on_vgg = row.backbone == "vgg16"
    if on_vgg:
        recipe = replace(recipe, solver=VGG_SOLVER, crf=VGG_CRF)
    name = "-".join(word for word in (row.dataset, row.backbone, part, *switches) if word)
    words = ["VGG-16" if on_vgg else "ResNet-101", text, *(_SWITCHES[switch] for switch in switches)]
    return Preset(name, row.table, ", ".join(words), row.dataset, recipe, row.published)


def _scheduled(like: Preset, schedule: Schedule, table: str, published: Published, suffix: bool = True) -> Preset:
    """Return the preset `like` under another learning policy, batch and number of iterations."""
    policy, batch, thousands, _ = schedule
    solver = replace(VGG_SOLVER, policy=policy, batch=batch, iterations=1000 * thousands)
    return replace(
        like,
        name=f"{like.name}-{policy}-b{batch}-{thousands}k" if suffix else like.name,
        table=table,
        switched_on=f"{like.switched_on}, {policy}, batch {batch}, {thousands}K iterations",
        recipe=replace(like.recipe, solver=solver),
        published=published,
    )


def _fcn(variant: Variant, weights: str, rate: float, published: float) -> Preset:
    """Make a preset of the authors' staged training: one whole image per step, the loss summed over its pixels."""
    solver = SolverConfig(
        rate, 1.0, "fixed", iterations=100_000, batch=1, momentum=0.99, weight_decay=5e-4, normalise=False
    )
    whole = AugmentConfig(crop=505, scale_min=1.0, scale_max=1.0, mirror=False)
    train, validation = SPLITS["voc11"]
    network = FCNConfig(variant, weights=weights)
    recipe = Recipe(network, whole, solver, VGG_CRF, train_split=train, validation_split=validation)
    start = "ImageNet" if weights == "torchvision" else f"FCN-{weights[3:]}"
    text = f"VGG-16, FCN-{variant}, starts from {start}"
    return Preset(f"voc11-fcn{variant}", FCN, text, "voc11", recipe, (published, None))


def _presets() -> tuple[Preset, ...]:
    largefov, *others = map(preset, ROWS)
    kernels = [_scheduled(preset(row), KERNEL_SCHEDULE, KERNELS, row.published, suffix=False) for row in KERNEL_ROWS]
    kernels.append(_scheduled(largefov, KERNEL_SCHEDULE, KERNELS, KERNEL_SCHEDULE.published))
    policies = [_scheduled(largefov, schedule, POLICIES, schedule.published) for schedule in SCHEDULES]
    stages = (
        _fcn("32s", "torchvision", 1e-10, 63.6),
        _fcn("16s", "fcn32s", 1e-12, 65.0),
        _fcn("8s", "fcn16s", 1e-14, 65.5),
    )
    return (*kernels, *policies, largefov, *others, *stages)


PRESETS = _presets()
COMPARED_UNDER_POLICIES = f"{preset(ROWS[0]).name}-step-b30-6k"
"""Name of the preset in the table of kernels with which the policies are compared."""
