"""A network that is none of ours, a small SegNet, in this file alone: it trains, resumes, is evaluated, exports."""

import sys
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import tiny
import torch
from ray import cloudpickle
from torch import Tensor, nn
from torch.nn import functional as F

from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.config.recipe import AugmentConfig, Recipe, SolverConfig
from deeplab_ray.config.scoring import ScoringConfig
from deeplab_ray.models import checkpoint
from deeplab_ray.models.export import export
from deeplab_ray.models.network import Network, register
from deeplab_ray.on_ray.infer.evaluate import evaluate
from deeplab_ray.on_ray.train import driver
from deeplab_ray.storage.location import locate

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Ray's processes cannot import a test.


@dataclass(frozen=True)
class SegNetConfig(NetworkConfig):
    name: ClassVar[str] = "segnet"
    step: ClassVar[int] = 2
    width: int = 8


@register(SegNetConfig)
class SegNet(Network):
    def __init__(self, config: SegNetConfig, classes: int) -> None:
        super().__init__(config, classes)
        self.encoder = nn.Sequential(nn.Conv2d(3, config.width, 3, padding=1), nn.BatchNorm2d(config.width), nn.ReLU())
        self.decoder = nn.Conv2d(config.width, classes, 3, padding=1)

    def score(self, prepared: Tensor) -> Tensor:
        x = self.encoder(prepared)
        pooled, places = F.max_pool2d(x, 2, return_indices=True)
        return self.decoder(torch.zeros_like(x).flatten(2).scatter(2, places.flatten(2), pooled.flatten(2)).view_as(x))


@pytest.mark.slow
def test_segnet_trains_resumes_is_evaluated_and_exports(prepared_scenes: str) -> None:
    output, two = "s3://tests/runs/segnet", tiny.resources(workers=2)
    recipe = Recipe(SegNetConfig(), AugmentConfig(crop=32), SolverConfig(batch=4, iterations=4))
    driver.train(recipe, two, prepared_scenes, output)
    longer = replace(recipe, solver=replace(recipe.solver, iterations=6))
    trained = driver.train(longer, two, prepared_scenes, output, resume=True)
    options = ScoringConfig(test_scales=(0.5, 1.0), test_mirror=True, tile=32, tile_overlap=8)
    found = evaluate(trained.checkpoint, prepared_scenes, "val", crf=None, scoring=options)
    assert (trained.iterations, found.images) == (6, 5)
    network = checkpoint.load_model(locate(trained.checkpoint), longer.network, 12)
    assert network.encoder[1].num_batches_tracked == 6
    assert network(torch.zeros(1, 7, 9, 3)).shape == (1, 12, 7, 9)
    assert export(network).labels_equal > 0.999
