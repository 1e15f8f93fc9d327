"""Pairs of pyramids, of which random squares in l_2 are made (Andriushchenko et al. 2020)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# How many pairs there are along the shorter side of the first perturbation.
_TILES = 5


class Pyramids(NamedTuple):
    """Squares of one pyramid above and the negative of another below; their norm is 1.

    Attributes:
      sides: (k,) of the squares, in pixels.
      heights: (d,) of a pyramid, so many pixels from its top, before it is set on its ground.
      weights: (k, 2) of the pyramids above and below, which give them the same norm.
    """

    sides: np.ndarray
    heights: np.ndarray
    weights: np.ndarray


def of_sides(sides: np.ndarray) -> Pyramids:
    """The pairs of pyramids in squares of these sides (k,), in pixels."""
    # From its top on a pyramid falls by 1, 1/4, 1/9, … from ring to ring: a height is the sum of
    # what is still to come.
    falls = 1.0 / np.arange(1, max(sides) // 2 + 2) ** 2
    heights = np.append(np.cumsum(falls[::-1])[::-1], 0.0)

    def norm(rows, columns):
        down, across = (np.abs(np.arange(length) - length // 2) for length in (rows, columns))
        values = heights[np.maximum.outer(down, across)] - heights[columns // 2 + 1]
        return np.sqrt(np.sum(np.square(values)))

    weights = np.zeros((len(sides), 2))
    for row, side in zip(weights, sides, strict=True):
        pair = np.array([norm(rows, side) for rows in (side // 2, side - side // 2)])
        there = pair > 0  # in a single pixel there is none above
        row[there] = 1.0 / pair[there] / np.sqrt(np.sum(there))
    return Pyramids(np.asarray(sides), heights, weights)


def in_square(
    table: Pyramids,
    index: jax.Array | int,
    corner: jax.Array,
    transposed: jax.Array | bool,
    shape: tuple[int, int],
) -> jax.Array:
    """An image (h, w) that is 0 outside a square, and inside it a pair of pyramids.

    Args:
      table: of the sides.
      index: of the side among them.
      corner: (2,) row and column of the square's first pixel.
      transposed: whether the pyramids stand side by side, the positive one on the left.
      shape: static; (h, w).

    Example:
      >>> import jax.numpy as jnp
      >>> image = in_square(of_sides(np.array([2])), 0, jnp.array([0, 1]), False, (2, 4))
      >>> for row in image.tolist():
      ...     print(*(f"{value:5.2f}" for value in row[1:3]))
       0.14  0.69
      -0.14 -0.69
    """
    side = jnp.asarray(table.sides)[index]
    heights = jnp.asarray(table.heights, jnp.float32)
    above, below = jnp.asarray(table.weights, jnp.float32)[index]
    half = side // 2
    ground = half + 1  # pixels from the top, where nothing is left of it

    # A height depends on the larger of two distances, so it is the smaller of two heights: only
    # vectors are looked up.
    def along(length, first, halved):
        place = jnp.arange(length) - first
        second = place >= half
        top = jnp.where(second, half + (side - half) // 2, half // 2)
        distance = jnp.abs(place - jnp.where(halved, top, half))
        inside = (place >= 0) & (place < side)
        weight = jnp.where(halved, jnp.where(second, -below, above), 1.0)
        return heights[jnp.where(inside, distance, ground)], weight

    down, down_weight = along(shape[0], corner[0], jnp.logical_not(transposed))
    across, across_weight = along(shape[1], corner[1], transposed)
    standing = jnp.minimum(down[:, None], across) - heights[ground]
    return down_weight[:, None] * across_weight * standing


def tiles(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """A perturbation (h, w, c) full of pairs of pyramids of random signs, five by five.

    In images that are not square there are five along the shorter side.
    """
    # The authors' tiles begin where five of them would: where more than five fit (fewer than 25
    # pixels), theirs run over the edge. Here they lie in the middle.
    *lengths, channels = shape
    side = max(min(lengths) // _TILES, 1)
    rows, columns = (length // side for length in lengths)
    table = of_sides(np.array([side]))
    pair = in_square(table, 0, jnp.zeros(2, jnp.int32), False, (side, side))[..., None]
    signs = jax.random.rademacher(key, (rows, columns, 1, 1, channels + 1), jnp.float32)
    turned = jnp.where(signs[..., :1] > 0, pair, pair.swapaxes(0, 1))
    tiled = (turned * signs[..., 1:]).swapaxes(1, 2)
    before = [length % side // 2 for length in lengths]
    after = [length % side - margin for length, margin in zip(lengths, before, strict=True)]
    margins = [*zip(before, after, strict=True), (0, 0)]
    return jnp.pad(tiled.reshape(rows * side, columns * side, channels), margins)
