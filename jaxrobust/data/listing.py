"""What tells that files have changed, without reading them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from jaxrobust.core.digests import digest


def files_stamp(
    folder: str | os.PathLike[str], files: Iterable[str | os.PathLike[str]] | None = None
) -> str:
    """A digest of the names, sizes and times of change of files, not of what is in them.

    Args:
      folder: where they lie; their names are taken below it.
      files: which of them, in their order; None is all of them, also behind links.

    Raises:
      FileNotFoundError: when one of `files` is not there.

    Example:
      >>> import pathlib, tempfile
      >>> folder = pathlib.Path(tempfile.mkdtemp())
      >>> before = files_stamp(folder)
      >>> (folder / "picture.png").touch()
      >>> files_stamp(folder) == before
      False
    """
    lines = []
    for file in _below(folder) if files is None else files:
        status = os.stat(file)
        name = os.fsencode(os.path.relpath(file, folder))
        lines.append(name + f"\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest(*lines)


def _below(folder: str | os.PathLike[str]) -> Iterator[str]:
    seen: set[str] = set()  # a link may lead upwards
    for root, folders, names in os.walk(folder, followlinks=True):
        if os.path.realpath(root) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(root))
        folders.sort()
        paths = (os.path.join(root, name) for name in sorted(names))
        yield from (path for path in paths if os.path.exists(path))  # not links to nowhere
