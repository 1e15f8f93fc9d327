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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import result, sensitivity, statistics, tiles, trained
from experiments.experiment import Experiment
from jaxrobust import map_metrics, plots

MEASURES = {
    "spectral_centroid": "centroid (cycles/pixel)",
    "high_frequency_share": "share above half Nyquist",
    "band_share": "share along silhouette",
    "inside_share": "share inside silhouette",
}
# Claim 2: the side of 0 on which ADV - STD is to lie, and the methods of the paper's Figure 2.
CLAIM = {
    "spectral_centroid": ("negative", "spectral centroid of the map, cycles/pixel"),
    "band_share": ("positive", "share of the map's energy along the silhouette"),
}
CLAIMED = ("vanilla_gradient", "loss_gradient", "guided_backprop")
NO_MASKS = "The data set has no masks: the half of the claim on silhouettes is not measured."


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


def compare(maps: Mapping[str, Sequence[np.ndarray]], masks: np.ndarray | None) -> dict[str, Any]:
    """The measures of one method's maps, {"std" | "adv": those of each seed}, as JSON."""
    values = {run: [measure(of_seed, masks) for of_seed in maps[run]] for run in maps}
    measures: dict[str, Any] = {}
    for name in values["std"][0]:
        std, adv = ([of_seed[name] for of_seed in values[run]] for run in ("std", "adv"))
        std_means, adv_means = (list(map(statistics.defined_mean, run)) for run in (std, adv))
        side, _ = CLAIM.get(name, (None, ""))
        measures[name] = {
            "std": float(np.mean(std_means)),
            "adv": float(np.mean(adv_means)),
            "std_by_seed": std_means,
            "adv_by_seed": adv_means,
            "undefined": {"std": int(np.isnan(std).sum()), "adv": int(np.isnan(adv).sum())},
            "difference": statistics.compare(std, adv, side),
        }
    claim = statistics.all_hold(
        measures[name]["difference"]["verdict"] if name in measures else "open" for name in CLAIM
    )
    return {"measures": measures, "claim_2": claim}


def table(title: str, found: Mapping[str, Any]) -> result.Table:
    """All measures of all methods."""
    rows: list[list[result.Cell]] = []
    for name, method in found["methods"].items():
        for measured, values in method["measures"].items():
            undefined = sum(values["undefined"].values())
            verdict = values["difference"].get("verdict") if name in CLAIMED else None
            rows.append(
                [
                    sensitivity.method_title(name),
                    MEASURES[measured] + sensitivity.undefined(undefined, "maps"),
                    result.Number(values["std"]),
                    result.Number(values["adv"]),
                    result.Change(values["difference"]),
                    result.Verdict(verdict) if verdict else "",
                ]
            )
    header = ["method", "measure", "STD", "ADV", "ADV − STD [95 %]", "claim 2"]
    caption = f"{title}, {found['images']} pictures, {len(found['pairs'])} seeds"
    return result.Table(header, rows, caption=caption, left=2)


def decision(found: Mapping[str, Any]) -> result.Decision:
    """Claim 2 of one architecture, with the measures that decide it."""
    measures = []
    for name in [name for name in CLAIMED if name in found["methods"]]:
        of_method = found["methods"][name]["measures"]
        for measured in [measured for measured in CLAIM if measured in of_method]:
            values = of_method[measured]
            measures.append(
                result.Measure(
                    f"{name.replace('_', ' ')}: {CLAIM[measured][1]}",
                    result.Spread(values["std_by_seed"], digits=3),
                    result.Spread(values["adv_by_seed"], digits=3),
                    result.Change(values["difference"]),
                    values["difference"]["verdict"],
                )
            )
    return result.Decision(found["claim_2"], measures)


def write_box(
    title: str, found: Mapping[str, Any], drawn: sensitivity.Drawn, stem: Path
) -> result.Box:
    """A box of the first pictures drawn, to switch between methods; its files begin with `stem`."""
    classes = ", ".join(drawn.classes[: tiles.MOST])

    def write(row: np.ndarray, name: str) -> str:
        return tiles.write(row[: tiles.MOST], stem.with_name(f"{stem.name}_tiles_{name}.png"))

    panels = []
    for name, of_runs in drawn.maps.items():
        measures, method = found["methods"][name]["measures"], sensitivity.method_title(name)
        strips = []
        for run, of_run in of_runs.items():
            text = sensitivity.RUNS[run]
            heading = f"{text}: spectral centroid {measures['spectral_centroid'][run]:.3f}"
            heading += " cycles/pixel"
            if "band_share" in measures:
                heading += f", along the silhouette {measures['band_share'][run]:.3f}"
            file = write(plots.to_picture(of_run), f"{name}_{run}")
            strips.append(result.Strip(file, heading, f"{method} of {text} for {classes}", run))
        panels.append(result.Panel(method, strips))
    before = result.Strip(write(drawn.images, "images"), "Pictures", f"Pictures: {classes}")
    return result.Box(f"{title}: maps of STD and ADV", "Method", panels, before)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is measured and drawn."""
    tiles.add_argument(parser)
    sensitivity.add_arguments(parser, images=200)


def examine(title: str, pairs: trained.Pairs, arguments: argparse.Namespace) -> result.Finding:
    """Measures and draws the maps of one architecture."""
    found, drawn = sensitivity.examine(pairs, compare, arguments)
    found["claim_2"] = statistics.all_hold(
        found["methods"].get(name, {}).get("claim_2", "not measured") for name in CLAIMED
    )
    stem = arguments.out / f"figure2_sensitivity_maps_{trained.slug(title)}"
    parts: list[result.Part] = [table(title, found)]
    if arguments.tiles:
        parts.insert(0, write_box(title, found, drawn, stem))
    if not found["masks"]:
        parts.append(result.Notes([NO_MASKS]))
    caption = f"{title}: sensitivity maps for the true class"
    path = stem.with_suffix(".png")
    parts.append(sensitivity.draw(drawn, title=caption, path=path, folded=arguments.tiles))
    return result.Finding(found, parts, {"2": decision(found)})


def run(arguments: argparse.Namespace) -> result.Result:
    """Every architecture."""
    by_architecture = trained.by_architecture(arguments.workdirs)
    return result.Result(
        {title: examine(title, pairs, arguments) for title, pairs in by_architecture.items()}
    )


EXPERIMENT = Experiment(
    name="figure2_sensitivity_maps",
    title="Figures 2, 13, 14: sensitivity maps",
    short="Figure 2",
    paper="maps of ADV follow the outlines of objects; those of STD look like noise.",
    claims=(
        result.Claim(
            "2",
            "Robust sensitivity maps ignore fine texture",
            "for each of three methods, centroid ADV − STD < 0 and share along the silhouette "
            "ADV − STD > 0",
        ),
    ),
    run=run,
    document=__doc__,
    add_arguments=add_arguments,
)

if __name__ == "__main__":
    EXPERIMENT.main()
