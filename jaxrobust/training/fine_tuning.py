"""Starting a training from trained networks: their backbones under one new classifier.

`config.pretrained.backbones` names the trainings. An entry is the folder of one run and seed, or
the folder of a run, which stands for its trainings, in the order of their seeds: a fine-tuning with
seed k begins at number k (counted around), and where the same folder is named again it takes the
next one. So ("runs/quickstart/std", "runs/quickstart/std") are always two different trainings, and
several seeds of a fine-tuning start from several trainings.
"""

import logging
import re
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from jaxrobust import models
from jaxrobust.core.digests import digest
from jaxrobust.models import late_fusion
from jaxrobust.training import checkpoints
from jaxrobust.training import config as configs

_LOGGER = logging.getLogger("jaxrobust")


def _digest(training: dict[str, Any]) -> str:
    """Of what a backbone was trained with: trained anew with other settings, it is another one."""
    return digest([configs.training_part(training["config"]), training.get("backbones")])


def backbone_folders(config: ConfigDict, seed: int) -> list[Path]:
    """The folders of the trainings that a fine-tuning starts from; none for one from scratch.

    Args:
      config: of one run.
      seed: of the fine-tuning.

    Raises:
      FileNotFoundError: when a folder holds no training with a checkpoint.
      ValueError: when the same training would be taken twice, without `allow_same`, or two runs
        have trainings of other seeds.
    """
    names = list(config.pretrained.backbones)
    trainings = {name: _trainings(Path(name)) for name in names}
    of_runs = {name: list(seeds) for name, seeds in trainings.items() if None not in seeds}
    for name, seeds in of_runs.items():
        first, known = next(iter(of_runs.items()))
        # The backbones of one fine-tuning would be of other seeds, STD 12 beside ADV 13.
        if seeds != known:
            raise ValueError(
                f"pretrained.backbones must have trainings of the same seeds, got {known} in "
                f"{first} and {seeds} in {name}."
            )
    chosen: list[Path] = []
    for position, name in enumerate(names):
        choices = list(trainings[name].values())
        chosen.append(choices[(seed + names[:position].count(name)) % len(choices)])
    places = [folder.resolve() for folder in chosen]
    for folder, place in zip(chosen, places, strict=True):
        if places.count(place) > 1 and not config.pretrained.allow_same:
            raise ValueError(
                f"pretrained.backbones must be different trainings, got {folder} twice; "
                "pretrained.allow_same=True takes it twice all the same."
            )
    return chosen


def _trainings(folder: Path) -> dict[int | None, Path]:
    """Those of a run by seed, in order, or {None: the one that the folder is of}."""
    if not folder.is_dir():
        raise FileNotFoundError(f"pretrained.backbones must name folders, got {folder}.")
    seeds = {
        int(match[1]): path
        for path in folder.glob("seed*")
        if (match := re.fullmatch(r"seed(\d+)", path.name))
    }
    found: dict[int | None, Path] = {seed: seeds[seed] for seed in sorted(seeds)}
    if not seeds:
        runs = checkpoints.runs(folder)
        if len(runs) > 1:
            choices = ", ".join(sorted({str(path.parent) for path in runs}))
            raise ValueError(
                f"pretrained.backbones: {folder} holds several runs; name one of {choices}."
            )
        found = {None: runs[0]} if runs else {}
    for seed, path in list(found.items()):
        if checkpoints.newest_step(path) is None:
            _LOGGER.warning("%s has no checkpoint yet: not taken as a backbone.", path)
            del found[seed]
    if not found:
        raise FileNotFoundError(f"pretrained.backbones: {folder} holds no checkpoint.")
    return found


def describe_backbones(config: ConfigDict, seed: int) -> list[dict[str, Any]]:
    """What config.json says of the trainings that a fine-tuning starts from.

    Raises:
      FileNotFoundError: as `backbone_folders`.
      ValueError: also when their images differ in size or in how they are normalised.
    """
    described = []
    for folder in backbone_folders(config, seed):
        training = checkpoints.read_config(folder)
        if training is None:
            raise FileNotFoundError(f"pretrained.backbones: {folder} holds no config.json.")
        step = checkpoints.readable_step(folder)
        if step is not None and step < (training.get("steps") or 0):
            _LOGGER.warning(
                "The backbone %s is not finished: step %d of %d.", folder, step, training["steps"]
            )
        # A fine-tuning on clean images of what was trained with an attack is still such a network.
        earlier = any(one["adversarial"] for one in training.get("backbones", []))
        described.append(
            {
                "folder": str(folder),
                "run": training["run"],
                "seed": training["seed"],
                "step": step,
                "trained": _digest(training),
                "adversarial": earlier or training["config"]["attack"] is not None,
                "model": training["model"],
                "image_shape": training["image_shape"],
            }
        )
    for one in described[1:]:
        if one["image_shape"] != described[0]["image_shape"]:
            raise ValueError(
                "pretrained.backbones must be for images of one shape, got "
                f"{described[0]['image_shape']} for {described[0]['folder']} and "
                f"{one['image_shape']} for {one['folder']}."
            )
    try:
        late_fusion.check_normalization([models.create(**one["model"]) for one in described])
    except ValueError as error:
        raise ValueError(f"pretrained.{error}") from None
    return described


def model_fields(config: ConfigDict, described: list[dict[str, Any]]) -> dict[str, Any]:
    """The fused network as `models.create` takes it, but for `num_classes`.

    Args:
      config: of one run.
      described: what `describe_backbones` returned.

    Raises:
      ValueError: when `config.model` has a field that `config.pretrained` decides.
    """
    fields = config.model.to_dict()
    for key in ("backbones", "frozen"):
        if key in fields:
            raise ValueError(f"model.{key} cannot be given: pretrained.{key} decides it.")
    return fields | {
        "frozen": config.pretrained.frozen,
        "backbones": [
            one["model"] | ({"frozen": False} if "frozen" in one["model"] else {})
            for one in described
        ],
    }


def with_pretrained(
    variables: Any, described: list[dict[str, Any]], mesh: Mesh, allow_same: bool
) -> dict[str, Any]:
    """Freshly drawn variables of a fused network, the backbones' replaced by the trained ones.

    Args:
      variables: of the `late_fusion.LateFusion`.
      described: what `describe_backbones` returned.
      mesh: of the training; the result is replicated over it.
      allow_same: whether two backbones may have the same weights.

    Raises:
      ValueError: when two have, in whatever folders they lie.
    """
    backbones = [
        late_fusion.without_classifier(checkpoints.load(one["folder"]), one["image_shape"])
        for one in described
    ]
    if not allow_same:
        late_fusion.check_different(backbones)
    joined = late_fusion.with_backbones(variables, backbones)
    return jax.device_put(joined, NamedSharding(mesh, PartitionSpec()))
