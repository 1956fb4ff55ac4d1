"""Weights from our own checkpoints, for the same network or another one."""

import hashlib
from dataclasses import fields, replace

import torch

from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.errors import UserError
from deeplab_ray.models import checkpoint
from deeplab_ray.models.network import Network
from deeplab_ray.models.networks import create
from deeplab_ray.models.weights.mapping import CONVENTION, Line, Source, Wish, fill
from deeplab_ray.runs import read_meta
from deeplab_ray.storage.location import Location


def from_checkpoint(
    config: NetworkConfig, classes: int, names: tuple[str, ...] | None, place: Location
) -> tuple[Network, list[Line]]:
    """Make a network with the weights of the checkpoint at `place`; return it, and what became of every tensor.

    If the classes (`names`; None: their number) or the head differ, classifiers are not taken. Where the options say
    "auto", the checkpoint's conventions are taken, if its trunk was made from the same image classifier. Raises
    UserError if the rest does not fit.
    """
    meta = read_meta(place)
    with torch.device("meta"):
        theirs = create(meta.recipe.network, len(meta.classes))
    if theirs.config.channels != config.channels:
        raise UserError(
            f"{place} is for images of {theirs.config.channels} channels, this network for {config.channels}: "
            f"take --channels {theirs.config.channels}"
        )
    alike = getattr(config, "classifier", None) == getattr(theirs.config, "classifier", None)
    adopted = {
        field.name: getattr(theirs.config, field.name)
        for field in fields(config)
        if alike and getattr(config, field.name) == "auto" and hasattr(theirs.config, field.name)
    }
    network = create(replace(config, **adopted), classes)
    state = checkpoint.read_tensors(place)
    same = len(meta.classes) == classes if names is None else meta.classes.names == names
    serves = config.shares_classifier(theirs.config)
    classifiers = network.classifier_tensors()
    left: dict[str, str] = {}
    if not same:
        count = f"{len(meta.classes)} {'other ' if len(meta.classes) == classes else ''}classes"
        left = dict.fromkeys(classifiers, f"the checkpoint's is for {count}")
    elif not serves:
        left = dict.fromkeys(classifiers, "the checkpoint's is of another head")
    # A finer FCN has score layers that the coarser one lacks.
    left |= {name: "the checkpoint has none" for name in classifiers if name not in theirs.state_dict()}
    wishes = {name: Wish((name,)) for name in network.state_dict() if name not in left}
    unused = {name: "not used: a classifier" for name in theirs.classifier_tensors() if name not in wishes}
    if getattr(config, "input", "auto") != "auto":
        unused |= {name: "not used: --input says otherwise" for name in CONVENTION if wishes.pop(name, None)}
    return network, fill(network, Source(str(place), state, wishes, left, unused))


def digest(place: Location) -> str:
    """Return the sha256 of the checkpoint's model.pt."""
    return hashlib.sha256((place / checkpoint.MODEL).read_bytes()).hexdigest()
