"""What several test files share."""

import os
from collections.abc import Iterator

import pytest

from deeplab_ray.local.s3_server import EmbeddedS3
from deeplab_ray.on_ray.prepare import prepare
from deeplab_ray.on_ray.session import set_environment, start_ray
from deeplab_ray.scenes import draw as scenes
from deeplab_ray.storage.location import locate

# Ray looks at these when it is imported, which test files do before any fixture runs.
os.environ["RAY_AUTH_MODE"] = "disabled"
set_environment()


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All that needs Ray goes to one of pytest's processes, so that one cluster serves it."""
    for item in items:
        if "ray_cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("ray"))


@pytest.fixture(scope="session")
def ray_cluster(s3: EmbeddedS3) -> Iterator[None]:
    """One Ray on this machine for the whole session: starting it takes longer than most tests."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        start_ray(cpus=8)
        yield
        ray.shutdown()


@pytest.fixture(scope="session")
def s3() -> Iterator[EmbeddedS3]:
    """One S3 server for the whole session, with its AWS_* variables in our environment.

    Whatever starts Ray depends on it, since Ray's workers take their environment from us.
    """
    with EmbeddedS3() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="session")
def prepared_scenes(s3: EmbeddedS3, ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """URI of 12 + 5 street scenes of 48×96 pixels, prepared on S3 in shards of 5."""
    source, output = locate(tmp_path_factory.mktemp("scenes")), "s3://tests/scenes"
    s3.make_bucket("tests")
    scenes.draw(source, {"train": 12, "val": 5}, 48, 96, seed=0)
    prepare("scenes", source.uri, output, rows_per_shard=5)
    return output
