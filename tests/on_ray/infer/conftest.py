"""Images, a checkpoint and a prediction that several test files look at."""

from collections.abc import Mapping

import pytest
import tiny
from on_ray.infer import loop
from on_ray.infer.loop import ALL, PHOTOS, PREDICTED, photo

from deeplab_ray import datasets
from deeplab_ray.labels import ClassTable
from deeplab_ray.on_ray.infer import predict
from deeplab_ray.on_ray.infer.delivery import Delivery
from deeplab_ray.scenes.draw import render
from deeplab_ray.storage.location import locate


@pytest.fixture(scope="session")
def table() -> ClassTable:
    """The 19 classes of Cityscapes."""
    return datasets.get("cityscapes").table


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory, table: ClassTable) -> str:
    """A checkpoint of a small network for the classes of Cityscapes."""
    return str(tiny.checkpoint(tmp_path_factory.mktemp("network"), tiny.recipe(), table))


@pytest.fixture(scope="session")
def plain(network: str, table: ClassTable) -> loop.Loop:
    """The same without Ray."""
    return loop.Loop(network, tiny.recipe(), len(table))


@pytest.fixture(scope="session")
def photos(prepared_scenes: str) -> Mapping[str, bytes]:
    """Six images of several kinds and sizes on S3, by their names below PHOTOS."""
    scene = render(3, 0, 48, 96)[0]
    files = {
        "street.png": photo(scene, "PNG"),
        "deep/er/tall.bmp": photo(scene[:, 10:43].repeat(2, axis=0), "BMP"),
        "turned.jpg": photo(scene[:40, :60], "JPEG", orientation=6),
        "grey.PNG": photo(scene[:31, :, 0], "PNG"),
        "dot.png": photo(scene[:1, :1], "PNG"),
        "wide, very.webp": photo(scene[20:30].repeat(2, axis=1), "WEBP", orientation=2),
    }
    for name, content in files.items():
        (locate(PHOTOS) / name).write_bytes(content)
    return files


@pytest.fixture(scope="session")
def predicted(photos: Mapping[str, bytes], network: str) -> Delivery:
    """A prediction of `photos` in all formats at PREDICTED, in values of label files."""
    return loop.run(predict.check_request(network, PHOTOS, PREDICTED, formats=ALL, values="own"))
