"""Claim 7, both kinds of features help: its three parts, decided on accuracies of late fusion."""

from collections.abc import Mapping, Sequence
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


def against_best(runs: Runs, others: Sequence[str], *, limit: float) -> dict[str, Any]:
    """Whether STD+ADV minus the best of several settings lies above a limit.

    The best is chosen for each seed: of the settings' networks of that seed the one with the most
    images right, whose images are compared with those of STD+ADV. So no interval is chosen after
    all were seen, and a setting that is mostly behind still counts where it is ahead. What wins
    has had luck as well as merit: the choice favours the others, which makes it harder that the
    claim holds and easier that it does not.

    Compared are the seeds that STD+ADV and all these settings have. A setting of which there is
    none could be better still: then nothing holds, but what does not hold against the others does
    not hold.

    Args:
      runs: accuracies by setting and seed.
      others: settings.
      limit: in points.

    Returns:
      The difference as `compare` returns it, with its "verdict" and "best_by_seed": {seed:
      {"setting", "top1"}} of what STD+ADV was compared with.
    """
    known = [other for other in others if runs.get(other)]
    common = set(runs.get(_OURS, {})).intersection(*(runs[other] for other in known))
    chosen = {
        seed: max(known, key=lambda other: runs[other][seed].top1)
        for seed in sorted(common)
        if known
    }
    best = {seed: runs[other][seed] for seed, other in chosen.items()}
    change = compare({"best": best, _OURS: runs.get(_OURS, {})}, "best", _OURS)
    verdict = statistics.above(change, limit)
    if verdict == "holds" and len(known) < len(others):
        verdict = "open"
    by_seed = {seed: {"setting": other, "top1": best[seed].top1} for seed, other in chosen.items()}
    return {"best_by_seed": by_seed, **change, "verdict": verdict}


def decide(runs: Runs, *, resolution: str) -> dict[str, Any]:
    """The three parts of claim 7 on one data set, and what is not part of it.

    The better and the best are those of each seed, as `against_best` has it. That STD+ADV is at
    most a point below the best of the five is the same as at most a point below the best of the
    other four. So stated, the difference has an interval also where STD+ADV itself is the best.

    Args:
      runs: its accuracies.
      resolution: "low" or "high".

    Returns:
      For each of `PARTS` a difference in points with its "verdict", and "against_each": STD+ADV
      minus each of the other settings alone, and whether that is above 0.
    """
    side = "positive" if resolution == "low" else "negative"
    others = (*SINGLE, *SAME_SIZE)
    changes = {other: compare(runs, other, _OURS) for other in others}
    return {
        "above_single": against_best(runs, SINGLE, limit=0.0),
        "near_best": against_best(runs, others, limit=-WITHIN),
        "by_resolution": {"expected": side, **compare(runs, "STD+STD", "ADV+ADV", side)},
        "against_each": {
            other: change | {"verdict": statistics.above(change, 0.0)}
            for other, change in changes.items()
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
