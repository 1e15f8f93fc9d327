"""The runner: what is done is not done again, whatever ended the call before."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from jaxrobust.core import files
from jaxrobust.experiments import runner
from jaxrobust.experiments.plan import Experiment, Plan, Study
from tests.workshop import workshop as workshop

ROOT = Path(__file__).parents[1]
OUT, RUNS = Path("out"), Path("runs")


def run(plan, *, out=OUT, only=None):
    """{stage: its outcome} after a call."""
    stages = runner.Runner(plan, out=out, runs=RUNS)
    for _ in stages.run([stage.name for stage in stages.stages] if only is None else only):
        pass
    return {outcome.name: outcome for outcome in stages.outcomes()}


def statuses(outcomes):
    return [outcome.status for outcome in outcomes.values()]


def plan_of(*names, **arguments):
    experiments = [Experiment(name) for name in names]
    experiments += [Experiment(name, arguments=text) for name, text in arguments.items()]
    return Plan("Title", "Summary", (), experiments)


def test_what_is_done_is_not_done_again(workshop, capsys):
    assert statuses(run(plan_of("a", "b"))) == ["done", "done"]
    assert workshop.ran() == ["a", "b"]
    assert ": begins, about" in capsys.readouterr().err
    run(plan_of("a", "b"))
    assert workshop.ran() == []
    assert capsys.readouterr().err == "[1/2] a: done before\n[2/2] b: done before\n"
    run(plan_of("a", b="--images 3"))
    assert workshop.ran() == ["b"]
    (OUT / "figures/a.png").unlink()
    run(plan_of("a", b="--images 3"))
    assert workshop.ran() == ["a"]


def test_code_that_changed_is_run_again_and_a_comment_is_not(workshop):
    source = (workshop.folder / "jaxrobust/experiments/a.py").read_text()
    run(plan_of("a", "b"))
    workshop.write(
        "jaxrobust/experiments/a.py", f'"""Another docstring."""\n# A comment.\n{source}'
    )
    workshop.ran()
    run(plan_of("a", "b"))
    assert workshop.ran() == []
    workshop.write("jaxrobust/experiments/a.py", source + "\nanother = 1\n")
    run(plan_of("a", "b"))
    assert workshop.ran() == ["a"]


def test_a_failing_stage_is_named_and_loses_nothing_else(workshop, capsys):
    workshop.does(b="fail")
    outcomes = run(plan_of("a", "b", "c"))
    assert workshop.ran() == ["a", "b", "c"]
    assert statuses(outcomes) == ["done", "failed", "done"]
    assert outcomes["b"].reason == "first line\nValueError: it is wrong."
    assert "[2/3] b: FAILED after 0:0" in (err := capsys.readouterr().err)
    assert f"see {OUT / 'logs/b.log'}" in err
    # It is tried again, and only it.
    run(plan_of("a", "b", "c"))
    assert workshop.ran() == ["b"]
    workshop.does()
    assert statuses(run(plan_of("a", "b", "c"))) == ["done"] * 3
    assert workshop.ran() == ["b"]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["die", "no record"])
def test_a_stage_that_leaves_nothing_has_failed_and_is_tried_again(workshop, what):
    workshop.does(a=what)
    assert statuses(run(plan_of("a", "b"))) == ["failed", "done"]
    workshop.does()
    workshop.ran()
    assert statuses(run(plan_of("a", "b"))) == ["done", "done"]
    assert workshop.ran() == ["a"]


def test_an_experiment_without_its_trainings_is_not_run(workshop, capsys):
    plan = Plan("", "", [Study("work", "configs/x.py")], [Experiment("a", ["work"])])
    outcomes = run(plan, only=["a"])
    assert outcomes["a"].reason == "its trainings are not done: work"
    assert outcomes["work"].reason == "not run yet"
    assert "[2/2] a: NOT RUN, its trainings are not done" in capsys.readouterr().err
    assert workshop.ran() == []


@pytest.mark.slow
def test_what_was_trained_half_way_decides_nothing(workshop):
    workshop.trains()
    studies = [Study("base", "x.py"), Study("fused", "y.py", starts_from=["base"])]
    plan = Plan("", "", studies, [Experiment("a", ["base"]), Experiment("b", ["fused"])])
    workshop.does(base="fail")
    assert statuses(run(plan)) == ["failed", "missing", "missing", "missing"]
    assert workshop.ran() == ["base"]
    workshop.does(fused="fail")
    assert statuses(run(plan)) == ["done", "failed", "done", "missing"]
    assert workshop.ran() == ["base", "fused", "a"]
    workshop.does()
    assert statuses(run(plan)) == ["done"] * 4
    assert workshop.ran() == ["fused", "b"]
    assert statuses(run(plan)) == ["done"] * 4
    assert workshop.ran() == []
    # Trained anew: what starts from it is done again, and leaves what lies there already.
    shutil.rmtree(RUNS / "base")
    assert statuses(run(plan)) == ["done"] * 4
    assert workshop.ran() == ["base", "fused", "a"]
    # A checkpoint more than the stamp knows.
    (RUNS / "fused/std/seed0/checkpoints/20").mkdir()
    assert statuses(run(plan)) == ["done"] * 4
    assert workshop.ran() == ["fused", "b"]


def test_an_experiment_examines_the_studies_that_are_done(workshop):
    workshop.trains()
    workshop.does(second="fail")
    studies = [Study("first", "x.py"), Study("second", "y.py")]
    plan = Plan("", "", studies, [Experiment("a", ["first", "second"])])
    outcomes = run(plan)
    assert statuses(outcomes) == ["done", "failed", "done"]
    assert "--workdirs runs/first --out" in outcomes["a"].command
    workshop.does()
    workshop.ran()
    assert "--workdirs runs/first runs/second --out" in run(plan)["a"].command
    assert workshop.ran() == ["second", "a"]


def test_a_study_needs_all_that_it_starts_from(workshop):
    workshop.trains()
    workshop.does(second="fail")
    studies = [Study("first", "x.py"), Study("second", "y.py")]
    studies.append(Study("fused", "z.py", starts_from=["first", "second"]))
    outcomes = run(Plan("", "", studies, []))
    assert statuses(outcomes) == ["done", "failed", "missing"]
    assert outcomes["fused"].reason == "its trainings are not done: second"


def test_a_changed_config_is_trained_again_and_a_comment_is_not(workshop):
    workshop.trains()
    workshop.write("x.py", "seeds = 1")
    plan = Plan("", "", [Study("base", "x.py:task")], [])
    run(plan)
    workshop.ran()
    workshop.write("x.py", "seeds = 1  # only one")
    run(plan)
    assert workshop.ran() == []
    workshop.write("x.py", "seeds = 2")
    run(plan)
    assert workshop.ran() == ["base"]


def test_commands_name_trainings_and_the_folder_of_figures(workshop):
    overrides = {"seeds": (1, 2), "runs.a+b.from": ("{runs}/b",)}
    study = Study("work", "configs/x.py:y", overrides)
    assert study.command(Path("/runs")) == [
        *["-m", "jaxrobust.main", "--config=configs/x.py:y", "--workdir=/runs/work"],
        *["--config.seeds=(1, 2)", "--config.runs['a+b'].from=('/runs/b',)"],
    ]
    experiment = Experiment("figure0", ["work"], "--images 3 --stylized '{runs}/a b'")
    assert experiment.command(Path("/runs"), ["work"], Path("/out/figures")) == [
        *[
            "-m",
            "jaxrobust.experiments.figure0",
            "--workdirs",
            "/runs/work",
            "--out",
            "/out/figures",
        ],
        *["--images", "3", "--stylized", "/runs/a b"],
    ]
    plan = Plan("", "", [study], [experiment])
    outcome = runner.Runner(plan, out=OUT, runs=RUNS).outcomes()[0]
    assert shlex.split(outcome.command) == ["python", *study.command(RUNS)]


def test_a_damaged_picture_is_made_again_and_a_moved_folder_is_not(workshop):
    run(plan_of("a", "b"))
    (OUT / "figures/b.png").write_text("pict")
    workshop.ran()
    run(plan_of("a", "b"))
    assert workshop.ran() == ["b"]
    OUT.rename("two")
    run(plan_of("a", "b"), out=Path("two"))
    assert workshop.ran() == []


@pytest.mark.slow
@pytest.mark.parametrize("text", ['{"well": tr', "{}", '{"status": 0, "inputs": "x"}', "[1]"])
def test_a_stamp_that_says_something_else_counts_as_none(workshop, text):
    run(plan_of("a"))
    (OUT / "state/a.json").write_text(text)
    workshop.ran()
    assert statuses(run(plan_of("a"))) == ["done"]
    assert workshop.ran() == ["a"]


def test_a_kill_between_record_and_stamp_leaves_no_earlier_stamp(workshop, monkeypatch):
    run(plan_of("a"))
    with monkeypatch.context() as patch:
        patch.setattr(runner, "write_json", lambda path, content: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(plan_of(a="--other"))
    workshop.ran()
    run(plan_of("a"))
    assert workshop.ran() == ["a"]


def test_an_interrupted_stage_is_told_to_end(workshop, monkeypatch):
    workshop.does(a="sleep")

    def interrupt(child, *, within):
        if within == 1.0:  # seconds: the runner looks after the stage
            while not (workshop.folder / "ran").exists():
                time.sleep(0.02)
            raise KeyboardInterrupt
        return ends(child, within=within)

    ends = runner._ends
    monkeypatch.setattr(runner, "_ends", interrupt)
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(plan_of("a"))
    assert time.monotonic() - begun < 30  # it would sleep for longer
    assert not (OUT / "state/a.json").exists()


def test_time_left_is_what_was_expected_corrected_by_what_was_measured(workshop, capsys):
    plan = Plan("", "", (), [Experiment("a", minutes=18), Experiment("b", minutes=20)])
    run(plan)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "[1/2] a: begins, about 38:00 left in all"
    # It took seconds: so the rest takes 120 / (18 * 60 + 120) of the twenty minutes, and seconds.
    assert re.search(r", 2:\d\d left$", lines[1])


CALL = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from tests.test_report_runner import OUT, plan_of, run
import jaxrobust.experiments
from jaxrobust.core import files
jaxrobust.__path__.insert(0, "jaxrobust")
jaxrobust.experiments.__path__.insert(0, "jaxrobust/experiments")
with files.alone(OUT / "state" / "lock", "waiting"):
    run(plan_of("a", "b", "c"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("also_child", [False, True])
def test_a_killed_call_goes_on(workshop, also_child):
    workshop.does(b="sleep")
    call = workshop.write("call.py", CALL)
    process = subprocess.Popen([sys.executable, str(call)], stderr=subprocess.PIPE)
    ran = workshop.folder / "ran"
    deadline = time.monotonic() + 60
    while not (ran.exists() and ran.read_text().split() == ["a", "b"]):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    if also_child:
        os.kill(int((workshop.folder / "b.pid").read_text()), signal.SIGKILL)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    workshop.ran()
    workshop.does()
    begun = time.monotonic()
    with files.alone(OUT / "state" / "lock", "waiting"):
        assert statuses(run(plan_of("a", "b", "c"))) == ["done"] * 3
    # The orphan has ended at once, and has not slept to its end.
    assert time.monotonic() - begun < 60
    assert workshop.ran() == ["b", "c"]


@pytest.mark.slow
def test_a_stage_waits_for_one_that_an_earlier_call_has_left_running(workshop):
    """As where no signal tells an orphan that its parent is gone."""
    workshop.write(
        "jaxrobust/experiments/a.py",
        "import time; print('begun', flush=True); time.sleep(5); print(time.monotonic())",
    )
    workshop.write("jaxrobust/experiments/b.py", "import time; print(time.monotonic())")
    command = [sys.executable, "-m", "jaxrobust.experiments.stage", "lock"]
    first = subprocess.Popen([*command, "jaxrobust.experiments.a"], stdout=subprocess.PIPE)
    assert first.stdout.readline() == b"begun\n"
    second = subprocess.Popen([*command, "jaxrobust.experiments.b"], stdout=subprocess.PIPE)
    assert float(second.communicate()[0]) > float(first.communicate()[0])


def test_two_calls_do_not_work_in_one_folder(workshop, capsys):
    held, freed = threading.Event(), []

    def work():
        with files.alone(OUT / "state/lock", "works here"):
            held.set()
            time.sleep(0.5)
            freed.append(time.monotonic())

    other = threading.Thread(target=work)
    other.start()
    held.wait()
    with files.alone(OUT / "state/lock", "works here"):
        assert time.monotonic() >= freed[0]
    other.join()
    error = capsys.readouterr().err
    assert error.startswith(f"Process {os.getpid()} on ")
    assert error.endswith(", works here: waiting for it to end.\n")
