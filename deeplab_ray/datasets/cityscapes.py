"""Cityscapes, fine annotations: one table of labels, and the reader of its folder layout.

Cordts et al.: The Cityscapes dataset for semantic urban scene understanding, CVPR 2016. Label ids are what
the label files hold and the benchmark takes; train ids are what a network learns.
"""

from typing import NamedTuple

from deeplab_ray.datasets.base import Dataset, Pair, match_pairs
from deeplab_ray.errors import UserError
from deeplab_ray.labels import IGNORE
from deeplab_ray.storage.location import Location


class Label(NamedTuple):
    name: str
    id: int
    train_id: int
    colour: tuple[int, int, int]


LABELS = (
    Label("unlabeled", 0, IGNORE, (0, 0, 0)),
    Label("ego vehicle", 1, IGNORE, (0, 0, 0)),
    Label("rectification border", 2, IGNORE, (0, 0, 0)),
    Label("out of roi", 3, IGNORE, (0, 0, 0)),
    Label("static", 4, IGNORE, (0, 0, 0)),
    Label("dynamic", 5, IGNORE, (111, 74, 0)),
    Label("ground", 6, IGNORE, (81, 0, 81)),
    Label("road", 7, 0, (128, 64, 128)),
    Label("sidewalk", 8, 1, (244, 35, 232)),
    Label("parking", 9, IGNORE, (250, 170, 160)),
    Label("rail track", 10, IGNORE, (230, 150, 140)),
    Label("building", 11, 2, (70, 70, 70)),
    Label("wall", 12, 3, (102, 102, 156)),
    Label("fence", 13, 4, (190, 153, 153)),
    Label("guard rail", 14, IGNORE, (180, 165, 180)),
    Label("bridge", 15, IGNORE, (150, 100, 100)),
    Label("tunnel", 16, IGNORE, (150, 120, 90)),
    Label("pole", 17, 5, (153, 153, 153)),
    Label("polegroup", 18, IGNORE, (153, 153, 153)),
    Label("traffic light", 19, 6, (250, 170, 30)),
    Label("traffic sign", 20, 7, (220, 220, 0)),
    Label("vegetation", 21, 8, (107, 142, 35)),
    Label("terrain", 22, 9, (152, 251, 152)),
    Label("sky", 23, 10, (70, 130, 180)),
    Label("person", 24, 11, (220, 20, 60)),
    Label("rider", 25, 12, (255, 0, 0)),
    Label("car", 26, 13, (0, 0, 142)),
    Label("truck", 27, 14, (0, 0, 70)),
    Label("bus", 28, 15, (0, 60, 100)),
    Label("caravan", 29, IGNORE, (0, 0, 90)),
    Label("trailer", 30, IGNORE, (0, 0, 110)),
    Label("train", 31, 16, (0, 80, 100)),
    Label("motorcycle", 32, 17, (0, 0, 230)),
    Label("bicycle", 33, 18, (119, 11, 32)),
    Label("license plate", -1, IGNORE, (0, 0, 142)),
)
"""All labels, in the order of their ids, as in the benchmark's own table (its license plate has train id −1,
which is never learnt or measured either, and as a byte its id is 255)."""

LABEL_OF_NAME = {label.name: label for label in LABELS}
LABEL_OF_TRAIN_ID = {label.train_id: label for label in reversed(LABELS)}
"""Train id → label; IGNORE → unlabeled, the first of the void ones."""

_IMAGE, _LABEL = "_leftImg8bit.png", "_gtFine_labelIds.png"


def read_pairs(source: Location, split: str) -> list[Pair]:
    """leftImg8bit/<split>/<city>/<id>_leftImg8bit.png and gtFine/<split>/<city>/<id>_gtFine_labelIds.png."""

    def files(tree: str, ending: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for file in (source / tree / split).files(recursive=True):
            if file.endswith(ending):
                id, path = file.rsplit("/", 1)[-1].removesuffix(ending), f"{tree}/{split}/{file}"
                if id in found:
                    raise UserError(f"{found[id]} and {path} below {source} have one name: give each image its own")
                found[id] = path
        return found

    images, labels = files("leftImg8bit", _IMAGE), files("gtFine", _LABEL)
    if not images and not labels:
        raise UserError(
            f"no leftImg8bit/{split}/<city>/*{_IMAGE} below {source}: --source is the folder that holds "
            "leftImg8bit/ and gtFine/"
        )
    return match_pairs(images, labels, lambda id: f"leftImg8bit/{split}/{id.split('_')[0]}/{id}{_IMAGE}")


_CLASSES = [LABEL_OF_TRAIN_ID[train_id] for train_id in range(19)]

DATASET = Dataset(
    name="cityscapes",
    title="Cityscapes fine, 19 classes: leftImg8bit/ + gtFine/; train, val (labels of test are not public)",
    classes=tuple(label.name for label in _CLASSES),
    palette=tuple(label.colour for label in _CLASSES),
    splits=("train", "val", "test"),
    label_values={label.id % 256: label.train_id for label in LABELS},
    pairs=read_pairs,
    unlabelled=("test",),
)
