"""Callables as pytrees of arrays: what goes through `jit`, `vmap` and `grad` as an argument."""

import operator
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


def is_array(leaf: Any) -> bool:
    """Whether a leaf has numbers, or at least their shape, and is no number of Python's."""
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)


def split_arrays(tree: Any) -> tuple[list, tuple]:
    """The arrays of a pytree, which are traced, and the rest of it, which is static."""
    leaves, structure = jax.tree.flatten(tree)
    arrays, static = [], []
    for leaf in leaves:
        static.append(None if is_array(leaf) else Static(leaf))
        if is_array(leaf):
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
class Parts(ArrayPytree):
    """Any pytree, its arrays as leaves; put together anew wherever it is used.

    So it belongs to the trace in which it is used, which NNX modules insist on, and its flags and
    functions need not be arrays.
    """

    arrays: list
    rest: tuple = flax.struct.field(pytree_node=False)

    def use(self, function: Callable, *args: Any, **kwargs: Any) -> Any:
        """`function(the pytree, *args, **kwargs)`, which must leave the pytree as it is.

        Raises:
          ValueError: when it has changed an array, as NNX modules in train mode do: that would be
            lost, and the next call begin as this one.
        """
        whole = join_arrays(self.arrays, self.rest)
        output = function(whole, *args, **kwargs)
        before = jax.tree.leaves(join_arrays(self.arrays, self.rest))
        after = jax.tree.leaves(whole)
        same = len(before) == len(after) and all(map(operator.is_, before, after))
        changed = [] if same else self._changed(function, *args, **kwargs)
        if changed:
            raise ValueError(
                "classifier must stay as it is when it is called, but a call has changed "
                f"{changed[0]} of this {type(whole).__name__}: switch it to inference first "
                "(an NNX module by its eval())."
            )
        return output

    def _changed(self, function: Callable, *args: Any, **kwargs: Any) -> list[str]:
        """Which arrays a call changes; those that it only hands through a jit are others as well.

        What it adds is something noted on the way, and changes nothing.
        """
        paths: list[str] = []

        def arrays_after(arrays):
            whole = join_arrays(arrays, self.rest)
            function(whole, *args, **kwargs)
            now = dict(jax.tree.leaves_with_path(whole))
            before = jax.tree.leaves_with_path(join_arrays(arrays, self.rest))
            traced = [(path, leaf) for path, leaf in before if is_array(leaf)]
            paths[:] = [jax.tree_util.keystr(path) for path, _ in traced]
            return [now.get(path, leaf) for path, leaf in traced]

        program = jax.make_jaxpr(arrays_after)(self.arrays).jaxpr
        ends = zip(paths, program.invars, program.outvars, strict=True)
        return [path for path, start, end in ends if _origin(program, end) is not start]


def _origin(program: Any, value: Any) -> Any:
    """What a value of a program (a jaxpr) is, before the calls that only hand it through."""
    for equation in program.eqns:
        inner = equation.params.get("jaxpr")
        inner = getattr(inner, "jaxpr", inner)
        if inner is None or len(inner.invars) != len(equation.invars):
            continue
        for given, result in zip(equation.outvars, inner.outvars, strict=False):
            if given is value:
                start = _origin(inner, result)
                for argument, parameter in zip(equation.invars, inner.invars, strict=True):
                    if start is parameter:
                        return _origin(program, argument)
    return value


@flax.struct.dataclass(eq=False)
class Callee(Parts):
    """Any callable pytree as a callable pytree of arrays."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.use(lambda whole: whole(*args, **kwargs))

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
