"""What a user says of two folders."""

from dataclasses import dataclass

from deeplab_ray.datasets.colour_map import Colour
from deeplab_ray.datasets.folder.classes import parse_colour
from deeplab_ray.errors import UserError


@dataclass(frozen=True)
class FolderOptions:
    """Where images and labels lie, what labels mean, and how they are split. Raises UserError for what cannot be."""

    images: str
    """Folder or s3:// URI of the images, searched with all folders in it."""
    labels: str
    """Folder of their labels, with the same paths and names but for the endings (PNGs and the like, or LabelMe JSON);
    or a COCO JSON file for all."""
    classes: str = ""
    """A file (.txt, .csv, .json) of the classes, or their names: a,b,c or a=0,b=255. Empty: they are found by looking,
    shown, and saved in OUTPUT/classes.json."""
    yes: bool = False
    """Take the classes that are found without asking."""
    label_suffix: str = ""
    """What the names of labels have more than those of their images, such as _mask."""
    label_offset: int = 0
    """Added to every number in the labels, before the classes' values are compared with it."""
    ignore_values: tuple[int, ...] = ()
    """Numbers in label files that stand for no class."""
    ignore_colours: tuple[str, ...] = ()
    """Colours in label files that stand for no class, such as 0,0,0 or ffffff."""
    snap_colours: bool = False
    """Let pixels of other colours have the class of the nearest colour around them: for labels with smoothed borders,
    or saved as JPEG."""
    val_share: float = 0.2
    """Share of the images for the split val, chosen by their ids, so that each stays where it is when others are
    added. Only where neither --split-lists nor folders say which."""
    split_seed: int = 0
    """Another number chooses others."""
    split_lists: tuple[str, ...] = ()
    """The splits as lists of images, one a line: train=train.txt val=val.txt."""
    split_folders: bool = False
    """Take the folders in IMAGES for the splits; so it is in any case if there are train and val (or valid,
    validation, test)."""

    def __post_init__(self) -> None:
        if not 0 <= self.val_share < 1:
            raise UserError(f"--val-share {self.val_share:g} must be at least 0 and below 1")
        if self.split_lists and self.split_folders:
            raise UserError("--split-lists and --split-folders both say which image is where: leave out one of them")
        for text in self.split_lists:
            name, equals, file = text.partition("=")
            if not (name and equals and file) or "/" in name:
                raise UserError(f"--split-lists {text!r} is not of the form NAME=FILE, such as train=train.txt")
        for value in self.ignore_values:
            if not 0 <= value <= 255:
                raise UserError(f"--ignore-values {value} must be a number of 0..255")
        for colour in self.ignore_colours:
            if parse_colour(colour) is None:
                raise UserError(f"--ignore-colours {colour!r} is no colour: write rrggbb or r,g,b")

    @property
    def ignored_colours(self) -> frozenset[Colour]:
        """`ignore_colours` as RGB."""
        return frozenset(filter(None, map(parse_colour, self.ignore_colours)))
