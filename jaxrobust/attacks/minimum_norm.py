"""Attacks that look for the nearest image: what they have in common, and how near it is."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.attacks import losses, norms
from jaxrobust.attacks.projected_gradient import check_ball
from jaxrobust.core.batching import per_image
from jaxrobust.core.checks import check_count, check_that, is_concrete
from jaxrobust.core.types import AnyClassifier, Images, Labels, Number

# In pixel units: image + perturbation is rounded where pixels are near 1, and so is its norm.
_ROUNDING = 1e-6


def check_minimum_norm(
    *, norm: str | norms.Norm, epsilon: Number | None, key: object = None, **counts: int
) -> None:
    """Raise unless the options that minimum-norm attacks have in common are in their ranges."""
    del key  # which may be given, as every attack is called alike
    rule = "be linf or l2 for attacks that look for the nearest image"
    check_that(norms.get(norm).name in ("linf", "l2"), "norm", rule, repr(norm))
    if epsilon is not None:
        check_ball(epsilon=epsilon, norm=norm)
    for name, count in counts.items():
        check_count(name, count)


def within(
    point: jax.Array,
    image: jax.Array,
    *,
    found: jax.Array,
    norm: norms.Norm,
    epsilon: Number | None,
) -> jax.Array:
    """The point where it was found at most `epsilon` (None: anywhere) away, else the image."""
    if epsilon is not None:
        found &= norm.measure(point - image) <= epsilon
    return jnp.where(found, point, image)


def _check_norm(*, norm):
    norms.get(norm)


@per_image(static=("norm",), check=_check_norm)
def distances(
    classifier: AnyClassifier,
    images: Images,
    adversarial: Images,
    labels: Labels,
    *,
    norm: str | norms.Norm,
    batch_size: int | None = None,
) -> jax.Array:
    """How far away the misclassified images are that an attack has found.

    Args:
      classifier: callable pytree from one image to logits (k,).
      images: (h, w, c) or (n, h, w, c) in [0, 1]: the original ones.
      adversarial: what an attack made of them, of the same shape, in [0, 1].
      labels: () or (n,) integers: the true classes.
      norm: "linf", "l2" or "l1".
      batch_size: images at once on each device; None: all.

    Returns:
      () or (n,): the norm of the perturbation in pixel units; 0 where the original image is
      misclassified already, infinity where the perturbed one is not.

    Raises:
      TypeError, ValueError: for images, labels or a norm out of their range.

    Example:
      >>> import jax.numpy as jnp
      >>> classifier = lambda image: jnp.stack([image.sum() - 1.2, 0.0])
      >>> images = jnp.array([0.5, 0.5, 0.3]).reshape(3, 1, 1, 1) * jnp.ones((1, 1, 3))
      >>> adversarial = images - jnp.array([0.25, 0.0625, 0.25]).reshape(3, 1, 1, 1)
      >>> distances(classifier, images, adversarial, [0, 0, 0], norm="linf").tolist()
      [0.25, inf, 0.0]
    """
    moved = norms.get(norm).measure(jnp.asarray(adversarial) - jnp.asarray(images))
    label = jnp.asarray(labels)
    found = losses.misclassified(losses.logits_of(classifier, jnp.asarray(adversarial)), label)
    wrong = losses.misclassified(losses.logits_of(classifier, jnp.asarray(images)), label)
    return jnp.where(wrong, 0.0, jnp.where(found, moved, jnp.inf))


def robust_accuracy(
    distances: jax.Array | np.ndarray, epsilons: jax.Array | np.ndarray | Sequence[float] | float
) -> jax.Array:
    """The share of images that stand at each radius: those whose distance is larger.

    An image at a distance of exactly the radius does not stand, nor does one that only rounding
    takes beyond it (by up to 1e-6, in pixel units and of the radius). At radius 0 it is the clean
    accuracy. Of distances by an attack that misses nearer images it is an upper bound.

    Args:
      distances: (n,) or (), as `distances` gives them.
      epsilons: (m,) or (): radii in pixel units, at least 0.

    Returns:
      (m,) or (), from 0 to 1.

    Raises:
      ValueError: for distances or radii that are below 0, NaN, none or of another rank.

    Example:
      >>> robust_accuracy(jnp.array([0.0, 0.25, 0.5, jnp.inf]), [0.0, 0.25, 1.0]).tolist()
      [0.75, 0.5, 0.25]
    """
    measured, radii = jnp.asarray(distances, jnp.float32), jnp.asarray(epsilons, jnp.float32)
    for name, values, what in (("distances", measured, "(n,)"), ("epsilons", radii, "(m,)")):
        known = values.ndim <= 1 and values.size > 0
        check_that(known, name, f"have shape {what} or ()", values.shape)
        if is_concrete(values):
            least = float(np.min(np.asarray(values)))
            check_that(least >= 0, name, "be at least 0", f"{least:g}")
    furthest = radii * (1.0 + _ROUNDING) + _ROUNDING
    return jnp.mean(jnp.atleast_1d(measured) > furthest[..., None], -1)
