"""Places on a disk and on S3: the same few things work on both."""

import os
import pickle
import threading
from pathlib import Path

import pytest

from deeplab_ray.errors import UserError
from deeplab_ray.local.s3_server import EmbeddedS3
from deeplab_ray.storage import location
from deeplab_ray.storage.location import Location, locate


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
    assert folder.folders() == ["deep"]
    assert (folder / "a.bin").exists()
    assert (folder / "a.bin").is_file()
    assert not (folder / "deep").is_file()
    assert (folder / "a.bin").name == "a.bin"
    assert (folder / "a.bin").parent == folder


def test_what_is_not_there_is_empty_or_file_not_found(folder: Location) -> None:
    absent = folder / "absent"
    assert not absent.exists()
    assert absent.files(recursive=True) == absent.folders() == []
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


def walked(folder: Location, exclude: Location | None = None) -> list[str]:
    return sorted(name for page in folder.walk(exclude) for name in page)


def test_all_below_a_folder_comes_in_pages(folder: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(location, "_PAGE", 5)
    names = [f"{i % 3}/{i:02d}" for i in range(23)]
    for name in (*names, "out/x", "outer/x", "deep/out/x", ".hidden", ".git/x", "deep/.git/deeper/x"):
        (folder / name).write_bytes(b"")
    assert walked(folder, folder / "out") == sorted([*names, "outer/x", "deep/out/x"])
    assert walked(folder) == sorted([*names, "out/x", "outer/x", "deep/out/x"])
    assert walked(folder, locate("s3://other/out")) == walked(folder, locate("/other/out")) == walked(folder)
    assert all(len(page) <= 5 for page in folder.walk())
    assert walked(folder / "out") == ["x"]


def test_walking_nowhere(folder: Location, s3: EmbeddedS3) -> None:
    if folder.is_s3:
        assert walked(folder / "absent") == []
    else:
        with pytest.raises(FileNotFoundError):
            walked(folder / "absent")
    with pytest.raises(FileNotFoundError):
        walked(locate("s3://there-is-no-such-bucket/x"))


def test_folders_that_link_to_each_other_are_walked_once(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "file").touch()
        for other in range(12):
            (tmp_path / str(number) / f"to{other}").symlink_to(f"../{other}")
    (tmp_path / "dangling").symlink_to("nowhere")
    assert walked(locate(tmp_path)) == sorted([*(f"{number}/file" for number in range(12)), "dangling"])


def test_a_walk_finds_links_to_other_folders_by_the_same_path_each_time(tmp_path: Path) -> None:
    for name in ("in/real/a", "out/b"):
        locate(tmp_path / name).write_bytes(b"")
    for link in ("z", "c", "real/link"):
        (tmp_path / "in" / link).symlink_to(tmp_path / "out")
    assert walked(locate(tmp_path / "in")) == ["c/b", "real/a"]


def test_the_way_back_from_names_that_are_not_utf_8(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/\xe9\xff"
    Path(os.fsdecode(raw)).write_bytes(b"")
    assert walked(locate(tmp_path)) == [r"\xe9\xff"]
    assert os.fsencode(locate(tmp_path).local_path(r"\xe9\xff")) == raw
    assert locate("/a").local_path("b/c") == "/a/b/c"
