"""What every network's options have in common: sizes that fit its grid."""

from typing import ClassVar

import pytest

from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.errors import UserError


class EverySize(NetworkConfig): ...


class Even(NetworkConfig):
    step: ClassVar[int] = 2


class Stride8(NetworkConfig):
    step: ClassVar[int] = 8
    remainder: ClassVar[int] = 1


class Stride32(NetworkConfig):
    step: ClassVar[int] = 32


KINDS = [EverySize, Even, Stride8, Stride32]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pixels", [*range(-9, 130, 3), 17, 18, 33, 64])
def test_a_size_that_does_not_fit_is_refused_with_two_that_do(kind: type[NetworkConfig], pixels: int) -> None:
    config = kind()
    fits = pixels >= 17 and pixels % kind.step == kind.remainder
    if fits:
        config.check_side("crop", pixels)
        assert config.nearest_side(pixels) == pixels
        return
    with pytest.raises(UserError, match=rf"^crop {pixels} does not fit the") as refusal:
        config.check_side("crop", pixels)
    offered = [int(word) for word in str(refusal.value).split("such as ")[1].split(" or ")]
    assert offered[1] == offered[0] + kind.step
    assert offered[0] < pixels < offered[1] or offered[0] - kind.step < 17 <= offered[0]
    for side in offered:
        config.check_side("crop", side)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pixels", [0.5, 16.9, 40.4, 47.6, 100, 216.3])
def test_the_nearest_side_is_the_nearest_that_fits(kind: type[NetworkConfig], pixels: float) -> None:
    side = kind().nearest_side(pixels)
    kind().check_side("crop", side)
    others = [other for other in range(17, 400) if other % kind.step == kind.remainder]
    assert abs(side - pixels) == min(abs(other - pixels) for other in others)


def test_networks_without_a_name_are_no_choice() -> None:
    assert "" not in NetworkConfig.kinds()
    assert all(kind.name == name for name, kind in NetworkConfig.kinds().items())
