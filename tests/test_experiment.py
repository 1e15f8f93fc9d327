"""An experiment's command, and what it makes of values."""

import json
from pathlib import Path

import jax
import pytest

from jaxrobust import __version__
from jaxrobust.core.files import read_json
from jaxrobust.core.logs import Progress
from jaxrobust.experiments import render
from jaxrobust.experiments.experiment import Experiment, whole_number
from jaxrobust.experiments.result import (
    Change,
    Claim,
    Code,
    Decision,
    Figure,
    Finding,
    Measure,
    Notes,
    Number,
    Result,
    Spread,
    Table,
    Text,
    Verdict,
    as_json,
)

CLAIM = Claim("9", "Robust maps have no halo", "ADV − STD < 0")


def experiment(run, **changes):
    fields = {
        "name": "figure0",
        "title": "Figure 0: halos",
        "short": "Figure 0",
        "document": "What it costs.",
        "add_arguments": lambda parser: parser.add_argument("--count", type=whole_number(1)),
        "claims": (CLAIM,),
    }
    return Experiment(run=run, **fields | changes)


def call(tmp_path, run, *arguments, **changes):
    experiment(run, **changes).main(["--out", str(tmp_path / "out"), *arguments])


def found(arguments):
    change = {"mean": -0.5, "low": -0.75, "high": -0.25}
    measure = Measure("halo", Spread([2.0, 4.0]), "none", Change(change, 2), "holds")
    finding = Finding(
        {"halo": 1.5}, [Text("Some."), Figure("a.png", "A")], {"9": Decision("holds", [measure])}
    )
    return Result({"TinyNetwork": finding}, [Figure("b.png", "B")])


def test_the_record_holds_settings_numbers_and_what_is_shown(tmp_path, capsys):
    call(tmp_path, found, "--workdirs", "a", "b", "--count", "3")
    out = tmp_path / "out"
    record = read_json(out / "figure0.json")
    shown = record.pop("shown")
    assert record == {
        "settings": {"workdirs": ["a", "b"], "out": str(out), "count": 3},
        "versions": {"jaxrobust": __version__, "jax": jax.__version__},
        "device": "cpu",
        "files": ["a.png", "b.png", "figure0.md"],
        "architectures": {"TinyNetwork": {"halo": 1.5}},
    }
    assert shown["findings"]["TinyNetwork"]["claims"]["9"]["verdict"] == "holds"
    expected = """## TinyNetwork

Some.

**Claim 9. Robust maps have no halo: holds.** Holds when: ADV − STD < 0.

| measure | STD | ADV | ADV − STD | verdict |
| :-- | --: | --: | --: | --: |
| halo | 3.0 ± 1.4 | none | -0.50 [-0.75, -0.25] | holds |
"""
    assert (out / "figure0.md").read_text() == f"# Figure 0: halos\n\n{expected}"
    printed = capsys.readouterr().out
    assert printed.startswith(f"\n{expected}")
    assert printed.endswith(
        f"Wrote {out}/a.png, {out}/b.png, {out}/figure0.md, {out}/figure0.json\n"
    )


def test_tables_notes_and_cells():
    cells = ["a|b", Number(58.28, 2, 0.18), Number(None), Verdict("open"), Code("x|y")]
    parts = [
        Table(["", *"bcde"], [cells], paper=[["net", *"bcde"]], caption="What is in it", left=2),
        Notes(["one", "two"]),
    ]
    shown = {"findings": {}, "parts": as_json(parts)}
    assert render.markdown(experiment(found), shown) == (
        "What is in it\n\n|  | b | c | d | e |\n| :-- | :-- | --: | --: | --: |\n"
        "| a\\|b | 58.28 ± 0.18 | – | open | `x\\|y` |\n"
        "| *the paper:* net | b | c | d | e |\n\n- one\n- two\n"
    )


def test_an_experiment_may_go_without_trainings(tmp_path, capsys):
    def run(arguments):
        assert not hasattr(arguments, "workdirs")
        return Result({"digits": Finding({"train": 3})})

    options = {"workdirs": None, "add_arguments": None}
    call(tmp_path, run, **options)
    record = json.loads((tmp_path / "out" / "figure0.json").read_text())
    assert record["settings"] == {"out": str(tmp_path / "out")}
    assert record["datasets"] == {"digits": {"train": 3}}
    with pytest.raises(SystemExit):
        call(tmp_path, run, "--workdirs", "a", **options)
    assert "--workdirs" in capsys.readouterr().err


def test_defaults(tmp_path, monkeypatch):
    seen = []
    monkeypatch.chdir(tmp_path)
    experiment(lambda arguments: seen.append(arguments) or Result({}), workdirs="runs/x").main([])
    assert (seen[0].workdirs, seen[0].out) == ([Path("runs/x")], Path("runs/figures"))


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ValueError("layers must be fewer."), 2, "layers must be fewer.\n"),
        (FileNotFoundError("nowhere is no folder."), 2, "nowhere is no folder.\n"),
        (KeyboardInterrupt(), 130, "\nInterrupted; {path} was not written.\n"),
    ],
)
def test_what_ends_it_is_one_line(tmp_path, capsys, error, status, message):
    def run(arguments):
        raise error

    with pytest.raises(SystemExit) as stop:
        call(tmp_path, run)
    assert stop.value.code == status
    path = tmp_path / "out" / "figure0.json"
    assert capsys.readouterr().err == message.format(path=path)
    assert not path.exists()


def test_other_errors_keep_their_traceback(tmp_path):
    with pytest.raises(ZeroDivisionError):
        call(tmp_path, lambda arguments: 1 / 0)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "x", "²", ""])
def test_whole_numbers(tmp_path, capsys, text):
    with pytest.raises(SystemExit) as stop:
        call(tmp_path, found, f"--count={text}")
    assert stop.value.code == 2
    assert f"must be a whole number of at least 1, got {text!r}" in capsys.readouterr().err


def test_steps_are_counted_and_shown(capsys):
    progress = Progress("filters", 3, steps="layers", images=2, every=0.0)
    for _ in range(2):
        progress.step()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[:2] for line in lines] == [
        ["filters", "1/3 layers"],
        ["filters", "2/3 layers"],
    ]
