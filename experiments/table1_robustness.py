"""Accuracy, clean and attacked, of STD and ADV: Table 1 of the paper.

    python -m experiments.table1_robustness --workdirs runs/quickstart

attacks STD and ADV of every architecture among the workdirs by PGD, at the radius that ADV was
trained against and at those of its config's evaluation; mean and standard deviation over all
seeds, beside the paper's figures for ImageNet. Robust accuracy counts all images, defense success
rate only those that are right when clean (what the paper's Table 1 prints). Claim 1, robustness
costs clean accuracy, holds when the clean accuracy of STD lies above that of ADV, and the robust
accuracy of ADV at its training radius above that of STD.

What is measured is kept in `<out>/accuracies`, so that an interrupted call goes on.

Cost: an accuracy takes steps x restarts gradients of all evaluation images: about a minute for the
quickstart's six models on two CPU cores with --restarts 1.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import accuracies, command, statistics, trained
from experiments.accuracies import Accuracy
from jaxrobust import plots
from jaxrobust.data import catalog

_NAME = "table1_robustness"
CLEAN = "clean"
METRICS = ("top1", "top5", "robust_accuracy", "defense_success_rate")
# Mean and standard deviation over trainings, in per cent: clean top-1 and top-5, then the share of
# the images classified correctly when clean that still are under attack, by radius.
PAPER: dict[str, dict[str, dict[str, tuple[float, float]]]] = {
    "AlexNet": {
        "std": {
            "top1": (58.28, 0.18),
            "top5": (80.60, 0.05),
            "0.005": (2.48, 0.18),
            "0.01": (0.22, 0.07),
        },
        "adv": {
            "top1": (50.59, 0.22),
            "top5": (73.73, 0.07),
            "0.005": (71.55, 0.12),
            "0.01": (46.49, 0.04),
        },
    },
    "ResNet-50": {
        "std": {
            "top1": (75.84, 0.31),
            "top5": (92.74, 0.14),
            "0.005": (0.78, 0.03),
            "0.01": (0.17, 0.02),
        },
        "adv": {
            "top1": (71.52, 0.06),
            "top5": (90.02, 0.03),
            "0.005": (81.25, 0.09),
            "0.01": (60.75, 0.33),
        },
    },
}
PAPER_NOTE = (
    "The paper's figures are for ImageNet, trained against ε = 0.005; its Table 2 gives 55.28 for "
    "the clean top-1 accuracy of AlexNet STD where its Table 1 gives 58.28."
)

Runs = Mapping[str, Sequence[Mapping[str, Accuracy]]]


def attacks_on(adversarial: trained.Trained, *, steps: int, restarts: int) -> dict[str, Any]:
    """PGD at the radius that ADV was trained against, then at others of its evaluation.

    Args:
      adversarial: an ADV training.
      steps, restarts: of each attack; a step is 1.5 epsilon / steps.

    Returns:
      {radius as text: attack with its options}, the training's radius first.
    """
    own = adversarial.config.attack
    norm = own.get("norm", "linf")
    others = [
        attack.epsilon
        for attack in adversarial.config.evaluation.attacks.values()
        if attack.get("norm", "linf") == norm
    ]
    return {
        radius_as_text(epsilon): {
            "name": "pgd",
            "norm": norm,
            "epsilon": float(epsilon),
            "steps": steps,
            "step_size": 1.5 * float(epsilon) / steps,
            "restarts": restarts,
        }
        for epsilon in dict.fromkeys([own.epsilon, *sorted(others)])
    }


def radius_as_text(epsilon: float) -> str:
    """A radius in levels where it is a whole number of them.

    Example:
      >>> radius_as_text(8 / 255), radius_as_text(0.005)
      ('8/255', '0.005')
    """
    levels = epsilon * 255
    return f"{levels:.0f}/255" if abs(levels - round(levels)) < 1e-6 else f"{epsilon:g}"


def describe(runs: Runs, radii: Sequence[str]) -> dict[str, Any]:
    """{run: {"clean": {metric: …}, radius: {metric: …}}} as JSON: mean, spread, values by seed."""
    found: dict[str, Any] = {}
    for run, seeds in runs.items():
        clean = {"top1": [one[CLEAN].top1 for one in seeds]}
        top5 = [one[CLEAN].top5 for one in seeds]
        if None not in top5:
            clean["top5"] = top5
        found[run] = {CLEAN: {metric: _over_seeds(values) for metric, values in clean.items()}}
        for radius in radii:
            robust = [one[radius].top1 for one in seeds]
            # Of a model that is never right, nothing was defended and nothing lost.
            defended = [
                100 * right / top1 if top1 else float("nan")
                for right, top1 in zip(robust, clean["top1"], strict=True)
            ]
            found[run][radius] = {
                "robust_accuracy": _over_seeds(robust),
                "defense_success_rate": _over_seeds(defended),
            }
    return found


def _over_seeds(values: Sequence[float]) -> dict[str, Any]:
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": spread, "by_seed": list(values)}


def decide(runs: Runs, radius: str) -> dict[str, Any]:
    """Claim 1, with the differences that decide it; `radius` is the one of training."""
    halves: dict[str, Any] = {}
    for half, name, first, second in (
        ("clean", CLEAN, "adv", "std"),
        ("robust", radius, "std", "adv"),
    ):
        values = [accuracies.images_right(runs[run], name) for run in (first, second)]
        change = statistics.compare(*values, "positive")
        verdict = change.pop("verdict")
        halves[half] = {f"{second}_minus_{first}": change, "verdict": verdict}
    return halves | {
        "claim_1": statistics.all_hold(halves[half]["verdict"] for half in ("clean", "robust"))
    }


def draw(architectures: Mapping[str, Any], *, path: Path) -> None:
    """A panel an architecture, then those of the paper: clean, then defended."""
    panels = {
        f"{title}, {found['dataset_title']}": {"Clean": _bars(found["accuracies"], CLEAN, "top1")}
        | {
            f"ε = {radius}": _bars(found["accuracies"], radius, "defense_success_rate")
            for radius in found["attacks"]
        }
        for title, found in architectures.items()
    }
    papers = {
        f"the paper: {title}, ImageNet": {
            name: {run.upper(): runs[run][key] for run in ("std", "adv")}
            for name, key in (("Clean", "top1"), ("ε = 0.005", "0.005"), ("ε = 0.01", "0.01"))
        }
        for title, runs in PAPER.items()
    }
    plots.bars(
        panels | papers,
        y_label="per cent",
        pale=list(papers),
        title="Accuracy, and what is defended against PGD",
        note="Lines: ± one standard deviation over trainings. Defended: share, of the images right "
        "when clean, that are right under attack. Pale: the paper's Table 1.",
        path=path,
    )


def _bars(found: Mapping[str, Any], name: str, metric: str) -> dict[str, tuple]:
    values = {run: found[run][name][metric] for run in ("std", "adv")}
    return {
        run.upper(): (value["mean"], value["std"])
        for run, value in values.items()
        if np.isfinite(value["mean"])
    }


def as_markdown(title: str, found: dict[str, Any]) -> str:
    """Our rows, the paper's, and what ours say of claim 1."""
    radii = list(found["attacks"])
    seeds = len(found["pairs"])
    header = ["", "top-1", "top-5"]
    for radius in radii:
        header += [f"ε = {radius}, robust", "defended"]
    rows = []
    for run, of_run in found["accuracies"].items():
        cells = [of_run[CLEAN].get(metric) for metric in ("top1", "top5")]
        for radius in radii:
            cells += [of_run[radius][metric] for metric in METRICS[2:]]
        texts = [accuracies.with_spread(cell["by_seed"]) if cell else "" for cell in cells]
        rows.append([f"{title} {run.upper()}, {found['dataset_title']}", *texts])
    first = next(iter(found["attacks"].values()))
    paper = [
        [
            f"*the paper:* {name} {run.upper()}, ImageNet",
            *(f"{of_run[key][0]:.2f} ± {of_run[key][1]:.2f}" for key in of_run),
        ]
        for name, runs in PAPER.items()
        for run, of_run in runs.items()
    ]
    return "\n".join(
        [
            f"## {title}",
            "",
            f"Per cent, mean ± standard deviation over {seeds} training{'s' * (seeds > 1)} each, "
            f"{found['images']} images. PGD, {first['norm']}: {first['steps']} steps of 1.5 ε / "
            f"{first['steps']}, {first['restarts']} restart{'s' * (first['restarts'] > 1)}, random "
            "start. Robust: of all images; defended: of those that are right when clean. Trained "
            f"against ε = {radii[0]}.",
            "",
            accuracies.markdown_table(header, rows),
            "",
            accuracies.markdown_table(
                ["", "top-1", "top-5", "ε = 0.005, defended", "ε = 0.01, defended"], paper
            ),
            "",
            PAPER_NOTE,
            "",
            *(f"- {sentence}" for sentence in sentences(found)),
        ]
    )


def sentences(found: dict[str, Any]) -> list[str]:
    """What the figures of one architecture say of claim 1."""
    claim = found["claim"]
    radius = next(iter(found["attacks"]))
    clean, robust = claim["clean"], claim["robust"]
    return [
        f"STD − ADV > 0, clean: {clean['verdict']}, {accuracies.interval(clean['std_minus_adv'])}.",
        f"ADV − STD > 0 under PGD at ε = {radius}: {robust['verdict']}, "
        f"{accuracies.interval(robust['adv_minus_std'])}.",
        f"Claim 1, robustness costs clean accuracy: {claim['claim_1']}.",
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How images are evaluated and attacked."""
    accuracies.add_arguments(parser)
    for name, default, text in (
        ("--steps", 10, "of PGD, each of 1.5 epsilon / steps"),
        ("--restarts", 10, "of PGD from random starts; the worst counts"),
    ):
        parser.add_argument(
            name,
            type=command.whole_number(1),
            default=default,
            metavar="N",
            help=f"{text} (default: %(default)s)",
        )


def examine(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[Path]]:
    """Attacks, decides and draws every architecture beside the paper's."""
    architectures: dict[str, Any] = {}
    tables = []
    for title, pairs in trained.by_architecture(arguments.workdirs).items():
        std, adv = pairs[0]
        attacks = attacks_on(adv, steps=arguments.steps, restarts=arguments.restarts)
        runs = accuracies.measure_pairs(
            pairs,
            {CLEAN: None},
            what="PGD",
            attacks=attacks,
            folder=arguments.out / accuracies.FOLDER,
            batch_size=arguments.batch_size,
        )
        dataset = std.config.dataset
        found = architectures[title] = {
            "pairs": trained.pairs_described(pairs),
            "dataset": dataset.name,
            "dataset_title": catalog.get(dataset.name).title,
            "images": len(runs["std"][0][CLEAN].right),
            "attacks": attacks,
            "accuracies": describe(runs, list(attacks)),
            "claim": decide(runs, next(iter(attacks))),
            "paper": {"dataset": "ImageNet", "note": PAPER_NOTE, "accuracies": PAPER},
        }
        tables.append(as_markdown(title, found))
        print("\n" + tables[-1].removeprefix("## "))
    written = [arguments.out / f"{_NAME}.png", arguments.out / f"{_NAME}.md"]
    draw(architectures, path=written[0])
    command.write_markdown(written[1], "Accuracy, clean and attacked (Table 1)", tables)
    return architectures, written


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the figure and writes what was measured."""
    command.run(_NAME, argv, document=__doc__, examine=examine, add_arguments=add_arguments)


if __name__ == "__main__":
    main()
