"""What callers hand in, checked in one sentence each, as early as it can be known."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.core.pytrees import as_pytree

# The name of the axis over the images of a batch: a model may ask for statistics across it.
BATCH_AXIS = "images"


def is_concrete(value: Any) -> bool:
    """Whether the numbers in `value` are known now, that is, not traced by jit, vmap or grad."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


def check_that(
    holds: Any, name: str, rule: str, got: Any, error: type[Exception] = ValueError
) -> None:
    """Raise unless something holds; the sentence is put together from the other arguments.

    Example:
      >>> step_size = -1
      >>> check_that(step_size > 0, "step_size", "be above 0", step_size)
      Traceback (most recent call last):
      ValueError: step_size must be above 0, got -1.
    """
    if not holds:
        raise error(f"{name} must {rule}, got {got}.")


def check_type(name: str, value: Any, kind: Any, rule: str) -> None:
    """Raise unless an argument is of a type: a class, or `Callable` and the like.

    Raises:
      TypeError: "name must rule, got a str."
    """
    check_that(isinstance(value, kind), name, rule, f"a {type(value).__name__}", TypeError)


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raise unless an option is a whole number of at least `least`.

    Raises:
      ValueError: naming the option.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    rule = f"be a whole number of at least {least}"
    check_that(whole and value >= least, name, rule, repr(value))


def check_number(name: str, value: Any, least: float = 0.0) -> None:
    """Raise unless an option is one finite number of at least `least`, or traced.

    Raises:
      TypeError: when it is no number.
      ValueError: when it is out of range.
    """
    if not is_concrete(value):
        return
    check_that(not isinstance(value, str), name, "be a number", repr(value), TypeError)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}.") from None
    rule = f"be a finite number of at least {least:g}"
    check_that(least <= number < float("inf"), name, rule, f"{number:g}")


@jax.jit
def _logits(classifier, image):
    """What the classifier gives for one image, for its shape alone: it is traced, never run.

    Twice, as what Python draws while it is traced would be fixed in each program in its own way.
    It is done once for each classifier's structure and image's shape, and compiles nothing.
    """

    def logits(image):
        # Mapped, as the methods call it: the model may ask for statistics across the batch.
        mapped = jax.vmap(classifier, axis_name=BATCH_AXIS)(image[None])
        return jax.tree.map(lambda logits: logits[0], mapped)

    # By a function of its own each, or the first trace would be taken for the second.
    first, shape = jax.make_jaxpr(lambda image: logits(image), return_shape=True)(image)
    second = jax.make_jaxpr(lambda image: logits(image))(image)
    if not _same_program(first, second):
        raise ValueError(
            "classifier must give the same for every call, but two calls with one image were two "
            "programs: it draws random numbers, or counts, outside of JAX."
        )
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shape)


def _same_program(first: Any, second: Any) -> bool:
    """Whether two traces are one program, whatever the addresses of the functions in it."""
    texts = [re.sub(r"0x[0-9a-f]+", "", str(program)) for program in (first, second)]
    return texts[0] == texts[1] and all(
        # What is traced further out is the same where it is one object.
        one is other or (is_concrete((one, other)) and np.array_equal(one, other, equal_nan=True))
        for one, other in zip(first.consts, second.consts, strict=True)
    )


def num_classes(classifier: Callable, image_shape: tuple[int, ...], dtype: Any = None) -> int:
    """How many logits the classifier gives for one image of this shape; traced, never run.

    Raises:
      ValueError: when one image does not give a vector of logits, and when two calls with it would
        not give the same.
    """
    image = jax.ShapeDtypeStruct(tuple(image_shape), dtype or jnp.float32)
    try:
        logits = _logits.eval_shape(as_pytree(classifier), image)
    except Exception as error:
        error.add_note(
            f"jaxrobust called the classifier with one image of shape {tuple(image_shape)}; "
            "wrap a model that expects a batch with as_classifier(apply, variables, batched=True), "
            "one that wants further arguments, as train=False, with functools.partial."
        )
        raise
    if getattr(logits, "ndim", None) != 1:
        raise ValueError(
            f"classifier must map one image of shape {tuple(image_shape)} to logits of shape "
            f"(classes,), got {jax.tree.map(lambda leaf: leaf.shape, logits)}."
        )
    floating = jnp.issubdtype(logits.dtype, jnp.floating)
    check_that(floating, "classifier", "give floating-point logits", logits.dtype, TypeError)
    return logits.shape[0]


def check_key(key: Any, count: int | None) -> jax.Array | None:
    """The key, or the array of `count` keys, as new-style keys; None stays None.

    Raises:
      TypeError: when it is no key; old-style uint32 keys are accepted.
      ValueError: when there are not as many keys as images (`count` None: one image).
    """
    if key is None:
        return None
    dtype = getattr(key, "dtype", None)
    if dtype is None or not (jnp.issubdtype(dtype, jax.dtypes.prng_key) or dtype == jnp.uint32):
        raise TypeError(f"key must be a jax.random.key, got {key!r}.")
    if dtype == jnp.uint32:
        key = jax.random.wrap_key_data(key)
    images = "one image" if count is None else f"{count} images"
    rule = f"be one key, or one for each of {images}"
    check_that(key.shape in ((), (count,)), "key", rule, f"shape {key.shape}")
    return key


@jax.jit
def _summary(array):
    # Whether all is in order is asked apart: on CPU, min and max pass over NaN.
    return jnp.min(array), jnp.max(array), ~jnp.any(jnp.isnan(array)), jnp.all(jnp.isfinite(array))


def _extremes(array: jax.Array) -> tuple[Any, Any, bool, bool]:
    """Smallest and largest of concrete numbers, whether none is NaN, whether all are finite."""
    # A caller's jit may be tracing, which would take the question into its program.
    with jax.ensure_compile_time_eval():
        low, high, numbers, finite = jax.device_get(_summary(array))
    return low.item(), high.item(), bool(numbers), bool(finite)


def check_images(images: Any, name: str = "images") -> jax.Array:
    """The images as an array, after checking rank, dtype and (when concrete) range.

    Raises:
      TypeError: when they are not floating point.
      ValueError: when they are neither (h, w, c) nor (n, h, w, c), are empty, or leave [0, 1].
    """
    images = images if hasattr(images, "dtype") else np.asarray(images)
    floating = jnp.issubdtype(images.dtype, jnp.floating)
    advice = "; divide uint8 pictures by 255" if images.dtype == np.uint8 else ""
    rule = "be floating point in [0, 1]"
    check_that(floating, name, rule, f"dtype {images.dtype}{advice}", TypeError)
    rule = "have shape (height, width, channels) or (n, height, width, channels)"
    filled = images.ndim in (3, 4) and 0 not in images.shape
    check_that(filled, name, rule, tuple(images.shape))
    images = jnp.asarray(images)
    if images.dtype.itemsize < 4:
        images = images.astype(jnp.float32)  # an epsilon of 8/255 is lost in bfloat16
    if is_concrete(images):
        low, high, numbers, _ = _extremes(images)
        got = f"values from {low:g} to {high:g}" if numbers else "NaN"
        check_that(numbers and 0.0 <= low <= high <= 1.0, name, "lie in [0, 1]", got)
    return images


def check_perturbed(adversarial: Any, shape: tuple[int, ...]) -> jax.Array:
    """What an attack made of images of this shape, checked as they are.

    Raises:
      TypeError: when they are not floating point.
      ValueError: when they have another shape, or (when concrete) leave [0, 1].
    """
    adversarial = check_images(adversarial, "adversarial")
    rule = f"have the images' shape {shape}"
    check_that(adversarial.shape == shape, "adversarial", rule, adversarial.shape)
    return adversarial


def check_labels(labels: Any, count: int | None, classes: int) -> jax.Array:
    """The labels as an int32 array, after checking shape, dtype and (when concrete) range.

    Raises:
      TypeError: when they are not integers.
      ValueError: when there is not one label an image, or one is outside [0, classes).
    """
    if not is_concrete(labels):
        labels = jnp.asarray(labels)
    elif not isinstance(labels, jax.Array):
        labels = np.asarray(labels)
    whole = jnp.issubdtype(labels.dtype, jnp.integer)
    check_that(whole, "labels", "be integers", f"dtype {labels.dtype}", TypeError)
    expected = () if count is None else (count,)
    check_that(labels.shape == expected, "labels", f"have shape {expected}", labels.shape)
    if is_concrete(labels):
        low, high, *_ = _extremes(labels)
        rule = f"lie in [0, {classes}), the classifier's classes"
        check_that(0 <= low <= high < classes, "labels", rule, low if low < 0 else high)
    return jnp.asarray(labels, jnp.int32)


def check_maps(maps: Any, shape: tuple[int, ...]) -> jax.Array:
    """The saliency maps as an array, after checking that they are floats of the images' shape.

    Raises:
      TypeError: when they are not floating point.
      ValueError: when they have another shape, or (when concrete) are not finite.
    """
    maps = maps if hasattr(maps, "dtype") else np.asarray(maps)
    floating = jnp.issubdtype(maps.dtype, jnp.floating)
    check_that(floating, "saliency_maps", "be floating point", f"dtype {maps.dtype}", TypeError)
    rule = f"have the images' shape {shape}"
    check_that(maps.shape == shape, "saliency_maps", rule, maps.shape)
    maps = jnp.asarray(maps)
    finite = not is_concrete(maps) or _extremes(maps)[3]
    check_that(finite, "saliency_maps", "be finite", "NaN or infinity")
    return maps
