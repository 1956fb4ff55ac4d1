"""A job learns at its start, in one line, whether it may read and write where it is going to; and nothing more is asked
of anybody's keys."""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from forwarder import Forwarder, Request
from pyarrow import fs
from shared_server import SharedServer

from deeplab_ray.errors import UserError
from deeplab_ray.local.s3_server import EmbeddedS3
from deeplab_ray.storage import s3 as s3_settings
from deeplab_ray.storage.access import check_access, check_file, check_folder
from deeplab_ray.storage.location import Location, locate

Be = Callable[[str], None]


def refusal(**places: list[Location]) -> str:
    with pytest.raises(UserError) as refused:
        check_access(**places)
    text = str(refused.value)
    assert "\n" not in text
    return text


def refusal_of(uri: str) -> str:
    """The same for reading and for writing."""
    place = locate(uri)
    text = refusal(read=[place])
    assert refusal(write=[place]) == text
    assert refusal(write_files=[place]) == text
    return text


def everything_in(place: Location) -> list[str]:
    """Objects of any name, those that stand for folders included."""
    bucket, _, key = place.path.partition("/")
    listing = s3_settings.client().list_objects_v2(Bucket=bucket, Prefix=f"{key}/")
    return [entry["Key"] for entry in listing.get("Contents", ())]


@pytest.fixture
def folder(shared_server: SharedServer, be: Be, request: pytest.FixtureRequest) -> Location:
    """A place of the test's own on the shared server, in which lies the object `given`."""
    place = locate(f"s3://shared/team/{request.node.name.translate(str.maketrans('[]', '__'))}")
    (place / "given").write_bytes(b"x")
    return place


def test_places_that_are_good(s3: EmbeddedS3, tmp_path: Path) -> None:
    s3.make_bucket("storage")
    check_access()
    for place in (locate(tmp_path), locate(tmp_path / "not/there/yet"), locate("s3://storage/not/there/yet")):
        check_access(read=[place], write=[place], write_files=[place / "file"])
    check_access(read=[locate("s3://storage")], write=[locate("s3://storage")])
    assert list(tmp_path.iterdir()) == []


def test_keys_for_one_prefix_are_good_for_all_that_is_done_there(folder: Location, be: Be, tmp_path: Path) -> None:
    be("team")
    output = folder / "output"
    check_access(read=[folder, folder / "given", folder / "absent"], write=[output], write_files=[folder / "new.json"])
    assert everything_in(folder) == [f"{folder.path.removeprefix('shared/')}/given"]
    (output / "a").write_bytes(b"a")
    assert (output / "a").read_bytes() == b"a"
    assert not (output / "b").exists()
    assert folder.files(recursive=True) == ["given", "output/a"]
    output.delete_tree()
    assert folder.files(recursive=True) == ["given"]
    # As Ray Train does.
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/file").write_bytes(b"deep")
    output.filesystem.create_dir((output / "checkpoint").path)
    fs.copy_files(str(tmp_path), (output / "checkpoint").path, fs.LocalFileSystem(), output.filesystem)
    assert (output / "checkpoint/deep/file").read_bytes() == b"deep"


def test_keys_for_one_prefix_are_refused_outside_of_it(shared_server: SharedServer, be: Be) -> None:
    (locate("s3://shared/other") / "theirs").write_bytes(b"x")
    be("team")
    other = locate("s3://shared/other")
    assert "does not let these keys read s3://shared/other: give them s3:ListBucket" in refusal(read=[other])
    assert "does not let these keys read s3://shared/other/theirs" in refusal(read=[other / "theirs"])
    assert "does not let these keys write to s3://shared/other: give them s3:PutObject" in refusal(write=[other])
    assert "does not let these keys write to s3://shared/other/new" in refusal(write_files=[other / "new"])
    assert "does not let these keys read s3://shared:" in refusal(read=[locate("s3://shared")])


def test_keys_that_only_read_are_refused_before_anything_is_written(folder: Location, be: Be) -> None:
    be("reader")
    check_access(read=[folder, folder / "given"])
    assert (folder / "given").read_bytes() == b"x"
    assert "does not let these keys write to" in refusal(read=[folder], write=[folder])
    assert "does not let these keys write to" in refusal(write_files=[folder / "given"])
    assert folder.files() == ["given"]


def test_keys_that_may_not_delete_are_good_for_files_alone(
    folder: Location, be: Be, shared_server: SharedServer
) -> None:
    """By a policy of the bucket, the same for all keys."""
    policy = (
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "s3:DeleteObject", '
        f'"Resource": "arn:aws:s3:::{folder.path}/*"}}]}}'
    )
    be("team")
    client = shared_server._client()
    client.put_bucket_policy(Bucket="shared", Policy=policy)
    try:
        assert "does not let these keys delete what lies in" in refusal(write=[folder])
        check_access(write_files=[folder / "report.html"])
        (folder / "report.html").write_bytes(b"report")
    finally:
        client.delete_bucket_policy(Bucket="shared")
    assert folder.files() == ["given", "report.html"]


def test_keys_for_a_single_file_are_good_for_reading_it(shared_server: SharedServer, be: Be) -> None:
    weights = locate("s3://shared/team/weights.pth")
    weights.write_bytes(b"weights")
    be("one-file")
    check_access(read=[weights])
    assert weights.read_bytes() == b"weights"
    assert "does not let these keys read" in refusal(read=[weights.parent])


def test_a_file_that_is_to_be_replaced_stays_as_it_is(folder: Location) -> None:
    check_access(write_files=[folder / "given"])
    assert (folder / "given").read_bytes() == b"x"


def test_what_aws_says_of_absent_objects_to_keys_for_one_prefix(
    folder: Location, be: Be, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers 403 for them, unless the whole bucket may be listed; SeaweedFS says 404."""
    be("team")

    def like_aws(request: Request, status: int) -> tuple[int, str] | None:
        return (403, "") if (request.method, status) == ("HEAD", 404) else None

    with Forwarder(os.environ["AWS_ENDPOINT_URL"].removeprefix("http://"), refuse=like_aws) as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", aws.url)
        output = folder / "output"
        check_access(read=[folder, folder / "absent"], write=[output], write_files=[output / "file"])
        assert folder.exists()
        assert not (folder / "absent").exists()
        assert (folder / "given").is_file()
        with pytest.raises(FileNotFoundError):
            (folder / "absent").read_bytes()
        assert output.files(recursive=True) == []
        output.delete_tree()
        (output / "a").write_bytes(b"a")
        output.delete_tree()
        assert folder.files(recursive=True) == ["given"]
        other = locate("s3://shared/elsewhere/absent")
        with pytest.raises(OSError, match="ACCESS_DENIED"):
            other.exists()


def test_what_botocore_alone_can_is_refused(folder: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    """It learns the right region from the server's answer and asks again; pyarrow does not."""

    def only_in_its_region(request: Request, status: int) -> tuple[int, str] | None:
        if "/us-east-1/" not in request.headers["Authorization"]:
            return None
        return 400, "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-test-1</Region></Error>"

    with Forwarder(os.environ["AWS_ENDPOINT_URL"].removeprefix("http://"), refuse=only_in_its_region) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        for places in ({"read": [folder]}, {"write": [folder]}, {"write_files": [folder / "file"]}):
            assert "pyarrow, which moves the data, cannot look at" in refusal(**places)
        monkeypatch.setenv("AWS_REGION", "eu-test-1")
        check_access(read=[folder], write=[folder], write_files=[folder / "file"])


def test_an_output_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check_folder(locate(tmp_path / "new/folder"))
    check_file(locate(tmp_path / "new/file"))
    with pytest.raises(UserError, match="is a file: --output is a folder"):
        check_folder(locate(tmp_path / "file"))
    with pytest.raises(UserError, match=r"file is no folder that you may write to"):
        check_folder(locate(tmp_path / "file/below"))
    with pytest.raises(UserError, match="is a folder: --output is a file"):
        check_file(locate(tmp_path))


def test_a_missing_bucket_is_named(s3: EmbeddedS3) -> None:
    assert "bucket 'no-such-bucket' does not exist" in refusal_of("s3://no-such-bucket/x")
    assert "'No Bucket' is no name" in refusal_of("s3://No Bucket/x")


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_a_wrong_key_is_refused_and_not_repeated(
    s3: EmbeddedS3, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    s3.make_bucket("storage")
    monkeypatch.setenv(variable, "wrongwrongwrong")
    text = refusal_of("s3://storage/x")
    assert "refuses these keys for bucket 'storage' (HTTP 403)" in text
    assert "wrongwrongwrong" not in text
    assert s3.environment["AWS_SECRET_ACCESS_KEY"] not in text
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        locate("s3://storage/x").read_bytes()


def test_an_endpoint_that_nobody_serves_is_reported_in_seconds(s3: EmbeddedS3, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as bound_but_not_listening:
        bound_but_not_listening.bind(("127.0.0.1", 0))
        port = bound_but_not_listening.getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{port}")
        start = time.monotonic()
        assert f"S3 at http://127.0.0.1:{port} cannot be reached" in refusal_of("s3://storage/x")
        assert time.monotonic() - start < 10
