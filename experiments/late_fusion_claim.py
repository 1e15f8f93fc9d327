"""Claim 7, both kinds of features help: its three parts, decided on accuracies of late fusion."""

from collections.abc import Mapping
from typing import Any

from experiments import statistics
from experiments.accuracies import Accuracy
from experiments.fine_tunings import ENSEMBLES, SINGLE

# How far below the best STD+ADV may be, in points.
WITHIN = 1.0
_OURS = "STD+ADV"
PARTS = {
    "above_single": "STD+ADV is above the better of STD and ADV",
    "near_best": f"STD+ADV is at most {WITHIN:g} point below the best of the five",
    "by_resolution": "ADV+ADV is above STD+STD at low resolution, below it at high",
}
SAME_SIZE = tuple(setting for setting in ENSEMBLES if setting != _OURS)

Runs = Mapping[str, Mapping[int, Accuracy]]
"""{setting: {seed: accuracy}} on one data set."""


def compare(runs: Runs, first: str, second: str, side: str | None = None) -> dict[str, Any]:
    """`statistics.compare` of second - first, image by image, over the seeds that both have."""
    seeds = [seed for seed in runs.get(first, {}) if seed in runs.get(second, {})]
    if not seeds:
        return {"mean": None, "low": None, "high": None} | ({"verdict": "open"} if side else {})
    return statistics.compare(
        [runs[first][seed].right for seed in seeds],
        [runs[second][seed].right for seed in seeds],
        side,
    )


def against_best(changes: Mapping[str, dict[str, Any]], *, limit: float) -> dict[str, Any]:
    """Whether the difference to the best of several settings lies above a limit.

    A setting that is missing could be better still: then nothing holds, but what does not hold
    against the others does not hold.

    Args:
      changes: {other setting: STD+ADV minus it, as `compare` returned it}.
      limit: in points.
    """
    known = {other: change for other, change in changes.items() if change["mean"] is not None}
    if not known:
        return {"best": None, **compare({}, "", ""), "verdict": "open"}
    best = min(known, key=lambda other: known[other]["mean"])
    verdict = above(known[best], limit)
    if verdict == "holds" and len(known) < len(changes):
        verdict = "open"
    return {"best": best, **known[best], "verdict": verdict}


def above(change: Mapping[str, Any], limit: float) -> str:
    """Whether a difference lies above a limit.

    Returns:
      "holds" when its interval lies above, "does not hold" when below, else "open".

    Example:
      >>> [above({"low": low, "high": low + 1}, -1.0) for low in (-0.5, -1.5, -3.0)]
      ['holds', 'open', 'does not hold']
    """
    if change["low"] is None:
        return "open"
    if change["low"] > limit:
        return "holds"
    return "does not hold" if change["high"] < limit else "open"


def decide(runs: Runs, *, resolution: str) -> dict[str, Any]:
    """The three parts of claim 7 on one data set, and what is not part of it.

    That STD+ADV is at most a point below the best of the five is the same as at most a point below
    the best of the other four. So stated, the difference has an interval also where STD+ADV itself
    is the best.

    Args:
      runs: its accuracies.
      resolution: "low" or "high".

    Returns:
      For each of `PARTS` a difference in points with its "verdict", and "same_size": STD+ADV minus
      each of the ensembles of two networks of one kind.
    """
    side = "positive" if resolution == "low" else "negative"
    changes = {other: compare(runs, other, _OURS) for other in (*SINGLE, *SAME_SIZE)}
    return {
        "above_single": against_best({other: changes[other] for other in SINGLE}, limit=0.0),
        "near_best": against_best(changes, limit=-WITHIN),
        "by_resolution": {"expected": side, **compare(runs, "STD+STD", "ADV+ADV", side)},
        "same_size": {
            other: changes[other] | {"verdict": above(changes[other], 0.0)} for other in SAME_SIZE
        },
    }


def decide_together(datasets: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The parts of claim 7 over all data sets of an architecture, and the claim.

    Args:
      datasets: {title: {"resolution": …, "decided": what `decide` returned}}.
    """
    parts = {
        part: statistics.all_hold(found["decided"][part]["verdict"] for found in datasets.values())
        for part in PARTS
    }
    resolutions = {found["resolution"] for found in datasets.values()}
    if parts["by_resolution"] == "holds" and resolutions != {"low", "high"}:
        parts["by_resolution"] = "open"  # one of the two was not looked at
    return parts | {"claim_7": statistics.all_hold(parts.values())}
