"""Sensitivity maps of STD above ADV: Figure 2 of the paper, 13 (AlexNet) and 14 (ResNet-50).

    python -m jaxrobust.experiments.figure2_sensitivity_maps --workdirs runs/quickstart

draws, for every architecture among the workdirs, the maps of some evaluation images (of the first
pair of trainings) for their true class, each on its own scale: mid-grey is zero. The figures
behind them are, over more images and all pairs of trainings: the radial spectral centroid of the
maps, also divided by that of the same network at random weights and by that of the picture, the
share of their power above half Nyquist and, where the data set has masks, the shares of their
energy along the silhouette and inside it. Claim 2, that the maps of ADV ignore fine texture, holds
for a method when its centroid is lower and its share along the silhouette higher than STD's; where
there are no masks, the centroid alone decides.

A network whose layers skip pixels paints the grid of its stride into its maps. Where the energy of
STD's or ADV's maps is shared among the phases of a stride of 2 or 4 with any share more than 5
points from equal, what the centroid sees is the architecture: it is stated, and decides nothing.
For this, pictures are moved by 0 to 3 pixels each way: objects that stand at the same place in all
of them, as clothes of one size do, are no grid.

Cost: about three minutes for the quickstart's six models on two CPU cores.
"""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrobust import map_metrics, plots
from jaxrobust.experiments import result, sensitivity, statistics, stride_grid, tiles, trained
from jaxrobust.experiments.experiment import Experiment
from jaxrobust.experiments.pictures import Pictures
from jaxrobust.experiments.words import counted

RUNS = ("std", "adv")
MEASURES = {
    "spectral_centroid": "centroid (cycles/pixel)",
    "centroid_to_random": "centroid ÷ that at random weights",
    "centroid_to_picture": "centroid ÷ the picture's",
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
STRIDE = "open: stride"
T_NOTE = "t over seeds: the 95 % interval of Student's t of the seeds' mean differences."
NO_MASKS = "The data set has no masks: the centroid alone decides."
RANDOM_NOTE = "Random: the same network at weights that nobody trained, one for each seed."


def measure(maps: np.ndarray, pictures: Pictures) -> dict[str, np.ndarray]:
    """All measures of the maps, one value an image; those on a silhouette only with masks."""
    centroids = map_metrics.spectral_centroid(maps)
    values = {
        "spectral_centroid": centroids,
        "centroid_to_picture": centroids / map_metrics.spectral_centroid(pictures.images),
        "high_frequency_share": map_metrics.high_frequency_share(maps),
    }
    if pictures.masks is not None:
        values["band_share"] = map_metrics.band_share(maps, pictures.masks)
        values["inside_share"] = map_metrics.energy_share(maps, pictures.masks)
    return values


def compare(
    maps: Mapping[str, Sequence[np.ndarray]],
    pictures: Pictures,
    moved: Mapping[str, Sequence[np.ndarray]],
) -> dict[str, Any]:
    """The measures and phases of one method's maps, as JSON.

    Args:
      maps: {"random" | "std" | "adv": those of each seed}.
      pictures: that they are of.
      moved: maps of the same pictures moved by some pixels: their phases are the network's.
    """
    values = {run: [measure(of_seed, pictures) for of_seed in maps[run]] for run in maps}
    for seeds in values.values():
        for random, of_seed in zip(values["random"], seeds, strict=True):
            ratio = of_seed["spectral_centroid"] / random["spectral_centroid"]
            of_seed["centroid_to_random"] = ratio
    measures: dict[str, Any] = {}
    for name in (name for name in MEASURES if name in values["std"][0]):
        each = {run: [of_seed[name] for of_seed in seeds] for run, seeds in values.items()}
        means = {run: list(map(statistics.defined_mean, seeds)) for run, seeds in each.items()}
        side, _ = CLAIM.get(name, (None, ""))
        measures[name] = {
            **{run: float(np.mean(seeds)) for run, seeds in means.items()},
            **{f"{run}_by_seed": seeds for run, seeds in means.items()},
            "undefined": {run: int(np.isnan(seeds).sum()) for run, seeds in each.items()},
            "difference": statistics.compare(each["std"], each["adv"], side),
        }
    return {"measures": measures, "phases": stride_grid.phases(moved)}


def examine_maps(
    pairs: trained.Pairs, arguments: argparse.Namespace
) -> tuple[dict[str, Any], sensitivity.Drawn]:
    """What `compare` finds of random weights, STD and ADV, as JSON; maps of the first seed."""
    moved = max(stride_grid.STRIDES)
    return sensitivity.examine(pairs, compare, arguments, random=True, moved=moved)


def decide(methods: Mapping[str, Any]) -> dict[str, Any]:
    """Claim 2 of one architecture by what `compare` returned of each method.

    Returns:
      "stride", whether a grid keeps its centroids from deciding; "verdicts": {method: {measure:
      verdict}} of the claimed methods, and "claim_2".
    """
    claimed = {name: methods[name] for name in CLAIMED if name in methods}
    gridded = any(stride_grid.is_there(method["phases"], RUNS) for method in claimed.values())
    verdicts = {}
    for name, method in claimed.items():
        measures = method["measures"]
        verdicts[name] = {
            one: measures[one]["difference"]["verdict"] for one in CLAIM if one in measures
        }
        if gridded:
            verdicts[name]["spectral_centroid"] = STRIDE
    every = [verdict for of_method in verdicts.values() for verdict in of_method.values()]
    missing = ["not measured"] * (len(CLAIMED) - len(claimed))
    return {
        "stride": gridded,
        "verdicts": verdicts,
        "claim_2": statistics.all_hold([*every, *missing]),
    }


def table(title: str, found: Mapping[str, Any]) -> result.Table:
    """All measures of all methods."""
    rows: list[list[result.Cell]] = []
    for name, method in found["methods"].items():
        for measured, values in method["measures"].items():
            undefined = sum(values["undefined"].values())
            verdict = found["verdicts"].get(name, {}).get(measured)
            change = values["difference"]
            over_seeds = [change.get("t_low"), change.get("t_high")]
            rows.append(
                [
                    sensitivity.method_title(name),
                    MEASURES[measured] + sensitivity.undefined(undefined, "maps"),
                    *(result.Number(values[run]) for run in sensitivity.RUNS),
                    result.Change(change),
                    "–" if None in over_seeds else "[{:+.3f}, {:+.3f}]".format(*over_seeds),
                    result.Verdict(verdict) if verdict else "",
                ]
            )
    header = ["method", "measure", *sensitivity.RUNS.values()]
    header += ["ADV − STD [95 %]", "t over seeds", "claim 2"]
    pictures, seeds = counted(found["images"], "picture"), counted(len(found["pairs"]), "seed")
    caption = f"{title}, {pictures}, {seeds}"
    return result.Table(header, rows, caption=caption, left=2)


def table_of_phases(title: str, found: Mapping[str, Any]) -> result.Table:
    """How far the phases of each stride are from equal."""
    rows: list[list[result.Cell]] = [
        [
            sensitivity.method_title(name),
            f"every {stride} pixels: 1 of {int(stride) ** 2} phases",
            *(result.Number(runs[run]["points_from_equal"], 1) for run in sensitivity.RUNS),
        ]
        for name, method in found["methods"].items()
        for stride, runs in method["phases"].items()
    ]
    caption = f"{title}: how far the energy in a phase is from an equal share, at most, points"
    header = ["method", "grid", *sensitivity.RUNS.values()]
    return result.Table(header, rows, caption=caption, left=2)


def decision(found: Mapping[str, Any]) -> result.Decision:
    """Claim 2 of one architecture, with the measures that decide it."""
    measures = []
    for name, verdicts in found["verdicts"].items():
        for measured, verdict in verdicts.items():
            values = found["methods"][name]["measures"][measured]
            measures.append(
                result.Measure(
                    f"{name.replace('_', ' ')}: {CLAIM[measured][1]}",
                    *(result.Spread(values[f"{run}_by_seed"], digits=3) for run in RUNS),
                    result.Change(values["difference"]),
                    verdict,
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
        for run in RUNS:
            text = sensitivity.RUNS[run]
            heading = f"{text}: spectral centroid {measures['spectral_centroid'][run]:.3f}"
            heading += " cycles/pixel"
            if "band_share" in measures:
                heading += f", along the silhouette {measures['band_share'][run]:.3f}"
            file = write(plots.to_picture(of_runs[run]), f"{name}_{run}")
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
    found, drawn = examine_maps(pairs, arguments)
    found |= decide(found["methods"])
    # As in the paper: STD above ADV. Figure 8 shows those of random weights as well.
    maps = {name: {run: runs[run] for run in RUNS} for name, runs in drawn.maps.items()}
    drawn = dataclasses.replace(drawn, maps=maps)
    stem = arguments.out / f"figure2_sensitivity_maps_{trained.slug(title)}"
    notes = [RANDOM_NOTE, T_NOTE]
    if not found["masks"]:
        notes.append(NO_MASKS)
    if found["stride"]:
        notes.append(
            f"A phase is more than {stride_grid.LIMIT:g} points from an equal share: the centroid "
            "shows the network's stride, and decides nothing."
        )
    parts: list[result.Part] = [
        table(title, found),
        table_of_phases(title, found),
        result.Notes(notes),
    ]
    if arguments.tiles:
        parts.insert(0, write_box(title, found, drawn, stem))
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
            "for each of three methods, centroid ADV − STD < 0 (open where a map's energy lies on "
            "the grid of a stride) and, where there are masks, share along the silhouette "
            "ADV − STD > 0",
        ),
    ),
    run=run,
    document=__doc__,
    add_arguments=add_arguments,
)

if __name__ == "__main__":
    EXPERIMENT.main()
