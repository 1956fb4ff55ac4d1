"""Presets that are not in the paper's tables: those of the demo and of CamVid."""

from deeplab_ray.config.recipe import AugmentConfig, Recipe, SolverConfig
from deeplab_ray.config.resources import TrainingResources
from deeplab_ray.crf.params import CRFParams
from deeplab_ray.models.configs import DeepLabV2Config
from deeplab_ray.presets.paper import VGG_CRF, Row, preset
from deeplab_ray.presets.preset import Preset

OTHERS = "Not in the paper"

FIRST = (
    Preset(
        "scenes-resnet18-largefov",
        OTHERS,
        "generated street scenes, ResNet-18 from random weights, the demo's",
        "scenes",
        Recipe(
            DeepLabV2Config("resnet18", "largefov", weights="random"),
            AugmentConfig(crop=97, scale_min=0.9, scale_max=1.1, small_share=0.6),
            # A random trunk needs a high rate, at which a classifier with 4608 inputs would diverge.
            SolverConfig(
                learning_rate=3e-2,
                classifier_factor=0.05,
                warmup=25,
                iterations=300,
                batch=8,
                nesterov=True,
                class_balance=0.5,
            ),
            CRFParams(w1=3, sigma_alpha=30, sigma_beta=5, w2=3, sigma_gamma=1),
        ),
        resources=TrainingResources(log_every=25, validate_every=0, fused=True),
    ),
    Preset(
        "camvid-vgg16-largefov",
        OTHERS,
        "CamVid, 11 classes, VGG-16, LargeFOV (3×3, rate 12)",
        "camvid",
        Recipe(
            DeepLabV2Config("vgg16", "largefov"),
            AugmentConfig(crop=241, scale_min=0.75, scale_max=1.5),
            SolverConfig(learning_rate=1e-3, batch=4),
            VGG_CRF,
        ),
    ),
)
LAST = tuple(
    map(
        preset,
        (
            Row(OTHERS, "voc12", "resnet101", "aspp-l"),
            Row(OTHERS, "voc12", "resnet101", "aspp-l", "aug"),
            Row(OTHERS, "coco", "resnet101", "plain", "msc aug"),
            Row(OTHERS, "coco", "resnet101", "largefov", "msc aug"),
            Row(OTHERS, "coco", "resnet101", "aspp-l", "msc aug"),
        ),
    )
)
