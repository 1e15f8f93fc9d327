"""What gradient ascent moves: the pixels themselves, or the spectrum of decorrelated colours."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.core.checks import check_images
from jaxrobust.core.types import Images

Shape = tuple[int, int, int]

# A square root of the covariance of ImageNet's colours, as published with lucid: each column is a
# direction (brightness, blue to yellow, green to magenta) times its standard deviation.
IMAGENET_COLOR_CORRELATION = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))


def _check_scale(name: str, value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number of at least 0, got {value!r}.")


class Parameterization(Protocol):
    """Anything hashable that makes an image of parameters, a pytree."""

    def init(self, key: jax.Array, image_shape: Shape) -> Any:
        """The parameters at the start."""

    def image(self, parameters: Any, image_shape: Shape, mean: Any, std: Any) -> jax.Array:
        """The image (h, w, c) in pixel units; `mean` and `std` are None when nobody knows them."""


@dataclasses.dataclass(frozen=True)
class Pixel:
    """The image in the model's normalised space: image = mean + std · parameters, unbounded.

    Attributes:
      scale: the start is drawn uniformly from ±scale, in normalised units.
    """

    scale: float = 0.01

    def __post_init__(self):
        _check_scale("scale", self.scale)

    def init(self, key: jax.Array, image_shape: Shape) -> jax.Array:
        """The start, (h, w, c)."""
        return jax.random.uniform(key, image_shape, minval=-self.scale, maxval=self.scale)

    def image(self, parameters: jax.Array, image_shape: Shape, mean: Any, std: Any) -> jax.Array:
        """The image (h, w, c) in pixel units, not clipped."""
        del image_shape
        return mean + std * parameters


@dataclasses.dataclass(frozen=True)
class Fourier:
    """The image's spectrum, scaled by 1 / frequency ** decay, in decorrelated colours.

    Steps of gradient ascent then go as far in large structure as in small, and in grey as in
    colours, as photographs vary. A sigmoid keeps the image in [0, 1]. The constants are lucid's.

    Attributes:
      scale: standard deviation of the spectrum at the start.
      decay: power of the frequency that divides it.
      color_correlation: (c, c), a square root of the covariance of the colours, as the function
        `color_correlation` takes it from images; only its ratios matter. "imagenet" is lucid's (and
        nothing for images without three channels), None leaves the colours alone.

    Example:
      >>> import jax
      >>> fourier = Fourier()
      >>> start = fourier.init(jax.random.key(0), (8, 8, 3))
      >>> fourier.image(start, (8, 8, 3)).shape
      (8, 8, 3)
    """

    scale: float = 0.01
    decay: float = 1.0
    color_correlation: str | Sequence[Sequence[float]] | Images | None = "imagenet"

    def __post_init__(self):
        _check_scale("scale", self.scale)
        _check_scale("decay", self.decay)
        matrix = self.color_correlation
        if matrix is None or (isinstance(matrix, str) and matrix == "imagenet"):
            return
        try:
            values = np.asarray(matrix, np.float64)
        except (TypeError, ValueError):
            values = np.zeros(0)
        square = values.ndim == 2 and values.shape[0] == values.shape[1]
        if not square or not np.all(np.isfinite(values)) or not np.any(values):
            raise ValueError(
                "color_correlation must be a square matrix of finite numbers, 'imagenet' or None, "
                f"got {matrix!r}."
            )
        # A tuple, so that the parameterisation can be hashed.
        object.__setattr__(self, "color_correlation", tuple(map(tuple, values.tolist())))

    def init(self, key: jax.Array, image_shape: Shape) -> jax.Array:
        """The start: real and imaginary parts, (2, h, w // 2 + 1, c)."""
        height, width, channels = image_shape
        return self.scale * jax.random.normal(key, (2, height, width // 2 + 1, channels))

    def image(
        self, parameters: jax.Array, image_shape: Shape, mean: Any = None, std: Any = None
    ) -> jax.Array:
        """The image (h, w, c) in [0, 1]."""
        del mean, std  # the sigmoid stands in their place
        height, width, channels = image_shape
        frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
        factor = np.maximum(frequency, 1.0 / max(height, width)) ** -self.decay
        spectrum = jax.lax.complex(parameters[0], parameters[1]) * factor[..., None]
        decorrelated = jnp.fft.irfft2(spectrum, (height, width), axes=(0, 1), norm="ortho") / 4.0
        colors = jnp.asarray(self._colors(channels), jnp.float32)
        # Not rounded to bfloat16, as accelerators multiply matrices unless told.
        return jax.nn.sigmoid(jnp.matmul(decorrelated, colors, precision="highest"))

    def _colors(self, channels: int) -> np.ndarray:
        matrix = self.color_correlation
        if matrix == "imagenet":
            matrix = IMAGENET_COLOR_CORRELATION if channels == 3 else None
        if matrix is None:
            return np.eye(channels)
        if len(matrix) != channels:
            raise ValueError(
                f"color_correlation must be ({channels}, {channels}), as the images' channels, "
                f"got ({len(matrix)}, {len(matrix)})."
            )
        root = np.asarray(matrix)
        return (root / np.linalg.norm(root, axis=0).max()).T


PARAMETERIZATIONS: dict[str, Parameterization] = {"pixel": Pixel(), "fourier": Fourier()}


def get(parameterization: str | Parameterization) -> Parameterization:
    """The parameterisation of that name, or the object itself.

    Raises:
      ValueError: for an unknown name.
      TypeError: for an object that lacks `init` or `image`.
    """
    if isinstance(parameterization, str):
        if parameterization not in PARAMETERIZATIONS:
            raise ValueError(
                f"parameterization must be an object or one of {', '.join(PARAMETERIZATIONS)}, "
                f"got {parameterization!r}."
            )
        return PARAMETERIZATIONS[parameterization]
    methods = (getattr(parameterization, name, None) for name in ("init", "image"))
    if isinstance(parameterization, type) or not all(map(callable, methods)):
        raise TypeError(
            "parameterization must be a name or an object with the methods init and image, "
            f"got {parameterization!r}."
        )
    return parameterization


def color_correlation(images: Images) -> Sequence[Sequence[float]]:
    """A square root of the covariance of the colours of images, for `Fourier`.

    Args:
      images: (h, w, c) or (n, h, w, c) in [0, 1].

    Returns:
      (c, c) as nested tuples; column i is a principal direction of the colours times the standard
      deviation along it, largest first: root @ root.T is their covariance.

    Raises:
      TypeError, ValueError: for images that are not floating point in [0, 1], or of one colour.

    Example:
      >>> import numpy as np
      >>> grey = np.repeat(np.array([0.0, 1.0]), 3).reshape(1, 2, 3)
      >>> np.round(np.abs(color_correlation(grey)), 3).tolist()
      [[0.5, 0.0, 0.0], [0.5, 0.0, 0.0], [0.5, 0.0, 0.0]]
    """
    images = check_images(images)
    pixels = np.asarray(images, np.float64).reshape(-1, images.shape[-1])
    covariance = np.atleast_2d(np.cov(pixels, rowvar=False, bias=True))
    if not np.trace(covariance) > 0:
        raise ValueError("images must have more than one colour, got a single one.")
    directions, variances, _ = np.linalg.svd(covariance)
    return tuple(map(tuple, (directions * np.sqrt(variances)).tolist()))
