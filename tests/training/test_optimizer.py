"""The recipe's parameter groups, and SGD's momentum."""

import pytest
import torch
from torch import Tensor, nn

from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.config.recipe import SolverConfig
from deeplab_ray.models.configs import HEADS, DeepLabV2Config, FCNConfig
from deeplab_ray.models.network import Network
from deeplab_ray.models.networks import create
from deeplab_ray.training.optimizer import build_optimizer, set_rate

NETWORKS: dict[str, NetworkConfig] = {
    **{
        f"{backbone}-{head}": DeepLabV2Config(backbone, head, weights="random")
        for backbone, heads in HEADS.items()
        for head in heads
    },
    **{f"fcn{variant}": FCNConfig(variant, weights="random") for variant in ("32s", "16s", "8s")},
}


def outline(name: str) -> Network:
    return meta(NETWORKS[name])


def meta(config: NetworkConfig) -> Network:
    with torch.device("meta"):
        return create(config, 21)


@pytest.mark.parametrize("name", NETWORKS)
def test_each_parameter_has_the_recipes_factor_and_decay(name: str) -> None:
    model = outline(name)
    optimizer = build_optimizer(model, SolverConfig(learning_rate=1e-3, weight_decay=5e-4))
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(groups)  # none twice
    classifiers = 0
    for parameter_name, parameter in model.named_parameters():
        group = groups.pop(id(parameter))
        # A classifier is what has one output a class.
        classifier = parameter.shape[0] == 21
        classifiers += classifier
        expected = {(False, False): 1, (False, True): 2, (True, False): 10, (True, True): 20}
        assert group["rate_factor"] == expected[classifier, parameter.ndim == 1], parameter_name
        assert group["weight_decay"] == (0 if parameter.ndim == 1 else 5e-4), parameter_name
        assert group["momentum"] == 0.9
    assert not groups
    head = name.partition("-")[2] or name
    assert classifiers == {"aspp-s": 8, "aspp-l": 8, "fcn16s": 4, "fcn8s": 6}.get(head, 2)


@pytest.mark.parametrize("kind", ["trained", "synchronised"])
def test_norms_that_train_learn_at_the_base_rate_and_do_not_decay(kind: str) -> None:
    model = meta(DeepLabV2Config("resnet18", "aspp-l", weights="random", batch_norm=kind))
    optimizer = build_optimizer(model, SolverConfig(weight_decay=5e-4))
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 20
    for norm in norms:
        for parameter in (norm.weight, norm.bias):
            group = groups.pop(id(parameter))
            assert (group["rate_factor"], group["weight_decay"]) == (1, 0)
    # All else learns as in a network whose norms are frozen.
    assert sorted((group["rate_factor"], group["weight_decay"]) for group in groups.values()) == sorted(
        20 * [(1, 5e-4)] + 4 * [(10, 5e-4)] + 4 * [(20, 0)]
    )


def test_classifier_factor_is_a_choice() -> None:
    optimizer = build_optimizer(outline("vgg16-aspp-l"), SolverConfig(classifier_factor=3))
    assert sorted(group["rate_factor"] for group in optimizer.param_groups) == [1, 2, 3, 6]


def test_frozen_parameters_are_left_out() -> None:
    model = outline("resnet18-aspp-l")
    model.trunk.requires_grad_(False)
    optimizer = build_optimizer(model, SolverConfig())
    assert sorted(group["rate_factor"] for group in optimizer.param_groups) == [10, 20]


def test_rate_is_scaled_by_each_groups_factor() -> None:
    optimizer = build_optimizer(outline("vgg16-aspp-l"), SolverConfig())
    set_rate(optimizer, 1e-3)
    set_rate(optimizer, 5e-4)  # not cumulative
    assert {group["rate_factor"]: group["lr"] for group in optimizer.param_groups} == {
        1: 5e-4,
        2: 1e-3,
        10: 5e-3,
        20: 1e-2,
    }


class OneWeight(Network):
    def __init__(self) -> None:
        super().__init__(NetworkConfig(), 1)
        self.weight = nn.Parameter(torch.ones(1, 1))

    def score(self, prepared: Tensor) -> Tensor:
        return prepared[:, :1] * self.weight


def steps(solver: SolverConfig, rates: list[float], fused: bool | None) -> list[float]:
    """How far the weight moves in each update, for a gradient of 1."""
    network = OneWeight()
    optimizer = build_optimizer(network, solver, fused)
    moved = []
    for rate in rates:
        set_rate(optimizer, rate)
        before = network.weight.item()
        network.weight.grad = torch.ones_like(network.weight)
        optimizer.step()
        moved.append(before - network.weight.item())
    return moved


@pytest.mark.parametrize("fused", [None, True])
@pytest.mark.parametrize(("nesterov", "expected"), [(False, [1, 1.9]), (True, [1.9, 2.71])])
def test_momentum_is_plain_or_nesterovs(nesterov: bool, expected: list[float], fused: bool | None) -> None:
    solver = SolverConfig(learning_rate=0.1, momentum=0.9, nesterov=nesterov, weight_decay=0)
    assert steps(solver, [0.1, 0.1], fused) == pytest.approx([0.1 * step for step in expected], rel=1e-4)


def test_a_new_rate_takes_hold_of_what_momentum_carries() -> None:
    """Caffe, whose velocity holds rates already, would go 0.9 × 0.1 + 0.01 in the second step."""
    solver = SolverConfig(momentum=0.9, weight_decay=0)
    assert steps(solver, [0.1, 0.01], None) == pytest.approx([0.1, 0.01 * 1.9], rel=1e-4)
