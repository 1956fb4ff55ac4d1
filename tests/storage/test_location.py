"""Places on a disk and on S3: the same few things work on both, and what is wrong is said in one line."""

import pickle
import socket
import threading
import time
from pathlib import Path

import pytest

from deeplab_ray.errors import UserError
from deeplab_ray.local.s3_server import EmbeddedS3
from deeplab_ray.storage.location import Location, check_access, check_file, check_folder, locate


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "local":
        return locate(tmp_path / "folder")
    request.getfixturevalue("s3").make_bucket("storage")
    return locate(f"s3://storage/{tmp_path.name}")


def test_files_are_written_read_and_listed(folder: Location) -> None:
    (folder / "a.bin").write_bytes(b"first")
    (folder / "a.bin").write_bytes(b"second")
    (folder / "deep/er/b.bin").write_bytes(b"")
    assert (folder / "a.bin").read_bytes() == b"second"
    assert (folder / "deep" / "er" / "b.bin").read_bytes() == b""
    assert folder.files() == ["a.bin"]
    assert folder.files(recursive=True) == ["a.bin", "deep/er/b.bin"]
    assert (folder / "a.bin").exists()
    assert (folder / "a.bin").is_file()
    assert not (folder / "deep").is_file()
    assert (folder / "a.bin").name == "a.bin"
    assert (folder / "a.bin").parent == folder


def test_what_is_not_there_is_empty_or_file_not_found(folder: Location) -> None:
    absent = folder / "absent"
    assert not absent.exists()
    assert absent.files(recursive=True) == []
    absent.delete_tree()
    with pytest.raises(FileNotFoundError):
        absent.read_bytes()


def test_a_tree_goes_and_its_neighbours_stay(folder: Location) -> None:
    for name in ("old/a", "old/deep/b", "old-but-kept", "older/c"):
        (folder / name).write_bytes(b"x")
    (folder / "old").delete_tree()
    assert folder.files(recursive=True) == ["old-but-kept", "older/c"]


def test_a_folder_is_downloaded_whole(folder: Location, tmp_path: Path) -> None:
    (folder / "a").write_bytes(b"a")
    (folder / "deep/b").write_bytes(b"b" * 100_000)
    copy = folder.download(tmp_path / "copy")
    assert (copy / "a").read_bytes() == b"a"
    assert (copy / "deep" / "b").read_bytes() == b"b" * 100_000


def test_a_local_reader_never_sees_a_part(tmp_path: Path) -> None:
    file = locate(tmp_path / "published")
    versions = [bytes([i]) * 1_000_000 for i in range(4)]
    file.write_bytes(versions[0])
    done = threading.Event()

    def write_again_and_again() -> None:
        while not done.is_set():
            for version in versions:
                file.write_bytes(version)

    writers = [threading.Thread(target=write_again_and_again) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(300):
            assert file.read_bytes() in versions
    finally:
        done.set()
        for writer in writers:
            writer.join()
    assert locate(tmp_path).files() == ["published"]


def test_a_write_that_fails_leaves_the_old_content_alone(tmp_path: Path) -> None:
    file = locate(tmp_path / "kept")
    file.write_bytes(b"old")
    with pytest.raises(TypeError):
        file.write_bytes("not bytes")  # type: ignore[arg-type]
    assert file.read_bytes() == b"old"
    assert locate(tmp_path).files() == ["kept"]


def test_a_pickled_location_holds_no_secret_and_works(s3: EmbeddedS3) -> None:
    s3.make_bucket("storage")
    place = locate("s3://storage/pickled")
    place.write_bytes(b"here")
    pickled = pickle.dumps(place)
    assert s3.environment["AWS_SECRET_ACCESS_KEY"].encode() not in pickled
    assert s3.environment["AWS_ACCESS_KEY_ID"].encode() not in pickled
    assert pickle.loads(pickled).read_bytes() == b"here"


def test_paths_become_absolute_and_uris_are_tidied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate("a/../b").path == str(tmp_path / "b")
    assert locate("~").path == str(Path.home())
    assert locate(f"file://{tmp_path}/x") == locate(tmp_path / "x")
    assert locate("s3://bucket/prefix/").uri == "s3://bucket/prefix"
    assert locate("s3://bucket/prefix/").path == "bucket/prefix"
    assert str(locate("s3://bucket") / "x") == "s3://bucket/x"
    assert locate("file:///x/") == locate("/x")


@pytest.mark.parametrize(
    ("uri", "parent"), [("/a/b", "/a"), ("/a", "/"), ("/", "/"), ("s3://a/b", "s3://a"), ("s3://a", "s3://a")]
)
def test_a_folder_lies_in_its_parent(uri: str, parent: str) -> None:
    assert locate(uri).parent == locate(parent)
    if uri != parent:
        assert locate(parent) / locate(uri).name == locate(uri)


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


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("gs://bucket/x", "gs:// is not supported"),
        ("https://host/x", "https:// is not supported"),
        ("s3://", "names no bucket"),
        ("s3:///x", "names no bucket"),
        ("s3://bucket//x", "an empty name between two slashes"),
        ("s3://key:hush@bucket/x", "must not carry keys"),
        ("s3://key:hu/sh@bucket/x", "must not carry keys"),
        ("s3://bucket/x?secret_key=hush", "must not carry keys"),
        ("s3://bucket/x#hush", "must not carry keys"),
        ("s3://[hush", "no URI"),
    ],
)
def test_a_uri_that_we_cannot_use_is_refused_without_repeating_secrets(uri: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as refused:
        locate(uri)
    assert "hu" not in str(refused.value)


def test_a_whole_bucket_is_never_emptied(s3: EmbeddedS3) -> None:
    s3.make_bucket("storage")
    (locate("s3://storage") / "survivor").write_bytes(b"x")
    with pytest.raises(UserError, match="whole bucket"):
        locate("s3://storage").delete_tree()
    assert (locate("s3://storage") / "survivor").exists()


def test_access_is_granted_to_local_places_and_our_own_bucket(s3: EmbeddedS3, tmp_path: Path) -> None:
    s3.make_bucket("storage")
    check_access()
    check_access(locate(tmp_path), locate("s3://storage/not/there/yet"))


def _refusal(uri: str) -> str:
    with pytest.raises(UserError) as refused:
        check_access(locate(uri))
    text = str(refused.value)
    assert "\n" not in text
    return text


def test_a_missing_bucket_is_named(s3: EmbeddedS3) -> None:
    assert "bucket 'no-such-bucket' does not exist" in _refusal("s3://no-such-bucket/x")
    assert "'No Bucket' is no name" in _refusal("s3://No Bucket/x")


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_a_wrong_key_is_refused_and_not_repeated(
    s3: EmbeddedS3, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    s3.make_bucket("storage")
    monkeypatch.setenv(variable, "wrongwrongwrong")
    text = _refusal("s3://storage/x")
    assert "refuses these keys for bucket 'storage' (HTTP 403)" in text
    assert "wrongwrongwrong" not in text
    assert s3.environment["AWS_SECRET_ACCESS_KEY"] not in text
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        locate("s3://storage/x").read_bytes()


def test_missing_keys_are_asked_for(s3: EmbeddedS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    assert "set AWS_ACCESS_KEY_ID" in _refusal("s3://storage/x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "half of it")
    assert "set AWS_ACCESS_KEY_ID" in _refusal("s3://storage/x")


def test_a_broken_config_file_and_a_region_that_is_none_are_named(
    s3: EmbeddedS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("AWS_REGION", "not a region!")
        assert "AWS_REGION is 'not a region!'" in _refusal("s3://storage/x")
    (tmp_path / "broken").write_text("[half\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "broken"))
    assert f"Unable to parse config file: {tmp_path / 'broken'}" in _refusal("s3://storage/x")


def test_a_proxy_of_the_shell_is_not_asked_for_the_way_to_s3(s3: EmbeddedS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    s3.make_bucket("storage")
    check_access(locate("s3://storage/x"))


def test_an_unknown_profile_is_reported(s3: EmbeddedS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_PROFILE", "absent")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    assert "AWS_PROFILE" in _refusal("s3://storage/x")


def test_an_endpoint_that_nobody_serves_is_reported_in_seconds(s3: EmbeddedS3, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as bound_but_not_listening:
        bound_but_not_listening.bind(("127.0.0.1", 0))
        port = bound_but_not_listening.getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{port}")
        start = time.monotonic()
        assert f"S3 at http://127.0.0.1:{port} cannot be reached" in _refusal("s3://storage/x")
        assert time.monotonic() - start < 10


def test_an_endpoint_without_scheme_is_reported(s3: EmbeddedS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "127.0.0.1:9000")
    assert "write http://host:port" in _refusal("s3://storage/x")
