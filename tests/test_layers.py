"""Imports go downwards only, and below the orchestration layer nothing needs Ray (DESIGN.md, "Layers")."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "deeplab_ray"

# Everything that may know Ray. What is not named here works on a machine where Ray is not installed.
ORCHESTRATION = {
    "deeplab_ray.capacity",
    "deeplab_ray.cli",
    "deeplab_ray.demo",
    "deeplab_ray.evaluation",
    "deeplab_ray.inference",
    "deeplab_ray.ingest",
    "deeplab_ray.prepare",
    "deeplab_ray.training.trainer",
    "deeplab_ray.training.worker",
    "deeplab_ray.tuning",
}

# Stands in for a machine without Ray: any attempt to import it fails as it would there.
WITHOUT_RAY = """
import importlib, sys

class NoRay:
    def find_spec(self, name, path=None, target=None):
        if name == "ray" or name.startswith("ray."):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoRay())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def _modules() -> dict[str, Path]:
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def _imports(path: Path) -> Iterator[str]:
    """Names of all modules that a file imports anywhere in it, functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write absolute imports"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _import_without_ray(names: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WITHOUT_RAY, *names], capture_output=True, text=True, timeout=120)


def test_everything_below_orchestration_imports_where_ray_is_not_installed() -> None:
    lower = [name for name in _modules() if name not in ORCHESTRATION]
    assert {f"deeplab_ray.{name}" for name in ("models", "crf", "metrics", "augment")} <= set(lower)
    attempt = _import_without_ray(lower)
    assert attempt.returncode == 0, attempt.stderr


def test_the_stand_in_for_a_missing_ray_does_refuse_it() -> None:
    assert "No module named 'ray'" in _import_without_ray(["ray"]).stderr


def test_only_orchestration_imports_ray_or_itself() -> None:
    for name, path in _modules().items():
        if name in ORCHESTRATION:
            continue
        imported = set(_imports(path))
        assert not {i for i in imported if i == "ray" or i.startswith("ray.")}, f"{name} imports Ray"
        assert not imported & ORCHESTRATION, f"{name} imports from the layer above"
