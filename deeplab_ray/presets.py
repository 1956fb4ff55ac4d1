"""Named configurations, with what the paper reports for them.

Names are dataset-backbone-head and what is switched on: full (crops at full resolution) and aug (random scale
0.5–1.5). Published figures are mean IoU in per cent on the dataset's validation split.
"""

from dataclasses import dataclass

from deeplab_ray.config import (
    AugmentConfig,
    Config,
    CRFParams,
    Head,
    ModelConfig,
    RuntimeConfig,
    SolverConfig,
    load,
)
from deeplab_ray.errors import UserError


@dataclass(frozen=True)
class Preset:
    """A configuration and where it comes from."""

    name: str
    summary: str
    """One line for --help."""
    config: Config
    published: tuple[float | None, float | None] = (None, None)
    """Mean IoU in per cent before and after the CRF; None where the paper gives none."""

    def describe(self) -> str:
        """The summary with the published figures."""
        before, after = self.published
        figures = [f"{before} before" if before else "", f"{after} after the CRF" if after else ""]
        published = " and ".join(figure for figure in figures if figure)
        return self.summary + (f"; published mIoU {published}" if published else "")


_UNSCALED = AugmentConfig(scale_min=1.0, scale_max=1.0)
_VGG_SOLVER = SolverConfig(learning_rate=1e-3)
_VGG_CRF = CRFParams(w1=4, sigma_alpha=65, sigma_beta=3, w2=2, sigma_gamma=2)


def _vgg(dataset: str, head: Head) -> Config:
    return Config(
        ModelConfig(dataset, "vgg16", head),
        augment=_UNSCALED,
        solver=_VGG_SOLVER,
        crf=_VGG_CRF,
    )


def _resnet(dataset: str, head: Head, augment: AugmentConfig = _UNSCALED) -> Config:
    return Config(ModelConfig(dataset, "resnet101", head), augment=augment)


_PRESETS = (
    Preset(
        "scenes-resnet18-largefov",
        "generated street scenes, small network from random weights: the demo's",
        Config(
            ModelConfig("scenes", "resnet18", "largefov", weights="random"),
            AugmentConfig(crop=129, scale_min=0.75, scale_max=1.25),
            # A random trunk needs a high rate, on which a classifier over its 4608 inputs would diverge.
            SolverConfig(learning_rate=2e-2, classifier_factor=0.05, iterations=500, batch=4),
            CRFParams(w1=3, sigma_alpha=30, sigma_beta=5, w2=3, sigma_gamma=1),
            RuntimeConfig(log_every=25, validate_every=0, checkpoint_every=500),
        ),
    ),
    Preset(
        "camvid-vgg16-largefov",
        "CamVid, 11 classes, VGG-16, LargeFOV (3×3, rate 12)",
        Config(
            ModelConfig("camvid", "vgg16", "largefov"),
            AugmentConfig(crop=241, scale_min=0.75, scale_max=1.5),
            SolverConfig(learning_rate=1e-3, batch=4),
            _VGG_CRF,
        ),
    ),
    Preset(
        "voc12-vgg16-largefov",
        "VOC 2012, VGG-16, LargeFOV (3×3, rate 12): Table 3",
        _vgg("voc12", "largefov"),
        (65.76, 69.84),
    ),
    Preset(
        "voc12-vgg16-aspp-s",
        "VOC 2012, VGG-16, ASPP at rates 2, 4, 8, 12: Table 3",
        _vgg("voc12", "aspp-s"),
        (66.98, 69.73),
    ),
    Preset(
        "voc12-vgg16-aspp-l",
        "VOC 2012, VGG-16, ASPP at rates 6, 12, 18, 24: Table 3",
        _vgg("voc12", "aspp-l"),
        (68.96, 71.57),
    ),
    Preset(
        "voc12-resnet101-aspp-aug",
        "VOC 2012, ResNet-101, ASPP, random scale (without Table 4's MSC and COCO)",
        _resnet("voc12", "aspp-l", AugmentConfig()),
    ),
    Preset(
        "cityscapes-vgg16-largefov-full",
        "Cityscapes, VGG-16, LargeFOV: Table 9",
        _vgg("cityscapes", "largefov"),
        (64.89, 65.94),
    ),
    Preset(
        "cityscapes-resnet101-largefov-full",
        "Cityscapes, ResNet-101, LargeFOV: Table 9",
        _resnet("cityscapes", "largefov"),
        (69.2, None),
    ),
    Preset(
        "cityscapes-resnet101-aspp-full",
        "Cityscapes, ResNet-101, ASPP: Table 9",
        _resnet("cityscapes", "aspp-l"),
        (70.4, None),
    ),
    Preset(
        "cityscapes-resnet101-aspp-full-aug",
        "Cityscapes, ResNet-101, ASPP, random scale: Table 9",
        _resnet("cityscapes", "aspp-l", AugmentConfig()),
        (71.0, 71.4),
    ),
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


def overview() -> str:
    """A line for every preset, for --help."""
    width = max(map(len, _BY_NAME))
    return "\n".join(f"  {preset.name:<{width}}  {preset.describe()}" for preset in _PRESETS)


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
