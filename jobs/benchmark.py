"""Measure what this machine makes of the paper's figures.

uv run jobs/benchmark.py networks      # LargeFOV's variants, beside the paper's table
uv run jobs/benchmark.py training      # a training step against torchvision's
"""

import dataclasses
from typing import Annotated, Any, Literal

import tyro

from deeplab_ray import cli, presets
from deeplab_ray.errors import UserError


@dataclasses.dataclass(frozen=True)
class Networks:
    """LargeFOV's kernels and rates: speed of training, side by side with the paper's table."""

    size: int = 321
    """Side of the square crop in pixels."""
    batch: int = 1
    """Crops a step."""
    repeats: int = 3
    """Steps of each network that are measured; the fastest counts."""
    forward: bool = False
    """Measure the forward pass alone."""

    def run(self) -> dict[str, Any]:
        from deeplab_ray.benchmarks import networks

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
    """Crops a step."""
    repeats: int = 20
    """Steps of each network that are measured; their median counts."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Arithmetic of our step."""
    compile: bool = False
    """Compile our network with torch.compile."""

    def run(self) -> dict[str, Any]:
        from deeplab_ray.benchmarks import networks

        found = networks.compare_steps(self.size, self.batch, self.repeats, self.precision, self.compile)
        print(networks.format_steps(found))
        return {
            **dataclasses.asdict(found),
            "share_of_matrix_rate": found.ours.flops / found.matrix_flops,
            "ratio": found.ratio,
        }


Command = Annotated[Networks, tyro.conf.subcommand("networks")] | Annotated[Training, tyro.conf.subcommand("training")]


def main() -> dict[str, Any]:
    command: Networks | Training = cli.parse(
        Command,  # type: ignore[arg-type]
        prog="benchmark.py",
        description=f"Measure what this machine makes of the paper's figures.\n\nPresets:\n{presets.overview()}",
    )
    if command.size < 17 or command.size % 8 != 1 or command.batch < 1 or command.repeats < 1:
        raise UserError("--size must be ≡ 1 (mod 8) and at least 17, --batch and --repeats at least 1")
    return command.run()


if __name__ == "__main__":
    cli.run_job(main)
