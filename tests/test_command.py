import argparse
import json
from pathlib import Path

import jax
import pytest

from experiments import command
from jaxrobust import __version__


def run(tmp_path, examine, *arguments):
    command.run(
        "figure0",
        ["--out", str(tmp_path / "out"), *arguments],
        document="What it costs.",
        examine=examine,
        add_arguments=lambda parser: parser.add_argument("--count", type=command.whole_number(1)),
    )


def test_arguments():
    parser = argparse.ArgumentParser()
    command.add_common_arguments(parser)
    defaults = parser.parse_args([])
    assert defaults.workdirs == [Path("runs/quickstart")]
    assert defaults.out == Path("runs/figures")
    others = argparse.ArgumentParser()
    command.add_common_arguments(others, workdirs="runs/others")
    assert others.parse_args([]).workdirs == [Path("runs/others")]
    assert "(default: runs/others)" in others.format_help()
    given = parser.parse_args(["--workdirs", "a", "b", "--out", "c"])
    assert (given.workdirs, given.out) == ([Path("a"), Path("b")], Path("c"))


def test_the_record_holds_settings_and_findings(tmp_path, capsys):
    picture = tmp_path / "picture.png"

    def examine(arguments):
        assert arguments.workdirs == [Path("a"), Path("b")]
        return {"TinyNetwork": {"measured": arguments.count}}, [picture]

    run(tmp_path, examine, "--workdirs", "a", "b", "--count", "3")
    path = tmp_path / "out" / "figure0.json"
    assert json.loads(path.read_text()) == {
        "settings": {"workdirs": ["a", "b"], "out": str(tmp_path / "out"), "count": 3},
        "versions": {"jaxrobust": __version__, "jax": jax.__version__},
        "device": "cpu",
        "files": ["picture.png"],
        "architectures": {"TinyNetwork": {"measured": 3}},
    }
    assert capsys.readouterr().out == f"\nWrote {picture}, {path}\n"


def test_an_experiment_may_go_without_trainings(tmp_path, capsys):
    def examine(arguments):
        assert not hasattr(arguments, "workdirs")
        return {"digits": {"train": 3}}, []

    given = ["--out", str(tmp_path)]
    command.run("table0", given, document="", examine=examine, workdirs=None)
    record = json.loads((tmp_path / "table0.json").read_text())
    assert record["settings"] == {"out": str(tmp_path)}
    assert record["datasets"] == {"digits": {"train": 3}}
    with pytest.raises(SystemExit):
        command.run("table0", ["--workdirs", "a"], document="", examine=examine, workdirs=None)
    assert "--workdirs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ValueError("layers must be fewer."), 2, "layers must be fewer.\n"),
        (FileNotFoundError("nowhere is no folder."), 2, "nowhere is no folder.\n"),
        (KeyboardInterrupt(), 130, "\nInterrupted; {path} was not written.\n"),
    ],
)
def test_what_ends_it_is_one_line(tmp_path, capsys, error, status, message):
    def examine(arguments):
        raise error

    with pytest.raises(SystemExit) as stop:
        run(tmp_path, examine)
    assert stop.value.code == status
    path = tmp_path / "out" / "figure0.json"
    assert capsys.readouterr().err == message.format(path=path)
    assert not path.exists()


def test_other_errors_keep_their_traceback(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, lambda arguments: 1 / 0)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "x", "²", ""])
def test_whole_numbers(tmp_path, capsys, text):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, lambda arguments: ({}, []), f"--count={text}")
    assert stop.value.code == 2
    assert f"must be a whole number of at least 1, got {text!r}" in capsys.readouterr().err


def test_steps_are_counted_and_shown(capsys):
    progress = command.Steps("filters", 3, images=2, every=0.0)
    for _ in range(2):
        progress.step()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[:2] for line in lines] == [["filters", "1/3"], ["filters", "2/3"]]
