"""Is it the stride or the training? Two networks crossed with two attacks in training.

    python -m jaxrobust.experiments.stride_or_training --workdirs runs/fashion_mnist_stems

A network whose layers skip pixels paints the grid of its stride into the maps of ADV. What of the
paper's claims 2 (maps of ADV are less fine) and 3b (its first layer looks like checkerboards), and
of its remark that such patterns depend on the architecture (section 5), is that stride, and what is
the attack that ADV was trained against? Two networks that differ in nothing but how they take
their strides, each trained against the same two attacks, answer it by three measures: how far the
energy of ADV's maps in any phase of a stride of 2 or 4 is from an equal share (as in Figure 2, here
of each seed), ADV - STD of the maps' spectral centroid (Figure 2), and ADV - STD of the first
layer's energy at the Nyquist corner (Figure 4). Of each: the effect of the network, averaged over
the attacks; that of the attack, averaged over the networks; and whether one depends on the other.
All are differences within a seed.

An effect is there when Student's t interval over seeds excludes 0; with fewer than three seeds
nothing is decided. That grids depend on the architecture is decided where one network strides and
the other pools; of two that both stride, or both pool, the effects are stated alone. Claims 2 and
3b belong to Figures 2 and 4; here they are asked of each cell.

Cost: about a minute for three seeds of each on two CPU cores.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxrobust.experiments import (
    accuracies,
    result,
    sensitivity,
    statistics,
    stride_grid,
    trained,
    two_by_two_shown,
)
from jaxrobust.experiments import figure2_sensitivity_maps as figure2
from jaxrobust.experiments import figure4_first_layer as figure4
from jaxrobust.experiments.experiment import Experiment
from jaxrobust.experiments.two_by_two import TwoByTwo, effects, find

RUNS = ("std", "adv")
CENTROID, CORNER = "spectral_centroid", "nyquist_corner_share"
# The measures of which it is asked what moves them, each of the first two for three methods.
GRID_OF_ADV = "grid in the maps of ADV, points"
CENTROID_CHANGE = "centroid of the maps, ADV − STD"
CORNER_CHANGE = "first-layer energy at the Nyquist corner, ADV − STD"
GRID_NOTE = (
    "Grid: how far the share of energy in any phase of a stride of 2 or 4 pixels is from an equal "
    "one, at most."
)
EFFECTS_NOTE = (
    "The effect of the network is averaged over the attacks, that of the attack over the networks; "
    "interaction: the network's effect under the first attack less that under the second."
)

Cell = Mapping[str, Any]
Cells = Mapping[tuple[str, str], Cell]  # of (network, attack)


def examine(
    pairs: trained.Pairs, arguments: argparse.Namespace
) -> tuple[dict[str, Any], sensitivity.Drawn, figure4.Kernels]:
    """What is found of one network and attack, as JSON; maps and filters of its first seed."""
    found, drawn = figure2.examine_maps(pairs, arguments)
    filters, kernels = figure4.examine(pairs)
    found |= {
        "grid": {
            name: stride_grid.by_seed(method["phases"]) for name, method in found["methods"].items()
        },
        "corner": corner(filters.numbers["forms"]),
        "accuracies": accuracies.as_evaluated(pairs),
    }
    return found | decide(found), drawn, kernels


def corner(forms: Mapping[str, Any]) -> dict[str, Any] | None:
    """What decides claim 3b in Figure 4, by run and seed; None where filters are single pixels."""
    form = forms[figure4.deciding_form(forms)]
    if CORNER not in form["differences"]:
        return None
    by_seed = {run: [one[CORNER] for one in form[run]] for run in RUNS}
    return by_seed | {"difference": form["differences"][CORNER]}


def decide(found: Cell) -> dict[str, Any]:
    """What one cell alone says of claim 2, by the centroid of each method, and of claim 3b."""
    gridded = figure2.decide(found["methods"])["stride"]
    centroids = {
        name: found["methods"][name]["measures"][CENTROID]["difference"]
        for name in figure2.CLAIMED
        if name in found["methods"]
    }
    claim_3b = "not measured"
    if found["corner"]:
        change = found["corner"]["difference"]
        claim_3b = statistics.verdict_over_seeds(change, "positive")
    return {
        "claim_2": {
            name: figure2.STRIDE if gridded else statistics.verdict_over_seeds(change, "negative")
            for name, change in centroids.items()
        },
        "claim_3b": claim_3b,
    }


def measures(crossed: TwoByTwo, cells: Cells) -> dict[str, dict[str, Any]]:
    """{measure: its effects, and "by_network": of each seed, averaged over the attacks}."""
    by_cell = [_values(cell) for cell in cells.values()]
    shape = len(crossed.networks), len(crossed.attacks), -1
    found = {}
    for measure in by_cell[0]:
        values = np.reshape([of_cell[measure] for of_cell in by_cell], shape)
        by_network = dict(zip(crossed.networks, values.mean(1).tolist(), strict=True))
        found[measure] = effects(values) | {"by_network": by_network}
    return found


def _values(cell: Cell) -> dict[str, Any]:
    """{measure: of each seed}."""
    titles = {name: sensitivity.method_title(name).lower() for name in cell["claim_2"]}
    values = {
        f"{GRID_OF_ADV}, {title}": cell["grid"][name]["adv"] for name, title in titles.items()
    }
    for name, title in titles.items():
        centroids = cell["methods"][name]["measures"][CENTROID]
        change = np.subtract(centroids["adv_by_seed"], centroids["std_by_seed"])
        values[f"{CENTROID_CHANGE}, {title}"] = change
    if cell["corner"]:
        values[CORNER_CHANGE] = np.subtract(cell["corner"]["adv"], cell["corner"]["std"])
    return values


def decision(moved: Mapping[str, Any]) -> result.Decision:
    """Whether grids depend on the architecture: by those in maps, beside those in filters."""
    rows = []
    for measure, found in moved.items():
        if measure.startswith(CENTROID_CHANGE):
            continue
        verdict = "" if measure == CORNER_CHANGE else found["network"]["verdict"]
        rows.append(
            result.Measure(
                measure,
                *(result.Spread(each, _digits(measure)) for each in found["by_network"].values()),
                two_by_two_shown.over_seeds(found["network"], _digits(measure)),
                verdict,
            )
        )
    verdicts = [row.verdict for row in rows if row.verdict]
    missing = ["not measured"] * (len(figure2.CLAIMED) - len(verdicts))
    return result.Decision(statistics.all_hold([*verdicts, *missing]), rows)


def sentence(crossed: TwoByTwo, measure: str, moved: Mapping[str, Any]) -> str:
    """Which of the two moves a measure, in words."""
    words = {"holds": "raises it", "does not hold": "lowers it", "open": "open"}
    said = [
        f"{first} instead of {second}: {words[moved[factor]['verdict']]}"
        for factor, (first, second) in (("network", crossed.networks), ("attack", crossed.attacks))
    ]
    if moved["interaction"]["verdict"] != "open":
        said.append("and one depends on the other")
    return f"{measure[0].upper()}{measure[1:]}: {'; '.join(said)}."


def table_of_effects(crossed: TwoByTwo, moved: Mapping[str, Any]) -> result.Table:
    """The answer: what moves each measure."""
    names = [" − ".join(crossed.networks), " − ".join(crossed.attacks), "interaction"]
    factors = dict(zip(("network", "attack", "interaction"), names, strict=True))
    rows: list[list[result.Cell]] = [
        [measure, *(two_by_two_shown.over_seeds(found[one], _digits(measure)) for one in factors)]
        for measure, found in moved.items()
    ]
    return result.Table(["measure", *names], rows, caption=f"Effects {two_by_two_shown.OVER_SEEDS}")


def _digits(measure: str) -> int:
    return 1 if measure.startswith(GRID_OF_ADV) else 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is measured and drawn."""
    sensitivity.add_arguments(parser, images=200, pictures=4, of_methods=len(figure2.CLAIMED))


def find_out(crossed: TwoByTwo, arguments: argparse.Namespace) -> result.Finding:
    """Measures and draws all of one two by two."""
    examined = {key: examine(pairs, arguments) for key, pairs in crossed.cells.items()}
    cells = {key: cell for key, (cell, _, _) in examined.items()}
    moved = measures(crossed, cells)
    notes = [sentence(crossed, measure, found) for measure, found in moved.items()]
    stem = arguments.out / f"{EXPERIMENT.name}_{trained.slug(crossed.title)}"
    drawn = {key: of_cell for key, (_, of_cell, _) in examined.items()}
    kernels = {key: of_cell for key, (_, _, of_cell) in examined.items()}
    parts = [
        table_of_effects(crossed, moved),
        result.Notes([*notes, EFFECTS_NOTE, GRID_NOTE]),
        *two_by_two_shown.tables(cells),
        two_by_two_shown.draw_maps(crossed, drawn, stem.with_suffix(".png")),
        two_by_two_shown.draw_filters(crossed, kernels, stem.with_name(f"{stem.name}_filters.png")),
    ]
    numbers = {
        "pairs": [pair for cell in cells.values() for pair in cell["pairs"]],
        "dataset": next(iter(cells.values()))["dataset"],
        "cells": [{"network": n, "attack": a, **cell} for (n, a), cell in cells.items()],
        "effects": moved,
    }
    claims = {"3c": decision(moved)} if crossed.strided_and_pooled else {}
    return result.Finding(numbers, parts, claims)


def run(arguments: argparse.Namespace) -> result.Result:
    """Every two by two among the workdirs."""
    return result.Result(
        {crossed.title: find_out(crossed, arguments) for crossed in find(arguments.workdirs)}
    )


EXPERIMENT = Experiment(
    name="stride_or_training",
    title="Is it the stride or the training?",
    short="Stride or training",
    paper="grid-like patterns depend on the architecture (section 5).",
    claims=(
        result.Claim(
            "3c",
            "Grid-like patterns depend on the architecture",
            "for each of three methods, the grid in the maps of ADV is stronger in the strided "
            "network than in the one that pools: the difference, averaged over two attacks in "
            "training, > 0 by Student's t over three or more seeds",
            ("strided", "pooled", "strided − pooled, by t over seeds"),
        ),
    ),
    run=run,
    document=__doc__,
    add_arguments=add_arguments,
    workdirs="runs/fashion_mnist_stems",
)

if __name__ == "__main__":
    EXPERIMENT.main()
