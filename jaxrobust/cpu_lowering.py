"""How convolutions are handed to XLA on CPU: the same operation in the form it compiles best.

XLA's CPU compiler brings the operands of a convolution into the one layout that its fast kernels
know (NHWC images, HWIO kernels), but only outside of loops. Gradients are convolutions in other
layouts, so inside `fori_loop`, `scan` and `lax.map` they run about ten times slower than outside:
an attack's loop, a map averaged over many samples, anything under `batch_size`. Here they are
brought into that layout before XLA sees them, and 1x1 convolutions become the matrix products
that they are, their weight gradients in particular.

Only the *lowering* of `lax.conv_general_dilated` for the CPU backend changes, in the whole
process: every model profits, whoever wrote it, and differentiation in either mode, `vmap` and
jaxprs stay as they are. Other backends, complex and integer numbers and all but two-dimensional
convolutions are left alone.
"""

import contextlib
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

try:
    from jax._src.lax.convolution import _conv_general_dilated_lower as _plain_convolution
    from jax._src.lax.windowed_reductions import _select_and_scatter_add_impl as _plain_scatter
    from jax.extend.core import primitives
    from jax.interpreters import mlir
except ImportError:  # A jax without these internals is slower on CPU, and as correct.
    mlir = None  # type: ignore[assignment]

_enabled = True


def available() -> bool:
    """Whether this version of jax lets the formulations be installed."""
    return mlir is not None


@contextlib.contextmanager
def plain_formulations() -> Iterator[None]:
    """Within it, convolutions are compiled for CPU as `lax` writes them.

    What has been compiled before stays as it is: a function that is to be compiled anew must be
    a new one, or `jax.clear_caches()` must be called.
    """
    global _enabled
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before


def _lower_convolution(context: Any, images: Any, kernel: Any, **parameters: Any) -> Any:
    single_device = getattr(context.module_context.axis_context, "num_devices", 0) == 1
    formulation = None
    if _enabled:
        formulation = _formulation(*context.avals_in, chunked=single_device, **parameters)
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
    chunked: bool,
    **_: Any,
) -> Any:
    """The function that replaces a convolution, or None if it is to stay as it is."""
    image_spec, kernel_spec, output_spec = dimension_numbers
    shapes = (*images.shape, *kernel.shape)
    if (
        len(image_spec) != 4
        or batch_group_count != 1
        or not jnp.issubdtype(images.dtype, jnp.floating)
        or not all(isinstance(size, int) and size > 0 for size in shapes)
        or any(_explicitly_sharded(operand) for operand in (images, kernel))
    ):
        return None
    canonical = (0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)
    to_nhwc = [image_spec[i] for i in (0, 2, 3, 1)]
    to_hwio = [kernel_spec[i] for i in (2, 3, 1, 0)]
    # Position in NHWC of each dimension of the output.
    from_nhwc = np.argsort([output_spec[i] for i in (0, 2, 3, 1)]).tolist()
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
    output_shape = [0] * 4
    sizes = (images.shape[image_spec[0]], kernel.shape[kernel_spec[0]], *spatial)
    for axis, length in zip(output_spec, sizes, strict=True):
        output_shape[axis] = length
    features = images.shape[image_spec[1]]
    # Measured: with fewer channels it takes more images to fill the matrix product.
    part = max(8, 512 // images.shape[image_spec[0]])
    numbers = {"precision": precision, "preferred_element_type": preferred_element_type}

    def pointwise(images: Any, kernel: Any) -> Any:
        images = jnp.transpose(images, to_nhwc)
        kernel = jnp.transpose(kernel, to_hwio)[0, 0]
        # A 1x1 kernel commutes with padding and dilation, and after it there is less to pad.
        if max(window_strides) > 1:
            images = _pad(images, padding, lhs_dilation)
            images = images[:, :: window_strides[0], :: window_strides[1]]
            output = lax.dot_general(images, kernel, (((3,), (0,)), ((), ())), **numbers)
        else:
            output = lax.dot_general(images, kernel, (((3,), (0,)), ((), ())), **numbers)
            output = _pad(output, padding, lhs_dilation)
        return jnp.transpose(output, from_nhwc)

    def single_window(images: Any, kernel: Any) -> Any:
        images = _pad(jnp.transpose(images, to_nhwc), padding, lhs_dilation)
        images = images[:, : reach[0] : rhs_dilation[0], : reach[1] : rhs_dilation[1]]
        kernel = jnp.transpose(kernel, to_hwio)
        axes = ((1, 2, 3), (0, 1, 2))
        output = lax.dot_general(images, kernel, (axes, ((), ())), **numbers)
        return jnp.transpose(output[:, None, None], from_nhwc)

    def canonical_layout(images: Any, kernel: Any) -> Any:
        output = lax.conv_general_dilated(
            jnp.transpose(images, to_nhwc),
            jnp.transpose(kernel, to_hwio),
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            lax.ConvDimensionNumbers(*canonical),
            feature_group_count,
            **numbers,
        )
        return jnp.transpose(output, from_nhwc)

    def in_parts(images: Any, kernel: Any) -> Any:
        # In a weight gradient the batch takes the place of the features and has to become the
        # last axis of both operands. XLA fuses that transposition with whatever made the operand
        # and then reads it with strides that no cache holds. A loop over parts of the batch
        # keeps the two apart, and each part in the cache.
        operands = []
        for operand, axis in ((images, image_spec[1]), (kernel, kernel_spec[1])):
            operand = jnp.moveaxis(operand, axis, 0)
            operands.append((operand.reshape(-1, part, *operand.shape[1:]), axis))

        def add_part(index: Any, total: Any) -> Any:
            return total + one_part(
                *(jnp.moveaxis(operand[index], 0, axis) for operand, axis in operands)
            )

        zeros = jnp.zeros(output_shape, preferred_element_type or images.dtype)
        return lax.fori_loop(0, features // part, add_part, zeros)

    is_canonical = (tuple(image_spec), tuple(kernel_spec), tuple(output_spec)) == canonical
    if feature_group_count > 1:
        return None if is_canonical else canonical_layout
    if window == [1, 1]:
        return pointwise
    one_part = single_window if spatial == [1, 1] else canonical_layout
    weight_gradient = np.prod(window) > np.prod(spatial)
    if chunked and weight_gradient and features > part and features % part == 0:
        return in_parts
    return None if is_canonical and one_part is canonical_layout else one_part


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
    if _enabled and usual and not any(_explicitly_sharded(a) for a in context.avals_in):
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


def install() -> None:
    """Use the formulations from now on; does nothing where this version of jax does not let them.

    `import jaxrobust` calls it: attacks must be fast on models that the project did not write.
    """
    if available():
        mlir.register_lowering(
            primitives.select_and_scatter_add_p, _lower_pool_gradient, platform="cpu"
        )
        mlir.register_lowering(
            primitives.conv_general_dilated_p, _lower_convolution, platform="cpu"
        )
