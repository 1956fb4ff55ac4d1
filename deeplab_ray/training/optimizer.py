"""SGD with the recipe's parameter groups."""

from torch import nn, optim

from deeplab_ray.config.recipe import SolverConfig


def build_optimizer(model: nn.Module, solver: SolverConfig, fused: bool | None = None) -> optim.SGD:
    """SGD over the trainable parameters, each group with the factor of its rate in "rate_factor".

    As in the original solvers' prototxt files: classifier weights ×10 (`classifier_factor`), classifier biases ×20,
    other biases ×2; weight decay on weights only. `set_rate` applies a base rate to all groups.
    fused: update in one kernel; None: where all parameters are on a GPU.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_bias = name.endswith("bias")
        factor = (solver.classifier_factor if "classifier" in name else 1.0) * (2.0 if is_bias else 1.0)
        groups.setdefault((factor, 0.0 if is_bias else solver.weight_decay), []).append(parameter)
    return optim.SGD(
        [
            {"params": parameters, "weight_decay": decay, "rate_factor": factor}
            for (factor, decay), parameters in groups.items()
        ],
        lr=solver.learning_rate,
        momentum=solver.momentum,
        nesterov=solver.nesterov,
        fused=all(parameter.is_cuda for group in groups.values() for parameter in group) if fused is None else fused,
    )


def set_rate(optimizer: optim.Optimizer, base_rate: float) -> None:
    """Give every group the base rate times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = base_rate * group["rate_factor"]
