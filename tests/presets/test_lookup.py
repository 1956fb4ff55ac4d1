"""Presets by name, and where a job's flags start from."""

import json
from pathlib import Path

import pytest

from deeplab_ray.config.io import from_json, to_json
from deeplab_ray.config.recipe import AugmentConfig, Recipe, SolverConfig
from deeplab_ray.config.resources import TrainingResources
from deeplab_ray.errors import UserError
from deeplab_ray.models.configs import DeepLabV2Config, FCNConfig
from deeplab_ray.presets import lookup

RECIPE = Recipe(FCNConfig("32s"), AugmentConfig(crop=64), SolverConfig(batch=2))


def test_names_are_unique() -> None:
    assert len(lookup.names()) == len(lookup.PRESETS) == len(set(lookup.names()))


@pytest.mark.parametrize("name", lookup.names())
def test_preset_survives_json(name: str) -> None:
    preset = lookup.get(name)
    assert from_json(to_json(preset.recipe), Recipe) == preset.recipe
    assert from_json(to_json(preset.resources), TrainingResources) == preset.resources


def test_tables_name_every_preset_with_its_figures() -> None:
    lines = lookup.format_tables().splitlines()
    first = {line.split()[0] for line in lines if line.startswith("  ")}
    assert first == {"preset", "jobs/prepare.py", "jobs/train.py", *lookup.names()}
    row = next(line for line in lines if "voc12-resnet101-aspp-msc-coco-aug" in line)
    assert all(word in row for word in ("MSC", "COCO", "Aug", "76.35", "77.69", "voc12 trainaug, val"))
    assert len([line for line in lines if "largefov-step-b30-6k" in line]) == 2  # in the table of kernels, too
    # What makes the weights from which the presets with COCO start.
    *_, prepare, train, use = lines
    assert prepare.split()[:2] == ["jobs/prepare.py", "coco"]
    assert train.split()[1] in lookup.names()
    assert use.split()[1] == "voc12-resnet101-aspp-msc-coco-aug"
    assert use.split()[-2:] == ["--weights", train.split()[-1]]


def test_unknown_preset_is_refused_with_the_names() -> None:
    with pytest.raises(UserError, match=r"unknown preset 'voc'.*voc12-vgg16-largefov") as refusal:
        lookup.get("voc")
    assert all(name in str(refusal.value) for name in lookup.names())
    with pytest.raises(UserError, match="unknown preset 'voc'"):
        lookup.start(["voc", "--batch", "4"])


def test_flags_start_from_the_preset_that_comes_first() -> None:
    argv = ["voc12-vgg16-aspp-s", "--batch", "4"]
    preset = lookup.get(argv[0])
    start = lookup.start(argv)
    assert start == lookup.Start(preset, preset.recipe, preset.resources, argv)
    assert start.name == argv[0]
    demo = lookup.start(["scenes-resnet18-largefov"])
    assert demo.resources == TrainingResources(log_every=25, validate_every=0, fused=True)


@pytest.mark.parametrize("spelling", [("--config", "{}"), ("--config={}",)])
@pytest.mark.parametrize("first", [[], ["camvid-vgg16-largefov"]])
def test_flags_start_from_a_config_file(tmp_path: Path, spelling: tuple[str, ...], first: list[str]) -> None:
    file = tmp_path / "best.json"
    file.write_text(to_json(RECIPE), encoding="utf-8")
    argv = [*first, *(part.format(file) for part in spelling), "--workers", "2"]
    start = lookup.start(argv)
    assert (start.recipe, start.preset, start.name) == (RECIPE, None, "")
    assert start.argv == (argv if first else ["", *argv])


def test_a_runs_file_has_its_recipe_among_other_things(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"recipe": json.loads(to_json(RECIPE)), "resources": {}}), encoding="utf-8")
    assert lookup.load_recipe(str(file)) == RECIPE


@pytest.mark.parametrize("argv", [[], ["--workers", "2"], ["--config"], ["--config="]])
def test_flags_with_neither_preset_nor_config_are_refused(argv: list[str]) -> None:
    with pytest.raises(UserError, match=r"name a preset first, or give --config FILE; presets: scenes-"):
        lookup.start(argv)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_needs_no_preset(flag: str) -> None:
    start = lookup.start([flag])
    assert flag in start.argv
    assert (start.preset, start.recipe) == (None, Recipe(DeepLabV2Config()))


def test_a_preset_on_other_data_than_its_own_is_told() -> None:
    own = lookup.start(["camvid-vgg16-largefov"])
    assert own.note("camvid") == ""
    assert own.note("folder") == "note: camvid-vgg16-largefov was published for camvid; these data are of folder"
    assert lookup.Start(None, RECIPE, TrainingResources(), []).note("camvid") == ""


def test_files_that_hold_no_recipe_are_refused(tmp_path: Path) -> None:
    binary, other, text = tmp_path / "picture.png", tmp_path / "other.json", tmp_path / "notes.txt"
    binary.write_bytes(b"\x89PNG\r\n\xff\xfe")
    other.write_text(json.dumps({"loss": 1.0}), encoding="utf-8")
    text.write_text("notes", encoding="utf-8")
    for path, sentence in (
        (tmp_path / "missing.json", r"no recipe can be read from .*missing\.json"),
        (tmp_path, "no recipe can be read from"),
        (binary, r"no recipe can be read from .*picture\.png"),
        (other, r"other\.json: unknown field 'loss'"),
        (text, r"notes\.txt is not JSON .*: give the run\.json or best\.json of a run"),
    ):
        with pytest.raises(UserError, match=sentence):
            lookup.start(["--config", str(path)])
