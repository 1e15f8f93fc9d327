"""Adversarial attacks: white-box, gradient-based, inside a norm ball and the pixel box [0, 1].

Every attack is `attack(classifier, images, labels, *, options)` and returns images. It is written
for one image and takes one or many (`jaxrobust.core.batching`); radii and steps are in pixel units,
whatever normalisation the classifier does inside.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxrobust.attacks import norms
from jaxrobust.core import batching, named
from jaxrobust.core.batching import per_image
from jaxrobust.core.checks import check_count, check_number, is_concrete
from jaxrobust.core.types import AnyClassifier, Images, Labels, Method, Number

Loss = Callable[[jax.Array, jax.Array], jax.Array]  # of logits (k,) and the label


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
    others = jnp.where(jnp.arange(logits.shape[0]) == label, -jnp.inf, logits)
    return jnp.max(others) - logits[label]


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "margin": margin}


def _resolve_loss(loss: str | Loss) -> Loss:
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise ValueError(f"loss must be a function or one of {', '.join(LOSSES)}, got {loss!r}.")
    return LOSSES[loss]


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
    norms.get(norm)
    check_number("epsilon", epsilon)
    if norm == "linf" and is_concrete(epsilon) and epsilon > 1:
        raise ValueError(
            f"epsilon must be at most 1 in linf, as pixels are in [0, 1], got {float(epsilon):g}: "
            "divide levels by 255."
        )
    if step_size is not None:
        check_number("step_size", step_size)
    check_count("steps", steps)


def _check(*, key, loss, random_start, restarts=1, **ball):
    check_ball(**ball)
    _resolve_loss(loss)
    check_count("restarts", restarts)
    if random_start and key is None:
        raise ValueError("key must be given when random_start is True, got None.")
    if restarts > 1 and not random_start:
        raise ValueError(
            f"restarts must be 1 when random_start is False (all would be equal), got {restarts}."
        )


def _default_step_size(*, epsilon, steps, norm, **_):
    return epsilon if norms.get(norm).name == "l1" else 1.5 * epsilon / steps


def _objective(loss, label, targeted):
    """What an attack raises, a function of the logits."""
    loss, sign = _resolve_loss(loss), -1.0 if targeted else 1.0
    return lambda logits: sign * loss(logits, label)


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
        lambda image: objective(classifier(image)),
        image,
        start=start,
        step_size=step_size,
        steps=steps,
        **ball,
    )


@per_image(static=("steps", "norm", "restarts", "random_start", "loss", "targeted"), check=_check)
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
      loss: "cross_entropy", "margin" or a function of (logits (k,), label).
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
    objective = _objective(loss, label, targeted)
    if step_size is None:
        step_size = _default_step_size(epsilon=epsilon, steps=steps, norm=norm)

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
        logits = classifier(image)
        return image, (jnp.argmax(logits) == label) == targeted, objective(logits)

    def again(restart, best):
        latest = scored(attempt(restart))
        (_, fooled, value), (_, best_fooled, best_value) = latest, best
        better = (fooled & ~best_fooled) | ((fooled == best_fooled) & (value > best_value))
        return jax.tree.map(lambda new, old: jnp.where(better, new, old), latest, best)

    return jax.lax.fori_loop(1, restarts, again, scored(adversarial))[0]


@per_image(static=("norm", "random_start", "loss", "targeted"), check=_check)
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
      loss: "cross_entropy", "margin" or a function of (logits (k,), label).
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
        _objective(loss, labels, targeted),
        key=key if random_start else None,
        norm=norm,
        epsilon=epsilon,
        step_size=epsilon if step_size is None else step_size,
        steps=1,
    )


ATTACKS: dict[str, Method] = {"fgsm": fgsm, "pgd": pgd}


def get(name: str) -> Method:
    """The attack of that name, or a user's own: "package.module:function", as configs give it.

    Raises:
      ValueError: for an unknown name.

    Example:
      >>> get("pgd") is pgd
      True
    """
    return named.get("attack", ATTACKS, name)


def check_options(name: str, options: dict[str, Any]) -> None:
    """Raise now what `get(name)(…, **options)` would raise about its options, before any training.

    Raises:
      ValueError: for an unknown attack or option, a missing one, or a value out of its range.
    """
    attack = get(name)
    batching.check_options(attack, named.complete(name, attack, options))


def complete_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options that an attack runs with, defaults filled in, as a report should state them.

    Example:
      >>> complete_options("fgsm", {"epsilon": 0.25})["step_size"]
      0.25
    """
    chosen = {option: value for option, value in options.items() if option != "name"}
    complete = named.complete(name, get(name), chosen)
    if name == "fgsm":
        complete |= {"steps": 1, "restarts": 1}
        complete["step_size"] = complete["step_size"] or complete["epsilon"]
    if name == "pgd" and complete["step_size"] is None:
        complete["step_size"] = _default_step_size(**complete)
    return complete
