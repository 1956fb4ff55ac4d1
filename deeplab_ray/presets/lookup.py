"""Presets by name, as lists, and as the start of a job's flags."""

import importlib
import json
from dataclasses import dataclass

from deeplab_ray.config.flags import value_of
from deeplab_ray.config.io import from_dict, read_text
from deeplab_ray.config.recipe import Recipe
from deeplab_ray.config.resources import TrainingResources
from deeplab_ray.errors import UserError
from deeplab_ray.models.configs import DeepLabV2Config
from deeplab_ray.presets import others, paper
from deeplab_ray.presets.preset import Preset

PRESETS = (*others.FIRST, *paper.PRESETS, *others.LAST)
_BY_NAME = {preset.name: preset for preset in PRESETS}
LIST_HINT = "jobs/train.py --list shows all presets"
COCO_HINT = (
    "Those with COCO start from a network trained on it, such as the presets coco-… make; from one with another head\n"
    "they take the trunk. For example:\n"
    "  jobs/prepare.py coco --source COCO --output COCO_DATA --min-object-pixels 1000\n"
    "  jobs/train.py coco-resnet101-aspp-msc-aug --data COCO_DATA --output COCO_RUN\n"
    "  jobs/train.py voc12-resnet101-aspp-msc-coco-aug --data VOC_DATA --output RUN --weights COCO_RUN"
)


def names() -> list[str]:
    """Return all presets' names, in the order of the tables."""
    return list(_BY_NAME)


def get(name: str) -> Preset:
    """Return the preset of this name. Raises UserError, listing all names, if there is none."""
    if name not in _BY_NAME:
        raise UserError(f"unknown preset {name!r}: choose from {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def format_tables() -> str:
    """List all presets, table by table: name, what is switched on, published mIoU before and after the CRF, splits.

    At the end it says how to make the networks from which those with COCO start.
    """
    name_width = max(map(len, _BY_NAME))
    text_width = max(len(preset.switched_on) for preset in PRESETS)
    lines = []
    for table in dict.fromkeys(preset.table for preset in PRESETS):
        head = f"  {'preset':<{name_width}}  {'what is switched on':<{text_width}}  mIoU %  + CRF  trained, tested on"
        lines += ["", table, head]
        # The policies are compared with the preset under which the kernels were compared.
        also = _BY_NAME[paper.COMPARED_UNDER_POLICIES] if table == paper.POLICIES else None
        for preset in (preset for preset in PRESETS if preset.table == table or preset is also):
            before, after = (f"{figure:.2f}" if figure else "–" for figure in preset.published)
            data = f"{preset.dataset} {preset.recipe.train_split}, {preset.recipe.validation_split}"
            text = f"  {preset.name:<{name_width}}  {preset.switched_on:<{text_width}}  {before:>6}  {after:>5}"
            lines.append(f"{text}  {data}")
    return "\n".join([*lines[1:], "", COCO_HINT])


@dataclass(frozen=True)
class Start:
    """The values from which a job's flags start."""

    preset: Preset | None
    """None if a file was given instead."""
    recipe: Recipe
    resources: TrainingResources
    argv: list[str]
    """The command line, with a preset's name (or "") in its place."""

    @property
    def name(self) -> str:
        """The preset's name; empty if there is no preset."""
        return self.preset.name if self.preset else ""

    def note(self, reader: str) -> str:
        """Return a line for the user if the data were prepared by another reader than the preset's; else nothing."""
        if self.preset is None or self.preset.dataset == reader:
            return ""
        return f"note: {self.name} was published for {self.preset.dataset}; these data are of {reader}"


def start(argv: list[str]) -> Start:
    """Find what a job's flags start from: the preset named first on the command line, or the recipe of --config FILE.

    Raises UserError if there is neither, or the one that is given cannot be had.
    """
    file = value_of("--config", argv)
    named = argv[0] if argv and not argv[0].startswith("-") else ""
    if named:
        preset = get(named)
        recipe, resources = preset.recipe, preset.resources
        if file:
            recipe = load_recipe(file)
        return Start(None if file else preset, recipe, resources, argv)
    if file:
        return Start(None, load_recipe(file), TrainingResources(), ["", *argv])
    if {"-h", "--help"} & set(argv):
        return Start(None, Recipe(DeepLabV2Config()), TrainingResources(), ["", *argv])
    raise UserError(f"name a preset first, or give --config FILE; presets: {', '.join(_BY_NAME)}")


def load_recipe(uri: str) -> Recipe:
    """Read the recipe in a file that a job wrote (run.json, best.json); UserError if it cannot be read or is wrong."""
    # The recipe may be of a network that no preset has.
    importlib.import_module("deeplab_ray.models.networks")
    try:
        value = json.loads(read_text(uri, "recipe"))
    except json.JSONDecodeError as error:
        raise UserError(f"{uri} is not JSON ({error}): give the run.json or best.json of a run") from None
    if isinstance(value, dict) and "recipe" in value:
        value = value["recipe"]
    return from_dict(value, Recipe, uri)
