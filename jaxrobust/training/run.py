"""A training resolved once: config, run and seed become one value, and every check happens here.

Study, training and evaluation are handed a `Run` and never look at the config again.
"""

import dataclasses
import functools
import inspect
import json
import math
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.core import FrozenDict
from ml_collections import ConfigDict

from jaxrobust import models
from jaxrobust.core import named, runtime
from jaxrobust.core.checks import check_that
from jaxrobust.core.settings import difference
from jaxrobust.data import pipeline
from jaxrobust.evaluation.report import EvaluationPlan
from jaxrobust.training import checkpoints, fine_tuning, objectives
from jaxrobust.training import config as configs
from jaxrobust.training.own_radius import evaluation_attacks
from jaxrobust.training.step import Recipe, initial_state, train_step
from jaxrobust.version import __version__


@dataclasses.dataclass(frozen=True)
class Run:
    """One training of one seed, checked, with all that it needs.

    Attributes:
      name: of the run in its study.
      seed: of the weights, the order of the data and the attacks.
      folder: gets config.json, checkpoints, metrics and outcomes.
      data: the data set, opened.
      model: the network.
      recipe: what the compiled step depends on.
      batch_size: images a step, over all devices.
      backbones: what config.json says of the trainings to start from; none for one from scratch.
      allow_same_backbones: whether two of them may have the same weights.
      save_every: steps between two checkpoints.
      keep: number of checkpoints that are kept.
      measure_every: steps between two measurements of the clean accuracy, perhaps not whole; 0:
        never.
      log_every_seconds: between two progress lines.
      evaluation: of the trained network.
      description: what config.json says: enough to repeat the training and to open its checkpoints.
    """

    name: str
    seed: int
    folder: Path
    data: pipeline.DatasetInfo
    model: nn.Module
    recipe: Recipe
    batch_size: int
    backbones: list[dict[str, Any]]
    allow_same_backbones: bool
    save_every: int
    keep: int
    measure_every: float
    log_every_seconds: float
    evaluation: EvaluationPlan
    description: dict[str, Any]

    @property
    def title(self) -> str:
        """For progress lines."""
        return f"{self.name} seed {self.seed}"

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return self.recipe.steps


def resolve(config: ConfigDict, workdir: str | Path) -> list[Run]:
    """All runs x seeds of a config, in the order of training, checked.

    Args:
      config: of a study.
      workdir: a training's folder is `<workdir>/<run>/seed<k>`.

    Raises:
      FileNotFoundError: when data or the trainings to start from are missing.
      ValueError: one sentence that names the key, its value and what was expected; or when a folder
        holds another config's run.
    """
    settings = configs.check(config)
    # Standard runs first: they are what the others are compared with.
    names = sorted(settings, key=lambda name: settings[name].attack is not None)
    opened: dict[str, pipeline.DatasetInfo] = {}
    resolved = {}
    for name in config.runs:
        data = _open(settings[name], opened)
        for seed in config.seeds:
            folder = Path(workdir) / name / f"seed{seed}"
            attacks = evaluation_attacks(settings[name], settings.values())
            resolved[name, seed] = _resolve(settings[name], name, seed, folder, data, attacks)
    return [resolved[name, seed] for seed in config.seeds for name in names]


def resolve_single(config: ConfigDict, folder: str | Path, seed: int | None = None) -> Run:
    """The only run of a config, checked.

    Args:
      config: of one run.
      folder: of the training.
      seed: None is the config's only one.

    Raises:
      FileNotFoundError, ValueError: as `resolve`; also when the config has several runs or seeds.
    """
    runs = configs.check(config)
    if len(runs) != 1:
        raise ValueError(
            f"train takes a config of one run, got {', '.join(runs)}: "
            "pick one with config.for_run, or train all with study.run."
        )
    if seed is None and len(config.seeds) != 1:
        raise ValueError(f"seed must be given when the config has several, {config.seeds}.")
    ((name, config),) = runs.items()
    seed = config.seeds[0] if seed is None else seed
    attacks = evaluation_attacks(config, [config])
    return _resolve(config, name, seed, Path(folder), _open(config, {}), attacks)


def _open(config: ConfigDict, opened: dict[str, pipeline.DatasetInfo]) -> pipeline.DatasetInfo:
    """The data set, opened once for all runs that have the same."""
    devices = jax.device_count()
    for name, size in (
        ("batch_size", config.batch_size),
        ("evaluation.batch_size", config.evaluation.batch_size),
    ):
        if size % devices:
            raise ValueError(f"{name} must be a multiple of the {devices} devices, got {size}.")
    key = json.dumps(config.dataset.to_dict(), sort_keys=True)
    if key not in opened:
        opened[key] = pipeline.describe(config.dataset)
    data, asked = opened[key], config.evaluation.cue_conflict
    rule = f"be False or None for {data.name}, which has the splits {', '.join(data.splits)} alone"
    check_that(not asked or "cue_conflict" in data.splits, "evaluation.cue_conflict", rule, asked)
    return data


def _resolve(
    config: ConfigDict,
    name: str,
    seed: int,
    folder: Path,
    data: pipeline.DatasetInfo,
    attacks: dict[str, dict[str, Any]],
) -> Run:
    backbones = fine_tuning.describe_backbones(config, seed)
    fields = _model_fields(config, data, backbones)
    model = models.create(**fields)
    steps = config.steps or math.ceil(config.epochs * data.train_examples / config.batch_size)
    steps_per_epoch = data.train_examples / config.batch_size
    batch_statistics = config.attack is not None and config.attack_batch_statistics
    if batch_statistics and not hasattr(model, "batch_statistics_axis"):
        raise ValueError(
            "attack_batch_statistics needs a model with a field batch_statistics_axis, "
            f"got {config.model.name}."
        )
    evaluation = config.evaluation.to_dict() | {"attacks": attacks}
    run = Run(
        name=name,
        seed=seed,
        folder=folder,
        data=data,
        model=model,
        recipe=recipe(config, steps, devices=jax.device_count()),
        batch_size=config.batch_size,
        backbones=backbones,
        allow_same_backbones=config.pretrained.allow_same,
        save_every=config.checkpoint.every_steps
        or max(1, round(config.checkpoint.every_epochs * steps_per_epoch)),
        keep=config.checkpoint.keep,
        measure_every=(evaluation.pop("every_epochs") or 0) * steps_per_epoch,
        log_every_seconds=config.log_every_seconds,
        evaluation=EvaluationPlan(**evaluation),
        description={
            "jaxrobust": __version__,
            "run": name,
            "seed": seed,
            "model": fields,
            "image_shape": list(data.image_shape),
            "steps": steps,
            "config": config.to_dict(),
            "backbones": backbones,
        },
    )
    _trace(run)
    check_folder(run)
    return run


def _model_fields(
    config: ConfigDict, data: pipeline.DatasetInfo, backbones: list[dict[str, Any]]
) -> dict[str, Any]:
    """The network as `models.create` takes it."""
    if backbones:
        size, _, channels = backbones[0]["image_shape"]
        got = f"{data.image_shape[-1]} in {data.name}"
        rule = f"be {channels}, as the backbones were trained on"
        check_that(channels == data.image_shape[-1], "The data set's channels", rule, got)
        rule = f"be {size}, the size that the backbones were trained at"
        check_that(size == data.image_shape[0], "dataset.image_size", rule, data.image_shape[0])
        chosen = fine_tuning.model_fields(config, backbones)
    else:
        chosen = {"mean": list(data.mean), "std": list(data.std)} | config.model.to_dict()
    fields = {"num_classes": data.num_classes} | chosen
    if fields["num_classes"] != data.num_classes:
        raise ValueError(
            f"model.num_classes must be {data.num_classes}, the classes of {data.name}, "
            f"got {fields['num_classes']}."
        )
    return fields


def recipe(config: ConfigDict, steps: int, *, devices: int) -> Recipe:
    """What a compiled step depends on.

    Args:
      config: of one run.
      steps: of the whole training.
      devices: over which a batch is cut.

    Raises:
      ValueError: when the config's objective, its options and the attack do not fit each other.
    """
    objective, options = _objective(config, devices)
    per_device = config.batch_size // devices
    if "share" in options and not len(
        objectives.attacked_positions(per_device, config.adversarial_share)
    ):
        raise ValueError(
            f"adversarial_share must be at least one of the {per_device} images of a device, "
            f"got {config.adversarial_share}."
        )
    return Recipe(
        steps=steps,
        **config.optimizer.to_dict(),
        schedule=config.schedule.name,
        boundaries=tuple(config.schedule.boundaries),
        factor=config.schedule.factor,
        warmup=config.schedule.warmup,
        objective=objective,
        objective_options=FrozenDict(options),
    )


def _objective(config: ConfigDict, devices: int) -> tuple[objectives.Objective, dict[str, Any]]:
    """What is minimised, and all its options, those that other keys of the config give included."""
    own = config.objective.to_dict()
    name = own.pop("name")
    if name == "auto":
        name = "standard" if config.attack is None else "adversarial"
    objective = objectives.get(name)
    taken = inspect.signature(objective).parameters
    given = {
        "attack": None if config.attack is None else FrozenDict(config.attack.to_dict()),
        "share": config.adversarial_share,
        "batch_statistics": config.attack_batch_statistics,
        "shards": devices,
    }
    if ("attack" in taken) != (config.attack is not None):
        wanted = "an attack" if "attack" in taken else "None"
        raise ValueError(f"attack must be {wanted} for the objective {name}, got {config.attack}.")
    for key, option, unused in (
        ("adversarial_share", "share", 1.0),
        ("attack_batch_statistics", "batch_statistics", False),
    ):
        if config.attack is not None and option not in taken and given[option] != unused:
            rule = f"be {unused} for the objective {name}, which does not take it"
            raise ValueError(f"{key} must {rule}, got {given[option]}.")
    filled = {key: value for key, value in given.items() if key in taken}
    choices = [
        key
        for key, parameter in taken.items()
        if parameter.kind is parameter.KEYWORD_ONLY and key not in given
    ]
    named.check_options(f"the objective {name}", own, choices)
    return objective, named.complete(name, objective, own | filled)


def _trace(run: Run) -> None:
    """Trace one training step: a model that cannot take these images says so now."""
    short = dataclasses.replace(run.recipe, steps=1)
    fixed = {"model": run.model, "recipe": short, "mesh": runtime.data_mesh()}
    image_shape = run.data.image_shape
    state = jax.eval_shape(
        functools.partial(initial_state, image_shape=image_shape, **fixed), jax.random.key(0)
    )
    batch = {
        "image": jax.ShapeDtypeStruct((run.batch_size, *image_shape), np.uint8),
        "label": jax.ShapeDtypeStruct((run.batch_size,), np.int32),
    }
    jax.eval_shape(functools.partial(train_step, **fixed), state, batch, jax.random.key(0))


def check_folder(run: Run) -> None:
    """Raise unless the folder is empty or holds this very training.

    Raises:
      ValueError: naming the folder and what is different.
    """
    existing = checkpoints.read_config(run.folder)
    if existing is None and checkpoints.runs(run.folder):
        raise ValueError(
            f"{run.folder} holds checkpoints but no config.json: give another workdir."
        )
    if existing is not None:
        differences = difference(_training_part(existing), _training_part(run.description))
        if differences:
            raise ValueError(
                f"{run.folder} holds a run of another config ({'; '.join(differences)}): "
                "give another workdir, or remove that folder."
            )


def _training_part(description: dict[str, Any]) -> dict[str, Any]:
    """What of config.json decides what is trained."""
    backbones = {
        str(position): {key: one.get(key) for key in ("run", "seed", "step", "trained")}
        for position, one in enumerate(description.get("backbones", []))
    }
    compared = {"config": configs.training_part(description["config"]), "backbones": backbones}
    return {**description, **compared, "jaxrobust": None, "steps": None}
