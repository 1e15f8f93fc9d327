"""Trained models, STD and ADV in pairs: what every experiment starts from."""

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from ml_collections import ConfigDict

from jaxrobust.classifier import Classifier
from jaxrobust.data import catalog
from jaxrobust.data.dataset_config import resolve
from jaxrobust.training import checkpoints, study

# What may differ between the two of a pair.
_NOT_ARCHITECTURE = ("dtype", "mean", "std", "num_classes")
# What STD must reach, in per cent of clean pictures, for a verdict on these pictures.
_LEAST_CLEAN = {"fashion_mnist": 90.0}


@dataclass(frozen=True)
class Trained:
    """One training that has a checkpoint.

    Attributes:
      workdir: where it was found.
      folder: of this run and seed.
      run: its name in the config.
      seed: of the training.
      architecture: the model's name in the config.
      title: for figures, as "ResNet-50 ADV"; more where that would name two runs.
      adversarial: whether it was trained with an attack.
      config: all settings of the training.
    """

    workdir: Path
    folder: Path
    run: str
    seed: int
    architecture: str
    title: str
    adversarial: bool
    config: ConfigDict = field(repr=False, compare=False)

    def load(self) -> Classifier:
        """The classifier of the newest checkpoint."""
        return checkpoints.load(self.folder)

    def evaluation(self) -> dict[str, Any] | None:
        """What its config's evaluation has measured, as in results.json.

        None where it has not measured anything, or another than the newest checkpoint.
        """
        note = study.finished(self.folder)
        if note is None:
            return None
        results = note["results"]
        return results if results.get("step") == checkpoints.newest_step(self.folder) else None


Pair = tuple[Trained, Trained]
Pairs = list[Pair]


def find(
    workdirs: str | Path | Sequence[str | Path], *, config: str = "configs/quickstart.py"
) -> list[Trained]:
    """The trainings in some workdirs: STD before ADV, in the order of workdirs and seeds.

    A training without a checkpoint yet is named in a warning and left out.

    Args:
      workdirs: of studies, or folders of one run and seed; one or several.
      config: of which errors say that it trains such models.

    Raises:
      FileNotFoundError: when a folder is none, or holds no training with a checkpoint.
      ValueError: when what describes a training cannot be read.
    """
    hint = f"python -m jaxrobust.main --config={config} trains models for this."
    trainings: dict[Path, Trained] = {}
    for workdir in map(Path, [workdirs] if isinstance(workdirs, str | Path) else workdirs):
        if not workdir.is_dir():
            raise FileNotFoundError(f"{workdir} is no folder; {hint}")
        here = []
        for folder in checkpoints.runs(workdir):
            if checkpoints.newest_step(folder) is None:
                logging.getLogger("jaxrobust").warning("%s has no checkpoint yet.", folder)
            else:
                here.append(_read(workdir, folder))
        if not here:
            raise FileNotFoundError(f"{workdir} holds no training with a checkpoint; {hint}")
        for training in sorted(here, key=lambda t: (t.architecture, t.adversarial, t.run, t.seed)):
            trainings.setdefault(training.folder.resolve(), training)
    return _told_apart(list(trainings.values()))


def _read(workdir: Path, folder: Path) -> Trained:
    try:
        description = checkpoints.read_config(folder) or {}
        config = ConfigDict(description["config"])
        adversarial = config.attack is not None
        architecture = config.model.name
        return Trained(
            workdir=workdir,
            folder=folder,
            run=description["run"],
            seed=description["seed"],
            architecture=architecture,
            title=f"{architecture_title(architecture)} {'ADV' if adversarial else 'STD'}",
            adversarial=adversarial,
            config=config,
        )
    except (KeyError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{folder / 'config.json'} does not describe a training of this library "
            f"({type(error).__name__}: {error})."
        ) from error


def slug(title: str) -> str:
    """A title as part of a file's name.

    Example:
      >>> slug("ResNet-8 (small)")
      'resnet_8_small'
    """
    return re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_")


def architecture_fields(model: Mapping[str, Any]) -> dict[str, Any]:
    """Of a model's fields those that say what it is, whatever it is for and computes in."""
    return {key: value for key, value in model.items() if key not in _NOT_ARCHITECTURE}


def architecture_title(name: str) -> str:
    """How an architecture is written.

    Example:
      >>> [architecture_title(name) for name in ("alexnet", "resnet8_small", "wide_resnet50_2")]
      ['AlexNet', 'ResNet-8 (small)', 'Wide ResNet-50-2']
    """
    families = {"resnet": "ResNet", "alexnet": "AlexNet", "vgg": "VGG"}
    families["wide_resnet"] = "Wide ResNet"
    match = re.fullmatch(r"((?:wide_)?[a-z]+?)(\d*)(_\d+)?(?:_(\w+))?", name)
    if match is None or match[1] not in families:
        return name.rpartition(":")[2]
    numbers = "".join(f"-{number.lstrip('_')}" for number in match.group(2, 3) if number)
    return families[match[1]] + numbers + (f" ({match[4]})" if match[4] else "")


def _told_apart(trainings: list[Trained]) -> list[Trained]:
    """Titles that would name several runs also say the data set, the run or the workdir."""
    for addition in (
        lambda training: catalog.get(training.config.dataset.name).title,
        lambda training: training.run,
        lambda training: training.workdir.name,
    ):
        # By title: what the runs of this title would add, each once, whatever its seeds.
        additions: dict[str, dict[Any, str]] = {}
        for training in trainings:
            # The folder of one run and seed may stand for its workdir.
            origin = training.folder.resolve().parent, training.run
            additions.setdefault(training.title, {}).setdefault(origin, addition(training))
        trainings = [
            replace(training, title=f"{training.title}, {addition(training)}")
            if len(set(additions[training.title].values())) > 1
            else training
            for training in trainings
        ]
    return trainings


def by_architecture(workdirs: Sequence[str | Path]) -> dict[str, Pairs]:
    """The pairs of trainings in the workdirs by title; of each, those that differ in their seed.

    Raises:
      FileNotFoundError, ValueError: as `find` and `pairs`.
    """
    groups: dict[str, Pairs] = {}
    for pair in pairs(find(workdirs)):
        groups.setdefault(title_of(pair), []).append(pair)
    return groups


def title_of(pair: Pair) -> str:
    """What STD and ADV have in common: the architecture, and more where that names several.

    ADV's title says it: several ADV runs may share an STD.
    """
    return pair[1].title.replace(" ADV", "", 1)


def pairs_described(pairs: Pairs) -> list[dict[str, Any]]:
    """The pairs as JSON."""
    return [
        {"seed": std.seed, "std": str(std.folder), "adv": str(adv.folder)} for std, adv in pairs
    ]


def pairs(trained: Sequence[Trained]) -> Pairs:
    """STD and ADV of the same architecture, data set and seed, of one workdir where it has both.

    A training without a partner is named in a warning and left out.

    Raises:
      ValueError: when there is no pair, or an ADV training could belong to several STD ones.
    """
    paired: Pairs = []
    for adversarial in (training for training in trained if training.adversarial):
        partners = [
            training
            for training in trained
            if not training.adversarial
            and training.seed == adversarial.seed
            and setting(training) == setting(adversarial)
        ]
        near = [training for training in partners if _home(training) == _home(adversarial)]
        partners = near or partners
        if len(partners) > 1:
            raise ValueError(
                f"{adversarial.folder} could be paired with any of "
                f"{', '.join(str(partner.folder) for partner in partners)}; name fewer workdirs."
            )
        paired += [(standard, adversarial) for standard in partners]
    folders = {training.folder for pair in paired for training in pair}
    alone = [str(training.folder) for training in trained if training.folder not in folders]
    if not paired:
        raise ValueError(
            "STD and ADV trainings of one architecture, data set and seed are needed, got "
            f"{', '.join(alone) or 'no training'}."
        )
    if alone:
        logging.getLogger("jaxrobust").warning(
            "Left out, for want of a partner of the other kind: %s.", ", ".join(alone)
        )
    return paired


def _home(training: Trained) -> Path:
    """The workdir, also of a training that was named by its own folder."""
    folder, workdir = training.folder.resolve(), training.workdir.resolve()
    return folder.parent.parent if workdir == folder else workdir


def setting(training: Trained) -> tuple[Any, ...]:
    """What trainings that are compared have in common: their network and their data."""
    fields = architecture_fields(training.config.model.to_dict())
    data = training.config.dataset
    size = resolve(data)[0].image_size
    return json.dumps(fields, sort_keys=True), data.name, data.path, size


def undertrained(folders: Iterable[str | Path]) -> str:
    """Why nothing is decided by these trainings, in a sentence; empty where that is no obstacle.

    For some pictures it is fixed how many of them, clean, STD must have right: on average over the
    seeds of a network, by the evaluation of their newest checkpoints.

    Args:
      folders: of STD trainings.
    """
    networks: dict[tuple[Any, ...], list[Trained]] = {}
    for folder in dict.fromkeys(map(Path, folders)):
        training = _read(folder, folder)
        networks.setdefault(setting(training), []).append(training)
    for trainings in networks.values():
        least = _LEAST_CLEAN.get(trainings[0].config.dataset.name)
        if least is None:
            continue
        rule = f"STD must have {least:g} per cent of the clean pictures right"
        results = {one.folder: one.evaluation() for one in trainings}
        if unknown := [str(folder) for folder, result in results.items() if result is None]:
            return (
                f"Nothing is decided before {', '.join(unknown)} is evaluated, which "
                f"python -m jaxrobust.main does at the end: {rule}."
            )
        clean = fmean(result["clean"]["top1"] for result in results.values() if result)
        if clean < least:
            return f"Nothing is decided: {rule}, and {trainings[0].run} has {clean:.4g}."
    return ""
