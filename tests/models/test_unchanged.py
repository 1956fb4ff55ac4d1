"""Weights and scores are what they were at commit ad11473, before networks had a protocol.

tests/reference/scores.npz holds what the networks of that commit gave, with weights drawn by the names of their tensors
(`drawn`), for the image of `image`; tests/reference/tensors.json the names and shapes of those tensors. Both were
written there by these same functions.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.config.scoring import ScoringConfig
from deeplab_ray.models.configs import DeepLabV2Config, FCNConfig
from deeplab_ray.models.networks import create
from deeplab_ray.models.scoring import score_images

REFERENCE = Path(__file__).parents[1] / "reference"
CLASSES = 5
CASES: dict[str, NetworkConfig] = {
    "resnet18-largefov": DeepLabV2Config("resnet18", "largefov", weights="random"),
    "resnet18-plain-torchvision": DeepLabV2Config("resnet18", "plain", weights="random", strides="torchvision"),
    "resnet101-aspp-l-msc": DeepLabV2Config("resnet101", "aspp-l", weights="random", msc=True),
    "resnet101-aspp-l-msc-centres": DeepLabV2Config(
        "resnet101", "aspp-l", weights="random", msc=True, alignment="centres"
    ),
    "vgg16-largefov": DeepLabV2Config("vgg16", "largefov", weights="random", input="caffe"),
    "vgg16-aspp-s": DeepLabV2Config("vgg16", "aspp-s", weights="random", input="torchvision-features"),
    "fcn16s": FCNConfig("16s", weights="random"),
}
# Those that share a trunk with another case.
SLOW = {"resnet101-aspp-l-msc-centres", "vgg16-aspp-s", "fcn16s"}
SCORINGS = {
    "plain": ScoringConfig(),
    "scales": ScoringConfig(test_scales=(0.5, 1.0)),
    "tiles": ScoringConfig(tile=33, tile_overlap=16),
}


def drawn(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The tensor of this name: He-scaled noise for weights, near one for variances and scales, small for the rest."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "little")
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if len(shape) == 4:
        return noise * (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
    return 1 + 0.1 * noise.abs() if name.endswith(("running_var", ".weight")) else 0.1 * noise


def image() -> torch.Tensor:
    """uint8 1×41×57×3."""
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 41, 57, 3), np.uint8))


@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.slow] * (case in SLOW)) for case in CASES])
def test_networks_keep_the_names_of_their_tensors_and_their_scores(case: str) -> None:
    network = create(CASES[case], CLASSES).eval()
    own = network.state_dict()
    shapes = json.loads((REFERENCE / "tensors.json").read_text())[case]
    assert {name: list(tensor.shape) for name, tensor in own.items() if name not in ("mean", "scale")} == shapes
    network.load_state_dict(own | {name: drawn(name, tuple(shape)) for name, shape in shapes.items()})
    with np.load(REFERENCE / "scores.npz") as before:
        for how, options in SCORINGS.items():
            if case.startswith("fcn") and how != "plain":
                continue  # They were thrown onto the stride-8 grid, and now lie at every pixel.
            with torch.inference_mode():
                scores = score_images(network, image(), options)[0].numpy()
            expected = before[f"{case} {how}"]
            np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5 * expected.std(), err_msg=how)
