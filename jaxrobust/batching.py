"""One image in, one or many images through: the decorator that lifts every method.

Attacks, sensitivity maps and filters are written as pure functions of one (height, width, channels)
image. `per_image` compiles such a function and makes it take a batch as well, with the memory that
it needs bounded by `batch_size`.
"""

import functools
import inspect
from collections.abc import Callable, Hashable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

# The name of the axis over the images of a batch: a model may ask for statistics across it.
BATCH_AXIS = "images"

# How many pixels a method that evaluates many samples of an image handles at once unless told: 32
# images of 224 x 224, about 1.2 GiB for the gradient of a ResNet-50 in float32.
PIXELS_AT_ONCE = 32 * 224 * 224

# What a method takes for each image, and what its user calls it.
_PLURALS = {"image": "images", "label": "labels", "saliency_map": "saliency_maps"}


def is_concrete(value: Any) -> bool:
    """Whether the numbers in `value` are known now, that is, not traced by jit, vmap or grad."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


class ArrayPytree:
    """Base of the callable pytrees whose leaves are all arrays: they go through jit as they are."""


class Static:
    """A value that is part of the program; unlike in Python, 1, 1.0 and True are three values."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: Any) -> bool:
        return type(self.value) is type(other.value) and self.value == other.value

    def __hash__(self) -> int:
        try:
            return hash((type(self.value), self.value))
        except TypeError as error:
            raise TypeError(
                f"what is no array is part of the program and must be hashable, got {self.value!r}."
            ) from error


def split_arrays(tree: Any) -> tuple[list, tuple]:
    """The arrays of a pytree, which are traced, and the rest of it, which is static."""
    leaves, structure = jax.tree.flatten(tree)
    arrays, static = [], []
    for leaf in leaves:
        is_array = isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)
        static.append(None if is_array else Static(leaf))
        if is_array:
            arrays.append(leaf)
        else:
            hash(static[-1])  # raises now, in a sentence
    return arrays, (structure, tuple(static))


def join_arrays(arrays: Any, rest: tuple) -> Any:
    """The pytree that `split_arrays` took apart."""
    structure, static = rest
    remaining = iter(arrays)
    return structure.unflatten([next(remaining) if leaf is None else leaf.value for leaf in static])


@flax.struct.dataclass(eq=False)
class Callee(ArrayPytree):
    """Any callable pytree, its arrays as leaves; put together anew wherever it is called.

    So it belongs to the trace in which it is called, which NNX modules insist on, and its flags and
    functions need not be arrays.
    """

    arrays: list
    rest: tuple = flax.struct.field(pytree_node=False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return join_arrays(self.arrays, self.rest)(*args, **kwargs)

    @property
    def kind(self) -> str:
        """What the callable is, for a sentence."""
        return type(join_arrays(self.arrays, self.rest)).__name__

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("arrays", "rest"):
            raise AttributeError(name)
        return getattr(join_arrays(self.arrays, self.rest), name)


def as_pytree(classifier: Callable) -> Callable:
    """The classifier as a callable pytree of arrays; all else of it is static.

    A plain Python function is static altogether: what it closes over is fixed when it is first
    traced, as for `jax.jit`.

    Raises:
      TypeError: when it cannot be called.
    """
    if not callable(classifier):
        raise TypeError(
            "classifier must be a function of one image that returns logits, "
            f"got a {type(classifier).__name__}."
        )
    if isinstance(classifier, ArrayPytree):
        return classifier
    return Callee(*split_arrays(classifier))


def check_number(name: str, value: Any, least: float = 0.0) -> None:
    """Raise unless an option is one finite number of at least `least`, or traced.

    Raises:
      TypeError: when it is no number.
      ValueError: when it is out of range.
    """
    if not is_concrete(value):
        return
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}.") from None
    if not least <= number < float("inf"):
        raise ValueError(f"{name} must be a finite number of at least {least:g}, got {number:g}.")


@jax.jit
def _logits(classifier, image):
    # Mapped, as the methods call it: the model may ask for statistics across the batch.
    return jax.tree.map(
        lambda logits: logits[0], jax.vmap(classifier, axis_name=BATCH_AXIS)(image[None])
    )


def num_classes(classifier: Callable, image_shape: tuple[int, ...], dtype: Any = None) -> int:
    """How many logits the classifier gives for one image of this shape; traced once, never run.

    Raises:
      ValueError: when one image does not give a vector of logits.
    """
    image = jax.ShapeDtypeStruct(tuple(image_shape), dtype or jnp.float32)
    try:
        logits = _logits.eval_shape(as_pytree(classifier), image)
    except Exception as error:
        error.add_note(
            f"jaxrobust called the classifier with one image of shape {tuple(image_shape)}; "
            "wrap a model that expects a batch with as_classifier(apply, variables, batched=True)."
        )
        raise
    if getattr(logits, "ndim", None) != 1:
        raise ValueError(
            f"classifier must map one image of shape {tuple(image_shape)} to logits of shape "
            f"(classes,), got {jax.tree.map(lambda leaf: leaf.shape, logits)}."
        )
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
    if key.ndim and (count is None or key.shape != (count,)):
        images = "one image" if count is None else f"{count} images"
        raise ValueError(
            f"key must be one key, or one for each of {images}, got shape {key.shape}."
        )
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


def check_images(images: Any, *, unit_range: bool = True) -> jax.Array:
    """The images as an array, after checking rank, dtype and (when concrete) range.

    Raises:
      TypeError: when they are not floating point.
      ValueError: when they are neither (h, w, c) nor (n, h, w, c), are empty, or leave [0, 1].
    """
    dtype = getattr(images, "dtype", None)
    if dtype is None:
        images = np.asarray(images)
        dtype = images.dtype
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"images must be floating point in [0, 1], got dtype {dtype}"
            + ("; divide uint8 pictures by 255." if dtype == np.uint8 else ".")
        )
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise ValueError(
            "images must have shape (height, width, channels) or (n, height, width, channels), "
            f"got {tuple(images.shape)}."
        )
    images = jnp.asarray(images)
    if images.dtype.itemsize < 4:
        images = images.astype(jnp.float32)  # an epsilon of 8/255 is lost in bfloat16
    if unit_range and is_concrete(images):
        low, high, numbers, _ = _extremes(images)
        if not numbers:
            raise ValueError("images must lie in [0, 1], got NaN.")
        if not (low >= 0.0 and high <= 1.0):
            raise ValueError(f"images must lie in [0, 1], got values from {low:g} to {high:g}.")
    return images


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
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels must be integers, got dtype {labels.dtype}.")
    expected = () if count is None else (count,)
    if labels.shape != expected:
        raise ValueError(f"labels must have shape {expected}, got {labels.shape}.")
    if is_concrete(labels):
        low, high, *_ = _extremes(labels)
        if low < 0 or high >= classes:
            raise ValueError(
                f"labels must lie in [0, {classes}), the classifier's classes, "
                f"got {low if low < 0 else high}."
            )
    return jnp.asarray(labels, jnp.int32)


def check_maps(maps: Any, shape: tuple[int, ...]) -> jax.Array:
    """The saliency maps as an array, after checking that they are floats of the images' shape.

    Raises:
      TypeError: when they are not floating point.
      ValueError: when they have another shape, or (when concrete) are not finite.
    """
    maps = maps if hasattr(maps, "dtype") else np.asarray(maps)
    if not jnp.issubdtype(maps.dtype, jnp.floating):
        raise TypeError(f"saliency_maps must be floating point, got dtype {maps.dtype}.")
    if maps.shape != shape:
        raise ValueError(f"saliency_maps must have the images' shape {shape}, got {maps.shape}.")
    maps = jnp.asarray(maps)
    if is_concrete(maps) and not _extremes(maps)[3]:
        raise ValueError("saliency_maps must be finite, got NaN or infinity.")
    return maps


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raise unless an option is a whole number of at least `least`.

    Raises:
      ValueError: naming the option.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}.")


def _lifted_signature(parameters) -> inspect.Signature:
    """The method's signature as its users see it: plural images and labels, and `batch_size`."""
    lifted = [
        parameter.replace(name=_PLURALS.get(name, name))
        for name, parameter in parameters.items()
        if name != "sample_chunk"
    ]
    batch_size = inspect.Parameter("batch_size", inspect.Parameter.KEYWORD_ONLY, default=None)
    return inspect.Signature([*lifted, batch_size])


def batch_partition(images: jax.Array) -> tuple[Any, Any] | None:
    """The mesh and the mesh axes that cut the images apart, when they lie on several devices."""
    if not is_concrete(images) or not isinstance(images.sharding, NamedSharding):
        return None
    spec = images.sharding.spec
    if not spec or spec[0] is None or images.sharding.num_devices == 1:
        return None
    if jax.sharding.AxisType.Explicit in images.sharding.mesh.axis_types:
        raise ValueError(
            f"images must be sharded over a mesh of Auto axes, got {images.sharding.mesh}: make it "
            "with jax.make_mesh(shape, names, (jax.sharding.AxisType.Auto,) * len(names))."
        )
    return images.sharding.mesh, spec[0]


def map_in_chunks(
    one: Callable, mapped: Any, chunk: int | None, axis_name: str | None = None
) -> Any:
    """`one` over the leading axis of every leaf of `mapped`, at most `chunk` of them at once."""
    lifted = jax.vmap(one, axis_name=axis_name)
    count = jax.tree.leaves(mapped)[0].shape[0]
    if chunk is None or chunk >= count:
        return lifted(mapped)
    # Chunks of one size, so that the program is compiled once and the padding is shorter than the
    # number of chunks; what pads is the first ones again, and its results are dropped.
    chunks = -(-count // chunk)
    size = -(-count // chunks)
    order = jnp.arange(chunks * size) % count
    cut = jax.tree.map(lambda leaf: leaf[order].reshape(chunks, size, *leaf.shape[1:]), mapped)
    results = jax.lax.map(lifted, cut)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:count], results)


def per_image(
    method: Callable | None = None,
    *,
    static: tuple[str, ...] = (),
    samples: str | None = None,
    unit_range: bool = True,
    check: Callable[..., None] | None = None,
) -> Callable:
    """Lift a method of one image to one or many, compiled, with bounded memory.

    The method's parameters are known by name: `classifier` is a callable pytree; `image`, `label`,
    `saliency_map` and `key` are those of one image. Every other keyword is an option,
    traced (so that a sweep over it compiles once) unless it is listed in `static`. The lifted
    method takes `images` (h, w, c) or (n, h, w, c), `labels` () or (n,), `saliency_maps` like the
    images, `key` one key (split for a batch) or n keys, and the further keyword `batch_size`: the
    largest number of images x samples evaluated at once on each device; unless told, a method with
    `samples` takes as many as come to `PIXELS_AT_ONCE`, any other the batch as it is. A result
    never depends on what else is in its batch.

    Args:
      method: the function of one image.
      static: options that the program depends on (numbers of steps, names, functions).
      samples: the static option that says how many samples of one image the method evaluates; it
        then receives `sample_chunk`, the number of them that it may evaluate at once.
      unit_range: whether images must lie in [0, 1].
      check: called with all options by keyword before anything is traced; raises on bad values.

    Example:
      >>> import jax.numpy as jnp
      >>> @per_image
      ... def brighten(image, *, amount):
      ...   return jnp.minimum(image + amount, 1.0)
      >>> brighten(jnp.zeros((5, 8, 8, 3)), amount=0.5, batch_size=2).shape
      (5, 8, 8, 3)
    """
    if method is None:
        return functools.partial(
            per_image, static=static, samples=samples, unit_range=unit_range, check=check
        )
    parameters = inspect.signature(method).parameters
    has_classifier = "classifier" in parameters
    signature = _lifted_signature(parameters)

    def run(classifier, mapped, traced, *, fixed, chunk, sample_chunk, partition):
        options = dict(fixed) | ({"sample_chunk": sample_chunk} if samples else {})

        def one(classifier, traced, mapped):
            arguments = {"classifier": classifier} if has_classifier else {}
            return method(**arguments, **mapped, **traced, **options)

        if mapped["image"].ndim == 3:
            # A batch of one: the axis over the images is there for whoever asks for it.
            single = jax.tree.map(lambda leaf: leaf[None], mapped)
            result = map_in_chunks(
                lambda part: one(classifier, traced, part), single, None, BATCH_AXIS
            )
            return jax.tree.map(lambda leaf: leaf[0], result)
        if mapped.get("key") is not None and mapped["key"].ndim == 0:
            mapped |= {"key": jax.random.split(mapped["key"], mapped["image"].shape[0])}

        def many(classifier, traced, mapped):
            return map_in_chunks(
                lambda part: one(classifier, traced, part), mapped, chunk, BATCH_AXIS
            )

        if chunk is None or partition is None:
            return many(classifier, traced, mapped)
        # Chunks are cut within each device's own images: nothing is gathered.
        mesh, axes = partition
        return jax.shard_map(
            many,
            mesh=mesh,
            in_specs=(PartitionSpec(), PartitionSpec(), PartitionSpec(axes)),
            out_specs=PartitionSpec(axes),
            check_vma=False,
        )(classifier, traced, mapped)

    run.__name__ = method.__name__  # what profiles and compilation logs show
    run = jax.jit(run, static_argnames=("fixed", "chunk", "sample_chunk", "partition"))

    @functools.wraps(method)
    def lifted(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        options = dict(bound.arguments)
        batch_size = options.pop("batch_size")
        if batch_size is not None:
            check_count("batch_size", batch_size)
        classifier = as_pytree(options.pop("classifier")) if has_classifier else None
        images = check_images(options.pop("images"), unit_range=unit_range)
        count = images.shape[0] if images.ndim == 4 else None
        mapped = {"image": images}
        if check is not None:
            mapped_names = _PLURALS.values()
            check(**{name: options[name] for name in options if name not in mapped_names})
        if "key" in parameters:
            mapped["key"] = check_key(options.pop("key"), count)
        if "label" in parameters:
            classes = num_classes(classifier, images.shape[-3:], images.dtype)
            mapped["label"] = check_labels(options.pop("labels"), count, classes)
        if "saliency_map" in parameters:
            mapped["saliency_map"] = check_maps(options.pop("saliency_maps"), images.shape)
        fixed = tuple((name, options.pop(name)) for name in sorted(static))
        for name, value in fixed:
            if not isinstance(value, Hashable):
                raise TypeError(f"{name} must be hashable, got a {type(value).__name__}.")
        chunk, sample_chunk = batch_size, None
        if samples is not None:
            total = dict(fixed)[samples]
            height, width = images.shape[-3:-1]
            at_once = batch_size or max(1, PIXELS_AT_ONCE // (height * width))
            sample_chunk, chunk = min(total, at_once), max(1, at_once // total)
        return run(
            classifier,
            mapped,
            options,
            fixed=fixed,
            chunk=chunk,
            sample_chunk=sample_chunk,
            partition=batch_partition(images),
        )

    lifted.__signature__ = signature  # type: ignore[attr-defined]
    # For callers who compile the method into a program of their own.
    lifted.static = static  # type: ignore[attr-defined]
    return lifted
