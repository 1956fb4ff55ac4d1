"""The learning-rate policies."""

from deeplab_ray.config.recipe import SolverConfig


def learning_rate(solver: SolverConfig, iteration: int) -> float:
    """Return the base learning rate of update `iteration` (0-based).

    poly: rate × (1 − iteration/iterations)^power; step: rate × step_factor^⌊iteration/step_every⌋ (section 4.1);
    fixed: rate. Linear warm-up multiplies it by (iteration + 1)/warmup during the first `warmup` updates.
    """
    rate = solver.learning_rate
    if iteration < solver.warmup:
        rate *= (iteration + 1) / solver.warmup
    if solver.policy == "poly":
        rate *= (1 - iteration / solver.iterations) ** solver.power
    elif solver.policy == "step":
        rate *= solver.step_factor ** (iteration // solver.step_every)
    return rate
