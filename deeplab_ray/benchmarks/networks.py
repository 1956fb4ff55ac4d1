"""Speed of the paper's networks: its table of kernels, and a training step against torchvision's.

Trust the ratios: both sides of each are measured in one run, in turn, on the same machine.
"""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deeplab_ray.config.recipe import Precision, SolverConfig
from deeplab_ray.labels import IGNORE
from deeplab_ray.models.configs import DeepLabV2Config
from deeplab_ray.models.describe import measure_network
from deeplab_ray.models.network import Network
from deeplab_ray.models.networks import create
from deeplab_ray.presets import lookup as presets
from deeplab_ray.training.optimizer import build_optimizer
from deeplab_ray.training.step import train_step

CLASSES = 21
# Preset, description of its head, and the training speed in the paper in images/s.
KERNELS = (
    ("voc12-vgg16-k7r4", "7×7, rate 4", 1.44),
    ("voc12-vgg16-k4r4", "4×4, rate 4", 2.90),
    ("voc12-vgg16-k4r8", "4×4, rate 8", 2.90),
    ("voc12-vgg16-largefov", "3×3, rate 12", 4.84),
)


@dataclass(frozen=True)
class KernelRow:
    """One row of the paper's table, measured again."""

    preset: str
    text: str
    field_of_view: int
    parameters: int
    multiply_adds: int
    published_images_per_s: float
    images_per_s: float


def measure_kernels(size: int, batch: int, repeats: int, train: bool) -> list[KernelRow]:
    """Measure the speed of LargeFOV's four variants on crops of size × size: training steps, or forward passes alone.

    The fastest of `repeats` counts, after one that is not counted. Only one network is in memory at a time.
    """
    rows = []
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for name, text, published in KERNELS:
        config = replace(presets.get(name).recipe.network, weights="random")
        found = measure_network(config, CLASSES, size, size)
        torch.manual_seed(0)
        model = create(config, CLASSES).on(device)
        step = _our_step(model, _batch(size, batch, device)) if train else _forward(model, size, batch)
        seconds = min(_times(step, repeats, device))
        rows.append(
            KernelRow(
                name, text, found.field_of_view, found.parameters, found.multiply_adds, published, batch / seconds
            )
        )
        del model, step
        gc.collect()
    return rows


def format_kernels(rows: list[KernelRow]) -> str:
    """Format the rows beside the paper's figures, with speeds also as multiples of the slowest."""
    head = f"{'kernel':<13} {'FOV':>4} {'parameters':>12} {'G mult-adds':>11}"
    lines = [f"{head} {'images/s':>9} {'×':>5} {'paper':>6} {'×':>5}"]
    slowest = rows[0]
    for row in rows:
        ours, paper = row.images_per_s / slowest.images_per_s, row.published_images_per_s
        lines.append(
            f"{row.text:<13} {row.field_of_view:>4} {row.parameters:>12,} {row.multiply_adds / 1e9:>11.1f} "
            f"{row.images_per_s:>9.3f} {ours:>5.2f} {paper:>6.2f} {paper / slowest.published_images_per_s:>5.2f}"
        )
    return "\n".join(lines)


@dataclass(frozen=True)
class StepRow:
    """A training step of one network."""

    name: str
    images_per_s: float
    multiply_adds: int
    """Multiply-adds of one image's forward pass; a step takes about three times as many."""
    peak_bytes: int
    """Peak memory on the GPU; 0 on CPU."""

    @property
    def flops(self) -> float:
        """Floating-point operations per second, forward and backward."""
        return 2 * 3 * self.multiply_adds * self.images_per_s


@dataclass(frozen=True)
class StepComparison:
    """Our training step against torchvision's, measured in one run."""

    device: str
    ours: StepRow
    rival: StepRow
    matrix_flops: float
    """Operations per second that the device reaches on large bfloat16 matrices."""

    @property
    def ratio(self) -> float:
        """Our multiply-adds per second over the rival's."""
        return self.ours.flops / self.rival.flops


def compare_steps(size: int, batch: int, repeats: int, precision: Precision, compiled: bool) -> StepComparison:
    """Measure ResNet-101 ASPP MSC under `train_step` against torchvision's deeplabv3_resnet101 in plain float32.

    precision, compiled: of our step.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = _batch(size, batch, device)

    def ours() -> StepRow:
        config = DeepLabV2Config("resnet101", "aspp-l", weights="random", msc=True)
        torch.manual_seed(0)
        model = create(config, CLASSES).on(device)
        # As training does with random weights: without statistics, activations would grow from block to block.
        model.calibrate(data[0][:2])
        count = measure_network(config, CLASSES, size, size).multiply_adds
        step = _our_step(model, data, precision, compiled)
        return _measure_step("ResNet-101 ASPP MSC", step, count, batch, repeats, device)

    def rival() -> StepRow:
        from torchvision.models.segmentation import deeplabv3_resnet101

        torch.manual_seed(0)
        model = deeplabv3_resnet101(weights=None, weights_backbone=None, num_classes=CLASSES).to(device)
        with torch.device("meta"):
            outline = deeplabv3_resnet101(weights=None, weights_backbone=None, num_classes=CLASSES).eval()
        count = _count(outline, torch.empty(1, 3, size, size, device="meta"))
        step = _plain_step(model, data)
        return _measure_step("torchvision deeplabv3_resnet101", step, count, batch, repeats, device)

    # One at a time, so that each has the whole memory.
    first, second = ours(), rival()
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    return StepComparison(name, first, second, _matrix_flops(device))


def format_steps(found: StepComparison) -> str:
    """Format both networks' figures, and the ratio of their multiply-adds per second."""
    lines = [
        f"{'training step':<32} {'images/s':>9} {'G mult-adds':>11} {'TFLOP/s':>8} {'of bf16 rate':>12} {'peak GiB':>9}"
    ]
    for row in (found.ours, found.rival):
        share = row.flops / found.matrix_flops
        lines.append(
            f"{row.name:<32} {row.images_per_s:>9.2f} {row.multiply_adds / 1e9:>11.1f} {row.flops / 1e12:>8.2f} "
            f"{share:>12.1%} {row.peak_bytes / 2**30:>9.2f}"
        )
    lines.append(f"{found.device}: multiply-adds a second, ours over torchvision's: {found.ratio:.2f}")
    return "\n".join(lines)


def _batch(size: int, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, CLASSES, (batch, size, size), dtype=torch.uint8, generator=generator)
    return images.to(device), labels.to(device)


def _our_step(
    model: Network, data: tuple[Tensor, Tensor], precision: Precision = "float32", compiled: bool = False
) -> Callable[[], object]:
    # At this rate random weights stay finite over the repeats.
    optimizer = build_optimizer(model, SolverConfig(learning_rate=1e-8))
    model.train()
    forward = cast(nn.Module, torch.compile(model)) if compiled else model
    return lambda: train_step(model, optimizer, [data], precision, forward=forward)


def _forward(model: Network, size: int, batch: int) -> Callable[[], object]:
    images = _batch(size, batch, model.mean.device)[0]
    model.eval()

    @torch.inference_mode()
    def run() -> object:
        return model(images)

    return run


def _plain_step(model: nn.Module, data: tuple[Tensor, Tensor]) -> Callable[[], object]:
    """Return a training step as a reader of torchvision's documentation would write it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-8, momentum=0.9, weight_decay=5e-4)
    images = data[0].permute(0, 3, 1, 2).float().contiguous() / 255
    labels = data[1].long()
    model.train()

    def run() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images)["out"], labels, ignore_index=IGNORE)
        loss.backward()
        optimizer.step()
        return loss

    return run


def _count(model: nn.Module, image: Tensor) -> int:
    total = 0

    def add(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += output.numel() * module.get_parameter("weight")[0].numel()

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(add)
    model(image)
    return total


def _measure_step(
    name: str, step: Callable[[], object], count: int, batch: int, repeats: int, device: torch.device
) -> StepRow:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    seconds = sorted(_times(step, repeats, device))[repeats // 2]
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    return StepRow(name, batch / seconds, count, peak)


def _times(step: Callable[[], object], repeats: int, device: torch.device) -> list[float]:
    """Return the seconds of each repeat, after a first that is not counted."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def _matrix_flops(device: torch.device) -> float:
    side = 8192 if device.type == "cuda" else 512
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    return 2 * side**3 / min(_times(lambda: a @ a, 20, device))
