"""The page of a report, one HTML file that needs no other: what `templates/page.html` is given."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxrobust.core.logs import clock
from jaxrobust.data import textured_shapes
from jaxrobust.experiments import render
from jaxrobust.experiments.claims import Decided
from jaxrobust.experiments.experiment import Experiment
from jaxrobust.experiments.plan import Plan
from jaxrobust.experiments.result import Cell, Code, Table, as_json
from jaxrobust.experiments.runner import Outcome

Records = Mapping[str, Mapping[str, Any]]


def as_html(
    plan: Plan,
    experiments: Mapping[str, Experiment],
    claims: Sequence[Decided],
    records: Records,
    outcomes: Sequence[Outcome],
    *,
    figures: Path,
    command: str,
) -> str:
    """The page.

    Args:
      plan: of the report.
      experiments: by name, of those of the plan that can be imported.
      claims: as `claims.gather` returns them.
      records: {experiment: its record}, of those that are done.
      outcomes: of all stages.
      figures: folder of the records and their pictures, which lies beside the page.
      command: that makes the report.
    """
    by_name = {outcome.name: outcome for outcome in outcomes}
    sections = [
        _section(stage.name, experiments.get(stage.name), records, by_name[stage.name])
        for stage in plan.experiments
    ]
    trainings: list[list[Cell]] = [
        [study.name, Code(by_name[study.name].command), by_name[study.name].status]
        for study in plan.studies
    ]
    header = ["study", "command", "status"]
    return render.text(
        "page.html",
        plan=plan,
        failed=[outcome for outcome in outcomes if outcome.status == "failed"],
        missing=[outcome for outcome in outcomes if outcome.status == "missing"],
        claims=claims,
        seeds=_seeds(records),
        generator=_generator(records),
        sections=sections,
        trainings=as_json(Table(header, trainings, caption="Trainings", left=3)),
        command=command,
        times=_times(outcomes),
        picture=lambda file: render.picture(figures / file),
    )


def _section(
    name: str, experiment: Experiment | None, records: Records, outcome: Outcome
) -> dict[str, Any]:
    """Of an experiment; one that cannot be imported has no title but its name."""
    record = records.get(name)
    return {
        "name": name,
        "title": experiment.title if experiment else name,
        "short": experiment.short if experiment else name,
        "paper": experiment.paper if experiment else "",
        "outcome": outcome,
        "shown": record and record["shown"],
        "settings": record and as_json(_settings(record, outcome)),
    }


def _settings(record: Mapping[str, Any], outcome: Outcome) -> Table:
    """How the figures of a section were made."""
    versions = [f"{name} {version}" for name, version in record["versions"].items()]
    rows: list[list[Cell]] = [["command", Code(outcome.command)]]
    rows += [
        [f"seeds, {title}", ", ".join(map(str, seeds))]
        for title, seeds in _seeds({outcome.name: record}).items()
    ]
    rows += [["made with", ", ".join([*versions, f"on {record['device']}"])]]
    rows += [
        [name.replace("_", " "), Code(json.dumps(value))]
        for name, value in record["settings"].items()
        if name not in ("workdirs", "out", "tiles")
    ]
    return Table(["", ""], rows, caption="Settings", left=2)


def _seeds(records: Records) -> dict[str, list[int]]:
    """{architecture: seeds of its pairs of trainings}."""
    seeds: dict[str, set[int]] = {}
    for title, numbers in _paired(records):
        seeds.setdefault(title, set()).update(pair["seed"] for pair in numbers["pairs"])
    return {title: sorted(of_title) for title, of_title in seeds.items()}


def _generator(records: Records) -> dict[str, Any] | None:
    """What is to be known of pictures of `textured_shapes`; None where there are others only."""
    datasets = {numbers.get("dataset", "").partition("/")[0] for _, numbers in _paired(records)}
    if "textured_shapes" not in datasets:
        return None
    seeds = {seed for of_title in _seeds(records).values() for seed in of_title}
    rows = [
        [name.replace("_", " "), _value(value)]
        for name, value in dataclasses.asdict(textured_shapes.PARAMETERS).items()
    ]
    caption = "The generator's parameters; amplitudes are shares of the range of a pixel"
    return {
        "paragraphs": (textured_shapes.__doc__ or "").strip().split("\n\n")[1:],
        "parameters": as_json(Table(["parameter", "value"], rows, caption=caption)),
        "chosen_with": sorted(seeds.intersection(textured_shapes.CHOOSING_SEEDS)),
    }


def _paired(records: Records) -> list[tuple[str, Mapping[str, Any]]]:
    """The numbers of each architecture that come from pairs of trainings."""
    return [
        (title, numbers)
        for record in records.values()
        for title, numbers in record.get("architectures", {}).items()
        if "pairs" in numbers
    ]


def _times(outcomes: Sequence[Outcome]) -> str:
    seconds = {each.title: each.seconds for each in outcomes if each.seconds is not None}
    stages = ", ".join(f"{title} {clock(took)}" for title, took in seconds.items())
    return f"Time taken when last run: {clock(sum(seconds.values()))} in all; {stages}."


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return " to ".join(f"{each:g}" for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
