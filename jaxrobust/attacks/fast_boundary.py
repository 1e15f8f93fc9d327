"""Fast adaptive boundary attack: the nearest image on the other side of a boundary (FAB)."""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from jaxrobust.attacks import losses, minimum_norm, norms, search
from jaxrobust.core.batching import per_image
from jaxrobust.core.types import AnyClassifier, Images, Labels, Number

# Section 3 of the paper: how far beyond the boundary a step goes, the largest weight of the
# original image in it, and how much of the way from that image is kept after a success.
_OVERSHOOT, _LARGEST_SHARE, _BACKWARD = 1.05, 0.1, 0.9
# Newton's method on a piecewise linear function ends after few steps, here at rounding.
_NEWTON_STEPS, _ROUNDING, _SMALLEST = 50, 1e-6, 1e-30


def to_hyperplane(
    point: jax.Array, normal: jax.Array, gap: jax.Array, norm: norms.Norm
) -> jax.Array:
    """The smallest step in the norm, inside the box, from a point onto a hyperplane.

    Where the box does not reach the hyperplane: the step that comes nearest to it.

    Args:
      point: in [0, 1].
      normal: of the hyperplane, of the point's shape.
      gap: what `sum(normal * step)` has to be.
      norm: l_inf or l_2.

    Example:
      >>> import jax.numpy as jnp
      >>> point, normal = jnp.array([0.5, 0.5, 0.9]), jnp.array([1.0, -1.0, 2.0])
      >>> [round(value, 3) for value in to_hyperplane(point, normal, 0.6, norms.linf).tolist()]
      [0.2, -0.2, 0.1]
    """
    normal = jnp.where(gap < 0, -normal, normal)
    gap = jnp.abs(gap)
    steepness = jnp.abs(normal)
    room = jnp.where(normal > 0, 1.0 - point, point)
    # Each pixel moves in proportion to `pace` until the box stops it (Lagrange). What is gained by
    # moving grows with the length, less and less: Newton's method from 0 never goes too far.
    pace = steepness if norm.name == "l2" else jnp.ones_like(steepness)

    def missing(length):
        return gap - jnp.sum(steepness * jnp.minimum(length * pace, room))

    def slope(length):
        return jnp.sum(jnp.where(length * pace < room, steepness * pace, 0.0))

    def still_short(carry):
        length, count = carry
        # Where nothing can move any more, all of the room is the nearest.
        return (missing(length) > _ROUNDING * gap) & (slope(length) > 0) & (count < _NEWTON_STEPS)

    def lengthen(carry):
        length, count = carry
        return length + missing(length) / jnp.maximum(slope(length), _SMALLEST), count + 1

    length, _ = jax.lax.while_loop(still_short, lengthen, (jnp.zeros_like(gap), 0))
    return jnp.sign(normal) * jnp.minimum(length * pace, room)


class _Walk(NamedTuple):
    point: jax.Array  # where the logits are linearised next
    taken: jax.Array  # steps


@flax.struct.dataclass
class FastBoundary:
    """The search: each step calls the network for a gradient, and for the logits where it leads.

    Attributes:
      epsilon: how far away an image counts as found; infinity: anywhere.
      steps: of each attempt.
      norm: that is made small.
    """

    epsilon: Number
    steps: int = flax.struct.field(pytree_node=False)
    norm: norms.Norm = flax.struct.field(pytree_node=False)

    def start(self, image, label, key):
        del label, key
        return _Walk(image, jnp.zeros((), jnp.int32))

    def step(self, classifier, image, label, target, walk):
        def lead(point):
            return losses.targeted_margin(losses.logits_of(classifier, point), label, target)

        point = walk.point
        ahead, gradient = jax.value_and_grad(lead)(point)
        gradient = jnp.nan_to_num(gradient)
        step = to_hyperplane(point, gradient, -ahead, self.norm)
        gap = -(ahead + jnp.sum(gradient * (image - point)))
        step_from_image = to_hyperplane(image, gradient, gap, self.norm)
        lengths = (self.norm.measure(step), self.norm.measure(step_from_image))
        share = jnp.minimum(lengths[0] / jnp.maximum(sum(lengths), _SMALLEST), _LARGEST_SHARE)
        onward = (1.0 - share) * (point + _OVERSHOOT * step) + share * (
            image + _OVERSHOOT * step_from_image
        )
        onward = jnp.clip(onward, 0.0, 1.0)
        crossed = losses.misclassified(losses.logits_of(classifier, onward), label)
        distance = self.norm.measure(onward - image)
        candidate = search.Candidate(
            onward,
            crossed & (distance <= self.epsilon),
            jnp.where(crossed, -distance, -jnp.inf).astype(jnp.float32),
        )
        # Across the boundary it comes back towards the image.
        point = jnp.where(crossed, image + _BACKWARD * (onward - image), onward)
        return _Walk(point, walk.taken + 1), candidate

    @property
    def length(self):
        return self.steps


@per_image(static=("steps", "norm", "targets"), check=minimum_norm.check_minimum_norm)
def fab(
    classifier: AnyClassifier,
    images: Images,
    labels: Labels,
    *,
    key: jax.Array | None = None,
    epsilon: Number | None = None,
    norm: str | norms.Norm = "linf",
    steps: int = 100,
    targets: int = 9,
    batch_size: int | None = None,
) -> jax.Array:
    """Fast adaptive boundary attack, targeted (FAB-T; Croce & Hein 2020): the nearest image.

    Each step goes to the hyperplane on which the linearised logits of label and target are equal,
    a little beyond, and drawn towards the original image; after a success it comes back a tenth of
    the way. The targets are the nearest classes by the logits, one after the other.

    Args:
      classifier: callable pytree from one image to logits (k,).
      images: (h, w, c) or (n, h, w, c) in [0, 1].
      labels: () or (n,) integers: the true classes.
      key: not used, as nothing is random; all attacks are called alike.
      epsilon: how far away an image may be, in pixel units. None: as far as need be.
      norm: "linf" or "l2".
      steps: steps over the boundary for each target, at least 1.
      targets: how many classes are aimed at, at least 1.
      batch_size: images at once on each device; None: all.

    Returns:
      Images of the same shape, inside [0, 1]: the nearest misclassified ones that were found
      (`attacks.distances` says how near). Where none was found, or none within `epsilon`, and where
      the image is misclassified itself, the image as it is.

    Raises:
      TypeError, ValueError: for images, labels or options out of their range.

    Example:
      >>> import jax.numpy as jnp
      >>> classifier = lambda image: jnp.stack([image.sum() - 1.2, 0.0])
      >>> nearest = fab(classifier, jnp.full((1, 1, 3), 0.5), 0)
      >>> [round(value, 2) for value in nearest.ravel().tolist()]
      [0.4, 0.4, 0.4]
    """
    del key
    # Of one image, below the decorator; the signature, which users see, allows more types.
    image, label = jnp.asarray(images), jnp.asarray(labels)
    logits = losses.logits_of(classifier, image)
    aims = search.runner_up_classes(logits, label, min(targets, logits.shape[0] - 1))
    boundary = FastBoundary(jnp.inf if epsilon is None else epsilon, steps, norms.get(norm))
    best = search.run(
        boundary, classifier, image, label, jax.random.key(0), aims, until_found=False
    )
    # What is misclassified already is its own nearest image.
    return jnp.where(best.found & ~losses.misclassified(logits, label), best.image, image)
