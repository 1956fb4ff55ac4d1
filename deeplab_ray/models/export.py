"""Export of a network to ONNX, for images of any size, checked against onnxruntime."""

import tempfile
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from deeplab_ray.errors import UserError
from deeplab_ray.models.network import Network

# Tracing takes an odd size off the grid; the check takes others: the smallest, one on the grid, a wide one.
_TRACED = (75, 107)
_CHECKED = ((1, 1), (33, 65), (50, 131))
_OPSET = 18


@dataclass(frozen=True)
class Exported:
    """An ONNX model, and how far onnxruntime's scores are from PyTorch's."""

    content: bytes
    largest_difference: float
    """Largest difference of scores over all sizes tried, divided by the scores' standard deviation."""
    labels_equal: float
    """Share of pixels with the same most probable class."""


class _FullSize(nn.Module):
    """Images uint8 RGB N×H×W×3 → scores N×C×H×W; sizes stay symbols while it is traced."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[1:3]
        return self.network.grid.to_image(self.network(images), height, width)


def export(network: Network) -> Exported:
    """Export a network in evaluation mode: "images" uint8 N×H×W×3 → "scores" float N×C×H×W, with any N, H and W.

    Raises UserError if a package of the extra onnx is not installed, and RuntimeError if onnxruntime's scores differ
    from PyTorch's.
    """
    for package in ("onnx", "onnxruntime"):
        if find_spec(package) is None:
            raise UserError(f"{package} is not installed: pip install 'deeplab-ray[onnx]'")
    import onnxruntime

    whole = _FullSize(network).eval()
    channels = network.config.channels
    example = torch.zeros((2, *_TRACED, channels), dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = Path(folder) / "model.onnx"
        torch.onnx.export(
            whole,
            (example,),
            file,
            input_names=["images"],
            output_names=["scores"],
            opset_version=_OPSET,
            dynamic_axes={
                "images": {0: "images", 1: "height", 2: "width"},
                "scores": {0: "images", 2: "height", 3: "width"},
            },
            # The newer exporter, by torch.export, cannot handle sizes that are padded modulo eight.
            dynamo=False,
        )
        content = file.read_bytes()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    difference, equal, pixels = 0.0, 0, 0
    generator = np.random.default_rng(0)
    for height, width in _CHECKED:
        images = generator.integers(0, 256, (1, height, width, channels), np.uint8)
        (theirs,) = session.run(None, {"images": images})
        with torch.inference_mode():
            ours = whole(torch.from_numpy(images)).numpy()
        if theirs.shape != ours.shape:
            raise RuntimeError(f"onnxruntime's scores for {height}×{width} are {theirs.shape}, PyTorch's {ours.shape}")
        difference = max(difference, float(np.abs(ours - theirs).max() / max(float(ours.std()), 1e-6)))
        equal += int((ours.argmax(1) == theirs.argmax(1)).sum())
        pixels += height * width
    if difference > 1e-2:
        raise RuntimeError(f"onnxruntime's scores differ from PyTorch's by {difference:.2g} of their spread")
    return Exported(content, difference, equal / pixels)
