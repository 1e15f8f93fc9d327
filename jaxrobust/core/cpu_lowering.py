"""How operations are handed to XLA on CPU: the same operation in the form it compiles best.

XLA's CPU compiler has fast kernels for one form of convolution: NHWC images, HWIO kernels, no
dilation. It brings others into that form where it can, but only outside of loops, and gradients
are others: inside `fori_loop`, `scan` and `lax.map` (an attack's steps, a map averaged over many
samples, anything under `batch_size`) they run about ten times slower than outside. So they are
brought into that form here, before XLA sees them:

- every convolution into the layout of the fast kernels;
- the input gradient of a strided convolution, which convolves dilated images, into a convolution
  of the images themselves that gives the pixels between them as further channels;
- convolutions of many channels into a few, as the input gradient of a network's first layer, into
  one matrix product for all entries of the kernel and the sum of its shifted parts;
- weight gradients into matrix products, where those are the faster ones (`cpu_compiler`).

The gradient of max-pooling becomes shifted comparisons, and a sum over all pixels, as batch
normalisation takes many, two sums, of which the first uses all cores.

Only the *lowering* of these operations for the CPU backend changes, in the whole process: every
model profits, whoever wrote it, and differentiation in either mode, `vmap` and jaxprs stay as they
are. Finite values agree to rounding; NaN may spread to other neighbours. Other backends, complex
and integer numbers and all but two-dimensional convolutions are left alone.
`python -m jaxrobust.experiments.benchmarks.lowering` measures each against what XLA does by itself.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxrobust.core import cpu_compiler

try:
    from jax._src.lax.convolution import _conv_general_dilated_lower as _plain_convolution
    from jax._src.lax.lax import _get_sum_identity, _unary_reduce_lower
    from jax._src.lax.windowed_reductions import _select_and_scatter_add_impl as _plain_scatter
    from jax.extend.core import primitives
    from jax.extend.mlir.dialects import stablehlo
    from jax.interpreters import mlir
except ImportError:  # A jax without these internals is slower on CPU, and as correct.
    mlir = None  # type: ignore[assignment]

FORMULATIONS = ("layout", "phases", "few_features", "weight_gradient", "max_pool", "sum")
_enabled = frozenset(FORMULATIONS)
_CANONICAL = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
# Convolutions into more features fill the vectors of the fast kernels; larger kernels have too many
# parts to sum.
_FEW_FEATURES, _FEW_TAPS = 3, 9
# Sums of fewer values take less time than a second step does.
_LONG_SUM = 2**14


def available() -> bool:
    """Whether this version of jax lets the formulations be installed."""
    return mlir is not None


@contextlib.contextmanager
def only(*formulations: str) -> Iterator[None]:
    """Within it, only these of `FORMULATIONS` are used: without any, operations are lax's own.

    What has been compiled before stays as it is: a function that is to be compiled anew must be
    a new one, or `jax.clear_caches()` must be called.
    """
    global _enabled
    before, _enabled = _enabled, frozenset(formulations)
    try:
        yield
    finally:
        _enabled = before


def _lower_convolution(context: Any, images: Any, kernel: Any, **parameters: Any) -> Any:
    formulation = _formulation(*context.avals_in, **parameters)
    if formulation is None:
        return _plain_convolution(
            context, images, kernel, expand_complex_convolutions=True, **parameters
        )
    return mlir.lower_fun(formulation, multiple_results=False)(context, images, kernel)


def _formulation(
    images: Any,
    kernel: Any,
    *,
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int],
    rhs_dilation: Sequence[int],
    dimension_numbers: lax.ConvDimensionNumbers,
    feature_group_count: int,
    batch_group_count: int,
    precision: Any,
    preferred_element_type: Any,
    **_: Any,
) -> Callable | None:
    """The function that replaces a convolution, or None if it is to stay as it is."""
    image_spec, kernel_spec, output_spec = dimension_numbers
    shapes = (*images.shape, *kernel.shape)
    if (
        "layout" not in _enabled
        or len(image_spec) != 4
        or batch_group_count != 1
        or not jnp.issubdtype(images.dtype, jnp.floating)
        or not all(isinstance(size, int) and size > 0 for size in shapes)
        or any(_explicitly_sharded(operand) for operand in (images, kernel))
    ):
        return None
    window = [kernel.shape[i] for i in kernel_spec[2:]]
    sides = [images.shape[i] for i in image_spec[2:]]
    dilated = [(side - 1) * d + 1 for side, d in zip(sides, lhs_dilation, strict=True)]
    reach = [(k - 1) * d + 1 for k, d in zip(window, rhs_dilation, strict=True)]
    spatial = [
        (size + sum(pad) - r) // stride + 1
        for size, pad, r, stride in zip(dilated, padding, reach, window_strides, strict=True)
    ]
    if min(spatial) < 1:
        return None
    numbers: Any = {"precision": precision, "preferred_element_type": preferred_element_type}
    convolve: Any = functools.partial(
        lax.conv_general_dilated,
        dimension_numbers=_CANONICAL,
        feature_group_count=feature_group_count,
        **numbers,
    )
    whole_kernel = feature_group_count == 1
    every_pixel = max(window_strides) == max(rhs_dilation) == 1
    undilated = max(lhs_dilation) == 1

    def in_layout(images: Any, kernel: Any) -> Any:
        return convolve(
            images,
            kernel,
            window_strides,
            padding,
            lhs_dilation=lhs_dilation,
            rhs_dilation=rhs_dilation,
        )

    chosen = in_layout
    if whole_kernel and undilated and spatial == [1, 1] and "weight_gradient" in _enabled:
        # That of a 1x1 convolution.
        chosen = functools.partial(
            _single_window, padding=padding, dilation=rhs_dilation, reach=reach, numbers=numbers
        )
    elif whole_kernel and every_pixel and not undilated and "phases" in _enabled:
        chosen = functools.partial(
            _phases_as_channels,
            convolve=convolve,
            padding=padding,
            dilation=lhs_dilation,
            spatial=spatial,
        )
    elif (
        whole_kernel
        and every_pixel
        and undilated
        and kernel.shape[kernel_spec[0]] <= _FEW_FEATURES < kernel.shape[kernel_spec[1]]
        and 1 < np.prod(window) <= _FEW_TAPS < np.prod(spatial)
        and "few_features" in _enabled
    ):
        chosen = functools.partial(_few_features, padding=padding, spatial=spatial, numbers=numbers)
    elif (
        whole_kernel
        and every_pixel
        and undilated
        and np.prod(window) > np.prod(spatial)
        and "weight_gradient" in _enabled
        and cpu_compiler.has_onednn()
    ):
        chosen = functools.partial(
            _weight_gradient, padding=padding, spatial=spatial, numbers=numbers
        )
    specs = tuple(map(tuple, dimension_numbers))
    if chosen is in_layout and specs == tuple(_CANONICAL):
        return None
    to_nhwc = [image_spec[i] for i in (0, 2, 3, 1)]
    to_hwio = [kernel_spec[i] for i in (2, 3, 1, 0)]
    # Position in NHWC of each dimension of the output.
    from_nhwc = np.argsort([output_spec[i] for i in (0, 2, 3, 1)]).tolist()

    def formulation(images: Any, kernel: Any) -> Any:
        output = chosen(jnp.transpose(images, to_nhwc), jnp.transpose(kernel, to_hwio))
        return jnp.transpose(output, from_nhwc)

    return formulation


def _single_window(
    images: Any, kernel: Any, *, padding: Any, dilation: Any, reach: Any, numbers: Any
) -> Any:
    """A convolution whose kernel covers the images: (n, h, w, c), (h, w, c, f) -> (n, 1, 1, f)."""
    images = _pad(images, padding, (1, 1))
    images = images[:, : reach[0] : dilation[0], : reach[1] : dilation[1]]
    # The product is faster with the smaller side first.
    if kernel.shape[3] < images.shape[0]:
        axes = ((0, 1, 2), (1, 2, 3))
        output = lax.dot_general(kernel, images, (axes, ((), ())), **numbers).T
    else:
        axes = ((1, 2, 3), (0, 1, 2))
        output = lax.dot_general(images, kernel, (axes, ((), ())), **numbers)
    return output[:, None, None]


def _phases_as_channels(
    images: Any, kernel: Any, *, convolve: Callable, padding: Any, dilation: Any, spatial: Any
) -> Any:
    """A convolution of images that are dilated by d: of every d pixels, all but one are 0.

    Pixel d a + r of the output meets pixel a + t - low // d of the undilated images through the
    kernel's entry d t + low % d - r. So the d phases r are channels of one convolution of them.
    """
    if kernel.shape[:2] == (1, 1):
        # It commutes with padding and dilation, and before them there is less to do.
        return _pad(convolve(images, kernel, (1, 1), [(0, 0)] * 2), padding, dilation)
    border, pads = [], []
    for d, size, taps, side, (low, _) in zip(
        dilation, spatial, kernel.shape, images.shape[1:], padding, strict=False
    ):
        before = d - 1 - low % d
        border.append((before, -(before + taps) % d, 0))
        pads.append((low // d, -(-size // d) + -(-(before + taps) // d) - 1 - side - low // d))
    (down, across), features = dilation, kernel.shape[3]
    kernel = lax.pad(kernel, jnp.zeros((), kernel.dtype), [*border, (0, 0, 0), (0, 0, 0)])
    phases = [
        kernel[down - 1 - r :: down, across - 1 - q :: across]
        for r, q in itertools.product(range(down), range(across))
    ]
    output = convolve(images, jnp.concatenate(phases, -1), (1, 1), pads)
    count, height, width, _ = output.shape
    output = output.reshape(count, height, width, down, across, features)
    output = output.transpose(0, 1, 3, 2, 4, 5)
    output = output.reshape(count, height * down, width * across, features)
    return output[:, : spatial[0], : spatial[1]]


def _few_features(images: Any, kernel: Any, *, padding: Any, spatial: Any, numbers: Any) -> Any:
    """A convolution into few features: what each pixel adds through each entry of the kernel."""
    rows, columns, channels, features = kernel.shape
    entries = kernel.transpose(2, 0, 1, 3).reshape(channels, -1)
    parts = lax.dot_general(images, entries, (((3,), (0,)), ((), ())), **numbers)
    parts = _pad(parts, padding, (1, 1))
    total = None
    for entry, (i, j) in enumerate(itertools.product(range(rows), range(columns))):
        first = entry * features
        part = parts[:, i : i + spatial[0], j : j + spatial[1], first : first + features]
        total = part if total is None else total + part
    return total


def _weight_gradient(
    images: Any, gradient: Any, *, padding: Any, spatial: Any, numbers: Any
) -> Any:
    """A convolution with few windows, (c, h, w, n), (h', w', n, f) -> (c, k, l, f), as one product.

    Its sides are the images shifted across by each of the l columns and the gradient shifted down
    by each of the k rows, which takes k + l shifted copies instead of k l.
    """
    images, gradient = images.transpose(3, 1, 2, 0), gradient.transpose(2, 0, 1, 3)
    (rows, columns), ((top, bottom), (left, right)) = spatial, padding
    height = images.shape[1]
    images = _pad(images, ((0, 0), (left, right)), (1, 1))
    width = images.shape[2] - columns + 1
    across = [images[:, :, j : j + width] for j in range(columns)]
    gradient = _pad(gradient, ((rows - 1 - top, rows - 1 - bottom), (0, 0)), (1, 1))
    down = [gradient[:, rows - 1 - i : rows - 1 - i + height] for i in range(rows)]
    # Otherwise XLA would shift anew wherever the product reads.
    sides = (jnp.concatenate(across, -1), jnp.concatenate(down, -1))
    shifted_images, shifted_gradient = lax.optimization_barrier(sides)
    axes = ((0, 1, 2), (0, 1, 2))
    product = lax.dot_general(shifted_images, shifted_gradient, (axes, ((), ())), **numbers)
    product = product.reshape(columns, images.shape[3], rows, gradient.shape[3])
    return product.transpose(1, 2, 0, 3)


def _pad(images: Any, padding: Sequence[tuple[int, int]], dilation: Sequence[int]) -> Any:
    config = [(low, high, d - 1) for (low, high), d in zip(padding, dilation, strict=True)]
    if not np.any(config):
        return images
    return lax.pad(images, jnp.zeros((), images.dtype), [(0, 0, 0), *config, (0, 0, 0)])


def _explicitly_sharded(operand: Any) -> bool:
    spec = getattr(getattr(operand, "sharding", None), "spec", ())
    return any(axis is not None for axis in spec)


def _lower_pool_gradient(context: Any, gradient: Any, images: Any, **parameters: Any) -> Any:
    usual = parameters["select_prim"].name == "ge" and np.prod(parameters["window_dimensions"]) < 32
    plain = "max_pool" not in _enabled or any(_explicitly_sharded(a) for a in context.avals_in)
    if usual and not plain:
        function = functools.partial(_pool_gradient, **parameters)
    else:
        function = functools.partial(_plain_scatter, expand_padding=False, **parameters)
    return mlir.lower_fun(function, multiple_results=False)(context, gradient, images)


def _pool_gradient(
    gradient: Any,
    images: Any,
    *,
    window_dimensions: Sequence[int],
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **_: Any,
) -> Any:
    """The gradient of a max-pool as a sum over the window's positions; the first maximum wins."""
    config = [(low, high, 0) for low, high in padding]
    padded = lax.pad(images, jnp.array(-jnp.inf, images.dtype), config)
    zero = jnp.zeros((), gradient.dtype)
    extent = [(n - 1) * s + 1 for n, s in zip(gradient.shape, window_strides, strict=True)]
    positions = list(itertools.product(*map(range, window_dimensions)))
    best, winner = None, jnp.zeros(gradient.shape, jnp.int32)
    for index, start in enumerate(positions):
        stop = [first + length for first, length in zip(start, extent, strict=True)]
        values = lax.slice(padded, start, stop, window_strides)
        better = False if best is None else ~(best >= values)
        best = values if best is None else jnp.where(better, values, best)
        winner = jnp.where(better, index, winner)
    total = None
    for index, start in enumerate(positions):
        # Where the window's position lies in the images themselves, without their padding.
        config = [
            (first - low, size - (first - low) - length, stride - 1)
            for first, (low, _), size, length, stride in zip(
                start, padding, images.shape, extent, window_strides, strict=True
            )
        ]
        share = lax.pad(jnp.where(winner == index, gradient, zero), zero, config)
        total = share if total is None else total + share
    return total


def _lower_sum(context: Any, values: Any, *, axes: Sequence[int], **parameters: Any) -> Any:
    (shape,) = context.avals_in
    known = len(shape.shape) > 2 and all(isinstance(size, int) for size in shape.shape)
    usual = known and jnp.issubdtype(shape.dtype, jnp.floating) and not _explicitly_sharded(shape)
    whole = usual and sorted(axes) == list(range(len(shape.shape) - 1))
    if "sum" not in _enabled or not whole or shape.size < _LONG_SUM:
        add = (stablehlo.AddOp, _get_sum_identity)
        return _unary_reduce_lower(*add, context, values, axes=axes, **parameters)
    return mlir.lower_fun(_sum_of_sums, multiple_results=False)(context, values)


def _sum_of_sums(values: Any) -> Any:
    """The sum over all axes but the last; XLA would not divide it between cores."""
    rows = lax.reduce(values, np.zeros((), values.dtype), lax.add, (values.ndim - 3,))
    # As a product, since XLA would make one sum of two again.
    axes = tuple(range(rows.ndim - 1))
    ones = jnp.ones(rows.shape[:-1], rows.dtype)
    return lax.dot_general(ones, rows, ((axes, axes), ((), ())), precision=lax.Precision.HIGHEST)


def install() -> None:
    """Use the formulations from now on; does nothing where this version of jax does not let them.

    `import jaxrobust` calls it: attacks must be fast on models that the project did not write.
    """
    cpu_compiler.install()
    if available():
        for primitive, rule in (
            (primitives.select_and_scatter_add_p, _lower_pool_gradient),
            (primitives.conv_general_dilated_p, _lower_convolution),
            (primitives.reduce_sum_p, _lower_sum),
        ):
            mlir.register_lowering(primitive, rule, platform="cpu")
