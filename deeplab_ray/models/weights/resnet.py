"""Names of ResNet-101's tensors in the files of torchvision, DeepLab's Caffe nets and deeplab-pytorch.

Our own names are torchvision's.
"""

from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor, nn

from deeplab_ray.models.trunks.resnet import BLOCKS
from deeplab_ray.models.weights.mapping import COUNTER, Wish


@dataclass(frozen=True)
class Unit:
    """A convolution and the batch norm after it, as three projects name them."""

    convolution: str
    """Our name of the convolution, and torchvision's."""
    norm: str
    """Our name of the batch norm, and torchvision's."""
    caffe: tuple[str, str, str]
    """Names of the original's layers: Convolution, BatchNorm, Scale."""
    pytorch: tuple[str, ...]
    """deeplab-pytorch's names, now and in its first versions; `.conv` and `.bn` follow."""


def _units() -> list[Unit]:
    units = [Unit("conv1", "bn1", ("conv1", "bn_conv1", "scale_conv1"), ("layer1.conv1",))]
    branches = (
        ("conv1", "bn1", "branch2a", ("reduce",)),
        ("conv2", "bn2", "branch2b", ("conv3x3",)),
        ("conv3", "bn3", "branch2c", ("increase",)),
        ("downsample.0", "downsample.1", "branch1", ("shortcut", "proj")),
    )
    for stage, blocks in enumerate(BLOCKS["resnet101"], 2):
        for index in range(blocks):
            # Stages of three blocks have a, b, c; longer ones a, b1, b2, …
            letter = "abc"[index] if blocks == 3 or index == 0 else f"b{index}"
            for convolution, norm, branch, theirs in branches[: 4 if index == 0 else 3]:
                ours = f"layer{stage - 1}.{index}"
                suffix = f"{stage}{letter}_{branch}"
                units.append(
                    Unit(
                        f"{ours}.{convolution}",
                        f"{ours}.{norm}",
                        (f"res{suffix}", f"bn{suffix}", f"scale{suffix}"),
                        tuple(f"layer{stage}.block{index + 1}.{name}" for name in theirs),
                    )
                )
    return units


UNITS = _units()


def torchvision_wishes(model: nn.Module) -> dict[str, Wish]:
    """Map the trunk to torchvision's image classifier."""
    trunk = [name for name in model.state_dict() if name.startswith("trunk.") and not name.endswith(COUNTER)]
    return {name: Wish((name.removeprefix("trunk."),)) for name in trunk}


def caffe_modules(branches: int) -> dict[str, str]:
    """Map layers of the original DeepLab ResNet-101 nets to our modules; classifiers are fc1_c… (see `caffe_nets`)."""
    modules = {"pool1": "trunk.maxpool"}
    for unit in UNITS:
        convolution, norm, _ = unit.caffe
        modules[convolution] = f"trunk.{unit.convolution}"
        modules[norm] = f"trunk.{unit.norm}"
    if branches == 1:
        modules["fc1"] = "head.classifiers.0"
    return modules | {f"fc1_c{k}": f"head.classifiers.{k}" for k in range(branches)}


def caffe_wishes(branches: int) -> dict[str, Wish]:
    """Map our tensors to those of the original's layers, as `caffe_nets` names them."""
    wishes = {}
    for unit in UNITS:
        convolution, norm, scale = unit.caffe
        first = unit.convolution == "conv1"
        wishes[f"trunk.{unit.convolution}.weight"] = Wish(
            (f"{convolution}.weight",), swap_colours if first else None, BGR if first else ""
        )
        for ours, theirs, how in (
            ("running_mean", f"{norm}.mean", "divided by the moving average's weight"),
            ("running_var", f"{norm}.variance", "divided by the moving average's weight"),
            ("weight", f"{scale}.weight", ""),
            ("bias", f"{scale}.bias", ""),
        ):
            wishes[f"trunk.{unit.norm}.{ours}"] = Wish((theirs,), None, how)
    for k in range(branches):
        names = (f"fc1_c{k}", "fc1") if branches == 1 else (f"fc1_c{k}",)
        for kind in ("weight", "bias"):
            wishes[f"head.classifiers.{k}.{kind}"] = Wish(tuple(f"{name}.{kind}" for name in names))
    return wishes


BGR = "blue-green-red → red-green-blue"


def swap_colours(weight: Tensor) -> Tensor:
    """Turn the weights of a first convolution for BGR images, O×3×k×k, into those for RGB images."""
    return weight.flip(1)


_STEM = "layer1.conv1.conv.weight"


def pytorch_prefix(names: Collection[str]) -> str | None:
    """Return the prefix of all names in a deeplab-pytorch file ("base.", "scale.", …); None for another file."""
    return next((name.removesuffix(_STEM) for name in names if name.endswith(_STEM)), None)


def pytorch_wishes(prefix: str, branches: int) -> dict[str, Wish]:
    """Map our tensors to a checkpoint of kazuto1011/deeplab-pytorch: DeepLab v2 ResNet-101, with MSC or without."""
    wishes = {}
    for unit in UNITS:
        first = unit.convolution == "conv1"
        names = tuple(f"{prefix}{name}.conv.weight" for name in unit.pytorch)
        wishes[f"trunk.{unit.convolution}.weight"] = Wish(names, swap_colours if first else None, BGR if first else "")
        for kind in ("weight", "bias", "running_mean", "running_var"):
            wishes[f"trunk.{unit.norm}.{kind}"] = Wish(tuple(f"{prefix}{name}.bn.{kind}" for name in unit.pytorch))
    for k in range(branches):
        for kind in ("weight", "bias"):
            names = (f"{prefix}aspp.c{k}.{kind}", f"{prefix}aspp.stages.c{k}.{kind}")
            wishes[f"head.classifiers.{k}.{kind}"] = Wish(names)
    return wishes
