"""The learning rate at an iteration."""

from deeplab_ray.config import SolverConfig


def learning_rate(solver: SolverConfig, iteration: int) -> float:
    """Base rate of update `iteration` (0-based).

    poly: rate × (1 − iteration/iterations)^power; step: rate × step_factor^⌊iteration/step_every⌋ (section 4.1);
    fixed: rate.
    """
    if solver.policy == "fixed":
        return solver.learning_rate
    if solver.policy == "poly":
        return solver.learning_rate * (1 - iteration / solver.iterations) ** solver.power
    return solver.learning_rate * solver.step_factor ** (iteration // solver.step_every)
