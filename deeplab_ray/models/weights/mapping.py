"""How tensors of a file become those of a network: a table of wishes, which is filled, checked and reported."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from deeplab_ray.errors import UserError


@dataclass(frozen=True)
class StateDict:
    """Tensors by name, as a .pth file or a download holds them."""

    where: str
    """The file, for messages."""
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class Wish:
    """Where one of the network's tensors comes from."""

    names: tuple[str, ...]
    """Its name in the file; several if the name has changed over time, of which the first one found is taken."""
    convert: Callable[[Tensor], Tensor] | None = None
    how: str = ""
    """What `convert` does, in words."""


@dataclass(frozen=True)
class Line:
    """What became of one tensor of the network or of the file."""

    tensor: str
    """Name in the network; empty for a tensor of the file that is not used."""
    source: str
    """Name in the file; empty for a tensor that keeps its initialisation."""
    how: str
    """What was done, in words."""


@dataclass(frozen=True)
class Source:
    """The tensors of a file, and what is to be done with them."""

    where: str
    """The file, for messages."""
    tensors: Mapping[str, Tensor]
    wishes: Mapping[str, Wish]
    """Wishes by the names of the network's tensors."""
    left: Mapping[str, str] = field(default_factory=dict)
    """The network's tensors that keep their initialisation, each with the reason."""
    unused: Mapping[str, str] = field(default_factory=dict)
    """The file's tensors that are not used, each with the reason."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """The file's own names of tensors that were renamed when the file was read."""
    hint: str = "give weights that fit this --backbone and --head"


# Tensors that the options set, unless the file has them.
CONVENTION = ("mean", "scale")
COUNTER = "num_batches_tracked"
"""Batch norm's counter of batches, which nothing here uses; it starts at zero if a file lacks it."""


@torch.no_grad()
def fill(model: nn.Module, source: Source) -> list[Line]:
    """Copy the source's tensors into the model; return what became of every tensor.

    The convention of the input and the counters of batch norms are taken if the file has them, and no file needs
    them. Raises UserError if a tensor is missing, unexpected, of another shape, or not finite.
    """
    own = model.state_dict()
    found = {
        ours: next((name for name in wish.names if name in source.tensors), None)
        for ours, wish in source.wishes.items()
    }
    needed = {name for name in own if name not in CONVENTION and not name.endswith(COUNTER)}
    unclaimed = sorted(needed - set(source.wishes) - set(source.left))
    missing = [source.wishes[ours].names[0] for ours, name in found.items() if name is None and ours in needed]
    missing += unclaimed
    used = set(found.values()) | set(source.unused)
    unexpected = sorted(name for name in source.tensors if name not in used and not name.endswith(COUNTER))
    if missing or unexpected:
        label = source.labels.get
        problem = (
            f"lacks {label(missing[0], missing[0])}"
            if missing
            else f"holds {label(unexpected[0], unexpected[0])}, which this network lacks"
        )
        raise UserError(
            f"{source.where} does not fit the network: it {problem} ({len(missing)} missing, {len(unexpected)} "
            f"unexpected tensors): {source.hint}"
        )
    report = []
    for ours, wish in source.wishes.items():
        name = found[ours]
        if name is None:
            continue
        told = source.labels.get(name, name)
        value, target = source.tensors[name], own[ours]
        try:
            converted = wish.convert(value) if wish.convert else value
        except (RuntimeError, IndexError):
            raise UserError(
                f"{source.where}: {told} is {tuple(value.shape)} and cannot be converted ({wish.how}): {source.hint}"
            ) from None
        if converted.shape != target.shape:
            shapes = f"{tuple(converted.shape)}, this network needs {tuple(target.shape)}"
            raise UserError(f"{source.where}: {told} is {shapes}: {source.hint}")
        if not target.is_meta:
            if not torch.isfinite(converted).all():
                raise UserError(f"{source.where}: {told} holds numbers that are not finite: the file is broken")
            target.copy_(converted)
        report.append(Line(ours, told, wish.how or "taken"))
    report += [Line(ours, "", f"left at initialisation: {reason}") for ours, reason in source.left.items()]
    report += [Line("", source.labels.get(name, name), reason) for name, reason in source.unused.items()]
    return report


def format_report(report: list[Line]) -> str:
    """Format the report, a line per tensor: the network's name, the file's, what was done."""
    ours = max((len(line.tensor) for line in report), default=0)
    theirs = max((len(line.source) for line in report), default=0)
    return "\n".join(f"{line.tensor:<{ours}}  {line.source:<{theirs}}  {line.how}".rstrip() for line in report)
