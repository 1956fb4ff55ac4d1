"""What a job takes of the cluster. Nothing here changes what is learned, but for batch norms that train: their
statistics are those of a micro-batch, and, unless they are synchronised, of one worker's."""

from dataclasses import dataclass

from deeplab_ray.checks import check_types, require


@dataclass(frozen=True)
class TrainingResources:
    """How a training is spread over the cluster, and how often it reports."""

    workers: int = 1
    """Number of DDP workers."""
    gpus_per_worker: float | None = None
    """GPUs of a worker; unset: 1 if the cluster has GPUs, else 0 (train on CPU)."""
    cpus_per_worker: float = 0.5
    """Logical CPUs that a worker takes; at least 1 CPU must be left to feed the workers."""
    accumulation: int = 1
    """Micro-batches whose gradients each worker adds up before an update: less memory for the same batch."""
    compile: bool = False
    """Compile the training step's network with torch.compile (minutes at the start, faster on a GPU after)."""
    fused: bool | None = None
    """Update the weights in one fused kernel; unset: on a GPU."""
    log_every: int = 20
    """Iterations between two lines of progress."""
    validate_every: int = 1000
    """Iterations between two passes over the validation split (and one at the end); 0: never."""
    checkpoint_every: int = 500
    """Iterations between two checkpoints (and one at the end)."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints are kept."""
    autoscaling: bool = False
    """Count on nodes that the autoscaler will add: do not check that the workers fit now."""
    max_failures: int = 3
    """How often the worker group may be restarted from its last checkpoint after a worker died."""

    def __post_init__(self) -> None:
        check_types(self)
        require(self.workers >= 1, f"workers {self.workers} must be at least 1")
        require(
            self.gpus_per_worker is None or self.gpus_per_worker >= 0,
            f"gpus_per_worker {self.gpus_per_worker} must not be negative; 0 trains on CPU",
        )
        require(self.cpus_per_worker > 0, f"cpus_per_worker {self.cpus_per_worker} must be above 0")
        require(self.accumulation >= 1, f"accumulation {self.accumulation} must be at least 1")
        require(self.log_every >= 1, f"log_every {self.log_every} must be at least 1 iteration")
        require(self.validate_every >= 0, f"validate_every {self.validate_every} must not be negative")
        require(self.checkpoint_every >= 1, f"checkpoint_every {self.checkpoint_every} must be at least 1")
        require(self.keep_checkpoints >= 1, f"keep_checkpoints {self.keep_checkpoints} must be at least 1")
        require(self.max_failures >= 0, f"max_failures {self.max_failures} must not be negative")


@dataclass(frozen=True)
class InferenceResources:
    """What inference takes of the cluster: by default all of it."""

    gpus_per_predictor: float | None = None
    """GPUs of each actor with the network; unset: 1 if the cluster has GPUs, else 0 (predict on CPU)."""
    predictors: int | None = None
    """Number of actors with the network; unset: as many as the cluster holds."""
    refiners: int | None = None
    """Number of CRF actors, of one CPU each; unset: as many as the cluster holds."""
    batch: int = 0
    """Images of equal size that the network takes at a time; 0: one on a CPU, and found out by trial on a GPU."""
    autoscaling: bool = False
    """Count on nodes that the autoscaler will add: start with one actor of each kind, and grow with the cluster
    (without GPUs the network keeps one actor)."""

    def __post_init__(self) -> None:
        check_types(self)
        require(
            self.gpus_per_predictor is None or self.gpus_per_predictor >= 0,
            f"gpus_per_predictor {self.gpus_per_predictor} must not be negative; 0 predicts on CPU",
        )
        for name in ("predictors", "refiners"):
            number = getattr(self, name)
            require(number is None or number >= 1, f"{name} {number} must be at least 1")
        require(self.batch >= 0, f"batch {self.batch} must not be negative; 0 finds it out")
