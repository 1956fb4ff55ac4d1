"""What cannot be read is refused in one line that says what to do."""

from pathlib import Path
from typing import Any

import pytest
from places import fill, keys, split

from deeplab_ray.errors import UserError
from deeplab_ray.inputs import open_inputs
from deeplab_ray.shards import MANIFEST
from deeplab_ray.storage.location import Location, locate


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
