"""How alike two maps are, as Adebayo et al. 2018 (Sanity checks for saliency maps) measure it.

Each measure reduces the maps to one number a pixel first: the sum over channels of the absolute
values or, with `signed`, of the values. Both belong in a report: maps may be large in
the same places and yet of different signs there.
"""

import numpy as np
import scipy.stats
import skimage.feature
import skimage.metrics

from jaxrobust.core.types import Images
from jaxrobust.map_metrics.arrays import check_maps, measured


def _check_pair(maps: Images, others: Images) -> tuple[np.ndarray, np.ndarray]:
    maps, others = check_maps(maps), check_maps(others, "others")
    if maps.shape != others.shape:
        raise ValueError(f"others must have the shape of maps, {maps.shape}, got {others.shape}.")
    return maps, others


def _check_percentile(clip_percentile: float) -> None:
    if not 0 < clip_percentile <= 100:
        raise ValueError(f"clip_percentile must lie in (0, 100], got {clip_percentile}.")


def _by_pixel(picture: np.ndarray, signed: bool) -> np.ndarray:
    return (picture if signed else np.abs(picture)).sum(-1)


def _normalized(picture: np.ndarray, signed: bool, clip_percentile: float) -> np.ndarray | None:
    """(h, w) in [0, 1], with 0 at 1/2 when signed; None when nothing is left to see."""
    values = _by_pixel(picture, signed)
    high = np.percentile(np.abs(values), clip_percentile)
    low = -high if signed else values.min()
    if not high > low or np.ptp(values) == 0:
        return None
    return np.clip((values - low) / (high - low), 0.0, 1.0)


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's; NaN when either is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return np.nan
    return float(scipy.stats.pearsonr(first, second).statistic)


def rank_correlation(maps: Images, others: Images, *, signed: bool = False) -> float | np.ndarray:
    """Spearman's rank correlation between the pixels of two maps.

    Args:
      maps: (h, w, c) or (n, h, w, c) floats.
      others: maps of the same shape.
      signed: correlate the sums over channels rather than the sums of absolute values.

    Returns:
      In [-1, 1], a number or (n,); NaN where either map is the same at every pixel.

    Raises:
      TypeError, ValueError: for maps of another dtype or rank, or whose shapes differ.

    Example:
      >>> import numpy as np
      >>> maps = np.arange(12.0).reshape(2, 2, 3)
      >>> alike, opposite = (
      ...     rank_correlation(maps, maps**3), rank_correlation(maps, -maps, signed=True)
      ... )
      >>> round(alike, 6), round(opposite, 6)
      (1.0, -1.0)
    """

    def correlation(picture, other):
        ranks = [
            scipy.stats.rankdata(_by_pixel(values, signed).ravel()) for values in (picture, other)
        ]
        return _correlation(*ranks)

    return measured(correlation, *_check_pair(maps, others))


def structural_similarity(
    maps: Images, others: Images, *, signed: bool = False, clip_percentile: float = 99.0
) -> float | np.ndarray:
    """SSIM of two normalised maps (Wang et al. 2004: Gaussian window of 11 pixels, sigma 1.5).

    Each map is normalised first, since maps of different models differ in scale by orders of
    magnitude: clipped at a percentile of its absolute values, then from its smallest to its
    largest value onto [0, 1]; with `signed`, from minus the largest to the largest, so that 0 comes
    to lie at 1/2 (about 0, SSIM would take a map with all signs turned for a similar one).

    Args:
      maps: (h, w, c) or (n, h, w, c) floats, at least 11 x 11.
      others: maps of the same shape.
      signed: compare the sums over channels rather than the sums of absolute values.
      clip_percentile: in (0, 100]; 100 does not clip.

    Returns:
      In [-1, 1], a number or (n,); NaN where either map is the same at every pixel (after
      clipping, too: a map of which fewer pixels are lit than the percentile leaves).

    Raises:
      TypeError, ValueError: for maps of another dtype or rank, too small, or whose shapes differ.

    Example:
      >>> import numpy as np
      >>> maps = np.random.default_rng(0).normal(size=(16, 16, 3))
      >>> round(structural_similarity(maps, 10 * maps), 6)  # the scale does not matter
      1.0
    """
    _check_percentile(clip_percentile)
    maps, others = _check_pair(maps, others)
    if min(maps.shape[-3:-1]) < 11:
        raise ValueError(
            f"maps must be at least 11 x 11 for the window of SSIM, got {maps.shape[-3:-1]}."
        )

    def similarity(*pictures):
        normalized = [_normalized(picture, signed, clip_percentile) for picture in pictures]
        if any(values is None for values in normalized):
            return np.nan
        return skimage.metrics.structural_similarity(
            *normalized,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )

    return measured(similarity, maps, others)


def hog_similarity(
    maps: Images,
    others: Images,
    *,
    signed: bool = False,
    clip_percentile: float = 99.0,
    pixels_per_cell: int | None = None,
) -> float | np.ndarray:
    """Pearson's correlation between the histograms of oriented gradients of two maps.

    The maps are normalised as for `structural_similarity`; the descriptor is scikit-image's, with 9
    orientations and blocks of 3 x 3 cells.

    Args:
      maps: (h, w, c) or (n, h, w, c) floats.
      others: maps of the same shape.
      signed: compare the sums over channels rather than the sums of absolute values.
      clip_percentile: in (0, 100]; 100 does not clip.
      pixels_per_cell: side of a cell, at least 2. None: 16, or an eighth of the shorter side of
        maps below 128 pixels (4 at 32).

    Returns:
      In [-1, 1], a number or (n,); NaN where either map is the same at every pixel (after
      clipping, too).

    Raises:
      TypeError, ValueError: for maps of another dtype or rank, whose shapes differ, or that do not
        hold a block of 3 x 3 cells.

    Example:
      >>> import numpy as np
      >>> stripes = np.indices((32, 32))[0][..., None] // 4 % 2.0
      >>> round(hog_similarity(stripes, 2 * stripes), 6)
      1.0
      >>> hog_similarity(stripes, stripes.transpose(1, 0, 2)) < 0.1
      True
    """
    _check_percentile(clip_percentile)
    maps, others = _check_pair(maps, others)
    side = min(maps.shape[-3:-1])
    cell = min(16, side // 8) if pixels_per_cell is None else pixels_per_cell
    if cell < 2 or cell != int(cell):
        raise ValueError(
            f"pixels_per_cell must be a whole number of at least 2, got {cell}"
            + (f" (an eighth of {side} pixels)." if pixels_per_cell is None else ".")
        )
    if side < 3 * cell:
        raise ValueError(f"maps must hold 3 x 3 cells of {cell} pixels, got {maps.shape[-3:-1]}.")

    def similarity(*pictures):
        normalized = [_normalized(picture, signed, clip_percentile) for picture in pictures]
        if any(values is None for values in normalized):
            return np.nan
        return _correlation(
            *(
                skimage.feature.hog(
                    values,
                    orientations=9,
                    pixels_per_cell=(cell, cell),
                    cells_per_block=(3, 3),
                    block_norm="L2-Hys",
                )
                for values in normalized
            )
        )

    return measured(similarity, maps, others)
