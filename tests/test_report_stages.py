import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from experiments.report import fingerprints, plan, stage_progress, stages
from experiments.report.plan import Experiment, Plan, Study

# An experiment's process: notes that it ran, and leaves the record that `command.run` would.
CHILD = """
import json, sys, time
from pathlib import Path
out, name, what = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
with open(out / "ran", "a") as file:
    file.write(name + "\\n")
if what == "fail":
    print("first line"); print("ValueError: it is wrong.", file=sys.stderr); sys.exit(2)
if what == "slow":
    time.sleep(60)
folder = out / "figures"
folder.mkdir(exist_ok=True)
(folder / f"{name}.png").write_text("picture")
(folder / f"{name}.json").write_text(json.dumps({"files": [f"{name}.png"], "architectures": {}}))
"""


class Made(stages.Runner):
    """Runs `CHILD` instead of experiments; an experiment's first argument is what becomes of it."""

    def _arguments(self, stage):
        given = stage.arguments.split() if isinstance(stage, Experiment) else ()
        return ["-c", CHILD, str(self.out), stage.name, *given]


def made_plan(**what):
    experiments = [Experiment(name, arguments=kind) for name, kind in what.items()]
    return Plan("Title", "Summary", (), experiments)


def run(out, **what):
    """The outcomes, and which stages ran."""
    out.mkdir(exist_ok=True)
    runner = Made(made_plan(**what), out=out, runs=out / "runs")
    (out / "ran").write_text("")
    calls = []
    runner.run(calls.append)
    assert [outcome.status for outcome in calls[-1]] == [
        outcome.status for outcome in runner.outcomes()
    ]
    return {one.name: one for one in runner.outcomes()}, (out / "ran").read_text().split()


def test_what_is_done_is_not_done_again(tmp_path):
    outcomes, ran = run(tmp_path, a="well", b="well")
    assert ran == ["a", "b"]
    assert [one.status for one in outcomes.values()] == ["done", "done"]
    assert run(tmp_path, a="well", b="well")[1] == []
    assert run(tmp_path, a="well", b="well too")[1] == ["b"]
    (tmp_path / "figures/a.png").unlink()
    assert run(tmp_path, a="well", b="well too")[1] == ["a"]


def test_a_failing_stage_is_named_and_loses_nothing_else(tmp_path, capsys):
    outcomes, ran = run(tmp_path, a="well", b="fail", c="well")
    assert ran == ["a", "b", "c"]
    assert [one.status for one in outcomes.values()] == ["done", "failed", "done"]
    assert outcomes["b"].reason == "first line\nValueError: it is wrong."
    assert "b: FAILED" in capsys.readouterr().err
    # It is tried again, and only it.
    assert run(tmp_path, a="well", b="fail", c="well")[1] == ["b"]
    outcomes, ran = run(tmp_path, a="well", b="well", c="well")
    assert (ran, outcomes["b"].status) == (["b"], "done")


def test_an_experiment_without_its_trainings_is_not_run(tmp_path, capsys):
    chosen = Plan("", "", [Study("work", "configs/x.py")], [Experiment("a", ["work"], "well")])
    runner = Made(chosen, out=tmp_path, runs=tmp_path / "runs")
    runner.run(lambda outcomes: None, only=["a"])
    assert runner.outcomes()[1].reason == "its trainings are not done: work"
    assert "a: NOT RUN" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_a_killed_call_takes_its_child_along_and_goes_on(tmp_path):
    code = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from tests import test_report_stages as here
        from experiments.report import stages
        out = Path({str(tmp_path)!r})
        with stages.lock(out):
            here.run(out, a="well", b="slow", c="well")
    """)
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    ran = tmp_path / "ran"
    deadline = time.monotonic() + 60
    while not (ran.exists() and ran.read_text().split() == ["a", "b"]):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    # Held until the orphan has ended, which is at once and not in a minute.
    begun = time.monotonic()
    with stages.lock(tmp_path):
        assert time.monotonic() - begun < 30
        outcomes, ran = run(tmp_path, a="well", b="well", c="well")
    assert ran == ["b", "c"]
    assert all(one.status == "done" for one in outcomes.values())


def test_arguments_name_trainings_and_the_folder_of_figures(tmp_path, monkeypatch):
    chosen = Plan(
        "",
        "",
        [Study("work", "configs/x.py:y", {"seeds": (1, 2), "runs.a+b.from": ("{runs}/b",)})],
        [Experiment("figure0", ["work"], "--images 3")],
    )
    runner = stages.Runner(chosen, out=tmp_path / "out", runs=tmp_path / "runs")
    monkeypatch.setattr(runner, "_stamped", lambda stage: isinstance(stage, Study))
    study, experiment = (shlex.split(outcome.command) for outcome in runner.outcomes())
    assert study == [
        "python",
        "-m",
        "jaxrobust.main",
        "--config=configs/x.py:y",
        f"--workdir={tmp_path}/runs/work",
        "--config.seeds=(1, 2)",
        f"--config.runs['a+b'].from=('{tmp_path}/runs/b',)",
    ]
    assert experiment == [
        *["python", "-m", "experiments.figure0", "--workdirs", f"{tmp_path}/runs/work"],
        *["--out", f"{tmp_path}/out/figures", "--images", "3"],
    ]
    # Wherever the folders are, what is asked for is the same.
    moved = stages.Runner(chosen, out=Path("out"), runs=Path("runs"))
    monkeypatch.setattr(moved, "_stamped", lambda stage: isinstance(stage, Study))
    for stage in runner.stages:
        assert runner._wherever(stage) == moved._wherever(stage)


def test_fingerprints_follow_checkpoints_and_code(tmp_path):
    folder = tmp_path / "std" / "seed0"
    assert fingerprints.trainings(tmp_path / "nowhere") == {}
    (folder / "checkpoints" / "30").mkdir(parents=True)
    before = fingerprints.trainings(tmp_path)
    assert list(before) == ["std/seed0"]
    assert fingerprints.trainings(tmp_path) == before
    (folder / "checkpoints" / "40").mkdir()
    assert fingerprints.trainings(tmp_path) != before
    names = {path.name for path in fingerprints.sources("figure2_sensitivity_maps")}
    assert {"figure2_sensitivity_maps.py", "sensitivity.py", "statistics.py"} <= names
    assert "figure6_smoothing.py" not in names
    assert fingerprints.digest([folder / "no file"]) != fingerprints.digest([])


def test_time_left_is_what_was_expected_corrected_by_what_was_measured(capsys):
    progress = stage_progress.StageProgress([1.0, 1.0, 2.0])
    assert progress.left() == 240
    progress.ended(0, "a", 240.0, None)  # four times as long
    # (240 + 120) / (60 + 120) times the three minutes that are left.
    assert progress.left() == pytest.approx(360)
    progress.reused(1, "b")
    assert progress.left() == pytest.approx(240)
    err = capsys.readouterr().err
    assert err.splitlines() == ["[1/3] a: 4:00, 6:00 left", "[2/3] b: done before"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "must define get_plan"),
        (
            "from experiments.report.plan import *\n"
            "def get_plan(): return Plan('', '', [], [Experiment('a'), Experiment('a')])",
            "got 'a' twice",
        ),
        (
            "from experiments.report.plan import *\n"
            "def get_plan(): return Plan('', '', [], [Experiment('a', ['b'])])",
            "got 'b'",
        ),
    ],
)
def test_wrong_plans(tmp_path, text, message):
    path = tmp_path / "paper.py"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        plan.load(path)


# A training's process: leaves a checkpoint, and fails half-way when it is told to.
TRAINING = """
import sys
from pathlib import Path
out, name, workdir, what = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
with open(out / "ran", "a") as file:
    file.write(name + "\\n")
steps = "5" if what.exists() and what.read_text() == name else "10"
(workdir / "std/seed0/checkpoints" / steps).mkdir(parents=True, exist_ok=True)
sys.exit(9 if steps == "5" else 0)
"""


class Trained(Made):
    """Trainings are `TRAINING`; the one named in the file `fails` fails."""

    def _arguments(self, stage):
        if not isinstance(stage, Study):
            return super()._arguments(stage)
        workdir, fails = self.runs / stage.name, self.out / "fails"
        return ["-c", TRAINING, str(self.out), stage.name, str(workdir), str(fails)]


def test_what_was_trained_half_way_decides_nothing(tmp_path):
    chosen = Plan(
        "",
        "",
        [
            Study("base", "configs/x.py"),
            Study("fused", "configs/y.py", {"backbones": ("{runs}/base/std",)}),
        ],
        [Experiment("a", ["base"], "well"), Experiment("b", ["fused"], "well")],
    )

    def go():
        (tmp_path / "ran").write_text("")
        runner = Trained(chosen, out=tmp_path, runs=tmp_path / "runs")
        runner.run(lambda outcomes: None)
        return [one.status for one in runner.outcomes()], (tmp_path / "ran").read_text().split()

    (tmp_path / "fails").write_text("base")
    assert go() == (["failed", "missing", "missing", "missing"], ["base"])
    (tmp_path / "fails").write_text("fused")
    assert go() == (["done", "failed", "done", "missing"], ["base", "fused", "a"])
    (tmp_path / "fails").unlink()
    assert go() == (["done"] * 4, ["fused", "b"])
    assert go() == (["done"] * 4, [])
    # Trained anew: what started from it is asked for again, and leaves what lies there already.
    shutil.rmtree(tmp_path / "runs/base")
    assert go() == (["done"] * 4, ["base", "fused", "a"])


def test_a_kill_between_record_and_stamp_leaves_no_earlier_stamp(tmp_path, monkeypatch):
    run(tmp_path, a="well")
    with monkeypatch.context() as patch:
        patch.setattr(stages, "write_json", lambda path, value: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(tmp_path, a="well too")
    assert run(tmp_path, a="well")[1] == ["a"]


def test_a_damaged_picture_is_made_again_and_a_moved_folder_is_not(tmp_path):
    run(tmp_path / "one", a="well", b="well")
    (tmp_path / "one/figures/b.png").write_text("pict")
    assert run(tmp_path / "one", a="well", b="well")[1] == ["b"]
    (tmp_path / "one").rename(tmp_path / "two")
    assert run(tmp_path / "two", a="well", b="well")[1] == []


def test_a_damaged_note_counts_as_none(tmp_path):
    run(tmp_path, a="well")
    (tmp_path / "state/a.json").write_text(json.dumps({"status": 0})[:-3])
    assert run(tmp_path, a="well")[1] == ["a"]
