"""The command `jaxrobust`: what it says of itself, and configs by name from any folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from jaxrobust import attacks, main, models
from jaxrobust.core import config_files
from jaxrobust.data import catalog

ROOT = Path(__file__).parents[1]


def test_the_overview_names_everything_there_is():
    text = main.overview()
    words = set(text.replace(",", " ").split())
    configs = {path.stem for path in (ROOT / "configs").glob("*.py")}
    assert configs == set(config_files.summaries())
    assert configs <= words
    assert {*models.names(), *catalog.names(), *attacks.ATTACKS, "autoattack"} <= words
    assert "jaxrobust --config=quickstart" in text
    assert max(map(len, text.splitlines())) <= 98


@pytest.mark.parametrize("name", ["quickstart", "quickstart.py", "configs/quickstart.py"])
def test_configs_are_found_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_files.find(name).samefile(ROOT / "configs/quickstart.py")


def test_a_file_of_ones_own_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("quickstart.py").write_text("")
    assert config_files.find("quickstart.py") == Path("quickstart.py")
    assert config_files.find("quickstart").samefile(ROOT / "configs/quickstart.py")


@pytest.mark.parametrize("name", ["quikstart", "elsewhere/quickstart.py", "configs/none.py", ""])
def test_what_is_no_config_is_one_sentence(name):
    with pytest.raises(FileNotFoundError, match="must be a file or one of the package's configs"):
        config_files.find(name)


def test_a_config_may_stand_behind_a_space_and_have_an_argument():
    path = ROOT / "configs/figure7.py"
    for given in (["--config=figure7:resnet18"], ["--config", "figure7:resnet18"]):
        _, *arguments = main._with_paths(["jaxrobust", *given, "--config.epochs=2"])
        *whole, last = "=".join(arguments).partition("=--config.epochs")
        found, _, argument = whole[0].removeprefix("--config=").partition(":")
        assert Path(found).samefile(path)
        assert (argument, last) == ("resnet18", "=2")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "jaxrobust --config=quickstart"),
        ([], 2, "jaxrobust --config=quickstart"),
        (["--config=quikstart"], 1, "did you mean 'quickstart'"),
        (["--workdir=x"], 1, "--config must be given"),
    ],
)
def test_from_an_empty_folder(arguments, code, said, tmp_path):
    ended = subprocess.run(
        [sys.executable, "-m", "jaxrobust", *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == code
    assert said in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("arguments", [["--config=paper_quick"], ["--config", "paper_quick"]])
def test_the_plan_of_a_report_is_one_sentence(arguments):
    with pytest.raises(SystemExit) as end:
        main._with_paths(["jaxrobust", *arguments])
    assert str(end.value) == (
        "--config must be of trainings, got the plan of a report: "
        "python -m jaxrobust.experiments.paper --config=paper_quick"
    )


PARENTS = """
import jax
from jax._src import xla_bridge
from jaxrobust.core.interrupts import terminable
from jaxrobust.experiments import paper
from jaxrobust.data import prepare

with terminable():
    print(xla_bridge.backends_are_initialized())
"""


def test_what_starts_other_programs_leaves_the_devices_to_them():
    command = [sys.executable, "-c", PARENTS]
    environment = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.stdout == "False\n", ended.stderr
