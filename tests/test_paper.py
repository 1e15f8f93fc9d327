"""The command of the whole report, and its configs."""

import importlib
import importlib.util
from pathlib import Path

import pytest

from experiments import paper
from experiments.report import plan
from jaxrobust.training import config as configs

ROOT = Path(__file__).parents[1]
PLANS = sorted((ROOT / "configs").glob("paper_*.py"))


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_every_plan_is_valid_and_says_its_command_cost_and_what_to_expect(path):
    chosen = plan.load(path)
    for heading in (f"--config=configs/{path.name}", "Cost:", "Expect:"):
        assert heading in plan_document(path)
    for study in chosen.studies:
        file, _, argument = study.config.partition(":")
        module = load(ROOT / file)
        config = module.get_config(argument) if argument else module.get_config()
        known = config.copy_and_resolve_references()
        known.update_from_flattened_dict(dict(study.overrides))
        configs.check(known)
        # A key that does not exist would have been added, where flags refuse it.
        assert set(flat(known.to_dict())) == set(flat(config.to_dict()))
    for experiment in chosen.experiments:
        module = importlib.import_module(f"experiments.{experiment.module}")
        assert experiment.module == module._NAME


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plan_document(path):
    return load(path).__doc__


def flat(nested, prefix=""):
    for key, value in nested.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def test_a_report_without_anything_run_says_so(tmp_path, capsys):
    arguments = ["--config", str(ROOT / "configs/paper_smoke.py"), "--out", str(tmp_path / "out")]
    arguments += ["--runs", str(tmp_path / "runs"), "--only"]
    paper.main(arguments)
    assert "claim 1   not measured   Robustness costs clean" in capsys.readouterr().out
    text = (tmp_path / "out/index.html").read_text()
    assert "its trainings are not done: smoke" in text
    assert f"--runs={tmp_path / 'runs'}" in text
    with pytest.raises(SystemExit) as ended:
        paper.main([*arguments, "table1_robustness"])
    assert ended.value.code == 1
    assert "Not done: table1_robustness;" in capsys.readouterr().err
    assert (tmp_path / "out/claims.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "configs/nothing.py"], "must be a file of configs"),
        (["--config", str(ROOT / "configs/quickstart.py")], "must define get_plan()"),
        (
            ["--config", str(ROOT / "configs/paper_smoke.py"), "--only", "figure5"],
            "got figure5",
        ),
    ],
)
def test_wrong_arguments_are_one_sentence(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        paper.main([*arguments, "--out", str(tmp_path)])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "index.html").exists()
