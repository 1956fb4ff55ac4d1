"""Which split an image belongs to: by lists, by folders, or by a share that is chosen by ids."""

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from deeplab_ray.datasets.base import Pair
from deeplab_ray.datasets.folder.matching import last_names, named
from deeplab_ray.datasets.folder.options import FolderOptions
from deeplab_ray.errors import UserError
from deeplab_ray.storage.location import Location, locate

_USUAL = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Folders that are taken for splits without asking, and the splits' names."""
_LAST_ENDING = re.compile(r"(?<=[^/])\.[^./]*$")

T = TypeVar("T")


def share_out(pairs: Sequence[Pair], options: FolderOptions) -> tuple[dict[str, list[Pair]], list[str]]:
    """The pairs of each split, in their order, and what there is to tell. UserError if a split would be empty."""
    if options.split_lists:
        splits = {}
        for text in options.split_lists:
            name, _, file = text.partition("=")
            splits[name] = _listed(locate(file), pairs)
        return splits, _left_out(pairs, splits, "stand in none of the lists")
    folders = {pair.id.split("/")[0] for pair in pairs if "/" in pair.id}
    usual = {_USUAL.get(folder) for folder in folders} - {None}
    if options.split_folders or ("train" in usual and len(usual) > 1):
        return _by_folder(pairs, folders, options)
    return _by_share(pairs, options), []


def is_val(id: str, share: float, seed: int) -> bool:
    """Whether an image belongs to val: a function of its id, whatever others there are."""
    digest = hashlib.sha256(f"{seed}/{id}".encode()).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


def _by_share(pairs: Sequence[Pair], options: FolderOptions) -> dict[str, list[Pair]]:
    splits: dict[str, list[Pair]] = {"train": [], "val": []}
    for pair in pairs:
        splits["val" if is_val(pair.id, options.val_share, options.split_seed) else "train"].append(pair)
    if not options.val_share:
        del splits["val"]
    for split, members in splits.items():
        if not members:
            raise UserError(
                f"none of {len(pairs)} images falls into {split}: give another --val-share or --split-seed, or "
                "--val-share 0 for train alone"
            )
    return splits


def _by_folder(
    pairs: Sequence[Pair], folders: set[str], options: FolderOptions
) -> tuple[dict[str, list[Pair]], list[str]]:
    if not folders:
        raise UserError("--split-folders: there are no folders in IMAGES: leave it out, or give --split-lists")
    names = {folder: _USUAL.get(folder, folder) for folder in folders if options.split_folders or folder in _USUAL}
    splits: dict[str, list[Pair]] = {names[folder]: [] for folder in sorted(names)}
    for pair in pairs:
        folder, slash, _ = pair.id.partition("/")
        if slash and folder in names:
            splits[names[folder]].append(pair)
    said = [f"split {split} is the folder {folder}" for folder, split in sorted(names.items()) if split != folder]
    return splits, said + _left_out(pairs, splits, f"lie in none of the folders {', '.join(sorted(names))}")


def _left_out(pairs: Sequence[Pair], splits: dict[str, list[Pair]], why: str) -> list[str]:
    used = {pair.id for members in splits.values() for pair in members}
    left = [pair.id for pair in pairs if pair.id not in used]
    return [f"images left out, which {why}: {len(left)} of {len(pairs)}, such as {named(left)}"] if left else []


def _listed(file: Location, pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs that a list names, by id, by path with or without the ending, or by name if it is the only one."""
    try:
        lines = file.read_bytes().decode("utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UserError(f"there is no file {file}: --split-lists takes NAME=FILE, an image a line") from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is no UTF-8 text: it should list the split's images, one a line") from None
    by_id = {pair.id: pair for pair in pairs}
    tests: tuple[Callable[[str], str], ...] = (str, lambda path: _LAST_ENDING.sub("", path))
    find = last_names({id: id for id in by_id})
    found: dict[str, Pair] = {}
    for number, line in enumerate(lines, 1):
        # Some lists name the label as well.
        path = line.strip() if line.strip() in by_id else (line.split() or [""])[0]
        if not path:
            continue
        id = next((test(path) for test in tests if test(path) in by_id), None)
        id = id or next((only for test in tests if (only := find(test(path)))), None)
        if id is None:
            raise UserError(f"{file}, line {number}: there is no image {path!r}, or there are several of that name")
        found[id] = by_id[id]
    if not found:
        raise UserError(f"{file} is empty: it should list the split's images, one a line")
    return sorted(found.values(), key=lambda pair: pair.id)
