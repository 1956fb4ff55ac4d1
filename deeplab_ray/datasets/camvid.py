"""CamVid in the SegNet layout: <split>/*.png beside <split>annot/*.png, 11 classes, 11 = void.

Brostow, Fauqueur, Cipolla: Semantic object classes in video, 2009; labels merged to 11 classes as in SegNet
(Badrinarayanan et al., PAMI 2017). The colours are CamVid's own for the first of the merged classes.
"""

from deeplab_ray.datasets.base import Dataset, Pair, match_pairs
from deeplab_ray.errors import UserError
from deeplab_ray.labels import IGNORE
from deeplab_ray.storage.location import Location

_CLASSES: dict[str, tuple[int, int, int]] = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (0, 0, 192),
    "tree": (128, 128, 0),
    "sign symbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}


def _pairs(source: Location, split: str) -> list[Pair]:
    def pngs(folder: str) -> dict[str, str]:
        files = (source / folder).files()
        return {file.removesuffix(".png"): f"{folder}/{file}" for file in files if file.endswith(".png")}

    images, labels = pngs(split), pngs(f"{split}annot")
    if not images and not labels:
        raise UserError(
            f"no {split}/*.png below {source}: --source is the folder that holds {split}/ and {split}annot/ "
            "(the SegNet layout)"
        )
    return match_pairs(images, labels, lambda id: f"{split}/{id}.png")


DATASET = Dataset(
    name="camvid",
    title="CamVid, 11 classes: the SegNet layout, train/ + trainannot/, val/ + valannot/, test/ + testannot/",
    classes=tuple(_CLASSES),
    palette=tuple(_CLASSES.values()),
    splits=("train", "val", "test"),
    label_values={**{i: i for i in range(len(_CLASSES))}, len(_CLASSES): IGNORE},
    pairs=_pairs,
)
