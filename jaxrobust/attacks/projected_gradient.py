"""Projected steepest ascent in a norm ball and the pixel box: PGD and its one-step form, FGSM."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrobust.attacks import losses, norms
from jaxrobust.attacks.losses import Loss
from jaxrobust.core.batching import per_image
from jaxrobust.core.checks import check_count, check_number, is_concrete
from jaxrobust.core.types import AnyClassifier, Images, Labels, Number


def check_ball(
    *,
    epsilon: Number,
    norm: str | norms.Norm,
    step_size: Number | None = None,
    steps: int = 1,
    **_: object,
) -> None:
    """Raise unless the options that attacks have in common make a ball and steps in it.

    Raises:
      TypeError, ValueError: for a value out of its range; traced ones pass.
    """
    ball = norms.get(norm)
    check_number("epsilon", epsilon)
    if ball.name == "linf" and is_concrete(epsilon) and epsilon > 1:
        raise ValueError(
            f"epsilon must be at most 1 in linf, as pixels are in [0, 1], got {float(epsilon):g}: "
            "divide levels by 255."
        )
    if step_size is not None:
        check_number("step_size", step_size)
    check_count("steps", steps)


def check_ascent(
    *,
    key: object,
    loss: str | Loss,
    random_start: bool,
    restarts: int = 1,
    targeted: bool = False,
    **ball: Any,
) -> None:
    """Raise unless the options that gradient attacks in a ball have in common are in their ranges.

    Raises:
      TypeError, ValueError: for a value out of its range, or no key for a random start.
    """
    del targeted
    check_ball(**ball)
    losses.get(loss)
    check_count("restarts", restarts)
    if random_start and key is None:
        raise ValueError("key must be given when random_start is True, got None.")
    if restarts > 1 and not random_start:
        raise ValueError(
            f"restarts must be 1 when random_start is False (all would be equal), got {restarts}."
        )


def default_step_size(
    *, epsilon: Number, steps: int, norm: str | norms.Norm, **_: object
) -> Number:
    """The length of a step of `pgd` that was not told any."""
    return epsilon if norms.get(norm).name == "l1" else 1.5 * epsilon / steps


def objective_of_logits(
    loss: str | Loss, label: Any, targeted: bool
) -> Callable[[jax.Array], jax.Array]:
    """What an attack raises, a function of the logits."""
    function, sign = losses.get(loss), -1.0 if targeted else 1.0
    return lambda logits: sign * function(logits, label)


def start_in_ball(
    image: jax.Array, *, key: jax.Array, norm: str | norms.Norm, epsilon: Number
) -> jax.Array:
    """A perturbation of the image's shape, uniform in the ball, then clipped to the pixel box."""
    sample = norms.get(norm).sample(key, image.shape, epsilon)
    return jnp.clip(image + sample, 0.0, 1.0) - image


def ascend(
    objective: Callable[[jax.Array], jax.Array],
    image: jax.Array,
    *,
    start: jax.Array | None,
    norm: str | norms.Norm,
    epsilon: Number,
    step_size: Number,
    steps: int,
) -> jax.Array:
    """Projected steepest ascent on a function of one image (eq. 4 of the paper): the loop of PGD.

    For attacks and training objectives whose own objective sees more than logits and a label: the
    clean logits, say, over which `objective` closes.

    Args:
      objective: what is raised, a scalar function of an image.
      image: (h, w, c) in [0, 1].
      start: the first perturbation, within ball and box; None: the image itself.
      norm: "linf", "l2" or "l1".
      epsilon: radius of the ball, in pixel units.
      step_size: length of a step in the norm.
      steps: static, at least 1.

    Returns:
      An image (h, w, c) within `epsilon` of the given one and inside [0, 1].
    """
    ball = norms.get(norm)
    # The perturbation that reaches the box; the sum is clipped once more against rounding.
    lower, upper = -image, 1.0 - image
    gradient_of = jax.grad(objective)

    def step(_, delta):
        # A gradient that is NaN says nothing: the pixel stays.
        gradient = jnp.nan_to_num(gradient_of(jnp.clip(image + delta, 0.0, 1.0)))
        movable = jnp.where(gradient > 0, delta < upper, delta > lower)
        return ball.project(
            delta + step_size * ball.steepest(gradient, movable), epsilon, lower, upper
        )

    delta = jax.lax.fori_loop(0, steps, step, jnp.zeros_like(image) if start is None else start)
    return jnp.clip(image + delta, 0.0, 1.0)


def _perturbed(classifier, image, objective, *, key, restart=0, norm, epsilon, step_size, steps):
    """The image that raises an objective of the logits; with a key, from a random start."""
    ball = {"norm": norm, "epsilon": epsilon}
    start = None
    if key is not None:
        start = start_in_ball(image, key=jax.random.fold_in(key, restart), **ball)
    return ascend(
        lambda image: objective(losses.logits_of(classifier, image)),
        image,
        start=start,
        step_size=step_size,
        steps=steps,
        **ball,
    )


@per_image(
    static=("steps", "norm", "restarts", "random_start", "loss", "targeted"), check=check_ascent
)
def pgd(
    classifier: AnyClassifier,
    images: Images,
    labels: Labels,
    *,
    key: jax.Array | None = None,
    epsilon: Number,
    step_size: Number | None = None,
    steps: int,
    norm: str | norms.Norm = "linf",
    restarts: int = 1,
    random_start: bool = True,
    loss: str | Loss = "cross_entropy",
    targeted: bool = False,
    batch_size: int | None = None,
) -> jax.Array:
    """Projected gradient descent (Madry et al. 2018; eq. 4 of the paper).

    Each step goes `step_size` in the direction that is steepest in the norm and is projected onto
    the intersection of ball and box. Of several restarts, the result is kept for each image that is
    misclassified, and among equals the one of the highest loss; restart r draws its start from
    `fold_in(key, r)`, so that more restarts never give a weaker attack.

    Args:
      classifier: callable pytree from one image to logits (k,).
      images: (h, w, c) or (n, h, w, c) in [0, 1].
      labels: () or (n,) integers: the true classes, or with `targeted` the wanted ones.
      key: one key, or one for each image; needed for `random_start`.
      epsilon: radius of the ball, in pixel units, at least 0; in l_inf at most 1.
      step_size: length of a step in the norm, in pixel units. None: 1.5 epsilon / steps, the
        evaluation protocol's; in l_1, where a step moves few pixels, epsilon.
      steps: gradient steps, at least 1.
      norm: "linf", "l2" or "l1".
      restarts: independent random starts, at least 1.
      random_start: start uniformly in the ball (clipped to the box) rather than at the image.
      loss: "cross_entropy", "margin", "dlr" or a function of (logits (k,), label).
      targeted: lower the loss of the given label instead of raising it.
      batch_size: images at once on each device; None: all.

    Returns:
      Images of the same shape, within `epsilon` of the originals and inside [0, 1].

    Raises:
      TypeError, ValueError: for images, labels or options out of their range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> classifier = lambda image: jnp.stack([image.sum(), -image.sum()])
      >>> image = jnp.full((1, 1, 3), 0.5)
      >>> options = dict(epsilon=0.125, step_size=0.125, steps=3)
      >>> pgd(classifier, image, 0, key=jax.random.key(0), **options).tolist()
      [[[0.375, 0.375, 0.375]]]
    """
    image, label = images, labels  # those of one image, below the decorator
    objective = objective_of_logits(loss, label, targeted)
    if step_size is None:
        step_size = default_step_size(epsilon=epsilon, steps=steps, norm=norm)

    def attempt(restart):
        return _perturbed(
            classifier,
            image,
            objective,
            key=key if random_start else None,
            restart=restart,
            norm=norm,
            epsilon=epsilon,
            step_size=step_size,
            steps=steps,
        )

    adversarial = attempt(0)
    if restarts == 1:
        return adversarial

    def scored(image):
        logits = losses.logits_of(classifier, image)
        return image, (jnp.argmax(logits) == label) == targeted, objective(logits)

    def again(restart, best):
        latest = scored(attempt(restart))
        (_, fooled, value), (_, best_fooled, best_value) = latest, best
        better = (fooled & ~best_fooled) | ((fooled == best_fooled) & (value > best_value))
        return jax.tree.map(lambda new, old: jnp.where(better, new, old), latest, best)

    return jax.lax.fori_loop(1, restarts, again, scored(adversarial))[0]


@per_image(static=("norm", "random_start", "loss", "targeted"), check=check_ascent)
def fgsm(
    classifier: AnyClassifier,
    images: Images,
    labels: Labels,
    *,
    epsilon: Number,
    key: jax.Array | None = None,
    random_start: bool = False,
    step_size: Number | None = None,
    norm: str | norms.Norm = "linf",
    loss: str | Loss = "cross_entropy",
    targeted: bool = False,
    batch_size: int | None = None,
) -> jax.Array:
    """Fast gradient sign method: one steepest step (Goodfellow et al. 2015; eq. 3 of the paper).

    Args:
      classifier: callable pytree from one image to logits (k,).
      images: (h, w, c) or (n, h, w, c) in [0, 1].
      labels: () or (n,) integers: the true classes, or with `targeted` the wanted ones.
      epsilon: radius of the ball, in pixel units, at least 0; in l_inf at most 1.
      key: needed for `random_start`.
      random_start: start uniformly in the ball, as "fast" adversarial training does.
      step_size: `epsilon` when None; Wong et al. 2020 take 1.25 epsilon after a random start.
      norm: "linf" (the sign of the gradient), "l2" or "l1".
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
      >>> fgsm(classifier, jnp.full((1, 1, 3), 0.5), 0, epsilon=0.125).tolist()
      [[[0.375, 0.375, 0.375]]]
    """
    return _perturbed(
        classifier,
        images,
        objective_of_logits(loss, labels, targeted),
        key=key if random_start else None,
        norm=norm,
        epsilon=epsilon,
        step_size=epsilon if step_size is None else step_size,
        steps=1,
    )
