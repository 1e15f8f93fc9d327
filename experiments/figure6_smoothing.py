"""Accuracy on smoothed pictures: Figure 6 of the paper, with the pictures of its Figure 5.

    python -m jaxrobust.experiments.figure6_smoothing --workdirs runs/quickstart

draws, for every architecture among the workdirs, the accuracy of STD and ADV (mean and standard
deviation over all seeds) under a Gaussian blur of growing width and a median filter applied again
and again; the difference of the means is filled in the colour of the one that is ahead. A second
figure shows pictures at those levels. Claim 5 of the paper has two halves: under blur, STD - ADV
stays within 10 points of its value without blur, as far as both are more than 10 points above
chance; after five median filters, ADV is ahead.

Every image is decoded once for all levels. Which images are right is kept beside each checkpoint,
so that an interrupted call goes on, and a second one only draws.

Cost: about a minute for the quickstart's six models on two CPU cores.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrobust import plots
from jaxrobust.experiments import accuracies, result, statistics, tiles, trained
from jaxrobust.experiments.accuracies import RUNS, SIGMAS, TIMES, Runs
from jaxrobust.experiments.experiment import Experiment, whole_number
from jaxrobust.experiments.pictures import Pictures, evaluation_pictures, shown_positions
from jaxrobust.experiments.words import per_cent, spread_over

# Claim 5: how far the difference may move under blur, and from where an accuracy is too close to
# chance for it to mean anything; in points.
_WITHIN = 10.0
_ABOVE_CHANCE = 10.0
_MOST_PICTURES = 50
BLUR = {f"blur {sigma:g}": accuracies.blurred(sigma) for sigma in SIGMAS}
MEDIAN = {f"median {times}": accuracies.median_filtered(times) for times in TIMES}


def measure_level(runs: Runs, name: str, side: str | None = None) -> dict[str, Any]:
    """STD, ADV and STD - ADV on one variant, as JSON; `side` is a claim about the difference."""
    by_seed = {run: [seed[name].top1 for seed in runs[run]] for run in RUNS}
    right = [[seed[name].right for seed in runs[run]] for run in ("adv", "std")]
    return {
        run: {"mean": float(np.mean(values)), "by_seed": values} for run, values in by_seed.items()
    } | {"std_minus_adv": statistics.compare(*right, side)}


def decide(runs: Runs, *, chance: float) -> dict[str, Any]:
    """Claim 5, with the accuracies at all levels and the differences that decide it.

    A level of blur counts while both are more than 10 points above chance, there and at all smaller
    sigmas. "change" is by how much STD - ADV differs from its value at sigma 0, "verdict" says
    whether that is within 10 points at the levels that count, "order" whether the one that is ahead
    at sigma 0 still is; "turned_at" lists the sigmas, of all, at which the other one is ahead by
    the interval.

    Args:
      runs: accuracies of STD and ADV under all of `BLUR` and `MEDIAN`.
      chance: accuracy of a guess, in per cent.
    """
    pairs = list(zip(runs["std"], runs["adv"], strict=True))
    gaps = [[std[name].right - adv[name].right for std, adv in pairs] for name in BLUR]
    std_ahead = np.mean([seed.mean() for seed in gaps[0]]) > 0
    levels, counts = [], True
    for sigma, name, gap in zip(SIGMAS, BLUR, gaps, strict=True):
        side = "positive" if std_ahead else "negative"
        level = {"sigma": sigma} | measure_level(runs, name, side)
        counts &= all(level[run]["mean"] > chance + _ABOVE_CHANCE for run in RUNS)
        change = statistics.compare(gaps[0], gap)
        level |= {
            "counts": counts,
            "change": change,
            "within": statistics.within(change, _WITHIN),
            "order_kept": level["std_minus_adv"].pop("verdict"),
        }
        levels.append(level)
    counted = [level for level in levels if level["counts"] and level["sigma"] > 0]
    blur = {
        "levels": levels,
        "ahead_without_blur": "std" if std_ahead else "adv",
        "counted_up_to": counted[-1]["sigma"] if counted else None,
        "verdict": statistics.all_hold(level["within"] for level in counted),
        "order": statistics.all_hold(level["order_kept"] for level in counted),
        "turned_at": [level["sigma"] for level in levels if level["order_kept"] == "does not hold"],
    }
    at_the_end = accuracies.ahead(runs, list(MEDIAN)[-1])
    median = {
        "levels": [
            {"times": times} | measure_level(runs, name)
            for times, name in zip(TIMES, MEDIAN, strict=True)
        ],
        "adv_minus_std_at_the_end": at_the_end["adv_minus_std"],
        "verdict": at_the_end["verdict"],
    }
    claim = statistics.all_hold([blur["verdict"], median["verdict"]])
    return {"chance": chance, "blur": blur, "median": median, "claim_5": claim}


def draw_curves(runs: Runs, *, title: str, chance: float, path: Path) -> None:
    """Both panels of one architecture; `chance` is the accuracy of a guess, in per cent."""
    kernels = [f"{size} × {size}" for size in (accuracies.BLUR_KERNEL, accuracies.MEDIAN_KERNEL)]
    panels = {
        f"Gaussian blur, {kernels[0]}": (SIGMAS, "σ (pixels)", BLUR),
        f"Median filter, {kernels[1]}": (TIMES, "times applied", MEDIAN),
    }
    series = {
        panel: {
            run.upper(): [[seed[name].top1 for name in levels] for seed in runs[run]]
            for run in RUNS
        }
        for panel, (_, _, levels) in panels.items()
    }
    highest = max(np.max(values) for lines in series.values() for values in lines.values())
    seeds, images = len(runs["std"]), len(runs["std"][0][next(iter(BLUR))].right)
    bands = f"Bands: ± one standard deviation over {seeds} seeds" if seeds > 1 else "One seed"
    plots.curves(
        {panel: x for panel, (x, _, _) in panels.items()},
        series,
        x_label={panel: label for panel, (_, label, _) in panels.items()},
        y_label="top-1 accuracy (%)",
        filled_between=("STD", "ADV"),
        y_limits=(0.0, min(102.0, 1.1 * highest + 1.0)),
        title=title,
        note=f"{bands}; {images} images; a guess has {per_cent(chance)}.",
        path=path,
    )


def draw_pictures(pictures: Pictures, positions: Sequence[int], *, title: str, path: Path) -> None:
    """For each picture a row of blurred ones above one of median-filtered ones.

    A column is so many median filters, and as many pixels of sigma.
    """
    images = pictures.images[list(positions)]
    filtered = [
        [accuracies.filtered(images, variant(level)) for level in TIMES]
        for variant in (accuracies.blurred, accuracies.median_filtered)
    ]
    plots.grid(
        [
            [level[place] for level in levels]
            for place in range(len(positions))
            for levels in filtered
        ],
        row_titles=["blur, σ", "median, times"] * len(positions),
        column_titles=[str(level) for level in TIMES],
        row_groups=[(pictures.class_names[pictures.labels[position]], 2) for position in positions],
        title=title,
        note=f"{accuracies.FILTERS_NOTE}.",
        path=path,
    )


def boxes(
    title: str, numbers: Mapping[str, Any], images: np.ndarray, *, stem: Path
) -> list[result.Box]:
    """A slider for blur and one for the median filter: pictures and accuracies at each level."""
    made = []
    for kind, key, unit, filter_title, variants in (
        ("blur", "sigma", "σ = {:g}", "Gaussian blur", BLUR),
        ("median", "times", "{:g} times", "Median filter", MEDIAN),
    ):
        panels = []
        for level, variant in zip(numbers[kind]["levels"], variants.values(), strict=True):
            text = unit.format(level[key])
            path = stem.with_name(f"{stem.name}_tiles_{kind}_{level[key]:g}.png")
            file = tiles.write(accuracies.filtered(images, variant), path)
            strip = result.Strip(file, "Pictures", f"{filter_title}, {text}")
            panels.append(result.Panel(text, [strip], {run: level[run]["mean"] for run in RUNS}))
        made.append(result.Box(f"{title}: {filter_title}", filter_title, panels, slide=True))
    return made


def cells(level: Mapping[str, Any]) -> list[result.Cell]:
    """STD, ADV, STD - ADV."""
    sides = [result.Spread(level[run]["by_seed"]) for run in RUNS]
    return [*sides, result.Change(level["std_minus_adv"], 1)]


def tables(numbers: Mapping[str, Any]) -> list[result.Part]:
    """The accuracies of one architecture at all levels, and which of the two is ahead."""
    blur, median = numbers["blur"], numbers["median"]
    threshold = per_cent(numbers["chance"] + _ABOVE_CHANCE)
    rows = []
    for level in blur["levels"]:
        judged: list[result.Cell] = ["", "", ""]
        if level["sigma"]:
            within = result.Verdict(level["within"]) if level["counts"] else ""
            judged = [result.Change(level["change"], 1), "yes" if level["counts"] else "no", within]
        rows.append([f"{level['sigma']:g}", *cells(level), *judged])
    ahead, other = ("STD", "ADV") if blur["ahead_without_blur"] == "std" else ("ADV", "STD")
    notes = [f"Under blur: not measured, at no σ are both above {threshold}."]
    if blur["counted_up_to"] is not None:
        up_to = f"up to σ = {blur['counted_up_to']:g}, while both are above {threshold}"
        notes = [f"Blur keeps the order, {ahead} ahead ({up_to}): {blur['order']}."]
    if blur["turned_at"]:
        sigmas = ", ".join(f"{sigma:g}" for sigma in blur["turned_at"])
        notes.append(f"{other} is ahead at σ = {sigmas}.")
    header = ["STD", "ADV", "STD − ADV"]
    judgement = ["change from σ = 0", f"both above {threshold}", f"within ±{_WITHIN:g}"]
    return [
        result.Text(
            f"{numbers['dataset']}, {numbers['images']} images; pairs of trainings: "
            f"{len(numbers['pairs'])}. Top-1 accuracy in per cent, "
            f"{spread_over(len(numbers['pairs']), 'seed')}; differences in points with their 95 % "
            "bootstrap intervals."
        ),
        result.Table(["blur, σ", *header, *judgement], rows),
        result.Table(
            ["median, times", *header],
            [[str(level["times"]), *cells(level)] for level in median["levels"]],
        ),
        result.Notes(notes),
    ]


def decision(numbers: Mapping[str, Any]) -> result.Decision:
    """Claim 5 of one architecture, with the measures that decide it."""
    blur, median = numbers["blur"], numbers["median"]
    measures = []
    counted = [level for level in blur["levels"] if level["counts"] and level["sigma"] > 0]
    if counted:
        level = max(counted, key=lambda level: abs(level["change"]["mean"]))
        what = (
            f"top-1 under blur, %; of σ ≤ {blur['counted_up_to']:g}, where both are above "
            f"{per_cent(numbers['chance'] + _ABOVE_CHANCE)}, the one with the largest change: "
            f"σ = {level['sigma']:g}"
        )
        change = result.Change(level["change"], 1, "STD − ADV has changed by")
        measures.append(result.Measure(what, *cells(level)[:2], change, blur["verdict"]))
    last = median["levels"][-1]
    what = f"top-1 after {last['times']} median filters, %"
    change = result.Change(median["adv_minus_std_at_the_end"], 1, "ADV − STD")
    measures.append(result.Measure(what, *cells(last)[:2], change, median["verdict"]))
    return result.Decision(numbers["claim_5"], measures)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How images are evaluated, and how many are drawn."""
    accuracies.add_arguments(parser)
    tiles.add_argument(parser)
    parser.add_argument(
        "--pictures",
        type=whole_number(1),
        default=3,
        metavar="N",
        help=f"drawn, of different classes, at most {_MOST_PICTURES} (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> result.Result:
    """Measures, decides and draws every architecture."""
    if arguments.pictures > _MOST_PICTURES:
        raise ValueError(f"--pictures must be at most {_MOST_PICTURES}, got {arguments.pictures}.")
    by_architecture = trained.by_architecture(arguments.workdirs)
    # All before anything is measured: what there is too few of is said first.
    drawn = {
        title: evaluation_pictures(
            first.config,
            max(arguments.pictures, accuracies.number_of_classes(first)),
            per_class=True,
        )
        for title, ((first, _), *_) in by_architecture.items()
    }
    findings = {}
    for title, pairs in by_architecture.items():
        runs = accuracies.measure_pairs(pairs, BLUR | MEDIAN, batch_size=arguments.batch_size)
        first = pairs[0][0]
        chance = 100.0 / accuracies.number_of_classes(first)
        pictures = drawn[title]
        positions = shown_positions(pictures.labels, arguments.pictures)
        numbers = {
            "pairs": trained.pairs_described(pairs),
            "dataset": first.config.dataset.name,
            "images": len(next(iter(runs["std"][0].values())).right),
            "drawn": pictures.described(positions)["drawn"],
            "blur_options": accuracies.blurred(0) | {"sigma": list(SIGMAS)},
            "median_options": accuracies.median_filtered(0) | {"times": list(TIMES)},
        } | decide(runs, chance=chance)
        stem = arguments.out / f"figure6_smoothing_{trained.slug(title)}"
        curves = result.Figure(f"{stem.name}.png", f"{title}: accuracy on smoothed pictures")
        draw_curves(runs, title=curves.caption, chance=chance, path=arguments.out / curves.file)
        examples = result.Figure(
            f"{stem.name}_pictures.png", "Smoothed pictures", folded=arguments.tiles
        )
        draw_pictures(
            pictures, positions, title=examples.caption, path=arguments.out / examples.file
        )
        parts = [*tables(numbers), curves, examples]
        if arguments.tiles:
            images = pictures.images[shown_positions(pictures.labels, tiles.MOST)]
            parts = [*boxes(title, numbers, images, stem=stem), *parts]
        findings[title] = result.Finding(numbers, parts, {"5": decision(numbers)})
    return result.Result(findings)


EXPERIMENT = Experiment(
    name="figure6_smoothing",
    title="Figures 5 and 6: accuracy on smoothed pictures",
    short="Figure 6",
    paper="Gaussian blur hurts STD and ADV alike; after median filters ADV is ahead.",
    claims=(
        result.Claim(
            "5",
            "Blur hurts both alike; the median filter turns the order",
            "under blur, STD − ADV stays within 10 points of its value at 0 while both are above "
            "chance + 10; after 5 median filters, ADV − STD > 0",
            ("STD", "ADV", "difference, points"),
        ),
    ),
    run=run,
    document=__doc__,
    add_arguments=add_arguments,
)

if __name__ == "__main__":
    EXPERIMENT.main()
