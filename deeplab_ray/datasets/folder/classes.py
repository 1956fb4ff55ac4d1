"""The classes of anybody's own labels: from a file, from the command line, or found."""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deeplab_ray.datasets.colour_map import Colour, voc_colour
from deeplab_ray.errors import UserError
from deeplab_ray.labels import IGNORE
from deeplab_ray.storage.location import Location, locate

ENDINGS = (".txt", ".csv", ".json")
"""Of files of classes."""
_COLUMNS = {
    "name": ("name", "class", "class_name", "label", "category"),
    "value": ("value", "id", "index", "class_id", "label_id", "number"),
    "colour": ("colour", "color", "rgb", "hex"),
    "red": ("r", "red"),
    "green": ("g", "green"),
    "blue": ("b", "blue"),
    "ignore": ("ignore", "ignored", "void"),
}
_FIELD = {alias: field for field, aliases in _COLUMNS.items() for alias in aliases}
_YES, _NO = ("1", "true", "yes", "y", "x"), ("", "0", "false", "no", "n", "none")
_HEX = re.compile(r"#?([0-9a-fA-F]{6})")
# What annotation tools call pixels of no class; unlike the other lines of a list it has no number of its own there.
TOOLS_IGNORE = "__ignore__"


@dataclass(frozen=True)
class ClassEntry:
    """A class, or with `ignore` something that is none."""

    name: str
    value: int | None = None
    """Its number in labels that hold numbers; None: its place in the list, from 0."""
    colour: Colour | None = None
    ignore: bool = False


@dataclass(frozen=True)
class ClassList:
    """The classes in the order of their train ids, and what is ignored, in between."""

    entries: tuple[ClassEntry, ...]

    @property
    def classes(self) -> tuple[ClassEntry, ...]:
        """Those that are learnt."""
        return tuple(entry for entry in self.entries if not entry.ignore)

    @property
    def are_colours(self) -> bool:
        """Whether colours alone tell the classes apart."""
        return all(entry.colour is not None and entry.value is None for entry in self.classes)

    @property
    def palette(self) -> tuple[Colour, ...]:
        """A colour for each class: its own, or one of VOC's."""
        return tuple(
            voc_colour(train_id) if entry.colour is None else entry.colour
            for train_id, entry in enumerate(self.classes)
        )

    def numbers(self) -> dict[int, ClassEntry]:
        """Value in labels that hold numbers → what it stands for."""
        explicit = any(entry.value is not None for entry in self.classes)
        return {
            place if entry.value is None else entry.value: entry
            for place, entry in enumerate(self.entries)
            if entry.value is not None or not explicit
        }

    def train_ids(self) -> dict[str, int]:
        """Name → train id, or IGNORE."""
        ids = {entry.name: train_id for train_id, entry in enumerate(self.classes)}
        return {entry.name: ids.get(entry.name, IGNORE) for entry in self.entries}

    def to_json(self) -> str:
        """As a file of classes, which `read` reads."""
        rows: list[dict[str, Any]] = []
        for entry in self.entries:
            row: dict[str, Any] = {"name": entry.name}
            if entry.value is not None:
                row["value"] = entry.value
            if entry.colour is not None:
                row["colour"] = list(entry.colour)
            rows.append(row | ({"ignore": True} if entry.ignore else {}))
        lines = ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in rows)
        return f'{{"classes": [\n{lines}\n]}}\n'


def read_classes(text: str) -> ClassList:
    """The classes that --classes names: a file, or the names themselves. UserError, with the line, if they are wrong.

    Files: a text with a name a line; a CSV with a line of columns (name, value, colour or r, g, b, ignore; the name
    alone is needed); JSON, a list of such objects, or what has one as "classes", such as a prepared set's manifest.
    """
    if not text.lower().endswith(ENDINGS):
        return _checked("--classes", [_from_word(*each) for each in enumerate(text.split(","), 1)])
    place = locate(text)
    try:
        content = place.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"there is no file {place}: --classes is a file of classes, or their names as a,b,c") from None
    except UnicodeDecodeError:
        raise UserError(f"{place} is no UTF-8 text: save it as such") from None
    readers = {".txt": _from_text, ".csv": _from_csv, ".json": _from_json}
    reader = next(reader for ending, reader in readers.items() if text.lower().endswith(ending))
    return _checked(str(place), reader(place, content))


def parse_colour(given: Any) -> Colour | None:
    """#rrggbb, "r g b", "r,g,b" or [r, g, b] → RGB; None if it is none of these."""
    if isinstance(given, str):
        if found := _HEX.fullmatch(given.strip()):
            red, green, blue = bytes.fromhex(found[1])
            return red, green, blue
        given = re.split(r"[\s,;]+", given.strip("()[] \t"))
    try:
        red, green, blue = (int(part) for part in given)
    except (TypeError, ValueError):
        return None
    return (red, green, blue) if all(0 <= part <= 255 for part in (red, green, blue)) else None


_Rows = list[tuple[str, ClassEntry]]
"""Where it stands, and what stands there."""


def _from_word(number: int, word: str) -> tuple[str, ClassEntry]:
    name, _, value = word.partition("=")
    where = f"name {number}"
    return where, _entry(f"--classes, {where}", {"name": name, "value": value.strip()})


def _from_text(place: Location, content: str) -> _Rows:
    rows: _Rows = []
    value = 0
    for number, line in enumerate(content.splitlines(), 1):
        name, where = line.strip(), f"line {number}"
        if "," in name or "\t" in name:
            raise UserError(f"{place}, {where}: {name!r} is more than a name: call the file .csv, with a header line")
        if name == TOOLS_IGNORE:
            rows.append((where, ClassEntry(name, IGNORE, ignore=True)))
        elif name:
            rows.append((where, ClassEntry(name, value)))
            value += 1
    return rows


def _from_csv(place: Location, content: str) -> _Rows:
    head = content.split("\n", 1)[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(content), delimiter=delimiter, skipinitialspace=True)
    columns: list[str] = []
    rows: _Rows = []
    for cells in reader:
        where = f"line {reader.line_num}"
        if not any(cell.strip() for cell in cells):
            continue
        if not columns:
            columns = [_FIELD.get(cell.strip().lower(), "") for cell in cells]
            if "name" not in columns:
                raise UserError(
                    f"{place}, {where}: it should name the columns, such as name,value,colour,ignore or name,r,g,b"
                )
            continue
        if len(cells) > len(columns):
            raise UserError(f"{place}, {where}: {len(cells)} cells in {len(columns)} columns: quote what has commas")
        fields = {column: cell.strip() for column, cell in zip(columns, cells, strict=False) if column}
        rows.append((where, _entry(f"{place}, {where}", fields)))
    return rows


def _from_json(place: Location, content: str) -> _Rows:
    try:
        given = json.loads(content)
    except json.JSONDecodeError as error:
        raise UserError(f"{place}, line {error.lineno}: it is no JSON ({error.msg})") from None
    classes = given.get("classes") if isinstance(given, dict) else given
    if not isinstance(classes, list):
        raise UserError(f'{place} has no list of classes: write [{{"name": …, "value": …, "colour": [r, g, b]}}, …]')
    rows: _Rows = []
    for number, each in enumerate(classes, 1):
        where = f"class {number}"
        fields = {"name": each} if isinstance(each, str) else each
        if not isinstance(fields, dict):
            raise UserError(f"{place}, {where}: {each!r} is neither a name nor an object with one")
        known = {_FIELD[key.lower()]: value for key, value in fields.items() if key.lower() in _FIELD}
        rows.append((where, _entry(f"{place}, {where}", known)))
    ignored = given.get("ignore_value") if isinstance(given, dict) else None
    if isinstance(ignored, int) and all(entry.value not in (ignored, None) for _, entry in rows):
        rows.append(("ignore_value", ClassEntry("ignored", ignored, ignore=True)))
    return rows


def _entry(where: str, fields: Mapping[str, Any]) -> ClassEntry:
    """A class out of what a file says of it. UserError if that is wrong."""
    name = str(fields.get("name") or "").strip()
    if not name:
        raise UserError(f"{where}: it has no name")
    value: int | None = None
    if (given := fields.get("value", "")) not in ("", None):
        try:
            value = int(str(given))
        except ValueError:
            value = -1
        if not 0 <= value <= 255:
            raise UserError(f"{where}: the value of {name!r} is {given!r}, and should be a number of 0..255")
    colour = fields.get("colour", "")
    if {"red", "green", "blue"} <= fields.keys():
        colour = [fields["red"], fields["green"], fields["blue"]]
        colour = "" if not any(str(part).strip() for part in colour) else colour
    rgb = parse_colour(colour)
    if rgb is None and colour not in ("", None):
        raise UserError(f"{where}: the colour of {name!r} is {colour!r}: write #rrggbb, or three numbers of 0..255")
    ignore = str(fields.get("ignore", "")).strip().lower()
    if ignore not in _YES + _NO:
        raise UserError(f"{where}: ignore is {fields['ignore']!r} for {name!r}: write yes or no")
    return ClassEntry(name, value, rgb, ignore in _YES)


def _checked(source: str, rows: _Rows) -> ClassList:
    """All entries together; UserError if two are in each other's way."""
    found = ClassList(tuple(entry for _, entry in rows))
    classes = len(found.classes)
    if not 1 <= classes <= IGNORE:
        raise UserError(f"{source} has {classes} classes that are not ignored: there must be 1 to {IGNORE}")
    valued = [entry.value is not None for entry in found.classes]
    if any(valued) and not all(valued):
        where, entry = next(row for row in rows if row[1].value is None and not row[1].ignore)
        raise UserError(f"{source}, {where}: {entry.name!r} has no value, and others have: give all of them one")
    _refuse_twice(source, "the name", ((where, entry.name) for where, entry in rows))
    _refuse_twice(source, "the value", ((where, entry.value) for where, entry in rows))
    _refuse_twice(source, "the colour", ((where, entry.colour) for where, entry in rows))
    return found


def _refuse_twice(source: str, what: str, rows: Iterable[tuple[str, Any]]) -> None:
    seen: dict[Any, str] = {}
    for where, value in rows:
        if value is not None and seen.setdefault(value, where) != where:
            raise UserError(f"{source}, {where}: {what} {value!r} stands in {seen[value]}, too: make them differ")
