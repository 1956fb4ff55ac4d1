"""A folder on a disk and on S3."""

from pathlib import Path

import pytest

from deeplab_ray.storage.location import Location, locate


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "local":
        return locate(tmp_path / "folder")
    request.getfixturevalue("s3").make_bucket("inputs")
    return locate(f"s3://inputs/{tmp_path.name}")
