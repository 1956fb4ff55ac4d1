"""What a network is said to be made of, against counts by hand."""

import itertools

import pytest
import torch

from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.models.configs import DeepLabV2Config, FCNConfig
from deeplab_ray.models.describe import NetworkSize, measure_network
from deeplab_ray.models.networks import create


def figures(config: NetworkConfig, size: int = 321) -> NetworkSize:
    return measure_network(config, 21, size, size)


def vgg16(head: str) -> DeepLabV2Config:
    return DeepLabV2Config("vgg16", head, weights="random")


@pytest.mark.parametrize(
    ("config", "view", "parameters", "side"),
    [
        (vgg16("k7r4"), 224, 134_346_581, 41),
        (vgg16("k4r4"), 128, 65_140_565, 41),
        (vgg16("k4r8"), 224, 65_140_565, 41),
        (vgg16("largefov"), 224, 20_505_429, 41),
        (FCNConfig("8s", weights="random"), 224, 134_362_751, 321),
    ],
)
def test_fields_of_view_are_the_papers(config: NetworkConfig, view: int, parameters: int, side: int) -> None:
    found = figures(config)
    assert (found.field_of_view, found.parameters) == (view, parameters)
    assert found.output_size == (side, side)


def test_resnet101_msc() -> None:
    plain, msc = (figures(DeepLabV2Config("resnet101", "aspp-l", weights="random", msc=msc)) for msc in (False, True))
    for found in (plain, msc):
        assert (found.parameters, found.trainable_parameters) == (44_048_532, 43_943_188)
        assert found.output_size == (41, 41)
        assert found.field_of_view == 48 * 8 + 32
    # The three inputs have 321², 241² and 161² pixels.
    assert msc.multiply_adds / plain.multiply_adds == pytest.approx(1 + (241 / 321) ** 2 + (161 / 321) ** 2, rel=0.02)


def test_multiply_adds_of_vgg16_by_hand() -> None:
    sides = [321, 161, 81, 41, 41]
    channels = [(3, 64, 64), (64, 128, 128), (128, 256, 256, 256), (256, 512, 512, 512), (512, 512, 512, 512)]
    trunk = sum(
        side**2 * 9 * a * b for side, block in zip(sides, channels, strict=True) for a, b in itertools.pairwise(block)
    )
    head = 41**2 * (9 * 512 * 1024 + 1024 * 1024 + 1024 * 21)
    assert figures(vgg16("largefov")).multiply_adds == trunk + head


def test_activation_memory_is_what_autograd_keeps() -> None:
    """Against the distinct tensors that are kept in a real pass of a small network."""
    config = DeepLabV2Config("resnet18", "plain", weights="random")
    model = create(config, 21).train()
    own = {t.data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.zeros(1, 65, 65, 3, dtype=torch.uint8))
    real = sum(t.untyped_storage().nbytes() for pointer, t in kept.items() if pointer not in own)
    assert figures(config, 65).activation_bytes == pytest.approx(real, rel=0.05)


def test_norms_that_train_are_parameters_as_frozen_ones_were() -> None:
    frozen, trained = (
        figures(DeepLabV2Config("resnet18", "plain", weights="random", batch_norm=kind), 65)
        for kind in ("frozen", "trained")
    )
    assert trained.parameters == frozen.parameters == trained.trainable_parameters
    assert frozen.trainable_parameters == frozen.parameters - 2 * 4800  # channels of ResNet-18's 20 norms


def test_the_first_convolution_grows_with_the_channels() -> None:
    few, many = (
        figures(DeepLabV2Config("resnet18", "plain", weights="random", channels=channels), 65) for channels in (3, 4)
    )
    assert many.parameters - few.parameters == 64 * 7 * 7
    assert many.multiply_adds - few.multiply_adds == 33 * 33 * 64 * 7 * 7
