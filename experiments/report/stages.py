"""Running the stages of a report one after the other, each in a process of its own.

A stage that has ended well leaves a stamp, written last and whole: with the same inputs it is not
done again. So a report can be interrupted anywhere, in any way, and the same command goes on.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.report import fingerprints
from experiments.report.plan import Experiment, Plan, Study
from experiments.report.stage_progress import StageProgress, tail
from jaxrobust.core.files import read_json, write_json

FIGURES, LOGS, STATE = "figures", "logs", "state"
_PR_SET_PDEATHSIG = 1
# Seconds that an interrupted child has to save what it is doing.
_GRACE = 60.0


@dataclass(frozen=True)
class Outcome:
    """What became of a stage.

    Attributes:
      name: of the stage.
      title: in words.
      status: "done", "failed" or "missing" (its trainings, or not yet run).
      seconds: that it took when it was run last; None when that is not known.
      command: that ran it.
      reason: why it is not done; the last lines of its log.
    """

    name: str
    title: str
    status: str
    seconds: float | None = None
    command: str = ""
    reason: str = ""


class Runner:
    """The stages of a plan.

    Args:
      plan: what is to be done.
      out: folder of the report.
      runs: folder of the trainings.
    """

    def __init__(self, plan: Plan, *, out: Path, runs: Path) -> None:
        self.plan, self.out, self.runs = plan, out, runs
        self.stages: list[Study | Experiment] = [*plan.studies, *plan.experiments]

    def run(
        self, after: Callable[[list[Outcome]], None], *, only: Sequence[str] | None = None
    ) -> None:
        """Do what is not done yet.

        Args:
          after: called with all outcomes so far, at the beginning and after each stage that has
            been run.
          only: names of stages; None are all.
        """
        progress = StageProgress([stage.minutes for stage in self.stages])
        after(self.outcomes())
        asked = [
            (position, stage)
            for position, stage in enumerate(self.stages)
            if only is None or stage.name in only
        ]
        progress.only([position for position, _ in asked])
        for position, stage in asked:
            if self._stamped(stage):
                progress.reused(position, stage.title)
                continue
            if self._lacking(stage):
                progress.missing(position, stage.title)
                continue
            seconds, status = self._child(stage, position, progress)
            progress.ended(position, stage.title, seconds, self._log(stage) if status else None)
            after(self.outcomes())

    def outcomes(self) -> list[Outcome]:
        """What has become of each stage, as far as its inputs are still what they were."""
        return [self._outcome(stage) for stage in self.stages]

    def records(self, outcomes: Iterable[Outcome]) -> dict[str, dict[str, Any]]:
        """{experiment: its record}, of those that are done by these outcomes."""
        done = {outcome.name for outcome in outcomes if outcome.status == "done"}
        return {
            stage.module: read_json(self._record(stage))
            for stage in self.plan.experiments
            if stage.name in done
        }

    def _outcome(self, stage: Study | Experiment) -> Outcome:
        command = shlex.join(["python", *self._arguments(stage)])
        note = _read(self._note(stage))
        seconds = note.get("seconds")
        if self._stamped(stage):
            return Outcome(stage.name, stage.title, "done", seconds, command)
        if note.get("status", 0) and note.get("inputs") == self._inputs(stage):
            return Outcome(
                stage.name, stage.title, "failed", seconds, command, tail(self._log(stage))
            )
        reason = "to be run again, as what it depends on has changed" if note else "not run yet"
        if lacking := self._lacking(stage):
            reason = f"its trainings are not done: {', '.join(lacking)}"
        return Outcome(stage.name, stage.title, "missing", None, command, reason)

    def _arguments(self, stage: Study | Experiment) -> list[str]:
        """Of Python: what runs a stage."""
        if isinstance(stage, Study):
            overrides = [
                f"--config{_path(key)}={_literal(value, self.runs)}"
                for key, value in stage.overrides.items()
            ]
            workdir = f"--workdir={self.runs / stage.name}"
            return ["-m", "jaxrobust.main", f"--config={stage.config}", workdir, *overrides]
        given = [_literal(argument, self.runs) for argument in shlex.split(stage.arguments)]
        folders = [str(folder) for folder in self._workdirs(stage)]
        workdirs = ["--workdirs", *folders] if stage.studies else []
        out = ["--out", str(self.out / FIGURES)]
        return ["-m", f"experiments.{stage.module}", *workdirs, *out, *given]

    def _starts_from(self, stage: Study | Experiment) -> list[Study]:
        """The studies whose trainings a stage reads."""
        if isinstance(stage, Experiment):
            return [study for study in self.plan.studies if study.name in stage.studies]
        given = repr(list(stage.overrides.values()))
        return [study for study in self.plan.studies if f"{{runs}}/{study.name}/" in given]

    def _lacking(self, stage: Study | Experiment) -> list[str]:
        """What must be done before it: a study needs all it starts from, an experiment any."""
        studies = self._starts_from(stage)
        lacking = [study.name for study in studies if not self._stamped(study)]
        enough = isinstance(stage, Experiment) and len(lacking) < len(studies)
        return [] if enough else lacking

    def _workdirs(self, experiment: Experiment) -> list[Path]:
        """Of the studies that are done: a network trained half-way decides nothing."""
        studies = self._starts_from(experiment)
        return [self.runs / study.name for study in studies if self._stamped(study)]

    def _inputs(self, stage: Study | Experiment) -> str:
        if isinstance(stage, Study):
            there = fingerprints.trainings(self.runs / stage.name)
            return fingerprints.as_text(self._asked(stage) | {"trainings": there})
        return fingerprints.as_text(
            fingerprints.of_experiment(
                self._wherever(stage),
                stage.module,
                self._workdirs(stage) if stage.studies else None,
            )
        )

    def _wherever(self, stage: Study | Experiment) -> list[str]:
        """Its arguments without where the folders are, which may be moved."""
        arguments = self._arguments(stage)
        for place, name in ((self.out, "{out}"), (self.runs, "{runs}")):
            # The beginning of a path, not a part of a word.
            whole = rf"(?<![\w./\]-]){re.escape(str(place))}(?=/|$)"
            arguments = [re.sub(whole, name, argument) for argument in arguments]
        return arguments

    def _asked(self, study: Study) -> dict[str, Any]:
        """What a study is to be, whatever lies there."""
        started = [self.runs / each.name for each in self._starts_from(study)]
        return fingerprints.of_training(self._wherever(study), study.config, started)

    def _stamped(self, stage: Study | Experiment) -> bool:
        """Whether it has ended well with the inputs of now, and what it wrote is there."""
        note = _read(self._note(stage))
        return (
            note.get("status") == 0
            and note.get("inputs") == self._inputs(stage)
            and note["files"] == self._sizes(note["files"])
        )

    def _sizes(self, names: Iterable[str]) -> dict[str, int]:
        """Of an experiment's files, as far as they are there."""
        paths = {name: self.out / FIGURES / name for name in names}
        return {name: path.stat().st_size for name, path in paths.items() if path.is_file()}

    def _child(
        self, stage: Study | Experiment, position: int, progress: StageProgress
    ) -> tuple[float, int]:
        """Run one stage: the seconds it took and its exit status."""
        log = self._log(stage)
        log.parent.mkdir(parents=True, exist_ok=True)
        before = self._inputs(stage)
        asked = self._asked(stage) if isinstance(stage, Study) else None
        # From here on the files are no longer those of an earlier stamp.
        self._note(stage).unlink(missing_ok=True)
        begun = time.monotonic()
        progress.start(position, stage.title)
        with log.open("wb") as output:
            child = subprocess.Popen(
                [sys.executable, "-u", *self._arguments(stage)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Of its own, so that Ctrl-C reaches it once, through us.
                start_new_session=True,
                preexec_fn=_die_with_parent(),
                close_fds=False,  # the lock stays held as long as the child lives
            )
            try:
                while child.poll() is None:
                    time.sleep(0.2)
                    progress.show(position, stage.title, log)
            except BaseException:
                child.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(_GRACE)
                child.kill()
                child.wait()
                raise
        seconds, status = time.monotonic() - begun, child.returncode
        written: list[str] = []
        if status == 0 and isinstance(stage, Experiment):
            written = [*read_json(self._record(stage))["files"], f"{stage.module}.json"]
        # A training is known by what it has left, an experiment by what it started from.
        as_asked = isinstance(stage, Study) and self._asked(stage) == asked
        inputs = self._inputs(stage) if as_asked else before
        write_json(
            self._note(stage),
            {
                "status": status,
                "inputs": inputs,
                "seconds": seconds,
                "files": self._sizes(written),
            },
        )
        return seconds, status

    def _note(self, stage: Study | Experiment) -> Path:
        return self.out / STATE / f"{stage.name}.json"

    def _log(self, stage: Study | Experiment) -> Path:
        return self.out / LOGS / f"{stage.name}.log"

    def _record(self, experiment: Experiment) -> Path:
        return self.out / FIGURES / f"{experiment.module}.json"


@contextlib.contextmanager
def lock(out: Path) -> Generator[None]:
    """Hold the folder of a report; what an earlier, killed call has left running is waited for."""
    path = out / STATE / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    os.set_inheritable(descriptor, True)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Another call works in {out}: waiting for it to end.", file=sys.stderr)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _path(key: str) -> str:
    """A key with dots as flags take it.

    Example:
      >>> _path("runs.std+adv.seeds")
      ".runs['std+adv'].seeds"
    """
    parts = key.split(".")
    return "".join(f".{part}" if part.isidentifier() else f"[{part!r}]" for part in parts)


def _literal(value: Any, runs: Path) -> Any:
    """A value with the folder of the trainings put in."""
    if isinstance(value, str):
        return value.replace("{runs}", str(runs))
    if isinstance(value, list | tuple):
        return tuple(_literal(each, runs) for each in value)
    return value


def _die_with_parent() -> Callable[[], None] | None:
    """What a child calls so that it ends when we are killed; on Linux, elsewhere the lock waits."""
    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return None
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
