"""Weights of the published Caffe nets (DeepLab's two, and ImageNet's VGG-16), checked layer by layer against ours."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from deeplab_ray.errors import UserError
from deeplab_ray.models.configs import DeepLabV2Config
from deeplab_ray.models.network import Network
from deeplab_ray.models.norm import FrozenBatchNorm2d
from deeplab_ray.models.weights import resnet as resnet_weights
from deeplab_ray.models.weights import vgg as vgg_weights
from deeplab_ray.models.weights.caffe_format import CaffeNet, Layer, Sliding
from deeplab_ray.models.weights.mapping import Source, Wish

# MSC's copies of a layer at ×0.5 and ×0.75 share the weights of the layer without this part of the name.
_COPY = re.compile(r"_res0(?:5|75)(?=_|$)")
# fc8_voc12_2 → fc8_2, fc1_cocostuff_c0 → fc1_c0: in the middle is the dataset's name.
_CLASSIFIER = re.compile(r"^(fc8|fc1)_.+?(_\d|_c\d)?$")
_IMAGENET_CLASSES = 1000
_DENSE = Sliding((3, 3), (1, 1), (1, 1))
_HALVING = Sliding((2, 2), (2, 2), (0, 0))


def vgg_source(net: CaffeNet, model: Network) -> Source:
    """Map a .caffemodel, DeepLab v2's or ImageNet's, to a network on VGG-16.

    Raises UserError if a stride, pad or dilation in the file differs from the network's, or one of MSC's copies of a
    layer from that layer.
    """
    layers = _shared(net.layers, net.where)
    tensors, labels = _named(layers, net.where)
    classifier = tensors.get("fc8.weight")
    if classifier is not None and classifier.shape[0] == _IMAGENET_CLASSES:
        return _imagenet(layers, tensors, net.where, model)
    modules = vgg_weights.caffe_modules(len(model.classifiers()))
    _check_all(layers, _expected(model, modules), net.where)
    return with_classifier(Source(net.where, tensors, _vgg_wishes(modules), labels=labels), model)


def resnet_source(net: CaffeNet, model: Network) -> Source:
    """Map a .caffemodel to DeepLab v2 on ResNet-101.

    Raises UserError if the network is on another ResNet, a stride, pad, dilation or epsilon in the file differs from
    the network's, or one of MSC's copies of a layer from that layer.
    """
    assert isinstance(model.config, DeepLabV2Config)
    if model.config.backbone != "resnet101":
        raise UserError(f"{net.where}: there is no Caffe net of {model.config.backbone}: take --backbone resnet101")
    layers = _shared(net.layers, net.where)
    tensors, labels = _named(layers, net.where)
    branches = len(model.classifiers())
    _check_all(layers, _expected(model, resnet_weights.caffe_modules(branches)), net.where)
    return with_classifier(Source(net.where, tensors, resnet_weights.caffe_wishes(branches), labels=labels), model)


def _named(layers: Mapping[str, Layer], where: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the layers' tensors by name, and for each the file's own name."""
    tensors: dict[str, Tensor] = {}
    labels: dict[str, str] = {}
    for layer in layers.values():
        for kind, value in _tensors(layer, where).items():
            name = f"{_canonical(layer.name)}.{kind}"
            tensors[name], labels[name] = value, f"{layer.name}.{kind}"
    return tensors, labels


def _expected(model: nn.Module, modules: Mapping[str, str]) -> dict[str, tuple[Sliding | None, float | None]]:
    return {layer: _window_and_epsilon(model, module) for layer, module in modules.items()}


def with_classifier(source: Source, model: Network) -> Source:
    """Return the source, without its classifier if that is for another number of classes than the network.

    Raises UserError if its classifiers differ in the number of classes.
    """
    ours = [name for name in model.classifier_tensors() if name in source.wishes]
    theirs = [name for ours_ in ours for name in source.wishes[ours_].names if name in source.tensors]
    counts = {int(source.tensors[name].shape[0]) for name in theirs}
    if counts == {model.classes}:
        return source
    if len(counts) > 1:
        raise UserError(f"{source.where}: its classifiers have {sorted(counts)} classes: the file is broken")
    wishes = {name: wish for name, wish in source.wishes.items() if name not in ours}
    reason = f"the file's classifier has {min(counts)} classes" if counts else "the file has no classifier"
    unused = dict.fromkeys(theirs, f"not used: {reason}, the network {model.classes}")
    return Source(source.where, source.tensors, wishes, dict.fromkeys(ours, reason), unused, source.labels, source.hint)


def _shared(layers: list[Layer], where: str) -> dict[str, Layer]:
    """Return the layers by name, without MSC's copies. Raises UserError if a copy differs from its original."""
    result = {layer.name: layer for layer in layers if not _COPY.search(layer.name)}
    for layer in layers:
        original = result.get(_COPY.sub("", layer.name))
        if original is layer or not (layer.blobs or layer.window):
            continue
        if original is None:
            raise UserError(f"{where}: {layer.name} is a copy of a layer that is not there: the file is broken")
        same = len(original.blobs) == len(layer.blobs) and all(map(torch.equal, original.blobs, layer.blobs))
        if not same or (original.window, original.epsilon) != (layer.window, layer.epsilon):
            raise UserError(f"{where}: {layer.name} differs from {original.name}, whose weights it should share")
    return result


def _canonical(name: str) -> str:
    return _CLASSIFIER.sub(lambda match: match[1] + (match[2] or ""), name)


def _tensors(layer: Layer, where: str) -> Mapping[str, Tensor]:
    blobs = layer.blobs
    if layer.type == "BatchNorm":
        if len(blobs) != 3:
            raise UserError(f"{where}: {layer.name} has {len(blobs)} arrays, a batch norm has 3: the file is broken")
        # Caffe accumulates means and variances; the third array holds the sum of their weights.
        weight = float(blobs[2].flatten()[0])
        factor = 1 / weight if weight else 0.0
        return {"mean": blobs[0].flatten() * factor, "variance": blobs[1].flatten() * factor}
    if layer.type in ("Convolution", "InnerProduct", "Scale"):
        values = dict(zip(("weight", "bias"), blobs, strict=False))
        if "bias" in values:
            values["bias"] = values["bias"].flatten()
        if layer.type == "Scale" and "weight" in values:
            values["weight"] = values["weight"].flatten()
        if layer.type == "InnerProduct" and "weight" in values:
            # In old files weights have four axes, of which the last two matter.
            values["weight"] = values["weight"].reshape(values["weight"].shape[-2:])
        return values
    return {str(index): blob for index, blob in enumerate(blobs)}


def _vgg_wishes(modules: dict[str, str]) -> dict[str, Wish]:
    names: dict[str, list[str]] = {}
    for layer, module in modules.items():
        if not layer.startswith("pool"):
            names.setdefault(module, []).append(layer)
    wishes = {}
    for module, layers in names.items():
        first = layers[0] == "conv1_1"
        wishes[f"{module}.weight"] = Wish(
            tuple(f"{layer}.weight" for layer in layers),
            resnet_weights.swap_colours if first else None,
            resnet_weights.BGR if first else "",
        )
        wishes[f"{module}.bias"] = Wish(tuple(f"{layer}.bias" for layer in layers))
    return wishes


def _imagenet(layers: dict[str, Layer], tensors: dict[str, Tensor], where: str, model: Network) -> Source:
    """Map ImageNet's VGG-16: check its geometry, then proceed as for torchvision's file."""
    expected: dict[str, tuple[Sliding | None, float | None]] = {
        layer: (_HALVING if layer.startswith("pool") else _DENSE, None) for layer in vgg_weights.CAFFE_LAYERS
    }
    _check_all(layers, expected, where)
    renamed = {**vgg_weights.CAFFE_LAYERS, "fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"}
    state, labels, unused = {}, {}, {}
    for name, value in tensors.items():
        layer, _, kind = name.rpartition(".")
        theirs = f"{renamed.get(layer, layer)}.{kind}"
        state[theirs], labels[theirs] = value, name
        if layer == "fc8":
            unused[theirs] = "not used: ImageNet's classifier"
    wishes = vgg_weights.imagenet_wishes(model, with_fc=True)
    first = "trunk.features.0.weight"
    wishes[first] = Wish(wishes[first].names, resnet_weights.swap_colours, resnet_weights.BGR)
    left = dict.fromkeys(model.classifier_tensors(), "the file's is ImageNet's")
    return Source(where, state, wishes, left, unused, labels)


def _window_and_epsilon(model: nn.Module, name: str) -> tuple[Sliding | None, float | None]:
    def pair(value: int | tuple[int, ...]) -> tuple[int, int]:
        return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))

    module = model.get_submodule(name)
    if isinstance(module, (nn.Conv2d, nn.MaxPool2d)):
        assert not isinstance(module.padding, str)
        sizes = (module.kernel_size, module.stride, module.padding, module.dilation)
        return Sliding(*(pair(size) for size in sizes)), None
    assert isinstance(module, (FrozenBatchNorm2d, nn.BatchNorm2d))
    return None, float(module.eps)


def _check_all(layers: dict[str, Layer], expected: dict[str, tuple[Sliding | None, float | None]], where: str) -> None:
    for layer in layers.values():
        name = _canonical(layer.name)
        if name not in expected:
            if layer.type == "Pooling":
                raise UserError(f"{where}: {layer.name} pools where this network does not: the file is of another net")
            continue
        window, epsilon = expected[name]
        if window and layer.window:
            for what in ("kernel", "stride", "pad", "dilation"):
                theirs, ours = getattr(layer.window, what), getattr(window, what)
                if theirs != ours:
                    raise UserError(
                        f"{where}: {layer.name} has {what} {_text(theirs)}, this network has {_text(ours)}: take the "
                        "preset that the file was trained with"
                    )
        if epsilon is not None and layer.epsilon is not None and abs(layer.epsilon - epsilon) > 1e-9:
            raise UserError(f"{where}: {layer.name} has epsilon {layer.epsilon:g}, this network {epsilon:g}")


def _text(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}×{pair[1]}"
