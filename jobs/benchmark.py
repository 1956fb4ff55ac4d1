"""Measure parts of the project against the paper's figures, and against other implementations.

uv run jobs/benchmark.py networks      # LargeFOV's variants, beside the paper's table
uv run jobs/benchmark.py training      # a training step against torchvision's
uv run jobs/benchmark.py atrous        # atrous convolution in training on a CPU against PyTorch's
uv run jobs/benchmark.py crf           # the CRF's backends against pydensecrf
uv run jobs/benchmark.py predict       # batch prediction against a bare loop over the same functions
uv run jobs/benchmark.py balance       # the chain of actor pools on stages that sleep, against the ideal rate
uv run jobs/benchmark.py resume        # finding out what is left of ten million images
uv run jobs/benchmark.py prepare       # preparing a dataset on one core and on two, and the memory that it takes
uv run jobs/benchmark.py plan          # what the plan of a long training costs, before its first batch and after

Trust ratios within one run more than absolute times.
"""

import dataclasses
import os
from typing import Annotated, Any, Literal

import tyro

from deeplab_ray import cli
from deeplab_ray.benchmarks import crf as benchmark
from deeplab_ray.errors import UserError
from deeplab_ray.on_ray import session


@dataclasses.dataclass(frozen=True)
class Networks:
    """Training speed of LargeFOV's kernels and rates, beside the paper's table."""

    size: int = 321
    """Side of the square crop in pixels."""
    batch: int = 1
    """Number of crops per step."""
    repeats: int = 3
    """Number of steps of each network that are measured; the fastest counts."""
    forward: bool = False
    """Measure the forward pass alone."""

    def run(self) -> dict[str, Any]:
        from deeplab_ray.benchmarks import networks

        _check_crops(self)
        rows = networks.measure_kernels(self.size, self.batch, self.repeats, not self.forward)
        print(networks.format_kernels(rows))
        return {
            "rows": [dataclasses.asdict(row) for row in rows],
            "largefov_over_k7r4": rows[-1].images_per_s / rows[0].images_per_s,
            "published": rows[-1].published_images_per_s / rows[0].published_images_per_s,
        }


@dataclasses.dataclass(frozen=True)
class Training:
    """A training step of ResNet-101 ASPP MSC against torchvision's deeplabv3_resnet101 in plain float32."""

    size: int = 321
    """Side of the square crop in pixels."""
    batch: int = 10
    """Number of crops per step."""
    repeats: int = 20
    """Number of steps of each network that are measured; their median counts."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Arithmetic of our step."""
    compile: bool = False
    """Compile our network with torch.compile."""

    def run(self) -> dict[str, Any]:
        from deeplab_ray.benchmarks import networks

        _check_crops(self)
        found = networks.compare_steps(self.size, self.batch, self.repeats, self.precision, self.compile)
        print(networks.format_steps(found))
        return {
            **dataclasses.asdict(found),
            "share_of_matrix_rate": found.ours.flops / found.matrix_flops,
            "ratio": found.ratio,
        }


@dataclasses.dataclass(frozen=True)
class Atrous:
    """Atrous convolution tap by tap, as training on a CPU computes it, against PyTorch's: forward and backward on one
    thread."""

    repeats: int = 5
    """Number of passes of each that are measured, in turn; their median counts."""

    def run(self) -> dict[str, Any]:
        from deeplab_ray.benchmarks import atrous

        if self.repeats < 1:
            raise UserError(f"--repeats {self.repeats} must be at least 1")
        rows = atrous.measure(self.repeats)
        print(atrous.table(rows))
        return {"rows": [{**dataclasses.asdict(row), "times_faster": row.times_faster} for row in rows]}


@dataclasses.dataclass(frozen=True)
class CRF:
    """The CRF's backends against pydensecrf (extra pydensecrf): seconds on one core, agreement, peak memory, and images
    per second on all cores."""

    sizes: tuple[benchmark.Size, ...] = ("camvid", "voc", "cityscapes")
    """Drawn scenes to refine: camvid is 360×480 with 11 classes, voc 375×500 with 21, cityscapes 1024×2048 with 19."""
    images: str = ""
    """Folder of images to refine instead of drawn scenes; their probabilities are made up."""
    classes: int = 21
    """Number of classes for the images of a folder."""
    limit: int = 5
    """Largest number of images to take from the folder."""
    params: tuple[benchmark.Letter, ...] = ("A", "B", "C")
    """CRFs to measure, by (sigma_alpha, sigma_beta): A is 67 and 3, B is 49 and 5, C is 121 and 5."""
    with_torch: bool = False
    """Measure the torch backend, too; without a GPU it takes minutes per image."""
    repeats: int = 3
    """How often each backend refines each image; times are medians."""

    def run(self) -> dict[str, Any]:
        if min(self.repeats, self.limit) < 1:
            raise UserError(f"--repeats {self.repeats} and --limit {self.limit} must be at least 1")
        if not 2 <= self.classes <= 512:
            raise UserError(f"--classes {self.classes} must lie in 2..512")
        # One thread each. Libraries read these variables when they are imported, which the backends do later.
        os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
        cases = (
            list(benchmark.folder_cases(self.images, self.classes, self.limit))
            if self.images
            else [benchmark.scene_case(size) for size in self.sizes]
        )
        cores = len(os.sched_getaffinity(0))
        rivals = benchmark.RIVALS if self.with_torch else benchmark.RIVALS[:-1]
        rows: list[dict[str, Any]] = []
        for case in cases:
            for letter in self.params:
                params = benchmark.PARAMS[letter]
                for rival, row in zip(rivals, benchmark.compare(case, params, rivals, self.repeats), strict=True):
                    row |= {
                        "params": letter,
                        "peak_mib": round(benchmark.memory(case, params, rival), 1),
                        "images_per_second": round(benchmark.throughput(case, params, rival, self.repeats, cores), 3),
                    }
                    rows.append(row)
                    lines = benchmark.table(rows).splitlines()
                    print("\n".join(lines if len(rows) == 1 else lines[-1:]), flush=True)
        return {"cores": cores, "rows": rows}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the plan of a training costs its driver and its tasks, and how soon the first batch comes."""

    iterations: int = 20_000
    """Iterations of the training."""
    workers: int = 64
    """DDP workers, each with 10 crops an iteration."""
    ids: int = 3_000_000
    """Samples of the training split."""

    def run(self) -> dict[str, Any]:
        for name, number in dataclasses.asdict(self).items():
            if number < 1:
                raise UserError(f"--{name} {number} must be at least 1")
        session.start_ray()
        from deeplab_ray.benchmarks import plan

        found = plan.measure(self.iterations, self.workers, self.ids)
        print(plan.table(found))
        return {**dataclasses.asdict(self), **dataclasses.asdict(found)}


@dataclasses.dataclass(frozen=True)
class Predict:
    """Batch prediction with the CRF against a bare loop over the same functions in as many processes as cores."""

    images: int = 60
    """Number of drawn scenes."""
    height: int = 256
    """Height of a scene in pixels."""
    width: int = 512
    """Width of a scene in pixels."""

    def run(self) -> dict[str, Any]:
        if self.images < 10 or min(self.height, self.width) < 32:
            raise UserError("--images must be at least 10, --height and --width at least 32")
        session.start_ray()
        from deeplab_ray.benchmarks import predict

        found = predict.measure(self.images, self.height, self.width)
        print(predict.table(found))
        return {**dataclasses.asdict(self), **dataclasses.asdict(found), "ratio": found.ratio}


@dataclasses.dataclass(frozen=True)
class Balance:
    """The chain of actor pools on stages that sleep instead of computing, at costs of 1:10, 1:1 and 10:1."""

    cpus: int = 64
    """Logical CPUs of the Ray that is started here, and workers of both stages together."""

    def run(self) -> dict[str, Any]:
        if self.cpus < 2:
            raise UserError(f"--cpus {self.cpus} must be at least 2")
        session.start_ray(self.cpus)
        from deeplab_ray.benchmarks import balance

        rows = [balance.measure(costs, self.cpus) for costs in ((1, 10), (1, 1), (10, 1))]
        print(balance.table(rows))
        return {"cpus": self.cpus, "rows": [{**dataclasses.asdict(row), "share": row.share} for row in rows]}


@dataclasses.dataclass(frozen=True)
class Resume:
    """What it costs to find out what is left of a batch prediction of which all but a thousandth is done."""

    ids: int = 10_000_000
    """Images of the input."""

    def run(self) -> dict[str, Any]:
        if self.ids < 1000:
            raise UserError(f"--ids {self.ids} must be at least 1000")
        from deeplab_ray.benchmarks import resume

        return {**dataclasses.asdict(self), **dataclasses.asdict(resume.measure(self.ids))}


@dataclasses.dataclass(frozen=True)
class Prepare:
    """Preparing a drawn dataset: images per second on one core and on two, and peak memory as the set grows."""

    images: tuple[int, ...] = (500, 5000)
    """Images of each set that is prepared, on each of --cores."""
    cores: tuple[int, ...] = (1, 2)
    """Logical CPUs of the Rays that are started here, one after another."""
    height: int = 180
    """Height of an image in pixels."""
    width: int = 240
    """Width of an image in pixels."""
    shard_mb: float = 8.0
    """Size of a shard; small, so that the small set fills several, too."""

    def run(self) -> dict[str, Any]:
        if not self.images or not self.cores or min(*self.images, *self.cores) < 1:
            raise UserError("--images and --cores are numbers of at least 1")
        if min(self.height, self.width) < 32:
            raise UserError("--height and --width must be at least 32")
        import ray

        from deeplab_ray.benchmarks import prepare

        rows = []
        for cores in self.cores:
            session.start_ray(cores)
            for images in self.images:
                rows.append(prepare.measure(cores, images, self.height, self.width, self.shard_mb))
            ray.shutdown()
        print(prepare.table(rows))
        return {
            "rows": [dataclasses.asdict(row) for row in rows],
            "memory_ratio": rows[-1].peak_mib / rows[-len(self.images)].peak_mib,
        }


Command = (
    Annotated[Networks, tyro.conf.subcommand("networks")]
    | Annotated[Training, tyro.conf.subcommand("training")]
    | Annotated[Atrous, tyro.conf.subcommand("atrous")]
    | Annotated[CRF, tyro.conf.subcommand("crf")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Balance, tyro.conf.subcommand("balance")]
    | Annotated[Resume, tyro.conf.subcommand("resume")]
    | Annotated[Prepare, tyro.conf.subcommand("prepare")]
    | Annotated[Plan, tyro.conf.subcommand("plan")]
)


def _check_crops(command: Networks | Training) -> None:
    if command.size < 17 or command.size % 8 != 1 or command.batch < 1 or command.repeats < 1:
        raise UserError(
            f"--size {command.size} must be ≡ 1 (mod 8) and at least 17, --batch {command.batch} and --repeats "
            f"{command.repeats} at least 1"
        )


def main() -> dict[str, Any]:
    command: Any = cli.parse(
        Command,  # type: ignore[arg-type]
        prog="benchmark.py",
        description="Measure parts of the project against the paper's figures, and against other implementations.",
    )
    return command.run()


if __name__ == "__main__":
    cli.run_job(main)
