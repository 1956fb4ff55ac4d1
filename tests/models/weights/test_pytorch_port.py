"""Checkpoints of kazuto1011/deeplab-pytorch give the outputs of its architecture."""

import pytest
import resnet_reference as reference
import torch
from torch import Tensor

from deeplab_ray.config.scoring import ScoringConfig
from deeplab_ray.errors import UserError
from deeplab_ray.models.configs import DeepLabV2Config
from deeplab_ray.models.grid import CentreGrid
from deeplab_ray.models.networks.deeplab_v2 import DeepLabV2
from deeplab_ray.models.scoring import score_images
from deeplab_ray.models.weights.mapping import StateDict

CLASSES = reference.CLASSES
State = dict[str, Tensor]
Numbers = tuple[dict[str, reference.Weights], list[tuple[Tensor, Tensor]]]


def state_dict(trunk: dict[str, reference.Weights], heads: list[tuple[Tensor, Tensor]], first_version: bool) -> State:
    """Its names: now, and in the version of 2018."""
    prefix, aspp = ("scale.", "aspp.stages.") if first_version else ("base.", "aspp.")
    branches = {"1": "proj" if first_version else "shortcut", "2a": "reduce", "2b": "conv3x3", "2c": "increase"}
    state = {}
    for name, w in trunk.items():
        if name == "conv1":
            place = f"{prefix}layer1.conv1"
        else:
            block, _, branch = name.partition("_branch")
            number = int(block[2:]) + 1 if block[2:] else "abc".index(block[1]) + 1
            place = f"{prefix}layer{block[0]}.block{number}.{branches[branch]}"
        state |= {
            f"{place}.conv.weight": w.weight,
            f"{place}.bn.weight": w.gamma,
            f"{place}.bn.bias": w.beta,
            f"{place}.bn.running_mean": w.mean,
            f"{place}.bn.running_var": w.variance,
            f"{place}.bn.num_batches_tracked": torch.tensor(7),
        }
    for k, (weight, bias) in enumerate(heads):
        state |= {f"{prefix}{aspp}c{k}.weight": weight, f"{prefix}{aspp}c{k}.bias": bias}
    return state


@pytest.fixture(scope="module")
def numbers() -> Numbers:
    return reference.draw()


CONFIG = DeepLabV2Config("resnet101", "aspp-l", msc=True, weights="voc.pth")


@pytest.mark.parametrize("first_version", [False, True])
@torch.no_grad()
def test_outputs_are_those_of_its_architecture(numbers: Numbers, first_version: bool) -> None:
    model, report = DeepLabV2.pretrained(CONFIG, CLASSES, StateDict("voc.pth", state_dict(*numbers, first_version)))
    assert (model.config.input, model.config.strides, model.config.alignment) == ("caffe", "caffe", "centres")
    assert {line.tensor for line in report if line.source} == set(model.state_dict()) - {"mean", "scale"}
    model.eval()
    generator = torch.Generator().manual_seed(5)
    # On the grid of the paper, and off it; its sizes need no padding.
    for height, width in ((65, 49), (50, 70)) if first_version else ((57, 80),):
        rgb = torch.randint(0, 256, (1, height, width, 3), dtype=torch.uint8, generator=generator)
        bgr = rgb.flip(3).permute(0, 3, 1, 2).float() - torch.tensor([104.008, 116.669, 122.675]).view(1, 3, 1, 1)
        theirs = reference.multiscale_scores(bgr, *numbers, corners=False)
        ours, grid = score_images(model, rgb, ScoringConfig())
        assert grid == CentreGrid()
        spread = float(theirs.std())
        assert spread > 1e-2
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * spread)
        full = torch.nn.functional.interpolate(theirs, (height, width), mode="bilinear", align_corners=False)
        torch.testing.assert_close(grid.to_image(ours, height, width), full, rtol=1e-3, atol=1e-3 * spread)


@pytest.mark.parametrize(
    ("remove", "add", "sentence"),
    [
        ("base.layer4.block23.increase.bn.running_var", "", "lacks base.layer4.block23.increase.bn.running_var"),
        ("", "base.layer4.block24.reduce.conv.weight", "holds base.layer4.block24.reduce.conv.weight"),
        ("base.aspp.c1.bias", "", "lacks base.aspp.c1.bias"),
    ],
)
def test_tensors_that_are_missing_or_too_many_are_errors(
    numbers: Numbers, remove: str, add: str, sentence: str
) -> None:
    state = state_dict(*numbers, False)
    state.pop(remove, None)
    if add:
        state[add] = torch.zeros(1)
    with torch.device("meta"), pytest.raises(UserError, match=sentence):
        DeepLabV2.pretrained(CONFIG, CLASSES, StateDict("voc.pth", state))


@pytest.mark.parametrize("backbone", ["resnet18", "vgg16"])
def test_another_backbone_is_refused(numbers: Numbers, backbone: str) -> None:
    config = DeepLabV2Config(backbone, "largefov", weights="voc.pth")
    with pytest.raises(UserError, match=r"voc\.pth is a ResNet-101 of deeplab-pytorch: take a preset with"):
        DeepLabV2.pretrained(config, CLASSES, StateDict("voc.pth", state_dict(*numbers, False)))
