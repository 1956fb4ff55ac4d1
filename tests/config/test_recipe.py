"""Configs and presets: nonsense is refused with a way out, JSON comes back as it went, figures are the paper's."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deeplab_ray.config.recipe import (
    AugmentConfig,
    Config,
    CRFParams,
    InferenceConfig,
    ModelConfig,
    RuntimeConfig,
    SearchConfig,
    SolverConfig,
    TestConfig,
    from_json,
    to_json,
)
from deeplab_ray.errors import UserError
from deeplab_ray.presets import paper as presets

NONSENSE: list[tuple[Callable[[], Any], str]] = [
    (lambda: SolverConfig(learning_rate=-1e-3), r"learning rate -0\.001 must be a number above 0"),
    (lambda: SolverConfig(learning_rate=0), "learning rate 0 must be a number above 0"),
    (lambda: SolverConfig(learning_rate=float("nan")), "learning rate nan must be a number above 0"),
    (lambda: SolverConfig(learning_rate="1e-3"), "learning_rate '1e-3' is not of type float"),  # type: ignore[arg-type]
    (lambda: SolverConfig(policy="cosine"), "policy 'cosine' is not of type .*poly.*step.*fixed"),  # type: ignore[arg-type]
    (lambda: SolverConfig(weight_decay=float("inf")), "weight_decay inf must be finite"),
    (lambda: ModelConfig(backbone="vgg19"), "backbone 'vgg19' is not of type .*vgg16"),  # type: ignore[arg-type]
    (lambda: RuntimeConfig(workers=2.5), r"workers 2\.5 is not of type int"),  # type: ignore[arg-type]
    (lambda: RuntimeConfig(precision="fp16"), "precision 'fp16' is not of type"),  # type: ignore[arg-type]
    (lambda: RuntimeConfig(seed=-1), "seed -1 must lie in"),
    (lambda: SolverConfig(classifier_factor=0), "classifier_factor 0 must be above 0"),
    (lambda: AugmentConfig(small_scale=0.0), r"small_scale 0\.0 must lie in \(0, 1\]"),
    (lambda: AugmentConfig(small_share=1.5), r"small_share 1\.5 must lie in \[0, 1\]"),
    (lambda: SolverConfig(class_balance=-1.0), r"class_balance -1\.0 must lie in \[0, 1\]"),
    (lambda: SolverConfig(power=-0.9), r"power -0\.9 must not be negative"),
    (lambda: SolverConfig(step_every=0), "step_every 0 must be at least 1"),
    (lambda: SolverConfig(step_factor=1.5), r"step_factor 1\.5 must lie in \(0, 1\]"),
    (lambda: SolverConfig(iterations=0), "iterations 0 must be at least 1"),
    (lambda: SolverConfig(batch=0), "batch 0 must be at least 1"),
    (lambda: SolverConfig(accumulation=0), "accumulation 0 must be at least 1"),
    (lambda: SolverConfig(momentum=1.0), r"momentum 1\.0 must lie in \[0, 1\)"),
    (lambda: SolverConfig(weight_decay=-5e-4), "weight decay -0.0005 must not be negative"),
    (lambda: AugmentConfig(crop=320), r"≡ 1 \(mod 8\), such as 313 or 321"),
    (lambda: AugmentConfig(crop=9), "such as 17 or 25"),
    (lambda: AugmentConfig(crop=-7), "such as 17 or 25"),
    (lambda: ModelConfig(dropout=1.0), r"dropout 1\.0 must lie in \[0, 1\)"),
    (lambda: AugmentConfig(scale_min=0), "need 0 < scale_min <= scale_max"),
    (lambda: AugmentConfig(scale_min=2, scale_max=1), "need 0 < scale_min <= scale_max"),
    (lambda: SolverConfig(warmup=-1), "warmup -1 must not be negative"),
    (lambda: SolverConfig(nesterov=True, momentum=0), "nesterov needs a momentum above 0"),
    (lambda: CRFParams(w1=-1), "must not be negative"),
    (lambda: CRFParams(sigma_beta=0), "sigma_beta=0 must be above 0"),
    (lambda: CRFParams(iterations=0), "CRF iterations 0 must be at least 1"),
    (lambda: RuntimeConfig(workers=0), "workers 0 must be at least 1"),
    (lambda: RuntimeConfig(gpus_per_worker=-1), "0 trains on CPU"),
    (lambda: RuntimeConfig(cpus_per_worker=0), "cpus_per_worker 0 must be above 0"),
    (lambda: RuntimeConfig(checkpoint_every=0), "checkpoint_every 0 must be at least 1"),
    (lambda: InferenceConfig(gpus_per_predictor=-1), "0 predicts on CPU"),
    (lambda: TestConfig(test_scales=()), "at least one factor"),
    (lambda: TestConfig(tile=512), r"≡ 1 \(mod 8\)"),
    (lambda: TestConfig(tile=129, tile_overlap=128), r"must lie in 0\.\.113"),
    (lambda: SearchConfig(trials=0), "trials 0 must be at least 1"),
    (lambda: SearchConfig(learning_rate_min=1e-2, learning_rate_max=1e-3), "need 0 < min < max"),
    (lambda: SearchConfig(batches=()), "at least one batch"),
    (
        lambda: Config(solver=SolverConfig(batch=10), runtime=RuntimeConfig(workers=4)),
        "batch 10 is not divisible by workers × accumulation = 4 × 1: take a batch of 8 or 12",
    ),
    (
        lambda: Config(solver=SolverConfig(batch=3, accumulation=2), runtime=RuntimeConfig(workers=2)),
        "= 2 × 2: take a batch of 4 or 8",
    ),
]


@pytest.mark.parametrize(("make", "sentence"), NONSENSE, ids=[sentence[:30] for _, sentence in NONSENSE])
def test_nonsense_is_refused_in_one_line(make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as refusal:
        make()
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("crop", range(17, 60))
def test_sizes_that_a_refused_crop_is_offered_are_taken(crop: int) -> None:
    try:
        AugmentConfig(crop=crop)
    except UserError as error:
        lower, upper = (int(word) for word in str(error).split("such as ")[1].split(" or "))
        assert lower < crop < upper
        AugmentConfig(crop=lower)
        AugmentConfig(crop=upper)
    else:
        assert crop % 8 == 1


@pytest.mark.parametrize(("crop", "small"), [(17, 17), (33, 25), (97, 65), (321, 217)])
def test_the_first_iterations_see_smaller_crops_of_smaller_images(crop: int, small: int) -> None:
    config = Config(augment=AugmentConfig(crop, 0.5, 1.5, small_share=0.3), solver=SolverConfig(iterations=10))
    seen = [config.augmentation(iteration) for iteration in range(10)]
    assert [augment.crop for augment in seen] == 3 * [small] + 7 * [crop]
    for augment in seen:
        assert augment.scale_max / augment.crop == pytest.approx(1.5 / crop)
        assert augment.scale_min / augment.crop == pytest.approx(0.5 / crop)


def test_batch_is_shared_out_over_workers_and_accumulation() -> None:
    config = Config(solver=SolverConfig(batch=12, accumulation=3), runtime=RuntimeConfig(workers=2))
    assert config.micro_batch == 2


def test_configs_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SolverConfig().batch = 1  # type: ignore[misc]


@pytest.mark.parametrize("name", presets.names())
def test_preset_survives_json(name: str) -> None:
    config = presets.get(name).config
    assert from_json(to_json(config), Config) == config


def test_fields_left_out_keep_their_defaults() -> None:
    assert from_json("{}", Config) == Config()
    assert from_json('{"solver": {"batch": 4}}', Config).solver == SolverConfig(batch=4)
    assert from_json('{"w1": 5}', CRFParams) == CRFParams(w1=5)
    assert from_json('{"test_scales": [0.5, 1]}', TestConfig) == TestConfig((0.5, 1.0))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("not json", r"^here is not JSON .*: give the config.json or best.json of a run"),
        ("", "^here is not JSON"),
        ("[]", r"^here: expected an object with the fields of Config, found \[\]"),
        ('{"solvr": {}}', "^here: unknown field 'solvr'; Config has model, augment, solver, crf, runtime, test"),
        ('{"solver": {"lr": 1}}', r"^here\.solver: unknown field 'lr'; SolverConfig has learning_rate"),
        ('{"solver": 3}', r"^here\.solver: expected an object with the fields of SolverConfig, found 3"),
        ('{"solver": {"batch": "4"}}', r"^here\.solver\.batch: '4' is not of type int"),
        ('{"solver": {"batch": 4.0}}', r"^here\.solver\.batch: 4\.0 is not of type int"),
        ('{"solver": {"batch": true}}', r"^here\.solver\.batch: True is not of type int"),
        ('{"solver": {"learning_rate": null}}', r"^here\.solver\.learning_rate: None is not of type float"),
        ('{"solver": {"policy": "cosine"}}', r"^here\.solver\.policy: 'cosine' is not of type .*poly.*step"),
        ('{"augment": {"mirror": 1}}', r"^here\.augment\.mirror: 1 is not of type bool"),
        ('{"runtime": {"gpus_per_worker": "1"}}', r"gpus_per_worker: '1' is not of type float \| None"),
        ('{"augment": {"crop": 320}}', "such as 313 or 321"),
        ('{"solver": {"batch": 3}, "runtime": {"workers": 2}}', "take a batch of 2 or 4"),
    ],
)
def test_json_that_is_no_config_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        from_json(text, Config, "here")


def test_none_is_taken_where_it_is_allowed() -> None:
    assert from_json('{"gpus_per_worker": null}', RuntimeConfig).gpus_per_worker is None
    assert from_json('{"gpus_per_worker": 0.5}', RuntimeConfig).gpus_per_worker == 0.5


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


def test_every_row_of_the_paper_has_its_preset() -> None:
    assert {n for n in presets.names() if presets.get(n).published != (None, None)} == set(PAPER)


@pytest.mark.parametrize("name", presets.names())
def test_published_figures_and_settings_are_the_papers(name: str) -> None:
    preset = presets.get(name)
    assert preset.published == PAPER.get(name, (None, None))
    model, augment, solver = preset.config.model, preset.config.augment, preset.config.solver
    words = name.split("-")
    assert model.dataset == words[0]
    assert model.backbone == ("vgg16" if "fcn" in name else words[1])
    assert model.msc == ("msc" in words)
    assert (model.weights == "coco") == ("coco" in words[1:])
    heads = {"largefov": "largefov", "k7r4": "k7r4", "k4r4": "k4r4", "k4r8": "k4r8", "fcn8s": "fcn8s"}
    heads |= {"fcn16s": "fcn16s", "fcn32s": "fcn32s", "aspp": "aspp-s" if "s" in words else "aspp-l"}
    assert model.head == next((head for word, head in heads.items() if word in words), "plain")
    if words[0] in ("scenes", "camvid"):
        return
    scales = (0.5, 1.5) if "aug" in words else (1.0, 1.0)
    if words[0] == "cityscapes" and "full" not in words:
        scales = (0.5, 0.5)
    assert (augment.scale_min, augment.scale_max) == scales
    if "fcn" in name:
        assert (solver.batch, solver.momentum, solver.iterations, solver.policy) == (1, 0.99, 100_000, "fixed")
        assert solver.learning_rate == {"fcn32s": 1e-10, "fcn16s": 1e-12, "fcn8s": 1e-14}[words[1]]
        assert not solver.normalise
        return
    assert solver.learning_rate == (1e-3 if model.backbone == "vgg16" else 2.5e-4)
    kernels = {"k7r4", "k4r4", "k4r8"} & set(words)
    policy = "step" if kernels or "step" in words else "poly"
    batch = 30 if kernels or "b30" in words else 10
    thousands = 6 if kernels else next((n for n in (6, 10) if f"{n}k" in words), 20)
    assert (solver.policy, solver.batch, solver.iterations) == (policy, batch, 1000 * thousands)


def test_tables_name_every_preset_with_its_figures() -> None:
    lines = presets.format_tables().splitlines()
    assert {line.split()[0] for line in lines if line.startswith("  ")} == {"preset", *presets.names()}
    row = next(line for line in lines if "voc12-resnet101-aspp-msc-coco-aug" in line)
    assert all(word in row for word in ("MSC", "COCO", "Aug", "76.35", "77.69"))
    assert len([line for line in lines if "largefov-step-b30-6k" in line]) == 2  # in the table of kernels, too


def test_a_preset_describes_itself_with_its_figures() -> None:
    assert "68.96 before and 71.57 after the CRF" in presets.get("voc12-vgg16-aspp-l").describe()


def test_unknown_preset_is_refused_with_the_names() -> None:
    with pytest.raises(UserError, match=r"unknown preset 'voc'.*voc12-vgg16-largefov") as refusal:
        presets.get("voc")
    assert all(name in str(refusal.value) for name in presets.names())


def test_arguments_start_from_the_preset_that_comes_first() -> None:
    argv = ["voc12-vgg16-aspp-s", "--batch", "4"]
    assert presets.from_arguments(argv) == (argv[0], presets.get(argv[0]).config, argv)


@pytest.mark.parametrize("spelling", [("--config", "{}"), ("--config={}",)])
@pytest.mark.parametrize("first", [[], ["camvid-vgg16-largefov"]])
def test_arguments_start_from_a_config_file(tmp_path: Path, spelling: tuple[str, ...], first: list[str]) -> None:
    file = tmp_path / "best.json"
    config = dataclasses.replace(Config(), solver=SolverConfig(batch=2))
    file.write_text(to_json(config))
    argv = [*first, *(part.format(file) for part in spelling), "--workers", "2"]
    name, found, rest = presets.from_arguments(argv)
    assert found == config
    assert name in presets.names()
    assert rest == argv if first else rest == [name, *argv]


@pytest.mark.parametrize("argv", [[], ["--workers", "2"], ["--config"], ["--config="]])
def test_arguments_with_neither_preset_nor_config_are_refused(argv: list[str]) -> None:
    with pytest.raises(UserError, match=r"name a preset first, or give --config FILE; presets: scenes-"):
        presets.from_arguments(argv)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_needs_no_preset(flag: str) -> None:
    assert flag in presets.from_arguments([flag])[2]


def test_config_files_that_are_none_are_refused(tmp_path: Path) -> None:
    binary, other = tmp_path / "picture.png", tmp_path / "other.json"
    binary.write_bytes(b"\x89PNG\r\n\xff\xfe")
    other.write_text(json.dumps({"loss": 1.0}))
    for path, sentence in (
        (tmp_path / "missing.json", "no Config can be read from .*missing.json"),
        (tmp_path, "no Config can be read from"),
        (binary, "no Config can be read from .*picture.png"),
        (other, "other.json: unknown field 'loss'"),
    ):
        with pytest.raises(UserError, match=sentence):
            presets.from_arguments(["--config", str(path)])
