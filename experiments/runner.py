"""Runs the stages of a report one after the other, each in a process of its own.

A stage that has ended leaves a stamp, `<out>/state/<name>.json`, written last and whole: whether it
ended well, from what, and what it left. It is run again when one of these is no longer so. So a
report can be interrupted anywhere, in any way, and the same command goes on.
"""

import contextlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jaxrobust
from jaxrobust.core import config_files
from jaxrobust.core.files import read_json, read_note, write_json
from jaxrobust.core.logs import clock
from jaxrobust.experiments import fingerprints
from jaxrobust.experiments.plan import Experiment, Plan, Study

FIGURES, LOGS, STATE = "figures", "logs", "state"
# Seconds that an interrupted stage has to save what it is doing.
_GRACE = 60.0
# Of a log, what the report shows of a stage that failed.
_LAST_LINES = 12

Stage = Study | Experiment


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
        self.out, self.runs = out, runs
        self.studies = {study.name: study for study in plan.studies}
        self.stages = plan.stages

    def run(self, only: Sequence[str]) -> Iterator[str]:
        """Do what is not done yet of some stages; the name of each that has been run, after it."""
        # Seconds. What the plan expects weighs as much as two minutes of measuring.
        expected = measured = 120.0

        def left(stages: Sequence[Stage]) -> float:
            return 60.0 * sum(stage.minutes for stage in stages) * measured / expected

        for number, stage in enumerate(self.stages, start=1):
            if stage.name not in only:
                continue
            rest = [later for later in self.stages[number:] if later.name in only]
            heading = f"[{number}/{len(self.stages)}] {stage.title}"
            if self._done(stage):
                _say(f"{heading}: done before")
            elif self._lacking(stage):
                _say(f"{heading}: NOT RUN, its trainings are not done")
            else:
                stamp = self._run(stage, heading, left([stage, *rest]))
                end = clock(stamp["seconds"])
                if stamp["well"]:
                    measured += stamp["seconds"]
                    expected += 60.0 * stage.minutes
                else:
                    end = f"FAILED after {end}, see {self._log(stage)}"
                _say(f"{heading}: {end}" + (f", {clock(left(rest))} left" if rest else ""))
                yield stage.name

    def outcomes(self) -> list[Outcome]:
        """What has become of each stage, as far as its inputs are still what they were."""
        return [self._outcome(stage) for stage in self.stages]

    def record(self, experiment: str) -> dict[str, Any]:
        """What an experiment that is done has written."""
        return read_json(self.out / FIGURES / f"{experiment}.json")

    def _outcome(self, stage: Stage) -> Outcome:
        command = shlex.join(["python", *self._command(stage, self.out, self.runs)])
        stamp = self._stamped(stage)
        if self._done(stage):
            return Outcome(stage.name, stage.title, "done", stamp["seconds"], command)
        if lacking := self._lacking(stage):
            reason = f"its trainings are not done: {', '.join(lacking)}"
        elif stamp.get("well") is False and stamp["inputs"] == self._inputs(stage):
            log = last_lines(self._log(stage), _LAST_LINES)
            return Outcome(stage.name, stage.title, "failed", stamp["seconds"], command, log)
        elif stamp:
            reason = "to be run again, as what it depends on has changed"
        else:
            reason = "not run yet"
        return Outcome(stage.name, stage.title, "missing", None, command, reason)

    def _done(self, stage: Stage) -> bool:
        """Whether it has ended well, from the inputs of now, and what it left is there."""
        stamp = self._stamped(stage)
        return (
            stamp.get("well") is True
            and stamp["outputs"] == self._outputs(stage)
            and stamp["inputs"] == self._inputs(stage)
        )

    def _lacking(self, stage: Stage) -> list[str]:
        """What must be done before it: a study needs all it starts from, an experiment any."""
        trained = self._trained(stage)
        enough = isinstance(stage, Experiment) and trained
        return [] if enough else [name for name in stage.starts_from if name not in trained]

    def _trained(self, stage: Stage) -> list[str]:
        """The studies it starts from that are done: one trained half-way decides nothing."""
        return [name for name in stage.starts_from if self._done(self.studies[name])]

    def _command(self, stage: Stage, out: Path, runs: Path) -> list[str]:
        if isinstance(stage, Study):
            return stage.command(runs)
        return stage.command(runs, self._trained(stage), out / FIGURES)

    def _inputs(self, stage: Stage) -> dict[str, Any]:
        """What decides what a stage does, as JSON."""
        inputs: dict[str, Any] = {
            # Without where the folders are, which may be moved.
            "command": self._command(stage, Path("{out}"), Path("{runs}")),
            "trainings": {
                name: fingerprints.trainings(self.runs / name) for name in self._trained(stage)
            },
        }
        if isinstance(stage, Study):
            config = Path(stage.config.partition(":")[0])
            with contextlib.suppress(FileNotFoundError):  # the training will say so
                config = config_files.find(config)
            defaults = Path(jaxrobust.__file__).parent / "training" / "config.py"
            return inputs | {"config": fingerprints.code_of_files([config, defaults])}
        return inputs | {
            "code": fingerprints.code(f"jaxrobust.experiments.{stage.name}"),
            "pictures": fingerprints.pictures(self.runs / name for name in self._trained(stage)),
            "versions": fingerprints.versions(),
            "prepared": None if stage.starts_from else fingerprints.prepared(),
        }

    def _outputs(self, stage: Stage) -> dict[str, Any] | None:
        """What lies there of what a stage leaves, as JSON; None when some of it does not."""
        if isinstance(stage, Study):
            return fingerprints.trainings(self.runs / stage.name) or None
        record = self.out / FIGURES / f"{stage.name}.json"
        left = read_note(record) or {}
        paths = [record, *(record.with_name(name) for name in left.get("files", ()))]
        whole = all(path.is_file() for path in paths)
        return {path.name: path.stat().st_size for path in paths} if whole else None

    def _run(self, stage: Stage, heading: str, left: float) -> dict[str, Any]:
        """Run one stage; its stamp."""
        log, stamp = self._log(stage), self._stamp(stage)
        log.parent.mkdir(parents=True, exist_ok=True)
        inputs = self._inputs(stage)
        # From here on, the files are no longer those of an earlier stamp.
        stamp.unlink(missing_ok=True)
        begun = time.monotonic()
        if not sys.stderr.isatty():
            _say(f"{heading}: begins, about {clock(left)} left in all")
        lock = str(self.out / STATE / "stage.lock")
        _, *module = self._command(stage, self.out, self.runs)  # -m, then the module
        with log.open("wb") as output:
            child = subprocess.Popen(
                [sys.executable, "-u", "-m", "jaxrobust.experiments.stage", lock, *module],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that Ctrl-C reaches it once, through us
            )
            try:
                while not _ends(child, within=1.0):
                    took = time.monotonic() - begun
                    _show(f"{heading} {clock(took)}, {clock(max(left - took, 0.0))} left", log)
            except BaseException:
                child.terminate()  # not SIGINT, which what was started in the background ignores
                if not _ends(child, within=_GRACE):
                    child.kill()
                    child.wait()
                raise
        outputs = self._outputs(stage)
        content = {
            "well": child.returncode == 0 and outputs is not None,
            "inputs": inputs,
            "outputs": outputs,
            "seconds": time.monotonic() - begun,
        }
        write_json(stamp, content)
        return content

    def _stamped(self, stage: Stage) -> dict[str, Any]:
        """What its stamp says; nothing when it is damaged or not there."""
        kinds = {"well": bool, "inputs": dict, "seconds": float}
        stamp = read_note(self._stamp(stage), **kinds) or {}
        return stamp if "outputs" in stamp else {}

    def _stamp(self, stage: Stage) -> Path:
        return self.out / STATE / f"{stage.name}.json"

    def _log(self, stage: Stage) -> Path:
        return self.out / LOGS / f"{stage.name}.log"


def last_lines(path: Path, count: int) -> str:
    """Of a log, those that hold something."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 20_000))
        text = file.read().decode("utf-8", "replace")
    lines = [line.rstrip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return "\n".join(lines[-count:])


def _ends(child: subprocess.Popen, *, within: float) -> bool:
    """Whether a process ends within some seconds."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(within)
        return True
    return False


def _say(text: str) -> None:
    """A line that stays; on a terminal in the place of what `_show` has written."""
    start = "\r\x1b[K" if sys.stderr.isatty() else ""
    print(start + text, file=sys.stderr, flush=True)


def _show(text: str, log: Path) -> None:
    """How far a stage is, with the last line of its log; on a terminal only."""
    if sys.stderr.isatty():
        width = os.get_terminal_size(sys.stderr.fileno()).columns
        line = f"{text}  {last_lines(log, 1)}"
        print(f"\r\x1b[K{line[: width - 1]}", end="", file=sys.stderr, flush=True)
