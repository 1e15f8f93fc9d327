"""Training from a config: resumed where it stopped, saved as it goes, stopped on NaN."""

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxrobust import models
from jaxrobust.classifier import Classifier
from jaxrobust.core import logs, runtime
from jaxrobust.core.interrupts import Interrupts, NotFinite, TrainingStopped
from jaxrobust.core.settings import difference, to_plain
from jaxrobust.data import pipeline
from jaxrobust.evaluation import evaluate
from jaxrobust.training import checkpoints, fine_tuning
from jaxrobust.training import config as configs
from jaxrobust.training.loop import Loop
from jaxrobust.training.step import (
    Recipe,
    TrainState,
    attacked_positions,
    initial_state,
    train_step,
)
from jaxrobust.version import __version__

__all__ = [
    "Checked",
    "NotFinite",
    "TrainingStopped",
    "check",
    "describe",
    "planned_steps",
    "train",
]


@dataclasses.dataclass(frozen=True)
class Checked:
    """What the training of one seed will work with, as it was found when it was checked.

    Attributes:
      data: the data set.
      backbones: what config.json says of the trainings to start from.
      model_fields: of `models.create`.
    """

    data: pipeline.DatasetInfo
    backbones: list[dict[str, Any]]
    model_fields: dict[str, Any]


def check(config: ConfigDict, seed: int, data: pipeline.DatasetInfo | None = None) -> Checked:
    """What `config.check` cannot know: the model, the data and the devices fit each other.

    Args:
      config: of one run.
      seed: of the training.
      data: the data set, where it has been opened before.

    Returns:
      What was opened and looked up on the way.

    Raises:
      FileNotFoundError: when data or the trainings to start from are missing.
      ValueError: one sentence that names the value and what was expected.
    """
    devices = jax.device_count()
    for name, size in (
        ("batch_size", config.batch_size),
        ("evaluation.batch_size", config.evaluation.batch_size),
    ):
        if size % devices:
            raise ValueError(f"{name} must be a multiple of the {devices} devices, got {size}.")
    data = data or pipeline.describe(config.dataset)
    backbones = fine_tuning.describe_backbones(config, seed)
    if backbones and tuple(backbones[0]["image_shape"]) != data.image_shape:
        raise ValueError(
            f"dataset.image_size must be {backbones[0]['image_shape'][0]}, the size that the "
            f"backbones were trained at, got {config.dataset.image_size}."
        )
    fields = _model_fields(config, data, backbones)
    if fields["num_classes"] != data.num_classes:
        raise ValueError(
            f"model.num_classes must be {data.num_classes}, the classes of {data.name}, "
            f"got {fields['num_classes']}."
        )
    model = models.create(**fields)
    batch_statistics = config.attack is not None and config.attack_batch_statistics
    if batch_statistics and not hasattr(model, "batch_statistics_axis"):
        raise ValueError(
            "attack_batch_statistics needs a model with a field batch_statistics_axis, "
            f"got {config.model.name}."
        )
    per_device = config.batch_size // devices
    if config.attack is not None and not len(
        attacked_positions(per_device, config.adversarial_share)
    ):
        raise ValueError(
            f"adversarial_share must be at least one of the {per_device} images of a device, "
            f"got {config.adversarial_share}."
        )
    _trace(config, model, data.image_shape)
    return Checked(data, backbones, fields)


def _trace(config: ConfigDict, model: Any, image_shape: tuple[int, ...]) -> None:
    """Trace one training step: a model that cannot take these images says so now."""
    recipe = Recipe.from_config(config, steps=1)
    fixed = {"model": model, "recipe": recipe, "mesh": runtime.data_mesh()}
    state = jax.eval_shape(
        functools.partial(initial_state, image_shape=image_shape, **fixed), jax.random.key(0)
    )
    size = config.batch_size
    batch = {
        "image": jax.ShapeDtypeStruct((size, *image_shape), np.uint8),
        "label": jax.ShapeDtypeStruct((size,), np.int32),
    }
    jax.eval_shape(functools.partial(train_step, **fixed), state, batch, jax.random.key(0))


def describe(config: ConfigDict, seed: int, checked: Checked | None = None) -> dict[str, Any]:
    """What config.json says of one training: enough to repeat it and to open its checkpoints.

    Args:
      config: of one run.
      seed: of the training.
      checked: what `check` returned of it, where it was called before.
    """
    checked = checked or check(config, seed)
    (run,) = config.runs
    return {
        "jaxrobust": __version__,
        "run": run,
        "seed": seed,
        "model": checked.model_fields,
        "image_shape": list(checked.data.image_shape),
        "steps": planned_steps(config, checked.data.train_examples),
        "config": to_plain(config),
        "backbones": checked.backbones,
    }


def _model_fields(config: ConfigDict, data: Any, backbones: list[dict]) -> dict[str, Any]:
    if backbones:
        return {"num_classes": data.num_classes} | fine_tuning.model_fields(config, backbones)
    defaults = {"num_classes": data.num_classes, "mean": list(data.mean), "std": list(data.std)}
    return defaults | to_plain(config.model)


def planned_steps(config: ConfigDict, train_examples: int) -> int:
    """How many steps a whole training takes."""
    return config.steps or math.ceil(config.epochs * train_examples / config.batch_size)


def prepare_folder(folder: Path, description: dict) -> None:
    """Write config.json, or check that the folder holds a run of this very config.

    Raises:
      ValueError: when it holds another config's run; the sentence names the differences.
    """
    existing = checkpoints.read_config(folder)
    if existing is None and checkpoints.runs(folder):
        raise ValueError(f"{folder} holds checkpoints but no config.json: give another workdir.")
    if existing is not None:
        before, now = _training_part(existing), _training_part(description)
        for position, backbone in before["backbones"].items():
            if backbone["trained"] is None and position in now["backbones"]:
                now["backbones"][position]["trained"] = None  # written before that was noted
        differences = difference(before, now)
        if differences:
            raise ValueError(
                f"{folder} holds a run of another config ({'; '.join(differences)}): "
                "give another workdir, or remove that folder."
            )
    if jax.process_index() == 0 and existing != description:
        checkpoints.write_config(folder, description)


def _training_part(description: dict) -> dict:
    config = configs.training_part(description["config"])
    backbones = {
        str(position): {key: one.get(key) for key in ("run", "seed", "step", "trained")}
        for position, one in enumerate(description.get("backbones", []))
    }
    compared = {"config": config, "backbones": backbones, "jaxrobust": None, "steps": None}
    return {**description, **compared}


def train(
    config: ConfigDict,
    workdir: str | Path,
    *,
    seed: int | None = None,
    checked: Checked | None = None,
) -> Classifier:
    """Train the single run of a config, or go on where an earlier call was interrupted.

    Args:
      config: of one run (`config.for_run` picks one of several), checked first.
      workdir: the folder for config.json, checkpoints, metrics.jsonl and TensorBoard's files.
      seed: of weights, data order and attacks; None: the config's only seed.
      checked: what `check` returned of this config and seed, where it was called before.

    Returns:
      The trained classifier, its arrays uncommitted.

    Raises:
      ValueError: when the config is wrong or the folder holds another config's run.
      NotFinite: when the loss becomes NaN or infinite.
      TrainingStopped: after an interrupt or SIGTERM, when the state has been saved.

    Example:
      >>> import tempfile
      >>> from jaxrobust import checkpoints, config, train
      >>> settings = config.default()
      >>> settings.dataset.name = "digits"
      >>> settings.model = {"name": "resnet8_small", "width": 4}
      >>> settings.epochs, settings.steps, settings.batch_size = None, 2, 8
      >>> settings.attack = {"name": "fgsm", "epsilon": 8 / 255}
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     settings.dataset.data_dir = f"{folder}/data"
      ...     trained = train.train(settings, f"{folder}/run")
      ...     checkpoints.newest_step(f"{folder}/run")
      2
    """
    configs.check(config)
    if len(config.runs) != 1:
        raise ValueError(
            f"train takes a config of one run, got {', '.join(config.runs)}: "
            "pick one with config.for_run, or train all with study.run."
        )
    (run,) = config.runs
    config = configs.for_run(config, run)
    if seed is None:
        if len(config.seeds) != 1:
            raise ValueError(f"seed must be given when the config has several, {config.seeds}.")
        (seed,) = config.seeds
    checked = checked or check(config, seed)
    folder, data = Path(workdir), checked.data
    description = describe(config, seed, checked)
    prepare_folder(folder, description)

    model = models.create(**description["model"])
    steps_per_epoch = data.train_examples / config.batch_size
    steps = description["steps"]
    recipe = Recipe.from_config(config, steps)
    mesh = runtime.data_mesh()
    save_every = config.checkpoint.every_steps or max(
        1, round(config.checkpoint.every_epochs * steps_per_epoch)
    )

    init_key, train_key = jax.random.split(jax.random.key(seed))
    state = initial_state(
        init_key, model=model, image_shape=data.image_shape, recipe=recipe, mesh=mesh
    )
    store = checkpoints.Checkpoints(folder, keep=config.checkpoint.keep)
    batches = pipeline.train_batches(
        config.dataset, batch_size=config.batch_size, seed=seed, mesh=mesh
    )
    done = 0
    with batches, Interrupts() as interrupts:
        restored = store.restore(state.variables, (state.step, state.optimizer))
        if restored is not None:
            done, variables, (step, optimizer), position = restored
            state = TrainState(step, variables, optimizer)
            batches.set_state(position)
        elif description["backbones"]:
            variables = fine_tuning.with_pretrained(
                state.variables, description["backbones"], mesh, config.pretrained.allow_same
            )
            state = state.replace(variables=variables)
        writer = logs.MetricsWriter(folder, step=done, active=jax.process_index() == 0)
        progress = logs.Progress(
            f"{run} seed {seed}  training",
            steps,
            images=config.batch_size,
            every=config.log_every_seconds,
        )
        loop = Loop(state, done, batches, store, writer, progress, interrupts)
        try:
            loop.go(
                functools.partial(train_step, key=train_key, model=model, recipe=recipe, mesh=mesh),
                steps,
                save_every=save_every,
                recipe=recipe,
                measure=functools.partial(_evaluation_top1, model, config, data, mesh),
                measure_every=(config.evaluation.every_epochs or 0) * steps_per_epoch,
            )
        finally:
            store.close()
            writer.close()
    if loop.done > done:
        progress.close(
            f"{run} seed {seed}  trained {loop.done - done} of {steps} steps "
            f"in {logs.clock(progress.elapsed)}"
        )
    variables = jax.tree.map(
        lambda leaf: np.asarray(leaf.addressable_data(0)), loop.state.variables
    )
    return Classifier(model, jax.tree.map(jnp.asarray, variables))


def _evaluation_top1(model: Any, config: ConfigDict, data: Any, mesh: Mesh, state: TrainState):
    """Clean accuracy on the evaluation split, in per cent."""
    counted = evaluate.evaluate(
        Classifier(model, state.variables),
        config.dataset,
        data.evaluation_split,
        batch_size=config.evaluation.batch_size,
        mesh=mesh,
        key=jax.random.key(config.evaluation.seed),
        title="evaluation while training",
        every=config.log_every_seconds,
    )
    return 100.0 * counted["top1"] / counted["n"]
