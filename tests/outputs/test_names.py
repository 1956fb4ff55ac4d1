"""Names of outputs: inside their folder, one for each id, ordinary ids as they are."""

import itertools
import os
import random
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest

from deeplab_ray.local.s3_server import EmbeddedS3
from deeplab_ray.outputs.names import ENDINGS, safe_name
from deeplab_ray.storage.location import locate

ORDINARY = [
    "frankfurt/frankfurt_000000_000294",
    "2007_000033",
    "A b/C d",
    "München/Straße ö",
    "写真/一枚目",
    "v1.0/img.2.final",
    "a.png",
    "x:y*z?#&=+@~'\"<>|$",
    "-rf",
    " ",
    "a" * 180,
    "é" * 90,
]
HOSTILE = [
    "../../x",
    "..",
    ".",
    "",
    "/",
    "//",
    "///",
    "/etc/passwd",
    "a//b",
    "a/b/",
    "a/./b",
    "a/../b",
    "a\\b",
    "a\\..\\b",
    "%",
    "%%",
    "%_",
    "%2E",
    "%2e",
    ".%2E",
    "%2F",
    "a%2Fb",
    "%~",
    "%~" + "0" * 64,
    ".progress",
    ".progress/journal/x",
    "...",
    ".hidden/.x",
    "a\0b",
    "a\nb",
    "a\r\nb",
    "\x1b[31mred",
    "\x7f",
    "\x85",
    "\u2028",
    "\ufffe",
    "\ufdd0",
    "\U0010ffff",
    os.fsdecode(b"caf\xe9"),
    "\udcc2\udc85",  # two bytes that together would be UTF-8
    os.fsdecode(b"\xff\xfe"),
    "\ud83d\ude00",  # two lone surrogates, not the character below
    "\U0001f600",
    "x" * 5000,
    "x" * 4999 + "y",
    "%" * 5000,
    "\\" * 5000,
    "é" * 5000,
    "\ud800" * 5000,
    "." * 5000,
    "/" * 5000,
    "a/" * 2500,
    "a/" * 2499 + "a",
    "../" * 1700,
    "a" * 181,
    "a" * 5000 + "/b",
    "é" * 91,
    "Case",
    "case",
    "CASE",
    "a.png/b",
    "a%2Epng/b",
    ".png/b",
    "a.jpg/a.parquet/c",
    "e\u0301",
    "\u00e9",
]


def decode(name: str) -> str:
    """The id of a name that was not cut, by an independent way."""
    components = ("" if component == "%_" else component for component in name.split("/"))
    return "/".join(unquote_to_bytes(component).decode("utf-8", "surrogatepass") for component in components)


@pytest.mark.parametrize("id", ORDINARY)
def test_ordinary_ids_stay_as_they_are(id: str) -> None:
    assert safe_name(id) == id


def variations() -> list[str]:
    """Ids of few and treacherous characters: all up to four, and many longer ones."""
    alphabet = "./%_\\~2E\0"
    short = ["".join(letters) for length in range(5) for letters in itertools.product(alphabet, repeat=length)]
    rng = random.Random(0)
    letters = [*alphabet, "a", "A", "é", "\udc80", "\U0001f600", ".png", "%~", "%25"]
    long = ["".join(rng.choices(letters, k=rng.randrange(6, 300))) for _ in range(600)]
    return [*short, *set(long)]


def test_no_two_ids_share_a_name() -> None:
    ids = {*ORDINARY, *HOSTILE, *variations()}
    assert len({safe_name(id) for id in ids}) == len(ids)
    # A name taken for an id is another id, with a name of its own.
    again = {safe_name(id) for id in ids} - ids
    assert len({safe_name(id) for id in ids | again}) == len(ids | again)


def test_names_that_were_not_cut_say_their_id() -> None:
    for id in [*ORDINARY, *HOSTILE, *variations()]:
        name = safe_name(id)
        if "%~" not in name:
            assert decode(name) == id


@pytest.mark.parametrize("id", [*ORDINARY, *HOSTILE], ids=lambda id: ascii(id[:20]))
def test_names_are_legal_and_stay_inside(id: str, tmp_path: Path) -> None:
    folder = tmp_path / "output" / "index"
    name = safe_name(id)
    components = name.split("/")
    assert len(name.encode()) <= 512
    assert all(1 <= len(component.encode()) <= 180 for component in components)
    assert all(not component.startswith(".") for component in components)
    assert not any(ord(character) < 32 or character in "\\\x7f" for character in name)
    path = os.path.join(folder, f"{name}.parquet")
    assert os.path.normpath(path) == path
    assert os.path.commonpath([folder, path]) == str(folder)
    location = locate(str(folder)) / f"{name}.parquet"
    location.write_bytes(b"content")
    assert [file.resolve() for file in tmp_path.rglob("*.parquet") if file.is_file()] == [Path(path)]
    assert locate(str(folder)).files(recursive=True) == [f"{name}.parquet"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_all_of_them_lie_in_one_folder_on_disk(ending: str, tmp_path: Path) -> None:
    """No file of one id is in the way of another's folder."""
    ids = [*ORDINARY, *HOSTILE, *(f"{id}{ending}/below" for id in ORDINARY)]
    folder = locate(str(tmp_path))
    for number, id in enumerate(ids):
        (folder / f"{safe_name(id)}{ending}").write_bytes(str(number).encode())
    for number, id in enumerate(ids):
        assert (folder / f"{safe_name(id)}{ending}").read_bytes() == str(number).encode(), id


def test_all_of_them_lie_in_one_folder_on_s3(s3: EmbeddedS3) -> None:
    s3.make_bucket("names")
    folder = locate("s3://names/output/index")
    names = {f"{safe_name(id)}.png": id.encode("utf-8", "surrogatepass") for id in [*ORDINARY, *HOSTILE]}
    for name, content in names.items():
        (folder / name).write_bytes(content)
    assert folder.files(recursive=True) == sorted(names)
    for name, content in names.items():
        assert (folder / name).read_bytes() == content


def test_cut_names_begin_like_their_ids_and_end_whole() -> None:
    name = safe_name("é" * 5000)
    start, digest = name.split("%~")
    assert set(start) == {"é"}
    assert len(digest) == 64
    assert safe_name("a" * 5000 + "/x").endswith("/x")
    # Cut between codes, not in one.
    assert len(safe_name("%" * 5000).split("%~")[0]) % 3 == 0
    many = safe_name("folder/" * 500 + "x")
    assert many.startswith("folder/folder/")
    assert many.rsplit("/", 1)[1].startswith("%~")
