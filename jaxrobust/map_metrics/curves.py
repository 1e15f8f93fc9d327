"""Deletion and insertion: does the classifier need the pixels that a map says it needs?

Petsiuk et al. 2018, RISE: the probability of a label while the pixels of an image are replaced by a
baseline, the most salient first, or put back into it. A faithful map gives a small area under the
deletion curve and a large one under the insertion curve.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.classifier import mean_pixel
from jaxrobust.core.batching import map_in_chunks, per_image
from jaxrobust.core.checks import check_count
from jaxrobust.core.types import AnyClassifier, Images, Labels

BASELINES = ("mean", "zeros", "blur")
# After RISE, which blurs over 11 pixels with sigma 5 as well (its borders are others).
_BLUR_RADIUS, _BLUR_SIGMA = 5, 5.0


def _check(*, steps, baseline, signed, **_):
    check_count("steps", steps)
    if not callable(baseline) and baseline not in BASELINES:
        raise ValueError(
            f"baseline must be a function of the image or one of {', '.join(BASELINES)}, "
            f"got {baseline!r}."
        )
    if not isinstance(signed, bool):
        raise TypeError(f"signed must be True or False, got {signed!r}.")


def _blur(image: jax.Array) -> jax.Array:
    taps = np.exp(-0.5 * (np.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1) / _BLUR_SIGMA) ** 2)
    taps /= taps.sum()
    for axis in (0, 1):
        size = image.shape[axis]
        around = [(0, 0)] * image.ndim
        around[axis] = (_BLUR_RADIUS, _BLUR_RADIUS)
        padded = jnp.pad(image, around, mode="reflect")
        shifted = [
            jax.lax.slice_in_dim(padded, start, start + size, axis=axis)
            for start in range(len(taps))
        ]
        # Not a matrix product: accelerators round its operands.
        image = (jnp.stack(shifted, -1) * jnp.asarray(taps, image.dtype)).sum(-1)
    return image


def _baseline_image(classifier, image, baseline):
    if callable(baseline):
        replaced = jnp.asarray(baseline(image), image.dtype)
        if replaced.shape != image.shape:
            raise ValueError(
                f"baseline must return an image of shape {image.shape}, got {replaced.shape}."
            )
        return replaced
    if baseline == "zeros":
        return jnp.zeros_like(image)
    if baseline == "blur":
        return _blur(image)
    return jnp.broadcast_to(jnp.asarray(mean_pixel(classifier), image.dtype), image.shape)


def _curve(classifier, start, end, label, saliency_map, steps, signed, at_once):
    """Probability of the label while pixels of `start` are replaced by those of `end`."""
    height, width = start.shape[:2]
    if steps > height * width:
        raise ValueError(
            f"steps must be at most the number of pixels, {height * width}, got {steps}."
        )
    salience = (saliency_map if signed else jnp.abs(saliency_map)).sum(-1).reshape(-1)
    order = jnp.argsort(salience, descending=True, stable=True)
    rank = jnp.zeros_like(order).at[order].set(jnp.arange(order.size)).reshape(height, width, 1)

    def probability(count):
        return jax.nn.softmax(classifier(jnp.where(rank < count, end, start)))[label]

    counts = jnp.asarray(np.arange(steps + 1) * (height * width) // steps, jnp.int32)
    curve = map_in_chunks(probability, counts, at_once)
    orders = jnp.isfinite(salience).all() & (salience.max() > salience.min())
    return jnp.where(orders, curve, jnp.nan)


@per_image(static=("steps", "baseline", "signed"), samples="steps", check=_check)
def deletion_curve(
    classifier: AnyClassifier,
    images: Images,
    labels: Labels,
    saliency_maps: Images,
    *,
    steps: int = 32,
    baseline: str | Callable[[jax.Array], jax.Array] = "mean",
    signed: bool = False,
    batch_size: int | None = None,
) -> jax.Array:
    """Probability of the label as the most salient pixels are removed (Petsiuk et al. 2018).

    A pixel's salience is the sum over channels of the map's absolute values or, with `signed`, of
    its values; pixels of equal salience go row by row.

    Args:
      classifier: callable pytree from one image to logits (k,).
      images: (h, w, c) or (n, h, w, c) in [0, 1].
      labels: () or (n,) integers.
      saliency_maps: of the images' shape, any sign and scale.
      steps: at least 1 and at most h x w; RISE removes 224 pixels of 224 x 224 at a time, that is
        224 steps.
      baseline: what takes a pixel's place: "mean" (the classifier's mean image, as RISE), "zeros"
        (black), "blur" (the image blurred over 11 pixels) or a function of the image (hashable,
        and the same one for all calls, lest the program is compiled anew).
      signed: whether negative values make a pixel less salient than none.

    Returns:
      (steps + 1,) or (n, steps + 1): point k is the probability with floor(k h w / steps) pixels
      removed, from the image itself to the baseline. NaN for a map whose pixels are all equally
      salient or not finite: it gives no order.

    Raises:
      TypeError, ValueError: for images, labels, maps or options out of their range.

    Example:
      >>> import jax.numpy as jnp
      >>> classifier = lambda image: jnp.stack([image.sum(), 0.0])
      >>> image = jnp.array([[[0.25], [1.0]]])
      >>> curve = deletion_curve(classifier, image, 0, image, steps=2, baseline="zeros")
      >>> [round(float(value), 3) for value in curve]  # sigmoid of 1.25, 0.25, 0
      [0.777, 0.562, 0.5]
    """
    end = _baseline_image(classifier, images, baseline)
    return _curve(classifier, images, end, labels, saliency_maps, steps, signed, batch_size)


@per_image(static=("steps", "baseline", "signed"), samples="steps", check=_check)
def insertion_curve(
    classifier: AnyClassifier,
    images: Images,
    labels: Labels,
    saliency_maps: Images,
    *,
    steps: int = 32,
    baseline: str | Callable[[jax.Array], jax.Array] = "blur",
    signed: bool = False,
    batch_size: int | None = None,
) -> jax.Array:
    """Probability of the label as the most salient pixels are put into a baseline.

    Arguments, errors and form of the result as for `deletion_curve`, from the baseline to the image
    itself. The baseline is the blurred image by default, as in RISE: pixels put into a flat picture
    make edges that are not the image's.

    Example:
      >>> import jax.numpy as jnp
      >>> classifier = lambda image: jnp.stack([image.sum(), 0.0])
      >>> image = jnp.array([[[0.25], [1.0]]])
      >>> curve = insertion_curve(classifier, image, 0, image, steps=2, baseline="zeros")
      >>> [round(float(value), 3) for value in curve]  # sigmoid of 0, 1, 1.25
      [0.5, 0.731, 0.777]
    """
    start = _baseline_image(classifier, images, baseline)
    return _curve(classifier, start, images, labels, saliency_maps, steps, signed, batch_size)


def area_under_curve(curves: Images | Sequence[float]) -> float | np.ndarray:
    """The area under deletion or insertion curves, over the share of pixels from 0 to 1.

    Args:
      curves: (points,) or (n, points), at least 2 points at equal distances; trapezoid rule.

    Returns:
      A number or (n,); NaN for a curve that holds NaN.

    Raises:
      ValueError: for another rank or fewer than 2 points.

    Example:
      >>> area_under_curve([1.0, 0.5, 0.0])
      0.5
    """
    curves = np.asarray(curves, np.float64)
    if curves.ndim not in (1, 2) or curves.shape[-1] < 2:
        raise ValueError(
            "curves must have shape (points,) or (n, points) with at least 2 points, "
            f"got {curves.shape}."
        )
    area = np.trapezoid(curves, dx=1 / (curves.shape[-1] - 1), axis=-1)
    return float(area) if curves.ndim == 1 else area
