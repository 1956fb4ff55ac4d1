"""What several test files share."""

import os
from collections.abc import Iterator

import pytest

from deeplab_ray.cli import start_ray
from deeplab_ray.embedded_s3 import EmbeddedS3

# Ray looks at it when it is imported, which test files do before any fixture runs.
os.environ["RAY_AUTH_MODE"] = "disabled"


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
