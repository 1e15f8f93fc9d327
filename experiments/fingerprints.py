"""What a stage depends on, so that it is done again when that has changed, and only then.

Code counts as what it does: neither comments nor docstrings do, but everything below does, of the
modules of the package that are imported, inside functions as well.
"""

import ast
import functools
import json
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import jaxrobust
from jaxrobust.core.digests import digest
from jaxrobust.data import prepare, sources
from jaxrobust.data.dataset_config import resolve
from jaxrobust.data.listing import files_stamp
from jaxrobust.training import checkpoints, study

_LIBRARIES = ("jax", "flax", "matplotlib", "numpy")


def trainings(workdir: Path) -> dict[str, dict[str, Any]]:
    """The newest checkpoints in a workdir: of which step, when and how made, and how evaluated."""
    known = {}
    for folder in checkpoints.runs(workdir) if workdir.is_dir() else ():
        step = checkpoints.newest_step(folder)
        if step is not None:
            known[str(folder.relative_to(workdir))] = {
                "step": step,
                "written": (folder / "checkpoints" / str(step)).stat().st_mtime_ns,
                "config": _of_file(folder / "config.json"),
                "evaluation": _of_file(folder / study.FINISHED),
            }
    return known


def _of_file(path: Path) -> str:
    return digest(path.read_bytes() if path.is_file() else b"")


def pictures(workdirs: Iterable[Path]) -> list[str]:
    """What tells that pictures that trainings are evaluated on have changed."""
    stamps = {}
    for folder in (folder for workdir in workdirs for folder in checkpoints.runs(workdir)):
        key = str(folder)
        try:
            settings = (checkpoints.read_config(folder) or {}).get("config", {}).get("dataset")
            key = json.dumps(settings, sort_keys=True)
            if settings is not None and key not in stamps:
                config, _ = resolve(ConfigDict(settings))
                stamps[key] = files_stamp(sources.folder(config, config.evaluation_split))
        except (ValueError, OSError) as error:  # the experiment will say so
            stamps[key] = str(error)
    return sorted(set(stamps.values()))


def prepared() -> dict[str, int | None]:
    """When the data sets that can be prepared were; None for those that are not."""
    folders = prepare.prepared()
    return {name: folder.stat().st_mtime_ns if folder else None for name, folder in folders.items()}


def versions() -> dict[str, str]:
    """Of the libraries that decide the figures."""
    return {name: metadata.version(name) for name in _LIBRARIES}


def code(module: str) -> str:
    """A digest of what a module does, with all that it imports of the package."""
    return digest(sorted(modules(module).items()))


def modules(module: str) -> dict[str, str]:
    """A module and those that it consists of: {name: digest of its code}."""
    digests: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = None if name in digests else _file(name)
        if path is not None:
            digests[name], imports = _parse(path.read_bytes())
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            for level, imported in imports:
                above = package.split(".")[: 1 - level or None] if level else []
                waiting += _with_packages(".".join([*above, imported]))
    return digests


def code_of_files(paths: Iterable[Path]) -> str:
    """A digest of what files do, without what they import; a missing file does nothing."""
    digests = [_parse(path.read_bytes())[0] if path.is_file() else "" for path in paths]
    return digest(digests)


def _with_packages(name: str) -> list[str]:
    """What is imported with a name: the module, if it is one of ours, and its packages."""
    if name == "jaxrobust":  # of which any public name may be used
        return [
            module for public in jaxrobust._ROOMS for module in _with_packages(f"{name}.{public}")
        ]
    parts = name.split(".")
    if parts[0] != "jaxrobust":
        return []
    # The package's public names stand for modules that lie in rooms.
    parts = [*jaxrobust._ROOMS.get(parts[1], "jaxrobust").split("."), *parts[1:]]
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]


def _file(module: str) -> Path | None:
    """Where a module lies; None for what is something else, as a function in a module."""
    _, *inside = module.split(".")
    for folder in jaxrobust.__path__:
        path = Path(folder, *inside)
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                return file
    return None


@functools.cache
def _parse(content: bytes) -> tuple[str, list[tuple[int, str]]]:
    """The digest of a file's code, and the names that it imports, each after its leading dots."""
    try:
        tree = _WhatRuns().visit(ast.parse(content))
    except (SyntaxError, ValueError):  # running it will say so
        return digest(content), []
    return digest(ast.dump(tree)), list(_imports(tree))


def _imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = f"{node.module}." if node.module else ""
            yield from ((node.level, start + alias.name) for alias in node.names)


class _WhatRuns(ast.NodeTransformer):
    """Code without docstrings and without what only type checkers read."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else node

    def visit_If(self, node: ast.If) -> Any:
        self.generic_visit(node)
        for_types = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return node.orelse if for_types else node
