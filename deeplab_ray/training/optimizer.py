"""SGD with the recipe's parameter groups."""

from torch import optim

from deeplab_ray.config.recipe import SolverConfig
from deeplab_ray.models.network import Network


def build_optimizer(network: Network, solver: SolverConfig, fused: bool | None = None) -> optim.SGD:
    """Make SGD over the trainable parameters; each group holds the factor of its learning rate as "rate_factor".

    As in the prototxt files of the original solvers, classifier weights learn at 10 times the base rate
    (`classifier_factor`), classifier biases at 20 times, other biases at twice; only weights decay
    (`Network.parameter_groups`). `set_rate` applies a base rate to all groups.
    Momentum is PyTorch's: v ← m·v + g, w ← w − rate·v. Caffe's is v ← m·v + rate·g, w ← w − v; the two differ while the
    rate changes, by 0.1 % of the weights after 2000 updates under poly or step.
    fused: update all parameters in one kernel; None: do so if all are on a GPU.
    """
    groups = network.parameter_groups()
    return optim.SGD(
        [
            {
                "params": group.parameters,
                "weight_decay": group.decay * solver.weight_decay,
                "rate_factor": group.rate * (solver.classifier_factor if group.classifier else 1.0),
            }
            for group in groups
        ],
        lr=solver.learning_rate,
        momentum=solver.momentum,
        nesterov=solver.nesterov,
        fused=all(parameter.is_cuda for group in groups for parameter in group.parameters) if fused is None else fused,
    )


def set_rate(optimizer: optim.Optimizer, base_rate: float) -> None:
    """Set the learning rate of every group to the base rate times the group's factor."""
    for group in optimizer.param_groups:
        group["lr"] = base_rate * group["rate_factor"]
