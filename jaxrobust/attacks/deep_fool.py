"""DeepFool: from boundary to boundary of the linearised network (Moosavi-Dezfooli et al. 2016)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrobust.attacks import losses, minimum_norm, norms, search
from jaxrobust.core.batching import per_image
from jaxrobust.core.checks import check_number
from jaxrobust.core.types import AnyClassifier, Images, Labels, Number

# On the boundary itself the way to it is 0: each step is at least this share of the way so far,
# or of a pixel's range, so that it gets across.
_LEAST_SHARE, _LEAST_STEP = 1e-4, 1e-6
# Of a gradient that is 0, so that its boundary is far away.
_TINY = 1e-20


class _Walk(NamedTuple):
    total: jax.Array  # the steps so far, without overshoot, which may leave the box
    point: jax.Array  # where the network is called next, in the box
    crossed: jax.Array
    taken: jax.Array


def _check(*, overshoot, **options):
    check_number("overshoot", overshoot)
    minimum_norm.check_minimum_norm(**options)


@per_image(static=("norm", "steps", "candidates"), check=_check)
def deepfool(
    classifier: AnyClassifier,
    images: Images,
    labels: Labels,
    *,
    key: jax.Array | None = None,
    epsilon: Number | None = None,
    norm: str | norms.Norm = "l2",
    steps: int = 50,
    overshoot: Number = 0.02,
    candidates: int = 10,
    batch_size: int | None = None,
) -> jax.Array:
    """DeepFool (Moosavi-Dezfooli et al. 2016, algorithm 2): a near image in a few steps.

    Each step linearises the network and goes to the nearest of the hyperplanes on which the label's
    logit equals another class's: |f| / ‖w‖* away, with w the difference of the gradients and ‖·‖*
    the dual norm (equations 8 to 11). The image is moved by all steps so far, times
    1 + `overshoot`, clipped to the box, and the first misclassified one is the result. It is fast
    and no more than near: `fab` and `carlini_wagner` find nearer ones.

    Args:
      classifier: callable pytree from one image to logits (k,), of at least two classes.
      images: (h, w, c) or (n, h, w, c) in [0, 1].
      labels: () or (n,) integers: the true classes.
      key: not used, as nothing is random; all attacks are called alike.
      epsilon: how far away an image may be, in pixel units. None: as far as need be.
      norm: "l2" or "linf".
      steps: at least 1.
      overshoot: how far beyond the boundary it goes, in units of the way; at least 0.
      candidates: how many classes are considered, those that come next to the label by the logits
        of the original image; at least 1. Each costs a backward pass in every step.
      batch_size: images at once on each device, times `candidates` gradients; None: all.

    Returns:
      Images of the same shape, inside [0, 1]: the first misclassified ones (`attacks.distances`
      says how near). Where none was found, or none within `epsilon`, the image as it is.

    Raises:
      TypeError, ValueError: for images, labels or options out of their range.

    Example:
      >>> import jax.numpy as jnp
      >>> classifier = lambda image: jnp.stack([image.sum() - 1.2, 0.0])
      >>> near = deepfool(classifier, jnp.full((1, 1, 3), 0.5), 0, overshoot=0.1)
      >>> [round(value, 2) for value in near.ravel().tolist()]
      [0.39, 0.39, 0.39]
    """
    del key
    # Of one image, below the decorator; the signature, which users see, allows more types.
    image, label = jnp.asarray(images), jnp.asarray(labels)
    ball = norms.get(norm)
    dual = norms.l1 if ball.name == "linf" else norms.l2
    logits = losses.logits_of(classifier, image)
    count = logits.shape[0]
    others = search.runner_up_classes(logits, label, min(candidates, count - 1))
    differences = jax.nn.one_hot(others, count, dtype=logits.dtype)
    differences -= jax.nn.one_hot(label, count, dtype=logits.dtype)

    def step(walk):
        logits, pull_back = jax.vjp(lambda point: losses.logits_of(classifier, point), walk.point)
        normals = jnp.nan_to_num(jax.vmap(lambda difference: pull_back(difference)[0])(differences))
        ways = jnp.abs(logits[label] - logits[others])
        ways /= jnp.maximum(jax.vmap(dual.measure)(normals), _TINY)
        nearest = jnp.argmin(ways)
        least = _LEAST_SHARE * ball.measure(walk.total) + _LEAST_STEP
        length = jnp.maximum(ways[nearest], least)
        normal = normals[nearest]
        total = walk.total + length * ball.steepest(normal, normal != 0)
        moved = jnp.clip(image + (1.0 + overshoot) * total, 0.0, 1.0)
        crossed = losses.misclassified(logits, label)
        point = jnp.where(crossed, walk.point, moved)
        return _Walk(total, point, crossed, walk.taken + 1)

    def going_on(walk):
        # The last call of the network only looks at what the last step came to.
        return ~walk.crossed & (walk.taken <= steps)

    start = _Walk(jnp.zeros_like(image), image, jnp.asarray(False), jnp.zeros((), jnp.int32))
    end = jax.lax.while_loop(going_on, step, start)
    return minimum_norm.within(end.point, image, found=end.crossed, norm=ball, epsilon=epsilon)
