"""Files that are whole or not there."""

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file beside its place and rename it at the end: a reader never sees half of it.

    Args:
      path: of the file; its folder is made.

    Yields:
      the path to write to. What fails leaves the file as it was and nothing beside it; what a
      killed process leaves there is overwritten by the next one.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "figure" / "map.bin"
      >>> with written_whole(path) as temporary:
      ...     size = temporary.write_bytes(b"12345678")
      >>> path.read_bytes(), [file.name for file in path.parent.iterdir()]
      (b'12345678', ['map.bin'])
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def alone(lock: str | os.PathLike[str], waiting: str) -> Iterator[None]:
    """Hold a lock: a file, whose folder is made. Another process that holds it is waited for.

    Args:
      lock: path of the file, which stays.
      waiting: what is said, on standard error, while another process holds it.
    """
    Path(lock).parent.mkdir(parents=True, exist_ok=True)
    file = FileLock(lock)
    try:
        held = file.acquire(timeout=0)
    except Timeout:
        print(waiting, file=sys.stderr, flush=True)
        held = file.acquire()
    with held:
        yield


def write_text(path: str | Path, text: str) -> None:
    """Write all of a text, in UTF-8, as `written_whole` does."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_lines(path: str | Path, lines: Iterable[str]) -> None:
    """Write lines, each with a newline at its end, as `written_whole` does."""
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_lines(path: str | Path) -> list[str]:
    """The complete lines of a file: without the half line that a killed writer may leave.

    What is no UTF-8 is replaced; a file that does not exist has no lines.
    """
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return text.split("\n")[:-1]


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON as `written_whole` does.

    Args:
      path: of the file; its folder is made.
      content: what `json` can write; NaN and infinity become null, which every reader knows.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "figure" / "settings.json"
      >>> write_json(path, {"steps": 3, "loss": float("nan")})
      >>> json.loads(path.read_text())
      {'steps': 3, 'loss': None}
    """
    write_text(path, json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """The settings in a file.

    Raises:
      ValueError: when it holds something else.
    """
    try:
        settings = json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(
            f"{path} must hold settings as JSON, got something else: {error}."
        ) from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} must hold settings as JSON, got a {type(settings).__name__}.")
    return settings


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, float) and content - content != 0:
        return None
    return content
