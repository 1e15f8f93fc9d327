"""Do the maps depend on the weights: Figures 8 to 12 of the paper, after Adebayo et al. (2018).

    python -m jaxrobust.experiments.figure8_sanity_checks --workdirs runs/quickstart

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
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxrobust.experiments import randomization, result, sensitivity, statistics, trained
from jaxrobust.experiments.experiment import Experiment, whole_number
from jaxrobust.experiments.pictures import Pictures
from jaxrobust.experiments.sensitivity import MAIN_SIMILARITIES, RUNS, SIMILARITY_TITLES
from jaxrobust.experiments.words import counted

_CLAIMED = "guided_backprop"


def compare(
    maps: Mapping[str, Sequence[np.ndarray]], pictures: Pictures | None = None
) -> dict[str, Any]:
    """Similarities of the maps of one method between settings and between seeds, as JSON.

    Claim 8 holds when maps of two settings are less alike than maps of either setting's seeds.

    Args:
      maps: {"random" | "std" | "adv": maps of each seed}.
      pictures: have no part in it.
    """
    between = {
        f"{first}-{second}": list(map(sensitivity.similarities, maps[first], maps[second]))
        for first, second in itertools.combinations(RUNS, 2)
    }
    within = {
        run: list(map(sensitivity.similarities, seeds, [*seeds[1:], seeds[0]]))
        for run, seeds in maps.items()
        if len(seeds) > 1
    }
    compared: dict[str, Any] = {}
    verdicts = []
    for name in sensitivity.SIMILARITIES:
        apart = {pair: [values[name] for values in seeds] for pair, seeds in between.items()}
        alike = {run: [values[name] for values in seeds] for run, seeds in within.items()}
        differences: dict[str, Any] = {pair: {} for pair in apart if alike}
        for pair, of_runs in differences.items():
            for run in pair.split("-"):
                of_runs[run] = statistics.compare(alike[run], apart[pair], "negative")
                if name in MAIN_SIMILARITIES:
                    verdicts.append(of_runs[run]["verdict"])
        compared[name] = {
            "between_settings": {pair: _summary(values) for pair, values in apart.items()},
            "between_seeds": {run: _summary(values) for run, values in alike.items()} or None,
            "differences": differences or None,
        }
    return {
        "similarities": compared,
        "claim_8": statistics.all_hold(verdicts) if verdicts else "not measured",
    }


def _summary(values: Sequence[np.ndarray]) -> dict[str, Any]:
    means = [statistics.defined_mean(of_seed) for of_seed in values]
    return {
        "mean": float(np.mean(means)),
        "by_seed": means,
        "undefined": int(np.isnan(values).sum()),
    }


def table(title: str, found: Mapping[str, Any]) -> result.Table:
    """All similarities of all methods."""
    rows = []
    for method, of_method in found["methods"].items():
        for similarity, compared in of_method["similarities"].items():
            between, seeds = compared["between_settings"], compared["between_seeds"] or {}
            undefined = sum(part["undefined"] for part in (*between.values(), *seeds.values()))
            decided = method == _CLAIMED and similarity == MAIN_SIMILARITIES[0]
            rows.append(
                [
                    sensitivity.method_title(method),
                    SIMILARITY_TITLES[similarity]
                    + sensitivity.undefined(undefined, "pairs of maps"),
                    *(result.Number(part["mean"]) for part in between.values()),
                    *(result.Number(seeds[run]["mean"] if seeds else None) for run in RUNS),
                    result.Verdict(of_method["claim_8"]) if decided else "",
                ]
            )
    header = [
        "method",
        "similarity",
        *map(" – ".join, itertools.combinations(RUNS.values(), 2)),
        *(f"{name}, two seeds" for name in RUNS.values()),
        "claim 8",
    ]
    pictures, seeds = counted(found["images"], "picture"), counted(len(found["pairs"]), "seed")
    caption = f"{title}, {pictures}, {seeds}"
    return result.Table(header, rows, caption=caption, left=2)


def decision(found: Mapping[str, Any]) -> result.Decision:
    """Claim 8 of one architecture, with the measures that decide it."""
    if _CLAIMED not in found["methods"]:
        return result.Decision("not measured")
    method = found["methods"][_CLAIMED]
    names = RUNS | {"random": "random"}  # within a sentence
    measures = []
    for similarity, title in (("ssim", "SSIM"), ("rank_correlation", "rank correlation")):
        compared = method["similarities"][similarity]
        for pair, against in (compared["differences"] or {}).items():
            settings = " and ".join(names[run] for run in pair.split("-"))
            for run, change in against.items():
                measures.append(
                    result.Measure(
                        f"{title}: {settings}, against two seeds of {names[run]}",
                        result.Spread(compared["between_settings"][pair]["by_seed"], digits=3),
                        result.Spread(compared["between_seeds"][run]["by_seed"], digits=3),
                        result.Change(change),
                        change["verdict"],
                    )
                )
    return result.Decision(method["claim_8"], measures)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is measured and drawn, and whether layers are initialised anew."""
    sensitivity.add_arguments(parser, images=100, pictures=4)
    parser.add_argument(
        "--cascade-images",
        type=whole_number(0),
        default=20,
        metavar="N",
        help="images of the cascade, 0 for none (default: %(default)s)",
    )
    parser.add_argument(
        "--independent", action="store_true", help="also initialise each layer alone"
    )


def examine(title: str, pairs: trained.Pairs, arguments: argparse.Namespace) -> result.Finding:
    """Compares and draws the maps of one architecture, and randomises its layers."""
    found, drawn = sensitivity.examine(pairs, compare, arguments, random=True)
    stem = arguments.out / f"figure8_sanity_checks_{trained.slug(title)}"
    caption = f"{title}: maps of random, STD and ADV weights"
    parts: list[result.Part] = [
        table(title, found),
        sensitivity.draw(drawn, title=caption, path=stem.with_suffix(".png")),
    ]
    if arguments.cascade_images:
        for kind in list(randomization.KINDS)[: 1 + arguments.independent]:
            found[kind], shown = randomization.examine(pairs, kind, stem, arguments)
            parts += shown
    return result.Finding(found, parts, {"8": decision(found)})


def run(arguments: argparse.Namespace) -> result.Result:
    """Every architecture."""
    by_architecture = trained.by_architecture(arguments.workdirs)
    return result.Result(
        {title: examine(title, pairs, arguments) for title, pairs in by_architecture.items()}
    )


EXPERIMENT = Experiment(
    name="figure8_sanity_checks",
    title="Figures 8 to 12: do the maps depend on the weights?",
    short="Figure 8",
    paper="maps of random, STD and ADV networks differ, guided backprop's too.",
    claims=(
        result.Claim(
            "8",
            "Guided backprop depends on the parameters",
            "maps of two settings less alike than maps of two seeds of one setting",
            ("between settings", "between seeds", "difference"),
        ),
    ),
    run=run,
    document=__doc__,
    add_arguments=add_arguments,
)

if __name__ == "__main__":
    EXPERIMENT.main()
