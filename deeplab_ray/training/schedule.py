"""The learning rate at an iteration."""

from deeplab_ray.config.recipe import SolverConfig


def learning_rate(solver: SolverConfig, iteration: int) -> float:
    """Base rate of update `iteration` (0-based).

    poly: rate × (1 − iteration/iterations)^power; step: rate × step_factor^⌊iteration/step_every⌋ (section 4.1);
    fixed: rate. During the first `warmup` updates it is multiplied by (iteration + 1)/warmup.
    """
    rate = solver.learning_rate
    if iteration < solver.warmup:
        rate *= (iteration + 1) / solver.warmup
    if solver.policy == "poly":
        rate *= (1 - iteration / solver.iterations) ** solver.power
    elif solver.policy == "step":
        rate *= solver.step_factor ** (iteration // solver.step_every)
    return rate
