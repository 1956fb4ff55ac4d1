"""PASCAL VOC 2012 segmentation: 20 classes and background, palette PNG labels, 255 = void.

Everingham et al.: The PASCAL visual object classes challenge, IJCV 2015. The split `trainaug` (10,582 images) is VOC's
training set and SBD's training and validation sets (see `voc`) without VOC's validation set. Where both have labelled
an image, VOC's own label is taken, as in the SegmentationClassAug that is handed round; if that and its list
ImageSets/Segmentation/trainaug.txt (or train_aug.txt) are there, SBD is not needed.
"""

from deeplab_ray.datasets import voc
from deeplab_ray.datasets.base import Dataset, MissingSplitError, Pair
from deeplab_ray.storage.location import Location

_LISTS = {"trainaug": ("trainaug", "train_aug")}


def _pairs(source: Location, split: str) -> list[Pair]:
    listing = _find_list(source, split)
    if listing is not None:
        prefix = listing.removesuffix(listing[listing.index("ImageSets/") :])
        ids = voc.read_list(source / listing)
        folder = f"{prefix}SegmentationClass"
        if split == "trainaug" and (more := (source / f"{folder}Aug").files()):
            folder, labels = f"{folder}Aug", set(more)
        else:
            labels = set((source / folder).files()) if split != "test" else set()
        return [_pair(prefix, id, f"{folder}/{id}.png" if f"{id}.png" in labels else None) for id in ids]
    if split == "trainaug":
        return _merge(source)
    raise MissingSplitError(
        f"no ImageSets/Segmentation/{split}.txt below {source}: --source is the folder VOCdevkit/VOC2012"
    )


def _find_list(source: Location, split: str) -> str | None:
    names = _LISTS.get(split, (split,))
    return voc.find(
        source, (f"{place}ImageSets/Segmentation/{name}.txt" for place in voc.places(2012) for name in names)
    )


def _pair(prefix: str, id: str, label: str | None) -> Pair:
    return Pair(id, f"{prefix}JPEGImages/{id}.jpg", label)


def _merge(source: Location) -> list[Pair]:
    """The split `trainaug` out of VOC's lists and SBD's."""
    sbd, train, val = voc.find_sbd(source), _find_list(source, "train"), _find_list(source, "val")
    if sbd is None or train is None or val is None:
        missing = f"SBD ({' or '.join(voc.SBD_PLACES)}, with train.txt, val.txt and cls/)" if sbd is None else ""
        lists = "ImageSets/Segmentation/train.txt and val.txt" if train is None or val is None else ""
        raise MissingSplitError(
            f"no ImageSets/Segmentation/trainaug.txt below {source}: --source is the folder VOCdevkit/VOC2012; to make "
            f"the list, {' and '.join(filter(None, (lists, missing)))} must be there, too"
        )
    prefix = train.removesuffix("ImageSets/Segmentation/train.txt")
    own = set(voc.read_list(source / train))
    ids = (own | voc.read_sbd(sbd)) - set(voc.read_list(source / val))
    pngs, mats = set((source / f"{prefix}SegmentationClass").files()), set((sbd / "cls").files())

    def label(id: str) -> str | None:
        if id in own:
            return f"{prefix}SegmentationClass/{id}.png" if f"{id}.png" in pngs else None
        return (sbd / f"cls/{id}.mat").uri if f"{id}.mat" in mats else None

    return [_pair(prefix, id, label(id)) for id in sorted(ids)]


DATASET = Dataset(
    name="voc12",
    title="PASCAL VOC 2012, 21 classes: JPEGImages/ + SegmentationClass/, and SBD/ (or SegmentationClassAug/) for "
    "trainaug",
    classes=voc.CLASSES,
    palette=voc.PALETTE,
    splits=("train", "val", "trainval", "trainaug", "test"),
    label_values=voc.LABEL_VALUES,
    pairs=_pairs,
    unlabelled=("test",),
    published={"train": 1464, "val": 1449, "trainval": 2913, "trainaug": 10582, "test": 1456},
    format=voc.label_format("voc12"),
)
