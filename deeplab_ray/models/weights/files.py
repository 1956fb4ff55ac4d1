"""Files of weights by PyTorch or safetensors, whatever is wrapped around the state dict.

No code in a file is ever run: `torch.load` reads it with `weights_only=True`, and classes that it does not know are
replaced by one that does nothing.
"""

import hashlib
import io
import re
import tarfile
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from deeplab_ray.errors import UserError, quote
from deeplab_ray.models.weights.mapping import Line
from deeplab_ray.models.weights.start import KINDS
from deeplab_ray.storage.location import Location, locate

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params", "model_ema")
"""Names under which training scripts store the state dict; the first one found is taken."""
_NO_WEIGHTS = re.compile("optim|sched|scaler", re.IGNORECASE)
_PREFIXES = ("module.", "model.", "net.", "network.")
"""Prefixes that DataParallel, DDP, Lightning and modules around the network put before every name."""
_INSIDE = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Parts that torch.compile, FSDP and activation checkpointing insert into names."""
_UNKNOWN_CLASS = re.compile(r"GLOBAL (\S+) (?:was not|whose module)")
_MAX_UNKNOWN_CLASSES = 100

_ARCHIVES = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
}
_OTHERS = {
    b"version https://git-lfs": "a Git LFS pointer",
    b"/annex/objects/": "a git-annex pointer",
    b"\x89HDF": "an HDF5 file, such as Keras'",
    b"\x93NUMPY": "a NumPy array",
    b"%PDF": "a PDF",
}


@dataclass(frozen=True)
class Unwrapped:
    """A network's tensors as a file holds them."""

    tensors: dict[str, Tensor]
    """Tensors by name without the prefixes of wrappers; on the CPU, floating-point ones as float32."""
    sources: dict[str, str]
    """Each tensor's path in the file, through the dicts around it: state_dict/module.conv1.weight."""
    conversions: dict[str, str] = field(default_factory=dict)
    """The original type of each tensor that was converted."""
    ignored: dict[str, str] = field(default_factory=dict)
    """What else the file holds, by name, with the reason why it is ignored."""
    sha256: str = ""
    """Digest of the file."""

    def complete(self, report: list[Line]) -> list[Line]:
        """Complete a report on `tensors` with the file's own names, with conversions and with what was ignored."""
        return [self._in_the_file(line) for line in report] + [
            Line("", name, f"not used: {what}") for name, what in self.ignored.items()
        ]

    def _in_the_file(self, line: Line) -> Line:
        how = line.how
        if line.tensor and line.source in self.conversions:
            how = f"{how}, converted from {self.conversions[line.source]}"
        return replace(line, source=self.sources.get(line.source, line.source), how=how)


class _Ignored:
    """Stands in for an object of a class that a file names; it stores nothing and does nothing."""

    def __new__(cls, *_: Any) -> "_Ignored":
        return object.__new__(cls)

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


def read_file(location: Location) -> bytes:
    """Read a file of weights. Raises UserError if it cannot be read."""
    try:
        return location.read_bytes()
    except OSError as error:
        if location.exists() and not location.is_file():
            raise UserError(f"{location} is a folder without a checkpoint: give the path of {KINDS}") from None
        raise UserError(f"no weights at {location} ({type(error).__name__}): give the path of {KINDS}") from None


def read_state_dict(uri: str) -> Unwrapped:
    """Read the network's tensors in a file of PyTorch or safetensors at a local path or s3:// URI.

    Dicts around the state dict and prefixes before all names are removed; half precision becomes float32.
    Raises UserError if the file does not exist, is of another kind or broken, or holds no state dict or several.
    """
    content = read_file(locate(uri))
    if kind := foreign(content):
        raise UserError(f"{uri} is not a PyTorch file (it is {kind[0]}): {kind[1]}")
    value, classes = (_safetensors(content, uri), []) if _is_safetensors(content) else _load(content, uri)
    found = _find(value, uri)
    if found is None and classes:
        raise _pickled(uri, classes)
    if found is None:
        raise UserError(f"{uri} holds no state dict (tensors by name): save model.state_dict()")
    return replace(_unwrapped(value, found, uri), sha256=hashlib.sha256(content).hexdigest())


def foreign(content: bytes) -> tuple[str, str] | None:
    """Return what a file is that cannot be PyTorch's, and what to do; None if it may be PyTorch's."""
    download = "download the file itself"
    if not content:
        return "empty", download
    for magic, kind in _ARCHIVES.items():
        if content.startswith(magic):
            return f"a {kind} archive", "unpack it"
    for magic, kind in _OTHERS.items():
        if content.startswith(magic):
            return kind, download if "pointer" in kind else "give a state dict that torch.save wrote"
    if content[257:262] == b"ustar" and tarfile.is_tarfile(io.BytesIO(content)):
        return "a tar archive", "unpack it"
    if content.startswith(b"PK\x03\x04"):
        return _foreign_zip(content)
    return _foreign_text(content, download)


def _foreign_zip(content: bytes) -> tuple[str, str] | None:
    try:
        names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    except (zipfile.BadZipFile, ValueError):
        return "a zip archive without its end", "it is truncated or damaged: download or copy it again"
    if any(name.endswith("/constants.pkl") for name in names) and any("/code/" in name for name in names):
        return "a TorchScript program", "save model.state_dict() instead"
    if not any(name.split("/", 1)[-1] == "data.pkl" for name in names):
        return f"a zip archive of {_few(names)}" if names else "an empty zip archive", "unpack it"
    return None


def _foreign_text(content: bytes, download: str) -> tuple[str, str] | None:
    start = content[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script")):
        return "HTML, such as a download page", download
    if start.startswith(b"<"):
        return "XML, such as a server's error", download
    try:
        text = content[:512].decode("utf-8", errors="ignore" if len(content) > 512 else "strict")
    except UnicodeDecodeError:
        return None
    if all(character.isprintable() or character in "\r\n\t\ufeff" for character in text):
        return "text", download
    return None


def _is_safetensors(content: bytes) -> bool:
    return content[8:9] == b"{" and int.from_bytes(content[:8], "little") <= len(content)


def _safetensors(content: bytes, uri: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise UserError(
            f"{uri} cannot be read ({quote(error)}): it is truncated or damaged, download or copy it again"
        ) from None


def _load(content: bytes, uri: str) -> tuple[Any, list[str]]:
    """Load what torch.save wrote; return it, and the names of the classes whose objects were not loaded."""
    unknown: list[str] = []
    while True:
        try:
            with warnings.catch_warnings(), torch.serialization.safe_globals([(_Ignored, name) for name in unknown]):
                warnings.simplefilter("ignore")
                return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), unknown
        except Exception as error:
            # A broken file raises nearly any kind of exception.
            found = _UNKNOWN_CLASS.search(str(error))
            if found and found[1] not in unknown and len(unknown) < _MAX_UNKNOWN_CLASSES:
                unknown.append(found[1])
                continue
            if unknown:
                raise _pickled(uri, unknown) from None
            raise UserError(
                f"{uri} cannot be read ({type(error).__name__}): it is truncated, damaged, or was not written by "
                "torch.save: download or copy it again, or save model.state_dict()"
            ) from None


def _pickled(uri: str, classes: list[str]) -> UserError:
    what = "a whole pickled module" if any(name.startswith("torch.nn.") for name in classes) else "pickled objects"
    return UserError(
        f"{uri} holds {what} ({_few(classes)}), which could run code when loaded: save model.state_dict() from it"
    )


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _find(value: object, uri: str) -> tuple[str, ...] | None:
    """Return the keys that lead to the state dict; None if there is none. Raises UserError if there are several."""
    if not isinstance(value, Mapping):
        return None
    for key in _WRAPPERS:
        if key in value and (inside := _find(value[key], uri)) is not None:
            return (key, *inside)
    if any(isinstance(name, str) and isinstance(item, Tensor) for name, item in value.items()):
        return ()
    others = {
        key: inside
        for key, item in value.items()
        if isinstance(key, str) and not _NO_WEIGHTS.search(key) and (inside := _find(item, uri)) is not None
    }
    if len(others) > 1:
        raise UserError(f"{uri} holds several state dicts ({_few(list(others))}): save the wanted one alone")
    return next(((key, *inside) for key, inside in others.items()), None)


def _unwrapped(value: Any, path: tuple[str, ...], uri: str) -> Unwrapped:
    ignored: dict[str, str] = {}
    before = ""
    for key in path:
        ignored |= {f"{before}{name}": "beside the state dict" for name in value if name != key}
        value, before = value[key], f"{before}{key}/"
    tensors = {name: item for name, item in value.items() if isinstance(name, str) and isinstance(item, Tensor)}
    ignored |= {f"{before}{name}": "no tensor" for name in value if name not in tensors}
    short = _without_prefixes(list(tensors))
    floats = {short[name]: _to_float32(item, f"{uri}: {before}{name}") for name, item in tensors.items()}
    return Unwrapped(
        floats,
        {short[name]: f"{before}{name}" for name in tensors},
        {
            short[name]: str(item.dtype).removeprefix("torch.")
            for name, item in tensors.items()
            if item.dtype != floats[short[name]].dtype
        },
        ignored,
    )


def _without_prefixes(names: list[str]) -> dict[str, str]:
    """Map each name to the name without the prefixes of wrappers."""
    short = [_INSIDE.sub("", name) for name in names]
    while prefix := next((prefix for prefix in _PREFIXES if all(name.startswith(prefix) for name in short)), ""):
        short = [name.removeprefix(prefix) for name in short]
    return dict(zip(names, short if len(set(short)) == len(names) else names, strict=True))


def _to_float32(tensor: Tensor, what: str) -> Tensor:
    if tensor.is_quantized or tensor.layout != torch.strided:
        raise UserError(f"{what} is quantised or sparse: save the weights of the float network")
    tensor = tensor.detach()
    return tensor.float() if tensor.is_floating_point() else tensor
