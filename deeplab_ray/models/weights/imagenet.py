"""Other projects' files for DeepLab v2 and FCN: image classifiers of torchvision and Caffe, and other DeepLabs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch

from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.errors import UserError
from deeplab_ray.models.configs import DeepLabV2Config, FCNConfig
from deeplab_ray.models.weights import caffe_nets
from deeplab_ray.models.weights import resnet as resnet_files
from deeplab_ray.models.weights import vgg as vgg_files
from deeplab_ray.models.weights.caffe_format import CaffeNet
from deeplab_ray.models.weights.mapping import Line, Source, StateDict, fill

Loaded = tuple[Any, list[Line]]
_HINT = "give a state dict with torchvision's names for this network"
C = TypeVar("C", bound=NetworkConfig)


def deeplab_v2(config: DeepLabV2Config, classes: int, file: object, make: Callable[..., Any]) -> Loaded:
    """Make DeepLab v2 with the weights of a file; `make` is its class.

    The file may be a .caffemodel of the original nets or of ImageNet's VGG-16, or a state dict of torchvision, of a
    trunk alone, or of deeplab-pytorch. Raises UserError if it does not fit.
    """
    on_vgg = config.backbone == "vgg16"
    if isinstance(file, CaffeNet):
        network = make(given(config, input="caffe", **({} if on_vgg else {"strides": "caffe"})), classes)
        source = caffe_nets.vgg_source(file, network) if on_vgg else caffe_nets.resnet_source(file, network)
        return network, fill(network, source)
    assert isinstance(file, StateDict)
    prefix = resnet_files.pytorch_prefix(file.tensors)
    if prefix is not None:
        if config.backbone != "resnet101":
            raise UserError(f"{file.where} is a ResNet-101 of deeplab-pytorch: take a preset with resnet101")
        network = make(given(config, input="caffe", strides="caffe", alignment="centres"), classes)
        wishes = resnet_files.pytorch_wishes(prefix, len(network.head.last_layers))
        return network, fill(network, caffe_nets.with_classifier(Source(file.where, file.tensors, wishes), network))
    if on_vgg:
        return _from_vgg(config, classes, file, make)
    network = make(given(config, input="torchvision", strides="torchvision"), classes)
    wishes = resnet_files.torchvision_wishes(network)
    unused = {name: "not used: ImageNet's classifier" for name in file.tensors if name.startswith("fc.")}
    left = {name: "the file is an image classifier's" for name in network.state_dict() if name.startswith("head.")}
    return network, fill(network, Source(file.where, file.tensors, wishes, left, unused, hint=_HINT))


def fcn(config: FCNConfig, classes: int, file: object, make: Callable[..., Any]) -> Loaded:
    """Make FCN with the weights of ImageNet's VGG-16, from torchvision or Caffe; `make` is its class.

    Raises UserError if the file does not fit.
    """
    if isinstance(file, CaffeNet):
        network = make(given(config, input="caffe"), classes)
        return network, fill(network, caffe_nets.vgg_source(file, network))
    assert isinstance(file, StateDict)
    return _from_vgg(config, classes, file, make)


def _from_vgg(config: NetworkConfig, classes: int, file: StateDict, make: Callable[..., Any]) -> Loaded:
    """Make a network with the weights of a VGG-16.

    Both files of torchvision hold the whole classifier, one of them with NaN only; a file with the trunk alone is taken
    for Caffe's weights.
    """
    fc = file.tensors.get("classifier.0.weight")
    usable = fc is not None and bool(torch.isfinite(fc.flatten()[:1]).all())
    seen = "caffe" if fc is None else "torchvision" if usable else "torchvision-features"
    network = make(given(config, input=seen), classes)
    wishes = vgg_files.imagenet_wishes(network, with_fc=usable)
    left = dict.fromkeys(network.classifier_tensors(), "the file is an image classifier's")
    unused = {name: "not used: ImageNet's classifier" for name in file.tensors if name.startswith("classifier.6.")}
    if not usable:
        left = {name: "the file has no fc6 and fc7" for name in network.state_dict() if name.startswith("head.")}
        unused = {name: "not used: not a number" for name in file.tensors if name.startswith("classifier.")}
    return network, fill(network, Source(file.where, file.tensors, wishes, left, unused, hint=_HINT))


def given(config: C, **found: str) -> C:
    """Replace each "auto" in the options by what was found out about the weights."""
    adopted: dict[str, Any] = {name: value for name, value in found.items() if getattr(config, name) == "auto"}
    return replace(config, **adopted)
