"""Miniature trees of the published datasets, in their true layouts and file formats, with labels that are known.

Each function fills a folder and returns {split: {id: train ids, uint8 H×W (None: no label)}}.
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat
from scipy.sparse import coo_matrix

from deeplab_ray.datasets.colour_map import voc_colour

HEIGHT, WIDTH = 36, 44
Labels = dict[str, dict[str, np.ndarray | None]]


def blocks(seed: int, classes: int, ignore: bool = True, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A label of squares of 4×4 pixels with random classes, one of them ignored."""
    rng = np.random.default_rng(seed)
    label = np.kron(rng.integers(0, classes, (height // 4, width // 4)), np.ones((4, 4))).astype(np.uint8)
    if ignore:
        label[:4, :4] = 255
    return label


def write(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def image(path: Path, seed: int, height: int = HEIGHT, width: int = WIDTH) -> None:
    """A photograph of noise, as JPEG or PNG."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def palette_png(path: Path, values: np.ndarray) -> None:
    """A label as VOC keeps it: numbers with the colour map as palette."""
    picture = Image.fromarray(values).convert("P")
    picture.putpalette([part for index in range(256) for part in voc_colour(index)])
    picture.putdata(values.ravel().tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def mat(path: Path, **variables: Any) -> None:
    file = io.BytesIO()
    savemat(file, variables, do_compression=True)
    write(path, file.getvalue())


def structs(*rows: dict[str, Any]) -> np.ndarray:
    """MATLAB's 1×N array of structs; [] if there are none."""
    if not rows:
        return np.zeros((0, 0))
    array = np.empty((1, len(rows)), [(name, object) for name in rows[0]])
    for index, row in enumerate(rows):
        array[0, index] = tuple(row.values())
    return array


def _sbd(folder: Path, train: dict[str, np.ndarray], val: dict[str, np.ndarray]) -> None:
    for name, labels in (("train", train), ("val", val)):
        write(folder / f"{name}.txt", "".join(f"{id}\n" for id in labels))
        for number, (id, label) in enumerate(labels.items()):
            image(folder / f"img/{id}.jpg", number)
            present = np.unique(label[label < 255])
            outlines = np.empty((20, 1), object)
            outlines[:, 0] = [coo_matrix(label == train_id) for train_id in range(1, 21)]
            fields = {"Boundaries": outlines, "Segmentation": label, "CategoriesPresent": present}
            mat(folder / f"cls/{id}.mat", GTcls=fields)


def _voc(folder: Path, splits: dict[str, list[str]], labels: dict[str, np.ndarray], more: tuple[str, ...] = ()) -> None:
    for split, ids in splits.items():
        write(folder / f"ImageSets/Segmentation/{split}.txt", "".join(f"{id}\n" for id in ids))
    for number, id in enumerate(sorted({*labels, *more})):
        image(folder / f"JPEGImages/{id}.jpg", number)
        if id in labels:
            palette_png(folder / f"SegmentationClass/{id}.png", labels[id])


def voc12(folder: Path) -> Labels:
    """VOC 2012 with SBD beside it: t1 is labelled in both, v0 of VOC's validation set is in SBD, too."""
    own = {id: blocks(number, 21) for number, id in enumerate(("2007_t0", "2007_t1", "2007_v0", "2007_v1"))}
    sbd = {id: blocks(10 + number, 21, ignore=False) for number, id in enumerate(("2007_t1", "2008_s0", "2008_s1"))}
    train, val = ["2007_t0", "2007_t1"], ["2007_v0", "2007_v1"]
    splits = {"train": train, "val": val, "trainval": train + val, "test": ["2008_x0"]}
    _voc(folder / "VOCdevkit/VOC2012", splits, own, ("2008_s0", "2008_s1", "2008_x0"))
    first = {id: sbd[id] for id in ("2007_t1", "2008_s0")}
    _sbd(folder / "SBD", first, {"2008_s1": sbd["2008_s1"], "2007_v0": own["2007_v0"]})
    found: Labels = {split: {id: own.get(id) for id in ids} for split, ids in splits.items()}
    merged = {**found["train"], "2008_s0": sbd["2008_s0"], "2008_s1": sbd["2008_s1"]}
    return {**found, "trainaug": merged}


def voc11(folder: Path) -> Labels:
    """VOC 2011 and SBD: v0 of VOC's validation set is trained on in SBD."""
    own = {id: blocks(number, 21) for number, id in enumerate(("2007_v0", "2007_v1", "2007_v2"))}
    sbd = {id: blocks(10 + number, 21, ignore=False) for number, id in enumerate(("2007_v0", "2008_s0"))}
    _voc(folder / "VOC2011", {"val": list(own)}, own)
    _sbd(folder / "benchmark_RELEASE/dataset", sbd, {"2007_v1": own["2007_v1"]})
    return {"train": dict(sbd), "seg11valid": {id: own[id] for id in ("2007_v1", "2007_v2")}}


# As other projects have them: the numbers of LabelMap of the 59 classes, which both are in alphabetical order.
_NAMES = (
    "aeroplane bag bed bedclothes bench bicycle bird boat book bottle building bus cabinet car cat ceiling chair "
    "cloth computer cow cup curtain dog door fence floor flower food grass ground horse keyboard light motorbike "
    "mountain mouse person plate platform pottedplant road rock sheep shelves sidewalk sign sky snow sofa table track "
    "train tree truck tvmonitor wall water window wood "
)
CONTEXT_NAMES = _NAMES.split()
CONTEXT_NUMBERS = [2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115]
CONTEXT_NUMBERS += [144, 158, 159, 162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349]
CONTEXT_NUMBERS += [354, 355, 360, 366, 368, 397, 415, 416, 420, 424, 427, 440, 445, 454, 458]
# The order of 59_labels.txt.
_ORDER = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow table dog horse motorbike person pottedplant sheep sofa "
    "train tvmonitor bag bed bench book building cabinet ceiling cloth computer cup door fence floor flower food "
    "grass ground keyboard light mountain mouse curtain platform sign plate road rock shelves sidewalk sky snow "
    "bedclothes track tree truck wall water window wood "
)
CONTEXT_ORDER = _ORDER.split()


def context(folder: Path) -> Labels:
    number_of = dict(zip(CONTEXT_NAMES, CONTEXT_NUMBERS, strict=True))
    names = {number: name for name, number in number_of.items()}
    lines = (f"{number}: {names.get(number, f'thing{number}')}\n" for number in range(1, 460))
    write(folder / "labels.txt", "".join(lines))
    found: Labels = {}
    for start, (split, ids) in enumerate({"train": ("2008_a", "2008_b"), "val": ("2009_c",)}.items()):
        write(folder / f"VOCdevkit/VOC2010/ImageSets/Main/{split}.txt", "".join(f"{id}\n" for id in ids))
        found[split] = {}
        for number, id in enumerate(ids):
            label = blocks(number + 10 * start, 60, ignore=False)
            numbers = np.array([0, *(number_of[name] for name in CONTEXT_ORDER)], np.uint16)[label]
            # What is none of the 59, such as number 1 and 459, is background.
            numbers[label == 0] = [1, 459, 300][number]
            mat(folder / f"trainval/{id}.mat", LabelMap=numbers)
            image(folder / f"VOCdevkit/VOC2010/JPEGImages/{id}.jpg", number)
            found[split][id] = label
    return found


PERSON_PARTS = [
    ("head", "hair", "leye", "reye", "lear", "rear", "lebrow", "rebrow", "nose", "mouth"),
    ("torso", "neck"),
    ("luarm", "ruarm"),
    ("llarm", "rlarm", "lhand", "rhand"),
    ("luleg", "ruleg"),
    ("llleg", "rlleg", "lfoot", "rfoot"),
]


def personpart(folder: Path) -> Labels:
    """Two images with all 24 parts, one of a person and a horse, and one of a lone person without parts."""
    found: Labels = {"train": {}, "val": {}}
    for number, (split, id) in enumerate((("train", "2008_a"), ("train", "2008_b"), ("val", "2009_c"))):
        label = np.zeros((HEIGHT, WIDTH), np.uint8)
        names = [(name, 1 + i) for i, merged in enumerate(PERSON_PARTS) for name in merged][:: 1 + number]
        parts = []
        for place, (name, train_id) in enumerate(names):
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            mask[place : place + 3, 5 + number : 20] = 1
            label[mask == 1] = train_id
            parts.append({"part_name": name, "mask": mask})
        whole = np.ones((HEIGHT, WIDTH), np.uint8)
        person = {"class": "person", "class_ind": 15, "mask": whole, "parts": structs(*parts)}
        horse = {
            "class": "horse",
            "class_ind": 13,
            "mask": whole,
            "parts": structs({"part_name": "head", "mask": whole}),
        }
        lone = {"class": "person", "class_ind": 15, "mask": whole, "parts": structs()}
        objects = structs(*([person], [horse, person], [person, lone])[number])
        mat(folder / f"Annotations_Part/{id}.mat", anno={"imname": id, "objects": objects})
        image(folder / f"VOC2010/JPEGImages/{id}.jpg", number)
        found[split][id] = label
    for split, labels in found.items():
        write(folder / f"{split}_id.txt", "".join(f"{id}\n" for id in labels))
    return found


POLYGONS = {
    "imgHeight": HEIGHT,
    "imgWidth": WIDTH,
    "objects": [
        {"label": "road", "polygon": [[0, 20], [43, 18], [43, 35], [0, 35]]},
        {"label": "sky", "polygon": [[0, 0], [43, 0], [43, 9], [21, 12], [0, 7]]},
        {"label": "cargroup", "polygon": [[10, 15], [20, 14], [22, 24], [9, 25]]},
        {"label": "license plate", "polygon": [[12, 20], [15, 20], [15, 22], [12, 22]]},
        {"label": "person", "polygon": [[30, 10], [33, 11], [34, 30], [29, 29]]},
        {"label": "dynamic", "polygon": [[31, 12], [36, 12], [36, 15]]},
        {"label": "bus", "polygon": [[0, 0], [43, 0], [43, 35]], "deleted": 1},
        {"label": "out of roi", "polygon": [[0, 33], [43, 33], [43, 35], [0, 35]]},
    ],
}
"""What a Cityscapes image's _polygons.json holds."""


def cityscapes(folder: Path, kind: str = "gtFine", splits: tuple[str, ...] = ("train", "val", "test")) -> Labels:
    """Labels by ids, and one image whose polygons alone are there."""
    from cityscapesscripts.helpers.annotation import Annotation
    from cityscapesscripts.helpers.labels import id2label
    from cityscapesscripts.preparation.json2labelImg import createLabelImage

    train_ids = np.array([255 if id2label[id].ignoreInEval else id2label[id].trainId for id in range(34)], np.uint8)
    annotation = Annotation()
    annotation.fromJsonText(json.dumps(POLYGONS))
    found: Labels = {}
    for start, split in enumerate(splits):
        found[split] = {}
        for number, city in enumerate(("aachen", "bochum")):
            id = f"{city}_00000{number}_000019"
            image(folder / f"leftImg8bit/{split}/{city}/{id}_leftImg8bit.png", 3 * start + number)
            label = folder / f"{kind}/{split}/{city}/{id}_{kind}"
            values = blocks(3 * start + number, 34, ignore=False)
            write(Path(f"{label}_polygons.json"), json.dumps(POLYGONS))
            if number and split != "test":
                values = np.asarray(createLabelImage(annotation, "ids"))
            else:
                Image.fromarray(values).save(f"{label}_labelIds.png")
            Image.fromarray(values).save(f"{label}_instanceIds.png")
            found[split][id] = None if split == "test" else train_ids[values]
    return found


def cityscapes_coarse(folder: Path) -> Labels:
    return cityscapes(folder, "gtCoarse", ("train", "train_extra", "val"))


def ade20k(folder: Path) -> Labels:
    found: Labels = {}
    for start, (split, name, ids) in enumerate(
        (
            ("train", "training", ("ADE_train_00000001", "ADE_train_00000002")),
            ("val", "validation", ("ADE_val_00000001",)),
        )
    ):
        found[split] = {}
        for number, id in enumerate(ids):
            label = blocks(number + 5 * start, 150)
            image(folder / f"ADEChallengeData2016/images/{name}/{id}.jpg", number)
            path = folder / f"ADEChallengeData2016/annotations/{name}/{id}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.where(label == 255, 0, label + 1).astype(np.uint8)).save(path)
            found[split][id] = label
    image(folder / "release_test/testing/ADE_test_00000001.jpg", 9)
    return {**found, "test": {"ADE_test_00000001": None}}


def camvid(folder: Path) -> Labels:
    """The SegNet layout."""
    found: Labels = {}
    for start, (split, ids) in enumerate(
        {"train": ("0001TP_006690", "0006R0_f00930"), "val": ("0016E5_07959",)}.items()
    ):
        found[split] = {}
        for number, id in enumerate(ids):
            label = blocks(number + 5 * start, 11)
            image(folder / f"{split}/{id}.png", number)
            path = folder / f"{split}annot/{id}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.where(label == 255, 11, label).astype(np.uint8)).save(path)
            found[split][id] = label
    return found


# Colour and number among the 11 classes of each of the 32, as others have merged them.
CAMVID_COLOURS = [
    ((128, 128, 128), 0), ((0, 128, 64), 1), ((128, 0, 0), 1), ((64, 192, 0), 1), ((64, 0, 64), 1), ((192, 0, 128), 1),
    ((192, 192, 128), 2), ((0, 0, 64), 2), ((128, 64, 128), 3), ((128, 0, 192), 3), ((192, 0, 64), 3), ((0, 0, 192), 4),
    ((64, 192, 128), 4), ((128, 128, 192), 4), ((128, 128, 0), 5), ((192, 192, 0), 5), ((192, 128, 128), 6),
    ((128, 128, 64), 6), ((0, 64, 64), 6), ((64, 64, 128), 7), ((64, 0, 128), 8), ((64, 128, 192), 8),
    ((192, 128, 192), 8), ((192, 64, 128), 8), ((128, 64, 64), 8), ((64, 64, 0), 9), ((192, 128, 64), 9),
    ((64, 0, 192), 9), ((64, 128, 64), 9), ((0, 128, 192), 10), ((192, 0, 192), 10), ((0, 0, 0), 255),
]  # fmt: skip


def camvid_first(folder: Path) -> Labels:
    """The layout in which CamVid was published."""
    colours, numbers = (np.array(part, np.uint8) for part in zip(*CAMVID_COLOURS, strict=True))
    splits = {
        "train": ("0001TP_008520", "0006R0_f03930", "0016E5_08640"),
        "val": ("0016E5_07959", "0016E5_08159"),
        "test": ("0001TP_008550", "Seq05VD_f00000"),
    }
    found: Labels = {}
    for split, ids in splits.items():
        found[split] = {}
        for seed, id in enumerate(ids):
            which = blocks(seed, 32, ignore=False)
            image(folder / f"701_StillsRaw_full/{id}.png", seed)
            path = folder / f"LabeledApproved_full/{id}_L.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(colours[which]).save(path)
            found[split][id] = numbers[which]
    return found


def instances(year: int) -> dict[str, Any]:
    """A COCO file of four images: polygons, run lengths of a crowd, both at once, other things alone, and nothing."""
    size = {"height": HEIGHT, "width": WIDTH}
    images = [{"id": number, "file_name": f"{number:012}.jpg", **size} for number in (9, 25, 30, 34)]
    person, elephant, cat, sofa, crowd = 1, 22, 17, 63, HEIGHT * WIDTH
    return {
        "info": {"year": year},
        "images": images,
        "annotations": [
            thing(1, 9, person, [[4.5, 5.25, 20.0, 6.5, 18.3, 30.1, 5.2, 29.9], [30, 2, 40, 2, 35, 9]]),
            thing(2, 9, cat, [[15, 12, 30.5, 12, 30, 25.5, 16, 24]]),
            thing(3, 9, cat, [[28, 20, 36, 20, 36, 30, 28, 30]]),
            thing(4, 25, person, {"size": [HEIGHT, WIDTH], "counts": [200, 400, 100, crowd - 700]}, iscrowd=1),
            thing(5, 25, sofa, [[2, 2, 25, 3, 24, 20, 3, 18]]),
            thing(6, 30, elephant, [[2, 2, 25, 3, 24, 20, 3, 18]]),
        ],
        "categories": [
            {"id": number, "name": name}
            for number, name in ((1, "person"), (17, "cat"), (22, "elephant"), (63, "couch"), (3, "car"))
        ],
    }


def thing(id: int, image_id: int, category_id: int, segmentation: Any, iscrowd: int = 0) -> dict[str, Any]:
    fields = {"id": id, "image_id": image_id, "category_id": category_id, "iscrowd": iscrowd}
    return {**fields, "segmentation": segmentation, "area": 100.0, "bbox": [0, 0, 1, 1]}


def coco(folder: Path, year: int = 2017) -> Labels:
    """Masks by pycocotools' own reader of such files."""
    from pycocotools.coco import COCO

    found: Labels = {}
    for split in ("train", "val"):
        file = folder / f"annotations/instances_{split}{year}.json"
        write(file, json.dumps(instances(year)))
        reader, found[split] = COCO(str(file)), {}
        for number in reader.getImgIds():
            id = f"{number:012}"
            image(folder / f"{split}{year}/{id}.jpg", number)
            mask = {each["id"]: reader.annToMask(each).astype(bool) for each in reader.imgToAnns[number]}
            label = np.zeros((HEIGHT, WIDTH), np.uint8)
            if number == 9:
                label[mask[2] | mask[3]], label[mask[1]] = 8, 15
                label[mask[1] & (mask[2] | mask[3])] = 255
            elif number == 25:
                label[mask[4]], label[mask[5]] = 255, 18
            found[split][id] = label
    return found


def coco14(folder: Path) -> Labels:
    return coco(folder, 2014)
