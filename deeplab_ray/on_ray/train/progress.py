"""What rank 0 reports during a run: lines on stdout, TensorBoard events, the history."""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from deeplab_ray.metrics import iou, mean_iou
from deeplab_ray.on_ray.train.plan import RunPlan


class Progress:
    """Rank 0's log of a run: lines on stdout, TensorBoard events (saved under the output), the history."""

    def __init__(self, plan: RunPlan, start: int, history: list[dict[str, float]]) -> None:
        self.plan, self.history = plan, list(history)
        self.folder = tempfile.TemporaryDirectory(prefix="deeplab-ray-tensorboard-")
        self.writer = SummaryWriter(self.folder.name)
        self.losses: list[torch.Tensor] = []
        self.marked = (start, time.monotonic())

    def add(self, done: int, loss: torch.Tensor, rate: float) -> None:
        """Record the loss (a scalar) and the learning rate of update number `done`; report them every `log_every`."""
        self.losses.append(loss)
        solver, resources = self.plan.recipe.solver, self.plan.resources
        if done % resources.log_every and done != solver.iterations:
            return
        now = time.monotonic()
        seconds_each = (now - self.marked[1]) / (done - self.marked[0])
        record = {
            "iteration": done,
            "loss": float(torch.stack(self.losses).mean()),
            "learning_rate": rate,
            "images_per_s": solver.batch / seconds_each,
        }
        self.history.append(record)
        for name in ("loss", "learning_rate", "images_per_s"):
            self.writer.add_scalar(name, record[name], done)
        left = (solver.iterations - done) * seconds_each
        print(
            f"iteration {done}/{solver.iterations}  loss {record['loss']:.4f}  rate {rate:.3g}  "
            f"{record['images_per_s']:.1f} images/s  {int(left // 60)} min {int(left % 60):02d} s left",
            flush=True,
        )
        self.losses, self.marked = [], (done, now)

    def checkpoint(self, done: int, confusion: np.ndarray | None) -> dict[str, float]:
        """Record a validation's confusion matrix (int64 C×C; None: there was none), and upload the events.

        Returns the newest figures, for Ray Train's report.
        """
        if not self.history or self.history[-1]["iteration"] != done:
            self.history.append({"iteration": done, "loss": self._mean_loss()})
        if confusion is not None:
            self.history[-1]["miou"] = mean_iou(confusion)
            self.writer.add_scalar("validation/miou", mean_iou(confusion), done)
            for name, value in zip(self.plan.train.classes.names, iou(confusion), strict=True):
                self.writer.add_scalar(f"validation/iou {name}", float(value), done)
            print(f"iteration {done}: validation mIoU {100 * mean_iou(confusion):.2f} %", flush=True)
        self.writer.flush()
        for file in Path(self.folder.name).iterdir():
            (self.plan.output / "tensorboard" / file.name).write_bytes(file.read_bytes())
        self.marked = (done, time.monotonic())
        return self.history[-1]

    def _mean_loss(self) -> float:
        if self.losses:
            return float(torch.stack(self.losses).mean())
        return self.history[-1]["loss"] if self.history else float("nan")

    def close(self) -> None:
        """Close the event file, and remove its local copy."""
        self.writer.close()
        self.folder.cleanup()
