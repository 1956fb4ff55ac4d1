"""Two folders → a dataset."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from deeplab_ray.datasets.base import Dataset, Pair, resolve
from deeplab_ray.datasets.folder import kinds
from deeplab_ray.datasets.folder.classes import ClassList, read_classes
from deeplab_ray.datasets.folder.colours import Colours
from deeplab_ray.datasets.folder.kinds import Kind
from deeplab_ray.datasets.folder.matching import match
from deeplab_ray.datasets.folder.options import FolderOptions
from deeplab_ray.datasets.folder.shapes import Coco, LabelMe
from deeplab_ray.datasets.folder.splits import share_out
from deeplab_ray.datasets.formats import Index, LabelFormat
from deeplab_ray.errors import UserError
from deeplab_ray.labels import IGNORE
from deeplab_ray.storage.access import check_access
from deeplab_ray.storage.location import Location, locate

Form = Literal["numbers", "colours", "LabelMe", "COCO"]
"""How labels say what each pixel is."""

NAME = "folder"


@dataclass(frozen=True)
class Folder:
    """Two folders that were searched, before any image is opened."""

    options: FolderOptions
    dataset: Dataset
    """Its splits and pairs (with whole paths), and how its labels are read. Without classes if they are to be found:
    see `finding.find_classes`."""
    form: Form
    kind: Kind
    """What the first labels are, if they are pictures."""
    notes: tuple[str, ...]
    """What there is to tell of the files: which were passed over, and which lack their other half."""

    def with_classes(self, classes: ClassList) -> Dataset:
        """The dataset with classes that were found. UserError if the labels cannot hold them."""
        return replace(
            self.dataset,
            classes=tuple(entry.name for entry in classes.classes),
            palette=classes.palette,
            label_values=_label_values(classes, self.options, self.form),
            format=_format(classes, self.options, self.form),
        )


def open_folder(options: FolderOptions) -> Folder:
    """Find images, labels, splits, and how the labels are kept; needs no Ray. A few labels are opened.

    UserError for what cannot be prepared: a folder that is not there or holds nothing, labels that fit no image, wrong
    files of classes or lists.
    """
    images, labels = locate(options.images), locate(options.labels)
    check_access(read=[images, labels])
    classes = read_classes(options.classes) if options.classes else None
    matched = match(images, labels, options.label_suffix)
    splits, notes = share_out(matched.pairs, options)
    form, kind = _form(matched.pairs, matched.drawn, classes)
    _refuse_contradictions(options, form, classes)
    empty = ClassList(())
    dataset = Dataset(
        name=NAME,
        title="two folders of one's own",
        classes=(),
        palette=(),
        splits=tuple(splits),
        label_values={},
        pairs=partial(_members, splits),
        format=_format(empty, options, form),
    )
    folder = Folder(options, dataset, form, kind, (*matched.notes, *notes))
    return replace(folder, dataset=folder.with_classes(classes)) if classes else folder


def _members(splits: Mapping[str, list[Pair]], source: Location, split: str) -> list[Pair]:
    return splits[split]


def _form(pairs: list[Pair], drawn: bool, classes: ClassList | None) -> tuple[Form, Kind]:
    if drawn:
        return ("COCO" if any(pair.drawn is not None for pair in pairs) else "LabelMe"), Kind()
    files = [resolve(locate("/"), pair.label) for pair in pairs if pair.label]
    kind = kinds.look(files)
    if classes is None or kind.is_coloured:
        return ("colours" if kind.is_coloured else "numbers"), kind
    by_colour = classes.are_colours and kind.has_colours([entry.colour for entry in classes.classes])
    return ("colours" if by_colour else "numbers"), kind


def _refuse_contradictions(options: FolderOptions, form: Form, classes: ClassList | None) -> None:
    if form == "colours" and classes and any(entry.colour is None for entry in classes.classes):
        raise UserError(
            "the labels hold colours, and --classes does not say which colour is which class: give a file with columns "
            "name,colour, or leave --classes out to find them"
        )
    hold = "colours" if form == "colours" else "shapes" if form != "numbers" else "numbers"
    if form != "numbers" and (options.ignore_values or options.label_offset):
        flag = "--ignore-values" if options.ignore_values else "--label-offset"
        raise UserError(f"{flag} is about numbers, and the labels hold {hold}: leave it out")
    if form != "colours" and (options.ignore_colours or options.snap_colours):
        flag = "--ignore-colours" if options.ignore_colours else "--snap-colours"
        raise UserError(f"{flag} is about labels in RGB, and the labels hold {hold}: leave it out")


def _label_values(classes: ClassList, options: FolderOptions, form: Form) -> dict[int, int]:
    """Value → train id: of the label files if they hold numbers, else of what is written on the way out."""
    if form != "numbers":
        return {**{train_id: train_id for train_id in range(len(classes.classes))}, IGNORE: IGNORE}
    train_ids, table = classes.train_ids(), dict[int, int]()
    for number, entry in classes.numbers().items():
        value = number - options.label_offset
        if 0 <= value <= 255:
            table[value] = train_ids[entry.name]
        elif not entry.ignore:
            raise UserError(
                f"class {entry.name!r} is {number}, which no label can hold with --label-offset "
                f"{options.label_offset}: give the values that the labels have after it was added"
            )
    for value in options.ignore_values:
        if table.get(value, IGNORE) != IGNORE:
            name = classes.classes[table[value]].name
            raise UserError(f"--ignore-values {value} is the value of class {name!r}: leave one of them out")
    return {**table, **dict.fromkeys(options.ignore_values, IGNORE)}


def _format(classes: ClassList, options: FolderOptions, form: Form) -> LabelFormat:
    train_ids = classes.train_ids()
    if form == "numbers":
        return Index(_label_values(classes, options, form), NAME)
    if form == "colours":
        colours = {entry.colour: train_ids[entry.name] for entry in classes.entries if entry.colour is not None}
        ignored = dict.fromkeys(options.ignored_colours, IGNORE) if classes.entries else {}
        if both := options.ignored_colours & {entry.colour for entry in classes.classes}:
            raise UserError(f"--ignore-colours {min(both, key=str)} is the colour of a class: leave one of them out")
        return Colours(colours | ignored, options.snap_colours)
    return (Coco if form == "COCO" else LabelMe)(train_ids)
