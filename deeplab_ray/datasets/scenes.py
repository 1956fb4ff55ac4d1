"""Generated street scenes (see `scenes`) as a dataset: 12 of Cityscapes' classes, in its layout and ids."""

from deeplab_ray.datasets.base import Dataset
from deeplab_ray.datasets.cityscapes import LABEL_OF_NAME, LABELS, read_pairs, unused
from deeplab_ray.labels import IGNORE
from deeplab_ray.scenes.draw import CLASS_IDS, SPLITS

_CLASSES = [LABEL_OF_NAME[name] for name in CLASS_IDS]

DATASET = Dataset(
    name="scenes",
    title="street scenes drawn by jobs/draw_scenes.py, 12 classes, in Cityscapes' layout",
    classes=tuple(label.name for label in _CLASSES),
    palette=tuple(label.colour for label in _CLASSES),
    splits=SPLITS,
    label_values={
        **{label.id % 256: IGNORE for label in LABELS if label.train_id == IGNORE},
        **{label.id: train_id for train_id, label in enumerate(_CLASSES)},
    },
    pairs=read_pairs,
    unused=unused,
)
