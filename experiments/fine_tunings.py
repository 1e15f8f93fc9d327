"""Fine-tunings of late fusion by architecture, data set and setting: what Figure 7 compares."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flax import linen as nn

from jaxrobust import models
from jaxrobust.core import files
from jaxrobust.core.settings import difference, to_plain
from jaxrobust.data import catalog, pipeline
from jaxrobust.data.dataset_config import resolve
from jaxrobust.experiments import trained
from jaxrobust.training import checkpoints

SINGLE = ("STD", "ADV")
ENSEMBLES = ("STD+STD", "ADV+ADV", "STD+ADV")
SETTINGS = (*SINGLE, *ENSEMBLES)
CONFIG = "configs/figure7_quick.py"
# What fine-tunings that are compared have in common, beside the size of the pictures.
_RECIPE = ("batch_size", "epochs", "steps", "optimizer", "schedule", "model", "objective")
_RECIPE_OF_DATA = ("train_split", "evaluation_split", "resize_size", "augmentation")


@dataclass(frozen=True)
class FineTuning:
    """One finished fine-tuning.

    Attributes:
      training: with its config.
      backbones: the trainings that it started from, as its config.json describes them.
      curve: accuracies on the evaluation split, in per cent, by the step after which they were
        measured; empty where none were.
    """

    training: trained.Trained
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
    def missing(self) -> list[str]:
        """Settings, and seeds of settings, that would complete the task."""
        seeds = sorted(set().union(*self.by_setting.values()))
        lacking = []
        for setting in SETTINGS:
            if setting in self.by_setting:
                absent = [seed for seed in seeds if seed not in self.by_setting[setting]]
                lacking += [f"{setting} of seed {seed}" for seed in absent]
            else:
                lacking.append(setting)
        return lacking

    @property
    def repeated(self) -> list[str]:
        """Seeds of a setting that started from the same trainings, in whatever order."""
        repetitions = []
        for setting, seeds in self.by_setting.items():
            started: dict[frozenset[Any], list[str]] = {}
            for seed, tuning in seeds.items():
                origins = frozenset(map(_origin, tuning.backbones))
                started.setdefault(origins, []).append(str(seed))
            for same in started.values():
                if len(same) > 1:
                    repetitions.append(f"{setting} of seeds {', '.join(same[:-1])} and {same[-1]}")
        return repetitions


def find(workdirs: str | Path | Sequence[str | Path]) -> dict[str, list[Task]]:
    """The tasks in some workdirs by the title of their backbones' architecture.

    Low resolution comes first, then the order of the catalogue. What is no fine-tuning of these
    settings, or is not finished, is named in a warning and left out.

    Args:
      workdirs: of studies, or folders of one run and seed; one or several.

    Raises:
      FileNotFoundError: when no fine-tuning is left, or a data set is not prepared.
      ValueError: when two fine-tunings would take the same place, or differ in how they were made.
    """
    groups: dict[nn.Module, dict[tuple[Any, ...], list[FineTuning]]] = {}
    left_out: dict[str, list[str]] = {}
    for training in trained.find(workdirs, config=CONFIG):
        description = checkpoints.read_config(training.folder) or {}
        if reason := _no_part_of_it(training, description):
            left_out.setdefault(reason, []).append(str(training.folder))
            continue
        backbones, data = description["backbones"], training.config.dataset
        by_data = groups.setdefault(_architecture(backbones[0]), {})
        place = data.name, data.path, resolve(data)[0].image_size
        tuning = FineTuning(training, backbones, _curve(training.folder))
        by_data.setdefault(place, []).append(tuning)
    for reason, folders in left_out.items():
        logging.getLogger("jaxrobust").warning("Left out, %s: %s.", reason, ", ".join(folders))
    if not groups:
        raise FileNotFoundError(
            "No finished fine-tuning of late fusion is left; "
            f"python -m jaxrobust.main --config={CONFIG} makes some."
        )
    written = {
        architecture: next(iter(by_data.values()))[0].backbones[0]["model"]
        for architecture, by_data in groups.items()
    }
    titles = _told_apart(
        {key: trained.architecture_title(model["name"]) for key, model in written.items()},
        {key: _details(model) for key, model in written.items()},
    )
    return {titles[key]: _tasks(groups[key]) for key in sorted(groups, key=titles.__getitem__)}


def _no_part_of_it(training: trained.Trained, description: Mapping[str, Any]) -> str | None:
    """Why a training is none of the five settings, or is not to be compared yet."""
    backbones = description.get("backbones")  # imported weights have none
    if not backbones:
        return "not started from trained networks"
    if training.adversarial:
        return "fine-tuned with an attack"
    if training.config.pretrained.frozen:
        return "their backbones frozen"
    if len(set(map(_architecture, backbones))) > 1:
        return "of several architectures"
    if _setting(backbones) not in SETTINGS:
        return "of other numbers of backbones"
    if len(set(map(_origin, backbones))) < len(backbones):
        return "with the same training twice"
    if (checkpoints.newest_step(training.folder) or 0) < description["steps"]:
        return "not finished"
    return None


def _origin(backbone: Mapping[str, Any]) -> tuple[Any, ...]:
    return backbone["folder"], backbone["run"], backbone["seed"]


def _architecture(backbone: Mapping[str, Any]) -> nn.Module:
    """The network as made, where a default may be written or not, whatever it is for."""
    model = models.create(**backbone["model"])
    fields = {each.name: getattr(model, each.name) for each in dataclasses.fields(model)}
    ignored = fields.keys() - trained.architecture_fields(fields).keys()
    return model.clone(**dict.fromkeys(ignored))


def _details(model: Mapping[str, Any]) -> str:
    fields = sorted(trained.architecture_fields(model).items())
    return ", ".join(f"{key}={value}" for key, value in fields if key != "name" or ":" in value)


def _setting(backbones: Sequence[Mapping[str, Any]]) -> str:
    """As "STD+ADV", from how the backbones were trained."""
    adversarial = sorted(bool(backbone["adversarial"]) for backbone in backbones)
    return "+".join("ADV" if each else "STD" for each in adversarial)


def _curve(folder: Path) -> dict[int, float]:
    lines = files.read_log(folder / "metrics.jsonl", step=int)
    return {line["step"]: line["evaluation_top1"] for line in lines if "evaluation_top1" in line}


def _tasks(by_data: Mapping[tuple[Any, ...], list[FineTuning]]) -> list[Task]:
    titles = _told_apart(
        {data: catalog.get(data[0]).title for data in by_data},
        {data: ", ".join(filter(None, (f"{data[2]} px", data[1]))) for data in by_data},
    )
    tasks = []
    for data, tunings in by_data.items():
        config = tunings[0].training.config
        steps_per_epoch = pipeline.describe(config.dataset).train_examples / config.batch_size
        by_setting = _by_setting(tunings)
        tasks.append(Task(titles[data], catalog.get(data[0]), data[2], steps_per_epoch, by_setting))
    names = catalog.names()
    return sorted(
        tasks,
        key=lambda task: (
            task.resolution == "high",
            names.index(task.dataset.name.partition("/")[0]),
            task.title,
        ),
    )


def _by_setting(tunings: Sequence[FineTuning]) -> dict[str, dict[int, FineTuning]]:
    """In order, each in its place, all made alike."""
    by_setting: dict[str, dict[int, FineTuning]] = {setting: {} for setting in SETTINGS}
    first = tunings[0].training
    for tuning in sorted(tunings, key=lambda tuning: tuning.training.seed):
        training, setting = tuning.training, _setting(tuning.backbones)
        if differences := difference(_recipe(first), _recipe(training)):
            raise ValueError(
                f"Fine-tunings that are compared must be made alike; {training.folder} differs "
                f"from {first.folder} in {'; '.join(differences)}: name fewer workdirs."
            )
        if training.seed in by_setting[setting]:
            raise ValueError(
                f"{by_setting[setting][training.seed].training.folder} and {training.folder} are "
                f"both {setting} of seed {training.seed} on the same data set; name fewer "
                "workdirs, or folders of seeds."
            )
        by_setting[setting][training.seed] = tuning
    return {setting: seeds for setting, seeds in by_setting.items() if seeds}


def _recipe(training: trained.Trained) -> dict[str, Any]:
    plain = to_plain(training.config)
    data = {key: plain["dataset"][key] for key in _RECIPE_OF_DATA}
    return {key: plain.get(key) for key in _RECIPE} | {"dataset": data}


def _told_apart(titles: Mapping[Any, str], details: Mapping[Any, str]) -> dict[Any, str]:
    """The titles; those that several have, with their details."""
    several = [title for title in titles.values() if list(titles.values()).count(title) > 1]
    return {
        key: f"{title} ({details[key]})" if title in several and details[key] else title
        for key, title in titles.items()
    }
