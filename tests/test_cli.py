"""How every job ends, and how it finds its Ray."""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest

from deeplab_ray.cli import parse, run_job
from deeplab_ray.config.recipe import FLAT
from deeplab_ray.errors import JobError, UserError
from deeplab_ray.on_ray.session import start_ray


def end_of(main: Callable[[], dict[str, Any]], capfd: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code and the last lines on stdout and stderr of a job."""
    with pytest.raises(SystemExit) as stop:
        run_job(main)
    out, err = capfd.readouterr()
    assert isinstance(stop.value.code, int)
    return stop.value.code, *("".join(text.splitlines()[-1:]) for text in (out, err))


def raising(error: BaseException) -> Callable[[], dict[str, Any]]:
    def main() -> dict[str, Any]:
        raise error

    return main


@pytest.fixture(autouse=True)
def ray_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job shuts its Ray down at the end; here it is everybody's."""
    import ray

    monkeypatch.setattr(ray, "shutdown", lambda: None)


def test_a_job_ends_with_its_result_on_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = end_of(lambda: {"miou": 0.5}, capfd)
    assert (code, err) == (0, "")
    assert json.loads(out.removeprefix("RESULT ")) == {"miou": 0.5}


class NoFolderError(UserError):
    """As parts of the package have, to be told apart from other mistakes."""


def test_every_kind_of_mistake_ends_a_job_with_its_line_alone(capfd: pytest.CaptureFixture[str]) -> None:
    assert end_of(raising(NoFolderError("give another one")), capfd) == (2, "", "error: give another one")


def test_a_figure_that_is_no_number_is_null_in_the_result(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = end_of(lambda: {"miou": float("nan"), "rows": [{"gain": (math.inf, 1)}]}, capfd)
    assert (code, out) == (0, 'RESULT {"miou": null, "rows": [{"gain": [null, 1]}]}')


def test_a_job_that_is_told_to_end_is_interrupted(capfd: pytest.CaptureFixture[str]) -> None:
    def main() -> dict[str, Any]:
        signal.raise_signal(signal.SIGTERM)
        return {}

    before = signal.getsignal(signal.SIGTERM)
    try:
        assert end_of(main, capfd) == (130, "", "error: interrupted")
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_mistake_is_one_line_and_exit_code_2(capfd: pytest.CaptureFixture[str]) -> None:
    assert end_of(raising(UserError("no such\n thing")), capfd) == (2, "", "error: no such thing")


def test_an_interrupted_job_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    assert end_of(raising(KeyboardInterrupt()), capfd) == (130, "", "error: interrupted")


def test_a_failure_names_the_file_with_its_traceback_and_hides_secrets(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t-key")
    code, out, err = end_of(raising(ValueError("bad key s3cr3t-key\nand more")), capfd)
    assert (code, out) == (1, "")
    assert err.startswith("error: ValueError: bad key <AWS_SECRET_ACCESS_KEY> (traceback: ")
    file = Path(err.removesuffix(")").rsplit(" ", 1)[-1])
    text = file.read_text(encoding="utf-8")
    file.unlink()
    assert "Traceback" in text
    assert "and more" in text
    assert "s3cr3t-key" not in text


def test_what_other_packages_say_is_quoted_by_its_first_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    advice = (
        "\x1b[1mWeights only load failed.\x1b[0m In PyTorch 2.6 the default changed. Re-running with `weights_only` "
        "set to `False` will likely succeed."
    )
    code, _, err = end_of(raising(RuntimeError(advice)), capfd)
    assert code == 1
    assert err.startswith("error: RuntimeError: Weights only load failed (traceback: ")
    code, _, err = end_of(raising(RuntimeError("9" * 5000)), capfd)
    assert err.startswith("error: RuntimeError: 999")
    assert len(err) < 320


def test_a_failure_that_knows_what_to_do_says_so_whatever_caused_it(capfd: pytest.CaptureFixture[str]) -> None:
    def main() -> dict[str, Any]:
        try:
            raise KeyError("thing")
        except KeyError as error:
            raise JobError("the training stopped: go on with --resume") from error

    code, _, err = end_of(main, capfd)
    assert code == 1
    assert err.startswith("error: the training stopped: go on with --resume (traceback: ")
    text = Path(err.removesuffix(")").rsplit(" ", 1)[-1]).read_text(encoding="utf-8")
    assert "KeyError: 'thing'" in text


@pytest.mark.usefixtures("ray_cluster")
def test_a_mistake_found_in_a_ray_task_or_a_ray_data_function_is_still_one_line(
    capfd: pytest.CaptureFixture[str],
) -> None:
    import ray

    def refuse(_: object) -> Any:
        raise UserError("label value 77")

    def break_down(_: object) -> Any:
        raise KeyError("thing")

    def as_task() -> dict[str, Any]:
        return ray.get(ray.remote(refuse).remote(None))

    def as_data() -> dict[str, Any]:
        return {"rows": ray.data.from_items([1]).map(refuse).take_all()}

    class Refuser:
        def __init__(self) -> None:
            refuse(None)

        def work(self) -> None: ...

    def as_actor() -> dict[str, Any]:
        return ray.get(ray.remote(Refuser).remote().work.remote())

    for main in (as_task, as_data, as_actor):
        code, _, err = end_of(main, capfd)
        assert (code, err) == (2, "error: label value 77")
    code, _, err = end_of(lambda: {"rows": ray.data.from_items([1]).map(break_down).take_all()}, capfd)
    assert code == 1
    assert err.startswith("error: KeyError: 'thing' (traceback: ")


@dataclass(frozen=True)
class Inner:
    crop: int = 321
    mirror: bool = True


@dataclass(frozen=True)
class Flags:
    rows_per_shard: int = 64
    """Rows."""
    inner: Annotated[Inner, FLAT] = field(default_factory=Inner)
    named: Inner = field(default_factory=Inner)


def flags(*argv: str, default: Flags | None = None) -> Flags:
    return parse(Flags, prog="job.py", description="A job.", argv=argv, default=default)


def test_flags_have_dashes_and_the_names_of_groups_that_are_not_flat_and_defaults_can_be_given() -> None:
    assert flags("--crop", "17", "--named.crop", "19") == Flags(64, Inner(17), Inner(19))
    assert flags("--rows-per-shard", "2", "--crop", "17", "--no-mirror") == Flags(2, Inner(17, False))
    assert flags("--crop", "17", default=Flags(5)) == Flags(5, Inner(17))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--foo"], "unrecognized options: --foo; see job.py --help"),
        (["--crop", "x"], "error parsing --crop: invalid literal for int() with base 10: 'x'; see job.py --help"),
        (["--row", "3"], "unrecognized options: --row"),
        (["--crop"], "missing value for argument '--crop'"),
    ],
)
def test_usage_errors_are_one_line(argv: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        flags(*argv)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_help_goes_to_stdout_and_ends_the_job_well(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        flags("--help")
    assert not stop.value.code
    assert "--rows-per-shard" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:9", "no Ray answers at RAY_ADDRESS=127.0.0.1:9"),
        ("http://127.0.0.1:8265", "is not a cluster's address"),
        ("somewhere", "is not a cluster's address"),
        ("127.0.0.1:port", "no Ray answers at RAY_ADDRESS=127.0.0.1:port"),
    ],
)
def test_a_cluster_that_is_not_there_is_a_mistake(address: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match=message):
        start_ray()


def test_a_ray_that_cannot_start_is_a_failure_with_advice(tmp_path: Path) -> None:
    """Its sockets' names are longer than the system allows."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    code = "from deeplab_ray import cli\nfrom deeplab_ray.on_ray.session import start_ray\ncli.run_job(start_ray)"
    environment = {**os.environ, "RAY_TMPDIR": str(folder), "RAY_ADDRESS": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    assert (done.returncode, done.stdout) == (1, "")
    said = done.stderr.splitlines()[-1]
    assert said.startswith(
        "error: Ray did not start on this machine (OSError: validate_socket_filename failed: AF_UNIX"
    )
    assert "): fix that, or set RAY_ADDRESS to the host:port of a running cluster (traceback: " in said


def test_a_machine_too_busy_for_ray_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def starved(**_: object) -> None:
        # Ray's words, after 30 s without a sign of its raylet.
        raise Exception(
            "The current node timed out during startup. This could happen because some of the raylet failed to startup "
            "or the GCS has become overloaded."
        )

    monkeypatch.setenv("RAY_ADDRESS", "")
    monkeypatch.setattr(ray, "init", starved)
    with pytest.raises(JobError) as caught:
        start_ray()
    assert str(caught.value).startswith(
        "Ray did not start on this machine (Exception: The current node timed out during startup): the machine is too "
        "busy, or a container has too little CPU time or memory: wait or close other programs"
    )


def test_parsing_does_not_import_ray() -> None:
    code = "import sys, deeplab_ray.cli; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_workers_start_from_a_path_with_a_space(tmp_path: Path) -> None:
    (tmp_path / "my projects").symlink_to(sys.prefix)
    code = (
        "import ray, sys\n"
        "from deeplab_ray.on_ray.session import start_ray\n"
        "start_ray(cpus=1)\n"
        "task = ray.remote(runtime_env={'env_vars': {'ANY': '1'}})(lambda: sys.executable)\n"
        "print(ray.get(task.remote(), timeout=120))"
    )
    python = str(tmp_path / "my projects" / "bin" / "python")
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=300, env=environment)
    assert done.stdout.splitlines()[-1:] == [python], done.stderr
