"""Do robust features help accuracy? Learning curves of late fusion: Figure 7 of the paper.

    python -m experiments.figure7_late_fusion --workdirs runs/figure7_quick

draws, for every architecture among fine-tunings of late fusion, the accuracy against the epoch on
each data set: solid the ensembles STD+STD, ADV+ADV and STD+ADV, dashed the single models STD and
ADV, mean and standard deviation over all seeds. Which setting a fine-tuning belongs to is read from
how its backbones were trained. The table has the final accuracies. Claim 7 has three parts: STD+ADV
is above the better of STD and ADV; it is at most a point below the best of the five, everywhere;
ADV+ADV is above STD+STD at low resolution and below it at high. The better and the best are chosen
anew for each seed, which favours what STD+ADV is compared with. Low are, beside the paper's
low-resolution group, data sets whose pictures are enlarged to the network's input.

The first part alone would also be true if two networks were merely better than one. So STD+ADV is
also compared with the ensembles of the same size. (Fine-tunings of ensembles share backbones among
their seeds, so that seeds differ less there than independent trainings would.)

A study may be incomplete: what there is is compared, what is missing is named and leaves its part
of the claim open. What is measured is kept in `<out>/accuracies`.

Cost: a second or two for each fine-tuning of configs/figure7_quick.py on two CPU cores.
"""

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import accuracies, command, fine_tunings, statistics, trained
from experiments.accuracies import Accuracy
from experiments.fine_tunings import ENSEMBLES, SETTINGS, SINGLE, Task
from experiments.late_fusion_claim import PARTS, SAME_SIZE, WITHIN, Runs, decide, decide_together
from jaxrobust import plots

_NAME = "figure7_late_fusion"
_INCOMPLETE = (
    "Compared are the seeds that all settings of a comparison have; what needs a missing one stays "
    "open."
)
# STD and ADV as everywhere; the ensembles of one kind in its colour, but solid.
COLORS = {
    "STD+STD": plots.STD_COLOR,
    "ADV+ADV": plots.ADV_COLOR,
    "STD+ADV": plots.line_colors(["STD+ADV"])["STD+ADV"],
}


def measure(task: Task, *, architecture: str, folder: Path, batch_size: int | None) -> Runs:
    """The final accuracies of one task."""
    total = sum(map(len, task.by_setting.values()))
    runs: dict[str, dict[int, Accuracy]] = {}
    done = 0
    for setting, seeds in task.by_setting.items():
        for seed, tuned in seeds.items():
            done += 1
            title = f"{architecture} {setting}, {task.title}, seed {seed} ({done}/{total})"
            measured = accuracies.measure(
                tuned.one, {"clean": None}, folder=folder, batch_size=batch_size, title=title
            )
            runs.setdefault(setting, {})[seed] = measured["clean"]
    return runs


def curves_of(task: Task) -> dict[str, Any]:
    """Epochs and, for each setting, the accuracies by seed at them, in per cent, as JSON.

    Where fine-tunings were measured after different steps, those that all have.
    """
    curves = {
        setting: {seed: tuned.curve for seed, tuned in seeds.items() if tuned.curve}
        for setting, seeds in task.by_setting.items()
    }
    all_steps = [set(curve) for seeds in curves.values() for curve in seeds.values()]
    without = [
        str(tuned.one.folder)
        for seeds in task.by_setting.values()
        for tuned in seeds.values()
        if not tuned.curve
    ]
    steps = sorted(set.intersection(*all_steps)) if all_steps else []
    if without:
        _warn("Not drawn, without accuracies in metrics.jsonl", without)
    if any(len(each) > len(steps) for each in all_steps):
        _warn("Drawn where all were measured, at some steps", [task.title])
    return {
        "epochs": [step / task.steps_per_epoch for step in steps],
        "top1": {
            setting: {seed: [curve[step] for step in steps] for seed, curve in seeds.items()}
            for setting, seeds in curves.items()
            if seeds and steps
        },
    }


def _warn(what: str, names: Sequence[str]) -> None:
    logging.getLogger("jaxrobust").warning("%s: %s.", what, ", ".join(names))


def draw(datasets: Mapping[str, Mapping[str, Any]], *, title: str, path: Path) -> bool:
    """A panel a data set; whether there was anything to draw."""
    drawn = {
        f"{name}\n{found['resolution']} resolution": found["curves"]
        for name, found in datasets.items()
        if found["curves"]["top1"]
    }
    if not drawn:
        return False

    def lines(settings: Sequence[str]) -> dict[str, Any]:
        return {
            panel: {
                setting: list(curves["top1"][setting].values())
                for setting in settings
                if setting in curves["top1"]
            }
            for panel, curves in drawn.items()
        }

    counts = {len(seeds) for curves in drawn.values() for seeds in curves["top1"].values()}
    plots.curves(
        {panel: curves["epochs"] for panel, curves in drawn.items()},
        lines(ENSEMBLES),
        dashed=lines(SINGLE),
        x_label="epoch",
        y_label="top-1 accuracy (%)",
        share_y=False,
        colors=COLORS,
        title=f"{title}: late fusion (solid) and single networks (dashed)",
        note=f"Bands: ± one standard deviation over {_range(counts)} seeds."
        if max(counts) > 1
        else "One seed.",
        path=path,
    )
    return True


def _range(counts: set[int]) -> str:
    return f"{min(counts)} to {max(counts)}" if len(counts) > 1 else f"{max(counts)}"


def describe(task: Task, runs: Runs) -> dict[str, Any]:
    """All that is known of one task, as JSON."""
    first = next(iter(next(iter(runs.values())).values()))
    top1 = {
        setting: [accuracy.top1 for accuracy in seeds.values()] for setting, seeds in runs.items()
    }
    means = {setting: float(np.mean(values)) for setting, values in top1.items()}
    return {
        "dataset": task.dataset.name,
        "resolution": task.resolution,
        "native_size": task.dataset.native_size,
        "image_size": task.image_size,
        "images": len(first.right),
        "fine_tunings": {
            setting: [
                {
                    "seed": seed,
                    "folder": str(tuned.one.folder),
                    "backbones": [backbone["folder"] for backbone in tuned.backbones],
                }
                for seed, tuned in seeds.items()
            ]
            for setting, seeds in task.by_setting.items()
        },
        "missing": task.missing,
        "same_backbones": task.repeated,
        "top1": {
            setting: {
                "mean": means[setting],
                "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
                "by_seed": dict(zip(runs[setting], values, strict=True)),
            }
            for setting, values in top1.items()
        },
        "best": [setting for setting in means if means[setting] == max(means.values())],
        "curves": curves_of(task),
        "decided": decide(runs, resolution=task.resolution),
    }


def as_markdown(title: str, found: Mapping[str, Any]) -> str:
    """The tables of one architecture, and what they say of claim 7."""
    datasets = found["datasets"]
    table = accuracies.markdown_table
    shown = accuracies.interval
    final, differences, same_size = [], [], []
    for name, one in datasets.items():
        sizes = [f"{size}" for size in (one["native_size"], one["image_size"]) if size]
        final.append(
            [
                name,
                f"{one['resolution']}, {' → '.join(sizes)} px",
                str(one["images"]),
                *(_cell(one, setting) for setting in SETTINGS),
            ]
        )
        decided = one["decided"]
        single, best, resolution = (decided[part] for part in PARTS)
        expected = "> 0" if resolution["expected"] == "positive" else "< 0"
        differences.append(
            [
                name,
                f"{_chosen(single)}: {shown(single)}",
                single["verdict"],
                f"{_chosen(best)}: {shown(best)}",
                best["verdict"],
                shown(resolution),
                f"{expected}: {resolution['verdict']}",
            ]
        )
        same_size.append([name, *(shown(decided["against_each"][other]) for other in SAME_SIZE)])
    seeds = {len(top1["by_seed"]) for one in datasets.values() for top1 in one["top1"].values()}
    missing = [
        f"- Missing on {name}: {', '.join(one['missing'])}."
        for name, one in datasets.items()
        if one["missing"]
    ]
    repeated = [
        f"- Not independent, started from the same trainings on {name}: "
        f"{'; '.join(one['same_backbones'])}."
        for name, one in datasets.items()
        if one["same_backbones"]
    ]
    few = (
        "With one seed they say nothing of other trainings."
        if max(seeds) == 1
        else "With few seeds they are too narrow."
    )
    lines = [
        f"## {title}",
        "",
        f"Final top-1 accuracy in per cent, mean ± standard deviation over {_range(seeds)} "
        "seeds; the best of a row in bold.",
        "",
        table(["data set", "resolution", "images", *SETTINGS], final, left_columns=2),
        "",
        *([*missing, "", _INCOMPLETE, ""] if missing else []),
        f"Differences in points with their 95 % bootstrap intervals over seeds and images. {few}",
        "",
        *([*repeated, ""] if repeated else []),
        table(
            [
                "data set",
                "STD+ADV − better of STD, ADV per seed",
                "> 0",
                "STD+ADV − best of the other four per seed",
                f"> −{WITHIN:g}",
                "ADV+ADV − STD+STD",
                "by resolution",
            ],
            differences,
        ),
        "",
        "Not part of the claim, networks of the same size:",
        "",
        table(
            ["data set", *(f"STD+ADV − {other}" for other in SAME_SIZE)],
            same_size,
        ),
        "",
        *(f"- {sentence}" for sentence in sentences(found)),
    ]
    return "\n".join(lines)


def _cell(one: Mapping[str, Any], setting: str) -> str:
    if setting not in one["top1"]:
        return "–"
    text = accuracies.with_spread(list(one["top1"][setting]["by_seed"].values()))
    return f"**{text}**" if setting in one["best"] else text


def _chosen(decided: Mapping[str, Any]) -> str:
    """Which settings were the best of a seed, in the order of `SETTINGS`."""
    chosen = {best["setting"] for best in decided["best_by_seed"].values()}
    return ", ".join(setting for setting in SETTINGS if setting in chosen) or "–"


def sentences(found: Mapping[str, Any]) -> list[str]:
    """What the figures of one architecture say of claim 7."""
    datasets = found["datasets"]
    lines = [
        f"{sentence}: {found['claim'][part]} "
        + _counted({name: one["decided"][part]["verdict"] for name, one in datasets.items()})
        for part, sentence in PARTS.items()
    ]
    lines.append(f"Claim 7, both kinds of features help: {found['claim']['claim_7']}.")
    same_size = {
        name: statistics.all_hold(
            one["decided"]["against_each"][other]["verdict"] for other in SAME_SIZE
        )
        for name, one in datasets.items()
    }
    lines.append(
        "Not part of it: STD+ADV is above both STD+STD and ADV+ADV, so that the mixture and not "
        f"the second network makes the difference: {statistics.all_hold(same_size.values())} "
        + _counted(same_size)
    )
    return lines


def _counted(verdicts: Mapping[str, str]) -> str:
    """On how many data sets something holds, and which are the others.

    Example:
      >>> _counted({"SVHN": "holds", "STL-10": "open", "Food-101": "open"})
      '(holds on 1 of 3; open: STL-10, Food-101).'
    """
    parts = [f"holds on {list(verdicts.values()).count('holds')} of {len(verdicts)}"]
    for verdict in ("open", "does not hold"):
        names = [name for name, found in verdicts.items() if found == verdict]
        if names:
            parts.append(f"{verdict}: {', '.join(names)}")
    return f"({'; '.join(parts)})."


def examine(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[Path]]:
    """Measures, decides and draws every architecture."""
    architectures: dict[str, Any] = {}
    written, tables = [], []
    for title, tasks in fine_tunings.find(arguments.workdirs).items():
        datasets = {
            task.title: describe(
                task,
                measure(
                    task,
                    architecture=title,
                    folder=arguments.out / accuracies.FOLDER,
                    batch_size=arguments.batch_size,
                ),
            )
            for task in tasks
        }
        found = {"datasets": datasets, "claim": decide_together(datasets)}
        architectures[title] = found
        path = arguments.out / f"{_NAME}_{trained.slug(title)}.png"
        if draw(datasets, title=title, path=path):
            written.append(path)
        tables.append(as_markdown(title, found))
        print("\n" + tables[-1].removeprefix("## "))
    page = arguments.out / f"{_NAME}.md"
    written.append(command.write_markdown(page, "Late fusion (Figure 7)", tables))
    return architectures, written


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the figures and writes what was measured."""
    command.run(
        _NAME,
        argv,
        document=__doc__,
        examine=examine,
        add_arguments=accuracies.add_arguments,
        workdirs="runs/figure7_quick",
    )


if __name__ == "__main__":
    main()
