"""Batch norms: frozen ones stay, trained ones follow the batch, synchronised ones that of all workers."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from deeplab_ray.config.recipe import SolverConfig
from deeplab_ray.models.configs import BatchNorm, DeepLabV2Config
from deeplab_ray.models.network import Network
from deeplab_ray.models.networks import create
from deeplab_ray.models.norm import FrozenBatchNorm2d, SynchronisedBatchNorm2d, norms_that_train
from deeplab_ray.training.optimizer import build_optimizer
from deeplab_ray.training.step import train_step

CLASSES = 5
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
Result = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network(kind: BatchNorm) -> Network:
    torch.manual_seed(0)
    return create(DeepLabV2Config("resnet18", "largefov", weights="random", batch_norm=kind), CLASSES)


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images that get brighter one by one, so that every half has statistics of its own."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 60, (4, 33, 41, 3), generator=generator) + 50 * torch.arange(4).view(4, 1, 1, 1)
    labels = torch.randint(0, CLASSES, (4, 33, 41), generator=generator)
    labels[2:, :20] = 255
    return images.to(torch.uint8), labels.to(torch.uint8)


def train(model: Network, iterations: int = 2) -> None:
    optimizer = build_optimizer(model.train(), SolverConfig(learning_rate=1e-3))
    for iteration in range(iterations):
        train_step(model, optimizer, [batch(iteration)])


@pytest.mark.parametrize("kind", ["trained", "synchronised"])
def test_norms_that_train_follow_the_batches(kind: BatchNorm) -> None:
    model = network(kind)
    before = copy.deepcopy(model.state_dict())
    train(model)
    after = model.state_dict()
    norms = [name for name, module in model.named_modules() if module in norms_that_train(model)]
    assert len(norms) == 20
    assert model.buffers_train
    for name in norms:
        assert all(not torch.equal(after[f"{name}.{kind}"], before[f"{name}.{kind}"]) for kind in STATISTICS), name
        assert after[f"{name}.num_batches_tracked"] == 2
        assert not torch.equal(after[f"{name}.weight"], before[f"{name}.weight"])
    model.eval()(batch()[0])
    assert all(torch.equal(tensor, after[name]) for name, tensor in model.state_dict().items())


def test_frozen_norms_stay_as_they_are() -> None:
    model = network("frozen")
    model.calibrate(batch()[0])
    norms = [module for module in model.modules() if isinstance(module, FrozenBatchNorm2d)]
    before = copy.deepcopy([norm.state_dict() for norm in norms])
    train(model)
    assert len(norms) == 20
    for norm, old in zip(norms, before, strict=True):
        assert set(old) == {"weight", "bias", "running_mean", "running_var"}
        assert all(torch.equal(tensor, old[name]) for name, tensor in norm.state_dict().items())
    assert not norms_that_train(model)


@pytest.mark.parametrize("kind", ["trained", "synchronised"])
def test_a_network_scores_with_the_statistics_that_it_saved(kind: BatchNorm) -> None:
    """What was trained in a run scores the same in every later one, by itself or in company."""
    model = network(kind)
    train(model)
    other = network("trained")
    other.load_state_dict(model.state_dict())
    images = batch()[0]
    with torch.no_grad():
        together = model.eval()(images)
        assert torch.equal(other.eval()(images), together)
        torch.testing.assert_close(other(images[:1]), together[:1], rtol=1e-4, atol=1e-4)


def test_alone_a_synchronised_norm_is_a_plain_one() -> None:
    ours, theirs = SynchronisedBatchNorm2d(3).train(), nn.BatchNorm2d(3).train()
    x = torch.randn(4, 3, 5, 6)
    assert torch.equal(ours(x), theirs(x))
    assert all(torch.equal(tensor, ours.state_dict()[name]) for name, tensor in theirs.state_dict().items())


@torch.no_grad()
def test_calibration_centres_every_norm_and_gives_it_the_spread_of_its_scale() -> None:
    model = network("frozen")
    images = torch.randint(0, 256, (4, 65, 65, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    model.calibrate(images)
    outputs: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.register_forward_hook(lambda _m, _i, output, name=name: outputs.update({name: output}))
    model(images)
    assert len(outputs) == 20
    for name, output in outputs.items():
        assert output.mean((0, 2, 3)).abs().max() < 1e-3, name
        scale = model.get_submodule(name).weight
        assert (output.std((0, 2, 3)) / scale - 1).abs().max() < 1e-2, name
    before = copy.deepcopy(model.state_dict())
    model(images // 3)  # the hooks are gone: nothing is measured any more
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# Two workers


def _alone(norm: nn.BatchNorm2d, x: Tensor, iterations: int = 2) -> Result:
    """The last outputs of a norm, its gradients and statistics, under a loss that tells cells apart."""
    x = x.clone().requires_grad_()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        norm.bias.copy_(torch.tensor([1.0, 0.0, -1.0]))
    for _ in range(iterations):
        y = norm.train()(x)
        (y * torch.sin(3 * x.detach()) + y**3).sum().backward()
    return {"outputs": y.detach(), "inputs": x.grad, "scale": norm.weight.grad, "shift": norm.bias.grad} | {
        name: getattr(norm, name) for name in STATISTICS
    }


def _uneven() -> Tensor:
    """4×3×5×6, every image with a mean and a spread of its own."""
    noise = torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    return noise * torch.tensor([0.1, 1, 2, 4]).view(4, 1, 1, 1) + torch.tensor([-5.0, 0, 1, 7]).view(4, 1, 1, 1)


class _Scores(nn.Module):
    """A network on prepared images, in float64: in float32 rounding puts cells on the other side of a ReLU."""

    def __init__(self, kind: BatchNorm) -> None:
        super().__init__()
        self.network = network(kind).double().train()

    def forward(self, prepared: Tensor) -> Tensor:
        return self.network.score(prepared)

    def step(self, images: Tensor, forward: nn.Module, workers: int) -> Result:
        """What comes out, gradients of the sum over workers of a loss that tells cells apart, and the statistics."""
        prepared = self.network.prepare(images).double()
        outputs = forward(prepared)
        loss = (outputs * torch.linspace(-1, 1, outputs[0].numel()).view_as(outputs[0]) + outputs**2).sum()
        (loss * workers).backward()  # DDP averages
        gradients = {name: parameter.grad for name, parameter in self.network.named_parameters()}
        return {"outputs": outputs.detach()} | gradients | dict(self.network.named_buffers())


def _worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    mine = slice(2 * rank, 2 * rank + 2)
    alone = _alone(SynchronisedBatchNorm2d(3), _uneven()[mine])
    model = _Scores("synchronised")
    in_network = model.step(batch()[0][mine], DistributedDataParallel(model, broadcast_buffers=False), 2)
    torch.save((alone, in_network), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_synchronised_over_two_workers_is_pytorchs_over_the_whole_batch(tmp_path: Path) -> None:
    multiprocessing.spawn(_worker, (str(tmp_path),), nprocs=2)
    of_workers = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    alone, in_network = zip(*of_workers, strict=True)

    whole = _alone(nn.BatchNorm2d(3), _uneven())
    for name in ("outputs", "inputs"):
        torch.testing.assert_close(torch.cat([part[name] for part in alone]), whole[name], rtol=1e-4, atol=1e-5)
    for name in ("scale", "shift"):  # which DDP would add up
        torch.testing.assert_close(sum(part[name] for part in alone), whole[name], rtol=1e-4, atol=1e-4)
    for name in STATISTICS:
        for part in alone:
            torch.testing.assert_close(part[name], whole[name], rtol=1e-5, atol=1e-6)

    model = _Scores("trained")
    expected = model.step(batch()[0], model, 1)
    _assert_close("outputs", torch.cat([part["outputs"] for part in in_network]), expected.pop("outputs"))
    assert len(expected) > 100
    for name, tensor in expected.items():
        for part in in_network:
            _assert_close(name, part[name], tensor)


def _assert_close(name: str, ours: Tensor, theirs: Tensor) -> None:
    largest = float(theirs.abs().max())
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9 * largest, msg=lambda text: f"{name}: {text}")
