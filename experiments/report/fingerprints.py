"""What a stage depends on, so that it is done again when that has changed, and only then."""

import ast
import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jaxrobust
from jaxrobust.data import prepare
from jaxrobust.training import checkpoints

_LIBRARY = Path(jaxrobust.__file__).parent
_EXPERIMENTS = Path(__file__).parents[1]
_LIBRARIES = ("jax", "flax", "matplotlib", "numpy")


def of_training(command: Sequence[str], config: str, started: Iterable[Path]) -> dict[str, Any]:
    """Of a study: what is asked for, and the trainings that it starts from."""
    return {
        "command": list(command),
        "config": digest([Path(config.partition(":")[0]), _LIBRARY / "training" / "config.py"]),
        "starts_from": [trainings(workdir) for workdir in started],
    }


def of_experiment(
    command: Sequence[str], module: str, workdirs: Sequence[Path] | None
) -> dict[str, Any]:
    """Of an experiment: its arguments, its trainings, its code and the library's.

    One without trainings (None) is on the data sets: which are prepared, and when they were.
    """
    return {
        "command": list(command),
        "code": digest([*_library_files(), *sources(module)]),
        "versions": {name: metadata.version(name) for name in _LIBRARIES},
        "trainings": {workdir.name: trainings(workdir) for workdir in workdirs or ()},
        "prepared": _prepared() if workdirs is None else None,
    }


def trainings(workdir: Path) -> dict[str, list[Any]]:
    """The checkpoints in a workdir: which there are, and when they were written."""
    found = {}
    for folder in checkpoints.runs(workdir) if workdir.is_dir() else ():
        step = checkpoints.newest_step(folder)
        if step is not None:
            written = (folder / "checkpoints" / str(step)).stat().st_mtime_ns
            name = str(folder.relative_to(workdir))
            found[name] = [step, written, digest([folder / "config.json"])]
    return dict(sorted(found.items()))


def _prepared() -> dict[str, int | None]:
    folders = prepare.prepared()
    return {name: folder and folder.stat().st_mtime_ns for name, folder in folders.items()}


def sources(module: str) -> list[Path]:
    """The files of `experiments` that an experiment consists of."""
    found: list[Path] = []
    waiting = [module]
    while waiting:
        path = _EXPERIMENTS / f"{waiting.pop()}.py"
        if path in found or not path.exists():
            continue
        found.append(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "experiments":
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                "experiments."
            ):
                waiting.append(str(node.module).split(".")[1])
    return sorted(found)


def digest(paths: Iterable[Path]) -> str:
    """Of the contents of files; one that is missing counts as empty."""
    result = hashlib.sha256()
    for path in paths:
        content = path.read_bytes() if path.is_file() else b""
        result.update(hashlib.sha256(content).digest())
    return result.hexdigest()


def as_text(fingerprint: dict[str, Any]) -> str:
    """In a form that can be compared and kept."""
    return hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()


@functools.cache
def _library_files() -> tuple[Path, ...]:
    return tuple(sorted(_LIBRARY.glob("**/*.py")))
