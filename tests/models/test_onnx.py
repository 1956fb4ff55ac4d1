"""ONNX files score images of any size as the network does."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from deeplab_ray.models.configs import DeepLabV2Config
from deeplab_ray.models.export import export
from deeplab_ray.models.networks import create


@pytest.mark.parametrize(
    "options",
    [
        {"msc": False},
        {"msc": True},
        {"msc": True, "alignment": "centres"},
        {"batch_norm": "synchronised", "channels": 1},
    ],
    ids=str,
)
def test_onnxruntime_gives_the_same_scores_at_any_size(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network = create(DeepLabV2Config("resnet18", "largefov", weights="random", **options), 4)
    channels = network.config.channels
    rng = np.random.default_rng(1)
    with torch.no_grad():
        some = torch.from_numpy(rng.integers(0, 256, (2, 65, 65, channels), np.uint8))
        network.calibrate(some)
        network.train()(some)  # so that norms that train have statistics
    exported = export(network.eval())
    assert exported.largest_difference < 1e-3
    assert exported.labels_equal > 0.999
    session = onnxruntime.InferenceSession(exported.content, providers=["CPUExecutionProvider"])
    for count, height, width in ((2, 41, 57), (1, 30, 97), (1, 2, 2)):
        images = rng.integers(0, 256, (count, height, width, channels), np.uint8)
        (scores,) = session.run(["scores"], {"images": images})
        with torch.inference_mode():
            expected = network.grid.to_image(network(torch.from_numpy(images)), height, width)
        assert scores.shape == (count, 4, height, width)
        torch.testing.assert_close(torch.from_numpy(scores), expected, rtol=1e-3, atol=1e-3 * float(expected.std()))
