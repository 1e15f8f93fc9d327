"""One image in, one or many images through: the decorator that lifts every method.

Attacks, sensitivity maps and filters are written as pure functions of one (height, width, channels)
image. `per_image` compiles such a function and makes it take a batch as well, with the memory that
it needs bounded by `batch_size`.
"""

import functools
import inspect
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from jaxrobust.core.checks import (
    BATCH_AXIS,
    check_count,
    check_images,
    check_key,
    check_labels,
    check_maps,
    is_concrete,
    num_classes,
)
from jaxrobust.core.pytrees import as_pytree

# How many pixels a method that evaluates many samples of an image handles at once unless told: 32
# images of 224 x 224, about 1.2 GiB for the gradient of a ResNet-50 in float32.
PIXELS_AT_ONCE = 32 * 224 * 224

# What a method takes for each image, and what its user calls it.
_PLURALS = {"image": "images", "label": "labels", "saliency_map": "saliency_maps"}


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

        def many(classifier, traced, mapped):
            return map_in_chunks(
                lambda part: one(classifier, traced, part), mapped, chunk, BATCH_AXIS
            )

        if mapped["image"].ndim == 3:
            # A batch of one: the axis over the images is there for whoever asks for it.
            single = jax.tree.map(lambda leaf: leaf[None], mapped)
            return jax.tree.map(lambda leaf: leaf[0], many(classifier, traced, single))
        if mapped.get("key") is not None and mapped["key"].ndim == 0:
            mapped |= {"key": jax.random.split(mapped["key"], mapped["image"].shape[0])}

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
