"""Ids of files: short, and no two are the same, on any file system."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from places import fill

from deeplab_ray.inputs import FolderInputs, ids, naming, open_inputs, with_ids
from deeplab_ray.storage.location import locate


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
        monkeypatch.setattr(naming, "PART", 7)
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
