"""What a stage depends on: code as it runs, checkpoints as they were written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxrobust.experiments import fingerprints
from tests.workshop import workshop as workshop

ROOT = Path(__file__).parents[1]
MODULE = '''
"""A docstring."""

import math


def run(x):
    """Another.

    Of several lines.
    """
    from jaxrobust.experiments.helper import double  # inside a function

    # A comment.
    return double(math.sin(x))
'''
SAME = """
import math

def run(x):
    from jaxrobust.experiments.helper import double
    return double( math.sin(x) )
"""


@pytest.fixture
def code(workshop):
    """The digest of a made-up experiment and what it imports, with files as given."""
    files = {
        "jaxrobust/experiments/figure99.py": MODULE,
        "jaxrobust/experiments/helper.py": (
            "from jaxrobust.experiments import deeper\n\ndouble = deeper.double\n"
        ),
        "jaxrobust/experiments/deeper.py": "from .deepest.inner import double\n",
        "jaxrobust/experiments/deepest/__init__.py": "",
        "jaxrobust/experiments/deepest/inner.py": "def double(x):\n    return 2 * x\n",
        "jaxrobust/experiments/unrelated.py": "x = 1\n",
    }

    def digest(**changes):
        for name, text in (files | changes).items():
            workshop.write(name, text)
        return fingerprints.code("jaxrobust.experiments.figure99")

    return digest


def test_comments_docstrings_and_layout_change_nothing(code):
    assert code() == code(**{"jaxrobust/experiments/figure99.py": SAME})
    types = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "
    first, second = (
        code(
            **{
                "jaxrobust/experiments/figure99.py": types
                + f"from jaxrobust.experiments import {name}\n"
                + SAME
            }
        )
        for name in ("unrelated", "b")
    )
    assert first == second


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("figure99", SAME.replace("sin", "cos")),
        ("helper", "from jaxrobust.experiments import deeper\n\ndouble = abs\n"),
        ("deeper", "from .deepest.inner import double as double\nx = 1\n"),
        ("deepest/__init__", "x = 1\n"),
        ("deepest/inner", "def double(x):\n    return 3 * x\n"),
    ],
)
def test_code_that_changes_anywhere_below_changes_it(code, file, text):
    assert code() != code(**{f"jaxrobust/experiments/{file}.py": text})


def test_what_is_not_imported_changes_nothing(code):
    assert code() == code(**{"jaxrobust/experiments/unrelated.py": "x = 2\n"})


@pytest.mark.parametrize("text", ["def broken(:\n", "x = '\0'\n", "from ...nowhere import x\n"])
def test_code_that_cannot_be_read_is_told_apart_as_well(code, text):
    assert len({code(), code(**{"jaxrobust/experiments/helper.py": text})}) == 2


def test_all_that_python_loads_for_an_experiment_is_known():
    """Python's own list of what it has imported, on its way through the rooms."""
    name = "table1_robustness"
    program = (
        f"import jaxrobust.experiments.{name}, json, sys; print(json.dumps(list(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    printed = subprocess.check_output([sys.executable, "-c", program], env=environment)
    loaded = {each for each in json.loads(printed) if each.partition(".")[0] == "jaxrobust"}
    known = set(fingerprints.modules(f"jaxrobust.experiments.{name}"))
    assert loaded <= known
    assert len(loaded) > 30
    assert "jaxrobust.experiments.figure6_smoothing" not in known


def test_public_names_stand_for_the_modules_in_their_rooms(code):
    text = "def later():\n    from jaxrobust import checkpoints\n"
    code(**{"jaxrobust/experiments/helper.py": text})
    known = fingerprints.modules("jaxrobust.experiments.figure99")
    assert {"jaxrobust", "jaxrobust.training", "jaxrobust.training.checkpoints"} <= set(known)
    assert "jaxrobust.saliency" not in known
    code(
        **{"jaxrobust/experiments/helper.py": "import jaxrobust\n"}
    )  # then any of them may be meant
    assert "jaxrobust.saliency" in fingerprints.modules("jaxrobust.experiments.figure99")


def test_files_count_as_what_they_do(tmp_path):
    path = tmp_path / "config.py"
    missing = fingerprints.code_of_files([path])
    path.write_text("x = 1\n")
    before = fingerprints.code_of_files([path])
    assert before != missing
    path.write_text("x = 1  # one\n")
    assert fingerprints.code_of_files([path]) == before
    path.write_text("x = 2\n")
    assert fingerprints.code_of_files([path]) != before


def test_trainings_are_their_newest_checkpoints_configs_and_evaluations(tmp_path):
    assert fingerprints.trainings(tmp_path / "nowhere") == {}
    folder = tmp_path / "std" / "seed0"
    (folder / "checkpoints" / "30").mkdir(parents=True)
    first = fingerprints.trainings(tmp_path)
    assert {name: training["step"] for name, training in first.items()} == {"std/seed0": 30}
    assert json.loads(json.dumps(first)) == first
    assert fingerprints.trainings(tmp_path) == first
    (folder / "config.json").write_text("{}")
    second = fingerprints.trainings(tmp_path)
    (folder / "checkpoints" / "40").mkdir()
    third = fingerprints.trainings(tmp_path)
    os.utime(folder / "checkpoints" / "40", ns=(1, 1))
    fourth = fingerprints.trainings(tmp_path)
    (folder / "evaluation.json").write_text("{}")  # by which it is told what decides nothing
    fifth = fingerprints.trainings(tmp_path)
    assert len({json.dumps(each) for each in (first, second, third, fourth, fifth)}) == 5
