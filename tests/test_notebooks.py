"""Every notebook runs from top to bottom, off Colab, with small settings.

The cells are executed as they stand, in one namespace a notebook, by `exec`: this process has
everything imported, where each kernel would begin anew, and a failing cell shows its own traceback.
What a cell ends with is drawn, as Jupyter would.
"""

import ast
import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from jaxrobust import Classifier, models, torch_weights
from tests import tiny

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
SMALL = {
    "quickstart": {"std_steps": 2, "adv_steps": 2, "attack_steps": 1, "count": 8},
    "look_inside": {"samples": 2, "depths": 1, "ascent_steps": 2},
    "train_on_tpu": {"rehearsal_steps": 3},
}


def cells(name, kind="code"):
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text())
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def tags(cell):
    return cell["metadata"].get("tags", [])


def parameters(source, changes):
    """The cell of parameters with other values for those named."""
    tree = ast.parse(source)
    missing = set(changes)
    for node in tree.body:
        (target,) = node.targets
        if isinstance(target, ast.Tuple):
            pairs = list(zip(target.elts, node.value.elts, strict=True))
        else:
            pairs = [(target, node.value)]
        for position, (name, _) in enumerate(pairs):
            if name.id not in changes:
                continue
            value = ast.parse(repr(changes[name.id]), mode="eval").body
            if isinstance(target, ast.Tuple):
                node.value.elts[position] = value
            else:
                node.value = value
            missing.remove(name.id)
    assert not missing, missing
    return ast.unparse(tree)


def run(source, names, title):
    """Execute a cell; returns what Jupyter would show of it."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, title, "exec"), names)
    return eval(compile(ast.Expression(last.value), title, "eval"), names) if last else None


def run_notebook(name, changes):
    """Execute all its code cells; returns their names and the figures that Jupyter would show."""
    names, figures = {"__name__": "__main__"}, []
    for position, cell in enumerate(cells(name)):
        source = "".join(cell["source"])
        if "parameters" in tags(cell):
            source = parameters(source, changes)
        shown = run(source, names, f"{name}, code cell {position}")
        if hasattr(shown, "_repr_png_"):
            figures.append(shown._repr_png_())
    assert min(map(len, figures)) > 1000
    return names, len(figures)


@pytest.mark.slow
def test_all_run_from_top_to_bottom(data_dir, tmp_path, monkeypatch, capsys, quickly_compiled):
    monkeypatch.chdir(tmp_path)
    data = {"data_dir": str(data_dir)}
    names, drawn = run_notebook("look_inside", SMALL["look_inside"])
    assert drawn == 7
    assert list(names["networks"]) == ["STD", "ADV"]
    names, drawn = run_notebook("quickstart", SMALL["quickstart"] | data)
    assert drawn == 5
    assert {result["step"] for result in names["results"]} == {2}
    capsys.readouterr()
    names, drawn = run_notebook("train_on_tpu", SMALL["train_on_tpu"] | data)
    assert drawn == 1
    said = capsys.readouterr().out
    assert "No bucket is named" in said
    assert "went on from step 2 of 3" in said
    assert set(jax.tree.leaves(names["distance"])) == {0.0}


@pytest.mark.slow
def test_look_inside_takes_a_network_and_a_picture_of_ones_own(
    tmp_path, monkeypatch, quickly_compiled
):
    monkeypatch.chdir(tmp_path)
    model = models.create("resnet8_small", num_classes=2)
    drawn = Classifier(model, tiny.drawn_variables(model, (48, 48, 3)))
    torch_weights.save(drawn, "mine.safetensors")
    # As a telephone writes it: dark on the left, and to be turned a quarter clockwise.
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[:, 40:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save("mine.jpg", exif=exif)
    own = {
        "sources": {"mine": "mine.safetensors"},
        "architecture": "resnet8_small",
        "image_size": 48,
        "picture": "mine.jpg",
        "label": 1,
    }
    names, drawn = run_notebook("look_inside", SMALL["look_inside"] | own)
    assert drawn == 7
    assert names["images"].shape == (1, 48, 48, 3)
    assert names["images"][0, :20].max() < 0.1  # dark above
    assert names["images"][0, -20:].min() > 0.9
    assert names["classes"] == [1]


@pytest.mark.parametrize("name", NAMES)
def test_holds_no_outputs_and_one_cell_of_parameters(name):
    for cell in cells(name):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        assert set(cell["metadata"]) <= {"tags"}
    assert [tags(cell) for cell in cells(name)].count(["parameters"]) == 1
    assert tags(cells(name)[0]) == ["parameters"]


def test_each_has_small_settings():
    assert set(SMALL) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_to_files_beside_it(name):
    text = "".join("".join(cell["source"]) for cell in cells(name, "markdown"))
    for link in [part.split(")")[0] for part in text.split("](")[1:]]:
        assert link.startswith("https://") or (FOLDER / link).exists(), link


@pytest.mark.parametrize("name", NAMES)
def test_installs_itself_where_it_is_missing(name, monkeypatch):
    source = "".join(cells(name)[1]["source"])
    called = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "run", lambda command, **options: called.append(command))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="install_from"):
        run(source, {"install_from": None}, name)
    assert called == []
    run(source, {"install_from": "git+https://example.org/jaxrobust"}, name)
    assert called[0][1:4] == ["-m", "pip", "install"]
    requirement = called[0][-1]
    assert requirement.startswith("jaxrobust")
    assert requirement.endswith("@ git+https://example.org/jaxrobust")
