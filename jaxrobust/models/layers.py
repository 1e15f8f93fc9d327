"""The layers that the models are made of: NHWC images, HWIO kernels, PyTorch's semantics.

Whatever one backend needs written differently from the plain `lax` operation lives here, so that
the models themselves read the same everywhere.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from jaxrobust.core import folding
from jaxrobust.core.checks import check_that

Array = jax.Array
Pair = int | tuple[int, int]

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def _pair(name: str, value: Pair, minimum: int) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int | np.integer) else tuple(value)
    fits = len(pair) == 2 and all(int(number) == number >= minimum for number in pair)
    check_that(fits, name, f"be an integer or a pair, at least {minimum}", value)
    return int(pair[0]), int(pair[1])


def _output_size(size: int, window: int, stride: int, padding: int, operation: str) -> int:
    output = (size + 2 * padding - window) // stride + 1
    if output < 1:
        raise ValueError(
            f"A picture side of {size} pixels is too small for a {operation} of size {window} "
            f"with padding {padding}."
        )
    return output


def he_normal_fan_out() -> Callable[..., Array]:
    """He's normal initialisation over the outgoing connections, as torchvision's ResNets."""
    return nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def uniform_fan_in() -> Callable[..., Array]:
    """Uniform within 1/sqrt(fan_in), PyTorch's default for kernels of every kind."""
    return nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")


def _uniform_bias(fan_in: int) -> Callable[..., Array]:
    bound = fan_in**-0.5

    def initialize(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return initialize


def convolve(
    images: Array,
    kernel: Array,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    groups: int = 1,
) -> Array:
    """Convolution (cross-correlation) of images with a kernel.

    Args:
      images: (n, height, width, channels).
      kernel: (kernel height, kernel width, channels / groups, features), of the images' dtype.
      stride: step in pixels.
      padding: zeros added on either side, as PyTorch counts them.
      groups: number of groups of channels that are convolved apart.

    Returns:
      (n, height', width', features).
    """
    stride, padding = _pair("stride", stride, 1), _pair("padding", padding, 0)
    for axis in range(2):
        _output_size(
            images.shape[1 + axis], kernel.shape[axis], stride[axis], padding[axis], "convolution"
        )
    return lax.conv_general_dilated(
        images,
        kernel,
        stride,
        [(p, p) for p in padding],
        dimension_numbers=_DIMENSIONS,
        feature_group_count=groups,
    )


class Convolution(nn.Module):
    """2-D convolution with PyTorch's padding; parameters `kernel` (HWIO) and `bias`.

    Attributes:
      features: number of output channels.
      kernel_size: height and width of the kernel.
      stride: step in pixels.
      padding: zeros added on either side.
      groups: number of groups of channels that are convolved apart.
      use_bias: whether a bias is added.
      dtype: compute dtype; the parameters stay float32.
      kernel_init: initialiser of the kernel. The bias is initialised as PyTorch does.
    """

    features: int
    kernel_size: Pair
    stride: Pair = 1
    padding: Pair = 0
    groups: int = 1
    use_bias: bool = False
    dtype: Any = jnp.float32
    kernel_init: Callable[..., Array] = uniform_fan_in()

    @nn.compact
    def __call__(self, images: Array, affine: tuple[Array, Array] | None = None) -> Array:
        """The convolution of (n, h, w, c); `affine`, two of (features,), scales and shifts it."""
        channels = images.shape[-1]
        remainders = channels % self.groups, self.features % self.groups
        rule = f"divide the {channels} input and {self.features} output channels"
        check_that(remainders == (0, 0), "groups", rule, self.groups)
        size = _pair("kernel_size", self.kernel_size, 1)
        shape = (*size, channels // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        shift = None
        if affine is not None:
            kernel, shift = kernel * affine[0], affine[1]
        output = convolve(
            images.astype(self.dtype),
            kernel.astype(self.dtype),
            stride=self.stride,
            padding=self.padding,
            groups=self.groups,
        )
        if self.use_bias:
            fan_in = size[0] * size[1] * shape[2]
            bias = self.param("bias", _uniform_bias(fan_in), (self.features,), jnp.float32)
            shift = bias if affine is None else bias * affine[0] + affine[1]
        return output if shift is None else output + shift.astype(self.dtype)


class Dense(nn.Module):
    """Fully connected layer initialised as PyTorch's; parameters `kernel` (in, out) and `bias`.

    Attributes:
      features: number of outputs.
      dtype: compute dtype; the parameters stay float32.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        fan_in = inputs.shape[-1]
        shape = (fan_in, self.features)
        kernel = self.param("kernel", uniform_fan_in(), shape, jnp.float32)
        bias = self.param("bias", _uniform_bias(fan_in), (self.features,), jnp.float32)
        output = jnp.dot(inputs.astype(self.dtype), kernel.astype(self.dtype))
        return output + bias.astype(self.dtype)


class BatchNorm(nn.Module):
    """Batch normalisation over every axis but the last, with PyTorch's arithmetic.

    Parameters `scale` and `bias`, running statistics `mean` and `var` in `batch_stats`; all of them
    float32, and so are the statistics of a batch. The running variance is the unbiased one, the
    variance that normalises a batch is the biased one, as in PyTorch.

    Attributes:
      dtype: dtype of the result.
      momentum: share of the running statistics that an update keeps (1 minus PyTorch's).
      epsilon: added to the variance.
      batch_statistics_axis: when set, evaluation mode normalises with the statistics of the current
        batch over this named axis of an enclosing `jax.vmap` (and over the batch handed in), and
        updates nothing. The result for an image then depends on the others.
    """

    dtype: Any = jnp.float32
    momentum: float = 0.9
    epsilon: float = 1e-5
    batch_statistics_axis: str | None = None

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool = False) -> Array:
        features = inputs.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (features,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (features,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (features,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (features,), jnp.float32)
        accumulate = jnp.promote_types(jnp.float32, inputs.dtype)
        inputs = inputs.astype(accumulate)
        axes = tuple(range(inputs.ndim - 1))

        if train and not self.is_initializing():
            count = inputs.size // features
            if count < 2:
                raise ValueError(
                    "Training with batch normalisation needs more than 1 value per channel, "
                    f"got an input of shape {inputs.shape}."
                )
            mean = jnp.mean(inputs, axes)
            var = jnp.mean(jnp.square(inputs - mean), axes)
            keep = self.momentum
            running_mean.value = keep * running_mean.value + (1 - keep) * mean
            unbiased = var * (count / (count - 1))
            running_var.value = keep * running_var.value + (1 - keep) * unbiased
        elif self.batch_statistics_axis is not None and not self.is_initializing():
            axis = self.batch_statistics_axis
            mean = lax.pmean(jnp.mean(inputs, axes), axis)
            var = lax.pmean(jnp.mean(jnp.square(inputs - mean), axes), axis)
        else:
            mean, var = running_mean.value, running_var.value

        factor, shift = self._affine(mean, var, scale, bias)
        return (inputs * factor + shift).astype(self.dtype)

    def _affine(self, mean: Array, var: Array, scale: Array, bias: Array) -> tuple[Array, Array]:
        factor = lax.rsqrt(var + self.epsilon) * scale
        return factor, bias - mean * factor

    def running_affine(self) -> tuple[Array, Array]:
        """What evaluation mode multiplies by and adds, (features,) each; of initialised modules."""
        names = {"mean": "batch_stats", "var": "batch_stats", "scale": "params", "bias": "params"}
        values: dict[str, Any] = {n: self.get_variable(where, n) for n, where in names.items()}
        return self._affine(**values)


def convolve_and_normalize(
    convolution: Convolution, norm: BatchNorm, images: Array, *, train: bool
) -> Array:
    """`norm(convolution(images), train=train)`, equal to rounding within `folded_batch_norm`."""
    still = not train and norm.batch_statistics_axis is None and not norm.is_initializing()
    if not still or not folding.asked_for():
        return norm(convolution(images), train=train)
    return convolution(images, norm.running_affine()).astype(norm.dtype)


def max_pool(images: Array, size: int, *, stride: int | None = None, padding: int = 0) -> Array:
    """Maximum over windows, as PyTorch's `max_pool2d`.

    Args:
      images: (n, height, width, channels).
      size: side of the square window in pixels.
      stride: step in pixels; the window's side by default.
      padding: border on either side that never wins; at most half the window.

    Returns:
      (n, height', width', channels). The gradient goes to the first of equal elements.

    Raises:
      ValueError: when the padding is more than half the window, or the images are too small.
    """
    stride = size if stride is None else stride
    rule = f"be between 0 and half the size {size}"
    check_that(0 <= 2 * padding <= size, "padding", rule, padding)
    for side in images.shape[1:3]:
        _output_size(side, size, stride, padding, "max-pool")
    return nn.max_pool(images, (size, size), (stride, stride), [(padding, padding)] * 2)


DOWNSAMPLINGS = ("stride", "average_pool", "max_pool", "blur_pool", "max_blur_pool")


def halve(images: Array, downsampling: str) -> Array:
    """Half the height and width, rounded up, such that every pixel counts.

    A convolution of stride 2 reads the pixels of one phase of 2 x 2 more often than those of the
    others, and its gradient is a grid; these pools read all of them alike. Which of them a maximum
    passes the gradient to is up to what has been learnt, and may still be one phase more often. An
    odd side is made even by repeating its last row or column (but for "blur_pool", which needs
    none).

    Args:
      images: (n, height, width, channels).
      downsampling: "average_pool" or "max_pool" of 2 x 2 pixels; "max_blur_pool", the maximum of
        each pixel and its neighbours to the right and below, then the average of 2 x 2 of these; or
        "blur_pool", the binomial filter of 3 x 3 pixels before every second pixel is taken, borders
        mirrored (both of Zhang 2019). The gradient of "max_pool" goes in equal parts to all pixels
        that equal the maximum; not so that of "max_blur_pool", which takes it down, then across.

    Returns:
      (n, ceil(height / 2), ceil(width / 2), channels).

    References:
      https://arxiv.org/abs/1904.11486

    Example:
      >>> halve(jnp.arange(16.0).reshape(1, 4, 4, 1), "average_pool")[0, :, :, 0].tolist()
      [[2.5, 4.5], [10.5, 12.5]]
    """
    if downsampling == "blur_pool":
        for axis in (1, 2):
            around = [(0, 0)] * 4
            around[axis] = (1, 1)
            mirrored = jnp.pad(images, around, mode="reflect")
            before, middle, after = (
                lax.slice_in_dim(mirrored, start, start + images.shape[axis], 2, axis)
                for start in range(3)
            )
            images = 0.25 * before + 0.5 * middle + 0.25 * after
        return images
    if downsampling == "max_blur_pool":
        for axis in (1, 2):
            rest, last = (lax.slice_in_dim(images, start, None, axis=axis) for start in (1, -1))
            images = jnp.maximum(images, lax.concatenate([rest, last], axis))
    n, height, width, channels = images.shape
    if height % 2 or width % 2:
        odd = [(0, 0), (0, height % 2), (0, width % 2), (0, 0)]
        images = jnp.pad(images, odd, mode="edge")
    windows = images.reshape(n, (height + 1) // 2, 2, (width + 1) // 2, 2, channels)
    return windows.max((2, 4)) if downsampling == "max_pool" else windows.mean((2, 4))


def adaptive_average_pool(images: Array, size: Pair) -> Array:
    """Average over a fixed number of windows, as PyTorch's `adaptive_avg_pool2d`.

    Args:
      images: (n, height, width, channels), of any size (smaller than `size` too).
      size: number of windows down and across.

    Returns:
      (n, size, size, channels); window i covers rows floor(i h / s) to ceil((i + 1) h / s).
    """
    size = _pair("size", size, 1)
    if size == (1, 1):
        return jnp.mean(images, (1, 2), keepdims=True)
    for axis, windows in zip((1, 2), size, strict=True):
        side = images.shape[axis]
        if side != windows:
            weights = jnp.asarray(_averaging_matrix(side, windows), images.dtype)
            pooled = jnp.tensordot(images, weights, (axis, 1), precision=lax.Precision.HIGHEST)
            images = jnp.moveaxis(pooled, -1, axis)
    return images


def _averaging_matrix(side: int, windows: int) -> np.ndarray:
    matrix = np.zeros((windows, side), np.float32)
    for window in range(windows):
        start, stop = window * side // windows, -(-(window + 1) * side // windows)
        matrix[window, start:stop] = 1 / (stop - start)
    return matrix


def check_normalization(mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    """Raise unless they are finite numbers, one a channel, and a std can be divided by.

    Args:
      mean, std: of each channel; None is not looked at.

    Raises:
      ValueError: naming the one and its value.
    """
    for name, values, least in (("mean", mean, -np.inf), ("std", std, 0.0)):
        if values is not None:
            numbers = np.asarray(values, np.float64)
            holds = numbers.ndim < 2 and np.all((least < numbers) & (numbers < np.inf))
            rule = f"be finite numbers{' above 0' if name == 'std' else ''}, one a channel"
            check_that(holds, name, rule, values)


def normalize(
    images: Array, mean: Sequence[float], std: Sequence[float], dtype: Any = jnp.float32
) -> Array:
    """Subtract the mean, divide by the standard deviation and cast.

    Args:
      images: (n, height, width, channels), floating point in [0, 1].
      mean: mean of each channel.
      std: standard deviation of each channel.
      dtype: dtype of the result; the arithmetic itself is at least float32.

    Returns:
      the normalised images, of `dtype`.

    Raises:
      ValueError: when the images are not a batch with as many channels as there are means, or the
        numbers are not those of `check_normalization`.
      TypeError: when the images are not floating point.
    """
    check_normalization(mean, std)
    lengths = f"{len(mean)} and {len(std)}"
    check_that(len(mean) == len(std), "mean and std", "have one length", lengths)
    fits = images.ndim == 4 and images.shape[-1] == len(mean)
    rule = f"have shape (n, height, width, {len(mean)})"
    check_that(fits, "images", rule, images.shape)
    floating = jnp.issubdtype(images.dtype, jnp.floating)
    check_that(floating, "images", "be floating point in [0, 1]", images.dtype, TypeError)
    compute = jnp.promote_types(jnp.float32, dtype)
    centered = images.astype(compute) - jnp.asarray(mean, compute)
    return (centered / jnp.asarray(std, compute)).astype(dtype)
