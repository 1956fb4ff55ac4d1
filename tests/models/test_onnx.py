"""ONNX files score images of any size as the network does."""

import numpy as np
import onnxruntime
import pytest
import torch

from deeplab_ray.config.recipe import ModelConfig
from deeplab_ray.models import DeepLab, calibrate_frozen_norms, upsample_scores
from deeplab_ray.models.export import export


@pytest.mark.parametrize(("msc", "alignment"), [(False, "corners"), (True, "corners"), (True, "centres")])
def test_onnxruntime_gives_the_same_scores_at_any_size(msc: bool, alignment: str) -> None:
    torch.manual_seed(0)
    config = ModelConfig("voc12", "resnet18", "largefov", "random", msc=msc, alignment=alignment)  # type: ignore[arg-type]
    model = DeepLab(config, 4).eval()
    rng = np.random.default_rng(1)
    calibrate_frozen_norms(model.trunk, model.prepare(torch.from_numpy(rng.integers(0, 256, (2, 65, 65, 3), np.uint8))))
    exported = export(model)
    assert exported.largest_difference < 1e-3
    assert exported.labels_equal > 0.999
    session = onnxruntime.InferenceSession(exported.content, providers=["CPUExecutionProvider"])
    for count, height, width in ((2, 41, 57), (1, 30, 97), (1, 2, 2)):
        images = rng.integers(0, 256, (count, height, width, 3), np.uint8)
        (scores,) = session.run(["scores"], {"images": images})
        with torch.inference_mode():
            expected = upsample_scores(model(torch.from_numpy(images)), height, width, model.alignment)
        assert scores.shape == (count, 4, height, width)
        torch.testing.assert_close(torch.from_numpy(scores), expected, rtol=1e-3, atol=1e-3 * float(expected.std()))
