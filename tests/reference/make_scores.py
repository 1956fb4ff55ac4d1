"""Write scores.npz and tensors.json: what networks with known weights gave before their code was rebuilt.

It ran at commit ad11473, whose names it uses; `tests/models/test_unchanged.py` compares today's networks with what it
wrote. Weights are drawn by tensor name, so that they depend on no order of initialisation.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from deeplab_ray.config.recipe.recipe import ModelConfig, TestConfig

from deeplab_ray.models import DeepLab, score_images

HERE = Path(__file__).parent
CASES = {
    "resnet18-largefov": ModelConfig("scenes", "resnet18", "largefov", "random"),
    "resnet18-plain-torchvision": ModelConfig("scenes", "resnet18", "plain", "random", strides="torchvision"),
    "resnet101-aspp-l-msc": ModelConfig("scenes", "resnet101", "aspp-l", "random", msc=True),
    "resnet101-aspp-l-msc-centres": ModelConfig(
        "scenes", "resnet101", "aspp-l", "random", msc=True, alignment="centres"
    ),
    "vgg16-largefov": ModelConfig("scenes", "vgg16", "largefov", "random", input="caffe"),
    "vgg16-aspp-s": ModelConfig("scenes", "vgg16", "aspp-s", "random", input="torchvision-features"),
    "fcn16s": ModelConfig("scenes", "vgg16", "fcn16s", "random"),
}
CLASSES = 5
SCORINGS = {
    "plain": TestConfig(),
    "scales": TestConfig(test_scales=(0.5, 1.0)),
    "tiles": TestConfig(tile=33, tile_overlap=16),
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


def main() -> None:
    scores, tensors = {}, {}
    for case, config in CASES.items():
        model = DeepLab(config, CLASSES).eval()
        own = model.state_dict()
        shapes = {name: list(tensor.shape) for name, tensor in own.items() if name not in ("mean", "scale")}
        model.load_state_dict(own | {name: drawn(name, tuple(shape)) for name, shape in shapes.items()})
        tensors[case] = shapes
        for how, options in SCORINGS.items():
            with torch.inference_mode():
                scores[f"{case} {how}"] = score_images(model, image(), options)[0].numpy()
        print(case, float(scores[f"{case} plain"].std()), scores[f"{case} plain"].shape)
    np.savez_compressed(HERE / "scores.npz", **scores)
    (HERE / "tensors.json").write_text(json.dumps(tensors, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
