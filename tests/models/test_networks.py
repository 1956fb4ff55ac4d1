"""One contract for every network: what goes in, what comes out, what trains, what a checkpoint holds."""

import copy
import functools
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.config.recipe import SolverConfig
from deeplab_ray.config.scoring import ScoringConfig
from deeplab_ray.models.configs import HEADS, DeepLabV2Config, FCNConfig
from deeplab_ray.models.grid import CornerGrid
from deeplab_ray.models.network import Network, register
from deeplab_ray.models.networks import create, deeplab_v2
from deeplab_ray.models.norm import FrozenBatchNorm2d
from deeplab_ray.models.scoring import score_images
from deeplab_ray.presets import lookup as presets
from deeplab_ray.training.optimizer import build_optimizer
from deeplab_ray.training.step import train_step

DENSE: dict[str, NetworkConfig] = {
    f"{backbone}-{head}": DeepLabV2Config(backbone, head, weights="random")
    for backbone, heads in HEADS.items()
    for head in heads
}
FROZEN: dict[str, NetworkConfig] = {
    **DENSE,
    **{
        f"resnet101-{head}-msc": DeepLabV2Config("resnet101", head, weights="random", msc=True)
        for head in HEADS["resnet101"]
        if head != "aspp-s"
    },
    "vgg16-k4r8-msc": DeepLabV2Config("vgg16", "k4r8", weights="random", msc=True),
    "resnet18-centres": DeepLabV2Config("resnet18", "plain", weights="random", alignment="centres"),
    "resnet18-msc-centres": DeepLabV2Config("resnet18", "plain", weights="random", msc=True, alignment="centres"),
    "fcn32s": FCNConfig("32s", weights="random"),
    "fcn16s": FCNConfig("16s", weights="random"),
    "fcn8s": FCNConfig("8s", weights="random"),
}
EVERY: dict[str, NetworkConfig] = {
    **FROZEN,
    "resnet18-trained": DeepLabV2Config("resnet18", "plain", weights="random", batch_norm="trained"),
    "resnet18-synchronised": DeepLabV2Config("resnet18", "plain", weights="random", batch_norm="synchronised"),
}
_OF_PRESETS = {replace(presets.get(name).recipe.network, weights="random") for name in presets.names()}
OF_PRESETS = [name for name, config in EVERY.items() if config in _OF_PRESETS]
# On real numbers: every backbone and every kind of head, not every pair, nor the heads of 100 million weights.
CHOSEN = ["vgg16-largefov", "vgg16-aspp-s", "resnet18-aspp-l", "resnet101-plain", "resnet18-trained"]
CLASSES = 5


@functools.lru_cache(maxsize=1)
def network(name: str) -> Network:
    torch.manual_seed(0)
    model = create(EVERY[name], CLASSES)
    model.calibrate(images(2, 33, 41))
    return model


@functools.cache
def outline(config: NetworkConfig, classes: int = 21) -> Network:
    """The network without memory behind its tensors: shapes can be computed, numbers cannot."""
    with torch.device("meta"):
        return create(config, classes)


def nothing(height: int, width: int, count: int = 2, channels: int = 3) -> Tensor:
    return torch.empty((count, height, width, channels), dtype=torch.uint8, device="meta")


def images(count: int, height: int, width: int, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, height, width, channels), dtype=torch.uint8, generator=generator)


# The contract


def test_no_presets_network_is_forgotten() -> None:
    assert len(OF_PRESETS) == len(_OF_PRESETS)


@pytest.mark.parametrize("name", EVERY)
def test_scores_of_any_size_come_back_at_image_size(name: str) -> None:
    model = outline(EVERY[name]).eval()
    for height, width in ((1, 1), (2, 9), (33, 41), (322, 500)):
        scores = model(nothing(height, width))
        assert scores.dtype == torch.float32
        assert model.grid.to_image(scores, height, width).shape == (2, 21, height, width)
        if isinstance(model.grid, CornerGrid):
            assert scores.shape == (2, 21, -(-(height - 1) // 8) + 1, -(-(width - 1) // 8) + 1)


@pytest.mark.parametrize("name", EVERY)
def test_training_gives_scores_for_each_target_and_reaches_every_parameter(name: str) -> None:
    with torch.device("meta"):
        model = create(EVERY[name], 21).train()
    outputs = check_targets(model, 33, 41)
    sum(scores.sum() for scores in outputs).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not any(tensor.requires_grad for tensor in model.buffers())


@pytest.mark.parametrize("name", ["vgg16-largefov", "vgg16-k4r8-msc", "resnet18-msc-centres", "fcn8s"])
def test_training_takes_crops_of_any_size_that_fits(name: str) -> None:
    model = outline(EVERY[name]).train()
    for side in range(17, 130):
        if side % model.config.step == model.config.remainder:
            check_targets(model, side, 146 - side)


def check_targets(model: Network, height: int, width: int) -> tuple[Tensor, ...]:
    """What the network in training gives for two images, held against what it says of labels."""
    outputs = model(nothing(height, width))
    targets = model.targets(torch.empty((2, height, width), dtype=torch.uint8, device="meta"))
    assert isinstance(outputs, tuple)
    assert len(outputs) == len(targets)
    for scores, (labels, weight) in zip(outputs, targets, strict=True):
        assert scores.shape == (2, 21, *labels.shape[1:])
        assert (labels.dtype, weight) == (torch.int64, 1.0)
    return outputs


@pytest.mark.parametrize("name", CHOSEN)
def test_every_parameter_has_a_finite_gradient_that_is_not_zero(name: str) -> None:
    model = network(name).train()
    model.zero_grad()
    (scores,) = model(images(2, 33, 41))
    (scores * torch.linspace(-1, 1, scores.numel()).view_as(scores)).sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name
    model.zero_grad(set_to_none=True)


@pytest.mark.parametrize("name", FROZEN)
def test_batch_norm_is_frozen_and_nothing_else(name: str) -> None:
    model = outline(FROZEN[name])
    in_convolutions = [p for module in model.modules() if isinstance(module, nn.Conv2d) for p in module.parameters()]
    parameters = list(model.parameters())
    assert {id(p) for p in parameters} == {id(p) for p in in_convolutions}
    assert all(parameter.requires_grad for parameter in parameters)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    assert not model.buffers_train


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_PRESETS)
@torch.no_grad()
def test_evaluation_is_the_same_alone_in_company_and_after_a_round_trip(name: str) -> None:
    config = EVERY[name]
    torch.manual_seed(0)
    model = create(config, CLASSES).eval()
    model.calibrate(images(2, 33, 41))
    if isinstance(config, FCNConfig):
        for classifier in model.classifiers():
            # Zero at the start, so that every image would score the same.
            nn.init.normal_(classifier.get_parameter("weight"), std=0.01)
    batch = images(2, 33, 41)
    together = model(batch)
    # Kernels for other batch sizes add up in another order.
    unlike = (together[1] - together[0]).abs().max()
    assert (model(batch[1:2]) - together[1:2]).abs().max() < 1e-2 * unlike
    assert torch.equal(model(batch), together)
    assert model.grid.to_image(model(images(1, 1, 1)), 1, 1).shape == (1, CLASSES, 1, 1)

    with torch.device("meta"):
        other = create(config, CLASSES)
    other.load_state_dict(model.state_dict(), assign=True)
    assert torch.equal(other.eval()(batch), together)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("name", ["vgg16-largefov", "resnet18-msc-centres", "fcn8s"])
def test_images_may_have_other_channels(name: str, channels: int) -> None:
    model = outline(replace(EVERY[name], channels=channels)).eval()
    assert model(nothing(33, 41, channels=channels)).shape == outline(EVERY[name]).eval()(nothing(33, 41)).shape


@pytest.mark.parametrize("channels", [1, 4])
def test_networks_for_other_channels_train_and_score(channels: int) -> None:
    torch.manual_seed(0)
    model = create(replace(EVERY["resnet18-plain"], channels=channels), CLASSES)
    batch = images(4, 33, 41, channels)
    model.calibrate(batch)
    labels = torch.arange(4).view(4, 1, 1).expand(4, 33, 41).to(torch.uint8)
    optimizer = build_optimizer(model.train(), SolverConfig(learning_rate=1e-2))
    losses = [float(train_step(model, optimizer, [(batch, labels)])) for _ in range(5)]
    assert losses[-1] < 0.8 * losses[0]
    # What it learned is in the channels: the last alone tells images from each other, too.
    with torch.no_grad():
        scores, _ = score_images(model.eval(), batch, ScoringConfig((1.0, 1.5), test_mirror=True))
        other = batch.clone()
        other[..., -1] = 0
        assert not torch.allclose(model(other), model(batch), atol=1e-3)
    assert scores.shape == (4, CLASSES, 5, 6)
    assert torch.isfinite(scores).all()


# DeepLab v2 and FCN


@pytest.mark.parametrize("name", ["vgg16-largefov", "vgg16-k4r8-msc", "resnet18-aspp-l", "fcn8s"])
def test_every_size_from_1_to_80_comes_back_at_its_size(name: str) -> None:
    model = outline(EVERY[name]).eval()
    for height in range(1, 81):
        width = 81 - height
        scores = model(nothing(height, width, 1))
        if isinstance(model.grid, CornerGrid):
            assert scores.shape[-2:] == (model.grid.cells(height), model.grid.cells(width))
        assert model.grid.to_image(scores, height, width).shape == (1, 21, height, width)


@pytest.mark.parametrize(
    ("name", "count"),
    [  # DESIGN.md, "Recipe", counted there independently
        ("vgg16-k7r4", 134_346_581),
        ("vgg16-k4r4", 65_140_565),
        ("vgg16-k4r8", 65_140_565),
        ("vgg16-largefov", 20_505_429),
        ("vgg16-aspp-l", 37_877_652),
        ("vgg16-aspp-s", 37_877_652),
        ("resnet101-aspp-l", 43_943_188),
        ("fcn32s", 134_346_581),
        ("fcn16s", 134_346_581 + 21 * 513),
        ("fcn8s", 134_346_581 + 21 * 513 + 21 * 257),
    ],
)
def test_number_of_parameters(name: str, count: int) -> None:
    assert sum(parameter.numel() for parameter in outline(EVERY[name]).parameters()) == count


def test_number_of_parameters_with_the_frozen_scales_and_shifts() -> None:
    model = outline(EVERY["resnet101-aspp-l"])
    frozen = [m.weight.numel() + m.bias.numel() for m in model.modules() if isinstance(m, FrozenBatchNorm2d)]
    assert sum(frozen) + sum(parameter.numel() for parameter in model.parameters()) == 44_048_532


@pytest.mark.parametrize("name", OF_PRESETS)
def test_every_preset_has_its_network(name: str) -> None:
    """By the shapes of what the losses are computed on, for an image of 17 × 25."""
    config = EVERY[name]
    shapes = [tuple(scores.shape) for scores in outline(config).train()(nothing(17, 25, 1))]
    dense, fcn = [(1, 21, 3, 4)], [(1, 21, 17, 25)]
    msc = isinstance(config, DeepLabV2Config) and config.msc
    assert shapes == (fcn if isinstance(config, FCNConfig) else 3 * dense + [(1, 21, 2, 2)] if msc else dense)


@pytest.mark.parametrize("name", ["vgg16-largefov", "resnet18-aspp-l"])
@torch.no_grad()
def test_mirrored_kernels_see_a_mirrored_image_as_kernels_see_the_image(name: str) -> None:
    """Padding treats left and right alike on sizes of the grid (off it, the grid itself starts at the left)."""
    model = copy.deepcopy(network(name)).eval()
    x = model.prepare(images(1, 33, 57))
    expected = model.score(x).flip(3)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.copy_(module.weight.flip(3))
    torch.testing.assert_close(model.score(x.flip(3)), expected, rtol=1e-3, atol=1e-3 * float(expected.std()))


@torch.no_grad()
@pytest.mark.parametrize("dropout", [0.5, 0.0])
def test_dropout_acts_in_training_only_and_can_be_left_out(dropout: float) -> None:
    model = create(DeepLabV2Config("vgg16", "largefov", weights="random", dropout=dropout), CLASSES)
    x = images(1, 33, 41)
    assert torch.equal(model.train()(x)[0], model(x)[0]) == (dropout == 0)
    assert torch.equal(model.eval()(x), model(x))


def test_dropout_is_the_papers_unless_told() -> None:
    assert deeplab_v2.resolve(DeepLabV2Config("vgg16", "largefov")).dropout == 0.5
    assert deeplab_v2.resolve(DeepLabV2Config("vgg16", "largefov", dropout=0)).dropout == 0


@torch.no_grad()
def test_padding_is_the_mean_colour() -> None:
    """An image with a size off the grid scores as the same image padded with the mean (caffe's, rounded)."""
    model = copy.deepcopy(network("resnet18-aspp-l")).eval()
    model.mean.copy_(torch.tensor([123.0, 117.0, 104.0]))
    small = images(1, 30, 38)
    padded = torch.tensor([123, 117, 104], dtype=torch.uint8).repeat(1, 33, 41, 1)
    padded[:, :30, :38] = small
    torch.testing.assert_close(model(small), model(padded), rtol=1e-5, atol=1e-6)


# The registry


def test_options_without_a_network_or_without_a_name_are_a_programmers_mistake() -> None:
    class Nameless(NetworkConfig): ...

    with pytest.raises(ValueError, match="Nameless has no network: decorate its class with"):
        create(Nameless(), 2)
    with pytest.raises(ValueError, match="Nameless has no name"):
        register(Nameless)(Network)
