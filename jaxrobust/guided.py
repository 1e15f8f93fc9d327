"""Guided backpropagation as a transformation of functions, for any JAX function.

`guided(fn)` has the values of `fn`, but where `fn` has a ReLU, its gradient passes only through
units whose input and whose incoming gradient are both positive (Springenberg et al. 2015; eq. 13-15
of the paper). No model has to cooperate and no ReLU can be forgotten: the function is traced, and
every `jax.nn.relu` in its program is exchanged.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np

from jaxrobust.batching import as_pytree


@jax.custom_vjp
def guided_relu(x: jax.Array) -> jax.Array:
    """max(x, 0), whose gradient passes only where it and `x` are positive (eq. 15).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> x, incoming = jnp.array([-1.0, 2.0, 3.0]), jnp.array([5.0, 5.0, -5.0])
      >>> value, gradient = jax.vjp(guided_relu, x)
      >>> value.tolist(), gradient(incoming)[0].tolist()
      ([0.0, 2.0, 3.0], [0.0, 5.0, 0.0])
    """
    return jnp.maximum(x, 0)


def _forward(x):
    return guided_relu(x), x


def _backward(x, gradient):
    return (jnp.where((x > 0) & (gradient > 0), gradient, 0),)


guided_relu.defvjp(_forward, _backward)


@flax.struct.dataclass
class Guided:
    """What `guided` returns: a callable pytree around the function."""

    function: Any
    maximum_as_relu: bool = flax.struct.field(pytree_node=False)

    @property
    def mean(self) -> Any:
        """What the function says of its mean image, as `Classifier.mean`."""
        return self.function.mean

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function's value; its derivative is the guided one."""
        return _call(*_split((self.function, args, kwargs)), self.maximum_as_relu)


def guided(fn: Callable, *, maximum_as_relu: bool = False) -> Guided:
    """The function whose ReLUs carry the rule of guided backpropagation; its values are unchanged.

    Every `jax.nn.relu` (Linen's and NNX's are the same function) is exchanged, also inside nested
    `jit`, `vmap`, `remat`, `scan` and `cond`. The result is a callable pytree: it goes through
    `jit`, `vmap` and reverse-mode `grad` in any order, and

        saliency.vanilla_gradient(guided(classifier), images, labels)

    is guided backpropagation. Apply it to the function, not to its gradient: there the ReLUs are
    gone. A function with a derivative rule of its own (`jax.custom_vjp`, `jax.custom_jvp`) keeps
    that rule; a ReLU hidden inside one is left alone, with a warning.

    Args:
      fn: any JAX function. Arrays among its arguments are traced, everything else stays Python.
      maximum_as_relu: also take every `max(x, 0)`, in either order of its arguments, for code that
        writes its ReLUs so. Off unless asked for: LayerNorm, GroupNorm and `jnp.clip` contain it
        too, and are wrong afterwards.

    Raises:
      TypeError: when `fn` cannot be called.
      ValueError: when it is called and has no ReLU.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> fn = lambda x: (jax.nn.relu(x) * jnp.array([1.0, -1.0, 1.0])).sum()
      >>> x = jnp.array([2.0, 2.0, -2.0])
      >>> jax.grad(fn)(x).tolist(), jax.grad(guided(fn))(x).tolist()
      ([1.0, -1.0, 0.0], [1.0, 0.0, 0.0])
    """
    if isinstance(fn, Guided):
        return Guided(fn.function, fn.maximum_as_relu or maximum_as_relu)
    return Guided(as_pytree(fn), maximum_as_relu)


def count_relus(fn: Callable, *args: Any, maximum_as_relu: bool = False, **kwargs: Any) -> int:
    """How many ReLUs `guided` exchanges in the program of `fn(*args, **kwargs)`; nothing is run.

    One inside a `scan` stands once in the program and counts once.

    Args:
      fn: any JAX function.
      *args: its arguments; `jax.ShapeDtypeStruct` will do.
      maximum_as_relu: as for `guided`.
      **kwargs: its keyword arguments.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> count_relus(lambda x: jax.nn.relu(jax.nn.relu(x) - 1.0), jnp.ones(3))
      2
    """
    exchange = _Exchange(maximum_as_relu)
    arrays, static = _split((as_pytree(fn), args, kwargs))
    exchange.jaxpr(_trace(arrays, static)[0].jaxpr)
    return exchange.count


def is_relu(equation: jex.JaxprEqn) -> bool:
    """Whether an equation of a traced program is a `jax.nn.relu`."""
    if equation.primitive.name != "custom_jvp_call":
        return False
    # Not by name alone: somebody's own `relu` with somebody's own rule keeps that rule.
    return _origin(equation) == _relu_origin()


def _origin(equation) -> str | None:
    return equation.params["call_jaxpr"].jaxpr.debug_info.func_src_info


@functools.cache
def _relu_origin() -> str | None:
    (equation,) = jax.make_jaxpr(jax.nn.relu)(0.0).eqns
    return _origin(equation)


class _Static:
    """An argument that is no array, part of the program: 1, 1.0 and True are three programs."""

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return type(self.value) is type(other.value) and self.value == other.value

    def __hash__(self):
        return hash((type(self.value), self.value))


def _split(tree: Any) -> tuple[list, tuple]:
    leaves, structure = jax.tree.flatten(tree)
    is_array = [
        isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)
        for leaf in leaves
    ]
    arrays = [leaf for leaf, array in zip(leaves, is_array, strict=True) if array]
    static = [
        None if array else _Static(leaf) for leaf, array in zip(leaves, is_array, strict=True)
    ]
    return arrays, (structure, tuple(static))


def _trace(arrays: list, static: tuple) -> tuple[jex.ClosedJaxpr, Any]:
    """The program of a call that `_split` took apart, and the shapes of its result."""

    def call(*arrays):
        structure, others = static
        rest = iter(arrays)
        leaves = [next(rest) if other is None else other.value for other in others]
        function, args, kwargs = structure.unflatten(leaves)
        return function(*args, **kwargs)

    return jax.make_jaxpr(call, return_shape=True)(*arrays)


@functools.partial(jax.jit, static_argnums=(1, 2), inline=True)
def _call(arrays, static, maximum_as_relu):
    closed, shapes = _trace(arrays, static)
    exchange = _Exchange(maximum_as_relu)
    program = exchange.jaxpr(closed.jaxpr)
    if exchange.count == 0:
        raise ValueError(
            "the function has no jax.nn.relu to which guided backpropagation could apply"
            + (f" ({exchange.kept} under derivative rules of their own)" if exchange.kept else "")
            + (
                "."
                if maximum_as_relu
                else "; if it writes its ReLU as max(x, 0), pass maximum_as_relu=True."
            )
        )
    if exchange.kept:
        warnings.warn(
            f"{exchange.kept} ReLU inside functions with a derivative rule of their own (custom_vjp"
            " or custom_jvp) kept that rule; the other ones are guided.",
            stacklevel=2,
        )
    results = jex.jaxpr_as_fun(jex.ClosedJaxpr(program, closed.consts))(*arrays)
    return jax.tree.unflatten(jax.tree.structure(shapes), results)


class _Exchange:
    """Exchanges the ReLUs of a program, equation by equation; everything else is left as it is."""

    def __init__(self, maximum_as_relu: bool):
        self.maximum_as_relu = maximum_as_relu
        self.count = 0
        self.kept = 0  # under a rule that they are hidden by
        # A function that is called in several places is one object in the program, and stays one.
        self.done: dict[tuple, tuple[jex.Jaxpr, int, int, Any]] = {}

    def jaxpr(self, jaxpr: jex.Jaxpr, zeros: tuple[bool, ...] = ()) -> jex.Jaxpr:
        """The program with its ReLUs exchanged; `zeros` says which inputs are known to be 0."""
        known = {v for v, zero in zip(jaxpr.invars, zeros, strict=False) if zero}
        place = (id(jaxpr), tuple(v in known for v in jaxpr.invars))
        if place not in self.done:
            before = self.count, self.kept
            equations = [self.equation(equation, known) for equation in jaxpr.eqns]
            changed = any(new is not old for new, old in zip(equations, jaxpr.eqns, strict=True))
            result = jaxpr.replace(eqns=equations) if changed else jaxpr
            found = self.count - before[0], self.kept - before[1]
            self.done[place] = (result, *found, jaxpr)  # the last keeps its id taken
            return result
        result, count, kept, _ = self.done[place]
        self.count += count
        self.kept += kept
        return result

    def equation(self, equation: jex.JaxprEqn, known: set) -> jex.JaxprEqn:
        name = equation.primitive.name
        zeros = tuple(self.is_zero(atom, known) for atom in equation.invars)
        if name in ("broadcast_in_dim", "convert_element_type", "reshape", "copy") and zeros[0]:
            known.update(equation.outvars)
        if is_relu(equation):
            return self.guided(equation, equation.invars[0])
        if name == "max" and self.maximum_as_relu and zeros[0] != zeros[1]:
            other: Any = equation.invars[1 if zeros[0] else 0]
            result: Any = equation.outvars[0].aval
            if other.aval.shape == result.shape and jnp.issubdtype(result.dtype, jnp.floating):
                return self.guided(equation, other)
        if name in ("custom_jvp_call", "custom_vjp_call", "pallas_call"):
            hidden = _Exchange(self.maximum_as_relu)
            for part in _programs(equation.params):
                hidden.jaxpr(part)
            self.kept += hidden.count + hidden.kept
            return equation
        # Only a called function has its arguments in the equation's order.
        passed = zeros if name in ("jit", "pjit", "closed_call", "remat2", "checkpoint") else ()
        params = {key: self.parameter(value, passed) for key, value in equation.params.items()}
        if all(params[key] is value for key, value in equation.params.items()):
            return equation
        return equation.replace(params=params)

    def parameter(self, value: Any, zeros: tuple[bool, ...]) -> Any:
        if isinstance(value, jex.Jaxpr):
            return self.jaxpr(value, zeros)
        if isinstance(value, jex.ClosedJaxpr):
            program = self.jaxpr(value.jaxpr, zeros)
            return value if program is value.jaxpr else jex.ClosedJaxpr(program, value.consts)
        if type(value) in (tuple, list) and any(_is_program(part) for part in value):
            parts = [self.parameter(part, zeros) for part in value]
            same = all(new is old for new, old in zip(parts, value, strict=True))
            return value if same else type(value)(parts)
        return value

    def guided(self, equation: jex.JaxprEqn, operand: Any) -> jex.JaxprEqn:
        self.count += 1
        (template,) = jax.make_jaxpr(guided_relu)(operand.aval).eqns
        return template.replace(
            invars=[operand],
            outvars=equation.outvars,
            source_info=equation.source_info,
            ctx=equation.ctx,
        )

    def is_zero(self, atom: Any, known: set) -> bool:
        if isinstance(atom, jex.Literal):
            return np.ndim(atom.val) == 0 and bool(atom.val == 0)
        return atom in known


def _is_program(value: Any) -> bool:
    return isinstance(value, jex.Jaxpr | jex.ClosedJaxpr)


def _programs(params: dict) -> list[jex.Jaxpr]:
    found = [value for value in params.values() if _is_program(value)]
    return [value.jaxpr if isinstance(value, jex.ClosedJaxpr) else value for value in found]
