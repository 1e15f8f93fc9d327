"""Maps and images as arrays of colours."""

import math
from typing import Any

import matplotlib
import numpy as np


def signed_maps(maps: Any, name: str = "maps") -> np.ndarray:
    """Maps as float64, checked."""
    maps = np.asarray(maps)
    if not np.issubdtype(maps.dtype, np.floating) and maps.dtype.name != "bfloat16":
        raise TypeError(f"{name} must be signed floats, got {maps.dtype}.")
    if maps.ndim < 3 or maps.shape[-1] not in (1, 3) or 0 in maps.shape:
        raise ValueError(
            f"{name} must have shape (…, height, width, 3) or (…, height, width, 1), "
            f"got {maps.shape}."
        )
    maps = maps.astype(np.float64)
    if not np.isfinite(maps).all():
        raise ValueError(f"{name} must be finite, got {not_finite(maps)}.")
    return maps


def not_finite(values: np.ndarray) -> str:
    return "NaN" if np.isnan(values).any() else "infinity"


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


def heatmap(
    maps: Any, *, sign: str = "positive", outliers: float = 2.0, colors: str = "inferno"
) -> np.ndarray:
    """Where a map has its energy, in a perceptually uniform colour map; each on its own scale.

    Args:
      maps: (…, h, w, 3) or (…, h, w, 1) floats; channels are added up.
      sign: "positive", "negative" or "absolute": the part of the sum that is shown.
      outliers: per cent of the energy, in the largest pixels, that may saturate.
      colors: name of a matplotlib colour map.

    Returns:
      float32 (…, h, w, 3) in [0, 1].

    Raises:
      TypeError, ValueError: for maps as of `to_picture`, or an option out of its range.

    Example:
      >>> heatmap(np.array([[[-2.0], [0.0], [2.0]]]), colors="gray")[0, :, 0].tolist()
      [0.0, 0.0, 1.0]
    """
    maps = signed_maps(maps)
    parts = {"positive": 1.0, "negative": -1.0}
    if sign not in (*parts, "absolute"):
        raise ValueError(f"sign must be positive, negative or absolute, got {sign!r}.")
    if not 0 <= outliers < 100:
        raise ValueError(f"outliers must be in [0, 100) per cent, got {outliers:g}.")
    if colors not in matplotlib.colormaps:
        raise ValueError(f"colors must name a colour map of matplotlib, got {colors!r}.")
    summed = maps.sum(-1)
    energy = np.abs(summed) if sign == "absolute" else np.maximum(parts[sign] * summed, 0.0)
    flat = np.sort(energy.reshape(*energy.shape[:-2], -1), axis=-1)
    reached = np.cumsum(flat, axis=-1) >= (1 - outliers / 100) * flat.sum(-1, keepdims=True)
    limit = np.take_along_axis(flat, reached.argmax(-1)[..., None], axis=-1)[..., None]
    share = np.clip(energy / np.where(limit > 0, limit, 1.0), 0.0, 1.0)
    return matplotlib.colormaps[colors](share)[..., :3].astype(np.float32)


def overlay(images: Any, maps: Any, *, alpha: float = 0.5, **options: Any) -> np.ndarray:
    """The heatmaps of maps laid over their images.

    Args:
      images: (…, h, w, 3) or (…, h, w, 1), floats in [0, 1] or uint8.
      maps: as for `heatmap`, with the images' height and width.
      alpha: weight of the heatmap in [0, 1]; the image has the rest.
      **options: of `heatmap`.

    Returns:
      float32 (…, h, w, 3) in [0, 1].

    Raises:
      TypeError, ValueError: when images or maps are out of their range or do not fit together.

    Example:
      >>> image, found = np.ones((1, 2, 3)), np.array([[[0.0], [1.0]]])
      >>> overlay(image, found, alpha=0.25, colors="gray")[0, :, 0].tolist()
      [0.75, 1.0]
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha:g}.")
    heat, pixels = heatmap(maps, **options), levels(images, "images")
    if pixels.shape != heat.shape:
        raise ValueError(
            f"images and maps must have the same height and width and number, got "
            f"{np.shape(images)} and {np.shape(maps)}."
        )
    return ((1 - alpha) * (pixels / 255.0) + alpha * heat).astype(np.float32)


def levels(pictures: Any, name: str) -> np.ndarray:
    """Pictures as uint8 (…, h, w, 3)."""
    pictures = np.asarray(pictures)
    if pictures.ndim < 3 or pictures.shape[-1] not in (1, 3) or 0 in pictures.shape:
        raise ValueError(
            f"{name} must have shape (height, width, 3) or (height, width, 1), "
            f"got {pictures.shape}."
        )
    if pictures.dtype != np.uint8:
        if not np.issubdtype(pictures.dtype, np.floating) and pictures.dtype.name != "bfloat16":
            raise TypeError(f"{name} must be floats in [0, 1] or uint8, got {pictures.dtype}.")
        pictures = pictures.astype(np.float64)
        if not np.isfinite(pictures).all():
            raise ValueError(f"{name} must be finite, got {not_finite(pictures)}.")
        low, high = pictures.min(), pictures.max()
        if low < -1e-3 or high > 1 + 1e-3:
            raise ValueError(
                f"{name} must lie in [0, 1], got values from {low:.3g} to {high:.3g} "
                "(to_picture makes a picture of a signed map)."
            )
        pictures = np.rint(255 * np.clip(pictures, 0.0, 1.0)).astype(np.uint8)
    return np.broadcast_to(pictures, (*pictures.shape[:-1], 3))
