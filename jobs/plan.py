"""Plan a batch prediction: how many nodes of which kind, how many hours, what cost.

    uv run jobs/plan.py --checkpoint runs/camvid-1 --input photos --output labels --gpu-node 1,8,1.2 --cpu-node 16,0.7

The flags of jobs/predict.py say what is to be predicted. A few of the images are predicted here, and what they cost
says what all cost. On a cluster: ray job submit --working-dir . -- python jobs/plan.py … (the same words).
"""

import dataclasses
from typing import Any

from deeplab_ray import cli
from deeplab_ray.errors import UserError
from deeplab_ray.on_ray import session
from deeplab_ray.on_ray.infer import flags

SIZES = (10**3, 10**4, 10**5, 10**6, 10**7)


@dataclasses.dataclass(frozen=True)
class Args(flags.Prediction):
    output: str
    """Folder for the results, as jobs/predict.py will get it, since writing is measured, too: into its .progress/plan,
    which is removed. Nothing else is written there."""
    images_measured: int = 24
    """Images to predict, at least, spread over the input; every actor with the network gets two units of them."""
    images: tuple[int, ...] = ()
    """Numbers of images to plan for, the recommendation for the last; unset: those of the input that are not done yet,
    and 10^3 to 10^7."""
    gpu_node: str = ""
    """GPU node that could be rented, as "GPUS,CPUS,PRICE" (of an hour); unset: the cluster's own, without a price."""
    cpu_node: str = ""
    """Node without a GPU that could be rented, as "CPUS,PRICE"; unset: the cluster's own, without a price."""
    predict_seconds: float | None = None
    """Seconds that a GPU of --gpu-node takes for an image, if this cluster has none to measure it on."""
    losses_per_node_hour: float = 0.0
    """How often an hour a spot node is taken away, such as 0.05; 0: never."""
    replacement_seconds: float = 180.0
    """Seconds from the loss of a node to the next one that has joined the cluster."""
    deadline_hours: float | None = None
    """Plan the fewest nodes that are done in so many hours; unset: one GPU node, and what balances it."""


def main() -> dict[str, Any]:
    args = flags.parse(
        Args,
        prog="plan.py",
        description="Tell how long jobs/predict.py would take with the same flags, on how many GPU and CPU nodes, and "
        "what it would cost: count the images, predict a few of them on this cluster, and work out the rest.",
    )
    _check(args)
    session.set_environment()
    from deeplab_ray.on_ray.infer import forecast, plan

    gpu_node = plan.Node.parse(args.gpu_node, "--gpu-node", gpus=True) if args.gpu_node else None
    cpu_node = plan.Node.parse(args.cpu_node, "--cpu-node", gpus=False) if args.cpu_node else None
    request = args.check()
    total, done = plan.count(request)
    cli.say(f"{total} images" + (f", of which {done} are done" if done else ""))
    session.start_ray()
    gpus = plan.gpus_of_predictor(args.resources)
    left = total - done or total
    wanted = forecast.Wanted(
        args.images or tuple(sorted({left, *SIZES})),
        gpu_node,
        cpu_node,
        args.predict_seconds,
        args.losses_per_node_hour,
        args.replacement_seconds,
        args.deadline_hours and args.deadline_hours * 3600,
    )
    nodes, hardware = plan.nodes_here(), plan.hardware()
    forecast.check(wanted, nodes, gpus)
    measured = plan.measure_request(request, args.resources, args.images_measured)
    found = forecast.forecast(measured, wanted, nodes, args.resources, gpus)
    asked = args.images[-1] if args.images else left
    print(forecast.table(measured, found, hardware))
    print(f"\n{found.advice(asked)}")
    return {"images": total, "done": done, **forecast.as_result(measured, found, hardware, asked)}


def _check(args: Args) -> None:
    for name in ("images_measured", "predict_seconds", "deadline_hours"):
        value = getattr(args, name)
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"--{name.replace('_', '-')} {value:g} must be above 0")
    for name in ("losses_per_node_hour", "replacement_seconds"):
        value = getattr(args, name)
        if not 0 <= value < float("inf"):
            raise UserError(f"--{name.replace('_', '-')} {value:g} must not be negative")
    if any(images < 1 for images in args.images):
        raise UserError(f"--images {min(args.images)} must be at least 1")
    if args.predict_seconds is not None and not args.gpu_node:
        raise UserError("--predict-seconds is of a GPU: say by --gpu-node which node it is in")


if __name__ == "__main__":
    cli.run_job(main)
