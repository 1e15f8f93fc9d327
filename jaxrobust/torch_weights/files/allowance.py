"""How much may be made of a file: a small multiple of its size, however it asks for more."""

from typing import Any

import numpy as np

from jaxrobust.torch_weights.files.names import ProblemError

_TIMES, _SPARE = 8, 1 << 20
_TEXTS = str | bytes | bytearray
_CONTAINERS = list | tuple | dict | set | frozenset
# Of a key, with those of the tuples in it.
_KEY_PARTS = 100


class Allowance:
    """What is still left of it, in bytes.

    A pickle gives an object a number and uses it as often as it likes, and a tensor may repeat its
    data: a few bytes could ask for copies without end. Copies are counted here, and tensors by
    their elements, as whoever works with them goes through all of these.

    Args:
      size: of the file, in bytes.
    """

    def __init__(self, size: int):
        self.size, self._left = size, _TIMES * size + _SPARE

    def spend(self, amount: int) -> None:
        """Count what is made, in bytes, before or right after.

        Raises:
          ProblemError: when it is too much.
        """
        self._left -= amount
        if self._left < 0:
            raise ProblemError(
                f"is refused: it has {self.size} bytes, and what it is to become is more than "
                f"{_TIMES} times as large as the file, expected about the same"
            )

    def spend_on_copies(self, arguments: tuple) -> None:
        """Count what a constructor may copy of its arguments."""
        self.spend(8 * len(arguments) + sum(map(_copied, arguments)))

    def spend_on_array(self, made: Any) -> None:
        """Count the elements of what is an array."""
        if isinstance(made, np.ndarray):
            self.spend(made.nbytes)


def _copied(value: Any) -> int:
    if isinstance(value, _TEXTS):
        return len(value)
    return 32 * len(value) if isinstance(value, _CONTAINERS) else 0


def check_key(key: Any) -> Any:
    """The key of a dict or element of a set, after looking at how long it takes to hash.

    The hash of a tuple is computed anew each time; a tuple of a tuple twice, of a tuple twice, … is
    short in a file and takes for ever.

    Raises:
      ValueError: when it has too many parts.
    """
    parts = [key]
    for _ in range(_KEY_PARTS):
        if not parts:
            return key
        part = parts.pop()
        if isinstance(part, tuple | frozenset):
            parts += list(part)[:_KEY_PARTS]
    raise ValueError(f"a key of more than {_KEY_PARTS} parts, expected a name or number")
