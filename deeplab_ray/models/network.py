"""The protocol between networks and the rest of the project, and the registration of new ones.

A network is one file: a dataclass of its options (a `NetworkConfig` with a `name`) and a `Network`, which `register`
makes known to recipes. Whatever trains, validates, evaluates, predicts or exports uses this protocol alone.

Shapes: N images, C classes, H×W pixels, h×w cells of scores.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, TypeVar

import torch
from torch import Tensor, nn

from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.errors import UserError
from deeplab_ray.models.atrous import lay_out_by_taps
from deeplab_ray.models.grid import CornerGrid, Grid, normalise, pad_to
from deeplab_ray.models.norm import norms_that_train
from deeplab_ray.models.weights.mapping import Line, Source, StateDict, Wish, fill

# RGB mean and divisor, in 0..255 units, with which Caffe's and torchvision's ImageNet networks were trained.
INPUT = {
    "caffe": ((122.675, 116.669, 104.008), (1.0, 1.0, 1.0)),
    "torchvision": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "torchvision-features": ((122.99925, 116.9991, 103.9992), (1.0, 1.0, 1.0)),
}


class Target(NamedTuple):
    """The labels that one of a network's outputs is compared with in training."""

    labels: Tensor
    """int64 N×h×w of train ids, 255 = ignore."""
    weight: float = 1.0
    """Weight of this loss in the sum."""


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters with the same learning rate and weight decay."""

    parameters: list[nn.Parameter]
    rate: float = 1.0
    """Factor of the learning rate."""
    decay: float = 1.0
    """Factor of the weight decay."""
    classifier: bool = False
    """Whether they belong to the last layers, for which the solver has a further factor of the rate."""


class Network(nn.Module, ABC):
    """A network: images N×H×W×channels of any size, uint8 or float 0..255 → scores N×C×h×w, float, on `grid`.

    In training the result is a tuple of scores, one for each of `targets`. The mean and the divisor of the input are
    in the state dict, so that a checkpoint keeps the input convention of the weights it started from.

    A network must define `score`; all else has a default: scores at every pixel (`grid`), images padded to the sizes of
    its config (`step`, `remainder`), one loss, biases at twice the rate and without decay, as in the original solvers.
    """

    mean: Tensor
    scale: Tensor
    grid: Grid = CornerGrid(1)

    def __init__(self, config: NetworkConfig, classes: int, convention: str = "torchvision") -> None:
        super().__init__()
        self.config, self.classes = config, classes
        for name, values in zip(("mean", "scale"), INPUT[convention], strict=True):
            # Channels that are not colours are all treated alike.
            spread = values if config.channels == 3 else (sum(values) / 3,) * config.channels
            self.register_buffer(name, torch.tensor(spread))

    @abstractmethod
    def score(self, prepared: Tensor) -> Tensor:
        """Score the output of `prepare`: N×channels×H×W → N×C×h×w of the padded image."""

    def prepare(self, images: Tensor) -> Tensor:
        """Normalise images N×H×W×channels and pad them to the sizes that `score` takes: float32 N×channels×H×W."""
        return pad_to(normalise(images, self.mean, self.scale), self.config.step, self.config.remainder)

    def forward(self, images: Tensor) -> Any:
        height, width = images.shape[1:3]
        scores = self.score(self.prepare(images))
        scores = self.cut(scores, height, width)
        return (scores,) if self.training else scores

    def cut(self, scores: Tensor, height: int, width: int) -> Tensor:
        """Cut off the scores that lie in the padding behind the image's height×width pixels."""
        return self.grid.onto_combined(scores, height, width) if isinstance(self.grid, CornerGrid) else scores

    def targets(self, labels: Tensor) -> tuple[Target, ...]:
        """Return what each output in training is compared with, given labels N×H×W (integers, 255 = ignore)."""
        return (Target(self.grid.combined.labels(labels).long()),)

    def classifiers(self) -> Sequence[nn.Module]:
        """Return the last layers, which have an output for every class: they start anew if the classes change."""
        return ()

    def classifier_tensors(self) -> list[str]:
        """Return the names of the classifiers' tensors in the state dict."""
        names = [name for name, module in self.named_modules() if any(module is last for last in self.classifiers())]
        return [tensor for tensor in self.state_dict() if tensor.rpartition(".")[0] in names]

    def parameter_groups(self) -> list[ParameterGroup]:
        """Group the trainable parameters by how they learn: biases at twice the rate and without decay, the scales and
        shifts of batch norms without decay."""
        last = {id(parameter) for module in self.classifiers() for parameter in module.parameters()}
        norms = {id(parameter) for module in norms_that_train(self) for parameter in module.parameters()}
        groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                norm, bias = id(parameter) in norms, name.endswith("bias")
                how = 2.0 if bias and not norm else 1.0, 0.0 if bias or norm else 1.0, id(parameter) in last
                groups.setdefault(how, []).append(parameter)
        return [ParameterGroup(parameters, *how) for how, parameters in groups.items()]

    def calibrate(self, images: Tensor) -> None:
        """Prepare a random network for training with some training images N×H×W×channels; by default do nothing."""

    @property
    def buffers_train(self) -> bool:
        """Whether training changes buffers (the statistics of batch norms), which workers then have to share."""
        return bool(norms_that_train(self))

    def field_of_view(self) -> int:
        """Return the side in pixels of what a score cell sees, as the network's authors count; 0 if unknown."""
        return 0

    def on(self, device: torch.device, training: bool = False) -> Self:
        """Move this network to the device and return it; on a GPU in channels-last order, which is faster.

        training: lay kernels out in memory for training on that device.
        """
        self.to(device)
        if device.type == "cuda":
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        elif training:
            lay_out_by_taps(self)
        return self

    @classmethod
    def pretrained(cls, config: NetworkConfig, classes: int, file: Any) -> tuple["Network", list[Line]]:
        """Make a network with the weights of a file; return it, and what became of every tensor.

        file: a `weights.mapping.StateDict`, or the layers of a Caffe net. By default it must be a state dict with this
        network's own names. Raises UserError if the file does not fit.
        """
        if not isinstance(file, StateDict):
            raise UserError(f"{file.where} is a Caffe net, which {config.name} cannot take: give a .pth state dict")
        network = cls(config, classes)
        wishes = {name: Wish((name,)) for name in network.state_dict()}
        hint = f"give a state dict of the network {config.name}"
        return network, fill(network, Source(file.where, file.tensors, wishes, hint=hint))


N = TypeVar("N", bound=type[Network])


def register(config: type[NetworkConfig]) -> Callable[[N], N]:
    """Register a network, as a decorator of its class that is given the class of its options.

    The options then refer to the network, in other processes, too. Raises ValueError if the options have
    no name of their own.
    """
    if not vars(config).get("name"):
        raise ValueError(f"{config.__name__} has no name of its own: recipes need one")
    if NetworkConfig.kinds()[config.name] is not config:
        raise ValueError(f"there are two networks called {config.name!r}: give {config.__name__} another name")

    def note(network: N) -> N:
        config.built_by = network
        return network

    return note
