"""Starting a training from trained networks: their backbones under one new classifier.

`config.pretrained.backbones` names the trainings. An entry is the folder of one run and seed, or
the folder of a run, which stands for its trainings, in the order of their seeds: a fine-tuning with
seed k begins at number k (counted around), and where the same folder is named again it takes the
next one. So ("runs/quickstart/std", "runs/quickstart/std") are always two different trainings, and
several seeds of a fine-tuning start from several trainings.
"""

import re
from pathlib import Path
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from jaxrobust import checkpoints, models
from jaxrobust import config as configs
from jaxrobust.models import late_fusion


def backbone_folders(config: ConfigDict, seed: int) -> list[Path]:
    """The folders of the trainings that a fine-tuning starts from; none for one from scratch.

    Args:
      config: of one run.
      seed: of the fine-tuning.

    Raises:
      FileNotFoundError: when a folder holds no training with a checkpoint.
      ValueError: when the same training would be taken twice, without `allow_same`.
    """
    chosen: list[Path] = []
    named: dict[str, int] = {}
    for name in config.pretrained.backbones:
        choices = _trainings(Path(name))
        chosen.append(choices[(seed + named.get(name, 0)) % len(choices)])
        named[name] = named.get(name, 0) + 1
    places = [folder.resolve() for folder in chosen]
    for folder, place in zip(chosen, places, strict=True):
        if places.count(place) > 1 and not config.pretrained.allow_same:
            raise ValueError(
                f"pretrained.backbones must be different trainings, got {folder} twice; "
                "pretrained.allow_same=True takes it twice all the same."
            )
    return chosen


def _trainings(folder: Path) -> list[Path]:
    """One training, or those of a run by seed; all with a checkpoint."""
    if not folder.is_dir():
        raise FileNotFoundError(f"pretrained.backbones must name folders, got {folder}.")
    seeds = {
        int(match[1]): path
        for path in folder.glob("seed*")
        if (match := re.fullmatch(r"seed(\d+)", path.name))
    }
    found = [seeds[seed] for seed in sorted(seeds)] or checkpoints.runs(folder)
    found = [path for path in found if checkpoints.newest_step(path) is not None]
    if not found:
        raise FileNotFoundError(f"pretrained.backbones: {folder} holds no checkpoint.")
    if len(found) > 1 and not seeds:
        choices = ", ".join(sorted({str(path.parent) for path in found}))
        raise ValueError(
            f"pretrained.backbones: {folder} holds several runs; name one of {choices}."
        )
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
        described.append(
            {
                "folder": str(folder),
                "run": training["run"],
                "seed": training["seed"],
                "step": checkpoints.newest_step(folder),
                "adversarial": training["config"]["attack"] is not None,
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
      ValueError: when `config.model` has a field that belongs to the backbones.
    """
    fields = configs.to_plain(config.model)
    dtype = fields.pop("dtype", None)
    if "backbones" in fields:
        raise ValueError("model.backbones cannot be given: pretrained.backbones names trainings.")
    return fields | {
        "backbones": [
            one["model"] | ({} if dtype is None else {"dtype": dtype}) for one in described
        ]
    }


def with_pretrained(
    variables: Any, model: nn.Module, described: list[dict[str, Any]], mesh: Mesh
) -> dict[str, Any]:
    """Freshly drawn variables of a fused network, the backbones' replaced by the trained ones.

    Args:
      variables: of `model`.
      model: the `late_fusion.LateFusion`.
      described: what `describe_backbones` returned.
      mesh: of the training; the result is replicated over it.
    """
    backbones = [
        late_fusion.without_classifier(checkpoints.load(one["folder"]), one["image_shape"])
        for one in described
    ]
    joined = late_fusion.with_backbones(variables, backbones)
    return jax.device_put(joined, NamedSharding(mesh, PartitionSpec()))
