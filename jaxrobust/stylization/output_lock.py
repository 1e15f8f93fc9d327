"""One copy at a time into one place."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def hold(path: Path) -> Generator[None]:
    """Holds the lock of a file, which is made, and removed at the end.

    The lock ends with the process, however that ends; a file that a killed one left does no harm.
    Where the system or the file system knows no locks, nothing is held.

    Raises:
        ValueError: When another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = None
    while fcntl is not None and descriptor is None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ValueError(
                f"output must not be written by two copies at once, but another holds {path}."
            ) from None
        except OSError:  # a file system without locks
            break
        # The one who held it may have removed the file between the two calls.
        if not (path.exists() and os.path.samestat(os.fstat(descriptor), path.stat())):
            os.close(descriptor)
            descriptor = None
    try:
        yield
    finally:
        if descriptor is not None:
            path.unlink(missing_ok=True)
            os.close(descriptor)
