"""The training step: its loss, accumulation, nothing to learn from, and two workers against one."""

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.config.recipe import SolverConfig
from deeplab_ray.models.configs import DeepLabV2Config
from deeplab_ray.models.network import Network, Target
from deeplab_ray.models.networks import create
from deeplab_ray.training.optimizer import build_optimizer, set_rate
from deeplab_ray.training.step import class_weights, train_step

CLASSES = 5
SOLVER = SolverConfig(learning_rate=1e-2)
ITERATIONS = 3


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def network() -> Network:
    torch.manual_seed(0)
    model = create(DeepLabV2Config("resnet18", "largefov", weights="random"), CLASSES)
    model.calibrate(batch(0)[0])
    return model.train()


def batch(iteration: int, size: int = 4) -> tuple[Tensor, Tensor]:
    """Noise; the labels of the second half of the batch are mostly ignored, in iteration 1 entirely."""
    generator = torch.Generator().manual_seed(iteration)
    images = torch.randint(0, 256, (size, 33, 41, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, CLASSES, (size, 33, 41), dtype=torch.uint8, generator=generator)
    share = torch.linspace(0, 0.95, size)[:, None, None] if iteration != 1 else torch.arange(size)[:, None, None] >= 2
    labels[torch.rand(labels.shape, generator=generator) < share] = 255
    return images, labels


def halves(images: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(images.split(len(images) // 2), labels.split(len(labels) // 2), strict=True))


def train(
    model: Network,
    micro_batches: list[list[tuple[Tensor, Tensor]]],
    rate: float = SOLVER.learning_rate,
    forward: torch.nn.Module | None = None,
) -> list[float]:
    optimizer = build_optimizer(model, SOLVER)
    losses = []
    for parts in micro_batches:
        set_rate(optimizer, rate)
        losses.append(float(train_step(model, optimizer, parts, forward=forward)))
    return losses


def assert_same_weights(a: dict[str, Tensor], b: dict[str, Tensor], start: dict[str, Tensor]) -> None:
    """Equal to 1 % of how far training moved each tensor at most, and it did move them all."""
    assert a.keys() == b.keys() == start.keys()
    for name, tensor in start.items():
        if "bn" in name or "downsample.1" in name or name in ("mean", "scale"):
            assert torch.equal(a[name], tensor), name  # frozen
            continue
        moved = (a[name] - tensor).abs().max()
        assert moved > 0, name
        assert (a[name] - b[name]).abs().max() <= 1e-2 * moved, name


def test_loss_is_the_mean_cross_entropy_of_the_labelled_cells() -> None:
    model = network()
    images, labels = batch(0)
    with torch.no_grad():
        scores = model(images)[0].double()
    terms = []
    for n in range(4):
        for i in range(5):
            for j in range(6):
                truth = int(labels[n, 8 * i, 8 * j])
                if truth != 255:
                    cell = scores[n, :, i, j].tolist()
                    terms.append(math.log(sum(math.exp(s) for s in cell)) - cell[truth])
    assert 20 < len(terms) < 115
    loss = train_step(model, build_optimizer(model, SOLVER), [(images, labels)])
    assert loss.dtype == torch.float32
    assert loss.shape == ()
    assert not loss.requires_grad
    assert float(loss) == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_rare_classes_count_more_and_a_pixel_counts_one_in_the_mean() -> None:
    assert class_weights([70, 0, 30], 0).tolist() == [1, 1, 1]
    # Every class the same: 50 of 100 for each.
    assert class_weights([80, 0, 20], 1).tolist() == pytest.approx([50 / 80, 1, 50 / 20])
    assert class_weights([80, 0, 20], 0.5).tolist() == pytest.approx([c / 1.2 for c in (1, 1.2, 2)])
    assert class_weights([0, 0], 0.5).tolist() == [1, 1]


def test_weights_of_classes_multiply_their_terms_and_not_the_count() -> None:
    images, labels = batch(0)
    model, weights = network(), torch.tensor([0.5, 1.0, 2.0, 4.0, 0.0])
    with torch.no_grad():
        logs = model(images)[0].log_softmax(1)
    truth = labels[:, ::8, ::8].long()
    labelled = truth != 255
    own = -logs.permute(0, 2, 3, 1)[labelled].gather(1, truth[labelled][:, None])[:, 0]
    expected = (weights[truth[labelled]] * own).sum() / labelled.sum()
    parts = halves(images, labels)
    loss = train_step(model, build_optimizer(model, SOLVER), parts, weights=weights)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


class EveryPixel(Network):
    """Scores at every pixel: of each class a share of one colour; compared `times` over, with weights."""

    def __init__(self, times: int = 1) -> None:
        super().__init__(NetworkConfig(), CLASSES, "caffe")
        self.share = torch.nn.Parameter(torch.linspace(0, 1e-2, CLASSES))
        self.times = times

    def score(self, prepared: Tensor) -> Tensor:
        return prepared[:, :1] * self.share.view(1, -1, 1, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return super().forward(images) * self.times

    def targets(self, labels: Tensor) -> tuple[Target, ...]:
        (target,) = super().targets(labels)
        return tuple(target._replace(weight=0.5**k) for k in range(self.times))


def test_scores_at_full_size_are_held_against_every_pixel_and_their_loss_may_be_a_sum() -> None:
    model = EveryPixel()
    images, labels = batch(0)
    with torch.no_grad():
        expected = F.cross_entropy(model(images)[0], labels.long(), ignore_index=255, reduction="sum")
    labelled = int((labels != 255).sum())
    solver = SolverConfig(learning_rate=1e-12)
    for normalise, divisor in ((True, labelled), (False, 1)):
        parts = halves(images, labels)
        loss = train_step(model, build_optimizer(model, solver), parts, normalise=normalise)
        assert float(loss) == pytest.approx(float(expected) / divisor, rel=1e-4)


def test_each_output_counts_by_the_weight_of_its_target() -> None:
    solver, parts = SolverConfig(learning_rate=1e-12), halves(*batch(0))
    once, thrice = (EveryPixel(times) for times in (1, 3))
    losses = [float(train_step(model, build_optimizer(model, solver), parts)) for model in (once, thrice)]
    assert losses[1] == pytest.approx((1 + 0.5 + 0.25) * losses[0], rel=1e-5)
    torch.testing.assert_close(thrice.share.grad, 1.75 * once.share.grad)


def test_two_micro_batches_are_one_batch() -> None:
    one = network()
    start, two = copy.deepcopy(one.state_dict()), copy.deepcopy(one)
    losses = train(one, [[batch(i)] for i in range(ITERATIONS)])
    assert train(two, [halves(*batch(i)) for i in range(ITERATIONS)]) == pytest.approx(losses, rel=1e-4)
    assert_same_weights(one.state_dict(), two.state_dict(), start)


def test_repeated_on_one_batch_the_loss_falls() -> None:
    losses = train(network(), [[batch(0)]] * 6, rate=1e-3)
    assert losses[-1] < 0.8 * losses[0]


def test_a_batch_without_labels_teaches_nothing_and_breaks_nothing() -> None:
    model = network()
    start = copy.deepcopy(model.state_dict())
    images, labels = batch(0)
    solver = SolverConfig(learning_rate=1e-2, weight_decay=0)
    loss = train_step(model, build_optimizer(model, solver), [(images, torch.full_like(labels, 255))])
    assert float(loss) == 0
    assert all(torch.equal(tensor, start[name]) for name, tensor in model.state_dict().items())


def test_bfloat16_keeps_weights_and_loss_float32() -> None:
    model = network()
    loss32 = train(copy.deepcopy(model), [[batch(0)]])[0]
    loss = train_step(model, build_optimizer(model, SOLVER), [batch(0)], "bfloat16")
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(loss32, rel=0.02)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_sizes_off_the_grid_are_refused() -> None:
    model = network()
    images, labels = batch(0)
    with pytest.raises(ValueError, match=r"label of 32×41 does not fit"):
        train_step(model, build_optimizer(model, SOLVER), [(images[:, :32], labels[:, :32])])


def _ddp_worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    model = network()
    ddp = DistributedDataParallel(model, broadcast_buffers=False)
    losses = train(model, [[halves(*batch(i))[rank]] for i in range(ITERATIONS)], forward=ddp)
    # The same again with accumulation: each worker's share in two micro-batches.
    accumulated = network()
    train(
        accumulated,
        [halves(*halves(*batch(i))[rank]) for i in range(ITERATIONS)],
        forward=DistributedDataParallel(accumulated, broadcast_buffers=False),
    )
    torch.save((losses, model.state_dict(), accumulated.state_dict()), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ddp_workers_at_half_the_batch_learn_what_one_learns(tmp_path: Path) -> None:
    """The workers hold unlike numbers of labelled pixels; in iteration 1 the second holds none at all."""
    one = network()
    start = copy.deepcopy(one.state_dict())
    expected = train(one, [[batch(i)] for i in range(ITERATIONS)])
    multiprocessing.spawn(_ddp_worker, (str(tmp_path),), nprocs=2)
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for losses, weights, accumulated in results:
        assert losses == pytest.approx(expected, rel=1e-4)
        assert_same_weights(one.state_dict(), weights, start)
        assert_same_weights(one.state_dict(), accumulated, start)
    assert all(torch.equal(tensor, results[1][1][name]) for name, tensor in results[0][1].items())
