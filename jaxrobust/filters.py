"""Filters that take something away from an image: spatial detail, texture, its natural colours.

Every filter is `filter(images, *, options)` and returns images. It is written for one image and
takes one or many (`jaxrobust.core.batching`); borders and kernels are those of OpenCV.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxrobust.core import batching, named
from jaxrobust.core.batching import per_image
from jaxrobust.core.checks import check_count, check_number, is_concrete
from jaxrobust.core.types import Images, Method, Number, Pixels

# Below this many pixels a Gaussian is 1 at its centre and 0 elsewhere, in float64 as well.
_SMALLEST_SIGMA = 0.01

# A sorting network for a kernel above this takes long to compile: 15 many seconds, 17 minutes.
_LARGEST_NETWORK = 11


def _check_kernel_size(kernel_size: Any) -> None:
    check_count("kernel_size", kernel_size)
    if kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd, got {kernel_size}.")


def _check_number(name: str, value: Any) -> np.dtype:
    dtype = value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype
    if not (jnp.issubdtype(dtype, np.floating) or jnp.issubdtype(dtype, np.integer)):
        raise TypeError(f"{name} must be a number, got {value!r}.")
    if np.shape(value) != ():
        raise ValueError(f"{name} must be one number, got shape {np.shape(value)}.")
    return dtype


def _check_gaussian_blur(*, sigma, kernel_size):
    _check_kernel_size(kernel_size)
    _check_number("sigma", sigma)
    check_number("sigma", sigma)


def _check_median_filter(*, kernel_size, times):
    _check_kernel_size(kernel_size)
    dtype = _check_number("times", times)
    if is_concrete(times):
        check_count("times", np.asarray(times).item(), least=0)
    elif not jnp.issubdtype(dtype, np.integer):
        raise TypeError(f"times must be a whole number, got dtype {dtype}.")


def _check_reverse_colors(*, mean):
    if is_concrete(mean):
        values = np.asarray(mean)
        if not jnp.issubdtype(values.dtype, np.number):
            raise TypeError(f"mean must be numbers, one a channel, got {mean!r}.")
        if values.ndim > 1 or values.size == 0:
            raise ValueError(f"mean must be one number, or one a channel, got {values.tolist()}.")
        if not np.all((values >= 0) & (values <= 1)):
            raise ValueError(f"mean must lie in [0, 1], got {values.tolist()}.")


def _rows(image: Images) -> jax.Array:
    """(h, w, c) as (h, w c): XLA vectorises the last axis, and channels are few."""
    return jnp.reshape(image, (image.shape[0], -1))


def _padded(rows: jax.Array, axis: int, step: int, radius: int, mode: str) -> jax.Array:
    """Rows with `radius` more pixels, each `step` long, at both ends of an axis."""
    size = rows.shape[axis] // step
    order = np.pad(np.arange(size), radius, mode=mode)  # type: ignore[call-overload]
    before, after = (
        [lax.slice_in_dim(rows, i * step, (i + 1) * step, axis=axis) for i in outside]
        for outside in (order[:radius], order[radius + size :])
    )
    # One array in memory: else XLA cuts every shift out of a copy of its own.
    return lax.optimization_barrier(jnp.concatenate([*before, rows, *after], axis))


def _shifts(padded: jax.Array, axis: int, step: int, count: int) -> list[jax.Array]:
    """What lies at each of `count` neighbouring positions of the window along an axis."""
    length = padded.shape[axis] - (count - 1) * step
    return [lax.slice_in_dim(padded, i * step, i * step + length, axis=axis) for i in range(count)]


@per_image(static=("kernel_size",), check=_check_gaussian_blur)
def gaussian_blur(
    images: Images, *, sigma: Number, kernel_size: int = 7, batch_size: int | None = None
) -> jax.Array:
    """Blur with a Gaussian, as `cv2.GaussianBlur` does with its default border (reflect 101).

    The kernel is exp(-x² / 2 sigma²) at whole pixels, cut off at `kernel_size` and normalised to
    sum 1. Unlike OpenCV, for which a sigma of 0 stands for one guessed from the kernel's size, 0 is
    exactly the identity.

    Args:
      images: (h, w, c) or (n, h, w, c) floats in [0, 1], of any size.
      sigma: standard deviation in pixels, at least 0. Traced: a sweep compiles once.
      kernel_size: pixels along each side of the kernel, odd. The paper's 7 cuts a sigma of 3 off at
        1.2 standard deviations; 6 sigma + 1 hold nearly all of a Gaussian.
      batch_size: images at once on each device; None: all.

    Returns:
      Images of the same shape.

    Raises:
      TypeError, ValueError: for images or options out of their range.

    Example:
      >>> import jax.numpy as jnp
      >>> dot = jnp.zeros((1, 5, 1)).at[0, 2, 0].set(1.0)
      >>> [f"{value:.3f}" for value in gaussian_blur(dot, sigma=0.5, kernel_size=3).ravel()]
      ['0.000', '0.107', '0.787', '0.107', '0.000']
    """
    radius = kernel_size // 2
    offsets = jnp.arange(-radius, radius + 1, dtype=images.dtype)
    kernel = jnp.exp(-0.5 * jnp.square(offsets / jnp.maximum(sigma, _SMALLEST_SIGMA)))
    kernel = (kernel / kernel.sum()).astype(images.dtype)
    rows = blurred = _rows(images)
    for axis, step in ((0, 1), (1, images.shape[-1])):
        shifts = _shifts(_padded(blurred, axis, step, radius, "reflect"), axis, step, kernel_size)
        blurred = functools.reduce(jnp.add, map(jnp.multiply, kernel, shifts))
    return jnp.where(sigma == 0, rows, blurred).reshape(images.shape)


def _merge(low: Sequence[jax.Array], high: Sequence[jax.Array]) -> list[jax.Array]:
    """Two sorted lists of arrays as one, elementwise: Batcher's odd-even merge."""
    if not low or not high:
        return [*low, *high]
    if len(low) == len(high) == 1:
        return [jnp.minimum(low[0], high[0]), jnp.maximum(low[0], high[0])]
    first, *even = _merge(low[::2], high[::2])
    odd = _merge(low[1::2], high[1::2])
    merged = [first]
    for a, b in zip(even, odd, strict=False):
        merged += [jnp.minimum(a, b), jnp.maximum(a, b)]
    common = min(len(even), len(odd))
    return [*merged, *even[common:], *odd[common:]]


def _sort(values: Sequence[jax.Array]) -> list[jax.Array]:
    if len(values) < 2:
        return list(values)
    half = len(values) // 2
    return _merge(_sort(values[:half]), _sort(values[half:]))


def _median(columns: Sequence[Sequence[jax.Array]]) -> jax.Array:
    """The elementwise median of an odd number of arrays, given in sorted columns.

    Columns are merged two by two, and after each merge what can no longer be the median is
    forgotten. What only the forgotten ones needed, XLA removes from the program: of 25 values 188
    minima and maxima are left (a table of the best network known has 174, and is not faster).
    """
    total = sum(map(len, columns))
    rank = total // 2
    # Of each part the sorted candidates, the rank in the part of the first, and the part's size.
    parts = [(list(column), 0, len(column)) for column in columns]
    while len(parts) > 2:
        merged = []
        for (low, skip_low, size_low), (high, skip_high, size_high) in zip(
            parts[::2], parts[1::2], strict=False
        ):
            size, skip = size_low + size_high, skip_low + skip_high
            start = max(skip, rank - (total - size))
            kept = _merge(low, high)[start - skip : min(size - 1, rank) + 1 - skip]
            merged.append((kept, start, size))
        parts = merged + parts[len(parts) // 2 * 2 :]
    (low, skip_low, _), (high, skip_high, _) = parts
    # The smallest bound on as many values as the median has at or below it, from both lists.
    count = rank + 1 - skip_low - skip_high
    bounds = []
    for i in range(max(0, count - len(high)), min(len(low), count) + 1):
        last = [*low[i - 1 : i], *high[count - i - 1 : count - i]] if i else [high[count - 1]]
        bounds.append(functools.reduce(jnp.maximum, last))
    return functools.reduce(jnp.minimum, bounds)


def _padded_square(rows: jax.Array, kernel_size: int, channels: int) -> jax.Array:
    return _padded(
        _padded(rows, 1, channels, kernel_size // 2, "edge"), 0, 1, kernel_size // 2, "edge"
    )


def _columns(padded: jax.Array, kernel_size: int, channels: int) -> list[list[jax.Array]]:
    """For each column of the window and each row in it, the pixels of all windows there."""
    columns = _shifts(padded, 1, channels, kernel_size)
    return [_shifts(column, 0, 1, kernel_size) for column in columns]


def _over_window(kernel_size: int, channels: int, step: Callable, initial: Any) -> Any:
    """`step(start, carry)` for each place in the window, as a loop: nothing to compile for each."""

    def at(place, carry):
        return step((place // kernel_size, place % kernel_size * channels), carry)

    return lax.fori_loop(0, kernel_size**2, at, initial)


def _median_by_counting(rows: jax.Array, kernel_size: int, channels: int) -> jax.Array:
    """Of integers, bit by bit: the largest number below which no more than half a window lies."""
    padded = _padded_square(rows, kernel_size, channels)
    bits = jnp.iinfo(rows.dtype).bits

    def refine(i, found):
        candidate = found ^ lax.shift_left(
            jnp.ones((), rows.dtype), (bits - 1 - i).astype(rows.dtype)
        )

        def count(start, below):
            return below + (lax.dynamic_slice(padded, start, rows.shape) < candidate)

        below = _over_window(kernel_size, channels, count, jnp.zeros_like(rows))
        return jnp.where(below <= kernel_size**2 // 2, candidate, found)

    return lax.fori_loop(0, bits, refine, jnp.full_like(rows, jnp.iinfo(rows.dtype).min))


def _median_once(rows: jax.Array, kernel_size: int, channels: int) -> jax.Array:
    if kernel_size > _LARGEST_NETWORK:
        return _median_by_counting(rows, kernel_size, channels)
    padded = _padded_square(rows, kernel_size, channels)
    return _median([_sort(column) for column in _columns(padded, kernel_size, channels)])


def _ordered(bits: jax.Array) -> jax.Array:
    """Integers in the order of the floats of these bits; its own inverse."""
    return bits ^ ((bits >> (bits.dtype.itemsize * 8 - 1)) & jnp.iinfo(bits.dtype).max)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _median_times(kernel_size: int, image: jax.Array, times: jax.Array) -> jax.Array:
    # As integers: their minimum is one instruction, that of floats has to see to NaN (on CPU, four
    # times slower).
    integer = jnp.int64 if image.dtype == jnp.float64 else jnp.int32
    rows = _ordered(lax.bitcast_convert_type(_rows(image), integer))
    rows = lax.fori_loop(
        0, times, lambda _, rows: _median_once(rows, kernel_size, image.shape[-1]), rows
    )
    return lax.bitcast_convert_type(_ordered(rows), image.dtype).reshape(image.shape)


def _median_times_forward(kernel_size, image, times):
    return _median_times(kernel_size, image, times), (image, times)


def _median_times_backward(kernel_size, residuals, gradient):
    image, times = residuals

    def back(i, gradient):
        # Computed again each time: how many there are is not known when the program is compiled.
        before = _median_times(kernel_size, image, times - 1 - i)
        after = _rows(_median_times(kernel_size, before, 1))
        channels = image.shape[-1]
        padded, fold = jax.vjp(
            lambda rows: _padded_square(rows, kernel_size, channels), _rows(before)
        )

        def hits(start):
            return lax.dynamic_slice(padded, start, after.shape) == after

        # The pixels of a window that equal its median share the gradient.
        def count(start, total):
            return total + hits(start)

        def spread(start, gathered):
            here = lax.dynamic_slice(gathered, start, after.shape)
            return lax.dynamic_update_slice(
                gathered, here + jnp.where(hits(start), share, 0), start
            )

        total = _over_window(kernel_size, channels, count, jnp.zeros_like(after))
        share = gradient / jnp.maximum(total, 1)
        return fold(_over_window(kernel_size, channels, spread, jnp.zeros_like(padded)))[0]

    gradient = lax.fori_loop(0, times, back, _rows(gradient)).reshape(image.shape)
    return gradient, np.zeros(np.shape(times), jax.dtypes.float0)


_median_times.defvjp(_median_times_forward, _median_times_backward)


@per_image(static=("kernel_size",), check=_check_median_filter)
def median_filter(
    images: Images, *, kernel_size: int = 5, times: Number = 1, batch_size: int | None = None
) -> jax.Array:
    """Replace each pixel by the median of the square around it, each channel apart.

    Equal to `cv2.medianBlur` on float32 pictures, to the last bit: at the border the outermost
    pixels are repeated. A NaN counts as larger than every number (smaller when its sign is set), so
    it shows only where most of a window is NaN. The gradient goes to the pixels that are their
    window's median; it exists in reverse mode (`jax.grad`, `jax.vjp`) alone.

    On CPU, a `batch_size` of about 400,000 values (2 images of 224 x 224 x 3) is fastest: what is
    being filtered then stays in the cache.

    Args:
      images: (h, w, c) or (n, h, w, c) floats in [0, 1], of any size.
      kernel_size: pixels along each side of the square, odd. The work grows with its square; from
        13 on it is done in loops, which compile at once and take ten times as long.
      times: how many times the filter is applied, at least 0. Traced: a sweep compiles once.

    Returns:
      Images of the same shape; with `times=0` the images themselves.

    Raises:
      TypeError, ValueError: for images or options out of their range.

    Example:
      >>> import jax.numpy as jnp
      >>> line = jnp.array([0.0, 0.0, 1.0, 0.0, 1.0, 1.0]).reshape(1, 6, 1)
      >>> median_filter(line, kernel_size=3).ravel().tolist()
      [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    """
    if kernel_size == 1:
        return jnp.asarray(images)
    return _median_times(kernel_size, images, times)


@per_image(check=_check_reverse_colors)
def reverse_colors(
    images: Images, *, mean: Pixels = (0.485, 0.456, 0.406), batch_size: int | None = None
) -> jax.Array:
    """Mirror the pixel values about the mean, 2 mean - x, and clip them to [0, 1] (Table 2).

    Args:
      images: (h, w, c) or (n, h, w, c) floats in [0, 1].
      mean: one value a channel (or one for all), in [0, 1]; by default ImageNet's. Traced.
      batch_size: images at once on each device; None: all.

    Returns:
      Images of the same shape.

    Raises:
      TypeError, ValueError: for images or a mean out of their range, or of other channels.

    Example:
      >>> import jax.numpy as jnp
      >>> reverse_colors(jnp.array([[[0.25, 0.5, 1.0]]]), mean=(0.5, 0.5, 0.25)).tolist()
      [[[0.75, 0.5, 0.0]]]
    """
    center = jnp.asarray(mean, images.dtype)
    if center.shape not in ((), images.shape[-1:]):
        raise ValueError(
            f"mean must be one value for each of the images' {images.shape[-1]} channels, "
            f"got shape {center.shape}."
        )
    return jnp.clip(2 * center - images, 0, 1)


FILTERS: dict[str, Method] = {
    "gaussian_blur": gaussian_blur,
    "median_filter": median_filter,
    "reverse_colors": reverse_colors,
}


def get(name: str) -> Method:
    """The filter of that name, as configs give it.

    Raises:
      ValueError: for an unknown name.

    Example:
      >>> get("median_filter") is median_filter
      True
    """
    return named.get("filter", FILTERS, name)


def check_options(name: str, options: dict[str, Any]) -> None:
    """Raise now what `get(name)(images, **options)` would raise about its options.

    Raises:
      TypeError, ValueError: for an unknown filter or option, a missing one, or a value out of its
        range.
    """
    method = get(name)
    batching.check_options(method, named.complete(name, method, options))
