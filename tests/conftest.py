"""What several test files share: one Ray, one S3 server, and a data set on it. README.md beside it says how.

Nothing of Ray and PyTorch is imported here, so that the rooms below Ray are tested where it is not installed.
"""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from deeplab_ray.on_ray.session import set_environment

if TYPE_CHECKING:
    from deeplab_ray.local.s3_server import EmbeddedS3

# Ray looks at these when it is imported, which test files do before any fixture runs.
os.environ["RAY_AUTH_MODE"] = "disabled"
set_environment()
if "PYTEST_XDIST_WORKER" in os.environ:
    # The processes of pytest share the cores: PyTorch would start a thread for every core in each of them.
    os.environ["OMP_NUM_THREADS"] = "1"

CRF = os.path.join("tests", "crf", "")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-tables", action="store_true", help="every preset of tests/jobs/test_every_table.py")
    parser.addoption("--fuzz", type=int, default=300, help="random calls that tests/crf/test_fuzz.py makes")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share something go to one of pytest's processes: one Ray, one S3 server; what Numba has compiled."""
    for item in items:
        if item.get_closest_marker("xdist_group"):
            continue
        # Some ask for the server by a parameter, beside a local folder.
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        names = {*getattr(item, "fixturenames", ()), *(value for value in parameters if isinstance(value, str))}
        if names & {"ray_cluster", "s3"}:
            item.add_marker(pytest.mark.xdist_group("ray"))
        elif CRF in str(item.path):
            item.add_marker(pytest.mark.xdist_group("crf"))


@pytest.fixture(scope="session")
def ray_cluster(s3: "EmbeddedS3") -> Iterator[None]:
    """One Ray on this machine for the whole session: starting it takes longer than most tests."""
    import ray

    from deeplab_ray.on_ray.session import start_ray

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        start_ray(cpus=8)
        yield
        ray.shutdown()


@pytest.fixture(scope="session")
def s3() -> Iterator["EmbeddedS3"]:
    """One S3 server for the whole session, with its AWS_* variables in our environment.

    Whatever starts Ray depends on it, since Ray's workers take their environment from us.
    """
    from deeplab_ray.local.s3_server import EmbeddedS3

    with EmbeddedS3() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="session")
def prepared_scenes(s3: "EmbeddedS3", ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """URI of 12 + 5 street scenes of 48×96 pixels, prepared on S3 in shards of 5."""
    from deeplab_ray.on_ray.prepare import prepare
    from deeplab_ray.scenes import draw as scenes
    from deeplab_ray.storage.location import locate

    source, output = locate(tmp_path_factory.mktemp("scenes")), "s3://tests/scenes"
    s3.make_bucket("tests")
    scenes.draw(source, {"train": 12, "val": 5}, 48, 96, seed=0)
    prepare("scenes", source.uri, output, rows_per_shard=5)
    return output
