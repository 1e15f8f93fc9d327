"""Maps that average gradients: over noisy copies of the image, or along a path to it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.classifier import mean_pixel
from jaxrobust.core.batching import per_image
from jaxrobust.core.checks import check_count, check_number, is_concrete
from jaxrobust.core.named import check_choice
from jaxrobust.core.types import AnyClassifier, Images, Labels, Method, Number, Pixels
from jaxrobust.saliency.gradients import logit_gradient, vanilla_gradient

STATISTICS = ("mean", "mean_square", "variance")
RULES = ("left", "right", "midpoint", "trapezoid", "gauss_legendre")


def _weighted_sums(samples: Callable, weights: jax.Array, at_once: int | None) -> Any:
    """The sum of `weights[i] * samples(i)`, with at most `at_once` samples in memory (None: all).

    Args:
      samples: from an index to an array, or to a tuple of them.
      weights: (count,).
    """
    chunks = -(-len(weights) // (at_once or len(weights)))
    size = -(-len(weights) // chunks)  # with the least padding
    padded = jnp.pad(weights, (0, chunks * size - len(weights)))

    def add(chunk, total):
        index = chunk * size + jnp.arange(size)
        values = jax.vmap(samples)(jnp.minimum(index, len(weights) - 1))

        # As a product and a sum: a matrix product would be rounded to bfloat16 on a TPU.
        def weighted(value):
            return jnp.sum(padded[index].reshape(size, *[1] * (value.ndim - 1)) * value, axis=0)

        return jax.tree.map(lambda sums, value: sums + weighted(value), total, values)

    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(samples, jnp.zeros((), jnp.int32)))
    return add(0, zeros) if chunks == 1 else jax.lax.fori_loop(0, chunks, add, zeros)


def _check_smoothgrad(*, key, noise_level, samples, method, statistic):
    if key is None:
        raise ValueError("key must be given for the noise, got None.")
    check_number("noise_level", noise_level)
    check_count("samples", samples)
    check_choice("statistic", statistic, STATISTICS)
    if not callable(method):
        raise TypeError(
            "method must be a function of (classifier, image, label), "
            f"got a {type(method).__name__}."
        )


@per_image(static=("samples", "method", "statistic"), samples="samples", check=_check_smoothgrad)
def smoothgrad(
    classifier: AnyClassifier,
    images: Images,
    labels: Labels,
    *,
    key: jax.Array,
    noise_level: Number = 0.2,
    samples: int = 50,
    method: Method = vanilla_gradient,
    statistic: str = "mean",
    batch_size: int | None = None,
) -> jax.Array:
    """SmoothGrad: the mean map of noisy copies of the image (Smilkov et al. 2017; eq. 16).

    The noise is Gaussian, of standard deviation noise_level x (max - min of the image); noisy
    copies are not clipped to [0, 1]. Sample s draws its noise from `fold_in(key, s)`.

    Args:
      classifier: callable pytree from one image to logits (k,).
      images: (h, w, c) or (n, h, w, c) in [0, 1].
      labels: () or (n,) integers: the classes whose evidence is asked for.
      key: one key, or one for each image.
      noise_level: share of the image's range, at least 0.
      samples: noisy copies, at least 1.
      method: what is averaged, a function of (classifier, image, label) such as
        `vanilla_gradient`, `loss_gradient` or `guided_backprop`.
      statistic: "mean" is the paper's and the original's; "mean_square" is SmoothGrad-squared
        (Hooker et al. 2019), "variance" is VarGrad (Adebayo et al. 2018).
      batch_size: images x samples at once on each device; None: as many as come to
        `batching.PIXELS_AT_ONCE`, 32 at 224 x 224.

    Returns:
      Maps of the images' shape, in the units of `method`'s; squares of them for mean_square and
      variance.

    Raises:
      TypeError, ValueError: for images, labels, key or options that are not what is said above.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> classifier = lambda image: jnp.stack([image.sum(), (image**2).sum()])
      >>> image = jnp.full((1, 1, 3), 0.5)  # of range 0, hence without noise
      >>> smoothgrad(classifier, image, 1, key=jax.random.key(0), samples=4).tolist()
      [[[1.0, 1.0, 1.0]]]
    """
    image, label = images, labels  # those of one image, below the decorator
    deviation = noise_level * (jnp.max(image) - jnp.min(image))

    def noisy_map(sample):
        noise = jax.random.normal(jax.random.fold_in(key, sample), image.shape, image.dtype)
        found = method(classifier, image + deviation * noise, label)
        if jnp.shape(found) != image.shape:
            raise ValueError(
                f"method must return a map of the image's shape {image.shape}, "
                f"got {jnp.shape(found)}."
            )
        return found

    weights = jnp.full(samples, 1.0 / samples, image.dtype)
    if statistic == "mean":
        return _weighted_sums(noisy_map, weights, batch_size)
    if statistic == "mean_square":
        return _weighted_sums(lambda sample: noisy_map(sample) ** 2, weights, batch_size)
    # About one of the maps: sums of squares about zero cancel where the maps hardly vary.
    center = noisy_map(0)

    def moments(sample):
        deviation = noisy_map(sample) - center
        return deviation, deviation**2

    mean, mean_square = _weighted_sums(moments, weights, batch_size)
    return jnp.maximum(mean_square - mean**2, 0)


def _nodes_and_weights(rule: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Where on [0, 1] a rule evaluates, and what each place counts; the weights sum to 1."""
    even = np.arange(steps)
    if rule == "gauss_legendre":
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        return (nodes + 1) / 2, weights / 2
    if rule == "trapezoid":
        weights = np.ones(steps)
        weights[[0, -1]] = 0.5
        return even / (steps - 1), weights / (steps - 1)
    shift = {"left": 0.0, "midpoint": 0.5, "right": 1.0}[rule]
    return (even + shift) / steps, np.full(steps, 1.0 / steps)


def _check_integrated_gradients(*, baseline, steps, rule, multiply_by_input):
    check_count("steps", steps)
    check_choice("rule", rule, RULES)
    if rule == "trapezoid" and steps < 2:
        raise ValueError(f"steps must be at least 2 for the rule trapezoid, got {steps}.")
    if not isinstance(multiply_by_input, bool):
        raise TypeError(f"multiply_by_input must be True or False, got {multiply_by_input!r}.")
    if isinstance(baseline, str):
        raise TypeError(f"baseline must be None, a number or an array, got {baseline!r}.")
    if baseline is not None and is_concrete(baseline) and not np.all(np.isfinite(baseline)):
        raise ValueError("baseline must be finite, got NaN or infinity.")


@per_image(
    static=("steps", "rule", "multiply_by_input"),
    samples="steps",
    check=_check_integrated_gradients,
)
def integrated_gradients(
    classifier: AnyClassifier,
    images: Images,
    labels: Labels,
    *,
    baseline: Pixels | None = None,
    steps: int = 50,
    rule: str = "midpoint",
    multiply_by_input: bool = False,
    batch_size: int | None = None,
) -> jax.Array:
    """Integrated gradients (Sundararajan et al. 2017; eq. 17 of the paper).

    The mean gradient of the class's logit along the straight path from the baseline to the image.
    The paper shows that mean; the standard definition is `multiply_by_input=True`, whose map adds
    up to logit(image) - logit(baseline).

    Args:
      classifier: callable pytree from one image to logits (k,).
      images: (h, w, c) or (n, h, w, c) in [0, 1].
      labels: () or (n,) integers: the classes whose evidence is asked for.
      baseline: a number, (c,) or (h, w, c), the same for all images, in pixel units. None: the mean
        image of a `Classifier`, which its normalisation maps to zero; `as_classifier(…, mean=…)`
        has one as well. (0.0, a black image, is the default elsewhere.)
      steps: gradients along the path, at least 1.
      rule: of quadrature: "midpoint", "left" (the authors'), "right", "trapezoid" or
        "gauss_legendre" (captum's default).
      multiply_by_input: multiply by image - baseline, as the standard definition does.
      batch_size: images x steps at once on each device; None: as many as come to
        `batching.PIXELS_AT_ONCE`, 32 at 224 x 224.

    Returns:
      Maps of the images' shape, in logits per unit of pixel value; in logits with
      `multiply_by_input`.

    Raises:
      TypeError, ValueError: for images, labels or options that are not what is said above; without
        a baseline for a classifier of no known mean image.

    Example:
      >>> import jax.numpy as jnp
      >>> classifier = lambda image: jnp.stack([image.sum(), (image**2).sum()])
      >>> image = jnp.full((1, 1, 3), 0.5)
      >>> integrated_gradients(classifier, image, 1, baseline=0.0).round(5).tolist()
      [[[0.5, 0.5, 0.5]]]
    """
    image, label = images, labels  # those of one image, below the decorator
    start = jnp.asarray(mean_pixel(classifier) if baseline is None else baseline, image.dtype)
    try:
        fits = jnp.broadcast_shapes(start.shape, image.shape) == image.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"baseline must be a number or of shape (c,) or (h, w, c) for images {image.shape}, "
            f"got shape {start.shape}."
        )
    nodes, weights = (jnp.asarray(part, image.dtype) for part in _nodes_and_weights(rule, steps))
    difference = image - start

    def gradient(step):
        return logit_gradient(classifier, start + nodes[step] * difference, label)

    mean = _weighted_sums(gradient, weights, batch_size)
    return mean * difference if multiply_by_input else mean
