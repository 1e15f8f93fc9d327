"""How much of a map is the network's stride: a grid of pixels where its energy lies."""

import numpy as np

from jaxrobust.core.checks import check_count
from jaxrobust.core.types import Images
from jaxrobust.map_metrics.arrays import check_maps, unit


def phase_shares(maps: Images, *, stride: int) -> np.ndarray:
    """The share of a map's energy in each phase of a stride, 1 / stride² each without a grid.

    The pixel (y, x) belongs to the phase (y mod stride, x mod stride); energy is the sum of squares
    over channels. Where the stride does not divide the map's sides, phases differ in size: what is
    shared out is the mean energy of each phase's pixels.

    Their DFT is the spectrum of the map's squared magnitude at multiples of 1 / stride cycles per
    pixel, relative to that at 0 (where the stride divides the sides). The signed map's own spectrum
    hides a grid: values of random sign on every second pixel have the flat one of white noise.

    Args:
      maps: (h, w, c) or (n, h, w, c) floats.
      stride: in pixels, from 2 to the shorter side.

    Returns:
      (stride, stride) or (n, stride, stride) shares in [0, 1], float64, of sum 1 for each map; NaN
      for a map that is zero everywhere.

    Raises:
      TypeError, ValueError: for maps of another dtype or rank, or not finite, or for a stride out
        of its range.

    Example:
      >>> import numpy as np
      >>> lines = np.tile([[[1.0], [0.5]]], (4, 2, 1))  # every second column is weaker
      >>> phase_shares(lines, stride=2)
      array([[0.4, 0.1],
             [0.4, 0.1]])
    """
    maps = check_maps(maps)
    check_count("stride", stride, least=2)
    if stride > min(maps.shape[-3:-1]):
        raise ValueError(
            f"stride must be at most {min(maps.shape[-3:-1])}, the maps' shorter side, "
            f"got {stride}."
        )

    def shares(picture: np.ndarray) -> np.ndarray:
        energy = np.square(unit(picture.astype(np.float64))).sum(-1)
        starts = range(stride)
        phases = np.array([[energy[y::stride, x::stride].mean() for x in starts] for y in starts])
        return phases / phases.sum() if phases.any() else np.full_like(phases, np.nan)

    return shares(maps) if maps.ndim == 3 else np.stack([shares(picture) for picture in maps])
