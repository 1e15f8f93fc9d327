"""What an attack raises: functions of the logits (k,) of one image and a label."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxrobust.core.checks import check_that
from jaxrobust.core.types import AnyClassifier

Loss = Callable[[jax.Array, jax.Array], jax.Array]  # of logits (k,) and the label
TargetedLoss = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]  # and of a target

# Added to a denominator that may be 0, as Croce & Hein 2020 do.
_TINY = 1e-12


def cross_entropy(logits: jax.Array, label: jax.Array | int) -> jax.Array:
    """-log softmax(logits)[label] for logits (k,), in nats.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(cross_entropy(jnp.zeros(10), 3)), 4)  # log 10
      2.3026
    """
    return -jax.nn.log_softmax(logits)[label]


def margin(logits: jax.Array, label: jax.Array | int) -> jax.Array:
    """The largest other logit minus the label's: positive exactly when misclassified.

    Carlini & Wagner 2017 (f_6 without the floor); unlike the cross-entropy its gradient does not
    vanish when the classifier is very sure.

    Example:
      >>> import jax.numpy as jnp
      >>> float(margin(jnp.array([5.0, 2.0, 3.0]), 0))
      -2.0
    """
    return jnp.max(others(logits, label)) - logits[label]


def difference_of_logits_ratio(logits: jax.Array, label: jax.Array | int) -> jax.Array:
    """The margin over the spread from the first to the third logit (Croce & Hein 2020, eq. 6).

    Neither shifting nor scaling the logits changes it: an overconfident classifier is attacked as
    well as any other. Logits (k,) of at least three classes.

    Raises:
      ValueError: for fewer.

    Example:
      >>> import jax.numpy as jnp
      >>> float(difference_of_logits_ratio(jnp.array([5.0, 1.0, 3.0]), 0))
      -0.5
    """
    rule = "be of at least 3 classes for the difference of logits ratio"
    check_that(logits.shape[0] >= 3, "logits", rule, logits.shape[0])
    largest, _ = jax.lax.top_k(logits, 3)
    return margin(logits, label) / (largest[0] - largest[2] + _TINY)


def targeted_difference_of_logits_ratio(
    logits: jax.Array, label: jax.Array | int, target: jax.Array | int
) -> jax.Array:
    """The lead of a target over the label by the spread of the logits (Croce & Hein 2020, eq. 7).

    Logits (k,) of at least four classes.

    Raises:
      ValueError: for fewer.

    Example:
      >>> import jax.numpy as jnp
      >>> float(targeted_difference_of_logits_ratio(jnp.array([5.0, 1.0, 3.0, 1.0]), 0, 2))
      -0.5
    """
    rule = "be of at least 4 classes for the targeted difference of logits ratio"
    check_that(logits.shape[0] >= 4, "logits", rule, logits.shape[0])
    largest, _ = jax.lax.top_k(logits, 4)
    spread = largest[0] - 0.5 * (largest[2] + largest[3])
    return (logits[target] - logits[label]) / (spread + _TINY)


def targeted_margin(
    logits: jax.Array, label: jax.Array | int, target: jax.Array | int
) -> jax.Array:
    """The target's logit minus the label's."""
    return logits[target] - logits[label]


def misclassified(logits: jax.Array, label: jax.Array | int) -> jax.Array:
    """Whether the label is not the first of the largest logits (k,), or one of them is not finite.

    Example:
      >>> import jax.numpy as jnp
      >>> [bool(misclassified(jnp.array(logits), 1)) for logits in ([1, 2], [2, 2], [jnp.nan, 0])]
      [False, True, True]
    """
    return (jnp.argmax(logits) != label) | ~jnp.all(jnp.isfinite(logits))


def logits_of(classifier: AnyClassifier, image: jax.Array) -> jax.Array:
    """The logits (k,) of an image (h, w, c), in float32 at least.

    In bfloat16, as accelerators compute, the losses of neighbouring images are equal.
    """
    logits = classifier(image)
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def others(logits: jax.Array, label: jax.Array | int) -> jax.Array:
    """The logits (k,), with -inf in the label's place."""
    return jnp.where(jnp.arange(logits.shape[0]) == label, -jnp.inf, logits)


LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "margin": margin,
    "dlr": difference_of_logits_ratio,
}


def get(loss: str | Loss) -> Loss:
    """The loss of that name, or a function as it is.

    Raises:
      ValueError: for an unknown name.
    """
    if callable(loss):
        return loss
    if loss not in tuple(LOSSES):
        raise ValueError(f"loss must be a function or one of {', '.join(LOSSES)}, got {loss!r}.")
    return LOSSES[loss]
