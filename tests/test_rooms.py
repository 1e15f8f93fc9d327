"""Who may import whom: ground <- methods and stores <- runners <- commands."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import jaxrobust

PACKAGE = Path(jaxrobust.__file__).parent
GROUND = {
    "batching",
    "checks",
    "classifier",
    "guided",
    "models",
    "named",
    "norms",
    "pytrees",
    "relus",
}
METHODS = ["attacks", "saliency", "feature_visualization", "map_metrics", "filters"]
HEAVY = ["grain", "matplotlib", "orbax", "tensorflow", "tensorflow_datasets", "torch"]


def imported(room: str) -> set[str]:
    """The rooms of the package that the files of a room name in their imports."""
    files = [PACKAGE / f"{room}.py"] if (PACKAGE / f"{room}.py").exists() else []
    found = set()
    for file in [*files, *(PACKAGE / room).glob("**/*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module == "jaxrobust":
                names = [f"jaxrobust.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            found |= {name.split(".")[1] for name in names if name.startswith("jaxrobust.")}
    assert files or found
    return found - {room}


@pytest.mark.parametrize("room", METHODS)
def test_methods_stand_on_the_ground_and_not_on_each_other(room):
    assert imported(room) <= GROUND - {"models"}


@pytest.mark.parametrize("room", sorted(GROUND))
def test_the_ground_stands_on_itself(room):
    assert imported(room) <= GROUND | {"cpu_lowering"}


def test_only_plots_imports_matplotlib_and_only_checkpoints_orbax():
    for library, room in (("matplotlib", "plots"), ("orbax", "checkpoints")):
        users = {
            file.relative_to(PACKAGE).parts[0].removesuffix(".py")
            for file in PACKAGE.glob("**/*.py")
            if f"import {library}" in file.read_text() or f"from {library}" in file.read_text()
        }
        assert users == {room}


def test_methods_do_not_wait_for_the_data_libraries():
    code = (
        "import sys, importlib\n"
        f"for room in {[*METHODS, 'stylization', 'torch_weights', 'guided']}:\n"
        "    importlib.import_module(f'jaxrobust.{room}')\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
