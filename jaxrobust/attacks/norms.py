"""Norm balls that bound a perturbation: project, sample and the steepest step, for one image.

A perturbation has the shape of its image. Attacks need three things of a ball, and every ball here
offers the same three, so that one loop serves all of them. Radii are in pixel units, that is, in
the units of images in [0, 1].
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxrobust.core.named import check_choice

# Bisections run on float32 numbers: after 40 halvings nothing is left to halve.
_BISECTION_STEPS = 40
# The share of the coordinates that one l_1 step moves: the 99th percentile of Tramèr & Boneh.
_L1_STEP_SHARE = 0.01


@dataclasses.dataclass(frozen=True)
class Norm:
    """A norm and what an attack needs of its balls.

    Attributes:
      name: "linf", "l2" or "l1".
      measure: `measure(delta)` is the norm, a scalar.
      project: `project(delta, epsilon, lower=-inf, upper=inf)` is the point nearest to `delta` (in
        the Euclidean sense) in the intersection of the ball of radius `epsilon` and the box
        `lower <= delta <= upper`. The box must contain 0. Projecting onto the ball first and the
        box second would stay inside both but is not the nearest point, and an attack built on it
        stops short of the optimum.
      sample: `sample(key, shape, epsilon)` is uniform in the ball.
      steepest: `steepest(gradient, movable)` is the step of norm 1 that raises a function of
        this gradient the most; `movable` (bool, the gradient's shape) says which coordinates the
        box does not stop. A zero gradient gives a zero step.

    Example:
      >>> delta = jnp.array([3.0, -4.0])
      >>> [float(get(name).measure(delta)) for name in ("linf", "l2", "l1")]
      [4.0, 5.0, 7.0]
      >>> [f"{value:.1f}" for value in get("l2").project(delta, 1.0)]
      ['0.6', '-0.8']
    """

    name: str
    measure: Callable[[jax.Array], jax.Array]
    project: Callable[..., jax.Array]
    sample: Callable[..., jax.Array]
    steepest: Callable[[jax.Array, jax.Array], jax.Array]


def _largest(holds: Callable[[jax.Array], jax.Array], low: jax.Array, high: jax.Array) -> jax.Array:
    """The largest t in [low, high] at which `holds(t)`, which is true at `low` and turns once."""

    def halve(_, bounds):
        low, high = bounds
        middle = 0.5 * (low + high)
        inside = holds(middle)
        return jnp.where(inside, middle, low), jnp.where(inside, high, middle)

    low, high = jax.lax.fori_loop(0, _BISECTION_STEPS, halve, (low, high))
    return jnp.where(holds(high), high, low)


def _linf_measure(delta):
    return jnp.max(jnp.abs(delta))


def _linf_project(delta, epsilon, lower=-jnp.inf, upper=jnp.inf):
    return jnp.clip(delta, jnp.maximum(lower, -epsilon), jnp.minimum(upper, epsilon))


def _linf_sample(key, shape, epsilon):
    return epsilon * jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)


def _linf_steepest(gradient, movable):
    del movable  # moving against the box is harmless: no other coordinate pays for it
    return jnp.sign(gradient)


def _l2_measure(delta):
    # Divided by its largest entry first: squares of gradients near 1e-20 would underflow to 0.
    largest = jnp.max(jnp.abs(delta))
    scale = jnp.where(largest > 0, largest, 1.0)
    return scale * jnp.sqrt(jnp.sum(jnp.square(delta / scale)))


def _l2_project(delta, epsilon, lower=-jnp.inf, upper=jnp.inf):
    # The nearest point is clip(scale * delta, lower, upper) for one scale in [0, 1] (the
    # Lagrangian's stationary point); its norm grows with the scale.
    def shrunk(scale):
        return jnp.clip(scale * delta, lower, upper)

    # Without an active box the scale has a closed form, and with one it can only be larger.
    norm = _l2_measure(delta)
    start = jnp.where(norm > epsilon, epsilon / jnp.where(norm > 0, norm, 1.0), 1.0)
    clipped = jnp.any((start * delta < lower) | (start * delta > upper))
    scale = jax.lax.cond(
        clipped & (start < 1.0),
        lambda: _largest(lambda t: _l2_measure(shrunk(t)) <= epsilon, start, jnp.ones_like(start)),
        lambda: start,
    )
    return shrunk(scale)


def _l2_sample(key, shape, epsilon):
    direction_key, radius_key = jax.random.split(key)
    direction = jax.random.normal(direction_key, shape)
    radius = jax.random.uniform(radius_key) ** (1.0 / max(direction.size, 1))
    return epsilon * radius * direction / _l2_measure(direction)


def _l2_steepest(gradient, movable):
    del movable
    norm = _l2_measure(gradient)
    return gradient / jnp.where(norm > 0, norm, 1.0)


def _l1_measure(delta):
    return jnp.sum(jnp.abs(delta))


def _l1_project(delta, epsilon, lower=-jnp.inf, upper=jnp.inf):
    # The nearest point is clip(soft_threshold(delta, t), lower, upper) (Croce & Hein 2021, eq. 8);
    # its norm falls as the threshold grows.
    magnitude = jnp.abs(delta)
    room = jnp.where(delta > 0, upper, -lower)

    def thresholded(threshold):
        return jnp.minimum(jnp.maximum(magnitude - threshold, 0.0), room)

    top = jnp.max(magnitude)
    kept = _largest(lambda t: jnp.sum(thresholded(top - t)) <= epsilon, jnp.zeros_like(top), top)
    return jnp.sign(delta) * thresholded(top - kept)


def _l1_sample(key, shape, epsilon):
    # Barthe et al. 2005: independent Laplace variables over the sum of their magnitudes plus one
    # more exponential variable are uniform in the l_1 ball.
    sign_key, magnitude_key, rest_key = jax.random.split(key, 3)
    signs = jax.random.rademacher(sign_key, shape, dtype=jnp.float32)
    magnitudes = jax.random.exponential(magnitude_key, shape)
    total = jnp.sum(magnitudes) + jax.random.exponential(rest_key)
    return epsilon * signs * magnitudes / total


def _l1_steepest(gradient, movable):
    # All of the step on the one largest coordinate is steepest, but the box stops it at once.
    # Tramèr & Boneh 2019 (sparse l_1 descent) share the step out over the largest few. Two changes
    # let the attack come to rest at the optimum rather than before it. The shares are in
    # proportion to the gradient, since the projection takes the same amount from each. And what
    # the box stops is pushed on, beyond the budget, so that the projection does not undo it.
    magnitude = jnp.abs(gradient)
    count = max(1, round(_L1_STEP_SHARE * magnitude.size))
    values, _ = jax.lax.top_k(jnp.where(movable, magnitude, 0.0).reshape(-1), count)
    largest = jnp.where(values[0] > 0, values[0], 1.0)  # sums of tiny gradients would underflow
    total = jnp.where(values[0] > 0, jnp.sum(values / largest), 1.0)
    chosen = magnitude >= jnp.where(values[-1] > 0, values[-1], largest)
    return jnp.where(chosen, gradient / largest / total, 0.0)


linf = Norm("linf", _linf_measure, _linf_project, _linf_sample, _linf_steepest)
l2 = Norm("l2", _l2_measure, _l2_project, _l2_sample, _l2_steepest)
l1 = Norm("l1", _l1_measure, _l1_project, _l1_sample, _l1_steepest)

NORMS = {norm.name: norm for norm in (linf, l2, l1)}


def get(name: str | Norm) -> Norm:
    """The norm of that name: "linf", "l2" or "l1"; a `Norm` is returned as it is.

    Raises:
      ValueError: for another name.

    Example:
      >>> import jax.numpy as jnp
      >>> get("l2").project(jnp.array([3.0, 4.0]), 1.0).tolist()
      [0.6000000238418579, 0.800000011920929]
    """
    if isinstance(name, Norm):
        return name
    check_choice("norm", name, NORMS)
    return NORMS[name]
