"""Configs as JSON: they come back as they went, and what is none is refused with its place."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from deeplab_ray.config.io import as_dict, from_json, load, to_json
from deeplab_ray.config.recipe import AugmentConfig, Recipe, SolverConfig
from deeplab_ray.config.resources import InferenceResources, TrainingResources
from deeplab_ray.config.scoring import ScoringConfig
from deeplab_ray.config.search import SearchConfig
from deeplab_ray.crf.params import CRFParams
from deeplab_ray.errors import UserError
from deeplab_ray.models.configs import DeepLabV2Config, FCNConfig

DEEPLAB = '"network": {"name": "deeplab_v2"}'


@pytest.mark.parametrize(
    "config",
    [
        Recipe(
            DeepLabV2Config("vgg16", "aspp-s", msc=True, dropout=0.25, weights="s3://b/w.pth", channels=4),
            AugmentConfig(crop=33, mirror=False),
            SolverConfig(policy="step", normalise=False),
            CRFParams(w1=5),
            ScoringConfig((0.5, 1.0), test_mirror=True, tile=129, tile_overlap=16),
            train_split="trainaug",
            precision="bfloat16",
            seed=3,
        ),
        Recipe(FCNConfig("16s", input="caffe"), AugmentConfig(crop=505)),
        TrainingResources(workers=3, gpus_per_worker=0.5, fused=True),
        InferenceResources(gpus_per_predictor=0),
        SearchConfig(batches=(2, 4, 8)),
    ],
    ids=lambda config: type(config).__name__,
)
def test_configs_survive_json(config: object, tmp_path: Path) -> None:
    assert from_json(to_json(config), type(config)) == config
    (tmp_path / "config.json").write_text(to_json(config), encoding="utf-8")
    assert load(str(tmp_path / "config.json"), type(config)) == config


def test_a_network_is_an_object_with_its_name() -> None:
    assert as_dict(Recipe(FCNConfig("32s")))["network"] == {
        "name": "fcn",
        "weights": "torchvision",
        "channels": 3,
        "input": "auto",
        "variant": "32s",
        "dropout": 0.5,
    }


def test_fields_left_out_keep_their_defaults() -> None:
    assert from_json(f"{{{DEEPLAB}}}", Recipe) == Recipe(DeepLabV2Config())
    found = from_json(f'{{{DEEPLAB}, "solver": {{"batch": 4}}}}', Recipe)
    assert found == replace(Recipe(DeepLabV2Config()), solver=SolverConfig(batch=4))
    assert from_json('{"network": {"name": "fcn", "variant": "32s"}}', Recipe) == Recipe(FCNConfig("32s"))
    assert from_json('{"w1": 5}', CRFParams) == CRFParams(w1=5)
    assert from_json('{"test_scales": [0.5, 1]}', ScoringConfig) == ScoringConfig((0.5, 1.0))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("not json", r"^here is not JSON .*: give a file that a job wrote"),
        ("", "^here is not JSON"),
        ("[]", r"^here: expected an object with the fields of Recipe, found \[\]"),
        ("{}", r"^here has no 'network', which Recipe needs"),
        ('{"network": "fcn"}', r"^here\.network: expected an object with the fields of NetworkConfig, found 'fcn'"),
        (
            '{"solvr": {}}',
            "^here: unknown field 'solvr'; Recipe has network, augment, solver, crf, scoring, train_split, "
            "validation_split, precision, seed",
        ),
        ('{"solver": {"lr": 1}}', r"^here\.solver: unknown field 'lr'; SolverConfig has learning_rate"),
        ('{"solver": 3}', r"^here\.solver: expected an object with the fields of SolverConfig, found 3"),
        ('{"solver": {"batch": "4"}}', r"^here\.solver\.batch: '4' is not of type int"),
        ('{"solver": {"batch": 4.0}}', r"^here\.solver\.batch: 4\.0 is not of type int"),
        ('{"solver": {"batch": true}}', r"^here\.solver\.batch: True is not of type int"),
        ('{"solver": {"learning_rate": null}}', r"^here\.solver\.learning_rate: None is not of type float"),
        ('{"solver": {"policy": "cosine"}}', r"^here\.solver\.policy: 'cosine' is not of type .*poly.*step"),
        ('{"augment": {"mirror": 1}}', r"^here\.augment\.mirror: 1 is not of type bool"),
        ('{"augment": null}', r"^here\.augment: None is not of type AugmentConfig"),
        ('{"network": {"name": "deeplab_v2", "weights": 3}}', r"^here\.network\.weights: 3 is not of type str"),
        (f'{{{DEEPLAB}, "augment": {{"crop": 320}}}}', "such as 313 or 321"),
        ('{"network": {"name": "deeplab_v2", "backbone": "resnet18", "dropout": 0.5}}', "resnet18 has no dropout"),
    ],
)
def test_json_that_is_no_recipe_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        from_json(text, Recipe, "here")


def test_json_that_is_no_resources_is_refused() -> None:
    with pytest.raises(UserError, match=r"gpus_per_worker: '1' is not of type float \| None"):
        from_json('{"gpus_per_worker": "1"}', TrainingResources, "here")


def test_none_is_taken_where_it_is_allowed() -> None:
    assert from_json('{"gpus_per_worker": null}', TrainingResources).gpus_per_worker is None
    assert from_json('{"gpus_per_worker": 0.5}', TrainingResources).gpus_per_worker == 0.5


def test_files_that_cannot_be_read_are_refused_with_their_place(tmp_path: Path) -> None:
    binary = tmp_path / "picture.png"
    binary.write_bytes(b"\x89PNG\r\n\xff\xfe")
    (tmp_path / "other.json").write_text(json.dumps({"loss": 1.0}), encoding="utf-8")
    for name, sentence in (
        ("missing.json", r"no SearchConfig can be read from .*missing\.json \(FileNotFoundError\)"),
        ("picture.png", r"no SearchConfig can be read from .*picture\.png \(UnicodeDecodeError\)"),
        ("", "no SearchConfig can be read from"),
        ("other.json", r"other\.json: unknown field 'loss'"),
    ):
        with pytest.raises(UserError, match=sentence):
            load(str(tmp_path / name), SearchConfig)
