"""Iterated steps along a gradient that remembers: MI-FGSM (Dong et al. 2018)."""

import jax
import jax.numpy as jnp

from jaxrobust.attacks import losses, norms
from jaxrobust.attacks.losses import Loss
from jaxrobust.attacks.projected_gradient import check_ascent, objective_of_logits, start_in_ball
from jaxrobust.core.batching import per_image
from jaxrobust.core.checks import check_number
from jaxrobust.core.types import AnyClassifier, Images, Labels, Number


def _check(*, decay, **options):
    check_number("decay", decay)
    check_ascent(**options)


@per_image(static=("steps", "norm", "random_start", "loss", "targeted"), check=_check)
def momentum(
    classifier: AnyClassifier,
    images: Images,
    labels: Labels,
    *,
    key: jax.Array | None = None,
    epsilon: Number,
    step_size: Number | None = None,
    steps: int,
    norm: str | norms.Norm = "linf",
    decay: Number = 1.0,
    random_start: bool = False,
    loss: str | Loss = "cross_entropy",
    targeted: bool = False,
    batch_size: int | None = None,
) -> jax.Array:
    """Momentum iterative FGSM (Dong et al. 2018, algorithm 1), whose images transfer well.

    The velocity is `decay` times the last one plus the gradient over its l_1 norm (equation 6).
    Each step goes `step_size` in the direction that is steepest for the velocity (equation 7 for
    l_inf) and is projected onto the intersection of ball and box. Images that one network is fooled
    by fool others more often than PGD's do.

    Args:
      classifier: callable pytree from one image to logits (k,).
      images: (h, w, c) or (n, h, w, c) in [0, 1].
      labels: () or (n,) integers: the true classes, or with `targeted` the wanted ones.
      key: one key, or one for each image; needed for `random_start`.
      epsilon: radius of the ball, in pixel units, at least 0; in l_inf at most 1.
      step_size: length of a step in the norm, in pixel units. None: epsilon / steps.
      steps: gradient steps, at least 1.
      norm: "linf", "l2" or "l1".
      decay: of the velocity, at least 0; at 0 each step is PGD's.
      random_start: start uniformly in the ball (clipped to the box) rather than at the image.
      loss: "cross_entropy", "margin", "dlr" or a function of (logits (k,), label).
      targeted: lower the loss of the given label instead of raising it.
      batch_size: images at once on each device; None: all.

    Returns:
      Images of the same shape, within `epsilon` of the originals and inside [0, 1].

    Raises:
      TypeError, ValueError: for images, labels or options out of their range.

    Example:
      >>> import jax.numpy as jnp
      >>> classifier = lambda image: jnp.stack([image.sum(), -image.sum()])
      >>> momentum(classifier, jnp.full((1, 1, 3), 0.5), 0, epsilon=0.125, steps=2).tolist()
      [[[0.375, 0.375, 0.375]]]
    """
    # Of one image, below the decorator; the signature, which users see, allows more types.
    image, label = jnp.asarray(images), jnp.asarray(labels)
    ball = norms.get(norm)
    length = epsilon / steps if step_size is None else step_size
    objective = objective_of_logits(loss, label, targeted)
    gradient_of = jax.grad(lambda image: objective(losses.logits_of(classifier, image)))
    lower, upper = -image, 1.0 - image

    def step(_, state):
        delta, velocity = state
        # A gradient that is NaN says nothing: the pixel goes on as it was.
        gradient = jnp.nan_to_num(gradient_of(jnp.clip(image + delta, 0.0, 1.0)))
        size = norms.l1.measure(gradient)
        velocity = decay * velocity + gradient / jnp.where(size > 0, size, 1.0)
        movable = jnp.where(velocity > 0, delta < upper, delta > lower)
        moved = delta + length * ball.steepest(velocity, movable)
        return ball.project(moved, epsilon, lower, upper), velocity

    delta = jnp.zeros_like(image)
    if random_start:
        assert key is not None  # as `check_ascent` has seen
        delta = start_in_ball(image, key=key, norm=norm, epsilon=epsilon)
    delta, _ = jax.lax.fori_loop(0, steps, step, (delta, jnp.zeros_like(image)))
    return jnp.clip(image + delta, 0.0, 1.0)
