"""Do robust features help accuracy? Learning curves of late fusion: Figure 7 of the paper.

    python -m jaxrobust.experiments.figure7_late_fusion --workdirs runs/figure7_quick

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

A study may be incomplete: compared are the seeds that all settings of a comparison have, what is
missing is named and leaves its part of the claim open. Which images are right is kept beside each
checkpoint.

Cost: a second or two for each fine-tuning of configs/figure7_quick.py on two CPU cores.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxrobust import plots
from jaxrobust.experiments import (
    accuracies,
    fine_tunings,
    late_fusion_claim,
    result,
    statistics,
    trained,
)
from jaxrobust.experiments.accuracies import Accuracy
from jaxrobust.experiments.experiment import Experiment
from jaxrobust.experiments.fine_tunings import ENSEMBLES, SETTINGS, SINGLE, Task
from jaxrobust.experiments.late_fusion_claim import CLAIM, SAME_SIZE, Runs

# STD and ADV as everywhere; the ensembles of one kind in its colour, but solid.
COLORS = {
    "STD+STD": plots.STD_COLOR,
    "ADV+ADV": plots.ADV_COLOR,
    "STD+ADV": plots.line_colors(["STD+ADV"])["STD+ADV"],
}


def measure(task: Task, *, architecture: str, batch_size: int | None) -> Runs:
    """The final accuracies of one task."""
    total = sum(map(len, task.by_setting.values()))
    runs: dict[str, dict[int, Accuracy]] = {setting: {} for setting in task.by_setting}
    places = [(setting, seed) for setting, seeds in task.by_setting.items() for seed in seeds]
    for number, (setting, seed) in enumerate(places, start=1):
        training = task.by_setting[setting][seed].training
        title = f"{architecture} {setting}, {task.title}, seed {seed} ({number}/{total})"
        measured = accuracies.measure(training, {"clean": None}, batch_size=batch_size, title=title)
        runs[setting][seed] = measured["clean"]
    return runs


def curves_of(task: Task) -> dict[str, Any]:
    """Epochs at which all were measured; by setting and seed the accuracies then, in per cent."""
    curves = {
        setting: {seed: tuning.curve for seed, tuning in seeds.items() if tuning.curve}
        for setting, seeds in task.by_setting.items()
    }
    measured = [set(curve) for seeds in curves.values() for curve in seeds.values()]
    steps = sorted(set.intersection(*measured)) if measured else []
    return {
        "epochs": [step / task.steps_per_epoch for step in steps],
        "top1": {
            setting: {seed: [curve[step] for step in steps] for seed, curve in seeds.items()}
            for setting, seeds in curves.items()
            if seeds and steps
        },
    }


def describe(task: Task, runs: Runs) -> dict[str, Any]:
    """All that is measured of one task, as JSON."""
    top1 = {
        setting: accuracies.over_seeds([each.top1 for each in seeds.values()])
        | {"by_seed": {seed: each.top1 for seed, each in seeds.items()}}
        for setting, seeds in runs.items()
    }
    best = max(each["mean"] for each in top1.values())
    return {
        "dataset": task.dataset.name,
        "resolution": task.resolution,
        "native_size": task.dataset.native_size,
        "image_size": task.image_size,
        "images": len(next(iter(next(iter(runs.values())).values())).right),
        "fine_tunings": {
            setting: [
                {
                    "seed": seed,
                    "folder": str(tuning.training.folder),
                    "backbones": [backbone["folder"] for backbone in tuning.backbones],
                }
                for seed, tuning in seeds.items()
            ]
            for setting, seeds in task.by_setting.items()
        },
        "missing": task.missing,
        "same_backbones": task.repeated,
        "top1": top1,
        "best": [setting for setting, each in top1.items() if each["mean"] == best],
        "curves": curves_of(task),
        "decided": late_fusion_claim.decide(runs, resolution=task.resolution),
    }


def draw(datasets: Mapping[str, Mapping[str, Any]], *, title: str, path: Path) -> None:
    """A panel a data set, of those that have curves."""
    panels = {
        f"{name}\n{numbers['resolution']} resolution": numbers["curves"]
        for name, numbers in datasets.items()
    }

    def lines(settings: Sequence[str]) -> dict[str, Any]:
        return {
            panel: {
                setting: list(curves["top1"][setting].values())
                for setting in settings
                if setting in curves["top1"]
            }
            for panel, curves in panels.items()
        }

    counts = [len(seeds) for curves in panels.values() for seeds in curves["top1"].values()]
    plots.curves(
        {panel: curves["epochs"] for panel, curves in panels.items()},
        lines(ENSEMBLES),
        dashed=lines(SINGLE),
        x_label="epoch",
        y_label="top-1 accuracy (%)",
        share_y=False,
        colors=COLORS,
        title=title,
        note=f"Bands: ± one standard deviation over {_range(counts)} seeds."
        if max(counts) > 1
        else "One seed.",
        path=path,
    )


def _range(counts: Sequence[int]) -> str:
    return f"{min(counts)} to {max(counts)}" if len(set(counts)) > 1 else f"{counts[0]}"


def tables(datasets: Mapping[str, Mapping[str, Any]]) -> list[result.Table]:
    """The final accuracies, and STD+ADV beside networks of the same size."""
    final, same_size = [], []
    for name, numbers in datasets.items():
        sizes = " → ".join(
            str(numbers[key]) for key in ("native_size", "image_size") if numbers[key]
        )
        top1 = [numbers["top1"].get(setting, {"by_seed": {}})["by_seed"] for setting in SETTINGS]
        values = [result.Spread(list(by_seed.values())) for by_seed in top1]
        group = f"{numbers['resolution']}, {sizes} px"
        final.append([name, group, str(numbers["images"]), *values, ", ".join(numbers["best"])])
        changes = [numbers["decided"]["against_each"][setting] for setting in SAME_SIZE]
        above_both = result.Verdict(statistics.all_hold(change["verdict"] for change in changes))
        same_size.append(
            [name, *(result.Change(change, digits=1) for change in changes), above_both]
        )
    seeds = [
        len(each["by_seed"]) for numbers in datasets.values() for each in numbers["top1"].values()
    ]
    spread = (
        f"mean ± standard deviation over {_range(seeds)} seeds" if max(seeds) > 1 else "one seed"
    )
    caution = "say nothing of other trainings" if max(seeds) == 1 else "with few seeds too narrow"
    return [
        result.Table(
            ["data set", "resolution", "images", *SETTINGS, "best"],
            final,
            caption=f"Final top-1 accuracy in per cent, {spread}",
            left=2,
        ),
        result.Table(
            ["data set", *(f"STD+ADV − {setting}" for setting in SAME_SIZE), "above both"],
            same_size,
            caption="Not part of the claim, networks of the same size: differences in points with "
            f"95 % bootstrap intervals over seeds and images ({caution})",
        ),
    ]


def notes(task: Task) -> list[str]:
    """What is incomplete about a task."""
    tunings = [tuning for seeds in task.by_setting.values() for tuning in seeds.values()]
    silent = [str(tuning.training.folder) for tuning in tunings if not tuning.curve]
    incomplete = {
        "Missing": task.missing,
        "Not independent, started from the same trainings": task.repeated,
        "Not drawn, without accuracies in metrics.jsonl": silent,
    }
    return [
        f"{what}, on {task.title}: {'; '.join(names)}."
        for what, names in incomplete.items()
        if names
    ]


def examine(title: str, tasks: Sequence[Task], arguments: argparse.Namespace) -> result.Finding:
    """Measures, decides and draws one architecture."""
    datasets = {
        task.title: describe(
            task, measure(task, architecture=title, batch_size=arguments.batch_size)
        )
        for task in tasks
    }
    claim = late_fusion_claim.decide_together(datasets)
    parts: list[result.Part] = [*tables(datasets)]
    if sentences := [sentence for task in tasks for sentence in notes(task)]:
        parts.append(result.Notes(sentences))
    drawn = {name: numbers for name, numbers in datasets.items() if numbers["curves"]["top1"]}
    if drawn:
        path = arguments.out / f"{EXPERIMENT.name}_{trained.slug(title)}.png"
        caption = f"{title}: late fusion (solid) and single networks (dashed)"
        draw(drawn, title=caption, path=path)
        parts.append(result.Figure(path.name, caption))
    rows = [row for task in datasets.items() for row in late_fusion_claim.measures(*task)]
    decision = result.Decision(claim["claim_7"], rows)
    return result.Finding({"datasets": datasets, "claim": claim}, parts, {"7": decision})


def run(arguments: argparse.Namespace) -> result.Result:
    """Examines every architecture."""
    architectures = fine_tunings.find(arguments.workdirs)
    return result.Result(
        {title: examine(title, tasks, arguments) for title, tasks in architectures.items()}
    )


EXPERIMENT = Experiment(
    name="figure7_late_fusion",
    title="Figure 7: late fusion",
    short="Figure 7",
    paper="STD and ADV joined are the best or close to it on ten data sets; ADV+ADV is ahead of "
    "STD+STD where resolution is low.",
    claims=(CLAIM,),
    run=run,
    document=__doc__,
    add_arguments=accuracies.add_arguments,
    workdirs="runs/figure7_quick",
)

if __name__ == "__main__":
    EXPERIMENT.main()
