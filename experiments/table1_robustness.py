"""Accuracy, clean and attacked, of STD and ADV: Table 1 of the paper.

    python -m jaxrobust.experiments.table1_robustness --workdirs runs/quickstart

attacks STD and ADV of every architecture among the workdirs by PGD, at the radius that ADV was
trained against and at those of its config's evaluation; mean and standard deviation over all
seeds, beside the paper's figures for ImageNet. Robust accuracy counts all images, defense success
rate only those that are right when clean (what the paper's Table 1 prints). --autoattack 1000 adds
AutoAttack (Croce & Hein 2020) on the first 1,000 images, at the radius of training.

Which images are right is kept beside each checkpoint, so that an interrupted call goes on.

Cost: an accuracy takes steps x restarts gradients of all evaluation images: about a minute for the
quickstart's six models on two CPU cores with --restarts 1. AutoAttack takes about
9,700 passes, forward or backward, of an image that stands.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxrobust.data import catalog
from jaxrobust.experiments import accuracies, statistics, trained
from jaxrobust.experiments.accuracies import RUNS, Runs
from jaxrobust.experiments.experiment import Experiment, whole_number
from jaxrobust.experiments.result import (
    Change,
    Claim,
    Decision,
    Figure,
    Finding,
    Measure,
    Number,
    Result,
    Spread,
    Table,
    Text,
)
from jaxrobust.experiments.words import counted, spread_over

CLEAN, AUTOATTACK = "clean", "AutoAttack"
# Mean and standard deviation over trainings, in per cent: clean top-1 and top-5, then the share of
# the images classified correctly when clean that still are under attack, by radius.
_COLUMNS = ("top1", "top5", "0.005", "0.01")
PAPER = {
    title: {run: dict(zip(_COLUMNS, figures, strict=True)) for run, figures in runs.items()}
    for title, runs in {
        "AlexNet": {
            "std": ((58.28, 0.18), (80.60, 0.05), (2.48, 0.18), (0.22, 0.07)),
            "adv": ((50.59, 0.22), (73.73, 0.07), (71.55, 0.12), (46.49, 0.04)),
        },
        "ResNet-50": {
            "std": ((75.84, 0.31), (92.74, 0.14), (0.78, 0.03), (0.17, 0.02)),
            "adv": ((71.52, 0.06), (90.02, 0.03), (81.25, 0.09), (60.75, 0.33)),
        },
    }.items()
}
PAPER_NOTE = (
    "The paper's figures are for ImageNet, trained against ε = 0.005; its Table 2 gives 55.28 for "
    "the clean top-1 accuracy of AlexNet STD where its Table 1 gives 58.28."
)


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
        if attack.get("norm", "linf") == norm and attack.get("epsilon")
    ]
    return {
        accuracies.radius_as_text(epsilon): {
            "name": "pgd",
            "norm": norm,
            "epsilon": float(epsilon),
            "steps": steps,
            "step_size": 1.5 * float(epsilon) / steps,
            "restarts": restarts,
        }
        for epsilon in dict.fromkeys([own.epsilon, *sorted(others)])
    }


def autoattack_on(adversarial: trained.Trained, images: int) -> dict[str, Any]:
    """AutoAttack on so many first images at the radius that ADV was trained against; {} for none.

    Returns:
      {"AutoAttack": attack with its options}.
    """
    own = adversarial.config.attack
    ball = {"norm": own.get("norm", "linf"), "epsilon": float(own.epsilon)}
    chosen = {"name": "autoattack", **ball, "version": "standard", "images": images}
    return {AUTOATTACK: chosen} if images else {}


def describe(runs: Runs, attacks: Sequence[str]) -> dict[str, Any]:
    """{run: {"clean": {metric: …}, attack: {metric: …}}} as JSON: mean, spread, values by seed."""
    found: dict[str, Any] = {}
    for run, seeds in runs.items():
        clean = {"top1": [one[CLEAN].top1 for one in seeds]}
        top5 = [one[CLEAN].top5 for one in seeds]
        if None not in top5:
            clean["top5"] = top5
        found[run] = {
            CLEAN: {metric: accuracies.over_seeds(values) for metric, values in clean.items()}
        }
        for name in attacks:
            robust = [one[name].top1 for one in seeds]
            # Of the same images, as not all need be attacked. Of a model that is never right,
            # nothing was defended and nothing lost.
            top1 = [one[CLEAN].right[: len(one[name].right)].mean() for one in seeds]
            defended = [
                100 * right / whole if whole else float("nan")
                for right, whole in zip(robust, top1, strict=True)
            ]
            found[run][name] = {
                "robust_accuracy": accuracies.over_seeds(robust),
                "defense_success_rate": accuracies.over_seeds(defended),
            }
    return found


def beside_pgd(runs: Runs, radius: str) -> dict[str, Any]:
    """PGD on the images of AutoAttack, at one radius: {run: what stands, the gap, the cost}.

    The gap is in points of robust accuracy, the cost in seconds a training.
    """
    found = {}
    for run, seeds in runs.items():
        stands = [one[AUTOATTACK].right for one in seeds]
        same = [one[radius].right[: len(right)] for one, right in zip(seeds, stands, strict=True)]
        found[run] = {
            "pgd": accuracies.over_seeds([float(right.mean()) for right in same]),
            "pgd_minus_autoattack": statistics.compare(stands, same),
            "seconds": accuracies.over_seeds([one[AUTOATTACK].seconds for one in seeds]),
        }
    return found


def decide(runs: Runs, radius: str) -> dict[str, Any]:
    """Claim 1, with the differences that decide it; `radius` is the one of training."""
    halves = {
        "clean": accuracies.ahead(runs, CLEAN, "adv", "std"),
        "robust": accuracies.ahead(runs, radius),
    }
    return halves | {"claim_1": statistics.all_hold(half["verdict"] for half in halves.values())}


def draw(found: Mapping[str, Any], *, path: Path) -> None:
    """A panel an architecture, then those of the paper: clean, then defended."""

    def ours(of_run: Mapping[str, Any], attacks: Sequence[str]) -> dict[str, dict[str, Any]]:
        defended = {_title(name): of_run[name]["defense_success_rate"] for name in attacks}
        return {"Clean": of_run[CLEAN]["top1"]} | defended

    panels = {
        f"{title}, {one['dataset_title']}": {
            run: ours(of_run, list(one["attacks"])) for run, of_run in one["accuracies"].items()
        }
        for title, one in found.items()
    }
    names = {"top1": "Clean", "0.005": "ε = 0.005", "0.01": "ε = 0.01"}
    papers = {
        title: {
            run: {name: of_run[key] for key, name in names.items()} for run, of_run in runs.items()
        }
        for title, runs in PAPER.items()
    }
    accuracies.draw_beside_paper(
        panels,
        papers,
        y_label="per cent",
        title="Accuracy, and what is defended against PGD",
        note="Defended: share, of the images right when clean, that are right under attack. Pale: "
        "the paper's Table 1.",
        path=path,
    )


def _title(attack: str) -> str:
    """Over a column: that of PGD is a radius."""
    return attack if attack == AUTOATTACK else f"ε = {attack}"


def tables(title: str, found: dict[str, Any]) -> list[Text | Table]:
    """Our rows and the paper's."""
    names = list(found["attacks"])
    first, seeds = found["attacks"][names[0]], len(found["pairs"])
    columns = [(CLEAN, "top1"), (CLEAN, "top5")]
    columns += [(name, m) for name in names for m in ("robust_accuracy", "defense_success_rate")]
    rows = []
    for run in RUNS:
        cells = [found["accuracies"][run][name].get(metric) for name, metric in columns]
        values = [Spread(cell["by_seed"]) if cell else "" for cell in cells]
        rows.append([f"{title} {run.upper()}, {found['dataset_title']}", *values])
    paper = [
        [f"{name} {run.upper()}, ImageNet", *(Number(m, 2, s) for m, s in of_run.values())]
        for name, runs in PAPER.items()
        for run, of_run in runs.items()
    ]
    titles = {name: _title(name) for name in names}
    if AUTOATTACK in found:
        titles[AUTOATTACK] += f", ε = {names[0]}, {found[AUTOATTACK]['n']} images"
    header = [text for name in names for text in (f"{titles[name]}, robust", "defended")]
    return [
        Text(
            f"Per cent, {spread_over(seeds, 'training')} each, "
            f"{counted(found['images'], 'image')}. PGD, {first['norm']}: {_counts(first)}, a step "
            f"of 1.5 ε / {first['steps']}, random start. Robust: of all images; "
            f"defended: of those that are right when clean. Trained against ε = {names[0]}."
            f"{_about_autoattack(found)}"
        ),
        Table(["", "top-1", "top-5", *header], rows),
        *_gap(title, found),
        Table(["", "top-1", "top-5", "ε = 0.005, defended", "ε = 0.01, defended"], [], paper),
        Text(PAPER_NOTE),
    ]


def _gap(title: str, found: Mapping[str, Any]) -> list[Table]:
    """What PGD leaves of the images that AutoAttack was tried on; nothing where it was not."""
    if AUTOATTACK not in found:
        return []
    n = found[AUTOATTACK]["n"]
    header = [f"the same {n} images", "PGD", AUTOATTACK, "PGD − AutoAttack", "seconds a training"]
    rows = []
    for run, one in found[AUTOATTACK]["beside_pgd"].items():
        robust = found["accuracies"][run][AUTOATTACK]["robust_accuracy"]
        stands = [Spread(cell["by_seed"]) for cell in (one["pgd"], robust)]
        gap = Change(one["pgd_minus_autoattack"], digits=1)
        seconds = Spread(one["seconds"]["by_seed"], digits=0)
        rows.append([f"{title} {run.upper()}", *stands, gap, seconds])
    return [Table(header, rows)]


def _about_autoattack(found: Mapping[str, Any]) -> str:
    """A sentence for the end of a text; empty where it was not asked for."""
    if AUTOATTACK not in found:
        return ""
    one = found[AUTOATTACK]
    radius = accuracies.radius_as_text(one["epsilon"])
    return (
        f" AutoAttack, {one['norm']}, ε = {radius}: version {one['version']}, the first "
        f"{one['n']} images alone, seed {one['seed']}."
    )


def _counts(attack: Mapping[str, Any]) -> str:
    """As "10 steps, 1 restart"."""
    return ", ".join(counted(attack[f"{what}s"], what) for what in ("step", "restart"))


def decision(found: dict[str, Any]) -> Decision:
    """Claim 1 of one architecture, with the measures that decide it."""
    radius, attack = next(iter(found["attacks"].items()))
    pgd = f"accuracy under PGD, ε = {radius} (as in training), {_counts(attack)}, %"
    measures = []
    for what, half, name, metric, sign in (
        ("clean top-1, %", "clean", CLEAN, "top1", "STD − ADV"),
        (pgd, "robust", radius, "robust_accuracy", "ADV − STD"),
    ):
        sides = [Spread(found["accuracies"][run][name][metric]["by_seed"]) for run in RUNS]
        one = found["claim"][half]
        change = Change(one[sign.lower().replace(" − ", "_minus_")], digits=1, label=sign)
        measures.append(Measure(what, *sides, change, one["verdict"]))
    return Decision(found["claim"]["claim_1"], measures)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How images are evaluated and attacked."""
    accuracies.add_arguments(parser)
    for name, default, text in (
        ("--steps", 10, "of PGD, each of 1.5 epsilon / steps"),
        ("--restarts", 10, "of PGD from random starts; the worst counts"),
    ):
        parser.add_argument(
            name,
            type=whole_number(1),
            default=default,
            metavar="N",
            help=f"{text} (default: %(default)s)",
        )
    parser.add_argument(
        "--autoattack",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="first images to try AutoAttack on, at the radius of training (default: none)",
    )


def run(arguments: argparse.Namespace) -> Result:
    """Attacks, decides and draws every architecture beside the paper's."""
    found: dict[str, Any] = {}
    for title, pairs in trained.by_architecture(arguments.workdirs).items():
        attacks = attacks_on(pairs[0][1], steps=arguments.steps, restarts=arguments.restarts)
        attacks |= autoattack_on(pairs[0][1], arguments.autoattack)
        runs = accuracies.measure_pairs(
            pairs, {CLEAN: None}, what="attacks", attacks=attacks, batch_size=arguments.batch_size
        )
        dataset = pairs[0][0].config.dataset
        found[title] = {
            "pairs": trained.pairs_described(pairs),
            "dataset": dataset.name,
            "dataset_title": catalog.get(dataset.name).title,
            "images": len(runs["std"][0][CLEAN].right),
            "attacks": attacks,
            "accuracies": describe(runs, list(attacks)),
            "claim": decide(runs, next(iter(attacks))),
            "paper": {"dataset": "ImageNet", "note": PAPER_NOTE, "accuracies": PAPER},
        }
        if AUTOATTACK in attacks:
            n = len(runs["std"][0][AUTOATTACK].right)
            found[title][AUTOATTACK] = {
                **attacks[AUTOATTACK],
                "n": n,
                "seed": accuracies.SEED,
                "beside_pgd": beside_pgd(runs, next(iter(attacks))),
            }
    figure = Figure("table1_robustness.png", "Accuracy, and what is defended against PGD")
    draw(found, path=arguments.out / figure.file)
    findings = {
        title: Finding(one, tables(title, one), {"1": decision(one)})
        for title, one in found.items()
    }
    return Result(findings, [figure])


EXPERIMENT = Experiment(
    name="table1_robustness",
    title="Table 1: accuracy, clean and attacked",
    short="Table 1",
    paper="adversarial training costs 4 to 8 points of clean accuracy on ImageNet; of what is "
    "right when clean it defends 46 to 81 per cent, standard training 0 to 2.",
    claims=(
        Claim(
            "1",
            "Robustness costs clean accuracy",
            "STD − ADV clean > 0 and ADV − STD robust > 0",
            ("STD", "ADV", "difference, points"),
        ),
    ),
    run=run,
    document=__doc__,
    add_arguments=add_arguments,
)

if __name__ == "__main__":
    EXPERIMENT.main()
