"""Accuracy on smoothed pictures: Figure 6 of the paper, with the pictures of its Figure 5.

    python -m experiments.figure6_smoothing --workdirs runs/quickstart

draws, for every architecture among the workdirs, the accuracy of STD and ADV (mean and standard
deviation over all seeds) under a Gaussian blur of growing width and a median filter applied again
and again; the difference of the means is filled in the colour of the one that is ahead. A second
figure shows pictures at those levels. Claim 5 of the paper has two halves: under blur, STD - ADV
stays within 10 points of its value without blur, as far as both are more than 10 points above
chance; after five median filters, ADV is ahead.

Every image is decoded once for all levels. What is measured is kept in `<out>/accuracies`, so that
an interrupted call goes on, and a second one only draws.

Cost: about a minute for the quickstart's six models on two CPU cores.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import accuracies, command, statistics, tiles, trained
from experiments.accuracies import SIGMAS, TIMES, Accuracy
from experiments.pictures import Pictures, evaluation_pictures, shown_positions
from jaxrobust import plots

_NAME = "figure6_smoothing"
# Claim 5: how far the difference may move under blur, and from where an accuracy is too close to
# chance for it to mean anything; in points.
_WITHIN = 10.0
_ABOVE_CHANCE = 10.0
_MOST_PICTURES = 50
_SHOWN_LEVELS = (0, 1, 2, 3, 4, 5)  # both sigmas and times
BLUR = {f"blur {sigma:g}": accuracies.blurred(sigma) for sigma in SIGMAS}
MEDIAN = {f"median {times}": accuracies.median_filtered(times) for times in TIMES}

Runs = Mapping[str, Sequence[Mapping[str, Accuracy]]]


def measure_level(runs: Runs, name: str, side: str | None = None) -> dict[str, Any]:
    """STD, ADV and STD - ADV on one variant, as JSON; `side` is a claim about the difference."""
    std, adv = (accuracies.images_right(runs[run], name) for run in ("std", "adv"))
    return {
        run: {
            "mean": accuracies.mean_top1(runs[run], name),
            "by_seed": [one[name].top1 for one in runs[run]],
        }
        for run in ("std", "adv")
    } | {"std_minus_adv": statistics.compare(adv, std, side)}


def blur_half(runs: Runs, *, chance: float) -> dict[str, Any]:
    """Whether blur leaves the difference of STD and ADV, and which of them is ahead, as they are.

    Args:
      runs: accuracies of STD and ADV under all of `BLUR`.
      chance: accuracy of a guess, in per cent.

    Returns:
      "levels": for each sigma the accuracies, by how much STD - ADV has changed from sigma 0, and
      whether the level counts: both are more than 10 points above chance there, and at all smaller
      sigmas. "verdict" is claim 5's over the levels that count; "order" says whether the one that
      is ahead at sigma 0 still is, at those levels; "turned_at" lists the sigmas, of all, at which
      the other one is ahead by the interval.
    """
    first = next(iter(BLUR))
    std, adv = (accuracies.images_right(runs[run], first) for run in ("std", "adv"))
    gap = [one - other for one, other in zip(std, adv, strict=True)]
    ahead = "positive" if np.mean([values.mean() for values in gap]) > 0 else "negative"
    levels, counts = [], True
    for sigma, name in zip(SIGMAS, BLUR, strict=True):
        level = {"sigma": sigma} | measure_level(runs, name, ahead)
        counts &= all(level[run]["mean"] > chance + _ABOVE_CHANCE for run in ("std", "adv"))
        std, adv = (accuracies.images_right(runs[run], name) for run in ("std", "adv"))
        here = [one - other for one, other in zip(std, adv, strict=True)]
        change = statistics.compare(gap, here)
        level |= {
            "counts": counts,
            "change": change,
            "within": statistics.within(change, _WITHIN),
            "order_kept": level["std_minus_adv"].pop("verdict"),
        }
        levels.append(level)
    counted = [level for level in levels if level["counts"] and level["sigma"] > 0]
    return {
        "levels": levels,
        "ahead_without_blur": "std" if ahead == "positive" else "adv",
        "counted_up_to": counted[-1]["sigma"] if counted else None,
        "verdict": statistics.all_hold(level["within"] for level in counted),
        "order": statistics.all_hold(level["order_kept"] for level in counted),
        "turned_at": [level["sigma"] for level in levels if level["order_kept"] == "does not hold"],
    }


def median_half(runs: Runs) -> dict[str, Any]:
    """Whether ADV is ahead after five median filters, with the accuracies at all times."""
    levels = [
        {"times": times} | measure_level(runs, name)
        for times, name in zip(TIMES, MEDIAN, strict=True)
    ]
    last = list(MEDIAN)[-1]
    std, adv = (accuracies.images_right(runs[run], last) for run in ("std", "adv"))
    change = statistics.compare(std, adv, "positive")
    verdict = change.pop("verdict")
    return {"levels": levels, "adv_minus_std_at_the_end": change, "verdict": verdict}


def decide(runs: Runs, *, chance: float) -> dict[str, Any]:
    """Claim 5, with all that it rests on."""
    blur, median = blur_half(runs, chance=chance), median_half(runs)
    return {
        "chance": chance,
        "blur": blur,
        "median": median,
        "claim_5": statistics.all_hold([blur["verdict"], median["verdict"]]),
    }


def draw_curves(runs: Runs, *, title: str, chance: float, path: Path) -> None:
    """Both panels of one architecture; `chance` is the accuracy of a guess, in per cent."""
    panels = {
        f"Gaussian blur, {accuracies.BLUR_KERNEL} × {accuracies.BLUR_KERNEL}": (
            SIGMAS,
            "σ (pixels)",
            BLUR,
        ),
        f"Median filter, {accuracies.MEDIAN_KERNEL} × {accuracies.MEDIAN_KERNEL}": (
            TIMES,
            "times applied",
            MEDIAN,
        ),
    }
    series = {
        panel: {
            run.upper(): [[one[name].top1 for name in levels] for one in runs[run]]
            for run in ("std", "adv")
        }
        for panel, (_, _, levels) in panels.items()
    }
    highest = max(np.max(values) for lines in series.values() for values in lines.values())
    seeds, images = len(runs["std"]), len(runs["std"][0][next(iter(BLUR))].right)
    bands = f"Bands: ± one standard deviation over {seeds} seeds; " if seeds > 1 else "One seed; "
    plots.curves(
        {panel: x for panel, (x, _, _) in panels.items()},
        series,
        x_label={panel: label for panel, (_, label, _) in panels.items()},
        y_label="top-1 accuracy (%)",
        filled_between=("STD", "ADV"),
        y_limits=(0.0, min(102.0, 1.1 * highest + 1.0)),
        title=f"{title}: accuracy on smoothed pictures",
        note=f"{bands}{images} images; a guess has {chance:g} %.",
        path=path,
    )


def draw_pictures(pictures: Pictures, positions: Sequence[int], *, title: str, path: Path) -> None:
    """For each picture a row of blurred ones above one of median-filtered ones."""
    images = pictures.images[list(positions)]
    blurred, median = (
        [accuracies.filtered(images, variant(level)) for level in _SHOWN_LEVELS]
        for variant in (accuracies.blurred, accuracies.median_filtered)
    )
    rows = [
        [level[place] for level in levels]
        for place in range(len(positions))
        for levels in (blurred, median)
    ]
    plots.grid(
        rows,
        row_titles=["blur, σ", "median, times"] * len(positions),
        column_titles=[str(level) for level in _SHOWN_LEVELS],
        row_groups=[(pictures.class_names[pictures.labels[position]], 2) for position in positions],
        title=title,
        note=f"Gaussian blur of {accuracies.BLUR_KERNEL} × {accuracies.BLUR_KERNEL} pixels, σ in "
        f"pixels; median filter of {accuracies.MEDIAN_KERNEL} × {accuracies.MEDIAN_KERNEL} pixels.",
        path=path,
    )


def write_tiles(
    pictures: Pictures, positions: Sequence[int], found: dict[str, Any], stem: Path
) -> list[Path]:
    """Rows of pictures, a file for each level, noted in the record's levels; the files."""
    written = []
    for kind, of_level, key in (
        ("blur", accuracies.blurred, "sigma"),
        ("median", accuracies.median_filtered, "times"),
    ):
        for level in found[kind]["levels"]:
            images = accuracies.filtered(pictures.images[list(positions)], of_level(level[key]))
            written.append(stem.with_name(f"{stem.name}_tiles_{kind}_{level[key]:g}.png"))
            level["tiles"] = tiles.write(images, written[-1])
    return written


def as_markdown(title: str, found: dict[str, Any]) -> str:
    """The tables of one architecture, and what they say of claim 5."""
    seeds = len(found["pairs"])
    lines = [
        f"## {title}",
        "",
        f"{found['dataset']}, {found['images']} images, {seeds} pair{'s' * (seeds > 1)} of "
        "trainings. Top-1 accuracy in per cent, mean ± standard deviation over seeds; differences "
        "in points with their 95 % bootstrap intervals.",
        "",
    ]
    blur_rows = [
        [
            f"{level['sigma']:g}",
            *_cells(level),
            accuracies.interval(level["change"]) if level["sigma"] else "",
            ("yes" if level["counts"] else "no") if level["sigma"] else "",
            level["within"] if level["sigma"] and level["counts"] else "",
        ]
        for level in found["blur"]["levels"]
    ]
    header = ["STD", "ADV", "STD − ADV"]
    lines += [
        accuracies.markdown_table(
            [
                "blur, σ",
                *header,
                "change from σ = 0",
                f"both above {found['chance'] + _ABOVE_CHANCE:g} %",
                f"within ±{_WITHIN:g}",
            ],
            blur_rows,
        ),
        "",
        accuracies.markdown_table(
            ["median, times", *header],
            [[str(level["times"]), *_cells(level)] for level in found["median"]["levels"]],
        ),
        "",
        *(f"- {sentence}" for sentence in sentences(found)),
    ]
    return "\n".join(lines)


def _cells(level: dict[str, Any]) -> list[str]:
    return [
        *(accuracies.with_spread(level[run]["by_seed"]) for run in ("std", "adv")),
        accuracies.interval(level["std_minus_adv"]),
    ]


def sentences(found: dict[str, Any]) -> list[str]:
    """What the figures of one architecture say of claim 5."""
    blur, median = found["blur"], found["median"]
    ahead, other = ("STD", "ADV") if blur["ahead_without_blur"] == "std" else ("ADV", "STD")
    threshold = f"{found['chance'] + _ABOVE_CHANCE:g} %"
    if blur["counted_up_to"] is None:
        halves = [f"Under blur: not measured, at no σ are both above {threshold}."]
    else:
        up_to = f"up to σ = {blur['counted_up_to']:g}, while both are above {threshold}"
        halves = [
            f"STD − ADV within {_WITHIN:g} points of its value without blur ({up_to}): "
            f"{blur['verdict']}.",
            f"Blur keeps the order, {ahead} ahead ({up_to}): {blur['order']}.",
        ]
    if blur["turned_at"]:
        halves.append(f"{other} is ahead at σ = {_ranges(blur['turned_at'])}.")
    change = median["adv_minus_std_at_the_end"]
    return [
        *halves,
        f"ADV − STD > 0 after {TIMES[-1]} median filters: {median['verdict']}, "
        f"{accuracies.interval(change)}.",
        f"Claim 5, blur hurts both alike, the median filter turns the order: {found['claim_5']}.",
    ]


def _ranges(sigmas: Sequence[float]) -> str:
    """Neighbouring levels together.

    Example:
      >>> _ranges([0.5, 0.75, 1.0, 3.0])
      '0.5 to 1, 3'
    """
    parts: list[list[float]] = []
    for sigma in sigmas:
        if parts and SIGMAS.index(sigma) == SIGMAS.index(parts[-1][-1]) + 1:
            parts[-1].append(sigma)
        else:
            parts.append([sigma])
    return ", ".join(
        f"{part[0]:g} to {part[-1]:g}" if len(part) > 1 else f"{part[0]:g}" for part in parts
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How images are evaluated, and how many are drawn."""
    accuracies.add_arguments(parser)
    tiles.add_argument(parser)
    parser.add_argument(
        "--pictures",
        type=command.whole_number(1),
        default=3,
        metavar="N",
        help=f"drawn, of different classes, at most {_MOST_PICTURES} (default: %(default)s)",
    )


def examine(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[Path]]:
    """Measures, decides and draws every architecture."""
    if arguments.pictures > _MOST_PICTURES:
        raise ValueError(f"--pictures must be at most {_MOST_PICTURES}, got {arguments.pictures}.")
    architectures, written, tables = {}, [], []
    by_architecture = trained.by_architecture(arguments.workdirs)
    # All before anything is measured: a split may have too few pictures.
    drawn = {
        title: evaluation_pictures(
            first.config,
            max(arguments.pictures, accuracies.number_of_classes(first)),
            per_class=True,
        )
        for title, ((first, _), *_) in by_architecture.items()
    }
    for title, pairs in by_architecture.items():
        runs = accuracies.measure_pairs(
            pairs,
            BLUR | MEDIAN,
            folder=arguments.out / accuracies.FOLDER,
            batch_size=arguments.batch_size,
        )
        first = pairs[0][0]
        classes = accuracies.number_of_classes(first)
        pictures = drawn[title]
        positions = shown_positions(pictures.labels, arguments.pictures)
        found = architectures[title] = {
            "pairs": trained.pairs_described(pairs),
            "dataset": first.config.dataset.name,
            "images": len(next(iter(runs["std"][0].values())).right),
            "drawn": pictures.described(positions)["drawn"],
            "blur_options": accuracies.blurred(0) | {"sigma": list(SIGMAS)},
            "median_options": accuracies.median_filtered(0) | {"times": list(TIMES)},
        } | decide(runs, chance=100.0 / classes)
        stem = f"{_NAME}_{trained.slug(title)}"
        written += [arguments.out / f"{stem}.png", arguments.out / f"{stem}_pictures.png"]
        draw_curves(runs, title=title, chance=100.0 / classes, path=written[-2])
        draw_pictures(pictures, positions, title="Smoothed pictures", path=written[-1])
        if arguments.tiles:
            chosen = shown_positions(pictures.labels, tiles.MOST)
            written += write_tiles(pictures, chosen, found, arguments.out / stem)
        tables.append(as_markdown(title, found))
        print(f"\n{title}, {found['images']} images")
        print("\n".join(tables[-1].splitlines()[4:]))
    page = arguments.out / f"{_NAME}.md"
    written.append(command.write_markdown(page, "Accuracy on smoothed pictures (Figure 6)", tables))
    return architectures, written


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the figures and writes what was measured."""
    command.run(_NAME, argv, document=__doc__, examine=examine, add_arguments=add_arguments)


if __name__ == "__main__":
    main()
