"""One floor a folder: arrows of import go down only, wherever in a file they stand, and Ray is known upstairs alone."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "deeplab_ray"

# From the ground up. A room may import from itself and from those before it.
FLOORS = (
    "errors",
    "console",
    "machine",
    "checks",
    "labels",
    "images",
    "storage",
    "crf",
    "config",
    "metrics",
    "augment",
    "shards",
    "inputs",
    "outputs",
    "runs",
    "scenes",
    "datasets",
    "models",
    "training",
    "report",
    "presets",
    "cli",
    "on_ray",
    "benchmarks",
    "local",
)
READ_DATASETS = ("deeplab_ray.on_ray.prepare", "deeplab_ray.presets.preset")
"""With the modules in them."""
KNOW_RAY = {"on_ray", "benchmarks", "local"}
MEASURING_NEEDS_NONE_OF = ("ray", "torch", "torchvision", "pyarrow", "boto3", "botocore", "tyro", "PIL", "numba")
CRF_NEEDS_NONE_OF = ("ray", "torch", "torchvision", "pyarrow", "boto3", "botocore", "tyro", "PIL")
# The engines that are made of another package.
OTHER_ENGINES = {"deeplab_ray.crf.torch_backend", "deeplab_ray.crf.pydensecrf_backend"}

# Stands in for a machine without the packages named first: any attempt to import one fails as it would there.
WITHOUT = """
import importlib, sys

missing = sys.argv[1].split(",")

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
for name in sys.argv[2:]:
    importlib.import_module(name)
"""


def modules() -> dict[str, Path]:
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports(path: Path) -> Iterator[str]:
    """Names of all modules that a file imports anywhere in it, functions included; also by their names in a text."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write absolute imports"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            yield from (part.value for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant))


def room(module: str) -> str:
    """deeplab_ray.models.grid → models; the package itself → ""."""
    return module.split(".")[1] if module.count(".") else ""


def run_without(packages: tuple[str, ...], names: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, ",".join(packages), *names]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_every_room_has_its_floor() -> None:
    assert {room(name) for name in modules()} - {""} == set(FLOORS)


@pytest.mark.parametrize("name", modules())
def test_imports_go_down(name: str) -> None:
    here = room(name)
    for imported in imports(modules()[name]):
        if imported.split(".")[0] == "ray":
            assert here in KNOW_RAY, f"{name} imports Ray"
        if imported.startswith("deeplab_ray.") and here and (there := room(imported)) in FLOORS:
            assert FLOORS.index(there) <= FLOORS.index(here), f"{name} imports {imported}, which is upstairs"


def test_prepared_sets_describe_themselves() -> None:
    """Datasets are for preparing: whatever else reads a prepared set asks its manifest."""
    users = {
        name
        for name in modules()
        if room(name) != "datasets"
        for imported in imports(modules()[name])
        if imported.startswith("deeplab_ray.datasets")
    }
    assert {next((name for name in READ_DATASETS if f"{user}.".startswith(f"{name}.")), user) for user in users} == set(
        READ_DATASETS
    )


def test_what_is_below_ray_imports_where_ray_is_not_installed() -> None:
    lower = [name for name in modules() if room(name) not in KNOW_RAY]
    attempt = run_without(("ray",), lower)
    assert attempt.returncode == 0, attempt.stderr


def test_the_crf_imports_with_numpy_and_numba_alone() -> None:
    names = [name for name in modules() if room(name) == "crf" and name not in OTHER_ENGINES]
    attempt = run_without(CRF_NEEDS_NONE_OF, names)
    assert attempt.returncode == 0, attempt.stderr


def test_measuring_imports_with_numpy_alone() -> None:
    names = [name for name in modules() if room(name) in ("labels", "metrics")]
    attempt = run_without(MEASURING_NEEDS_NONE_OF, names)
    assert attempt.returncode == 0, attempt.stderr


@pytest.mark.parametrize("package", ["ray", "torch"])
def test_the_stand_in_for_a_missing_package_does_refuse_it(package: str) -> None:
    assert f"No module named {package!r}" in run_without((package,), [package]).stderr
