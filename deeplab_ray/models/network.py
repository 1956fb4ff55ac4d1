"""What a network is to the rest of the project, and how a new one becomes known.

A network is one file: a dataclass of its options (a `NetworkConfig` with a `name`) and a `Network`, made known to
recipes by `register`. Whatever trains, validates, evaluates, predicts or exports asks it through this protocol alone.

Shapes: N images, C classes, H×W pixels, h×w cells of scores.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import torch
from torch import Tensor, nn

from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.errors import UserError
from deeplab_ray.models.atrous import lay_out_by_taps
from deeplab_ray.models.grid import CornerGrid, Grid, normalise, pad_to
from deeplab_ray.models.norm import norms_that_train
from deeplab_ray.models.weights.mapping import Line, Source, StateDict, Wish, fill

# RGB mean and divisor in 0..255 units, of the training sets of Caffe's and of torchvision's ImageNet nets.
INPUT = {
    "caffe": ((122.675, 116.669, 104.008), (1.0, 1.0, 1.0)),
    "torchvision": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "torchvision-features": ((122.99925, 116.9991, 103.9992), (1.0, 1.0, 1.0)),
}


class Target(NamedTuple):
    """What one of a network's outputs is compared with in training."""

    labels: Tensor
    """int64 N×h×w of train ids, 255 = ignore."""
    weight: float = 1.0
    """Weight of this loss in the sum."""


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that learn alike."""

    parameters: list[nn.Parameter]
    rate: float = 1.0
    """Factor of the learning rate."""
    decay: float = 1.0
    """Factor of the weight decay."""
    classifier: bool = False
    """Whether they are of the last layers, whose rate has a factor of its own in the solver."""


class Network(nn.Module, ABC):
    """Images N×H×W×channels of any size, uint8 or float 0..255 → scores N×C×h×w, float, on `grid`.

    In training the result is a tuple of scores, one for each of `targets`. The mean and the divisor of the input are
    part of the state dict, so that a checkpoint carries the convention of the weights it started from.

    A network must say `score`; all else has a default: scores at every pixel (`grid`), images padded to the sizes of
    its config (`step`, `remainder`), one loss, biases at twice the rate and without decay, as in the original solvers.
    """

    mean: Tensor
    scale: Tensor
    grid: Grid = CornerGrid(1)
    has_download: ClassVar[bool] = False
    """Whether weights can be downloaded for it: "torchvision" and "torchvision-features"."""

    def __init__(self, config: NetworkConfig, classes: int, convention: str = "torchvision") -> None:
        super().__init__()
        self.config, self.classes = config, classes
        for name, values in zip(("mean", "scale"), INPUT[convention], strict=True):
            # Other than colours: all channels alike.
            spread = values if config.channels == 3 else (sum(values) / 3,) * config.channels
            self.register_buffer(name, torch.tensor(spread))

    @abstractmethod
    def score(self, prepared: Tensor) -> Tensor:
        """What `prepare` gives, N×channels×H×W → scores N×C×h×w of the padded image."""

    def prepare(self, images: Tensor) -> Tensor:
        """N×H×W×channels → float32 N×channels, normalised and padded to the sizes that `score` takes."""
        return pad_to(normalise(images, self.mean, self.scale), self.config.step, self.config.remainder)

    def forward(self, images: Tensor) -> Any:
        height, width = images.shape[1:3]
        scores = self.score(self.prepare(images))
        scores = self.cut(scores, height, width)
        return (scores,) if self.training else scores

    def cut(self, scores: Tensor, height: int, width: int) -> Tensor:
        """Scores of the padded image without those that lie behind its height×width pixels."""
        return self.grid.onto_combined(scores, height, width) if isinstance(self.grid, CornerGrid) else scores

    def targets(self, labels: Tensor) -> tuple[Target, ...]:
        """Labels N×H×W (integers, 255 = ignore) → what each of the outputs in training is compared with."""
        return (Target(self.grid.combined.labels(labels).long()),)

    def classifiers(self) -> Sequence[nn.Module]:
        """The last layers, with an output for every class: they start anew where the classes are others."""
        return ()

    def classifier_tensors(self) -> list[str]:
        """Names of the classifiers' tensors in the state dict."""
        names = [name for name, module in self.named_modules() if any(module is last for last in self.classifiers())]
        return [tensor for tensor in self.state_dict() if tensor.rpartition(".")[0] in names]

    def parameter_groups(self) -> list[ParameterGroup]:
        """The parameters that train, by how they learn: biases at twice the rate and without decay, the scales and
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
        """Make a random network ready to train, by some training images N×H×W×channels; by default nothing."""

    @property
    def buffers_train(self) -> bool:
        """Whether training changes its buffers: the statistics of batch norms, which workers then must share."""
        return bool(norms_that_train(self))

    def field_of_view(self) -> int:
        """Pixels along a side that a cell of the scores sees, as the network's authors count; 0 if nobody says."""
        return 0

    def on(self, device: torch.device, training: bool = False) -> Self:
        """This network, moved to the device; on a GPU in channels-last order, in which convolutions are faster.

        training: store kernels as training on that device wants them.
        """
        self.to(device)
        if device.type == "cuda":
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        elif training:
            lay_out_by_taps(self)
        return self

    @classmethod
    def pretrained(cls, config: NetworkConfig, classes: int, file: Any) -> tuple["Network", list[Line]]:
        """A network with the weights of a file (`weights.mapping.StateDict`, or the layers of a Caffe net), and what
        became of every tensor; by default of a state dict with just this network's names.

        Raises UserError for a file that does not fit.
        """
        if not isinstance(file, StateDict):
            raise UserError(f"{file.where} is of Caffe, which had no {config.name}: give a .pth state dict")
        network = cls(config, classes)
        wishes = {name: Wish((name,)) for name in network.state_dict()}
        hint = f"give a state dict of the network {config.name}"
        return network, fill(network, Source(file.where, file.tensors, wishes, hint=hint))


N = TypeVar("N", bound=type[Network])


def register(config: type[NetworkConfig]) -> Callable[[N], N]:
    """Make a network known: a decorator of its class, given the class of its options.

    The options carry the network with them, to other processes, too. Raises ValueError for options without a name.
    """
    if not config.name:
        raise ValueError(f"{config.__name__} has no name: recipes need one")

    def note(network: N) -> N:
        config.built_by = network
        return network

    return note
