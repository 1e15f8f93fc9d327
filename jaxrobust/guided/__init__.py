"""Guided backpropagation as a transformation of functions, for any JAX function.

`guided(fn)` has the values of `fn`, but where `fn` has a ReLU, its gradient passes only through
units whose input and whose incoming gradient are both positive (Springenberg et al. 2015; eq. 13-15
of the paper). No model has to cooperate and no ReLU can be forgotten: the function is traced, and
every `jax.nn.relu` in its program is exchanged.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any, Generic

import flax.struct
import jax
import jax.extend.core as jex
import jax.numpy as jnp

from jaxrobust.core.pytrees import ArrayPytree, as_pytree, join_arrays, split_arrays
from jaxrobust.core.types import Parameters, Result
from jaxrobust.guided.relus import Exchange


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


@flax.struct.dataclass(eq=False)
class Guided(ArrayPytree, Generic[Parameters, Result]):
    """What `guided` returns: a callable pytree around the function."""

    function: Any
    maximum_as_relu: bool = flax.struct.field(pytree_node=False)

    def __getattr__(self, name: str) -> Any:
        # What the function says of itself, its mean image for instance.
        if name.startswith("__") or name in ("function", "maximum_as_relu"):
            raise AttributeError(name)
        return getattr(self.function, name)

    def __call__(self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        """The function's value; its derivative is the guided one."""
        return _call(*split_arrays((self.function, args, kwargs)), self.maximum_as_relu)


def guided(
    fn: Callable[Parameters, Result], *, maximum_as_relu: bool = False
) -> Guided[Parameters, Result]:
    """The function whose ReLUs carry the rule of guided backpropagation; its values are unchanged.

    Every `jax.nn.relu` (Linen's and NNX's are the same function) is exchanged, also inside nested
    `jit`, `vmap`, `remat`, `scan` and `cond`. The result is a callable pytree: it goes through
    `jit`, `vmap` and reverse-mode `grad` in any order, and

        saliency.vanilla_gradient(guided(classifier), images, labels)

    is guided backpropagation. Apply it to the function, not to its gradient, in which the ReLUs'
    derivatives are taken already. A function with a derivative rule of its own (`jax.custom_vjp`,
    `jax.custom_jvp`) keeps that rule; a ReLU hidden inside one is left alone, with a warning.
    `relu6`, `leaky_relu`, `where(x > 0, x, 0)` and the like are no ReLUs here.

    Args:
      fn: any JAX function, pure as for `jax.jit`: what it closes over is fixed at its first use.
        Arrays among its arguments are traced, everything else stays Python.
      maximum_as_relu: also take every `max(x, 0)`, in either order of its arguments, for code that
        writes its ReLUs so. Off unless asked for: LayerNorm, GroupNorm and `jnp.clip` contain it
        too, and are wrong afterwards.

    Raises:
      TypeError: when `fn` cannot be called; in forward mode, which the rule does not have.
      ValueError: when it is called and has no ReLU, has one inside a `jax.shard_map` with
        `check_vma`, or changes itself, as NNX modules do in train mode.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> fn = lambda x: (jax.nn.relu(x) * jnp.array([1.0, -1.0, 1.0])).sum()
      >>> x = jnp.array([2.0, 2.0, -2.0])
      >>> jax.grad(fn)(x).tolist(), jax.grad(guided(fn))(x).tolist()
      ([1.0, -1.0, 0.0], [1.0, 0.0, 0.0])
    """
    if not isinstance(maximum_as_relu, bool):
        raise TypeError(f"maximum_as_relu must be True or False, got {maximum_as_relu!r}.")
    if isinstance(fn, Guided):
        return Guided(fn.function, fn.maximum_as_relu or maximum_as_relu)
    return Guided(as_pytree(fn), maximum_as_relu)


def count_relus(
    fn: Callable[..., Any], *args: Any, maximum_as_relu: bool = False, **kwargs: Any
) -> int:
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
    exchange = Exchange(guided_relu, maximum_as_relu)
    exchange.closed(_trace(*split_arrays((as_pytree(fn), args, kwargs)))[0])
    return exchange.count


def _trace(arrays: list, rest: tuple) -> tuple[jex.ClosedJaxpr, Any]:
    """The program of a call that `split_arrays` took apart, and the shapes of its result."""

    def call(*arrays):
        function, args, kwargs = join_arrays(arrays, rest)
        return function(*args, **kwargs)

    return jax.make_jaxpr(call, return_shape=True)(*arrays)


@functools.partial(jax.jit, static_argnums=(1, 2), inline=True)
def _call(arrays, rest, maximum_as_relu):
    closed, shapes = _trace(arrays, rest)
    exchange = Exchange(guided_relu, maximum_as_relu)
    program = exchange.closed(closed)
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
    if exchange.compared:
        warnings.warn(
            "the function compares the input of a ReLU with 0, as the gradient of a ReLU does: "
            "apply guided to the function itself, not to its gradient.",
            stacklevel=2,
        )
    results = jex.jaxpr_as_fun(program)(*arrays)
    return jax.tree.unflatten(jax.tree.structure(shapes), results)
