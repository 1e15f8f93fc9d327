"""The grid that a network's stride paints into its maps."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxrobust import map_metrics
from jaxrobust.experiments import statistics

# Of the first layers, which paint the grids that are seen: 2, or AlexNet's 4. Later strides are
# multiples of these.
STRIDES = (2, 4)
# How far the share of a phase may lie from an equal one, in points.
LIMIT = 5.0


def phases(maps: Mapping[str, Sequence[np.ndarray]]) -> dict[str, dict[str, Any]]:
    """Shares of energy in the phases of each stride, and how far any is from an equal one.

    Args:
      maps: {run: (n, h, w, c) of each seed}.

    Returns:
      {stride as text: {run: {"shares", of all seeds together, "by_seed", and "points_from_equal",
      the mean over seeds}}}.
    """
    return {
        str(stride): {run: _shared(seeds, stride) for run, seeds in maps.items()}
        for stride in STRIDES
    }


def _shared(seeds: Sequence[np.ndarray], stride: int) -> dict[str, Any]:
    by_seed = [
        np.apply_along_axis(
            statistics.defined_mean, 0, map_metrics.phase_shares(maps, stride=stride)
        )
        for maps in seeds
    ]
    return {
        "shares": np.mean(by_seed, axis=0).tolist(),
        "by_seed": [of_seed.tolist() for of_seed in by_seed],
        # Each seed's own: grids in different phases do not make up for each other.
        "points_from_equal": float(np.mean(list(map(_points_from_equal, by_seed)))),
    }


def is_there(found: Mapping[str, Mapping[str, Any]], runs: Sequence[str]) -> bool:
    """Whether, by what `phases` found, a phase of some run is beyond the limit."""
    return any(
        strides[run]["points_from_equal"] > LIMIT for strides in found.values() for run in runs
    )


def by_seed(found: Mapping[str, Mapping[str, Any]]) -> dict[str, list[float]]:
    """{run: of each seed how far any phase of any stride is from an equal share, in points}.

    Example:
      >>> maps = np.zeros((1, 4, 4, 1))
      >>> maps[:, ::2, ::2] = 1.0
      >>> by_seed(phases({"std": [np.ones((1, 4, 4, 1)), maps]}))
      {'std': [0.0, 75.0]}
    """
    points: dict[str, list[float]] = {}
    for strides in found.values():
        for run, shared in strides.items():
            here = [_points_from_equal(np.array(shares)) for shares in shared["by_seed"]]
            points[run] = [max(pair) for pair in zip(here, points.get(run, here), strict=True)]
    return points


def _points_from_equal(shares: np.ndarray) -> float:
    return float(100 * np.abs(shares - 1 / shares.size).max())
