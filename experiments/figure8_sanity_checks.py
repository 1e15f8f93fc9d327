"""Do the maps depend on the weights: Figures 8 to 12 of the paper, after Adebayo et al. (2018).

    python -m experiments.figure8_sanity_checks --workdirs runs/quickstart

compares, for every architecture among the workdirs, the maps of a randomly initialised network, of
STD and of ADV, as pictures and as similarities: SSIM, rank correlation and correlation of HOG
descriptors of absolute maps, and rank correlation of signed ones. Claim 8, that maps depend on the
weights, holds for a method when the maps of two settings are less alike (SSIM and rank correlation)
than those of either setting and its next seed; with one seed it is not measured. STD and ADV of a
seed share their initial weights and batches, which makes them rather more alike.

Then the layers of STD and ADV are initialised anew one after the other, from the top down (or, with
--independent, each alone), and the maps compared with those of the trained network.

Cost: about 2 minutes for the quickstart's six models on two CPU cores.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import command, randomization, sensitivity, statistics, trained
from experiments.pictures import Pictures, evaluation_pictures, shown_positions
from jaxrobust import Classifier

_NAME = "figure8_sanity_checks"
SETTINGS = list(itertools.combinations(sensitivity.RUNS, 2))


def compare_settings(maps: dict[str, list[np.ndarray]]) -> dict[str, Any]:
    """Similarities of the maps of one method between settings and between seeds, as JSON.

    Args:
      maps: {"random" | "std" | "adv": maps of each seed}.
    """
    seeds = len(maps["std"])
    between = {
        f"{a}-{b}": [sensitivity.similarities(*pair) for pair in zip(maps[a], maps[b], strict=True)]
        for a, b in SETTINGS
    }
    within = {
        run: [
            sensitivity.similarities(maps[run][i], maps[run][(i + 1) % seeds]) for i in range(seeds)
        ]
        for run in sensitivity.RUNS
        if seeds > 1
    }
    result: dict[str, Any] = {}
    for name in sensitivity.SIMILARITIES:
        apart = {pair: [one[name] for one in values] for pair, values in between.items()}
        alike = {run: [one[name] for one in values] for run, values in within.items()}
        result[name] = {
            "between_settings": {pair: _summary(values) for pair, values in apart.items()},
            "between_seeds": {run: _summary(values) for run, values in alike.items()} or None,
            "differences": {
                pair: {
                    run: statistics.compare(alike[run], values, "negative")
                    for run in pair.split("-")
                }
                for pair, values in apart.items()
                if alike
            }
            or None,
        }
    return result


def _summary(values: Sequence[np.ndarray]) -> dict[str, Any]:
    means = [statistics.defined_mean(one) for one in values]
    return {
        "mean": float(np.mean(means)),
        "by_seed": means,
        "undefined": int(sum(np.isnan(one).sum() for one in values)),
    }


def claim_8(measured: dict[str, Any]) -> str:
    """Whether maps of two settings are less alike than maps of either setting's seeds."""
    if any(measured[name]["differences"] is None for name in sensitivity.MAIN_SIMILARITIES):
        return "not measured"
    return statistics.all_hold(
        change["verdict"]
        for name in sensitivity.MAIN_SIMILARITIES
        for pair in measured[name]["differences"].values()
        for change in pair.values()
    )


def compare_pairs(
    pairs: trained.Pairs, pictures: Pictures, names: Sequence[str], **options: Any
) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """Random, STD and ADV of all seeds compared, and the maps of the first seed.

    Args:
      pairs: STD and ADV of each seed.
      pictures: what they look at.
      names: of methods.
      **options: of `sensitivity.maps_of`.

    Returns:
      {method: figures} for the JSON file, and {method: {"random" | "std" | "adv": maps}}.
    """
    classifiers: dict[str, list[Classifier]] = {"random": [], "std": [], "adv": []}
    for standard, adversarial in pairs:
        std = standard.load()
        classifiers["random"].append(
            Classifier.init(
                randomization.random_key(standard.seed), std.model, pictures.images.shape[1:]
            )
        )
        classifiers["std"].append(std)
        classifiers["adv"].append(adversarial.load())
    title = f"{trained.title_of(pairs[0])}, settings and seeds"
    progress = command.Steps(title, len(names) * len(pairs) * 3, images=len(pictures))
    record, shown = {}, {}
    for name in names:
        maps: dict[str, list[np.ndarray]] = {run: [] for run in classifiers}
        for run, of_seeds in classifiers.items():
            for classifier in of_seeds:
                maps[run].append(sensitivity.maps_of(classifier, name, pictures, **options))
                progress.step()
        measured = compare_settings(maps)
        record[name] = {"similarities": measured, "claim_8": claim_8(measured)}
        shown[name] = {run: values[0] for run, values in maps.items()}
    progress.close(f"{title}: {progress.elapsed:.0f} s")
    return record, shown


def _show_table(title: str, found: dict[str, Any]) -> None:
    print(
        f"\n{title}: similarity of maps between settings, and of each setting's seeds "
        f"({found['images']} images, seeds {', '.join(str(p['seed']) for p in found['pairs'])})"
    )
    runs, titles = sensitivity.RUNS, sensitivity.SIMILARITY_TITLES
    columns = [f"{runs[a]}-{runs[b]}" for a, b in SETTINGS]
    columns += [f"{name}-{name}'" for name in runs.values()]
    print(" " * 42 + "".join(f"{column:>15}" for column in columns))
    for name, method in found["methods"].items():
        for similarity, measured in method["similarities"].items():
            values = [one["mean"] for one in measured["between_settings"].values()]
            seeds = measured["between_seeds"] or {}
            cells = [f"{value:.3f}" for value in values]
            cells += [f"{seeds[run]['mean']:.3f}" if seeds else "not measured" for run in runs]
            print(
                f"  {sensitivity.method_title(name):22}{titles[similarity]:18}"
                + "".join(f"{cell:>15}" for cell in cells)
            )
    sensitivity.show_undefined(
        {
            name: sum(
                one["undefined"]
                for similarity in ("between_settings", "between_seeds")
                for one in (method["similarities"]["rank_correlation"][similarity] or {}).values()
            )
            for name, method in found["methods"].items()
        }
    )
    print("  Claim 8, between settings less alike than between seeds of one setting:")
    for name, method in found["methods"].items():
        print(f"  {sensitivity.method_title(name):22}{method['claim_8']}")
        for similarity in sensitivity.MAIN_SIMILARITIES:
            for pair, against in (method["similarities"][similarity]["differences"] or {}).items():
                for run, change in against.items():
                    settings = "-".join(runs[one] for one in pair.split("-"))
                    compared = f"{settings} less {runs[run]}-{runs[run]}'"
                    interval = statistics.as_text(change, digits=3)
                    print(
                        f"    {titles[similarity]:18}{compared:32}{interval:26}{change['verdict']}"
                    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is measured and drawn, and whether layers are initialised anew."""
    sensitivity.add_arguments(parser, images=100)
    for name, least, default, text in (
        ("--pictures", 1, 4, "drawn, of the measured ones"),
        ("--cascade-images", 0, 20, "images of the cascade, 0 for none"),
    ):
        parser.add_argument(
            name,
            type=command.whole_number(least),
            default=default,
            metavar="N",
            help=f"{text} (default: %(default)s)",
        )
    parser.add_argument(
        "--independent", action="store_true", help="also initialise each layer alone"
    )


def examine(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[Path]]:
    """Compares and draws the maps of every architecture, and randomises its layers."""
    names = list(dict.fromkeys(arguments.methods))
    options = {"seed": arguments.seed, "batch_size": arguments.batch_size}
    architectures, written = {}, []
    for title, pairs in trained.by_architecture(arguments.workdirs).items():
        config = pairs[0][0].config
        pictures = evaluation_pictures(config, arguments.images, per_class=True)
        positions = shown_positions(pictures.labels, min(arguments.pictures, arguments.images))
        methods, maps = compare_pairs(pairs, pictures, names, **options)
        found = sensitivity.described(pairs, pictures, positions) | {"methods": methods}
        architectures[title] = found
        _show_table(title, found)
        stem = arguments.out / f"{_NAME}_{trained.slug(title)}"
        written.append(stem.with_suffix(".png"))
        sensitivity.draw(
            pictures,
            maps,
            positions,
            title=f"{title}: maps of random, STD and ADV weights",
            note=f"{sensitivity.NOTE} Seed {pairs[0][0].seed}.",
            path=written[-1],
        )
        if not arguments.cascade_images:
            continue
        pictures = evaluation_pictures(config, arguments.cascade_images, per_class=True)
        for kind in list(randomization.KINDS)[: 1 + arguments.independent]:
            found[kind], paths = randomization.examine(
                pairs, pictures, names, kind=kind, stem=stem, **options
            )
            written += paths
    return architectures, written


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the figures and writes what was measured."""
    command.run(_NAME, argv, document=__doc__, examine=examine, add_arguments=add_arguments)


if __name__ == "__main__":
    main()
