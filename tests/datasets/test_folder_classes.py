"""The classes of anybody's own labels, from files of several kinds."""

from pathlib import Path

import numpy as np
import pytest

from deeplab_ray import datasets
from deeplab_ray.datasets.folder import read_classes
from deeplab_ray.datasets.folder.classes import ClassEntry, ClassList
from deeplab_ray.errors import UserError
from deeplab_ray.labels import IGNORE


def read(folder: Path, name: str, content: str | bytes) -> ClassList:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return read_classes(str(folder / name))


def test_names_on_the_command_line() -> None:
    assert read_classes("road, sky").entries == (ClassEntry("road"), ClassEntry("sky"))
    assert read_classes("no car=0,car=255").numbers() == {0: ClassEntry("no car", 0), 255: ClassEntry("car", 255)}


def test_a_name_a_line(tmp_path: Path) -> None:
    classes = read(tmp_path, "c.txt", "\ufeffsky\r\ntraffic sign\r\n\r\n")
    assert {value: entry.name for value, entry in classes.numbers().items()} == {0: "sky", 1: "traffic sign"}
    assert classes.palette == datasets.get("voc12").palette[:2]


def test_what_annotation_tools_ignore_has_no_number_of_its_own(tmp_path: Path) -> None:
    classes = read(tmp_path, "labels.txt", "__ignore__\n_background_\ncat\n")
    assert {value: entry.name for value, entry in classes.numbers().items()} == {
        255: "__ignore__",
        0: "_background_",
        1: "cat",
    }
    assert classes.train_ids() == {"__ignore__": IGNORE, "_background_": 0, "cat": 1}


@pytest.mark.parametrize(
    "content",
    [
        "name,value,colour,ignore\nvoid,9,#000000,yes\nsky,3,#0a0b0c,\nroad,4,#ffffff,no\n",
        "Name;ID;R;G;B;void\nvoid;9;0;0;0;1\nsky;3;10;11;12;0\nroad;4;255;255;255;0\n",
        'class,index,rgb,ignore,remark\nvoid,9,0 0 0,true,x\nsky,3,"10,11,12",false,\nroad,4,"(255, 255, 255)",,\n',
        "label\tvalue\tcolor\tignored\nvoid\t9\t000000\tx\nsky\t3\t0A0B0C\t\nroad\t4\tFFFFFF\n",
    ],
)
def test_tables_as_people_have_them(tmp_path: Path, content: str) -> None:
    assert read(tmp_path, "c.CSV", content).entries == (
        ClassEntry("void", 9, (0, 0, 0), ignore=True),
        ClassEntry("sky", 3, (10, 11, 12)),
        ClassEntry("road", 4, (255, 255, 255)),
    )


def test_without_values_the_place_in_the_list_counts_ignored_ones_too(tmp_path: Path) -> None:
    classes = read(tmp_path, "c.csv", "name,ignore\nvoid,yes\nsky,\nroad,\n")
    assert {value: entry.name for value, entry in classes.numbers().items()} == {0: "void", 1: "sky", 2: "road"}
    assert classes.train_ids() == {"void": IGNORE, "sky": 0, "road": 1}


def test_json_of_names_of_objects_and_of_a_prepared_set(tmp_path: Path) -> None:
    assert read(tmp_path, "names.json", '["sky", "road"]') == read_classes("sky,road")
    classes = read(tmp_path, "objects.json", '[{"name": "sky", "id": 7, "color": [1, 2, 3]}, {"name": "x", "id": 8}]')
    assert classes.entries == (ClassEntry("sky", 7, (1, 2, 3)), ClassEntry("x", 8))
    import json

    table = datasets.get("camvid").table
    classes = read(tmp_path, "manifest.json", json.dumps({"format": 2, **table.to_json()}))
    assert tuple(entry.name for entry in classes.classes) == table.names
    assert classes.palette == table.colours
    assert tuple(entry.value for entry in classes.classes) == table.values
    assert classes.numbers()[table.ignore_value].ignore


def test_what_is_saved_reads_back_the_same(tmp_path: Path) -> None:
    entries = (ClassEntry("Straße", 3, (1, 2, 3)), ClassEntry("b", 4), ClassEntry("void", 9, ignore=True))
    for classes in (ClassList(entries), ClassList((ClassEntry("a", colour=(0, 0, 1)), ClassEntry("b")))):
        assert read(tmp_path, "c.json", classes.to_json()) == classes


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.txt", "sky\nroad,3\n", r"c.txt, line 2: 'road,3' is more than a name: call the file .csv"),
        ("c.txt", "sky\n\nroad\nsky\n", r"c.txt, line 4: the name 'sky' stands in line 1, too"),
        ("c.txt", "\n", r"c.txt has 0 classes"),
        ("c.txt", b"\xff\xfes\x00", r"c.txt is no UTF-8 text"),
        ("c.csv", "sky,0\nroad,1\n", r"c.csv, line 1: it should name the columns"),
        ("c.csv", "name,value\nsky,0\nroad,300\n", r"c.csv, line 3: the value of 'road' is '300'"),
        ("c.csv", "name,value\nsky,0\nroad,0\n", r"c.csv, line 3: the value 0 stands in line 2, too"),
        ("c.csv", "name,value\nsky,0\nroad,\n", r"c.csv, line 3: 'road' has no value, and others have"),
        ("c.csv", "name,colour\nsky,blue\n", r"c.csv, line 2: the colour of 'sky' is 'blue': write #rrggbb"),
        ("c.csv", "name,colour\nsky,1,2,3\n", r"c.csv, line 2: 4 cells in 2 columns"),
        ("c.csv", "name,r,g,b\nsky,1,2,300\n", r"c.csv, line 2: the colour of 'sky'"),
        ("c.csv", "name,ignore\nsky,perhaps\n", r"c.csv, line 2: ignore is 'perhaps' for 'sky': write yes or no"),
        ("c.csv", "name,value\n,0\n", r"c.csv, line 2: it has no name"),
        ("c.csv", "name,ignore\nsky,yes\n", r"c.csv has 0 classes that are not ignored"),
        ("c.json", '["sky",\n]', r"c.json, line 2: it is no JSON"),
        ("c.json", '{"names": []}', r"c.json has no list of classes"),
        ("c.json", '["sky", 3]', r"c.json, class 2: 3 is neither a name nor an object"),
        ("c.json", '[{"value": 3}]', r"c.json, class 1: it has no name"),
    ],
)
def test_wrong_files_are_refused_with_the_line(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, name, content)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no file .*c\.csv: --classes"):
        read_classes(str(tmp_path / "c.csv"))


def test_255_classes_fit_and_256_do_not() -> None:
    names = [f"c{number}" for number in range(256)]
    palette = read_classes(",".join(names[:255])).palette
    assert len(np.unique(palette, axis=0)) == 255
    with pytest.raises(UserError, match="256 classes"):
        read_classes(",".join(names))
