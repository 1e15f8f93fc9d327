"""Claim 7, both kinds of features help: its three parts, decided on accuracies of late fusion."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxrobust.experiments import result, statistics
from jaxrobust.experiments.accuracies import Accuracy
from jaxrobust.experiments.fine_tunings import ENSEMBLES, SINGLE

CLAIM = result.Claim(
    "7",
    "Both kinds of features help",
    "STD+ADV − max(STD, ADV) > 0; STD+ADV within 1 point of the best everywhere; ADV+ADV above "
    "STD+STD at low resolution, below it at high (the better and the best are those of each seed)",
    ("one", "the other", "difference, points"),
)
# How far below the best STD+ADV may be, in points.
WITHIN = 1.0
_OURS = "STD+ADV"
PARTS = ("above_single", "near_best", "by_resolution")
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


def against_best(runs: Runs, settings: Sequence[str], *, limit: float) -> dict[str, Any]:
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
      settings: those that STD+ADV is compared with.
      limit: in points.

    Returns:
      The difference as `compare` returns it, with its "verdict" and "best_by_seed": {seed:
      {"setting", "top1"}} of what STD+ADV was compared with.
    """
    ours = runs.get(_OURS, {})
    measured = [setting for setting in settings if runs.get(setting)]
    common = set(ours).intersection(*(runs[setting] for setting in measured))
    chosen = {
        seed: max(measured, key=lambda setting: runs[setting][seed].top1)
        for seed in (sorted(common) if measured else ())
    }
    best = {seed: runs[setting][seed] for seed, setting in chosen.items()}
    change = compare({"best": best, _OURS: ours}, "best", _OURS)
    verdict = statistics.above(change, limit)
    if verdict == "holds" and len(measured) < len(settings):
        verdict = "open"
    by_seed = {
        seed: {"setting": setting, "top1": best[seed].top1} for seed, setting in chosen.items()
    }
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
    rest = (*SINGLE, *SAME_SIZE)
    return {
        "above_single": against_best(runs, SINGLE, limit=0.0),
        "near_best": against_best(runs, rest, limit=-WITHIN),
        "by_resolution": {"expected": side, **compare(runs, "STD+STD", "ADV+ADV", side)},
        "against_each": {setting: compare(runs, setting, _OURS, "positive") for setting in rest},
    }


def decide_together(datasets: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The parts of claim 7 over all data sets of an architecture, and the claim.

    Args:
      datasets: {title: {"resolution": …, "decided": what `decide` returned}}.
    """
    parts = {
        part: statistics.all_hold(each["decided"][part]["verdict"] for each in datasets.values())
        for part in PARTS
    }
    resolutions = {each["resolution"] for each in datasets.values()}
    if parts["by_resolution"] == "holds" and resolutions != {"low", "high"}:
        parts["by_resolution"] = "open"  # one of the two was not looked at
    return parts | {"claim_7": statistics.all_hold(parts.values())}


def measures(title: str, task: Mapping[str, Any]) -> list[result.Measure]:
    """What decides on one data set.

    Args:
      title: of the data set.
      task: its "resolution", "top1" as {setting: {"by_seed": {seed: per cent}}} and "decided".
    """

    def side(label: str, values: Sequence[float]) -> result.Spread:
        return result.Spread(values, label=label if values else "")

    def of(setting: str) -> result.Spread:
        return side(setting, list(task["top1"].get(setting, {"by_seed": {}})["by_seed"].values()))

    def best(part: str) -> result.Spread:
        chosen = task["decided"][part]["best_by_seed"].values()
        settings = dict.fromkeys(winner["setting"] for winner in chosen)
        return side(" or ".join(settings), [winner["top1"] for winner in chosen])

    resolution = f"ADV+ADV against STD+STD, {task['resolution']} resolution"
    four = f"against the best of the other four, more than −{WITHIN:g}"
    rows = {
        "above_single": ("against the better of STD and ADV", of(_OURS), best("above_single")),
        "near_best": (four, of(_OURS), best("near_best")),
        "by_resolution": (resolution, of("ADV+ADV"), of("STD+STD")),
    }
    changes = task["decided"]
    return [
        result.Measure(
            f"{title}: {what}",
            *sides,
            result.Change(changes[part], digits=1),
            changes[part]["verdict"],
        )
        for part, (what, *sides) in rows.items()
    ]
