"""Options of a search over learning rate, batch and power."""

from dataclasses import dataclass

from deeplab_ray.checks import check_types, require


@dataclass(frozen=True)
class SearchConfig:
    """What a search tries: the ranges to draw from, and the number of trials."""

    trials: int = 8
    """Number of configurations to try."""
    learning_rate_min: float = 1e-4
    """Lower end of the base learning rate, drawn log-uniformly."""
    learning_rate_max: float = 1e-2
    """Upper end of the base learning rate."""
    batches: tuple[int, ...] = (4, 8)
    """Global batches to choose from."""
    power_min: float = 0.5
    """Lower end of the poly policy's power, drawn uniformly."""
    power_max: float = 1.5
    """Upper end of the poly policy's power."""
    reports: int = 4
    """Validations of a full trial; after each, ASHA may stop the worse trials."""
    concurrent: int = 0
    """Number of trials at the same time; 0: as many as the cluster holds."""

    def __post_init__(self) -> None:
        check_types(self)
        require(self.trials >= 1, f"trials {self.trials} must be at least 1")
        require(
            0 < self.learning_rate_min < self.learning_rate_max,
            f"learning rates {self.learning_rate_min}..{self.learning_rate_max} are not a range: need 0 < min < max",
        )
        require(
            len(self.batches) > 0 and min(self.batches) >= 1,
            f"batches {self.batches} must name at least one batch of at least 1 crop",
        )
        require(
            0 <= self.power_min < self.power_max,
            f"powers {self.power_min}..{self.power_max} are not a range: need 0 <= min < max",
        )
        require(self.reports >= 1, f"reports {self.reports} must be at least 1")
        require(self.concurrent >= 0, f"concurrent {self.concurrent} must not be negative; 0 fills the cluster")
