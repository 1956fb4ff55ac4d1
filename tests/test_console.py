"""Whatever the terminal's encoding, what a job prints comes out, its end included."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

JOBS = Path(__file__).parents[1] / "jobs"
# Python's own names for what LC_ALL, a Windows console or a log's settings come to.
ENCODINGS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "C locale": {"LC_ALL": "C", "PYTHONUTF8": "0"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "utf-8": {"PYTHONIOENCODING": "utf-8"},
}


def run(encoding: str, *command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A Python process on a terminal of that encoding; opening a text file without an encoding makes it complain."""
    unset = ("PYTHONIOENCODING", "PYTHONUTF8", "PYTHONCOERCECLOCALE", "LC_ALL", "LC_CTYPE", "LANG")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    env |= {"PYTHONWARNDEFAULTENCODING": "1", **ENCODINGS[encoding], **environment}
    done = subprocess.run([sys.executable, *command], capture_output=True, timeout=300, env=env)
    ours = [line for line in done.stderr.splitlines() if b"EncodingWarning" in line and b"site-packages" not in line]
    assert not ours
    return done


def run_main(encoding: str, body: str, *arguments: str, **environment: str) -> tuple[int, bytes, bytes]:
    """Exit code, stdout and stderr of a job with this `main`."""
    code = (
        f"from deeplab_ray import cli\nfrom deeplab_ray.errors import UserError\ndef main():\n{body}\ncli.run_job(main)"
    )
    done = run(encoding, "-c", code, *arguments, **environment)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", b"3 x 4 == 12 (mod 8), sigma +- 1/2, Delta, o -> o, cafe, strasse, ?"),
        ("C locale", b"3 x 4 == 12 (mod 8), sigma +- 1/2, Delta, o -> o, cafe, strasse, ?"),
        ("latin-1", b"3 \xd7 4 == 12 (mod 8), sigma \xb1 \xbd, Delta, \xf6 -> o, caf\xe9, stra\xdfe, ?"),
        ("utf-8", "3 × 4 ≡ 12 (mod 8), σ ± ½, Δ, ö → o, café, straße, 猫".encode()),
    ],
)
def test_characters_that_the_encoding_lacks_are_spelled(encoding: str, expected: bytes) -> None:
    text = "3 × 4 ≡ 12 (mod 8), σ ± ½, Δ, ö → o, café, straße, 猫"
    body = f"    print({text!a})\n    raise UserError({text!a})"
    code, out, err = run_main(encoding, body)
    assert (code, out, err) == (2, expected + b"\n", b"error: " + expected + b"\n")


def test_a_file_name_that_is_no_text_can_be_printed_and_is_kept_in_the_traceback() -> None:
    code, out, err = run_main("utf-8", "    print('a\\udcff.png')\n    raise ValueError('a\\udcff.png, ≡')")
    assert (code, out) == (1, b"a?.png\n")
    said = err.decode()
    assert said.startswith("error: ValueError: a?.png, ≡ (traceback: ")
    file = Path(said.strip().removesuffix(")").rsplit(" ", 1)[-1])
    assert r"ValueError: a\udcff.png, ≡" in file.read_text(encoding="utf-8")
    file.unlink()


def test_an_argument_that_the_locale_cannot_read_is_one_line() -> None:
    done = run("C locale", str(JOBS / "train.py"), "scenes-resnet18-largefov", "--data", "straße")
    assert done.returncode == 2
    assert done.stderr == b"error: 'stra??e' cannot be read as ascii: name files in UTF-8, and set PYTHONUTF8=1\n"


@pytest.mark.parametrize("encoding", ["ascii", "C locale", "latin-1", "cp1252"])
def test_help_and_tables_come_out(encoding: str) -> None:
    tables = run(encoding, str(JOBS / "train.py"), "--list")
    assert tables.returncode == 0
    assert tables.stdout.splitlines()[-1].startswith(b"RESULT {")
    page = run(encoding, str(JOBS / "train.py"), "--help")
    assert page.returncode == 0
    assert b"(DeepLab: == 1 (mod 8))" in page.stdout
    assert not tables.stderr + page.stderr


@pytest.mark.slow
def test_a_network_is_described_and_a_mistake_is_told_in_ascii() -> None:
    described = run("ascii", str(JOBS / "describe.py"), "scenes-resnet18-largefov", "--crop", "65")
    assert b"for an image of 65 x 65" in described.stdout
    mistaken = run("ascii", str(JOBS / "train.py"), "scenes-resnet18-largefov", "--data=d", "--output=o", "--crop=320")
    assert b"error: crop 320 does not fit the stride-8 grid: take a size == 1 (mod 8)" in mistaken.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_what_workers_print_comes_out_and_names_of_files_stay(tmp_path: Path) -> None:
    import ray
    import tiny

    address = ray.get_runtime_context().gcs_address
    body = """
    import time, ray
    from deeplab_ray.on_ray.session import start_ray
    start_ray()
    ray.get(ray.remote(lambda: print('from a worker: 3 \\xd7 4 \\u2261 \\u03c3')).remote())
    time.sleep(2)  # until Ray has brought the line here
    return {}"""
    code, out, _ = run_main("C locale", body, RAY_ADDRESS=address)
    assert code == 0
    assert b"from a worker: 3 x 4 == sigma" in out

    source = tiny.camvid(tmp_path / "camvid", val=2)
    for file in source.rglob("0001.png"):
        file.rename(file.with_name("straße.png"))
    (source / "val" / "straße.png").write_bytes(b"<html>")
    arguments = ("camvid", "--source", str(source), "--output", str(tmp_path / "out"))
    refused = run("C locale", str(JOBS / "prepare.py"), *arguments, RAY_ADDRESS=address)
    assert refused.returncode == 2
    assert b"strasse: " in refused.stderr.splitlines()[-1]
    done = run("C locale", str(JOBS / "prepare.py"), *arguments, "--skip-bad", RAY_ADDRESS=address)
    assert done.returncode == 0, done.stderr
    assert "straße" in (tmp_path / "out" / "val" / "manifest.json").read_text(encoding="utf-8")
