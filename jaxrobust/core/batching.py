"""One image in, one or many images through: the decorator that lifts every method.

Attacks, sensitivity maps and filters are written as pure functions of one (height, width, channels)
image. `per_image` compiles such a function and makes it take a batch as well, with the memory that
it needs bounded by `batch_size`.
"""

import functools
import inspect
from collections.abc import Callable, Hashable, Mapping
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
    check_perturbed,
    is_concrete,
    num_classes,
)
from jaxrobust.core.pytrees import as_pytree
from jaxrobust.core.types import Parameters, Result

# How many pixels a method that evaluates many samples of an image handles at once unless told: 32
# images of 224 x 224, about 1.2 GiB for the gradient of a ResNet-50 in float32.
PIXELS_AT_ONCE = 32 * 224 * 224

# What a method takes for each image; all other arguments are the same for every image.
_FOR_EACH_IMAGE = ("images", "labels", "saliency_maps", "adversarial", "key")


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
    function: Callable, mapped: Any, chunk: int | None, axis_name: str | None = None
) -> Any:
    """The function over the leading axis of every leaf of `mapped`, at most `chunk` at once."""
    lifted = jax.vmap(function, axis_name=axis_name)
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
    *,
    static: tuple[str, ...] = (),
    samples: str | None = None,
    check: Callable[..., None] | None = None,
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Lift a method of one image to one or many, compiled, with bounded memory.

    A method has the signature that its users see. Its body is handed one image (h, w, c) as
    `images` and, where it takes them, its label (), its map, its key, and as `classifier` a
    callable pytree. Every other keyword is an option, traced (so that a sweep over it compiles
    once) unless it is listed in `static`.

    The lifted method takes `images` (h, w, c) or (n, h, w, c), `labels` () or (n,), `saliency_maps`
    and `adversarial` images like the images, and `key` one key (split for a batch) or n keys.
    `batch_size`, which every method takes, is the largest number of images x samples evaluated at
    once on each device; unless told, a method with `samples` takes as many as come to
    `PIXELS_AT_ONCE`, any other the batch as it is. A result never depends on what else is in its
    batch.

    Args:
      static: options that the program depends on (numbers of steps, names, functions).
      samples: the static option that says how many samples of one image the method evaluates; the
        `batch_size` that it is called with is the number of them that it may evaluate at once.
      check: called with all options by keyword before anything is traced; raises on bad values.

    Example:
      >>> import jax.numpy as jnp
      >>> @per_image()
      ... def brighten(images, *, amount, batch_size=None):
      ...   return jnp.minimum(images + amount, 1.0)
      >>> brighten(jnp.zeros((5, 8, 8, 3)), amount=0.5, batch_size=2).shape
      (5, 8, 8, 3)
    """

    def lift(method: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        signature, compiled = inspect.signature(method), _compiled(method)
        if not {"images", "batch_size"} <= signature.parameters.keys():
            raise TypeError(f"{method.__name__}{signature} must take images and batch_size.")

        @functools.wraps(method)
        def lifted(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            arguments = bound.arguments
            batch_size = arguments.pop("batch_size")
            if batch_size is not None:
                check_count("batch_size", batch_size)
            if "classifier" in arguments:
                arguments["classifier"] = as_pytree(arguments["classifier"])
            images = arguments["images"] = check_images(arguments["images"])
            count = images.shape[0] if images.ndim == 4 else None
            if check is not None:
                check(**bound.kwargs)
            if "key" in arguments:
                arguments["key"] = check_key(arguments["key"], count)
            if "labels" in arguments:
                classes = num_classes(arguments["classifier"], images.shape[-3:], images.dtype)
                arguments["labels"] = check_labels(arguments["labels"], count, classes)
            if "saliency_maps" in arguments:
                arguments["saliency_maps"] = check_maps(arguments["saliency_maps"], images.shape)
            if "adversarial" in arguments:
                arguments["adversarial"] = check_perturbed(arguments["adversarial"], images.shape)
            mapped = {name: arguments.pop(name) for name in _FOR_EACH_IMAGE if name in arguments}
            fixed = {name: arguments.pop(name) for name in static}
            for name, value in fixed.items():
                if not isinstance(value, Hashable):
                    raise TypeError(f"{name} must be hashable, got a {type(value).__name__}.")
            chunk = batch_size
            if samples is not None:
                total = fixed[samples]
                height, width = images.shape[-3:-1]
                at_once = batch_size or max(1, PIXELS_AT_ONCE // (height * width))
                fixed["batch_size"], chunk = min(total, at_once), max(1, at_once // total)
            return compiled(mapped, arguments, tuple(fixed.items()), chunk, batch_partition(images))

        vars(lifted).update(static=static, check=check)  # see below
        return lifted

    return lift


def static_options(method: Callable) -> tuple[str, ...]:
    """The options on which the program of a lifted method depends, for programs that contain it."""
    return vars(method)["static"]


def check_options(method: Callable, options: Mapping[str, Any]) -> None:
    """Raise now what a lifted method would raise about its options; `key` counts as given."""
    if "check" not in vars(method):
        name = getattr(method, "__qualname__", method)
        raise ValueError(f"{name} must be lifted by jaxrobust.core.batching.per_image.")
    check = vars(method)["check"]
    if check is not None:
        keyed = "key" in inspect.signature(method).parameters
        check(**({"key": "given when the method runs"} if keyed else {}), **options)


def _compiled(method: Callable) -> Callable:
    """The method of one image over one or many, as a compiled program."""

    def run(mapped, shared, fixed, chunk, partition):
        def many(mapped, shared):
            return map_in_chunks(
                lambda single: method(**single, **shared, **dict(fixed)), mapped, chunk, BATCH_AXIS
            )

        if mapped["images"].ndim == 3:
            # A batch of one: the axis over the images is there for whoever asks for it.
            single = jax.tree.map(lambda leaf: leaf[None], mapped)
            return jax.tree.map(lambda leaf: leaf[0], many(single, shared))
        if mapped.get("key") is not None and mapped["key"].ndim == 0:
            mapped |= {"key": jax.random.split(mapped["key"], mapped["images"].shape[0])}
        if chunk is None or partition is None:
            return many(mapped, shared)
        # Chunks are cut within each device's own images: nothing is gathered.
        mesh, axes = partition
        return jax.shard_map(
            many,
            mesh=mesh,
            in_specs=(PartitionSpec(axes), PartitionSpec()),
            out_specs=PartitionSpec(axes),
            check_vma=False,
        )(mapped, shared)

    run.__name__ = method.__name__  # what profiles and compilation logs show
    return jax.jit(run, static_argnames=("fixed", "chunk", "partition"))
