"""Trees and files of published datasets that are not as they should be: each is told in a line that says what to do."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import trees
from scipy.io import savemat

from deeplab_ray import datasets
from deeplab_ray.datasets.base import MissingSplitError
from deeplab_ray.errors import UserError
from deeplab_ray.on_ray.prepare import check_request
from deeplab_ray.storage.location import locate


def mat(**variables: object) -> bytes:
    file = io.BytesIO()
    savemat(file, variables)
    return file.getvalue()


def decode(name: str, data: bytes, drawn: object = None) -> np.ndarray:
    return datasets.get(name).labels.decode(data, trees.HEIGHT, trees.WIDTH, drawn)


@pytest.mark.parametrize("name", datasets.names())
def test_a_split_that_is_not_there_is_missing_and_no_mistake(name: str, tmp_path: Path) -> None:
    for split in datasets.get(name).splits:
        with pytest.raises(MissingSplitError, match=r"^no .* below .*: --source is the folder"):
            datasets.get(name).pairs(locate(tmp_path), split)


@pytest.mark.parametrize(
    ("list_", "sentence"),
    [
        (b"/JPEGImages/a.jpg /SegmentationClass/a.png\n", "has a line"),
        (b"2007_t0 1\n2007_t1 -1\n", "has a line '2007_t0 1'"),
        (b"\xff\xfe2\x000\x00", "is no text"),
        (b"\n\n", "is empty"),
    ],
)
def test_a_list_that_is_there_but_wrong_ends_the_job_though_no_split_was_named(
    list_: bytes, sentence: str, tmp_path: Path
) -> None:
    trees.voc12(tmp_path)
    (tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/trainaug.txt").write_bytes(list_)
    with pytest.raises(
        UserError, match=rf"trainaug\.txt {sentence}.*: it should list the split's images, one id a line"
    ):
        check_request("voc12", str(tmp_path), str(tmp_path / "out"))


def test_a_list_may_have_windows_ends_a_byte_order_mark_blank_lines_and_one_name_twice(tmp_path: Path) -> None:
    trees.voc12(tmp_path)
    file = tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"
    file.write_bytes("\ufeff2007_v1\r\n\r\n2007_v0 \r\n2007_v1\r\n".encode())
    assert [pair.id for pair in datasets.get("voc12").pairs(locate(tmp_path), "val")] == ["2007_v0", "2007_v1"]


def test_trainaug_without_sbd_says_where_it_is_looked_for(tmp_path: Path) -> None:
    trees.voc12(tmp_path)
    (tmp_path / "SBD").rename(tmp_path / "elsewhere")
    with pytest.raises(
        MissingSplitError, match=r"SBD \(SBD or benchmark_RELEASE/dataset, with train\.txt.*must be there"
    ):
        datasets.get("voc12").pairs(locate(tmp_path), "trainaug")
    (tmp_path / "elsewhere/val.txt").unlink()
    (tmp_path / "elsewhere").rename(tmp_path / "SBD")
    with pytest.raises(UserError, match=r"has train\.txt, but no val\.txt: copy SBD as a whole"):
        datasets.get("voc12").pairs(locate(tmp_path), "trainaug")


def test_images_without_a_label_file_stay_in_their_split(tmp_path: Path) -> None:
    for name, maker, file, split in (
        ("voc12", trees.voc12, "SBD/cls/2008_s0.mat", "trainaug"),
        ("voc11", trees.voc11, "benchmark_RELEASE/dataset/cls/2008_s0.mat", "train"),
        ("context", trees.context, "trainval/2008_a.mat", "train"),
        ("personpart", trees.personpart, "Annotations_Part/2008_a.mat", "train"),
        ("ade20k", trees.ade20k, "ADEChallengeData2016/annotations/training/ADE_train_00000001.png", "train"),
    ):
        count = len(maker(tmp_path / name)[split])
        (tmp_path / name / file).unlink()
        pairs = datasets.get(name).pairs(locate(tmp_path / name), split)
        assert (len(pairs), [pair.id for pair in pairs if not pair.has_label]) == (count, [Path(file).stem])


def test_matlab_files_that_hold_something_else_are_refused_with_the_reason() -> None:
    good = mat(LabelMap=np.zeros((4, 4), np.uint16))
    for name, data, reason in (
        ("context", b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + bytes(86) + b"\x00\x02IM", "version 7.3, not 5"),
        ("context", good[:150], "no MATLAB file that can be read"),
        ("context", b"", "no MATLAB file that can be read"),
        ("context", mat(other=1.0), "no variable LabelMap, only other"),
        ("context", mat(LabelMap="text"), "LabelMap is no matrix of numbers"),
        ("context", mat(LabelMap=np.full((4, 4), 0.5)), "not whole"),
        ("context", mat(LabelMap=np.full((4, 4), 460)), r"label value 460 \(16 pixels\) is not in context's table"),
        ("voc12", mat(GTinst=1.0), "no variable GTcls, only GTinst"),
        ("voc12", mat(GTcls={"Boundaries": 1.0}), "no field Segmentation"),
        ("voc12", mat(GTcls={"Segmentation": np.full((4, 4), 21)}), "label value 21"),
        ("personpart", mat(anno={"imname": "a"}), "no field objects"),
    ):
        with pytest.raises(ValueError, match=reason):
            decode(name, data)


def test_parts_that_pascal_part_does_not_have_are_refused() -> None:
    mask = np.ones((4, 4), np.uint8)

    def anno(name: str, other: np.ndarray) -> bytes:
        person = {"class": "person", "mask": mask, "parts": trees.structs({"part_name": name, "mask": other})}
        return mat(anno={"objects": trees.structs(person)})

    assert (decode("personpart", anno("head", mask)) == 1).all()
    with pytest.raises(ValueError, match=r"a part 'tail' of a person"):
        decode("personpart", anno("tail", mask))
    with pytest.raises(ValueError, match=r"masks of two sizes, 4×4 and 5×4"):
        decode("personpart", anno("head", np.ones((4, 5), np.uint8)))


def test_a_labels_txt_with_other_numbers_than_contexts_is_refused(tmp_path: Path) -> None:
    trees.context(tmp_path)
    text = (tmp_path / "labels.txt").read_text(encoding="utf-8")
    (tmp_path / "labels.txt").write_text(text.replace("2: aeroplane", "1: aeroplane"), encoding="utf-8")
    with pytest.raises(UserError, match=r"labels\.txt does not say that aeroplane is 2"):
        datasets.get("context").pairs(locate(tmp_path), "train")


def test_cityscapes_polygons_that_cannot_be_drawn_are_refused_with_the_reason() -> None:
    for change, reason in (
        ({"objects": [{"label": "unicorn", "polygon": [[0, 0], [9, 0], [9, 9]]}]}, "'unicorn', which is none of"),
        ({"objects": [{"polygon": []}]}, "no JSON file of Cityscapes' polygons"),
        ({"objects": [{"label": "road", "polygon": [[0, 0]]}]}, "coordinate list"),
        ({"imgHeight": None}, "no JSON file of Cityscapes' polygons"),
    ):
        with pytest.raises(ValueError, match=reason):
            decode("cityscapes", json.dumps({**trees.POLYGONS, **change}).encode())
    with pytest.raises(ValueError, match="label is no JSON"):
        decode("cityscapes", b'{"imgHeight": 3,')


def test_a_broken_segmentation_of_coco_spoils_its_image_alone(tmp_path: Path) -> None:
    trees.coco(tmp_path)
    given = trees.instances(2017)
    given["annotations"][0]["segmentation"] = [[1, 2]]
    given["annotations"][3]["segmentation"] = {"size": [3, 3], "counts": [9]}
    (tmp_path / "annotations/instances_val2017.json").write_text(json.dumps(given), encoding="utf-8")
    first, second, third, _ = datasets.get("coco").pairs(locate(tmp_path), "val")
    with pytest.raises(ValueError, match="a segmentation cannot be drawn"):
        decode("coco", b"", first.drawn)
    with pytest.raises(ValueError, match=r"a segmentation is for \[3, 3\] pixels, not \[36, 44\]"):
        decode("coco", b"", second.drawn)
    assert not decode("coco", b"", third.drawn).any()


def test_a_coco_file_of_something_else_is_refused(tmp_path: Path) -> None:
    trees.coco(tmp_path)
    file, given = tmp_path / "annotations/instances_val2017.json", trees.instances(2017)
    renamed = [{"id": 1, "name": "unicorn"}]
    for text in (
        "",
        "[]",
        "{}",
        json.dumps(given)[:-40],
        json.dumps({**given, "images": []}),
        json.dumps({**given, "images": [{"file_name": "a.jpg"}]}),
        json.dumps({**given, "categories": renamed}),
        json.dumps(given).replace(", ", "; ", 3),
    ):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=r"instances_val2017\.json is no list of COCO's instances"):
            datasets.get("coco").pairs(locate(tmp_path), "val")


def test_files_that_no_pair_has_are_counted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trees.camvid(tmp_path / "camvid")
    for name in ("seq/0001TP_006720.png", "notes.txt", "Thumbs.db"):
        trees.write(tmp_path / "camvid/train" / name, "")
    check_request("camvid", str(tmp_path / "camvid"), str(tmp_path / "out"))
    said = capsys.readouterr().out.splitlines()
    folder = tmp_path / "camvid/train"
    assert said == [
        f"train: 3 files are passed over in {folder}: 1 .db, 1 .txt, 1 .png, such as Thumbs.db",
    ]
    trees.cityscapes(tmp_path / "city")
    place = tmp_path / "city/leftImg8bit/val/aachen"
    (image,) = place.iterdir()
    image.rename(image.with_suffix(".PNG"))
    check_request("cityscapes", str(tmp_path / "city"), str(tmp_path / "out"))
    said = capsys.readouterr().out.splitlines()
    assert said == [
        f"val: 1 file is passed over in {place.parent}: 1 .PNG, such as aachen/{image.with_suffix('.PNG').name}"
    ]


def test_links_that_lead_nowhere_are_pairs_and_folders_in_themselves_end(tmp_path: Path) -> None:
    trees.cityscapes(tmp_path / "city")
    trees.camvid(tmp_path / "camvid")
    for name, file in (
        ("city", "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png"),
        ("camvid", "train/0001TP_006690.png"),
    ):
        image = tmp_path / name / file
        image.unlink()
        image.symlink_to("/moved/away.png")
        os.symlink(image.parent, image.parent / "again")
    for name, folder in (("cityscapes", "city"), ("camvid", "camvid")):
        pairs = datasets.get(name).pairs(locate(tmp_path / folder), "train")
        assert len(pairs) == 2
        assert all(pair.has_label for pair in pairs)


def test_capital_endings_are_taken_where_a_folder_is_one_split(tmp_path: Path) -> None:
    expected = trees.camvid(tmp_path)["train"]
    for file in (tmp_path / "train").iterdir():
        file.rename(file.with_suffix(".PNG"))
    pairs = datasets.get("camvid").pairs(locate(tmp_path), "train")
    assert [(pair.id, pair.image) for pair in pairs] == [(id, f"train/{id}.PNG") for id in expected]
