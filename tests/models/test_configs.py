"""Options of networks: those that a network has no use for are refused, and so is nonsense."""

from collections.abc import Callable

import pytest

from deeplab_ray import cli
from deeplab_ray.config.io import as_dict, from_dict, from_json
from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.config.recipe import Recipe
from deeplab_ray.errors import UserError
from deeplab_ray.models.configs import HEADS, DeepLabV2Config, FCNConfig
from deeplab_ray.models.networks import network_class
from deeplab_ray.models.networks.deeplab_v2 import DeepLabV2
from deeplab_ray.models.networks.fcn import FCN

NONSENSE: list[tuple[Callable[[], NetworkConfig], str]] = [
    (lambda: DeepLabV2Config("vgg19"), "backbone 'vgg19' is not of type .*vgg16"),
    (lambda: DeepLabV2Config("resnet101", "k7r4"), "resnet101 takes no head k7r4: choose from plain, largefov"),
    (lambda: DeepLabV2Config("vgg16", "plain"), "vgg16 takes no head plain: choose from largefov"),
    (lambda: DeepLabV2Config("vgg16", "largefov", dropout=1.0), r"dropout 1\.0 must lie in \[0, 1\)"),
    (lambda: DeepLabV2Config("vgg16", "largefov", strides="caffe"), "vgg16 has no residual blocks"),
    (lambda: DeepLabV2Config("vgg16", "largefov", batch_norm="trained"), "vgg16 has no batch norms"),
    (lambda: DeepLabV2Config("resnet18", "plain", dropout=0.5), "resnet18 has no dropout: leave out --dropout"),
    (lambda: DeepLabV2Config("resnet101", dropout=0.0), "resnet101 has no dropout"),
    (lambda: DeepLabV2Config(batch_norm="group"), "batch_norm 'group' is not of type .*frozen.*synchronised"),
    (lambda: DeepLabV2Config(channels=0), "channels 0 must be at least 1"),
    (lambda: FCNConfig("4s"), "variant '4s' is not of type .*32s"),
    (lambda: FCNConfig(dropout=-0.1), r"dropout -0\.1 must lie in \[0, 1\)"),
]


@pytest.mark.parametrize(("make", "sentence"), NONSENSE, ids=[sentence[:30] for _, sentence in NONSENSE])
def test_nonsense_is_refused_in_one_line(make: Callable[[], NetworkConfig], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as refusal:
        make()
    assert "\n" not in str(refusal.value)


def test_weights_channels_and_input_are_told_by_name_only() -> None:
    for kind, options in ((DeepLabV2Config, ("vgg16", "largefov")), (FCNConfig, ("8s",))):
        assert kind(*options, weights="random", channels=4, input="caffe").channels == 4
        assert kind(*options).weights == "torchvision"


@pytest.mark.parametrize("option", ["msc", "backbone", "head", "strides", "alignment", "batch_norm"])
def test_what_is_deeplabs_is_refused_of_fcn(option: str) -> None:
    value = as_dict(DeepLabV2Config())[option]
    fields = {"name": "fcn", option: value}
    with pytest.raises(UserError, match=rf"^here\.network: unknown field '{option}'; FCNConfig has .*variant"):
        from_dict({"network": fields}, Recipe, "here")


def test_a_network_that_nobody_knows_is_refused_with_those_that_are() -> None:
    for text in ('{"network": {"name": "unet"}}', '{"network": {}}', '{"network": {"name": 3}}'):
        with pytest.raises(UserError, match=r"^here\.network: unknown network .*: choose from .*deeplab_v2, fcn"):
            from_json(text, Recipe, "here")


def parsed(default: NetworkConfig, *flags: str) -> NetworkConfig:
    return cli.parse(Recipe, prog="train.py", description="", argv=flags, default=Recipe(default)).network


def test_options_are_flags_of_the_network_that_a_recipe_has() -> None:
    fcn = parsed(FCNConfig("32s"), "--variant", "16s", "--dropout", "0", "--weights", "random")
    assert fcn == FCNConfig("16s", dropout=0.0, weights="random")
    deeplab = parsed(DeepLabV2Config("vgg16", "largefov"), "--msc", "--head", "aspp-s", "--dropout", "0.25")
    assert deeplab == DeepLabV2Config("vgg16", "aspp-s", msc=True, dropout=0.25)
    norm = parsed(DeepLabV2Config("resnet18", msc=True), "--no-msc", "--batch-norm", "synchronised", "--channels", "4")
    assert norm == DeepLabV2Config("resnet18", batch_norm="synchronised", channels=4)


@pytest.mark.parametrize(
    ("default", "flags", "sentence"),
    [
        (FCNConfig(), ["--msc"], "unrecognized options: --msc"),
        (FCNConfig(), ["--backbone", "resnet18"], "unrecognized options: --backbone"),
        (FCNConfig(), ["--batch-norm", "trained"], "unrecognized options: --batch-norm"),
        (DeepLabV2Config(), ["--variant", "8s"], "unrecognized options: --variant"),
        (DeepLabV2Config("vgg16", "largefov"), ["--batch-norm", "trained"], "vgg16 has no batch norms"),
        (DeepLabV2Config("resnet101"), ["--dropout", "0.5"], "resnet101 has no dropout"),
    ],
)
def test_flags_that_a_network_has_no_use_for_are_refused(
    default: NetworkConfig, flags: list[str], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        parsed(default, *flags)


def test_names_lead_to_options_and_options_to_networks() -> None:
    assert NetworkConfig.kinds()["deeplab_v2"] is DeepLabV2Config
    assert NetworkConfig.kinds()["fcn"] is FCNConfig
    assert network_class(DeepLabV2Config()) is DeepLabV2
    assert network_class(FCNConfig()) is FCN


def test_a_classifier_serves_the_same_head_and_any_fcn() -> None:
    largefov = DeepLabV2Config("resnet18", "largefov")
    assert largefov.shares_classifier(DeepLabV2Config("resnet18", "largefov", msc=True))
    assert not largefov.shares_classifier(DeepLabV2Config("resnet18", "aspp-l"))
    assert FCNConfig("16s").shares_classifier(FCNConfig("32s"))
    assert not FCNConfig("16s").shares_classifier(largefov)
    assert not largefov.shares_classifier(FCNConfig("16s"))


def test_every_backbone_has_heads() -> None:
    for backbone, heads in HEADS.items():
        assert [DeepLabV2Config(backbone, head).head for head in heads] == list(heads)
