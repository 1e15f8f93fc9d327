"""Where in the picture the energy of a map lies: on an object, around it, along its silhouette."""

import numpy as np
from scipy import ndimage

from jaxrobust.core.types import Images
from jaxrobust.map_metrics.arrays import check_maps, check_masks, measured, unit


def silhouette_band(masks: Images, *, width: float | None = None) -> np.ndarray:
    """The pixels near the edge of a mask, on both sides of it.

    A pixel belongs to the band when the nearest pixel on the other side of the edge is at most
    `width` away (Euclidean, between the centres of pixels): along a straight edge, `width` pixels
    on each side. The border of the picture is no edge.

    Args:
      masks: (h, w) or (n, h, w) booleans, True on the object.
      width: in pixels, at least 1. None: h / 16, which is 2 at 32 pixels and 14 at 224.

    Returns:
      Booleans of the masks' shape.

    Raises:
      TypeError, ValueError: for masks of another dtype or rank, a mask without an edge (it covers
        nothing or everything), or a width below 1.

    Example:
      >>> import numpy as np
      >>> silhouette_band(np.array([[False, False, True, True, True]]), width=1).astype(int)
      array([[0, 1, 1, 0, 0]])
    """
    masks = check_masks(masks)
    height = masks.shape[-2]
    radius = height / 16 if width is None else float(width)
    if not 1 <= radius < np.inf:
        source = "" if width is not None else f" (a sixteenth of the height {height})"
        raise ValueError(f"width must be at least 1 pixel, got {radius:g}{source}.")
    several = masks.reshape(-1, *masks.shape[-2:])
    for position, mask in enumerate(several):
        if mask.all() or not mask.any():
            which = "the mask" if masks.ndim == 2 else f"mask {position}"
            covered = "everything" if mask.all() else "nothing"
            raise ValueError(f"masks must have an edge, but {which} covers {covered}.")
    # Each transform is zero on the other side of the edge, so the sum is the one that is not.
    distances = [
        ndimage.distance_transform_edt(mask) + ndimage.distance_transform_edt(~mask)
        for mask in several
    ]
    return (np.array(distances) <= radius + 1e-9).reshape(masks.shape)


def energy_share(maps: Images, masks: Images) -> float | np.ndarray:
    """The share of a map's energy inside a mask; with `~masks`, outside.

    Energy is the sum of squares over channels. A map without structure has the share of the area,
    `masks.mean((-2, -1))`.

    Args:
      maps: (h, w, c) or (n, h, w, c) floats.
      masks: (h, w) or (n, h, w) booleans, one for each map.

    Returns:
      A share in [0, 1], a number or (n,); NaN for a map that is zero everywhere.

    Raises:
      TypeError, ValueError: for maps or masks of another dtype or rank, or whose shapes differ.

    Example:
      >>> import numpy as np
      >>> energy_share(np.array([[[1.0], [2.0]]]), np.array([[False, True]]))
      0.8
    """
    maps, masks = check_maps(maps), check_masks(masks)
    if masks.shape != maps.shape[:-1]:
        raise ValueError(
            f"masks must have shape {maps.shape[:-1]}, as the maps have, got {masks.shape}."
        )

    def share(picture, mask):
        energy = np.square(unit(picture)).sum(-1)
        return energy[mask].sum() / energy.sum() if energy.any() else np.nan

    return measured(share, maps, masks)


def band_share(maps: Images, masks: Images, *, width: float | None = None) -> float | np.ndarray:
    """The share of a map's energy on the silhouette band of a mask.

    Args:
      maps: (h, w, c) or (n, h, w, c) floats.
      masks: (h, w) or (n, h, w) booleans, one for each map.
      width: of the band on each side of the edge, in pixels, as in `silhouette_band`.

    Returns:
      A share in [0, 1], a number or (n,); NaN for a map that is zero everywhere.

    Raises:
      TypeError, ValueError: for maps, masks or a width that `energy_share` or `silhouette_band`
        do not take.

    Example:
      >>> import numpy as np
      >>> mask = np.array([[False, False, True, True, True]])
      >>> band_share(np.ones((1, 5, 3)), mask, width=1)
      0.4
    """
    return energy_share(check_maps(maps), silhouette_band(masks, width=width))
