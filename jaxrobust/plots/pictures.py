"""Maps and images as arrays of colours."""

import math
from typing import Any

import matplotlib
import numpy as np

_SATURATED = 0.02  # share of a map's energy, in its largest pixels, that a heatmap saturates


def signed_maps(maps: Any, name: str = "maps", kind: str = "signed floats") -> np.ndarray:
    """Maps as float64, checked."""
    maps = np.asarray(maps)
    if maps.ndim < 3 or maps.shape[-1] not in (1, 3) or 0 in maps.shape:
        raise ValueError(
            f"{name} must have shape (…, height, width, 3) or (…, height, width, 1), "
            f"got {maps.shape}."
        )
    if not np.issubdtype(maps.dtype, np.floating) and maps.dtype.name != "bfloat16":
        raise TypeError(f"{name} must be {kind}, got {maps.dtype}.")
    maps = maps.astype(np.float64)
    check_finite(maps, name)
    return maps


def check_finite(values: np.ndarray, name: str) -> None:
    """Raise a ValueError unless all values are finite."""
    if not np.isfinite(values).all():
        wrong = "NaN" if np.isnan(values).any() else "infinity"
        raise ValueError(f"{name} must be finite, got {wrong}.")


def to_picture(maps: Any, *, deviations: float = 3.0) -> np.ndarray:
    """Signed maps as colour pictures, each on its own scale; mid-grey is zero.

    Args:
      maps: (…, h, w, 3) or (…, h, w, 1) floats of any sign and size.
      deviations: a map is clipped at this many of its standard deviations about 0 (over its pixels
        and channels), to either side.

    Returns:
      float32 of the same shape in [0, 1]; 0 becomes 0.5.

    Raises:
      TypeError, ValueError: for maps that are no floats, not finite or of another shape.

    Example:
      >>> to_picture(np.array([[[-2.0], [2.0]]]), deviations=2.0).ravel().tolist()
      [0.25, 0.75]
    """
    maps = signed_maps(maps)
    if not 0 < deviations < math.inf:
        raise ValueError(f"deviations must be a finite number above 0, got {deviations:g}.")
    axes = (-3, -2, -1)
    # Dividing by the peak first: gradients may be too small to be squared.
    peak = np.abs(maps).max(axes, keepdims=True)
    maps = maps / np.where(peak > 0, peak, 1.0)
    # About 0, which is mid-grey, rather than about the mean: a map of one sign would be all white.
    limit = deviations * np.sqrt(np.square(maps).mean(axes, keepdims=True))
    scaled = maps / np.where(limit > 0, limit, 1.0)
    return (0.5 + 0.5 * np.clip(scaled, -1.0, 1.0)).astype(np.float32)


def overlay(images: Any, maps: Any, *, alpha: float = 0.5) -> np.ndarray:
    """Where maps are positive, laid over their images in a perceptually uniform colour map.

    Each map has its own scale: its largest pixels, with 2 % of its positive energy, saturate.

    Args:
      images: (…, h, w, 3) or (…, h, w, 1), floats in [0, 1] or uint8.
      maps: (…, h, w, 3) or (…, h, w, 1) floats, with the images' height and width; channels are
        added up.
      alpha: weight of the map in [0, 1]; the image has the rest.

    Returns:
      float32 (…, h, w, 3) in [0, 1].

    Raises:
      TypeError, ValueError: when images or maps are out of their range or do not fit together.

    Example:
      >>> image, values = np.ones((1, 2, 3)), np.array([[[0.0], [1.0]]])
      >>> overlay(image, values, alpha=0.25)[0, :, 0].round(2).tolist()
      [0.75, 1.0]
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha:g}.")
    energy = np.maximum(signed_maps(maps).sum(-1), 0.0)
    flat = np.sort(energy.reshape(*energy.shape[:-2], -1), axis=-1)
    reached = np.cumsum(flat, axis=-1) >= (1 - _SATURATED) * flat.sum(-1, keepdims=True)
    limit = np.take_along_axis(flat, reached.argmax(-1)[..., None], axis=-1)[..., None]
    share = np.clip(energy / np.where(limit > 0, limit, 1.0), 0.0, 1.0)
    heat, pixels = matplotlib.colormaps["inferno"](share)[..., :3], levels(images, "images")
    if pixels.shape != heat.shape:
        raise ValueError(
            f"images and maps must have the same height and width and number, got "
            f"{np.shape(images)} and {np.shape(maps)}."
        )
    return ((1 - alpha) * (pixels / 255.0) + alpha * heat).astype(np.float32)


def levels(pictures: Any, name: str) -> np.ndarray:
    """Pictures as uint8 (…, h, w, 3)."""
    pictures = np.asarray(pictures)
    if pictures.dtype == np.uint8:
        pictures = pictures / 255.0
    pictures = signed_maps(pictures, name, "floats in [0, 1] or uint8")
    low, high = pictures.min(), pictures.max()
    if low < -1e-3 or high > 1 + 1e-3:
        raise ValueError(
            f"{name} must lie in [0, 1], got values from {low:.3g} to {high:.3g} "
            "(to_picture makes a picture of a signed map)."
        )
    pictures = np.rint(255 * np.clip(pictures, 0.0, 1.0)).astype(np.uint8)
    return np.broadcast_to(pictures, (*pictures.shape[:-1], 3))
