"""What a map looks at, in figures: spectrum, phases, silhouette, similarity, deletion, insertion.

Every measure takes one map (h, w, c) or many (n, h, w, c), signed and of any scale, NumPy or JAX,
and returns a number or (n,) of them (of phases, a square of numbers); a map's figure never depends
on what else is in the batch. The reporting measures are NumPy in float64, on the host; the curves
need the classifier and are compiled. Where a measure is not defined (a map that is the same
everywhere has no spectrum, no ranks and no energy to share out) the figure is NaN, for that map
alone; values that are not finite raise.
"""

from jaxrobust.map_metrics.curves import area_under_curve, deletion_curve, insertion_curve
from jaxrobust.map_metrics.phases import phase_shares
from jaxrobust.map_metrics.silhouette import band_share, energy_share, silhouette_band
from jaxrobust.map_metrics.similarity import (
    hog_similarity,
    rank_correlation,
    structural_similarity,
)
from jaxrobust.map_metrics.spectrum import (
    chroma_energy,
    chroma_share,
    high_frequency_share,
    nyquist_corner_share,
    spectral_centroid,
)

__all__ = [
    "area_under_curve",
    "band_share",
    "chroma_energy",
    "chroma_share",
    "deletion_curve",
    "energy_share",
    "high_frequency_share",
    "hog_similarity",
    "insertion_curve",
    "nyquist_corner_share",
    "phase_shares",
    "rank_correlation",
    "silhouette_band",
    "spectral_centroid",
    "structural_similarity",
]
