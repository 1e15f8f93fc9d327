"""Who may import whom: ground <- methods and stores <- runners <- commands."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import jaxrobust

PACKAGE = Path(jaxrobust.__file__).parent
GROUND = {"core", "classifier", "version"}
# A room and what it may import besides itself. Training's store of checkpoints is a room below it.
ROOMS = {
    "core": set(),
    "classifier": {"core"},
    "version": set(),
    "models": GROUND,
    "plots": GROUND,
    "data": GROUND,
    "attacks": GROUND,
    "guided": GROUND,
    "filters": GROUND,
    "map_metrics": GROUND,
    "feature_visualization": GROUND,
    "saliency": GROUND | {"guided"},
    "checkpoints": GROUND | {"models"},
    "torch_weights": GROUND | {"models", "data", "checkpoints"},
    "stylization": GROUND | {"models", "data", "checkpoints", "torch_weights"},
    "evaluation": GROUND | {"attacks", "filters", "data", "models", "checkpoints"},
    "training": GROUND
    | {"attacks", "filters", "data", "models", "checkpoints", "torch_weights", "evaluation"},
}
METHODS = ["attacks", "saliency", "feature_visualization", "map_metrics", "filters"]
HEAVY = ["grain", "matplotlib", "orbax", "tensorflow", "tensorflow_datasets", "torch"]


def room_of(path: Path) -> str:
    """The room that a file is of."""
    if path.name == "checkpoints.py":
        return "checkpoints"
    if path.name == "__main__.py":
        return "main"
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rooms_of(node: ast.AST) -> set[str]:
    """The rooms that an import names."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
        return set()
    parts = [name.split(".") for name in names if name.startswith("jaxrobust.")]
    return {"checkpoints" if "checkpoints" in part else part[1] for part in parts}


def imported(room: str) -> set[str]:
    """The rooms that the files of a room import, inside functions as well."""
    files = [path for path in PACKAGE.glob("**/*.py") if room_of(path) == room]
    assert files
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text()))]
    return {found for node in nodes for found in rooms_of(node)} - {room}


@pytest.mark.parametrize("room", ROOMS)
def test_the_arrows_run_one_way(room):
    assert imported(room) <= ROOMS[room]


def test_every_room_is_listed():
    rooms = {room_of(path) for path in PACKAGE.glob("**/*.py")}
    assert rooms == {*ROOMS, "__init__", "main"}


def test_only_plots_imports_matplotlib_and_only_checkpoints_orbax():
    for library, room in (("matplotlib", "plots"), ("orbax", "checkpoints")):
        users = {
            room_of(file)
            for file in PACKAGE.glob("**/*.py")
            if f"import {library}" in file.read_text() or f"from {library}" in file.read_text()
        }
        assert users == {room}


def test_methods_do_not_wait_for_the_data_libraries():
    code = (
        "import sys, importlib\n"
        f"for room in {[*METHODS, 'models', 'stylization', 'torch_weights', 'guided']}:\n"
        "    importlib.import_module(f'jaxrobust.{room}')\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
