"""What the Ray cluster holds, and whether a job fits on it: asked before the start, instead of hanging later."""

import ray

from deeplab_ray.config import RuntimeConfig
from deeplab_ray.errors import UserError

# Ray Data's tasks (fetch, decode, augment) ask for one whole logical CPU on one node.
CPUS_FOR_DATA = 1.0


def gpus_for_one(asked: float | None, autoscaling: bool, flag: str) -> float:
    """GPUs that one network takes: as asked for with `flag`, or 1 where the cluster has any, else 0.

    Raises UserError where nobody can know, as the cluster has none yet and grows by itself.
    """
    if asked is not None:
        return asked
    if ray.cluster_resources().get("GPU", 0):
        return 1.0
    if autoscaling:
        raise UserError(
            f"the cluster has no GPU yet, and with --autoscaling some may come: pass {flag} 1 to wait for them, "
            "or 0 to run on CPUs"
        )
    return 0.0


def gpus_per_worker(runtime: RuntimeConfig) -> float:
    """GPUs of a training worker, see `gpus_for_one`."""
    return gpus_for_one(runtime.gpus_per_worker, runtime.autoscaling, "--gpus-per-worker")


def workers_that_fit(runtime: RuntimeConfig, groups: int = 1) -> int:
    """How many training workers the nodes hold, with CPUS_FOR_DATA for each of `groups` set aside."""
    gpus = gpus_per_worker(runtime)
    nodes = sorted((node["Resources"] for node in ray.nodes() if node["Alive"]), key=lambda r: r.get("GPU", 0))
    to_reserve, count = groups * CPUS_FOR_DATA, 0
    for node in nodes:
        cpus = node.get("CPU", 0.0)
        reserved = min(to_reserve, cpus // 1)
        to_reserve -= reserved
        by_cpu = int((cpus - reserved) / runtime.cpus_per_worker + 1e-6)
        count += min(by_cpu, int(node.get("GPU", 0) / gpus + 1e-6)) if gpus else by_cpu
    return 0 if to_reserve > 0 else count


def check_workers_fit(runtime: RuntimeConfig) -> None:
    """Raise UserError, with the arithmetic, when the cluster cannot hold the workers and still feed them.

    One that grows by itself may: there, only the GPUs must be said, see `gpus_for_one`.
    """
    gpus = gpus_per_worker(runtime)
    if runtime.autoscaling or workers_that_fit(runtime) >= runtime.workers:
        return
    held = ray.cluster_resources()
    need = f"{runtime.workers} × {runtime.cpus_per_worker:g} CPU"
    need += f" and {runtime.workers} × {gpus:g} GPU" if gpus else ""
    raise UserError(
        f"the cluster cannot hold {runtime.workers} workers: they need {need}, and {CPUS_FOR_DATA:g} CPU must be left "
        f"to feed them; it has {held.get('CPU', 0):g} CPU and {held.get('GPU', 0):g} GPU on "
        f"{sum(node['Alive'] for node in ray.nodes())} node(s): lower --workers, --cpus-per-worker or "
        "--gpus-per-worker, add nodes, or pass --autoscaling if the cluster grows by itself"
    )
