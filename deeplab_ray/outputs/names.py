"""An image's id, which is any text, as the name of a file in a job's output."""

import hashlib
import re

ENDINGS = (".png", ".jpg", ".parquet")
"""Endings of the files that are named after an image. No folder's name ends so: "a" and "a.png/b" are both ids."""

# With an ending, and what `Location.write_bytes` adds while a file is written aside, within the 255 bytes of Linux.
_LONGEST_COMPONENT = 180
# With the output's own prefix within the 1024 bytes of S3.
_LONGEST = 512
_EMPTY = "%_"
_CUT = "%~"
_DOT = "%2E"

# "%", backslash, control characters, ends of lines and paragraphs, lone surrogates, and what is never a character.
_NO_CHARACTERS = "".join(chr(plane << 16 | code) for plane in range(17) for code in (0xFFFE, 0xFFFF))
_UNFIT = re.compile(rf"[%\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufdd0-\ufdef{_NO_CHARACTERS}]")
# A code that lost its end.
_TORN = re.compile("%[0-9A-F]?$")


def safe_name(id: str) -> str:
    """Return an image's id as a relative path of forward slashes, the same for ordinary ids.

    The path is a legal file name on Linux and a legal key on S3, and stays in the folder that it is joined to. Two ids
    never share one, be it by their case alone that they differ, and no id's file (with one of `ENDINGS` added) is a
    folder in another's path:

    - "%", "\\", control characters, lone surrogates and code points that are no characters are percent-encoded, as
      UTF-8 (a lone surrogate like a character of its number); so is a component's leading "." ("..", ".hidden"), and
      the dot of a folder that ends like a file;
    - an empty component ("", "/a", "a//b") is "%_";
    - a component of more than 180 bytes is cut, and ends with "%~" and its own SHA-256. A path of more than 512 bytes
      keeps the first of its folders, and its file is "%~" and the SHA-256 of the whole id.
    """
    *folders, file = id.split("/")
    names = [*(_component(folder, is_folder=True) for folder in folders), _component(file, is_folder=False)]
    whole = "/".join(names)
    if _size(whole) <= _LONGEST:
        return whole
    digest = _digest(id)
    room = _LONGEST - len(digest)
    kept = []
    for name in names:
        room -= _size(name) + 1
        if room < 0:
            break
        kept.append(name)
    return "/".join([*kept, digest])


def _component(text: str, is_folder: bool) -> str:
    if not text:
        return _EMPTY
    name = _UNFIT.sub(_quoted, text)
    if is_folder and (ending := next(filter(text.endswith, ENDINGS), None)):
        name = f"{name.removesuffix(ending)}{_DOT}{ending[1:]}"
    if name.startswith("."):
        name = _DOT + name[1:]
    if _size(name) <= _LONGEST_COMPONENT:
        return name
    digest = _digest(text)
    start = name.encode()[: _LONGEST_COMPONENT - len(digest)].decode(errors="ignore")
    return _TORN.sub("", start) + digest


def _quoted(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))


def _digest(text: str) -> str:
    return _CUT + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _size(name: str) -> int:
    return len(name.encode())
