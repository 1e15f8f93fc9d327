"""Files that are whole or not there."""

import contextlib
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from jaxrobust.core import digests

# The key of a JSON object under which stands the CRC-32 of all the others.
_SEAL = "crc32"


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
def alone(lock: str | os.PathLike[str], doing: str, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock: a file, whose folder is made. It ends with the process, however that ends.

    Args:
      lock: path of the file, which stays and names the process that held it last.
      doing: what is done under it, as "trains in runs/std"; standard error says which process does
        so while it is waited for.
      wait: whether to wait for another process that holds it.

    Raises:
      ValueError: when another process holds it and is not waited for.
    """
    path = Path(lock)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Read first: some versions of filelock empty the file by trying.
    names = path.read_text(errors="replace").splitlines() if path.is_file() else []
    other = f"{names[0] if names else 'Another process'} {doing}"
    file = FileLock(lock)
    try:
        held = file.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise ValueError(f"{other}: only one may at a time.") from None
        print(f"{other}: waiting for it to end.", file=sys.stderr, flush=True)
        held = file.acquire()
    with held:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        with contextlib.suppress(OSError):  # a name is a help, no more
            path.write_text(f"Process {os.getpid()} on {platform.node()}, since {since},\n")
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
    """Write JSON as `written_whole` does, an object with the checksum by which damage is noticed.

    Args:
      path: of the file; its folder is made.
      content: what `json` can write; NaN and infinity become null, which every reader knows.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "figure" / "settings.json"
      >>> write_json(path, {"steps": 3, "loss": float("nan")})
      >>> json.loads(path.read_text())
      {'steps': 3, 'loss': None, 'crc32': 'c97a5fb0'}
      >>> read_json(path, steps=int)
      {'steps': 3, 'loss': None}
    """
    write_text(path, json.dumps(_sealed(content), indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path, **kinds: type) -> dict[str, Any]:
    """The object in a file of JSON, without its checksum; one without a checksum is taken as it is.

    Args:
      path: of the file.
      kinds: keys that it must have, and the type of each.

    Raises:
      FileNotFoundError: when there is none.
      ValueError: when it is damaged or holds something else; the sentence names it.
    """
    return _opened(Path(path).read_bytes(), str(path), kinds)


def read_note(path: str | Path, **kinds: type) -> dict[str, Any] | None:
    """As `read_json`, of what can be made anew.

    Returns:
      None when there is nothing, or when it is damaged, which a warning says.
    """
    try:
        return read_json(path, **kinds)
    except FileNotFoundError:
        return None
    except ValueError as error:
        logging.getLogger("jaxrobust").warning("%s It is left out and made anew.", error)
        return None


def json_line(content: dict[str, Any]) -> str:
    """An object as one line of a log, with its checksum and without a newline."""
    return json.dumps(_sealed(content))


def read_log(path: str | Path, **kinds: type) -> list[dict[str, Any]]:
    """The objects in the complete lines of a log; the damaged ones are left out, with a warning.

    Args:
      path: of the file; one that does not exist has no lines.
      kinds: as of `read_json`, for each line.
    """
    objects, damaged = [], []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            objects.append(_opened(line, f"Line {number} of {path}", kinds))
        except ValueError as error:
            damaged.append(error)
    if damaged:
        logging.getLogger("jaxrobust").warning(
            "%s %d of its lines are damaged and left out.", damaged[0], len(damaged)
        )
    return objects


def _sealed(content: Any) -> Any:
    content = _finite(content)
    if not isinstance(content, dict):
        return content
    content = {key: value for key, value in content.items() if key != _SEAL}
    return content | {_SEAL: _checksum(json.loads(json.dumps(content)))}


def _opened(text: str | bytes, name: str, kinds: dict[str, type]) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # no JSON, or no UTF-8
        raise ValueError(
            f"{name} must hold an object in JSON, got something else: {error}."
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{name} must hold an object in JSON, got {type(content).__name__}.")
    seal = content.pop(_SEAL, None)
    if seal is not None and seal != _checksum(content):
        raise ValueError(
            f"{name} must hold what was written there, but its {_SEAL} is of something else: it is "
            "damaged, or was edited without removing that key."
        )
    for key, kind in kinds.items():
        value = content.get(key)
        if not isinstance(value, kind):
            got = type(value).__name__ if key in content else "none"
            raise ValueError(f"{name} must hold {key} of type {kind.__name__}, got {got}.")
    return content


def _checksum(content: dict[str, Any]) -> str:
    return digests.checksum(json.dumps(content, sort_keys=True).encode())


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, float) and content - content != 0:
        return None
    return content
