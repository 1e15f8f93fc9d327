"""The ReLUs of a traced program: found, counted, exchanged for another function of their values."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np

# With a rule of their own: what is inside is not what is differentiated.
_HIDING = ("custom_jvp_call", "custom_vjp_call", "custom_vmap_call", "pallas_call")
# Whose arguments are, in order, those of the program that they call.
_CALLS = ("jit", "pjit", "closed_call", "remat2", "checkpoint")
_STILL_ZERO = ("broadcast_in_dim", "convert_element_type", "reshape", "copy", "pvary")


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


class Exchange:
    """Exchanges the ReLUs of a program, equation by equation; everything else is left as it is.

    Args:
      replacement: what takes a ReLU's place, a `jax.custom_vjp` or `jax.custom_jvp` function.
      maximum_as_relu: whether a maximum of something and 0 is a ReLU too.

    Attributes:
      count: of ReLUs exchanged.
      kept: of those that a rule of derivatives hides.
      compared: whether the input of a ReLU is also compared with 0, as its derivative does.
    """

    def __init__(self, replacement: Callable, maximum_as_relu: bool = False):
        self.replacement = replacement
        self.maximum_as_relu = maximum_as_relu
        self.count = 0
        self.kept = 0
        self.compared = False
        # A function that is called in several places is one object in the program, and stays one.
        self._done: dict[tuple, tuple[jex.Jaxpr, int, int, Any]] = {}

    def closed(self, closed: jex.ClosedJaxpr, zeros: tuple[bool, ...] = ()) -> jex.ClosedJaxpr:
        """A program with its constants; the very same when it has no ReLU.

        Args:
          closed: the program.
          zeros: which inputs are known to be 0.
        """
        known = set()
        if self.maximum_as_relu:
            pairs = zip(closed.jaxpr.constvars, closed.consts, strict=True)
            known = {variable for variable, value in pairs if _is_zero_array(value)}
        program = self.program(closed.jaxpr, zeros, known)
        return closed if program is closed.jaxpr else jex.ClosedJaxpr(program, closed.consts)

    def program(
        self, program: jex.Jaxpr, zeros: tuple[bool, ...] = (), constants: Any = frozenset()
    ) -> jex.Jaxpr:
        """A program, of whose inputs and constants some are known to be 0."""
        known = {v for v, zero in zip(program.invars, zeros, strict=False) if zero} | set(constants)
        place = (id(program), tuple(v in known for v in (*program.constvars, *program.invars)))
        if place not in self._done:
            count, kept = self.count, self.kept
            equations = [self.equation(equation, known) for equation in program.eqns]
            changed = any(new is not old for new, old in zip(equations, program.eqns, strict=True))
            result = program.replace(eqns=equations) if changed else program
            self.compared |= _compares_inputs(program)
            # The last keeps the id taken.
            self._done[place] = (result, self.count - count, self.kept - kept, program)
            return result
        result, count, kept, _ = self._done[place]
        self.count += count
        self.kept += kept
        return result

    def equation(self, equation: jex.JaxprEqn, known: set | None = None) -> jex.JaxprEqn:
        """One equation; `known`, the variables that are 0, grows by what it gives."""
        known = set() if known is None else known
        name = equation.primitive.name
        zeros = tuple(_is_zero(atom, known) for atom in equation.invars)
        if name in _STILL_ZERO and zeros[0]:
            known.update(equation.outvars)
        if is_relu(equation):
            return self._exchanged(equation, equation.invars[0])
        if name == "max" and self.maximum_as_relu and zeros[0] != zeros[1]:
            other: Any = equation.invars[1 if zeros[0] else 0]
            result: Any = equation.outvars[0].aval
            if other.aval.shape == result.shape and jnp.issubdtype(result.dtype, jnp.floating):
                return self._exchanged(equation, other)
        if name in _HIDING:
            hidden = Exchange(self.replacement, self.maximum_as_relu)
            for value in equation.params.values():
                hidden._parameter(value, ())
            self.kept += hidden.count + hidden.kept
            return equation
        before = self.count
        passed = zeros if name in _CALLS else zeros[1:] if name == "cond" else ()
        params = {key: self._parameter(value, passed) for key, value in equation.params.items()}
        if all(params[key] is value for key, value in equation.params.items()):
            return equation
        if name == "shard_map" and params.get("check_vma") and self.count > before:
            raise ValueError(
                "ReLUs inside jax.shard_map can be exchanged only with check_vma=False, or by "
                "applying guided to the function that shard_map is given."
            )
        return equation.replace(params=params)

    def _parameter(self, value: Any, zeros: tuple[bool, ...]) -> Any:
        if isinstance(value, jex.Jaxpr):
            return self.program(value, zeros)
        if isinstance(value, jex.ClosedJaxpr):
            return self.closed(value, zeros)
        if type(value) in (tuple, list):
            parts = [self._parameter(part, zeros) for part in value]
            same = all(new is old for new, old in zip(parts, value, strict=True))
            return value if same else type(value)(parts)
        return value

    def _exchanged(self, equation: jex.JaxprEqn, operand: Any) -> jex.JaxprEqn:
        self.count += 1
        (template,) = jax.make_jaxpr(self.replacement)(operand.aval).eqns
        return template.replace(
            invars=[operand],
            outvars=equation.outvars,
            source_info=equation.source_info,
            ctx=equation.ctx,
        )


def _is_zero(atom: Any, known: set) -> bool:
    if isinstance(atom, jex.Literal):
        return np.ndim(atom.val) == 0 and bool(atom.val == 0)
    return atom in known


def _is_zero_array(value: Any) -> bool:
    concrete = isinstance(value, np.ndarray | jax.Array) and not isinstance(value, jax.core.Tracer)
    return concrete and jnp.issubdtype(value.dtype, jnp.number) and not np.any(np.asarray(value))


def _compares_inputs(program: jex.Jaxpr) -> bool:
    """Whether the input of a ReLU is also compared with 0 and decides what is passed on."""
    inputs = {id(equation.invars[0]) for equation in program.eqns if is_relu(equation)}
    passes = {
        id(equation.outvars[0])
        for equation in program.eqns
        if equation.primitive.name == "gt"
        and id(equation.invars[0]) in inputs
        and _is_zero(equation.invars[1], set())
    }
    return any(
        equation.primitive.name == "select_n" and id(equation.invars[0]) in passes
        for equation in program.eqns
    )
