"""Single steps, without Ray."""

from pathlib import Path

import numpy as np
import pytest
from on_ray.infer.loop import photo, seen

from deeplab_ray.images import MAX_PIXELS, decode_image
from deeplab_ray.inputs import open_inputs
from deeplab_ray.on_ray.infer.stage import Aside
from deeplab_ray.on_ray.infer.steps import Read, Reread, Shed


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_image_is_read_again_by_the_next_stage_and_a_small_one_goes_along(
    tmp_path: Path, orientation: int
) -> None:
    rng = np.random.default_rng(0)
    large = photo(rng.integers(0, 256, (600, 800, 3), np.uint8), "PNG", orientation)
    small = photo(rng.integers(0, 256, (20, 30, 3), np.uint8), "PNG", orientation)
    assert len(large) > 2**20 > len(small)
    (tmp_path / "large.png").write_bytes(large)
    (tmp_path / "small.png").write_bytes(small)
    inputs, aside = open_inputs(str(tmp_path)), Aside()
    rows = [{"key": f"{name}.png", "id": name} for name in ("large", "small", "large")]
    sent = Shed().many(Read(inputs, MAX_PIXELS).many(rows, aside), aside)
    assert [row["image"] is None for row in sent] == [True, False, True]
    came = Reread(inputs, MAX_PIXELS).many([{k: v for k, v in row.items() if k[0] != "_"} for row in sent], aside)
    for row, file in zip(came, (large, small, large), strict=True):
        assert np.array_equal(decode_image(row["image"]), seen(file))
        assert np.array_equal(row.get("_image", seen(file)), seen(file))
    (tmp_path / "large.png").unlink()
    assert len(Reread(inputs, MAX_PIXELS).many(sent, aside)) == 1
    assert [(done.key, done.stage) for done in aside.failed] == 2 * [("large.png", "read")]
