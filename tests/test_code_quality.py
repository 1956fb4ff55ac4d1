"""The house rules that tools can check."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
COMMANDS = (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",))


@pytest.mark.parametrize(
    "command",
    [pytest.param(words, id=" ".join(words), marks=[pytest.mark.slow] * (words[0] == "mypy")) for words in COMMANDS],
)
def test_nothing_to_complain_about(command: tuple[str, ...]) -> None:
    check = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert check.returncode == 0, check.stdout + check.stderr


def test_pre_commit_runs_the_same_commands_with_the_same_versions() -> None:
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert local["repo"] == "local"
    # `uv run` takes the programs of the project's environment, as the tests do.
    assert [tuple(hook["entry"].split()) for hook in local["hooks"]] == [("uv", "run", *words) for words in COMMANDS]
    for hook in local["hooks"]:
        assert hook["language"] == "system"
        assert hook["pass_filenames"] is False


def test_the_readmes_test_command_is_the_one_that_ci_runs() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    (command,) = (line.split("#")[0].strip() for line in lines if "&& uv run pytest" in line)
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
