"""Weights as people have them: what is safe is taken, the rest is named, and nothing of a file is run."""

import argparse
import collections
import gzip
import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from deeplab_ray.errors import UserError
from deeplab_ray.models import checkpoint
from deeplab_ray.models.configs import DeepLabV2Config
from deeplab_ray.models.weights.files import Unwrapped, read_state_dict
from deeplab_ray.models.weights.load import load
from deeplab_ray.storage.location import locate

STATE = {
    "conv1.weight": torch.arange(24.0).reshape(2, 3, 2, 2),
    "bn1.running_mean": torch.tensor([1.5, -2.0]),
    "bn1.num_batches_tracked": torch.tensor(7),
}
ADVICE = ("weights_only", "trust", "add_safe_globals", "\x1b", "\n")


def saved(content: object, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def read(tmp_path: Path, content: object, name: str = "weights.pth") -> Unwrapped:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else saved(content))
    return read_state_dict(str(tmp_path / name))


def refusal(tmp_path: Path, content: object, name: str = "weights.pth") -> str:
    """What is said of the file, after its path; never PyTorch's own advice."""
    with pytest.raises(UserError) as caught:
        read(tmp_path, content, name)
    said = str(caught.value)
    assert not any(word in said for word in ADVICE)
    assert len(said) < 400 + len(str(tmp_path))
    assert said.startswith(str(tmp_path / name))
    return said.removeprefix(str(tmp_path / name)).strip()


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in STATE.items()}


class Payload:
    """Makes a file or a folder where it is loaded as pickle loads."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


OPTIMIZER = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}


@pytest.mark.parametrize(
    ("content", "source", "ignored"),
    [
        (STATE, "{}", []),
        (collections.OrderedDict(STATE), "{}", []),
        ({name: nn.Parameter(value, requires_grad=False) for name, value in STATE.items()}, "{}", []),
        ({"state_dict": STATE, "epoch": 3, "optimizer": OPTIMIZER}, "state_dict/{}", ["epoch", "optimizer"]),
        ({"model": STATE}, "model/{}", []),
        (
            {"model_state_dict": STATE, "optimizer_state_dict": OPTIMIZER},
            "model_state_dict/{}",
            ["optimizer_state_dict"],
        ),
        ({"net": prefixed("module."), "acc": 93.1}, "net/module.{}", ["acc"]),
        ({"model": {"state_dict": STATE, "step": 1}, "lr": 0.1}, "model/state_dict/{}", ["lr", "model/step"]),
        ({"state_dict": STATE, "best_acc1": torch.tensor(76.1)}, "state_dict/{}", ["best_acc1"]),
        ({"model": STATE, "model_ema": STATE}, "model/{}", ["model_ema"]),
        ({"my network": STATE, "lr_schedule": {"last": torch.zeros(1)}}, "my network/{}", ["lr_schedule"]),
        ({"model": STATE, "args": argparse.Namespace(lr=0.1, path=Path("data"))}, "model/{}", ["args"]),
        ({"model": STATE, "best": np.float64(76.1), "rng": np.arange(3)}, "model/{}", ["best", "rng"]),
        (prefixed("module."), "module.{}", []),
        (prefixed("_orig_mod."), "_orig_mod.{}", []),
        (prefixed("model."), "model.{}", []),
        (prefixed("module._orig_mod."), "module._orig_mod.{}", []),
        (
            {"state_dict": prefixed("model._orig_mod."), "hparams": {"lr": 1}},
            "state_dict/model._orig_mod.{}",
            ["hparams"],
        ),
        ({**STATE, "classes": ["sky", "road"]}, "{}", ["classes"]),
    ],
)
@pytest.mark.parametrize("format", ["zip", "legacy"])
def test_a_state_dict_is_found_in_what_training_scripts_save(
    tmp_path: Path, content: Any, source: str, ignored: list[str], format: str
) -> None:
    found = read(tmp_path, saved(content, _use_new_zipfile_serialization=format == "zip"))
    assert found.tensors.keys() == STATE.keys()
    assert all(torch.equal(found.tensors[name], value) for name, value in STATE.items())
    assert not any(value.requires_grad for value in found.tensors.values())
    assert found.sources == {name: source.format(name) for name in STATE}
    assert sorted(found.ignored) == ignored
    assert not found.conversions


def test_a_name_that_a_compiled_part_has_in_its_middle_is_cleaned(tmp_path: Path) -> None:
    found = read(tmp_path, {"trunk._orig_mod.conv.weight": torch.ones(1), "head.weight": torch.ones(1)})
    assert found.sources == {"trunk.conv.weight": "trunk._orig_mod.conv.weight", "head.weight": "head.weight"}


def test_prefixes_stay_where_not_all_names_have_them(tmp_path: Path) -> None:
    names = {"model.conv.weight", "criterion.weight"}
    assert read(tmp_path, {name: torch.ones(1) for name in names}).tensors.keys() == names


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_other_floating_point_becomes_float32(tmp_path: Path, dtype: torch.dtype, kind: str) -> None:
    state = {name: value.to(dtype) if value.is_floating_point() else value for name, value in STATE.items()}
    content = saved(state) if kind == "pth" else safetensors.torch.save(state)
    found = read(tmp_path, content, f"weights.{kind}")
    for name, value in STATE.items():
        assert found.tensors[name].dtype == value.dtype
        assert torch.equal(found.tensors[name], value), name
    told = str(dtype).removeprefix("torch.")
    assert found.conversions == {"conv1.weight": told, "bn1.running_mean": told}


def zipped(**files: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pth"))
    return file.getvalue()


def scripted() -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(1, 1)), file)
    return file.getvalue()


NO_PYTORCH = "is not a PyTorch file (it is {}): {}".format
ITSELF = "download the file itself"
HTML = NO_PYTORCH("HTML, such as a download page", ITSELF)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!DOCTYPE html><html><title>Virus scan warning</title></html>", HTML),
        (b"\xef\xbb\xbf\r\n  <HTML lang=de>", HTML),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML, such as a server's error"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 46827520\n", "a Git LFS pointer"),
        (b"/annex/objects/SHA256E-s46827520--00.pth\n", "a git-annex pointer"),
        (b'{"message": "Not Found"}', NO_PYTORCH("text", ITSELF)),
        ("Datei nicht gefunden: größer".encode(), NO_PYTORCH("text", ITSELF)),
        (b"", NO_PYTORCH("empty", ITSELF)),
        (gzip.compress(saved(STATE)), NO_PYTORCH("a gzip archive", "unpack it")),
        (tarred, NO_PYTORCH("a tar archive", "unpack it")),
        (
            zipped(**{"weights.pth": b"", "README": b""}),
            NO_PYTORCH("a zip archive of weights.pth, README", "unpack it"),
        ),
        (saved(STATE)[:-200], "a zip archive without its end"),
        (scripted, "a TorchScript program"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file, such as Keras'"),
        (saved(STATE, _use_new_zipfile_serialization=False)[:-8], "cannot be read ("),
        (saved(STATE).replace(b"bn1.running_mean", b"bn1.running\xff\xff\xff\xff\xff"), "cannot be read ("),
        (safetensors.torch.save(STATE)[:-8], "cannot be read (SafetensorError: "),
        (bytes(range(256)) * 4, "cannot be read ("),
        (pickle.dumps({"conv1.weight": [1.0]}), "cannot be read ("),
        ([1, 2], "holds no state dict (tensors by name): save model.state_dict()"),
        ({}, "holds no state dict"),
        ({"epoch": 3, "state_dict": {}}, "holds no state dict"),
        (torch.ones(3), "holds no state dict"),
        ({"generator": STATE, "discriminator": STATE}, "holds several state dicts (generator, discriminator)"),
        ({"w": torch.ones(2, 2).to_sparse()}, ": w is quantised or sparse"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_holds_no_weights_is_named(tmp_path: Path, content: Any, said: str) -> None:
    assert said in refusal(tmp_path, content() if callable(content) else content)


@pytest.mark.parametrize("wrap", [lambda module: module, lambda module: {"model": module, "epoch": 3}])
@pytest.mark.parametrize("zip_format", [True, False])
def test_a_whole_pickled_module_is_refused_with_its_class(tmp_path: Path, wrap: Any, zip_format: bool) -> None:
    module = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU())
    said = refusal(tmp_path, saved(wrap(module), _use_new_zipfile_serialization=zip_format))
    assert said.startswith("holds a whole pickled module (torch.nn.modules.container.Sequential")
    assert said.endswith("), which could run code when loaded: save model.state_dict() from it")


@pytest.mark.parametrize("zip_format", [True, False])
def test_code_in_a_file_is_never_run(tmp_path: Path, zip_format: bool) -> None:
    made = tmp_path / "made"
    for payload, module in ((Payload(io.open, str(made), "w"), ""), (Payload(os.mkdir, str(made)), "posix.mkdir")):
        content = saved({"state_dict": STATE, "extra": payload}, _use_new_zipfile_serialization=zip_format)
        # It works where it is loaded carelessly.
        torch.load(io.BytesIO(content), weights_only=False)
        assert made.exists()
        made.rmdir() if made.is_dir() else made.unlink()
        if module:
            assert refusal(tmp_path, content).startswith(f"holds pickled objects ({module}), which could run code")
        else:
            assert read(tmp_path, content).ignored == {"extra": "beside the state dict"}
        assert not made.exists()


def test_a_folder_and_a_file_that_is_not_there_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").mkdir()
    with pytest.raises(UserError, match=r"weights\.pth is a folder without a checkpoint: give the path of a \.pth"):
        read_state_dict(str(tmp_path / "weights.pth"))
    with pytest.raises(UserError, match=r"no weights at .*other\.pth \(FileNotFoundError\)"):
        read_state_dict(str(tmp_path / "other.pth"))


@pytest.mark.parametrize("name", ["weights.pth", "weights.pth.tar", "weights.ckpt"])
def test_the_report_tells_the_file_s_own_names(tmp_path: Path, name: str) -> None:
    state = torchvision.models.resnet18(weights=None).half().state_dict()
    wrapped = {"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 3}
    (tmp_path / name).write_bytes(saved(wrapped))
    loaded = load(DeepLabV2Config("resnet18", "largefov", weights=str(tmp_path / name)), 5)
    assert torch.equal(loaded.network.trunk.get_parameter("conv1.weight"), state["conv1.weight"].float())
    lines = {line.tensor or line.source: line for line in loaded.report}
    assert lines["trunk.conv1.weight"].source == "state_dict/module.conv1.weight"
    assert lines["trunk.conv1.weight"].how == "taken, converted from float16"
    assert lines["state_dict/module.fc.weight"].how == "not used: ImageNet's classifier"
    assert lines["epoch"].how == "not used: beside the state dict"


def test_a_checkpoint_whose_tensors_are_a_pointer_says_so(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n")
    with pytest.raises(
        UserError, match=r"model\.pt cannot be read \(it is a Git LFS pointer\): the checkpoint is broken"
    ):
        checkpoint.read_tensors(locate(tmp_path))
