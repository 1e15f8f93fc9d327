"""One digest for whatever must be told apart."""

import hashlib
import json
from typing import Any


def digest(*parts: Any) -> str:
    """SHA-256, in hexadecimal digits, of bytes, texts and plain values.

    Example:
      >>> digest("a", [1, 2]) == digest("a", [1, 2]), digest("a", "b") == digest("ab")
      (True, False)
    """
    known = hashlib.sha256()
    for part in parts:
        content = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode()
        known.update(len(content).to_bytes(8, "little") + content)
    return known.hexdigest()
