"""Presets of the paper: published figures, splits and settings are those of its tables."""

import pytest

from deeplab_ray import datasets
from deeplab_ray.models.configs import DeepLabV2Config, FCNConfig
from deeplab_ray.presets import lookup, paper

# Mean IoU before and after the CRF: the tables of the paper, read off again.
PAPER = {
    "voc12-vgg16-k7r4": (64.38, 67.64),
    "voc12-vgg16-k4r4": (59.80, 63.74),
    "voc12-vgg16-k4r8": (63.41, 67.14),
    "voc12-vgg16-largefov-step-b30-6k": (62.25, 67.64),
    "voc12-vgg16-largefov-poly-b30-6k": (63.42, None),
    "voc12-vgg16-largefov-poly-b30-10k": (64.90, None),
    "voc12-vgg16-largefov-poly-b10-10k": (64.71, None),
    "voc12-vgg16-largefov-poly-b10-20k": (65.88, None),
    "voc12-vgg16-largefov": (65.76, 69.84),
    "voc12-vgg16-aspp-s": (66.98, 69.73),
    "voc12-vgg16-aspp-l": (68.96, 71.57),
    "voc12-resnet101": (68.72, None),
    "voc12-resnet101-msc": (71.27, None),
    "voc12-resnet101-msc-coco": (73.28, None),
    "voc12-resnet101-msc-coco-aug": (74.87, None),
    "voc12-resnet101-largefov-msc-coco-aug": (75.54, None),
    "voc12-resnet101-aspp-msc-coco-aug": (76.35, 77.69),
    "context-vgg16-largefov": (37.6, 39.6),
    "context-resnet101": (39.6, None),
    "context-resnet101-msc-aug": (41.4, None),
    "context-resnet101-msc-coco-aug": (42.9, None),
    "context-resnet101-largefov-msc-coco-aug": (43.5, None),
    "context-resnet101-aspp-msc-coco-aug": (44.7, 45.7),
    "personpart-resnet101": (58.90, None),
    "personpart-resnet101-msc-aug": (63.10, None),
    "personpart-resnet101-msc-coco-aug": (64.40, 64.94),
    "personpart-resnet101-largefov-msc-coco-aug": (62.18, None),
    "personpart-resnet101-aspp-msc-coco-aug": (62.76, None),
    "cityscapes-vgg16-largefov": (62.97, 64.18),
    "cityscapes-vgg16-largefov-full": (64.89, 65.94),
    "cityscapes-resnet101-full": (66.6, None),
    "cityscapes-resnet101-largefov-full": (69.2, None),
    "cityscapes-resnet101-aspp-full": (70.4, None),
    "cityscapes-resnet101-aspp-full-aug": (71.0, 71.4),
    "voc11-fcn32s": (63.6, None),
    "voc11-fcn16s": (65.0, None),
    "voc11-fcn8s": (65.5, None),
}


# Training and validation split of each dataset, section 4 of the paper and the authors' FCN.
SPLITS = {
    "voc12": ("trainaug", "val"),
    "context": ("train", "val"),
    "personpart": ("train", "val"),
    "cityscapes": ("train", "val"),
    "coco": ("train", "val"),
    "voc11": ("train", "seg11valid"),
    "scenes": ("train", "val"),
    "camvid": ("train", "val"),
}


def test_every_row_of_the_paper_has_its_preset() -> None:
    assert {name for name in lookup.names() if lookup.get(name).published != (None, None)} == set(PAPER)


@pytest.mark.parametrize("name", lookup.names())
def test_published_figures_data_and_network_are_the_papers(name: str) -> None:
    preset = lookup.get(name)
    recipe, network = preset.recipe, preset.recipe.network
    words = name.split("-")
    assert preset.published == PAPER.get(name, (None, None))
    assert preset.dataset == words[0]
    assert (recipe.train_split, recipe.validation_split) == SPLITS[words[0]]
    if "fcn" in name:
        assert isinstance(network, FCNConfig)
        assert network.variant == words[1].removeprefix("fcn")
        start = {"32s": "torchvision", "16s": "fcn32s", "8s": "fcn16s"}
        assert network.weights == start[network.variant]
        return
    assert isinstance(network, DeepLabV2Config)
    assert network.backbone == words[1]
    assert network.msc == ("msc" in words)
    assert network.batch_norm == "frozen"
    start = "coco" if "coco" in words[1:] else "random" if words[0] == "scenes" else "torchvision"
    assert network.weights == start
    heads = {"largefov": "largefov", "k7r4": "k7r4", "k4r4": "k4r4", "k4r8": "k4r8"}
    heads |= {"aspp": "aspp-s" if "s" in words else "aspp-l"}
    assert network.head == next((head for word, head in heads.items() if word in words), "plain")


@pytest.mark.parametrize("name", [preset.name for preset in paper.PRESETS])
def test_settings_are_the_papers(name: str) -> None:
    recipe = lookup.get(name).recipe
    augment, solver = recipe.augment, recipe.solver
    words = name.split("-")
    scales = (0.5, 1.5) if "aug" in words else (1.0, 1.0)
    if words[0] == "cityscapes" and "full" not in words:
        scales = (0.5, 0.5)
    assert (augment.scale_min, augment.scale_max) == scales
    # What is trained on halved images is tested on such.
    assert recipe.scoring.test_scales == ((0.5,) if scales == (0.5, 0.5) else (1.0,))
    assert not recipe.scoring.test_mirror
    if "fcn" in name:
        assert (solver.batch, solver.momentum, solver.iterations, solver.policy) == (1, 0.99, 100_000, "fixed")
        assert solver.learning_rate == {"fcn32s": 1e-10, "fcn16s": 1e-12, "fcn8s": 1e-14}[words[1]]
        assert not solver.normalise
        return
    assert augment.crop == 321
    assert solver.learning_rate == (1e-3 if words[1] == "vgg16" else 2.5e-4)
    kernels = {"k7r4", "k4r4", "k4r8"} & set(words)
    policy = "step" if kernels or "step" in words else "poly"
    batch = 30 if kernels or "b30" in words else 10
    thousands = 6 if kernels else next((n for n in (6, 10) if f"{n}k" in words), 20)
    assert (solver.policy, solver.batch, solver.iterations) == (policy, batch, 1000 * thousands)


@pytest.mark.parametrize("name", lookup.names())
def test_every_presets_data_can_be_prepared(name: str) -> None:
    preset = lookup.get(name)
    dataset = datasets.get(preset.dataset)
    assert {preset.recipe.train_split, preset.recipe.validation_split} <= set(dataset.splits) - set(dataset.unlabelled)
    assert preset.classes == dataset.classes


def test_a_preset_describes_itself_with_its_figures() -> None:
    assert "68.96 before and 71.57 after the CRF" in lookup.get("voc12-vgg16-aspp-l").describe()
    assert lookup.get("voc12-resnet101").describe().endswith("published mIoU 68.72 before")
    assert "published" not in lookup.get("scenes-resnet18-largefov").describe()
