"""What a batch prediction reads, from disk and from S3: every image once, each with an id of its own."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tiny import classes, png

from deeplab_ray import inputs as module
from deeplab_ray.errors import JobError, UserError
from deeplab_ray.images import encode_label
from deeplab_ray.inputs import FolderInputs, Inputs, SplitInputs, ids, open_inputs, with_ids
from deeplab_ray.shards import MANIFEST, Manifest, open_split, write_shard
from deeplab_ray.storage import location as locations
from deeplab_ray.storage import patience
from deeplab_ray.storage.location import Location, locate


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "local":
        return locate(tmp_path / "folder")
    request.getfixturevalue("s3").make_bucket("inputs")
    return locate(f"s3://inputs/{tmp_path.name}")


def fill(folder: Location, *names: str) -> Location:
    """Files that hold their names."""
    for name in names:
        (folder / name).write_bytes(name.encode())
    return folder


def split(folder: Location, per_shard: int = 3, shards: int = 3, name: str = "val") -> Location:
    """A prepared split of images "0-0", "0-1", …, of which each shard's last has no label; returns its folder."""
    rng = np.random.default_rng(0)
    written = []
    for number in range(shards):
        rows = [
            {
                "id": f"{number}-{row}",
                "image": png(rng.integers(0, 256, (4, 5, 3), np.uint8)),
                "label": encode_label(np.zeros((4, 5), np.uint8)) if row < per_shard - 1 else None,
                "height": 4,
                "width": 5,
            }
            for row in range(per_shard)
        ]
        written.append(write_shard(folder / name / "shards-1", f"{number:05d}.parquet", rows))
    pixels = 20 * shards * (per_shard - 1)
    manifest = Manifest("camvid", name, classes(2), [pixels, 0], [shard for shard in written if shard], [])
    (folder / name / MANIFEST).write_bytes(manifest.to_json().encode())
    return folder / name


def keys(inputs: Inputs) -> list[str]:
    found = inputs.keys()
    assert found.type == pa.large_string()
    return found.to_pylist()


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
        monkeypatch.setattr(module, "_PART", 10)
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


def fill_and_open(folder: Location) -> Inputs:
    return open_inputs(fill(folder, "a.jpg").uri)


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

        monkeypatch.setattr(module.os, "stat", fails)

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

    def test_of_a_split(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slept: list[float]) -> None:
        inputs = SplitInputs(open_split(split(locate(tmp_path)).uri, "val"))
        module._whole.cache_clear()
        read, left = module.read_shard, [OSError(self.CURL)] * 3
        monkeypatch.setattr(module, "read_shard", lambda *given: fail_once(left) or read(*given))
        assert inputs.read("4").id == "1-1"
        assert len(slept) == 3


def fail_once(errors: list[OSError]) -> None:
    if errors:
        raise errors.pop()


class TestSplit:
    @pytest.mark.parametrize("whole", [0, 2**24])
    def test_samples_by_their_numbers(self, folder: Location, monkeypatch: pytest.MonkeyPatch, whole: int) -> None:
        monkeypatch.setattr(module, "_WHOLE_BYTES", whole)
        place = split(folder)
        for inputs in (open_inputs(place.uri), open_inputs(place.uri, "val"), open_inputs(folder.uri, "val")):
            assert inputs.uri == place.uri
            assert keys(inputs) == [str(i) for i in range(9)]
        again = pickle.loads(pickle.dumps(inputs))
        prepared = open_split(folder.uri, "val")
        assert [again.read(key) for key in keys(inputs)] == [prepared.read(i) for i in range(9)]
        assert again.read("2").label is None
        assert again.id_of("2") is None
        assert ids(again, again.keys()) is None

    def test_those_with_labels(self, tmp_path: Path) -> None:
        prepared = open_split(split(locate(tmp_path)).uri, "val")
        assert keys(SplitInputs(prepared, labelled_only=True)) == ["0", "1", "3", "4", "6", "7"]

    @pytest.mark.parametrize("key", ["9", "-1", "x", ""])
    def test_no_such_key(self, tmp_path: Path, key: str) -> None:
        with pytest.raises(ValueError, match="there is no image"):
            open_inputs(split(locate(tmp_path)).uri).read(key)

    @pytest.mark.parametrize("whole", [0, 2**24])
    def test_a_damaged_shard_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: int) -> None:
        monkeypatch.setattr(module, "_WHOLE_BYTES", whole)
        inputs = open_inputs(split(locate(tmp_path)).uri)
        shards = tmp_path / "val" / "shards-1"
        (shards / "00001.parquet").write_bytes(b"damaged")
        (shards / "00002.parquet").unlink()
        assert inputs.read("0").id == "0-0"
        with pytest.raises(UserError, match=r"00001\.parquet is damaged"):
            inputs.read("3")
        with pytest.raises(UserError, match=r"00002\.parquet is missing"):
            inputs.read("6")


class TestMistakes:
    def says(self, uri: Location | str, *given: str | None) -> str:
        with pytest.raises(UserError) as refused:
            open_inputs(str(uri), *given)
        assert "\n" not in str(refused.value)
        return str(refused.value)

    def test_nothing_there(self, folder: Location) -> None:
        assert str(folder / "none") in self.says(folder / "none")
        assert "give a folder of images, an image, or a prepared set with --split" in self.says(folder / "none")

    def test_no_such_bucket(self, s3: Any) -> None:
        assert "there is no folder s3://no-such-bucket/x" in self.says("s3://no-such-bucket/x")

    def test_a_folder_without_images(self, folder: Location) -> None:
        fill(folder, "a.txt", "b.txt", "c/d.pdf", "c/README", "c/e.JPG")
        assert "of 5 files below" in (text := self.says(folder, None, "*.jpg"))
        assert "none matches --pattern '*.jpg': there are 2 .txt, 1 " in text
        assert "1 .JPG" in text
        fill(folder / "other", "a.txt", "b.txt", "c/d.pdf")
        text = self.says(folder / "other")
        assert "of 3 files below" in text
        assert "none is an image (.jpg, .jpeg, .png" in text
        assert "there are 2 .txt, 1 .pdf; name what to take by --pattern" in text

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        assert self.says(tmp_path).startswith(f"there is no file below {tmp_path}: ")

    def test_a_prepared_set_without_a_split_named(self, folder: Location) -> None:
        split(folder, name="val")
        split(folder, name="train")
        assert f"{folder} is a prepared set: name one of its splits (train, val) by --split" in self.says(folder)
        assert "no prepared split 'test'" in self.says(folder, "test")

    def test_a_pattern_that_would_have_no_effect(self, folder: Location) -> None:
        place = split(folder)
        fill(folder, "one.jpg")
        for uri, name in ((place, None), (place, "val"), (folder, "val"), (folder / "one.jpg", None)):
            assert "--pattern '*.png' is for a folder of images" in self.says(uri, name, "*.png")

    def test_a_broken_manifest_and_one_of_another_program(self, tmp_path: Path) -> None:
        place = split(locate(tmp_path))
        text = (place / MANIFEST).read_bytes()
        (place / MANIFEST).write_bytes(text[:-40])
        assert "is broken" in self.says(place)
        (place / MANIFEST).write_bytes(b'{"name": "a web page", "icons": []}')
        fill(place, "icon.png")
        assert keys(open_inputs(place.uri)) == ["icon.png"]


class TestIds:
    def of(self, *names: str) -> list[str]:
        found = with_ids(pa.array(names, pa.string()))
        assert found.type == pa.large_string()
        return found.to_pylist()

    def test_paths_without_their_endings(self) -> None:
        names = ("a.jpg", "a/b.c.png", "a.b/c", "d.e/.f", "x/no ending", "line\nend.jpg", "ü/ö.TIFF", "g..jpg")
        assert self.of(*names) == ["a", "a/b.c", "a.b/c", "d.e/.f", "x/no ending", "line\nend", "ü/ö", "g."]
        assert self.of() == []

    def test_those_that_share_it_keep_their_whole_names(self) -> None:
        assert self.of("a.jpg", "a.png", "b/a.png", "c.jpg") == ["a.jpg", "a.png", "b/a", "c"]

    @pytest.mark.parametrize(
        ("one", "other"),
        [("IMG.jpg", "img.png"), ("Dir/a.jpg", "dir/A.jpg"), ("Straße.jpg", "STRASSE.png"), ("é.jpg", "é.png")],
    )
    def test_those_that_some_file_systems_take_for_the_same_share_it(self, one: str, other: str) -> None:
        assert self.of(one, "between.jpg", other) == [one, "between", other]

    def test_no_id_is_anothers_whole_name(self) -> None:
        names = ("a.jpg", "a.png", "a.jpg.tif", "A.jpg.tif.bmp", "a.jpeg.tif", "b.jpg.tif")
        assert self.of(*names) == ["a.jpg", "a.png", "a.jpg.tif", "A.jpg.tif.bmp", "a.jpeg", "b.jpg"]

    def test_against_a_slow_way(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_PART", 7)
        rng = np.random.default_rng(0)
        for _ in range(100):
            parts = rng.choice(["a", "A", "b", "é", ".jpg", ".JPG", ".png", "/a", "-"], (rng.integers(0, 40), 4))
            names = sorted({f"x{''.join(row)}" for row in parts})
            found = self.of(*names)
            assert len(set(found)) == len(names)
            stems = [os.path.splitext(name)[0].casefold() for name in names]
            for name, stem, id in zip(names, stems, found, strict=True):
                assert id in (name, os.path.splitext(name)[0])
                if stems.count(stem) > 1:
                    assert id == name

    def test_of_a_folder(self, tmp_path: Path) -> None:
        inputs = open_inputs(fill(locate(tmp_path), "a.jpg", "b/a.jpg", "b/a.png").uri)
        assert isinstance(inputs, FolderInputs)
        found = ids(inputs, inputs.keys())
        assert found is not None
        assert found.to_pylist() == ["a", "b/a.jpg", "b/a.png"]
