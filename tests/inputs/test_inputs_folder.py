"""Images in a folder, on a disk and on S3: every one once, whatever else lies there."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from places import fill, fill_and_open, keys

from deeplab_ray.errors import JobError, UserError
from deeplab_ray.inputs import folder as folders
from deeplab_ray.inputs import open_inputs
from deeplab_ray.storage import location as locations
from deeplab_ray.storage import patience
from deeplab_ray.storage.location import Location, locate


class TestFolder:
    NAMES = ("b.jpg", "a/c.PNG", "a/deep/er/d.Tiff", "e f ü.webp", "a.b/x.y.jpeg")

    def test_images_are_found_at_any_depth_in_any_case_and_read(self, folder: Location) -> None:
        fill(
            folder, *self.NAMES, "notes.txt", "a/jpg", ".hidden.jpg", ".git/x.jpg", "a/.thumbs/y/z.jpg", "jpg.d/readme"
        )
        inputs = open_inputs(folder.uri)
        assert inputs.uri == folder.uri
        assert keys(inputs) == sorted(self.NAMES, key=str.encode)
        again: Any = pickle.loads(pickle.dumps(inputs))
        for name in self.NAMES:
            sample = again.read(name)
            assert (sample.id, sample.image, sample.label, sample.height, sample.width) == (
                name,
                name.encode(),
                None,
                0,
                0,
            )
            assert inputs.id_of(name) is None

    def test_it_stays_small(self, tmp_path: Path) -> None:
        fill(locate(tmp_path), *(f"{i}.jpg" for i in range(50)))
        inputs = open_inputs(str(tmp_path))
        assert len(keys(inputs)) == 50
        assert len(pickle.dumps(inputs)) < 1000

    @pytest.mark.parametrize(
        ("pattern", "taken"),
        [
            ("*.jpg", ["a/b/c.jpg", "a/c.jpg", "c.jpg"]),
            ("c.*", ["a/b/c.jpg", "a/c.JPG", "a/c.jpg", "c.jpg"]),
            ("a/*.jpg", ["a/b/c.jpg", "a/c.jpg"]),
            ("*/b/*", ["a/b/c.jpg", "a/b/raw"]),
            ("raw", ["a/b/raw"]),
            ("[!c]*", ["a/b/raw"]),
        ],
    )
    def test_a_pattern(self, pattern: str, taken: list[str], tmp_path: Path) -> None:
        fill(locate(tmp_path), "c.jpg", "a/c.jpg", "a/c.JPG", "a/b/c.jpg", "a/b/raw")
        assert keys(open_inputs(str(tmp_path), None, pattern)) == taken

    def test_a_folder_inside_can_be_left_out(self, folder: Location) -> None:
        fill(folder, "a.jpg", "out/a.png", "out/deep/a.png", "output/a.png", "deep/out/a.png")
        inputs = open_inputs(folder.uri, exclude=folder / "out")
        assert keys(inputs) == ["a.jpg", "deep/out/a.png", "output/a.png"]
        assert keys(open_inputs(folder.uri, exclude=locate("s3://elsewhere/out"))) == keys(open_inputs(folder.uri))

    def test_a_single_file(self, folder: Location) -> None:
        fill(folder, "deep/one.two.jpg", "deep/other.jpg")
        inputs = open_inputs((folder / "deep/one.two.jpg").uri)
        assert inputs.uri == (folder / "deep/one.two.jpg").uri
        assert keys(inputs) == ["one.two.jpg"]
        assert inputs.id_of("one.two.jpg") == inputs.read("one.two.jpg").id == "one.two"
        assert inputs.read("one.two.jpg").image == b"deep/one.two.jpg"

    def test_more_than_a_page(self, folder: Location, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(locations, "_PAGE", 7)
        monkeypatch.setattr(folders, "PART", 10)
        names = [f"{i % 5}/{i:03d}.jpg" for i in range(60)]
        fill(folder, *names)
        assert keys(open_inputs(folder.uri)) == sorted(names)

    def test_what_went_meanwhile_is_file_not_found(self, folder: Location) -> None:
        with pytest.raises(FileNotFoundError, match=r"^gone\.jpg is missing$"):
            fill_and_open(folder).read("gone.jpg")

    @pytest.mark.parametrize("key", ["../x.jpg", "a/../../x.jpg", "a//x.jpg", "/x.jpg", "./x.jpg"])
    def test_no_key_leads_out_of_the_folder(self, folder: Location, key: str) -> None:
        with pytest.raises(ValueError, match=r"empty, \. or \.\."):
            fill_and_open(folder / "in").read(key)


class TestDisk:
    def test_dangling_links_are_listed_and_tell_when_read(self, tmp_path: Path) -> None:
        (tmp_path / "gone.jpg").symlink_to("/nowhere/at/all.jpg")
        (tmp_path / "self.jpg").symlink_to("self.jpg")
        inputs = fill_and_open(locate(tmp_path))
        assert keys(inputs) == ["a.jpg", "gone.jpg", "self.jpg"]
        with pytest.raises(FileNotFoundError, match=r"gone\.jpg is missing: a link to nothing"):
            inputs.read("gone.jpg")
        with pytest.raises(ValueError, match="cannot be read: Too many levels of symbolic links"):
            inputs.read("self.jpg")

    def test_links_to_folders_are_followed_and_none_is_searched_twice(self, tmp_path: Path) -> None:
        fill(locate(tmp_path), "in/z/a.jpg", "in/b.jpg", "out/c.jpg", "out/deep/d.jpg")
        for link, target in {
            "in/a-link": "z",  # what is listed by its real path
            "in/loop": ".",
            "in/z/up": "..",
            "in/far": "../out",
            "in/further": "../out",
            "out/back": "../in",
            "in/linked.jpg": "b.jpg",
        }.items():
            (tmp_path / link).symlink_to(target)
        assert keys(open_inputs(str(tmp_path / "in"))) == [
            "b.jpg",
            "far/c.jpg",
            "far/deep/d.jpg",
            "linked.jpg",
            "z/a.jpg",
        ]

    def test_the_folder_itself_may_be_a_link_or_hidden(self, tmp_path: Path) -> None:
        fill(locate(tmp_path), ".hidden/a.jpg")
        (tmp_path / "link").symlink_to(".hidden")
        assert keys(open_inputs(str(tmp_path / "link"))) == keys(open_inputs(str(tmp_path / ".hidden"))) == ["a.jpg"]

    def test_names_that_are_not_utf_8_are_read_under_names_that_are(self, tmp_path: Path) -> None:
        os.makedirs(os.fsencode(tmp_path) + b"/d\xff")
        for name in (b"/caf\xe9.jpg", b"/d\xff/\xe9\x41.jpg", b"/back\\xe9slash.jpg"):
            Path(os.fsdecode(os.fsencode(tmp_path) + name)).write_bytes(name)
        inputs = open_inputs(str(tmp_path))
        assert keys(inputs) == [r"back\xe9slash.jpg", r"caf\xe9.jpg", r"d\xff/\xe9A.jpg"]
        images = [inputs.read(key).image for key in keys(inputs)]
        assert images == [b"/back\\xe9slash.jpg", b"/caf\xe9.jpg", b"/d\xff/\xe9\x41.jpg"]
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\\xe9.jpg")).write_bytes(b"")
        assert keys(inputs) == [r"back\xe9slash.jpg", r"caf\xe9.jpg", r"d\xff/\xe9A.jpg"]
        with pytest.raises(UserError, match="not UTF-8"):
            open_inputs(os.fsdecode(os.fsencode(tmp_path) + b"/d\xff"))

    def test_what_is_no_file_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.jpg")
        inputs = fill_and_open(locate(tmp_path))
        assert keys(inputs) == ["a.jpg", "pipe.jpg"]
        with pytest.raises(ValueError, match="a pipe"):
            inputs.read("pipe.jpg")

    def test_a_file_too_large_for_an_image_is_not_read(self, tmp_path: Path) -> None:
        with open(tmp_path / "huge.jpg", "wb") as file:
            file.truncate(2**31)
        with pytest.raises(ValueError, match=r"the file has 2\.1 GB"):
            open_inputs(str(tmp_path)).read("huge.jpg")

    def test_a_folder_that_may_not_be_searched_is_a_key_of_its_own(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The tests may run as root, who may do everything."""
        inputs = open_inputs(fill(locate(tmp_path), "a.jpg", "locked/b.jpg").uri)
        scan = os.scandir

        def refuse(path: str) -> Any:
            if path.rstrip("/").endswith("locked"):
                raise PermissionError(13, "Permission denied")
            return scan(path)

        monkeypatch.setattr(locations.os, "scandir", refuse)
        assert keys(inputs) == ["a.jpg", "locked/"]
        with pytest.raises(ValueError, match="may not be searched by this user"):
            inputs.read("locked/")
        with pytest.raises(UserError, match=r"locked may not be read: change its permissions"):
            open_inputs(str(tmp_path / "locked"))


class TestPatience:
    """Storage that fails for a while, as S3 does; here it is the disk that does."""

    CURL = "AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 52, nothing"

    @pytest.fixture
    def slept(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        waits: list[float] = []
        monkeypatch.setattr(patience.time, "sleep", waits.append)
        monkeypatch.setattr(patience.time, "monotonic", lambda: sum(waits))
        return waits

    def fail(self, monkeypatch: pytest.MonkeyPatch, times: int, error: OSError) -> None:
        stat, left = os.stat, [error] * times

        def fails(path: Any, **options: Any) -> os.stat_result:
            if str(path).endswith("a.jpg") and left:
                raise left.pop()
            return stat(path, **options)

        monkeypatch.setattr(folders.os, "stat", fails)

    def test_a_while(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slept: list[float]) -> None:
        inputs = fill_and_open(locate(tmp_path))
        self.fail(monkeypatch, 5, OSError(self.CURL))
        assert inputs.read("a.jpg").image == b"a.jpg"
        assert len(slept) == 5

    def test_for_ever(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slept: list[float]) -> None:
        inputs = fill_and_open(locate(tmp_path))
        self.fail(monkeypatch, 10_000, OSError(self.CURL))
        with pytest.raises(JobError, match=r"does not answer .*: run the same command again"):
            inputs.read("a.jpg")
        assert sum(slept) == pytest.approx(60)

    @pytest.mark.parametrize("error", [OSError(5, "Input/output error"), PermissionError(13, "Permission denied")])
    def test_what_is_this_files_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slept: list[float], error: OSError
    ) -> None:
        inputs = fill_and_open(locate(tmp_path))
        self.fail(monkeypatch, 1, error)
        with pytest.raises(ValueError, match=f"it cannot be read: {error.strerror}"):
            inputs.read("a.jpg")
        assert not slept
