"""How tensors of a file become those of a network: a table of wishes, filled, checked and reported."""

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
    """Where one of our tensors comes from."""

    names: tuple[str, ...]
    """Its name in the file; several where projects changed it, the first that is there counts."""
    convert: Callable[[Tensor], Tensor] | None = None
    how: str = ""
    """What `convert` does, in words."""


@dataclass(frozen=True)
class Line:
    """What became of one tensor, ours or the file's."""

    tensor: str
    """Our name; empty for a tensor of the file that has no use here."""
    source: str
    """The file's name; empty for a tensor that keeps its initialisation."""
    how: str


@dataclass(frozen=True)
class Source:
    """The tensors of a file, and what is to become of them."""

    where: str
    """The file, for messages."""
    tensors: Mapping[str, Tensor]
    wishes: Mapping[str, Wish]
    """By our names."""
    left: Mapping[str, str] = field(default_factory=dict)
    """Our tensors that keep their initialisation, with the reason."""
    unused: Mapping[str, str] = field(default_factory=dict)
    """The file's tensors that have no use here, with the reason."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """The file's own names of tensors that were renamed on reading."""
    hint: str = "give weights that fit this --backbone and --head"


# Set by the options, unless the file has them.
CONVENTION = ("mean", "scale")
COUNTER = "num_batches_tracked"
"""How many batches a batch norm has seen, which nothing here uses; it starts anew if a file lacks it."""


@torch.no_grad()
def fill(model: nn.Module, source: Source) -> list[Line]:
    """Put the source's tensors into the model; returns what became of every tensor.

    The convention of the input and the counters of batch norms are taken where the file has them, and no file needs
    them. Raises UserError for a tensor that is missing, has another shape, is not finite, or has no place.
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
            raise UserError(f"{source.where}: {told} is {tuple(value.shape)}, which is no {wish.how}") from None
        if converted.shape != target.shape:
            raise UserError(
                f"{source.where}: {told} is {tuple(converted.shape)}, this network needs {tuple(target.shape)}"
            )
        if not target.is_meta:
            if not torch.isfinite(converted).all():
                raise UserError(f"{source.where}: {told} holds numbers that are not finite: the file is broken")
            target.copy_(converted)
        report.append(Line(ours, told, wish.how or "taken"))
    report += [Line(ours, "", f"left at initialisation: {reason}") for ours, reason in source.left.items()]
    report += [Line("", source.labels.get(name, name), reason) for name, reason in source.unused.items()]
    return report


def format_report(report: list[Line]) -> str:
    """A line a tensor: ours, the file's, what was done."""
    ours = max((len(line.tensor) for line in report), default=0)
    theirs = max((len(line.source) for line in report), default=0)
    return "\n".join(f"{line.tensor:<{ours}}  {line.source:<{theirs}}  {line.how}".rstrip() for line in report)
