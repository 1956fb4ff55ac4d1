"""Where a network's weights come from: a download, a file of any kind that people have, a checkpoint, or chance."""

import urllib.error
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from deeplab_ray import datasets
from deeplab_ray.config.recipe import FCN_HEADS, ModelConfig
from deeplab_ray.errors import UserError
from deeplab_ray.models.networks.deeplab_v2 import DeepLab, resolve
from deeplab_ray.models.weights import caffe_nets
from deeplab_ray.models.weights import resnet as resnet_weights
from deeplab_ray.models.weights import vgg as vgg_weights
from deeplab_ray.models.weights.files import read_file, read_state_dict
from deeplab_ray.models.weights.mapping import CONVENTION, Line, Source, Wish, classifier_names, fill
from deeplab_ray.storage.location import Location, locate

_HINT = "give a state dict with torchvision's names for this --backbone"
# What a preset starts from that nobody can download for it.
_STAGES = {
    "coco": "a network trained on COCO: a checkpoint, or what jobs/import_weights.py made of its file",
    "fcn32s": "a trained FCN-32s, such as preset voc11-fcn32s gives",
    "fcn16s": "a trained FCN-16s, such as preset voc11-fcn16s gives",
}


def build(config: ModelConfig, classes: int) -> DeepLab:
    """The network with its weights loaded; its `config` says what "auto" came to. See `load`."""
    return load(config, classes)[0]


def load(config: ModelConfig, classes: int) -> tuple[DeepLab, list[Line]]:
    """The network with its weights loaded, and what became of every tensor.

    Raises UserError when a download is not possible (naming the file to bring), when a file is of no known kind, or
    when a tensor is missing, has no place, or has another shape.
    """
    if config.weights in _STAGES:
        raise UserError(f"this preset starts from {_STAGES[config.weights]}: name it with --weights")
    if config.weights == "random":
        model = DeepLab(config, classes)
        return model, [Line(name, "", "left at initialisation: random weights") for name in model.state_dict()]
    if config.weights in ("torchvision", "torchvision-features"):
        return _from_state(config, classes, _download(config), f"{config.weights}'s weights")
    location = locate(config.weights)
    if config.weights.endswith(".caffemodel"):
        model = DeepLab(_given(config, input="caffe", strides="caffe"), classes)
        return model, fill(model, caffe_nets.source(read_file(location), config.weights, model))
    if not config.weights.endswith((".pth", ".pt")) and (checkpoint := _checkpoint(config.weights)):
        return _from_checkpoint(config, classes, checkpoint)
    file = read_state_dict(config.weights)
    model, report = _from_state(config, classes, file.tensors, config.weights)
    return model, file.complete(report)


def _given(config: ModelConfig, **found: str) -> ModelConfig:
    """The config with what was found out about its weights, where it says "auto"."""
    return replace(config, **{name: value for name, value in found.items() if getattr(config, name) == "auto"})  # type: ignore[arg-type]


def _download(config: ModelConfig) -> dict[str, Tensor]:
    # Late, because it takes as long as importing torch.
    from torchvision.models import get_model_weights

    entry = "IMAGENET1K_FEATURES" if config.weights == "torchvision-features" else "IMAGENET1K_V1"
    if entry not in (choices := get_model_weights(config.backbone)).__members__:
        raise UserError(f"torchvision has no {entry} of {config.backbone}: take --weights torchvision")
    published = choices[entry]
    try:
        return dict(published.get_state_dict(progress=False, check_hash=True))
    except (urllib.error.URLError, OSError, RuntimeError):
        file = published.url.rsplit("/", 1)[-1]
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        raise UserError(
            f"{file} cannot be downloaded here: bring it from {published.url} into {cache}, or give it with "
            "--weights FILE (a path or s3:// URI), or start from --weights random"
        ) from None


def _from_state(config: ModelConfig, classes: int, state: dict[str, Tensor], where: str) -> tuple[DeepLab, list[Line]]:
    """From a state dict: torchvision's, a trunk's alone, or deeplab-pytorch's."""
    state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    prefix = resnet_weights.pytorch_prefix(state)
    if prefix is not None:
        if config.backbone != "resnet101":
            raise UserError(f"{where} is a ResNet-101 of deeplab-pytorch: take a preset with that backbone")
        model = DeepLab(_given(config, input="caffe", strides="caffe", alignment="centres"), classes)
        branches = len(classifier_names(model.state_dict())) // 2
        wishes = resnet_weights.pytorch_wishes(prefix, branches)
        return model, fill(model, caffe_nets.with_classifier(Source(where, state, wishes), model))
    if config.backbone == "vgg16":
        return _from_vgg(config, classes, state, where)
    model = DeepLab(_given(config, input="torchvision", strides="torchvision"), classes)
    wishes = resnet_weights.torchvision_wishes(model)
    unused = {name: "not used: ImageNet's classifier" for name in state if name.startswith("fc.")}
    left = {name: "the file is an image classifier's" for name in model.state_dict() if name.startswith("head.")}
    return model, fill(model, Source(where, state, wishes, left, unused, hint=_HINT))


def _from_vgg(config: ModelConfig, classes: int, state: dict[str, Tensor], where: str) -> tuple[DeepLab, list[Line]]:
    """torchvision's two files have the whole classifier (all NaN in one of them); a trunk's alone is Caffe's."""
    fc = state.get("classifier.0.weight")
    usable = fc is not None and bool(torch.isfinite(fc.flatten()[:1]).all())
    seen = "caffe" if fc is None else "torchvision" if usable else "torchvision-features"
    model = DeepLab(_given(config, input=seen), classes)
    wishes = vgg_weights.imagenet_wishes(model, config.head, with_fc=usable)
    left = dict.fromkeys(classifier_names(model.state_dict()), "the file is an image classifier's")
    unused = {name: "not used: ImageNet's classifier" for name in state if name.startswith("classifier.6.")}
    if not usable:
        left = {name: "the file has no fc6 and fc7" for name in model.state_dict() if name.startswith("head.")}
        unused = {name: "not used: not a number" for name in state if name.startswith("classifier.")}
    return model, fill(model, Source(where, state, wishes, left, unused, hint=_HINT))


def _checkpoint(uri: str) -> Location | None:
    # Late: checkpoints know networks.
    from deeplab_ray.models import checkpoint

    try:
        return checkpoint.find(uri)
    except UserError:
        return None


def _from_checkpoint(config: ModelConfig, classes: int, place: Location) -> tuple[DeepLab, list[Line]]:
    """From a network of ours: for other classes or with another head, all but the classifier."""
    from deeplab_ray.models import checkpoint

    meta = checkpoint.read_meta(place)
    theirs = resolve(meta.config.model)
    state = checkpoint.read_tensors(place)
    found = {name: getattr(theirs, name) for name in ("input", "strides", "alignment")}
    if config.head in FCN_HEADS or theirs.head in FCN_HEADS:
        del found["alignment"]
    model = DeepLab(_given(config, **found), classes)
    own = model.state_dict()
    both_fcn = config.head in FCN_HEADS and theirs.head in FCN_HEADS
    left: dict[str, str] = {}
    same = _same_classes(meta.classes, theirs.dataset, config.dataset, classes)
    if theirs.head != config.head or not same:
        reason = f"the checkpoint's is for {len(meta.classes)} classes of {theirs.dataset} with head {theirs.head}"
        kept = {name for name in state if both_fcn and same}
        left = {name: reason for name in classifier_names(own) if name not in kept}
    wishes = {name: Wish((name,)) for name in own if name not in left}
    unused = {name: "not used: a classifier" for name in classifier_names(state) if name not in wishes}
    if config.input != "auto":
        unused |= {name: "not used: --input says otherwise" for name in CONVENTION if wishes.pop(name, None)}
    return model, fill(model, Source(str(place), state, wishes, left, unused))


def _same_classes(theirs: tuple[str, ...], their_dataset: str, dataset: str, count: int) -> bool:
    if their_dataset == dataset or dataset not in datasets.names():
        return len(theirs) == count
    return theirs == datasets.get(dataset).classes
