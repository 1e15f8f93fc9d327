"""Maps and masks as NumPy arrays, checked; one or many."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from jaxrobust.core.types import Images


def check_maps(maps: Images, name: str = "maps") -> np.ndarray:
    """The maps as a NumPy array (h, w, c) or (n, h, w, c), in their own precision.

    Raises:
      TypeError: when they are not floating point.
      ValueError: for another rank, an empty axis, or values that are not finite.
    """
    maps = np.asarray(maps)
    # JAX's own test: it knows bfloat16 as well.
    if not jnp.issubdtype(maps.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating point, got dtype {maps.dtype}.")
    if maps.ndim not in (3, 4) or 0 in maps.shape:
        raise ValueError(
            f"{name} must have shape (height, width, channels) or (n, height, width, channels), "
            f"got {maps.shape}."
        )
    if not np.isfinite(maps).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity.")
    return maps


def check_masks(masks: Images) -> np.ndarray:
    """The masks as a boolean NumPy array (h, w) or (n, h, w).

    Raises:
      TypeError: when they are not boolean.
      ValueError: for another rank or an empty axis.
    """
    masks = np.asarray(masks)
    if masks.dtype != bool:
        raise TypeError(f"masks must be boolean, got dtype {masks.dtype}.")
    if masks.ndim not in (2, 3) or 0 in masks.shape:
        raise ValueError(
            f"masks must have shape (height, width) or (n, height, width), got {masks.shape}."
        )
    return masks


def unit(picture: np.ndarray) -> np.ndarray:
    """Scaled so that the largest value is 1: the square of a tiny gradient is not lost."""
    largest = np.abs(picture).max()
    return picture / largest if largest > 0 else picture


def measured(measure: Callable[..., float], *arrays: np.ndarray) -> float | np.ndarray:
    """`measure` of a map and what goes with it, or of each along their leading axis, as (n,).

    One after the other, in float64: the memory is that of one map.
    """

    def measure_map(*parts):
        return float(
            measure(*(part if part.dtype == bool else part.astype(np.float64) for part in parts))
        )

    if arrays[0].ndim == 3:
        return measure_map(*arrays)
    return np.array([measure_map(*parts) for parts in zip(*arrays, strict=True)])
