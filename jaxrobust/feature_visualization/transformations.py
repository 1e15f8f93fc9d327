"""Small random changes of the image before each step: what survives them is no noise.

A transformation is a hashable `transformation(key, image) -> image` for one (h, w, c) image. These
keep the image's size, so that every model takes the result. What leaves the picture on one side
comes in on the other, as an image made of waves repeats itself, so that pixels near the border are
seen as often as the others; with a number as `fill` there is that value around instead.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Transformation = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Jitter:
    """Shift by a whole number of pixels, drawn uniformly from ±pixels down and across.

    Attributes:
      pixels: the largest shift, at least 1.
      fill: pixel value around the image; None repeats the image.

    Example:
      >>> image = jnp.arange(4.0).reshape(1, 4, 1)
      >>> shifted = Jitter(pixels=1)(jax.random.key(1), image)
      >>> sorted(shifted.ravel().tolist())
      [0.0, 1.0, 2.0, 3.0]
    """

    pixels: int
    fill: float | None = None

    def __post_init__(self):
        whole = isinstance(self.pixels, int) and not isinstance(self.pixels, bool)
        if not whole or self.pixels < 1:
            raise ValueError(f"pixels must be a whole number of at least 1, got {self.pixels!r}.")

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """The shifted image, of the same size."""
        if self.fill is None:
            shift = jax.random.randint(key, (2,), -self.pixels, self.pixels + 1)
            return jnp.roll(image, shift, (0, 1))
        border = [(self.pixels, self.pixels)] * 2 + [(0, 0)]
        padded = jnp.pad(image, border, constant_values=self.fill)
        start = jax.random.randint(key, (2,), 0, 2 * self.pixels + 1)
        return jax.lax.dynamic_slice(padded, (start[0], start[1], 0), image.shape)


@dataclasses.dataclass(frozen=True)
class RandomScale:
    """Enlarge about the centre by a factor drawn uniformly from [low, high]; bilinear.

    Attributes:
      low: the smallest factor, above 0; below 1 it shrinks.
      high: the largest factor.
      fill: pixel value around the image; None repeats the image.

    Example:
      >>> image = jnp.full((4, 4, 1), 0.25)
      >>> bool(jnp.allclose(RandomScale(1.5, 2.0)(jax.random.key(0), image), image))
      True
    """

    low: float
    high: float
    fill: float | None = None

    def __post_init__(self):
        if not 0 < self.low <= self.high < float("inf"):
            raise ValueError(
                f"low and high must be factors above 0 in order, got {self.low} and {self.high}."
            )

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """The image of the same size, enlarged or shrunk about its centre."""
        factor = jax.random.uniform(key, minval=self.low, maxval=self.high)
        return _resample(image, jnp.eye(2) / factor, self.fill)


@dataclasses.dataclass(frozen=True)
class RandomRotate:
    """Rotate about the centre by an angle drawn uniformly from ±degrees; bilinear.

    Attributes:
      degrees: the largest angle, above 0 and up to 180.
      fill: pixel value around the image; None repeats the image.

    Example:
      >>> image = jnp.full((4, 4, 1), 0.25)
      >>> rotated = RandomRotate(degrees=10.0, fill=0.25)(jax.random.key(0), image)
      >>> bool(jnp.allclose(rotated, image))
      True
    """

    degrees: float
    fill: float | None = None

    def __post_init__(self):
        if not 0 < self.degrees <= 180:
            raise ValueError(f"degrees must be above 0 and up to 180, got {self.degrees!r}.")

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """The rotated image, of the same size."""
        angle = jnp.deg2rad(jax.random.uniform(key, minval=-self.degrees, maxval=self.degrees))
        sine, cosine = jnp.sin(angle), jnp.cos(angle)
        matrix = jnp.stack([jnp.stack([cosine, sine]), jnp.stack([-sine, cosine])])
        return _resample(image, matrix, self.fill)


def _resample(image: jax.Array, matrix: jax.Array, fill: float | None) -> jax.Array:
    """The image whose pixel at p (about the centre) is the old one's at matrix @ p."""
    height, width, _ = image.shape
    center = np.array([(height - 1) / 2, (width - 1) / 2])
    grid = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"))
    offsets = jnp.asarray(grid - center[:, None, None], jnp.float32)
    # Places of pixels rounded to bfloat16, an accelerator's default, would be off by half a pixel.
    turned = jnp.einsum("ij,jhw->ihw", matrix, offsets, precision="highest")
    positions = turned + center[:, None, None]

    def one_channel(plane):
        return jax.scipy.ndimage.map_coordinates(
            plane,
            list(positions),
            order=1,
            mode="wrap" if fill is None else "constant",
            cval=fill or 0.0,
        )

    return jax.vmap(one_channel, in_axes=-1, out_axes=-1)(image)


def standard_transformations(image_shape: Sequence[int]) -> tuple[Transformation, ...]:
    """Jitter, scale, rotate, jitter: lucid's standard set, in proportion to the image.

    lucid's pixels are meant for 128 pixels; here the shifts are 1/32 and 1/64 of the shorter side
    (at least 1 pixel), the factors 0.9 to 1.1 and the angles within 10 degrees.

    Example:
      >>> standard_transformations((128, 128, 3))[0]
      Jitter(pixels=4, fill=None)
    """
    side = min(image_shape[:2])
    return (
        Jitter(max(1, round(side / 32))),
        RandomScale(0.9, 1.1),
        RandomRotate(10.0),
        Jitter(max(1, round(side / 64))),
    )


def check(transformations: Any) -> tuple[Transformation, ...]:
    """The transformations as a tuple.

    Raises:
      TypeError: when they are not a sequence of functions.
    """
    sequence = isinstance(transformations, Sequence) and not isinstance(transformations, str)
    if not sequence or not all(
        callable(each) and not isinstance(each, type) for each in transformations
    ):
        raise TypeError(
            "transformations must be a sequence of functions of (key, image), "
            f"got {transformations!r}."
        )
    return tuple(transformations)
