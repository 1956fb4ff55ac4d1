"""The torch backend equals the numba one, takes batches, and has right gradients."""

import numpy as np
import pytest
import torch
from fields import scene

from deeplab_ray.crf import CRFParams, DenseCRF
from deeplab_ray.crf.torch_backend import mean_field


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (60, 81)])
@pytest.mark.parametrize("params", [CRFParams(), CRFParams(3, 49, 5, 3, 3), CRFParams(3, 49, 5, 0, 3)])
def test_equals_numba(size: tuple[int, int], params: CRFParams) -> None:
    image, probabilities = scene(5, *size)
    numba, torch_ = (
        DenseCRF(params, "numba", tolerance=0).refine(image, probabilities),
        DenseCRF(params, "torch").refine(image, probabilities),
    )
    np.testing.assert_allclose(torch_, numba, atol=1e-4)


def test_images_of_a_batch_do_not_meet() -> None:
    scenes = [scene(4, 20, 31, seed=seed) for seed in range(3)]
    params = CRFParams(3, 20, 13, 3, 1)
    images = torch.tensor(np.stack([image for image, _ in scenes]))
    refined = mean_field(images, torch.tensor(np.stack([p for _, p in scenes])), params)
    for (image, probabilities), own in zip(scenes, refined, strict=True):
        np.testing.assert_allclose(own, DenseCRF(params, "torch").refine(image, probabilities), atol=1e-5)


@pytest.mark.parametrize("kind", ["potts", "diagonal", "matrix"])
def test_gradients_are_right(kind: str) -> None:
    image, probabilities = scene(3, 4, 5)
    given = torch.tensor(probabilities, dtype=torch.float64)[None].requires_grad_()
    w1, w2 = (torch.tensor(w, dtype=torch.float64, requires_grad=True) for w in (1.5, 0.7))
    compatibility = {
        "potts": None,
        "diagonal": torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64, requires_grad=True),
        "matrix": (1 - torch.eye(3, dtype=torch.float64)).requires_grad_(),
    }[kind]
    params = CRFParams(sigma_alpha=3, sigma_beta=20, sigma_gamma=1, iterations=3)

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        p, a, b, *mu = inputs
        return mean_field(torch.tensor(image)[None], p, params, w1=a, w2=b, compatibility=mu[0] if mu else None)

    inputs = (given, w1, w2) if compatibility is None else (given, w1, w2, compatibility)
    assert torch.autograd.gradcheck(run, inputs)


def test_a_weight_can_be_learned() -> None:
    """From a result of known weights, gradient descent finds them again."""
    image, probabilities = scene(3, 12, 12)
    images, given = torch.tensor(image)[None], torch.tensor(probabilities)[None]
    params = CRFParams(2, 5, 20, 1, 1, 3)
    target = mean_field(images, given, params)
    w1 = torch.tensor(0.5, requires_grad=True)
    optimiser = torch.optim.Adam([w1], lr=0.1)
    for _ in range(100):
        optimiser.zero_grad()
        (mean_field(images, given, params, w1=w1) - target).square().mean().backward()
        optimiser.step()
    assert abs(w1.item() - 2) < 0.05
