"""Auto-PGD: projected gradient ascent that chooses its own steps (Croce & Hein 2020)."""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.attacks import losses, norms, search
from jaxrobust.attacks.losses import Loss, TargetedLoss
from jaxrobust.attacks.projected_gradient import check_ball
from jaxrobust.core.batching import per_image
from jaxrobust.core.checks import check_count, check_that
from jaxrobust.core.types import AnyClassifier, Images, Labels, Number

# Algorithm 1: how much of a step is taken, and in how few steps the loss may rise.
_NEW_STEP, _RISES = 0.75, 0.75


class _Walk(NamedTuple):
    point: jax.Array  # where the network is called next
    before: jax.Array  # the point before it
    best: jax.Array
    best_gradient: jax.Array
    best_loss: jax.Array
    loss: jax.Array  # of the point before
    step_size: jax.Array
    rises: jax.Array  # steps since the last checkpoint in which the loss rose
    best_loss_then: jax.Array  # at the last checkpoint
    halved: jax.Array  # whether the step was halved there
    taken: jax.Array  # calls of the network


def checkpoints(steps: int) -> np.ndarray:
    """For 0 to `steps` steps taken: at a checkpoint the steps since the last one, elsewhere 0.

    The first gap is 22 % of the steps, each further one 3 % less, down to 6 %.

    Example:
      >>> [step for step, gap in enumerate(checkpoints(100)) if gap]
      [22, 41, 57, 70, 80, 87, 93, 99]
    """
    gaps = np.zeros(steps + 1, np.int32)
    gap, least, less = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    step = gap
    while step <= steps:
        gaps[step] = gap
        gap = max(gap - less, least)
        step += gap
    return gaps


@flax.struct.dataclass
class AutoPGD:
    """The search: each step calls the network for its logits and the gradient of the loss.

    Attributes:
      epsilon: radius of the ball.
      steps: of each attempt.
      norm: of the ball.
      loss: a function of logits (k,) and a label; with `targeted`, of a target as well.
      targeted: whether the loss takes a target.
    """

    epsilon: Number
    steps: int = flax.struct.field(pytree_node=False)
    norm: norms.Norm = flax.struct.field(pytree_node=False)
    loss: Loss | TargetedLoss = flax.struct.field(pytree_node=False)
    targeted: bool = flax.struct.field(pytree_node=False, default=False)

    def start(self, image, label, key):
        if self.norm.name == "linf":
            direction = jax.random.uniform(key, image.shape, image.dtype, -1.0, 1.0)
        else:
            direction = jax.random.normal(key, image.shape, image.dtype)
        # On the sphere, then clipped to the box.
        moved = image + self.epsilon * direction / self.norm.measure(direction)
        point = search.into_ball(moved, image, self.norm, self.epsilon)
        zero, infinite = jnp.zeros((), jnp.float32), jnp.full((), -jnp.inf, jnp.float32)
        return _Walk(
            point=point,
            before=point,
            best=point,
            best_gradient=jnp.zeros_like(image),
            best_loss=infinite,
            loss=infinite,
            step_size=2.0 * jnp.asarray(self.epsilon, jnp.float32),
            rises=jnp.zeros((), jnp.int32),
            best_loss_then=zero,
            halved=jnp.asarray(True),
            taken=jnp.zeros((), jnp.int32),
        )

    def step(self, classifier, image, label, target, walk):
        def value(point):
            logits = losses.logits_of(classifier, point)
            aim = (label, target) if self.targeted else (label,)
            return self.loss(logits, *aim).astype(jnp.float32), logits

        (loss, logits), gradient = jax.value_and_grad(value, has_aux=True)(walk.point)
        candidate = search.Candidate(walk.point, losses.misclassified(logits, label), loss)
        first = walk.taken == 0
        # A gradient that is NaN says nothing: the pixel stays.
        gradient = jnp.nan_to_num(gradient)
        improved = first | (loss > walk.best_loss)
        best, best_gradient, best_loss = jax.tree.map(
            lambda new, old: jnp.where(improved, new, old),
            (walk.point, gradient, loss),
            (walk.best, walk.best_gradient, walk.best_loss),
        )
        rises = walk.rises + (~first & (loss > walk.loss))
        best_loss_then = jnp.where(first, loss, walk.best_loss_then)

        gap = jnp.asarray(checkpoints(self.steps))[walk.taken]
        checked = gap > 0
        stuck = ~walk.halved & (best_loss <= best_loss_then)
        halve = checked & ((rises <= _RISES * gap) | stuck)
        step_size = jnp.where(halve, 0.5 * walk.step_size, walk.step_size)
        # After halving it goes on from the best point.
        point = jnp.where(halve, best, walk.point)
        gradient = jnp.where(halve, best_gradient, gradient)

        def into_ball(point):
            return search.into_ball(point, image, self.norm, self.epsilon)

        ahead = into_ball(point + step_size * self.norm.steepest(gradient, gradient != 0))
        share = jnp.where(first, 1.0, _NEW_STEP)
        moved = into_ball(point + share * (ahead - point) + (1.0 - share) * (point - walk.before))
        walk = _Walk(
            point=moved,
            before=point,
            best=best,
            best_gradient=best_gradient,
            best_loss=best_loss,
            loss=loss,
            step_size=step_size,
            rises=jnp.where(checked, 0, rises),
            best_loss_then=jnp.where(checked, best_loss, best_loss_then),
            halved=jnp.where(checked, halve, walk.halved),
            taken=walk.taken + 1,
        )
        return walk, candidate

    @property
    def length(self):
        return self.steps + 1  # the network is called where it starts as well


def _check(*, key, norm, restarts, targets, loss, **ball):
    check_that(key is not None, "key", "be given, as the start is drawn at random", key)
    check_ball(norm=norm, **ball)
    rule = "be linf or l2 for apgd"
    check_that(norms.get(norm).name in ("linf", "l2"), "norm", rule, repr(norm))
    losses.get(loss)
    check_count("restarts", restarts)
    if targets is not None:
        check_count("targets", targets)
        check_that(loss == "dlr", "loss", "be 'dlr' with targets", repr(loss))


@per_image(
    static=("steps", "norm", "restarts", "loss", "targets", "until_found"),
    check=_check,
)
def apgd(
    classifier: AnyClassifier,
    images: Images,
    labels: Labels,
    *,
    key: jax.Array,
    epsilon: Number,
    norm: str | norms.Norm = "linf",
    steps: int = 100,
    restarts: int = 1,
    loss: str | Loss = "cross_entropy",
    targets: int | None = None,
    until_found: bool = True,
    batch_size: int | None = None,
) -> jax.Array:
    """Auto-PGD (Croce & Hein 2020, algorithm 1): PGD with momentum and no step size to choose.

    The step begins at twice the radius. At checkpoints that come ever closer it is halved, and the
    search goes back to the best point, unless the loss has risen often enough since the last one.

    Args:
      classifier: callable pytree from one image to logits (k,).
      images: (h, w, c) or (n, h, w, c) in [0, 1].
      labels: () or (n,) integers: the true classes.
      key: one key, or one for each image.
      epsilon: radius of the ball, in pixel units, at least 0; in l_inf at most 1.
      norm: "linf" or "l2".
      steps: gradient steps of each attempt, at least 1.
      restarts: independent random starts, at least 1.
      loss: "cross_entropy", "dlr" (the difference of logits ratio, of at least three classes),
        "margin" or a function of (logits (k,), label).
      targets: None, or how many classes are aimed at in turn, the nearest first, with the targeted
        difference of logits ratio (of at least four classes); with it `loss` must be "dlr".
      until_found: whether the search ends at the first misclassified image, as AutoAttack has it.
        False: all steps are taken, and of all misclassified images the one of the highest loss is
        returned, as training wants it.
      batch_size: images at once on each device; None: all.

    Returns:
      Images of the same shape, within `epsilon` of the originals and inside [0, 1]: misclassified
      where the search found such a one, and else those of the highest loss.

    Raises:
      TypeError, ValueError: for images, labels or options out of their range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> classifier = lambda image: jnp.stack([image.sum() - 1.0, 0.13])
      >>> image = jnp.full((1, 1, 3), 0.5)
      >>> apgd(classifier, image, 0, key=jax.random.key(0), epsilon=0.125, steps=5).tolist()
      [[[0.375, 0.375, 0.375]]]
    """
    # Of one image, below the decorator; the signature, which users see, allows more types.
    image, label = jnp.asarray(images), jnp.asarray(labels)
    value: Loss | TargetedLoss = losses.get(loss)
    aims = jnp.zeros(restarts, jnp.int32)
    if targets is not None:
        logits = losses.logits_of(classifier, image)
        count = min(targets, logits.shape[0] - 1)
        aims = jnp.tile(search.runner_up_classes(logits, label, count), restarts)
        value = losses.targeted_difference_of_logits_ratio
    auto_pgd = AutoPGD(epsilon, steps, norms.get(norm), value, targets is not None)
    return search.run(auto_pgd, classifier, image, label, key, aims, until_found=until_found).image
