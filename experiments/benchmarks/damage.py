"""What becomes of a run whose files are damaged, and of work that is killed.

    python -m jaxrobust.experiments.benchmarks.damage flips
    python -m jaxrobust.experiments.benchmarks.damage kills

The first turns one bit at a time, in all files of a run; the second kills five kinds of work at
random moments.

Each flip strikes a copy of two small trainings, of three checkpoints each, their evaluations and
their data set. Weights are loaded; the same command is given again; and once more where the newest
checkpoints are gone, so that it has to go on from the two before. All three must end as they do
without damage, or say in a sentence that they do not. What is killed must end as if it had not
been, when the same command is given again. Exits with 1 where that is not so.
"""

import argparse
import collections
import contextlib
import io
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader
from ml_collections import ConfigDict

from jaxrobust import stylization
from jaxrobust.core.digests import digest
from jaxrobust.data import prepare, sources
from jaxrobust.data.dataset_config import DatasetConfig
from jaxrobust.stylization.networks import Encoder
from jaxrobust.training import checkpoints, study
from jaxrobust.training import config as configs

SAME, SAID, OTHER, RAW = "the same end", "said", "OTHER END, SILENTLY", "NO SENTENCE"
STEPS, BETWEEN = 30, 10
WORKS = ("training", "evaluation", "preparation", "stylisation", "report")
_STUDY = """
from jaxrobust.experiments.benchmarks import damage

def get_config():
    return damage.config({data!r}, attack_steps=40)
"""
_PLAN = """
from jaxrobust.experiments.plan import Experiment, Plan, Study

def get_plan():
    trainings = [Study("run", {config!r})]
    tables = [Experiment("table2_variants", ["run"]), Experiment("table3_datasets")]
    return Plan("Killed", "A report that is killed.", trainings, tables)
"""


def config(data: str, *, attack_steps: int = 2) -> ConfigDict:
    """STD and ADV in some steps on digits: little to compute, all files of a run."""
    made = configs.default()
    made.dataset.name, made.dataset.data_dir, made.dataset.image_size = "digits", data, 16
    made.model = {"name": "resnet8_small", "width": 4}
    made.batch_size, made.epochs, made.steps = 64, None, STEPS
    made.checkpoint.every_steps, made.checkpoint.keep = BETWEEN, 3
    attack = {"name": "pgd", "epsilon": 0.05, "steps": attack_steps}
    made.evaluation.batch_size, made.evaluation.attacks = 64, {"pgd": attack}
    made.runs = {"std": {}, "adv": {"attack": {"name": "fgsm", "epsilon": 0.05}}}
    return made


class _Heard(logging.Handler):
    """What is warned of meanwhile, in the library's log and on standard error."""

    def __enter__(self) -> "_Heard":
        self.said: list[str] = []
        logging.getLogger("jaxrobust").addHandler(self)
        self._error = contextlib.redirect_stderr(io.StringIO())
        self._error.__enter__()
        return self

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())

    def __exit__(self, *error: Any) -> None:
        self._error.__exit__(*error)
        logging.getLogger("jaxrobust").removeHandler(self)


def _weights(workdir: Path) -> str:
    """Of the networks that are loaded."""
    loaded = [checkpoints.load(folder).variables for folder in checkpoints.runs(workdir)]
    return digest(*map(np.asarray, jax.tree.leaves(loaded)))


def _study(work: Path) -> tuple[Any, str]:
    sources._count_records.cache_clear()  # of the same path before it was damaged
    results = study.run(config(str(work / "data")), work / "run")
    return results, _weights(work / "run")


def _resumed(work: Path) -> tuple[Any, str]:
    for folder in checkpoints.runs(work / "run"):
        shutil.rmtree(folder / "checkpoints" / str(STEPS))
        (folder / study.FINISHED).unlink()
    return _study(work)


# What is done with a run: with each, the folder is a copy of its own.
USES: dict[str, Callable[[Path], Any]] = {
    "loaded": lambda work: _weights(work / "run"),
    "again": _study,
    "resumed": _resumed,
}


def flips(count: int, seed: int, pattern: str, folder: Path) -> collections.Counter[str]:
    """Flip one bit at a time; how often which end was worst.

    Args:
      count: of flips.
      seed: of their places: a file of those that are not empty, a byte in it, a bit.
      pattern: of the files that are struck, as "*.json".
      folder: for all that is written.
    """
    whole, work = folder / "whole", folder / "work"

    def used(name: str, strike: tuple[Path, int, int] | None) -> tuple[Any, str]:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(whole, work)
        if strike is not None:
            _flip(work / strike[0], *strike[1:])
        with _Heard() as heard:
            try:
                end = USES[name](work)
            except (ValueError, OSError) as error:
                told = strike is not None and _names(str(error), strike[0])
                return f"{type(error).__name__}: {error}", f"{SAID if told else RAW}: {error}"
            except Exception as error:
                return RAW, f"{RAW}: {type(error).__name__}: {error}"
        named = [text for text in heard.said if strike is None or _names(text, strike[0])]
        return end, f"{SAID}: {named[0]}" if named else ""

    _tell("Training what is to be damaged.")
    shutil.rmtree(folder, ignore_errors=True)
    with _Heard():
        _study(work)
    work.rename(whole)  # the data's folder has a place of its own in config.json
    expected = {name: used(name, None)[0] for name in USES}
    if not expected["again"] == expected["resumed"]:
        raise ValueError(f"What is not damaged must end alike, got {expected}.")
    files = sorted(path for path in whole.rglob(pattern) if path.is_file() and path.stat().st_size)
    files = [path.relative_to(whole) for path in files]
    rng, found = random.Random(seed), collections.Counter[str]()
    for number in range(count):
        path = rng.choice(files)
        strike = path, rng.randrange((whole / path).stat().st_size), rng.randrange(8)
        ends = {name: used(name, strike) for name in USES}
        told = {name: _judged(end, expected[name], said) for name, (end, said) in ends.items()}
        worst = max(told.values(), key=lambda text: _ORDER.index(text.partition(":")[0]))
        found[worst.partition(":")[0]] += 1
        names = ", ".join(f"{name} {text.partition(':')[0]}" for name, text in told.items())
        place = f"{path}, byte {strike[1]}, bit {strike[2]}"
        _tell(f"{number + 1:3}  {place}: {names}\n     {worst.replace(str(work), '')[:200]}")
    return found


_ORDER = (SAME, f"{SAME}, and {SAID}", SAID, OTHER, RAW)


def _names(text: str, path: Path) -> bool:
    """Whether a sentence names a file, or the checkpoint or data set that it is a part of."""
    folders = [folder for folder in path.parents if folder.match("checkpoints/*")]
    folders += [folder for folder in path.parents if folder.match("data/*/*")]
    return any(str(part) in text for part in (path, *folders))


def _judged(end: Any, expected: Any, said: str) -> str:
    if said.startswith(RAW):
        return said
    if end == expected:
        return f"{SAME}, and {said}" if said else SAME
    return said or OTHER


def _flip(path: Path, byte: int, bit: int) -> None:
    """With the times as before: a disk that forgets leaves them."""
    times, content = path.stat(), bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _command(work: str, folder: Path, place: Path) -> list[str]:
    """What Python is started with for a kind of work in a folder; `place` holds what all share."""
    if work == "preparation":
        return ["-m", "jaxrobust.data.prepare", "digits", f"--data_dir={folder}"]
    if work == "stylisation":
        return ["-m", "jaxrobust.experiments.benchmarks.damage", "stylise", str(place), str(folder)]
    if work == "report":
        command = ["-m", "jaxrobust.experiments.paper", f"--config={place / 'plan.py'}"]
        return [*command, f"--out={folder / 'report'}", f"--runs={folder / 'runs'}"]
    workdir = f"--workdir={folder / 'run'}"
    return ["-m", "jaxrobust.main", f"--config={place / 'config.py'}", workdir]


def _end(work: str, folder: Path) -> dict[str, Any]:
    """What is left of a kind of work, and must not depend on kills."""
    if work in ("preparation", "stylisation"):
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        files = (path for path in files if path.suffix != ".lock")  # which names a process
        return {str(path.relative_to(folder)): _content(path) for path in files}
    runs = folder / "runs" if work == "report" else folder
    end = {"weights": _weights(runs / "run")}
    end["results"] = json.loads((runs / "run" / "results.json").read_text())
    if work == "report":
        end["claims"] = json.loads((folder / "report" / "claims.json").read_text())
    return end


def _content(path: Path) -> str:
    if ".array_record" not in path.name:
        return digest(path)
    # Of each record a map of features, which Protocol Buffers write in any order.
    records = ArrayRecordReader(str(path)).read_all()
    return digest([sorted(record) for record in records])


def kills(count: int, seed: int, works: Sequence[str], place: Path) -> collections.Counter[str]:
    """Kill each kind of work at random moments, in turns; how often which end followed.

    Args:
      count: of kills, over all works.
      seed: of moments and signals, SIGKILL or SIGTERM.
      works: of `WORKS`.
      place: for all that is written.
    """
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    prepare.prepare("digits", data_dir=str(place / "data"))
    (place / "config.py").write_text(_STUDY.format(data=str(place / "data")))
    (place / "plan.py").write_text(_PLAN.format(config=str(place / "config.py")))
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(place / "programs")}

    @contextlib.contextmanager
    def started(work: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, *_command(work, folder, place)]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(
            command, env=environment, text=True, start_new_session=True, **pipes
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def whole(work: str, folder: Path) -> tuple[float, str, int]:
        begun = time.monotonic()
        with started(work, folder) as process:
            output = process.communicate()[0]
        return time.monotonic() - begun, output, process.returncode

    def fresh(work: str, name: str) -> Path:
        folder = place / work / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if work == "evaluation":  # of what is trained
            shutil.copytree(place / "trained", folder, dirs_exist_ok=True)
        return folder

    def undisturbed(work: str) -> dict[str, Any]:
        folder = fresh(work, "undisturbed")
        _, output, code = whole(work, folder)
        if code:
            raise ValueError(f"{work} must end well without being killed, got {output[-500:]}.")
        return _end(work, folder)

    if "evaluation" in works:
        whole("training", place / "trained")
        for path in (place / "trained").rglob("*"):
            if path.name in (study.FINISHED, "results.json", "outcomes"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    rng, found = random.Random(seed), collections.Counter[str]()
    expected: dict[str, dict[str, Any]] = {}
    seconds: dict[str, float] = {}
    for number in range(count):
        work = works[number % len(works)]
        if work not in expected:
            expected[work] = undisturbed(work)
            seconds[work] = whole(work, fresh(work, "timed"))[0]  # programs are compiled by now
        folder, kind = fresh(work, "killed"), rng.choice((signal.SIGKILL, signal.SIGTERM))
        moment = rng.random() * seconds[work]
        with started(work, folder) as process:
            try:
                said = process.communicate(timeout=moment)[0]
            except subprocess.TimeoutExpired:
                (os.killpg if kind == signal.SIGKILL else os.kill)(process.pid, kind)
                said = process.communicate()[0]
        last = (said.strip().splitlines() or [""])[-1] if kind == signal.SIGTERM else ""
        _, output, code = whole(work, folder)
        same = code == 0 and _end(work, folder) == expected[work]
        told = SAME if same else f"ANOTHER END: exit {code}, {output[-300:]}"
        found[told.partition(":")[0]] += 1
        name = f"{work}, {kind.name} after {moment:.1f} of {seconds[work]:.1f} s"
        _tell(f"{number + 1:3}  {name}: {told}" + (f"\n     it said: {last[:200]}" if last else ""))
    return found


def stylise(place: Path, folder: Path) -> None:
    """A stylised copy by small networks of random weights."""
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((3, 3, 3, 8), np.float32) / 5
    layers = {"0": {"kernel": kernel, "bias": np.zeros(8, np.float32)}}
    encoder = Encoder(jax.tree.map(jax.numpy.asarray, layers), ("pad", "convolution", "relu"), (2,))
    encoder = Encoder({"1": encoder.parameters["0"]}, encoder.operations, (2,))
    decoder = stylization.mirrored_decoder(encoder, jax.random.key(0))
    source = DatasetConfig(name="digits", data_dir=str(place / "data"), image_size=32)
    stylization.stylize_dataset(
        encoder, decoder, source, stylization.StyleTextures(), folder / "copy", batch_size=8
    )


def _tell(text: str) -> None:
    print(text, flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxrobust.experiments.benchmarks.damage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{flips,kills}")
    for name, count in (("flips", 60), ("kills", 20)):
        command = commands.add_parser(name, help=f"{count} of them, unless --count says otherwise")
        add = command.add_argument
        add("--count", type=int, default=count, help="how many (default: %(default)s)")
        add("--seed", type=int, default=0, help="of what is random (default: %(default)s)")
        add("--folder", type=Path, help="for all that is written; it is emptied (default: none)")
        if name == "flips":
            add("--files", default="*", help="which are struck, as '*.json' (default: all)")
        else:
            add("--works", nargs="+", choices=WORKS, default=WORKS, help="(default: all)")
    hidden = commands.add_parser("stylise")
    hidden.add_argument("places", nargs=2, type=Path)
    arguments = parser.parse_args(argv)
    if arguments.command == "stylise":
        stylise(*arguments.places)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary) / "damage").absolute()
        count, seed = arguments.count, arguments.seed
        if arguments.command == "flips":
            found = flips(count, seed, arguments.files, folder)
        else:
            found = kills(count, seed, arguments.works, folder)
    for end, times in found.most_common():
        _tell(f"{times:4}  {end}")
    if set(found) - {SAME, SAID, f"{SAME}, and {SAID}"}:
        parser.exit(1)


if __name__ == "__main__":
    main()
