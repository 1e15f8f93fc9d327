"""The command of the whole report, and its configs."""

import html
import importlib
import importlib.util
import json
import shlex
from pathlib import Path

import pytest

from jaxrobust.experiments import paper, plan
from jaxrobust.training import config as configs
from tests.workshop import workshop as workshop

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
        described = importlib.import_module(f"jaxrobust.experiments.{experiment.name}").EXPERIMENT
        assert described.name == experiment.name
        described._parser().parse_args(shlex.split(experiment.arguments))


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
        (["--config", "configs/nothing.py"], "must be a file or one of the package's configs"),
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "must define get_plan"),
        (
            "def get_plan(): return Plan('', '', [], [Experiment('a'), Experiment('a')])",
            "got 'a' twice",
        ),
        (
            "def get_plan(): return Plan('', '', [Study('c', '')], [Experiment('a', ['b'])])",
            "a must start from studies of the plan that come before it, c, got 'b'",
        ),
        (
            "def get_plan():\n"
            "    return Plan('', '', [Study('a', '', starts_from=['b']), Study('b', '')], [])",
            "a must start from studies of the plan that come before it, none here, got 'b'",
        ),
    ],
)
def test_wrong_plans(tmp_path, text, message):
    path = tmp_path / "paper.py"
    path.write_text(f"from jaxrobust.experiments.plan import Experiment, Plan, Study\n{text}")
    with pytest.raises(ValueError, match=message):
        plan.load(path)


HALOS = """
from jaxrobust.experiments.experiment import Experiment
from jaxrobust.experiments.result import Claim, Decision, Finding, Measure, Number, Result, Text


def run(arguments):
    measure = Measure("halos", Number(3, 0), Number(1, 0), Number(-2, 0), "holds")
    finding = Finding({"halos": 2}, [Text("Two halos.")], {"9": Decision("holds", [measure])})
    return Result({"ResNet": finding})


EXPERIMENT = Experiment(
    name="figure99_halos",
    title="Figure 99: halos",
    short="Figure 99",
    paper="robust maps have none.",
    claims=[Claim("9", "Robust maps have no halo", "ADV − STD < 0")],
    run=run,
    document=__doc__,
    workdirs=None,
)

if __name__ == "__main__":
    EXPERIMENT.main()
"""
PLAN = """
from jaxrobust.experiments.plan import Experiment, Plan


def get_plan():
    return Plan("Title", "Summary", [], [Experiment(name) for name in {names}])
"""


def test_an_experiment_with_its_claim_is_one_file_and_one_line(workshop, capsys):
    workshop.write("jaxrobust/experiments/figure99_halos.py", HALOS)
    workshop.write("paper.py", PLAN.format(names=["figure99_halos"]))
    paper.main(["--config=paper.py"])
    printed = capsys.readouterr()
    assert "claim 9   holds          Robust maps have no halo" in printed.out
    assert "[1/1] figure99 halos: begins" in printed.err
    (claim,) = json.loads(Path("report/claims.json").read_text())["claims"]
    assert (claim["number"], claim["experiment"]) == ("9", "figure99_halos")
    assert claim["rows"][0]["first"] == "3"
    assert "| 9 | ResNet | halos | 3 | 1 | -2 | holds |" in Path("report/claims.md").read_text()
    text = Path("report/index.html").read_text()
    for part in ("Figure 99: halos", "The paper: robust maps have none.", "<p>Two halos.</p>"):
        assert part in text
    paper.main(["--config=paper.py"])
    assert ": begins" not in capsys.readouterr().err
    assert Path("report/index.html").read_text() == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("x = 1", "AttributeError: module 'jaxrobust.experiments.b' has no attribute 'EXPERIMENT'"),
        ("def broken(:", "SyntaxError: "),
    ],
)
def test_an_experiment_that_cannot_be_imported_is_named_and_loses_nothing(workshop, text, reason):
    workshop.write("jaxrobust/experiments/figure99_halos.py", HALOS)
    workshop.write("jaxrobust/experiments/b.py", text)
    workshop.write("paper.py", PLAN.format(names=["b", "figure99_halos"]))
    paper.main(["--config=paper.py", "--only"])  # of a stage that is run, its log says why
    text = Path("report/index.html").read_text()
    assert '<section id="b"><h2>b</h2>' in text
    assert "<strong>b failed.</strong>" in text
    assert reason in html.unescape(text)
    (claim,) = json.loads(Path("report/claims.json").read_text())["claims"]
    assert claim["verdict"] == "not measured"
