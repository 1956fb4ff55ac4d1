"""PASCAL VOC 2011 with SBD, as FCN was trained and measured: 20 classes and background, 255 = void.

Long, Shelhamer, Darrell: Fully convolutional networks for semantic segmentation, CVPR 2015. `train` is SBD's training
set (8,498 images with SBD's labels). `seg11valid` is what VOC 2011's validation set has beside it (736 images with
VOC's labels); a list ImageSets/Segmentation/seg11valid.txt goes before that.
"""

from deeplab_ray.datasets import voc
from deeplab_ray.datasets.base import Dataset, MissingSplitError, Pair
from deeplab_ray.storage.location import Location


def _pairs(source: Location, split: str) -> list[Pair]:
    sbd = voc.find_sbd(source)
    if split == "train":
        if sbd is None:
            raise MissingSplitError(
                f"no {' nor '.join(f'{place}/train.txt' for place in voc.SBD_PLACES)} below {source}: --source is the "
                "folder that holds VOC2011/ and SBD/"
            )
        mats = set((sbd / "cls").files())
        ids = voc.read_list(sbd / "train.txt")
        return [
            Pair(id, (sbd / f"img/{id}.jpg").uri, (sbd / f"cls/{id}.mat").uri if f"{id}.mat" in mats else None)
            for id in ids
        ]
    lists = [f"{place}ImageSets/Segmentation/seg11valid.txt" for place in voc.places(2011)]
    listing = voc.find(source, lists)
    if listing is not None:
        ids = voc.read_list(source / listing)
    else:
        listing = voc.find(source, (file.replace("seg11valid", "val") for file in lists))
        if listing is None or sbd is None:
            missing = "ImageSets/Segmentation/val.txt" if listing is None else f"{voc.SBD_PLACES[0]}/train.txt"
            raise MissingSplitError(
                f"no {missing} below {source}: --source is the folder that holds VOC2011/ and SBD/ (or a list "
                "ImageSets/Segmentation/seg11valid.txt)"
            )
        ids = sorted(set(voc.read_list(source / listing)) - set(voc.read_list(sbd / "train.txt")))
    prefix = listing[: listing.index("ImageSets/")]
    labels = set((source / f"{prefix}SegmentationClass").files())
    return [
        Pair(
            id,
            f"{prefix}JPEGImages/{id}.jpg",
            f"{prefix}SegmentationClass/{id}.png" if f"{id}.png" in labels else None,
        )
        for id in ids
    ]


DATASET = Dataset(
    name="voc11",
    title="PASCAL VOC 2011 + SBD, 21 classes, FCN's: VOC2011/ and SBD/; train (SBD's), seg11valid",
    classes=voc.CLASSES,
    palette=voc.PALETTE,
    splits=("train", "seg11valid"),
    label_values=voc.LABEL_VALUES,
    pairs=_pairs,
    published={"train": 8498, "seg11valid": 736},
    format=voc.label_format("voc11"),
)
