"""The attack of Carlini & Wagner 2017: gradient descent on a pixel box that has no walls."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrobust.attacks import losses, minimum_norm, norms, search
from jaxrobust.core.batching import per_image
from jaxrobust.core.checks import check_count, check_number
from jaxrobust.core.types import AnyClassifier, Images, Labels, Number

# Black and white would be at infinity: the box is drawn in by this factor, half a millionth.
_INSIDE = 0.999999
# A tenth of the steps in which the loss falls by less ends a descent, as with the authors; but
# here it is the lowest so far, as Adam swings from one side of the boundary to the other.
_CHECKS, _PROGRESS = 10, 0.9999
# By which the constant grows until something is found.
_GROWTH = 10.0


class _Descent(NamedTuple):
    place: jax.Array  # in the space of the hyperbolic tangent
    adam: Any
    best: search.Candidate
    found: jax.Array  # with this constant
    lowest: jax.Array  # loss
    lowest_then: jax.Array  # at the last check
    stalled: jax.Array
    taken: jax.Array


class _Search(NamedTuple):
    constant: jax.Array
    lower: jax.Array  # the largest that was too small
    upper: jax.Array  # the smallest with which something was found
    best: search.Candidate


def _check(*, epsilon, learning_rate, initial_constant, confidence, key, abort_early, **counts):
    del key, abort_early
    minimum_norm.check_minimum_norm(norm="l2", epsilon=epsilon)
    for name, value in (
        ("learning_rate", learning_rate),
        ("initial_constant", initial_constant),
        ("confidence", confidence),
    ):
        check_number(name, value)
    for name, count in counts.items():
        check_count(name, count)


@per_image(static=("steps", "binary_search_steps", "abort_early"), check=_check)
def carlini_wagner(
    classifier: AnyClassifier,
    images: Images,
    labels: Labels,
    *,
    key: jax.Array | None = None,
    epsilon: Number | None = None,
    steps: int = 1000,
    learning_rate: Number = 0.01,
    binary_search_steps: int = 9,
    initial_constant: Number = 1e-3,
    confidence: Number = 0.0,
    abort_early: bool = True,
    batch_size: int | None = None,
) -> jax.Array:
    """The l_2 attack of Carlini & Wagner (2017, section VI.A): the nearest image, at leisure.

    Adam minimises ‖x − image‖² + c · max(confidence − margin(x), 0) over w, where
    x = (tanh(w) + 1) / 2 is in the box whatever w is, and `margin` is `attacks.margin`. The
    constant c is ten times larger after each descent that finds nothing; after the first that does,
    it halves the interval between the two. Of all descents the nearest image is kept. It is
    untargeted and costs up to `binary_search_steps` x `steps` gradients. Among several classes it
    goes to the one that leads on the way, which need not be the nearest: `fab` tries each.

    Args:
      classifier: callable pytree from one image to logits (k,).
      images: (h, w, c) or (n, h, w, c) in [0, 1].
      labels: () or (n,) integers: the true classes.
      key: not used, as nothing is random; all attacks are called alike.
      epsilon: how far away an image may be in l_2, in pixel units. None: as far as need be.
      steps: of each descent, at least 1. The authors take 10,000, of which `abort_early` leaves
        few; 1,000 come within some per cent of them.
      learning_rate: Adam's, in units of w, at least 0.
      binary_search_steps: how many constants are tried, at least 1.
      initial_constant: the first, at least 0.
      confidence: by how much another logit has to exceed the label's, at least 0.
      abort_early: whether a descent ends when its lowest loss no longer falls, looked at ten times,
        the first time when pixels have had the steps to leave black and white. Each image has its
        own end, whatever else is in the batch.
      batch_size: images at once on each device; None: all.

    Returns:
      Images of the same shape, inside [0, 1]: the nearest misclassified ones that were found
      (`attacks.distances` says how near). Where none was found, or none within `epsilon`, the image
      as it is.

    Raises:
      TypeError, ValueError: for images, labels or options out of their range.

    Example:
      >>> import jax.numpy as jnp
      >>> classifier = lambda image: jnp.stack([image.sum() - 1.2, 0.0])
      >>> nearest = carlini_wagner(classifier, jnp.full((1, 1, 3), 0.5), 0, steps=200)
      >>> [round(value, 2) for value in nearest.ravel().tolist()]
      [0.4, 0.4, 0.4]
    """
    del key
    # Of one image, below the decorator; the signature, which users see, allows more types.
    image, label = jnp.asarray(images), jnp.asarray(labels)
    optimizer = optax.adam(learning_rate)
    gap_between_checks = -(-steps // _CHECKS)

    infinite = jnp.asarray(jnp.inf, image.dtype)

    def to_image(place):
        return 0.5 * (jnp.tanh(place) + 1.0)

    origin = jnp.arctanh(_INSIDE * (2.0 * image - 1.0))
    original = to_image(origin)
    # Adam moves w by at most the learning rate a step: from black and white, where the tangent is
    # flat, it takes so many until anything is seen of it.
    patience = jnp.mean(jnp.abs(origin)) / jnp.maximum(learning_rate, 1e-12)

    def candidate(point, logits):
        found = losses.misclassified(logits.at[label].add(confidence), label)
        distance = norms.l2.measure(point - image).astype(jnp.float32)
        return search.Candidate(point, found, jnp.where(found, -distance, -jnp.inf))

    unmoved = candidate(image, losses.logits_of(classifier, image))

    def objective(place, constant):
        point = to_image(place)
        logits = losses.logits_of(classifier, point)
        short = jnp.maximum(confidence - losses.margin(logits, label), 0.0)
        return jnp.sum(jnp.square(point - original)) + constant * short, (point, logits)

    def descend(constant, best):
        def step(at):
            (loss, seen), gradient = jax.value_and_grad(objective, has_aux=True)(at.place, constant)
            # A gradient that is NaN says nothing: the pixel stays.
            updates, adam = optimizer.update(jnp.nan_to_num(gradient), at.adam)
            here = candidate(*seen)
            lowest = jnp.minimum(loss, at.lowest)
            checked = abort_early & (at.taken % gap_between_checks == 0)
            stalled = checked & (at.taken >= patience) & ~(lowest <= _PROGRESS * at.lowest_then)
            return _Descent(
                place=at.place + updates,
                adam=adam,
                best=search.better(here, at.best),
                found=at.found | here.found,
                lowest=lowest,
                lowest_then=jnp.where(checked, lowest, at.lowest_then),
                stalled=stalled,
                taken=at.taken + 1,
            )

        start = _Descent(
            place=origin,
            adam=optimizer.init(origin),
            best=best,
            found=jnp.asarray(False),
            lowest=infinite,
            lowest_then=infinite,
            stalled=unmoved.found,  # nothing is nearer than the image itself
            taken=jnp.zeros((), jnp.int32),
        )
        end = jax.lax.while_loop(lambda at: ~at.stalled & (at.taken < steps), step, start)
        return end.best, end.found

    def try_constant(_, tried):
        best, found = descend(tried.constant, tried.best)
        lower = jnp.where(found, tried.lower, tried.constant)
        upper = jnp.where(found, tried.constant, tried.upper)
        halfway = 0.5 * (lower + upper)
        constant = jnp.where(jnp.isinf(upper), _GROWTH * tried.constant, halfway)
        return _Search(constant, lower, upper, best)

    first = jnp.asarray(initial_constant, image.dtype)
    start = _Search(first, jnp.zeros_like(first), jnp.full_like(first, jnp.inf), unmoved)
    best = jax.lax.fori_loop(0, binary_search_steps, try_constant, start).best
    return minimum_norm.within(best.image, image, found=best.found, norm=norms.l2, epsilon=epsilon)
