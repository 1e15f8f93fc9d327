"""Sensitivity maps of STD above ADV: Figure 2 of the paper, 13 (AlexNet) and 14 (ResNet-50).

    python -m experiments.figure2_sensitivity_maps --workdirs runs/quickstart

draws, for every architecture among the workdirs, the maps of some evaluation images (of the first
pair of trainings) for their true class, each on its own scale: mid-grey is zero. The figures
behind them are, over more images and all pairs of trainings: the radial spectral centroid of the
maps, the share of their power above half Nyquist and, where the data set has masks, the shares of
their energy along the silhouette and inside it. Claim 2, that the maps of ADV ignore fine texture,
holds for a method when its centroid is lower and its share along the silhouette higher than STD's.

Cost: about a minute for the quickstart's six models on two CPU cores.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import command, sensitivity, statistics, tiles, trained
from experiments.pictures import Pictures, evaluation_pictures, shown_positions
from jaxrobust import map_metrics, plots

_NAME = "figure2_sensitivity_maps"
_MOST_PICTURES = 10
MEASURES = {
    "spectral_centroid": "centroid (cycles/pixel)",
    "high_frequency_share": "share above half Nyquist",
    "band_share": "share along silhouette",
    "inside_share": "share inside silhouette",
}
# Claim 2: the side of 0 on which ADV - STD is to lie, and the methods of the paper's Figure 2.
CLAIM = {"spectral_centroid": "negative", "band_share": "positive"}
CLAIMED = ("vanilla_gradient", "loss_gradient", "guided_backprop")


def measure(maps: np.ndarray, masks: np.ndarray | None) -> dict[str, np.ndarray]:
    """All measures of the maps, one value an image; those on a silhouette only with masks."""
    values = {
        "spectral_centroid": map_metrics.spectral_centroid(maps),
        "high_frequency_share": map_metrics.high_frequency_share(maps),
    }
    if masks is not None:
        values["band_share"] = map_metrics.band_share(maps, masks)
        values["inside_share"] = map_metrics.energy_share(maps, masks)
    return values


def measure_pairs(
    pairs: trained.Pairs,
    pictures: Pictures,
    names: Sequence[str],
    *,
    seed: int,
    batch_size: int | None,
) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """The maps of all pairs of one architecture, measured, and those of the first pair.

    Args:
      pairs: STD and ADV of each seed.
      pictures: what they look at.
      names: of methods.
      seed, batch_size: as for `sensitivity.maps_of`.

    Returns:
      {method: figures} for the JSON file, and {method: {"std" | "adv": maps}}.
    """
    classifiers = [[one.load() for one in pair] for pair in pairs]
    title = trained.title_of(pairs[0])
    progress = command.Steps(title, len(names) * len(pairs) * 2, images=len(pictures))
    record: dict[str, Any] = {}
    shown: dict[str, dict[str, np.ndarray]] = {}
    for name in names:
        values: dict[str, list[dict[str, np.ndarray]]] = {"std": [], "adv": []}
        shown[name] = {}
        for pair in classifiers:
            for run, classifier in zip(values, pair, strict=True):
                maps = sensitivity.maps_of(
                    classifier, name, pictures, seed=seed, batch_size=batch_size
                )
                values[run].append(measure(maps, pictures.masks))
                shown[name].setdefault(run, maps)
                progress.step()
        record[name] = {"measures": {}}
        for measured in values["std"][0]:
            both = {run: [one[measured] for one in values[run]] for run in values}
            means = {run: [statistics.defined_mean(one) for one in both[run]] for run in both}
            record[name]["measures"][measured] = {
                "std": float(np.mean(means["std"])),
                "adv": float(np.mean(means["adv"])),
                "std_by_seed": means["std"],
                "adv_by_seed": means["adv"],
                "undefined": {
                    run: int(sum(np.isnan(one).sum() for one in both[run])) for run in both
                },
                "difference": statistics.compare(both["std"], both["adv"], CLAIM.get(measured)),
            }
        found = record[name]["measures"]
        record[name]["claim_2"] = statistics.all_hold(
            found[measured]["difference"]["verdict"] if measured in found else "open"
            for measured in CLAIM
        )
    progress.close(f"{title}: {progress.total * len(pictures)} maps in {progress.elapsed:.0f} s")
    return record, shown


def _show_table(title: str, found: dict[str, Any]) -> None:
    pairs = len(found["pairs"])
    print(f"\n{title}: {found['images']} images, {pairs} pair{'s' * (pairs > 1)} of trainings")
    print(f"  {'':47}{'STD':>8}{'ADV':>8}   ADV - STD [95 % interval]     claim 2")
    for name, method in found["methods"].items():
        for measured, values in method["measures"].items():
            change, undefined = values["difference"], values["undefined"]
            interval = statistics.as_text(change)
            print(
                f"  {sensitivity.method_title(name):22}{MEASURES[measured]:25}{values['std']:8.4f}"
                f"{values['adv']:8.4f}   {interval:29} {change.get('verdict', '')}"
                + (f" (undefined: {undefined})" if any(undefined.values()) else "")
            )
    verdicts = ", ".join(f"{m} {method['claim_2']}" for m, method in found["methods"].items())
    print(f"  Claim 2, maps of ADV ignore fine texture: {verdicts}.")
    if not found["masks"]:
        print("  The data set has no masks: the half of the claim on silhouettes is not measured.")
    print(f"  Together, over the three methods of the paper's Figure 2: {found['claim_2']}.")


def write_tiles(
    pictures: Pictures, maps: dict[str, dict[str, np.ndarray]], positions: Sequence[int], stem: Path
) -> tuple[dict[str, Any], list[Path]]:
    """Rows of the first pictures drawn and of their maps; which files hold what, and the files."""
    chosen = list(positions[: tiles.MOST])

    def write(images: np.ndarray, name: str) -> str:
        written.append(stem.with_name(f"{stem.name}_tiles_{name}.png"))
        return tiles.write(images, written[-1])

    written: list[Path] = []
    return {
        "classes": [pictures.class_names[pictures.labels[position]] for position in chosen],
        "images": write(pictures.images[chosen], "images"),
        "methods": {
            name: {
                run: write(plots.to_picture(values[chosen]), f"{name}_{run}")
                for run, values in runs.items()
            }
            for name, runs in maps.items()
        },
    }, written


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is measured, and how many pictures are drawn."""
    tiles.add_argument(parser)
    sensitivity.add_arguments(parser, images=200)
    parser.add_argument(
        "--pictures",
        type=command.whole_number(1),
        metavar="N",
        help=f"drawn, of the measured ones (default: one a class, at most {_MOST_PICTURES})",
    )


def examine(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[Path]]:
    """Measures and draws the maps of every architecture."""
    names = list(dict.fromkeys(arguments.methods))
    architectures, written = {}, []
    for title, pairs in trained.by_architecture(arguments.workdirs).items():
        pictures = evaluation_pictures(pairs[0][0].config, arguments.images, per_class=True)
        drawn = arguments.pictures or min(len(pictures.class_names), _MOST_PICTURES)
        positions = shown_positions(pictures.labels, min(drawn, len(pictures)))
        methods, maps = measure_pairs(
            pairs, pictures, names, seed=arguments.seed, batch_size=arguments.batch_size
        )
        architectures[title] = sensitivity.described(pairs, pictures, positions) | {
            "methods": methods,
            "claim_2": statistics.all_hold(
                methods[name]["claim_2"] if name in methods else "not measured" for name in CLAIMED
            ),
        }
        stem = arguments.out / f"{_NAME}_{trained.slug(title)}"
        written.append(stem.with_suffix(".png"))
        sensitivity.draw(
            pictures,
            maps,
            positions,
            title=f"{title}: sensitivity maps for the true class",
            note=f"{sensitivity.NOTE} Trainings of seed {pairs[0][0].seed}.",
            path=written[-1],
        )
        if arguments.tiles:
            architectures[title]["tiles"], paths = write_tiles(pictures, maps, positions, stem)
            written += paths
        _show_table(title, architectures[title])
    return architectures, written


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the figures and writes what was measured."""
    command.run(_NAME, argv, document=__doc__, examine=examine, add_arguments=add_arguments)


if __name__ == "__main__":
    main()
