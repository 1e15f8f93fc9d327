"""What tells whether two things are the same: a sha256 of what decides them, or a CRC-32."""

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np


def checksum(content: Any, begun: int = 0) -> str:
    """The CRC-32 of bytes, after those of which `begun` is the CRC-32, in hexadecimal.

    Against accidents, not malice, and the cheapest that there is.

    Example:
      >>> checksum(b"123456789")
      'cbf43926'
    """
    return f"{zlib.crc32(content, begun):08x}"


def digest(*parts: Any) -> str:
    """The sha256 of the parts, one after the other, in hexadecimal.

    Nothing stands between two parts: ("a", "b") is ("ab",). A list, which is one part, keeps its
    elements apart.

    Args:
      *parts: bytes and text (as UTF-8) as they are; arrays by their dtype, shape and numbers; a
        `Path` by the content of its file; all else as JSON, keys in order.

    Raises:
      OSError: when a file cannot be read.
      TypeError: for what JSON cannot hold.

    Example:
      >>> digest("ab", b"c") == hashlib.sha256(b"abc").hexdigest()
      True
      >>> digest({"steps": 3, "norm": "l2"}) == digest({"norm": "l2", "steps": 3})
      True
      >>> digest(np.zeros(2, np.int32)) == digest(np.zeros(2, np.float32))
      False
    """
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            with part.open("rb") as file:
                hashlib.file_digest(file, lambda: state)
        elif isinstance(part, np.ndarray | np.generic | jax.Array):
            array = np.asarray(part)
            state.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
        elif isinstance(part, bytes):
            state.update(part)
        else:
            text = part if isinstance(part, str) else json.dumps(part, sort_keys=True)
            state.update(text.encode())
    return state.hexdigest()
