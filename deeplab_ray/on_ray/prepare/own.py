"""Anybody's own two folders, whose classes may have to be found, shown and confirmed."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from deeplab_ray.datasets import Dataset
from deeplab_ray.datasets.facts import Facts
from deeplab_ray.datasets.folder import Folder, FolderOptions, find_classes, open_folder
from deeplab_ray.errors import UserError
from deeplab_ray.on_ray.prepare.request import Options, Request, check_request
from deeplab_ray.storage.location import Location, locate
from deeplab_ray.storage.patience import with_patience

CLASSES = "classes.json"
"""File in the output that keeps the classes that were found."""


def check_folder(
    own: FolderOptions, output: str, splits: Sequence[str] | None = None, options: Options | None = None
) -> Request:
    """What `carry_out` will do with two folders; see `check_request`. Prints what there is to tell of their files.

    Raises UserError as that does, and for what makes no set of the folders.
    """
    target = locate(output)
    for flag, place in (("--images", locate(own.images)), ("--labels", locate(own.labels))):
        if target == place or target.path.startswith(f"{place.path}/"):
            raise UserError(f"--output {target} lies in {flag} {place}: give a folder of its own")
    folder = open_folder(own)
    request = check_request(folder.dataset, own.images, output, splits, options)
    if request.options.min_object_pixels and not folder.dataset.classes:
        raise UserError("--min-object-pixels has to know the classes: give --classes")
    for note in folder.notes:
        print(note, flush=True)
    return request if folder.dataset.classes else replace(request, finder=_Finder(folder, request.output / CLASSES))


@dataclass(frozen=True)
class _Finder:
    """Finds the classes; `request.ClassFinder`."""

    folder: Folder
    file: Location

    def find(self, facts: Mapping[str, Facts]) -> Dataset:
        found = find_classes(self.folder, facts)
        for text in (found.table, *found.notes):
            print(text, flush=True)
        content = found.classes.to_json().encode()
        if self.file.exists() and with_patience(self.file.read_bytes, self.file) != content:
            raise UserError(
                f"{self.file} holds other classes than those that were found: take them by --classes {self.file}, or "
                "remove that file"
            )
        with_patience(lambda: self.file.write_bytes(content), self.file)
        return self.folder.with_classes(found.classes)

    def confirm(self) -> None:
        if self.folder.options.yes:
            return
        if sys.stdin.isatty() and input("Prepare with the classes above? [y/N] ").strip().lower() in ("y", "yes"):
            return
        raise UserError(
            f"the classes above are what is found, saved in {self.file}: correct and name them there and give "
            f"--classes {self.file}, or take them as they are by --yes"
        )
