"""Fine-tunings of late fusion by architecture, data set and setting: what Figure 7 compares."""

import dataclasses
import functools
import json
import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import trained
from jaxrobust import models
from jaxrobust.core.settings import difference, to_plain
from jaxrobust.data import catalog, pipeline
from jaxrobust.data.dataset_config import resolve
from jaxrobust.training import checkpoints, train

SINGLE = ("STD", "ADV")
ENSEMBLES = ("STD+STD", "ADV+ADV", "STD+ADV")
SETTINGS = (*SINGLE, *ENSEMBLES)
CONFIG = "configs/figure7_quick.py"
# What fine-tunings that are compared have in common, beside the size of the pictures.
_RECIPE = ("batch_size", "epochs", "steps", "optimizer", "schedule", "model")
_RECIPE_OF_DATA = ("train_split", "evaluation_split", "resize_size", "augmentation")


@dataclass(frozen=True)
class FineTuning:
    """One finished fine-tuning.

    Attributes:
      one: the training.
      backbones: the trainings that it started from, as its config.json describes them.
      curve: accuracies on the evaluation split, in per cent, by the step after which they were
        measured; empty where none were.
    """

    one: trained.Trained
    backbones: list[dict[str, Any]] = field(repr=False)
    curve: dict[int, float] = field(repr=False)


@dataclass(frozen=True)
class Task:
    """The fine-tunings of one architecture on one data set, which differ in nothing else.

    Attributes:
      title: of the data set.
      dataset: its catalogue entry.
      image_size: height and width of the networks' input in pixels.
      steps_per_epoch: training images divided by the batch size.
      by_setting: {setting: {seed: fine-tuning}}, in the order of `SETTINGS` and of seeds.
    """

    title: str
    dataset: catalog.Dataset
    image_size: int
    steps_per_epoch: float
    by_setting: dict[str, dict[int, FineTuning]]

    @property
    def resolution(self) -> str:
        """The paper's group; of other data sets "low" where pictures are enlarged."""
        native = self.dataset.native_size
        enlarged = native is not None and native < self.image_size
        return self.dataset.resolution or ("low" if enlarged else "high")

    @property
    def seeds(self) -> list[int]:
        """Those that any setting has."""
        return sorted({seed for of_setting in self.by_setting.values() for seed in of_setting})

    @property
    def missing(self) -> list[str]:
        """Settings, and seeds of settings, that would complete the task."""
        found = []
        for setting in SETTINGS:
            lacking = [seed for seed in self.seeds if seed not in self.by_setting.get(setting, {})]
            if len(lacking) == len(self.seeds):
                found.append(setting)
            else:
                found += [f"{setting} of seed {seed}" for seed in lacking]
        return found

    @property
    def repeated(self) -> list[str]:
        """Seeds of a setting that started from the same trainings, in whatever order."""
        found = []
        for setting, seeds in self.by_setting.items():
            started: dict[frozenset[Any], list[str]] = {}
            for seed, tuned in seeds.items():
                started.setdefault(frozenset(map(_origin, tuned.backbones)), []).append(str(seed))
            for same in started.values():
                if len(same) > 1:
                    found.append(f"{setting} of seeds {', '.join(same[:-1])} and {same[-1]}")
        return found


def find(workdirs: str | Path | Sequence[str | Path]) -> dict[str, list[Task]]:
    """The tasks in some workdirs by the title of their backbones' architecture.

    Low resolution comes first, then the order of the catalogue. What is no fine-tuning of these
    settings, or is not finished, is named in a warning and left out. A warning also names the seeds
    of a setting that started from the same trainings: intervals take them for independent.

    Args:
      workdirs: of studies, or folders of one run and seed; one or several.

    Raises:
      FileNotFoundError: when no fine-tuning is left, or a data set is not prepared.
      ValueError: when two fine-tunings would take the same place, or differ in how they were made.
    """
    found: dict[Hashable, dict[tuple[Any, ...], dict[str, dict[int, FineTuning]]]] = {}
    written: dict[Hashable, dict[str, Any]] = {}
    left_out: dict[str, list[str]] = {}
    for one in trained.find(workdirs, config=CONFIG):
        backbones = (checkpoints.read_config(one.folder) or {}).get("backbones", [])
        if reason := _no_part_of_it(one, backbones) or _not_finished(one):
            left_out.setdefault(reason, []).append(str(one.folder))
            continue
        architecture, setting = _architecture(backbones[0]), _setting(backbones)
        written.setdefault(architecture, trained.architecture_fields(backbones[0]["model"]))
        by_setting = found.setdefault(architecture, {}).setdefault(_data(one.config), {})
        others = [other for of_setting in by_setting.values() for other in of_setting.values()]
        _check_alike(one, others)
        seeds = by_setting.setdefault(setting, {})
        if one.seed in seeds:
            raise ValueError(
                f"{seeds[one.seed].one.folder} and {one.folder} are both {setting} of seed "
                f"{one.seed} on the same data set; name fewer workdirs, or folders of seeds."
            )
        seeds[one.seed] = FineTuning(one, backbones, _curve(one.folder))
    for reason, folders in left_out.items():
        logging.getLogger("jaxrobust").warning("Left out, %s: %s.", reason, ", ".join(folders))
    if not found:
        raise FileNotFoundError(
            "No finished fine-tuning of late fusion is left; "
            f"python -m jaxrobust.main --config={CONFIG} makes some."
        )
    titles = _told_apart(
        {key: trained.architecture_title(fields["name"]) for key, fields in written.items()},
        {
            key: ", ".join(f"{k}={v}" for k, v in sorted(fields.items()) if k != "name" or ":" in v)
            for key, fields in written.items()
        },
    )
    tasks = {titles[key]: _tasks(found[key]) for key in sorted(found, key=lambda key: titles[key])}
    for architecture_title, of_architecture in tasks.items():
        for task in of_architecture:
            if task.repeated:
                logging.getLogger("jaxrobust").warning(
                    "Not independent, started from the same trainings: %s, %s: %s.",
                    architecture_title,
                    task.title,
                    "; ".join(task.repeated),
                )
    return tasks


def _no_part_of_it(one: trained.Trained, backbones: Sequence[Mapping[str, Any]]) -> str | None:
    """Why a training is none of the five settings."""
    if not backbones:
        return "not started from trained networks"
    if one.adversarial:
        return "fine-tuned with an attack"
    if one.config.model.get("frozen"):
        return "their backbones frozen"
    if len({_architecture(backbone) for backbone in backbones}) > 1:
        return "of several architectures"
    if _setting(backbones) not in SETTINGS:
        return "of other numbers of backbones"
    if len(set(map(_origin, backbones))) < len(backbones):
        return "with the same training twice"
    return None


def _not_finished(one: trained.Trained) -> str | None:
    planned = train.planned_steps(one.config, _train_examples(one.config))
    return "not finished" if (checkpoints.newest_step(one.folder) or 0) < planned else None


def _origin(backbone: Mapping[str, Any]) -> tuple[Any, ...]:
    return backbone["folder"], backbone["run"], backbone["seed"]


def _architecture(backbone: Mapping[str, Any]) -> Hashable:
    """The network as made: its defaults may stand in config.json, or not."""
    model = models.create(**backbone["model"])
    names = [one.name for one in dataclasses.fields(model) if one.name not in ("name", "parent")]
    fields = trained.architecture_fields({name: getattr(model, name) for name in names})
    return type(model), repr(sorted(fields.items()))


def _setting(backbones: Sequence[Mapping[str, Any]]) -> str:
    """As "STD+ADV", from how the backbones were trained."""
    adversarial = sorted(bool(backbone["adversarial"]) for backbone in backbones)
    return "+".join("ADV" if each else "STD" for each in adversarial)


def _data(config: ConfigDict) -> tuple[Any, ...]:
    return config.dataset.name, config.dataset.path, resolve(config.dataset)[0].image_size


def _train_examples(config: ConfigDict) -> int:
    return _examples_of(json.dumps(config.dataset.to_dict()))


@functools.cache  # hundreds of fine-tunings share ten data sets
def _examples_of(dataset: str) -> int:
    return pipeline.describe(ConfigDict(json.loads(dataset))).train_examples


def _check_alike(one: trained.Trained, others: Sequence[FineTuning]) -> None:
    for other in others[:1]:  # which is like the rest
        differences = difference(_recipe(other.one), _recipe(one))
        if differences:
            raise ValueError(
                f"Fine-tunings that are compared must be made alike; {one.folder} differs from "
                f"{other.one.folder} in {'; '.join(differences)}: name fewer workdirs."
            )


def _recipe(one: trained.Trained) -> dict[str, Any]:
    plain = to_plain(one.config)
    data = {key: plain["dataset"].get(key) for key in _RECIPE_OF_DATA}
    return {key: plain.get(key) for key in _RECIPE} | {"dataset": data}


def _curve(folder: Path) -> dict[int, float]:
    path = folder / "metrics.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return {
            line["step"]: line["evaluation_top1"] for line in lines if "evaluation_top1" in line
        }
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not hold the metrics of a training ({error}).") from error


def _tasks(by_data: Mapping[tuple[Any, ...], dict[str, dict[int, FineTuning]]]) -> list[Task]:
    titles = _told_apart(
        {data: catalog.get(data[0]).title for data in by_data},
        {data: ", ".join(filter(None, (f"{data[2]} px", data[1]))) for data in by_data},
    )
    tasks = []
    for data, by_setting in by_data.items():
        config = next(iter(next(iter(by_setting.values())).values())).one.config
        ordered = {
            setting: dict(sorted(by_setting[setting].items()))
            for setting in SETTINGS
            if setting in by_setting
        }
        entry = catalog.get(data[0])
        steps_per_epoch = _train_examples(config) / config.batch_size
        tasks.append(Task(titles[data], entry, data[2], steps_per_epoch, ordered))
    names = catalog.names()
    return sorted(
        tasks,
        key=lambda task: (
            task.resolution == "high",
            names.index(task.dataset.name.partition("/")[0]),
            task.title,
        ),
    )


def _told_apart(titles: Mapping[Any, str], details: Mapping[Any, str]) -> dict[Any, str]:
    """The titles; those that several have, with their details."""
    several = [title for title in titles.values() if list(titles.values()).count(title) > 1]
    return {
        key: f"{title} ({details[key]})" if title in several and details[key] else title
        for key, title in titles.items()
    }
