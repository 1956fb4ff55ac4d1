"""Augmentation: pure by key, image and label in step, padding, and the distribution of scale and mirror."""

import numpy as np
import pytest

from deeplab_ray.augment import augment, epoch_order, sample_rng
from deeplab_ray.config.recipe import AugmentConfig

MEAN = (123, 117, 104)


def blocks(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of 24×24 pixels whose colour is a function of their label, one of 5 values far apart."""
    ids = np.random.default_rng(seed).choice([0, 3, 11, 18, 255], (-(-height // 24), -(-width // 24)))
    label = np.kron(ids, np.ones((24, 24))).astype(np.uint8)[:height, :width]
    return colour(label), label


def colour(label: np.ndarray) -> np.ndarray:
    image = np.stack([label * 7, 200 - label * 9, label * 13 + 5], axis=-1).astype(np.uint8)
    image[label == 255] = MEAN
    return image


def ramp(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Every pixel's column, as grey level and as label."""
    label = np.broadcast_to(np.arange(width, dtype=np.uint8), (height, width)).copy()
    return np.repeat(label[..., None], 3, axis=2), label


def uniform_neighbourhood(label: np.ndarray, reach: int = 2) -> np.ndarray:
    """Where nothing that could have bled in, from across the crop's own border either, has another label."""
    padded = np.pad(label, reach, constant_values=254)
    side = 2 * reach + 1
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side))
    return (windows == label[..., None, None]).all(axis=(2, 3))


def test_a_sample_is_a_function_of_seed_epoch_and_id() -> None:
    image, label = blocks(90, 120)

    def crop(seed: int, epoch: int, sample_id: str) -> bytes:
        a, b = augment(image, label, AugmentConfig(crop=33), sample_rng(seed, epoch, sample_id))
        return a.tobytes() + b.tobytes()

    keys = [(1, 11, "a"), (11, 1, "a"), (1, 1, "1a"), (1, 2, "a"), (1, 11, "b"), (0, -1, "a"), (0, 1, "ä/ö")]
    crops = [crop(*key) for key in keys]
    np.random.seed(7)
    assert [crop(*key) for key in reversed(keys)] == crops[::-1]
    assert len(set(crops)) == len(keys)


def test_draws_are_the_same_on_every_machine_and_in_every_release() -> None:
    assert sample_rng(0, 0, "a").integers(0, 1000, 5).tolist() == [267, 452, 113, 903, 912]
    assert epoch_order(0, 0, 8).tolist() == [0, 5, 1, 6, 4, 3, 7, 2]


def test_inputs_stay_as_they_are() -> None:
    image, label = blocks(60, 60)
    before = image.copy(), label.copy()
    image.setflags(write=False)
    label.setflags(write=False)
    augment(image, label, AugmentConfig(crop=33), sample_rng(0, 0, "a"))
    assert np.array_equal(before[0], image)
    assert np.array_equal(before[1], label)


@pytest.mark.parametrize("size", [(90, 120), (40, 300), (17, 23), (1, 1), (65, 65), (200, 50)])
@pytest.mark.parametrize("crop", [33, 65, 97])
def test_colour_still_tells_the_label(size: tuple[int, int], crop: int) -> None:
    image, label = blocks(*size)
    for number in range(6):
        a, b = augment(image, label, AugmentConfig(crop=crop), sample_rng(0, number, "a"))
        assert (a.shape, a.dtype, b.shape, b.dtype) == ((crop, crop, 3), np.uint8, (crop, crop), np.uint8)
        assert set(np.unique(b)) <= set(np.unique(label)) | {255}  # label values are never interpolated
        sure = uniform_neighbourhood(b)
        assert np.abs(a[sure].astype(int) - colour(b)[sure]).max(initial=0) <= 1


def test_image_and_label_are_in_step_to_a_fraction_of_a_pixel() -> None:
    image, label = ramp(200, 200)
    for number in range(60):
        a, b = augment(image, label, AugmentConfig(crop=65), sample_rng(0, number, "a"))
        inner = (b > 3) & (b < 196)
        difference = a[..., 0][inner].astype(float) - b[inner]
        assert np.abs(difference).max() <= 1
        assert abs(difference.mean()) < 0.15  # a shift by half a pixel would show as 0.5


def test_window_alone_is_resampled_as_the_whole_image_would_be() -> None:
    """The shortcut of resampling only the window that becomes the crop changes nothing."""
    image = np.random.default_rng(0).integers(0, 256, (151, 173, 3), np.uint8)
    label = np.random.default_rng(1).integers(0, 20, (151, 173), np.uint8)
    config = AugmentConfig(crop=65, mirror=False)
    for number in range(20):
        small, small_label = augment(image, label, config, sample_rng(0, number, "a"))
        whole, whole_label = augment(
            image, label, AugmentConfig(crop=257, mirror=False), sample_rng(0, number, "a")
        )  # the same scale, all of the image
        rng = sample_rng(0, number, "a")
        factor, _ = rng.uniform(0.5, 1.5), rng.random()
        top, left = (int(rng.integers(0, round(n * factor) - 65 + 1)) for n in (151, 173))
        part = np.s_[top : top + 65, left : left + 65]
        assert np.abs(small.astype(int) - whole[part]).max() <= 2
        assert (small_label == whole_label[part]).mean() > 0.9  # a tie may round the other way for a row


def test_small_images_are_padded_with_mean_colour_and_ignore() -> None:
    image, label = np.full((20, 30, 3), 9, np.uint8), np.full((20, 30), 4, np.uint8)
    for mirror in (False, True):
        config = AugmentConfig(crop=65, scale_min=1, scale_max=1, mirror=mirror)
        for number in range(4):
            a, b = augment(image, label, config, sample_rng(0, number, "a"))
            assert (b[:20, :30] == 4).all()
            assert (a[:20, :30] == 9).all()
            assert (b == 4).sum() == 600
            assert (b == 255).sum() == 65 * 65 - 600
            assert (a[b == 255] == MEAN).all()


def test_at_scale_1_the_crop_is_a_window_of_the_image() -> None:
    image, label = ramp(50, 60)
    image[..., 1] = np.arange(50)[:, None]
    config = AugmentConfig(crop=33, scale_min=1, scale_max=1)
    corners = set()
    for number in range(200):
        a, b = augment(image, label, config, sample_rng(0, number, "a"))
        mirrored = b[0, 0] > b[0, -1]
        a, b = (a[:, ::-1], b[:, ::-1]) if mirrored else (a, b)
        top, left = int(a[0, 0, 1]), int(b[0, 0])
        assert np.array_equal(a, image[top : top + 33, left : left + 33])
        assert np.array_equal(b, label[top : top + 33, left : left + 33])
        corners.add((top, left))
    tops, lefts = zip(*corners, strict=True)
    assert (min(tops), max(tops), min(lefts), max(lefts)) == (0, 17, 0, 27)  # all of the image is reached


@pytest.mark.parametrize("mirror", [True, False])
def test_scale_is_uniform_and_half_are_mirrored(mirror: bool) -> None:
    image, label = ramp(140, 240)
    config = AugmentConfig(crop=65, mirror=mirror)
    slopes = []
    for number in range(400):
        _, b = augment(image, label, config, sample_rng(0, number, "a"))
        slopes.append((float(b[0, -1]) - float(b[0, 0])) / 64)
    factors = 1 / np.abs(slopes)
    assert 0.48 < factors.min() < 0.53
    assert 1.47 < factors.max() < 1.54
    # Standard errors: mean 0.289/√400 = 0.014; quartiles 0.022; share mirrored 0.025.
    assert np.quantile(factors, [0.25, 0.5, 0.75]) == pytest.approx([0.75, 1, 1.25], abs=0.08)
    assert np.mean(np.array(slopes) < 0) == pytest.approx(0.5 if mirror else 0, abs=0.08 if mirror else 0)


def test_mirror_switch_leaves_scale_and_place_alone() -> None:
    image, label = ramp(90, 120)
    for number in range(10):
        a, _ = augment(image, label, AugmentConfig(crop=33), sample_rng(0, number, "a"))
        b, _ = augment(image, label, AugmentConfig(crop=33, mirror=False), sample_rng(0, number, "a"))
        assert np.array_equal(a, b) or np.array_equal(a[:, ::-1], b)


@pytest.mark.parametrize("size", [0, 1, 2, 100])
def test_epoch_order_is_a_permutation(size: int) -> None:
    assert sorted(epoch_order(3, 5, size).tolist()) == list(range(size))


def test_epoch_order_depends_on_seed_and_epoch_alone() -> None:
    orders = {tuple(epoch_order(seed, epoch, 50)) for seed in range(3) for epoch in range(5)}
    assert len(orders) == 15
    assert np.array_equal(epoch_order(1, 2, 50), epoch_order(1, 2, 50))
