"""Named configurations, with what the paper reports for them.

Names are dataset-backbone-head and what is switched on: msc (maximum over three scales), coco (starts from a network
trained on COCO), full (crops at full resolution) and aug (random scale 0.5–1.5). Published figures are mean IoU in
per cent on the dataset's validation split.
"""

from dataclasses import dataclass, replace

from deeplab_ray.config.recipe import (
    AugmentConfig,
    Backbone,
    Config,
    Head,
    ModelConfig,
    Policy,
    RuntimeConfig,
    SolverConfig,
    TestConfig,
    load,
)
from deeplab_ray.crf.params import PAPER_CRFS, CRFParams
from deeplab_ray.errors import UserError

Published = tuple[float | None, float | None]


@dataclass(frozen=True)
class Preset:
    """A configuration and where it comes from."""

    name: str
    table: str
    """Where it stands: a table of the paper, or what else it is for."""
    switched_on: str
    """What sets it apart from its neighbours in the table."""
    config: Config
    published: Published = (None, None)
    """Mean IoU in per cent before and after the CRF; None where the paper gives none."""

    def describe(self) -> str:
        """One line: what is switched on, the table, the published figures."""
        before, after = self.published
        figures = [f"{before} before" if before else "", f"{after} after the CRF" if after else ""]
        published = " and ".join(figure for figure in figures if figure)
        return f"{self.switched_on}: {self.table}" + (f"; published mIoU {published}" if published else "")


_UNSCALED = AugmentConfig(scale_min=1.0, scale_max=1.0)
_HALVED = AugmentConfig(scale_min=0.5, scale_max=0.5)
_VGG_SOLVER = SolverConfig(learning_rate=1e-3)
_VGG_CRF = PAPER_CRFS["deeplab-v2-vgg16-voc12"]
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


def _preset(
    table: str, dataset: str, backbone: Backbone, head: Head, on: str = "", published: Published = (None, None)
) -> Preset:
    """A DeepLab of the paper; `on` names what is switched on, in the order of the names."""
    switches = on.split()
    part, text = _HEADS[head]
    if head == "aspp-l" and backbone == "resnet101":
        part = "aspp"
    model = ModelConfig(dataset, backbone, head, msc="msc" in switches)
    if "coco" in switches:
        model = replace(model, weights="coco")
    augment, test = (AugmentConfig() if "aug" in switches else _UNSCALED), TestConfig()
    if dataset == "cityscapes" and "full" not in switches:
        # The paper halves the images to train on, and to test on.
        augment, test = _HALVED, TestConfig(test_scales=(0.5,))
    config = Config(model, augment, test=test)
    if backbone == "vgg16":
        config = replace(config, solver=_VGG_SOLVER, crf=_VGG_CRF)
    name = "-".join(word for word in (dataset, backbone, part, *switches) if word)
    net = "VGG-16" if backbone == "vgg16" else "ResNet-101"
    return Preset(name, table, ", ".join([net, text, *(_SWITCHES[s] for s in switches)]), config, published)


def _policy(
    policy: Policy, batch: int, thousands: int, published: Published, like: Preset, suffix: bool = True
) -> Preset:
    """`like` under another learning policy, batch and number of iterations."""
    solver = replace(_VGG_SOLVER, policy=policy, batch=batch, iterations=1000 * thousands)
    return Preset(
        f"{like.name}-{policy}-b{batch}-{thousands}k" if suffix else like.name,
        KERNELS if policy == "step" else POLICIES,
        f"{like.switched_on}, {policy}, batch {batch}, {thousands}K iterations",
        replace(like.config, solver=solver),
        published,
    )


def _fcn(stride: int, weights: str, rate: float, published: float) -> Preset:
    """The authors' staged training: whole images, one a step, the loss summed over their pixels."""
    head: Head = f"fcn{stride}s"  # type: ignore[assignment]
    solver = SolverConfig(
        rate, 1.0, "fixed", iterations=100_000, batch=1, momentum=0.99, weight_decay=5e-4, normalise=False
    )
    whole = AugmentConfig(crop=505, scale_min=1.0, scale_max=1.0, mirror=False)
    config = Config(ModelConfig("voc11", "vgg16", head, weights), whole, solver, _VGG_CRF)
    start = "ImageNet" if weights == "torchvision" else f"FCN-{weights[3:]}"
    return Preset(f"voc11-{head}", FCN, f"VGG-16, FCN-{stride}s, starts from {start}", config, (published, None))


OTHERS = "Not in the paper"
KERNELS = "Kernel size and rate (VOC 2012; step policy, batch 30, 6K iterations)"
POLICIES = "Learning policy (VOC 2012; LargeFOV)"
TABLE3 = "Table 3: ASPP with VGG-16 (VOC 2012)"
TABLE4 = "Table 4: ResNet-101 (VOC 2012)"
TABLE6 = "Table 6: PASCAL-Context"
TABLE7 = "Table 7: PASCAL-Person-Part"
TABLE9 = "Table 9: Cityscapes"
FCN = "FCN (VOC 2011, seg11valid)"

_LARGEFOV = _preset(TABLE3, "voc12", "vgg16", "largefov", published=(65.76, 69.84))


def _kernel(head: Head, published: Published) -> Preset:
    return _policy("step", 30, 6, published, _preset(KERNELS, "voc12", "vgg16", head), suffix=False)


_PRESETS = (
    Preset(
        "scenes-resnet18-largefov",
        OTHERS,
        "generated street scenes, ResNet-18 from random weights, the demo's",
        Config(
            ModelConfig("scenes", "resnet18", "largefov", weights="random"),
            AugmentConfig(crop=97, scale_min=0.9, scale_max=1.1, small_share=0.6),
            # A random trunk needs a high rate, on which a classifier over its 4608 inputs would diverge.
            SolverConfig(
                learning_rate=3e-2,
                classifier_factor=0.05,
                warmup=25,
                iterations=300,
                batch=8,
                nesterov=True,
                class_balance=0.5,
            ),
            CRFParams(w1=3, sigma_alpha=30, sigma_beta=5, w2=3, sigma_gamma=1),
            RuntimeConfig(log_every=25, validate_every=0, fused=True),
        ),
    ),
    Preset(
        "camvid-vgg16-largefov",
        OTHERS,
        "CamVid, 11 classes, VGG-16, LargeFOV (3×3, rate 12)",
        Config(
            ModelConfig("camvid", "vgg16", "largefov"),
            AugmentConfig(crop=241, scale_min=0.75, scale_max=1.5),
            SolverConfig(learning_rate=1e-3, batch=4),
            _VGG_CRF,
        ),
    ),
    _kernel("k7r4", (64.38, 67.64)),
    _kernel("k4r4", (59.80, 63.74)),
    _kernel("k4r8", (63.41, 67.14)),
    _policy("step", 30, 6, (62.25, 67.64), _LARGEFOV),
    _policy("poly", 30, 6, (63.42, None), _LARGEFOV),
    _policy("poly", 30, 10, (64.90, None), _LARGEFOV),
    _policy("poly", 10, 10, (64.71, None), _LARGEFOV),
    _policy("poly", 10, 20, (65.88, None), _LARGEFOV),
    _LARGEFOV,
    _preset(TABLE3, "voc12", "vgg16", "aspp-s", published=(66.98, 69.73)),
    _preset(TABLE3, "voc12", "vgg16", "aspp-l", published=(68.96, 71.57)),
    _preset(TABLE4, "voc12", "resnet101", "plain", published=(68.72, None)),
    _preset(TABLE4, "voc12", "resnet101", "plain", "msc", (71.27, None)),
    _preset(TABLE4, "voc12", "resnet101", "plain", "msc coco", (73.28, None)),
    _preset(TABLE4, "voc12", "resnet101", "plain", "msc coco aug", (74.87, None)),
    _preset(TABLE4, "voc12", "resnet101", "largefov", "msc coco aug", (75.54, None)),
    _preset(TABLE4, "voc12", "resnet101", "aspp-l", "msc coco aug", (76.35, 77.69)),
    _preset(TABLE6, "context", "vgg16", "largefov", published=(37.6, 39.6)),
    _preset(TABLE6, "context", "resnet101", "plain", published=(39.6, None)),
    _preset(TABLE6, "context", "resnet101", "plain", "msc aug", (41.4, None)),
    _preset(TABLE6, "context", "resnet101", "plain", "msc coco aug", (42.9, None)),
    _preset(TABLE6, "context", "resnet101", "largefov", "msc coco aug", (43.5, None)),
    _preset(TABLE6, "context", "resnet101", "aspp-l", "msc coco aug", (44.7, 45.7)),
    _preset(TABLE7, "personpart", "resnet101", "plain", published=(58.90, None)),
    _preset(TABLE7, "personpart", "resnet101", "plain", "msc aug", (63.10, None)),
    _preset(TABLE7, "personpart", "resnet101", "plain", "msc coco aug", (64.40, 64.94)),
    _preset(TABLE7, "personpart", "resnet101", "largefov", "msc coco aug", (62.18, None)),
    _preset(TABLE7, "personpart", "resnet101", "aspp-l", "msc coco aug", (62.76, None)),
    _preset(TABLE9, "cityscapes", "vgg16", "largefov", published=(62.97, 64.18)),
    _preset(TABLE9, "cityscapes", "vgg16", "largefov", "full", (64.89, 65.94)),
    _preset(TABLE9, "cityscapes", "resnet101", "plain", "full", (66.6, None)),
    _preset(TABLE9, "cityscapes", "resnet101", "largefov", "full", (69.2, None)),
    _preset(TABLE9, "cityscapes", "resnet101", "aspp-l", "full", (70.4, None)),
    _preset(TABLE9, "cityscapes", "resnet101", "aspp-l", "full aug", (71.0, 71.4)),
    _fcn(32, "torchvision", 1e-10, 63.6),
    _fcn(16, "fcn32s", 1e-12, 65.0),
    _fcn(8, "fcn16s", 1e-14, 65.5),
    _preset(OTHERS, "voc12", "resnet101", "aspp-l"),
    _preset(OTHERS, "voc12", "resnet101", "aspp-l", "aug"),
    _preset(OTHERS, "coco", "resnet101", "plain", "msc aug"),
    _preset(OTHERS, "coco", "resnet101", "largefov", "msc aug"),
    _preset(OTHERS, "coco", "resnet101", "aspp-l", "msc aug"),
)

_BY_NAME = {preset.name: preset for preset in _PRESETS}


def names() -> list[str]:
    """All presets' names, in the order of the tables."""
    return list(_BY_NAME)


def get(name: str) -> Preset:
    """The preset of this name; UserError, listing all names, where there is none."""
    if name not in _BY_NAME:
        raise UserError(f"unknown preset {name!r}: choose from {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def format_tables() -> str:
    """All presets, table by table: name, what is switched on, published mIoU before and after the CRF."""
    name_width = max(map(len, _BY_NAME))
    text_width = max(len(preset.switched_on) for preset in _PRESETS)
    lines = []
    for table in dict.fromkeys(preset.table for preset in _PRESETS):
        lines += ["", table, f"  {'preset':<{name_width}}  {'what is switched on':<{text_width}}  mIoU %  + CRF"]
        # The policies are compared with what the kernels were compared under.
        also = _BY_NAME[f"{_LARGEFOV.name}-step-b30-6k"] if table == POLICIES else None
        for preset in (preset for preset in _PRESETS if preset.table == table or preset is also):
            before, after = (f"{figure:.2f}" if figure else "–" for figure in preset.published)
            text = f"  {preset.name:<{name_width}}  {preset.switched_on:<{text_width}}  {before:>6}  {after:>5}"
            lines.append(text)
    return "\n".join(lines[1:])


def from_arguments(argv: list[str]) -> tuple[str, Config, list[str]]:
    """A job's command line → (preset's name, config that the flags start from, the command line).

    The preset comes first; `--config FILE` takes its place. Raises UserError where there is neither.
    """
    config_file = next(
        (
            argument.partition("=")[2] if "=" in argument else argv[index + 1]
            for index, argument in enumerate(argv)
            if argument.startswith("--config=") or (argument == "--config" and index + 1 < len(argv))
        ),
        "",
    )
    named = argv[0] if argv and not argv[0].startswith("-") else ""
    if named:
        config = get(named).config
    elif config_file or {"-h", "--help"} & set(argv):
        named, config = next(iter(_BY_NAME)), Config()
        argv = [named, *argv]
    else:
        raise UserError(f"name a preset first, or give --config FILE; presets: {', '.join(_BY_NAME)}")
    if config_file:
        config = load(config_file, Config)
    return named, config, argv
