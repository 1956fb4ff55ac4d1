"""What a network is said to be made of, against counts by hand."""

import itertools

import pytest
import torch

from deeplab_ray.config.recipe import ModelConfig
from deeplab_ray.models import DeepLab
from deeplab_ray.models.describe import Description, describe


def figures(backbone: str, head: str, size: int = 321, **options: bool) -> Description:
    return describe(ModelConfig("voc12", backbone, head, "random", **options), 21, size, size)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("head", "view", "parameters"),
    [
        ("k7r4", 224, 134_346_581),
        ("k4r4", 128, 65_140_565),
        ("k4r8", 224, 65_140_565),
        ("largefov", 224, 20_505_429),
        ("fcn8s", 224, 134_362_751),
    ],
)
def test_fields_of_view_are_the_papers(head: str, view: int, parameters: int) -> None:
    found = figures("vgg16", head)
    assert (found.field_of_view, found.parameters) == (view, parameters)
    assert found.output_size == ((321, 321) if head == "fcn8s" else (41, 41))


def test_resnet101_msc() -> None:
    plain, msc = figures("resnet101", "aspp-l"), figures("resnet101", "aspp-l", msc=True)
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
    assert figures("vgg16", "largefov").multiply_adds == trunk + head


def test_activation_memory_is_what_autograd_keeps() -> None:
    """Against the distinct tensors that are kept in a real pass of a small network."""
    model = DeepLab(ModelConfig("voc12", "resnet18", "plain", "random"), 21).train()
    own = {t.data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.zeros(1, 65, 65, 3, dtype=torch.uint8))
    real = sum(t.untyped_storage().nbytes() for pointer, t in kept.items() if pointer not in own)
    assert figures("resnet18", "plain", 65).activation_bytes == pytest.approx(real, rel=0.05)
