"""What the cells of a two by two show: their tables, and their maps and filters on one sheet."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxrobust import plots
from jaxrobust.experiments import figure4_first_layer as figure4
from jaxrobust.experiments import result, sensitivity
from jaxrobust.experiments.two_by_two import TwoByTwo

OVER_SEEDS = "[95 %, t over seeds]"

Cells = Mapping[tuple[str, str], Mapping[str, Any]]
"""Of (network, attack) what `stride_or_training.examine` found."""


def tables(cells: Cells) -> list[result.Part]:
    """What the effects come from."""
    rates: dict[tuple[str, str], Mapping[str, list[float | None]]] = {}
    for (network, attack), cell in cells.items():
        if cell["accuracies"]:
            rates |= {
                (network, "STD"): cell["accuracies"]["std"],
                (network, attack): cell["accuracies"]["adv"],
            }
    names = dict.fromkeys(name for each in rates.values() for name in each)
    by_method = [
        ([*key, sensitivity.method_title(name)], cell, name)
        for key, cell in cells.items()
        for name in cell["methods"]
    ]
    corners = {key: cell["corner"] for key, cell in cells.items() if cell["corner"]}
    changes = [f"ADV − STD {OVER_SEEDS}", "by the bootstrap"]
    made = [
        result.Table(
            ["network", "training", *names],
            [
                [*key, *(result.Spread(each.get(name, [])) for name in names)]
                for key, each in rates.items()
            ],
            caption="Accuracy, per cent",
            left=2,
        ),
        result.Table(
            ["network", "attack", "method", *sensitivity.RUNS.values()],
            [
                [*names, *(result.Spread(cell["grid"][name][run]) for run in sensitivity.RUNS)]
                for names, cell, name in by_method
            ],
            caption="Grid in the maps, points",
            left=3,
        ),
        result.Table(
            ["network", "attack", "method", *sensitivity.RUNS.values(), *changes, "claim 2"],
            [
                [
                    *names,
                    *(result.Spread(values[f"{run}_by_seed"], 3) for run in sensitivity.RUNS),
                    *_both(values["difference"]),
                    result.Verdict(cell["claim_2"].get(name, "")),
                ]
                for names, cell, name in by_method
                for values in [cell["methods"][name]["measures"]["spectral_centroid"]]
            ],
            caption="Spectral centroid of the maps, cycles/pixel",
            left=3,
        ),
        result.Table(
            ["network", "attack", "STD", "ADV", *changes, "claim 3b"],
            [
                [
                    *key,
                    *(result.Spread(each[run], 3) for run in ("std", "adv")),
                    *_both(each["difference"]),
                    result.Verdict(cells[key]["claim_3b"]),
                ]
                for key, each in corners.items()
            ],
            caption="First layer: energy of the filters at the Nyquist corner",
            left=2,
        ),
    ]
    return [table for table in made if table.rows]


def _trainings(crossed: TwoByTwo) -> list[tuple[str, str, tuple[str, str]]]:
    """(title, run, cell where it is found) of each training: of each network STD, then ADV."""
    return [
        (title, run, (network, attack))
        for network in crossed.networks
        for title, run, attack in [
            ("STD", "std", crossed.attacks[0]),
            *((attack, "adv", attack) for attack in crossed.attacks),
        ]
    ]


def draw_maps(
    crossed: TwoByTwo, drawn: Mapping[tuple[str, str], sensitivity.Drawn], path: Path
) -> result.Figure:
    """Pictures above their maps: of each network STD, then ADV against each attack."""
    first = next(iter(drawn.values()))
    trainings = _trainings(crossed)
    maps = [
        [plots.to_picture(one) for of_runs in drawn[cell].maps.values() for one in of_runs[run]]
        for _, run, cell in trainings
    ]
    title = f"{crossed.title}: sensitivity maps for the true class"
    plots.grid(
        [list(first.images) * len(first.maps), *maps],
        row_titles=["Image", *(title for title, *_ in trainings)],
        row_groups=[("", 1), *((network, 3) for network in crossed.networks)],
        column_titles=list(first.classes) * len(first.maps),
        column_groups=[(sensitivity.method_title(name), len(first.images)) for name in first.maps],
        title=title,
        note=f"{sensitivity.NOTE} Trainings of seed {first.seed}.",
        path=path,
    )
    return result.Figure(path.name, title)


def draw_filters(
    crossed: TwoByTwo, kernels: Mapping[tuple[str, str], figure4.Kernels], path: Path
) -> result.Figure:
    """A row a network: the filters of STD, then of ADV against each attack, all on one scale."""
    form = figure4.deciding_form(next(iter(kernels.values())))
    shown = {
        f"{cell[0]}, {title}": kernels[cell][form][run.upper()]
        for title, run, cell in _trainings(crossed)
    }
    title = f"{crossed.title}: first-layer filters, {figure4.FORMS[form]}"
    plots.filters(shown, columns=3, title=title, path=path)
    return result.Figure(path.name, title)


def _both(change: Mapping[str, Any]) -> list[result.Cell]:
    """A difference with the interval of Student's t, and with that of the bootstrap."""
    return [over_seeds(change), result.Change(change)]


def over_seeds(change: Mapping[str, Any], digits: int = 3) -> result.Change:
    """A difference of `statistics.compare` with the interval of Student's t."""
    ends = {"low": change.get("t_low"), "high": change.get("t_high")}
    return result.Change({"mean": change["mean"], **ends}, digits)
