"""The recipe's parameter groups."""

import pytest
import torch

from deeplab_ray.config.recipe import HEADS, ModelConfig, SolverConfig
from deeplab_ray.models import DeepLab
from deeplab_ray.training.optimizer import build_optimizer, set_rate


def outline(backbone: str, head: str = "aspp-l") -> DeepLab:
    with torch.device("meta"):
        return DeepLab(ModelConfig("voc12", backbone, head, "random"), 21)  # type: ignore[arg-type]


@pytest.mark.parametrize(("backbone", "head"), [(b, h) for b, heads in HEADS.items() for h in heads])
def test_each_parameter_has_the_recipes_factor_and_decay(backbone: str, head: str) -> None:
    model = outline(backbone, head)
    optimizer = build_optimizer(model, SolverConfig(learning_rate=1e-3, weight_decay=5e-4))
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(groups)  # none twice
    classifiers = 0
    for name, parameter in model.named_parameters():
        group = groups.pop(id(parameter))
        # A classifier is what has one output a class.
        classifier = parameter.shape[0] == 21
        classifiers += classifier
        expected = {(False, False): 1, (False, True): 2, (True, False): 10, (True, True): 20}
        assert group["rate_factor"] == expected[classifier, parameter.ndim == 1], name
        assert group["weight_decay"] == (0 if parameter.ndim == 1 else 5e-4), name
        assert group["momentum"] == 0.9
    assert not groups
    assert classifiers == {"aspp-s": 8, "aspp-l": 8, "fcn16s": 4, "fcn8s": 6}.get(head, 2)


def test_classifier_factor_is_a_choice() -> None:
    optimizer = build_optimizer(outline("vgg16"), SolverConfig(classifier_factor=3))
    assert sorted(group["rate_factor"] for group in optimizer.param_groups) == [1, 2, 3, 6]


def test_frozen_parameters_are_left_out() -> None:
    model = outline("resnet18")
    model.trunk.requires_grad_(False)
    optimizer = build_optimizer(model, SolverConfig())
    assert sorted(group["rate_factor"] for group in optimizer.param_groups) == [10, 20]


def test_rate_is_scaled_by_each_groups_factor() -> None:
    optimizer = build_optimizer(outline("vgg16"), SolverConfig())
    set_rate(optimizer, 1e-3)
    set_rate(optimizer, 5e-4)  # not cumulative
    assert {group["rate_factor"]: group["lr"] for group in optimizer.param_groups} == {
        1: 5e-4,
        2: 1e-3,
        10: 5e-3,
        20: 1e-2,
    }


@pytest.mark.parametrize("fused", [None, True])
@pytest.mark.parametrize(("nesterov", "steps"), [(False, [1, 1.9]), (True, [1.9, 2.71])])
def test_momentum_is_plain_or_nesterovs(nesterov: bool, steps: list[float], fused: bool | None) -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    solver = SolverConfig(learning_rate=0.1, momentum=0.9, nesterov=nesterov, weight_decay=0)
    optimizer = build_optimizer(layer, solver, fused)
    for step in steps:
        before = layer.weight.item()
        layer.weight.grad = torch.ones_like(layer.weight)
        optimizer.step()
        assert before - layer.weight.item() == pytest.approx(0.1 * step, rel=1e-4)
