"""One contract for every backbone with every head; the stride-8 geometry; calibration of a random trunk."""

import copy
import functools
from typing import Any

import pytest
import torch
from torch import nn

from deeplab_ray.config.recipe import FCN_HEADS, HEADS, ModelConfig
from deeplab_ray.errors import UserError
from deeplab_ray.models import (
    DeepLab,
    calibrate_frozen_norms,
    grid_size,
    labels_at_stride,
    pad_to_grid,
    upsample_scores,
)
from deeplab_ray.models.trunks.resnet import FrozenBatchNorm2d
from deeplab_ray.presets import paper as presets

EVERY = [(backbone, head) for backbone, heads in HEADS.items() for head in heads]
DENSE = [(backbone, head) for backbone, head in EVERY if head not in FCN_HEADS]
# On real numbers: every backbone and every kind of head, not every pair, nor the heads of 100 million weights.
CHOSEN = [("vgg16", "largefov"), ("vgg16", "aspp-s"), ("resnet18", "aspp-l"), ("resnet101", "plain")]
OF_PRESETS = sorted({(m.backbone, m.head, m.msc) for m in (presets.get(n).config.model for n in presets.names())})
CLASSES = 5


def config(backbone: str, head: str, **options: Any) -> ModelConfig:
    return ModelConfig("voc12", backbone, head, "random", **options)  # type: ignore[arg-type]


@functools.lru_cache(maxsize=1)
def network(backbone: str, head: str) -> DeepLab:
    torch.manual_seed(0)
    model = DeepLab(config(backbone, head), CLASSES)
    if backbone != "vgg16":
        calibrate_frozen_norms(model.trunk, model.prepare(images(2, 33, 41)))
    return model


@functools.cache
def outline(backbone: str, head: str, classes: int = 21, msc: bool = False) -> DeepLab:
    """The network without memory behind its tensors: shapes can be computed, numbers cannot."""
    with torch.device("meta"):
        return DeepLab(config(backbone, head, msc=msc), classes).eval()


def nothing(height: int, width: int) -> torch.Tensor:
    return torch.empty((2, height, width, 3), dtype=torch.uint8, device="meta")


def images(count: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


# The contract


@pytest.mark.parametrize(("backbone", "head"), DENSE)
def test_scores_lie_on_the_stride_8_grid(backbone: str, head: str) -> None:
    model = outline(backbone, head)
    for height, width in ((1, 1), (2, 9), (33, 41), (321, 321), (322, 500)):
        scores = model(nothing(height, width))
        assert scores.shape == (2, 21, -(-(height - 1) // 8) + 1, -(-(width - 1) // 8) + 1)
        assert scores.dtype == torch.float32


@pytest.mark.parametrize(
    ("backbone", "head", "msc"),
    [("vgg16", "largefov", False), ("vgg16", "k4r8", True), ("resnet18", "aspp-l", True), ("vgg16", "fcn8s", False)],
)
def test_every_size_from_1_to_80_comes_back_at_its_size(backbone: str, head: str, msc: bool) -> None:
    model = outline(backbone, head, msc=msc)
    for height in range(1, 81):
        width = 81 - height
        scores = model(nothing(height, width))
        if head not in FCN_HEADS:
            assert scores.shape[-2:] == (grid_size(height), grid_size(width))
        assert upsample_scores(scores, height, width, model.alignment).shape == (2, 21, height, width)


@pytest.mark.parametrize(("backbone", "head"), EVERY)
def test_batch_norm_is_frozen_and_nothing_else(backbone: str, head: str) -> None:
    model = outline(backbone, head)
    in_convolutions = [p for module in model.modules() if isinstance(module, nn.Conv2d) for p in module.parameters()]
    parameters = list(model.parameters())
    assert {id(p) for p in parameters} == {id(p) for p in in_convolutions}
    assert all(parameter.requires_grad for parameter in parameters)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


@pytest.mark.parametrize(
    ("backbone", "head", "count"),
    [  # DESIGN.md, "Recipe", counted there independently
        ("vgg16", "k7r4", 134_346_581),
        ("vgg16", "k4r4", 65_140_565),
        ("vgg16", "k4r8", 65_140_565),
        ("vgg16", "largefov", 20_505_429),
        ("vgg16", "aspp-l", 37_877_652),
        ("vgg16", "aspp-s", 37_877_652),
        ("resnet101", "aspp-l", 43_943_188),
        ("vgg16", "fcn32s", 134_346_581),
        ("vgg16", "fcn16s", 134_346_581 + 21 * 513),
        ("vgg16", "fcn8s", 134_346_581 + 21 * 513 + 21 * 257),
    ],
)
def test_number_of_parameters(backbone: str, head: str, count: int) -> None:
    assert sum(parameter.numel() for parameter in outline(backbone, head).parameters()) == count


def test_number_of_parameters_with_the_frozen_scales_and_shifts() -> None:
    model = outline("resnet101", "aspp-l")
    frozen = [m.weight.numel() + m.bias.numel() for m in model.modules() if isinstance(m, FrozenBatchNorm2d)]
    assert sum(frozen) + sum(parameter.numel() for parameter in model.parameters()) == 44_048_532


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_has_its_network(name: str) -> None:
    model = presets.get(name).config.model
    shapes = _training_shapes(model.backbone, model.head, model.msc)
    fcn, msc = [(1, 21, 17, 25)], [(1, 21, 3, 4)] * 3 + [(1, 21, 2, 2)]
    assert shapes == (fcn if model.head in FCN_HEADS else msc if model.msc else msc[:1])


@functools.cache
def _training_shapes(backbone: str, head: str, msc: bool) -> list[tuple[int, ...]]:
    """Of what the losses are computed on, for an image of 17 × 25."""
    model = outline(backbone, head, msc=msc).train()
    output = model(nothing(17, 25)[:1])
    model.eval()
    return [tuple(scores.shape) for scores in (output if isinstance(output, tuple) else (output,))]


@pytest.mark.parametrize("name", presets.names())
def test_backward_of_every_preset_reaches_what_is_trained_and_nothing_frozen(name: str) -> None:
    model = presets.get(name).config.model
    trained, reached, kept = _gradients(model.backbone, model.head, model.msc)
    assert reached == trained
    assert not any(tensor.requires_grad for tensor in kept)


@functools.cache
def _gradients(backbone: str, head: str, msc: bool) -> tuple[set[str], set[str], list[torch.Tensor]]:
    """Parameters that are trained, those with a gradient after a backward pass, and the frozen tensors."""
    with torch.device("meta"):
        model = DeepLab(config(backbone, head, msc=msc), 21).train()
    output = model(nothing(17, 25)[:1])
    sum(scores.sum() for scores in (output if isinstance(output, tuple) else (output,))).backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    return trained, reached, list(model.buffers())


@pytest.mark.parametrize(
    ("backbone", "head", "options"),
    [("resnet101", "k7r4", {}), ("vgg16", "plain", {}), ("vgg16", "fcn8s", {"msc": True})],
)
def test_networks_that_are_none_are_refused(backbone: str, head: str, options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=head):
        config(backbone, head, **options)


@pytest.mark.parametrize(("backbone", "head"), CHOSEN)
def test_backward_reaches_every_parameter(backbone: str, head: str) -> None:
    model = network(backbone, head).train()
    model.zero_grad()
    scores = model(images(1, 33, 41))
    (scores * torch.linspace(-1, 1, scores.numel()).view_as(scores)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name
    model.zero_grad(set_to_none=True)


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "head", "msc"), OF_PRESETS)
@torch.no_grad()
def test_evaluation_is_the_same_alone_in_company_and_after_a_round_trip(backbone: str, head: str, msc: bool) -> None:
    torch.manual_seed(0)
    model = DeepLab(config(backbone, head, msc=msc), CLASSES).eval()
    if backbone != "vgg16":
        calibrate_frozen_norms(model.trunk, model.prepare(images(2, 33, 41)))
    for name, parameter in model.head.named_parameters():
        if head in FCN_HEADS and "classifier" in name:
            # Zero at the start, so that every image would score the same.
            parameter.normal_(std=0.01)
    batch = images(2, 33, 41)
    together = model(batch)
    # Kernels for other batch sizes add up in another order.
    unlike = (together[1] - together[0]).abs().max()
    assert (model(batch[1:2]) - together[1:2]).abs().max() < 1e-2 * unlike
    assert torch.equal(model(batch), together)
    assert upsample_scores(model(images(1, 1, 1)), 1, 1, model.alignment).shape == (1, CLASSES, 1, 1)

    with torch.device("meta"):
        other = DeepLab(config(backbone, head, msc=msc), CLASSES)
    other.load_state_dict(model.state_dict(), assign=True)
    assert torch.equal(other.eval()(batch), together)


@pytest.mark.parametrize("backbone", ["vgg16", "resnet18"])
@torch.no_grad()
def test_mirrored_kernels_see_a_mirrored_image_as_kernels_see_the_image(backbone: str) -> None:
    """Padding treats left and right alike on sizes of the grid (off it, the grid itself starts at the left)."""
    model = copy.deepcopy(network(backbone, "aspp-l" if backbone == "resnet18" else "largefov")).eval()
    x = model.prepare(images(1, 33, 57))
    expected = model.head(model.trunk(x)).flip(3)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.copy_(module.weight.flip(3))
    torch.testing.assert_close(
        model.head(model.trunk(x.flip(3))), expected, rtol=1e-3, atol=1e-3 * float(expected.std())
    )


@torch.no_grad()
@pytest.mark.parametrize("dropout", [0.5, 0.0])
def test_dropout_acts_in_training_only_and_can_be_left_out(dropout: float) -> None:
    model, x = DeepLab(config("vgg16", "largefov", dropout=dropout), CLASSES), images(1, 33, 41)
    assert torch.equal(model.train()(x), model(x)) == (dropout == 0)
    assert torch.equal(model.eval()(x), model(x))


@torch.no_grad()
def test_padding_is_the_mean_colour() -> None:
    """An image with a size off the grid scores as the same image padded with the mean (caffe's, rounded)."""
    model = network("resnet18", "aspp-l").eval()
    model.mean.copy_(torch.tensor([123.0, 117.0, 104.0]))
    small = images(1, 30, 38)
    padded = torch.tensor([123, 117, 104], dtype=torch.uint8).repeat(1, 33, 41, 1)
    padded[:, :30, :38] = small
    torch.testing.assert_close(model(small), model(padded), rtol=1e-5, atol=1e-6)


# Geometry


def test_grid_sizes_are_the_papers() -> None:
    assert [grid_size(n) for n in (1, 2, 8, 9, 10, 161, 241, 321)] == [1, 2, 2, 2, 3, 21, 31, 41]
    for n in range(1, 100):
        assert pad_to_grid(torch.zeros(1, 3, n, 1)).shape == (1, 3, 8 * (grid_size(n) - 1) + 1, 1)


def test_labels_at_stride_are_every_eighth_pixel() -> None:
    label = torch.randint(0, 256, (2, 33, 41), dtype=torch.uint8)
    assert torch.equal(labels_at_stride(label), label[:, ::8, ::8])
    assert labels_at_stride(label).shape == (2, 5, 6)
    for shape in ((1, 32, 33), (1, 33, 40)):
        with pytest.raises(ValueError, match=r"must be ≡ 1 \(mod 8\)"):
            labels_at_stride(torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.parametrize(("height", "width"), [(33, 41), (1, 1), (30, 38), (2, 9)])
def test_upsampling_keeps_the_scores_at_multiples_of_8(height: int, width: int) -> None:
    scores = torch.randn(2, 3, grid_size(height), grid_size(width))
    full = upsample_scores(scores, height, width)
    assert full.shape == (2, 3, height, width)
    exact = full[..., ::8, ::8]
    torch.testing.assert_close(exact, scores[..., : exact.shape[-2], : exact.shape[-1]], rtol=1e-6, atol=1e-6)


def test_upsampling_is_linear_between_the_scores() -> None:
    ramp = torch.arange(6.0).expand(1, 1, 5, 6)
    expected = (torch.arange(38) / 8).expand(1, 1, 30, 38)
    torch.testing.assert_close(upsample_scores(ramp, 30, 38), expected)
    with pytest.raises(ValueError, match="scores of 5×6 do not belong to an image of 34×41"):
        upsample_scores(ramp, 34, 41)


@torch.no_grad()
def test_calibration_centres_every_norm_and_gives_it_the_spread_of_its_scale() -> None:
    torch.manual_seed(0)
    model = DeepLab(config("resnet18", "largefov"), CLASSES)
    batch = model.prepare(images(4, 65, 65))
    calibrate_frozen_norms(model.trunk, batch)
    outputs: dict[str, torch.Tensor] = {}
    for name, module in model.trunk.named_modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.register_forward_hook(lambda _m, _i, output, name=name: outputs.update({name: output}))
    model.trunk(batch)
    assert len(outputs) == 20
    for name, output in outputs.items():
        assert output.mean((0, 2, 3)).abs().max() < 1e-3, name
        scale = model.trunk.get_submodule(name).weight
        assert (output.std((0, 2, 3)) / scale - 1).abs().max() < 1e-2, name
    before = {name: tensor.clone() for name, tensor in model.trunk.state_dict().items()}
    model.trunk(batch * 3)  # the hooks are gone: nothing is measured any more
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.trunk.state_dict().items())
