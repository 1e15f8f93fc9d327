"""Callables as pytrees of arrays: what goes through `jit`, `vmap` and `grad` as an argument."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import numpy as np


class ArrayPytree:
    """Base of the callable pytrees whose leaves are all arrays: they go through jit as they are."""


class Static:
    """A value that is part of the program; unlike in Python, 1, 1.0 and True are three values."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: Any) -> bool:
        return type(self.value) is type(other.value) and self.value == other.value

    def __hash__(self) -> int:
        try:
            return hash((type(self.value), self.value))
        except TypeError as error:
            raise TypeError(
                f"what is no array is part of the program and must be hashable, got {self.value!r}."
            ) from error


def split_arrays(tree: Any) -> tuple[list, tuple]:
    """The arrays of a pytree, which are traced, and the rest of it, which is static."""
    leaves, structure = jax.tree.flatten(tree)
    arrays, static = [], []
    for leaf in leaves:
        is_array = isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)
        static.append(None if is_array else Static(leaf))
        if is_array:
            arrays.append(leaf)
        else:
            hash(static[-1])  # raises now, in a sentence
    return arrays, (structure, tuple(static))


def join_arrays(arrays: Any, rest: tuple) -> Any:
    """The pytree that `split_arrays` took apart."""
    structure, static = rest
    remaining = iter(arrays)
    return structure.unflatten([next(remaining) if leaf is None else leaf.value for leaf in static])


@flax.struct.dataclass(eq=False)
class Callee(ArrayPytree):
    """Any callable pytree, its arrays as leaves; put together anew wherever it is called.

    So it belongs to the trace in which it is called, which NNX modules insist on, and its flags and
    functions need not be arrays.
    """

    arrays: list
    rest: tuple = flax.struct.field(pytree_node=False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return join_arrays(self.arrays, self.rest)(*args, **kwargs)

    @property
    def kind(self) -> str:
        """What the callable is, for a sentence."""
        return type(join_arrays(self.arrays, self.rest)).__name__

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("arrays", "rest"):
            raise AttributeError(name)
        return getattr(join_arrays(self.arrays, self.rest), name)


def as_pytree(classifier: Callable) -> Callable:
    """The classifier as a callable pytree of arrays; all else of it is static.

    A plain Python function is static altogether: what it closes over is fixed when it is first
    traced, as for `jax.jit`.

    Raises:
      TypeError: when it cannot be called.
    """
    if not callable(classifier):
        raise TypeError(
            "classifier must be a function of one image that returns logits, "
            f"got a {type(classifier).__name__}."
        )
    if isinstance(classifier, ArrayPytree):
        return classifier
    return Callee(*split_arrays(classifier))
