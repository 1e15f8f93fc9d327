"""Training from a config: resumed where it stopped, saved as it goes, stopped on NaN."""

import functools
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from jaxrobust import checkpoints, logs, models
from jaxrobust import config as configs
from jaxrobust.classifier import Classifier
from jaxrobust.data import pipeline
from jaxrobust.train_step import (
    Recipe,
    TrainState,
    attacked_positions,
    initial_state,
    train_step,
)
from jaxrobust.version import __version__


class TrainingStopped(Exception):
    """Training was interrupted after its state had been saved; the same call goes on."""


class NotFinite(ArithmeticError):
    """The loss became NaN or infinite; the last checkpoint is from before that."""


def check(config: ConfigDict) -> None:
    """What `config.check` cannot know: the model, the data and the devices fit each other.

    Raises:
      ValueError: one sentence that names the value and what was expected.
    """
    devices = jax.device_count()
    for name, size in (
        ("batch_size", config.batch_size),
        ("evaluation.batch_size", config.evaluation.batch_size),
    ):
        if size % devices:
            raise ValueError(f"{name} must be a multiple of the {devices} devices, got {size}.")
    data = pipeline.describe(config.dataset)
    fields = _model_fields(config, data)
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


def _trace(config: ConfigDict, model: Any, image_shape: tuple[int, ...]) -> None:
    """Trace one training step: a model that cannot take these images says so now."""
    recipe = Recipe.from_config(config, steps=1)
    state = jax.eval_shape(
        functools.partial(initial_state, model=model, image_shape=image_shape, recipe=recipe),
        jax.random.key(0),
    )
    size = config.batch_size
    batch = {
        "image": jax.ShapeDtypeStruct((size, *image_shape), np.uint8),
        "label": jax.ShapeDtypeStruct((size,), np.int32),
    }
    jax.eval_shape(
        functools.partial(train_step, model=model, recipe=recipe, mesh=data_mesh()),
        state,
        batch,
        jax.random.key(0),
    )


def describe(config: ConfigDict, seed: int) -> dict[str, Any]:
    """What config.json says of one training: enough to repeat it and to open its checkpoints.

    Args:
      config: of one run.
      seed: of the training.
    """
    data = pipeline.describe(config.dataset)
    (run,) = config.runs
    return {
        "jaxrobust": __version__,
        "run": run,
        "seed": seed,
        "model": _model_fields(config, data),
        "image_shape": list(data.image_shape),
        "config": configs.to_plain(config),
    }


def _model_fields(config: ConfigDict, data: Any) -> dict[str, Any]:
    defaults = {"num_classes": data.num_classes, "mean": list(data.mean), "std": list(data.std)}
    return defaults | configs.to_plain(config.model)


def data_mesh() -> Mesh:
    """All devices along one axis, "data"."""
    return jax.make_mesh((jax.device_count(),), ("data",), (jax.sharding.AxisType.Auto,))


def prepare_folder(folder: Path, description: dict) -> None:
    """Write config.json, or check that the folder holds a run of this very config.

    Raises:
      ValueError: when it holds another config's run; the sentence names the differences.
    """
    existing = checkpoints.read_config(folder)
    if existing is None and checkpoints.runs(folder):
        raise ValueError(f"{folder} holds checkpoints but no config.json: give another workdir.")
    if existing is not None:
        differences = configs.difference(_training_part(existing), _training_part(description))
        if differences:
            raise ValueError(
                f"{folder} holds a run of another config ({'; '.join(differences)}): "
                "give another workdir, or remove that folder."
            )
    if jax.process_index() == 0 and existing != description:
        checkpoints.write_config(folder, description)


def _training_part(description: dict) -> dict:
    config = {
        key: value
        for key, value in description["config"].items()
        if key not in configs.NOT_TRAINING
    }
    # Where the data lie and how fast they are read may change while a run lasts.
    kept = ("name", "image_size", "train_split", "augmentation", "corrupt_images")
    config["dataset"] = {key: config["dataset"].get(key) for key in kept}
    return {**description, "config": config, "jaxrobust": None}


def train(config: ConfigDict, workdir: str | Path, *, seed: int | None = None) -> Classifier:
    """Train the single run of a config, or go on where an earlier call was interrupted.

    Args:
      config: of one run (`config.for_run` picks one of several), checked first.
      workdir: the folder for config.json, checkpoints, metrics.jsonl and TensorBoard's files.
      seed: of weights, data order and attacks; None: the config's only seed.

    Returns:
      The trained classifier, its arrays uncommitted.

    Raises:
      ValueError: when the config is wrong or the folder holds another config's run.
      NotFinite: when the loss becomes NaN or infinite.
      TrainingStopped: after an interrupt or SIGTERM, when the state has been saved.
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
    check(config)
    folder = Path(workdir)
    description = describe(config, seed)
    prepare_folder(folder, description)

    data = pipeline.describe(config.dataset)
    model = models.create(**description["model"])
    steps_per_epoch = data.train_examples / config.batch_size
    steps = config.steps or math.ceil(config.epochs * steps_per_epoch)
    recipe = Recipe.from_config(config, steps)
    mesh = data_mesh()
    save_every = config.checkpoint.every_steps or max(
        1, round(config.checkpoint.every_epochs * steps_per_epoch)
    )

    init_key, train_key = jax.random.split(jax.random.key(seed))
    state = jax.jit(
        functools.partial(initial_state, model=model, image_shape=data.image_shape, recipe=recipe),
        out_shardings=NamedSharding(mesh, PartitionSpec()),
    )(init_key)
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
        writer = logs.MetricsWriter(folder, step=done, active=jax.process_index() == 0)
        progress = logs.Progress(
            f"{run} seed {seed}  training",
            steps,
            images=config.batch_size,
            every=config.log_every_seconds,
        )
        loop = _Loop(state, done, batches, store, writer, progress, interrupts)
        try:
            loop.go(
                functools.partial(train_step, key=train_key, model=model, recipe=recipe, mesh=mesh),
                steps,
                save_every,
                recipe,
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


class _Loop:
    """The steps of one session, with saving, logging and stopping at the right moments."""

    def __init__(self, state, done, batches, store, writer, progress, interrupts) -> None:
        self.state, self.done = state, done
        self.batches, self.store, self.writer = batches, store, writer
        self.progress, self.interrupts = progress, interrupts
        self.unread: list[dict[str, jax.Array]] = []

    def go(self, step: Callable, steps: int, save_every: int, recipe: Recipe) -> None:
        while self.done < steps:
            self.state, metrics = step(self.state, next(self.batches))
            self.done += 1
            self.unread.append(metrics)
            last = self.done == steps
            save = last or self.done % save_every == 0
            stop = self.interrupts.requested(self.done)
            # All processes must look at the loss after the same step, whatever their clocks say.
            due = self.progress.due() and jax.process_count() == 1
            if save or stop or self.done == 1 or due or len(self.unread) >= 100:
                self._log(recipe, show=last or self.done == 1 or self.progress.due())
            if save or stop:
                self.store.save(
                    self.done,
                    self.state.variables,
                    (self.state.step, self.state.optimizer),
                    self.batches.get_state(),
                )
            if stop and not last:
                self.store.wait()
                raise TrainingStopped(
                    f"Stopped at step {self.done} of {steps}, which is saved: "
                    "the same command goes on from here."
                )

    def _log(self, recipe: Recipe, *, show: bool) -> None:
        """Read the metrics of the steps since the last time (this waits for the devices)."""
        read = jax.device_get(self.unread)
        self.unread = []
        self.progress.mark(self.done)
        losses = [float(metrics["loss"]) for metrics in read]
        for name in ("loss", "weight_norm"):
            values = [float(metrics[name]) for metrics in read]
            if not np.all(np.isfinite(values)):
                first = int(np.flatnonzero(~np.isfinite(values))[0])
                saved = self.store.steps()
                raise NotFinite(
                    f"The {name} of step {self.done - len(read) + first + 1} is {values[first]}; "
                    f"the last checkpoint is of step {saved[-1] if saved else 0}: "
                    "start anew in another workdir with a lower learning rate."
                )
        figures = {
            "loss": float(np.mean(losses)),
            "accuracy": 100 * float(np.mean([metrics["accuracy"] for metrics in read])),
        }
        rate = self.progress.rate()
        self.writer.write(
            self.done,
            figures
            | {"learning_rate": float(recipe.learning_rate_at(self.done - 1))}
            | {"weight_norm": float(read[-1]["weight_norm"])}
            | ({"images_per_second": rate} if rate else {}),
        )
        if show and jax.process_index() == 0:
            self.progress.show(self.done, figures)


class Interrupts:
    """Turns Ctrl-C, SIGTERM and a preemption notice into a question asked between two steps."""

    def __enter__(self):
        self._requested = False
        self._previous = {}
        if jax.process_count() > 1:
            return self  # JAX's coordination service watches for SIGTERM itself
        for kind in (signal.SIGINT, signal.SIGTERM):
            try:
                self._previous[kind] = signal.signal(kind, self._note)
            except ValueError:  # not the main thread: the caller keeps its own handling
                break
        return self

    def __exit__(self, *_):
        for kind, handler in self._previous.items():
            signal.signal(kind, handler)

    def _note(self, kind, frame):
        if self._requested and kind == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice: at once
        self._requested = True

    def requested(self, step: int) -> bool:
        """Whether to stop after this step; all processes agree on the same step."""
        if jax.process_count() > 1:
            # A step that all processes can reach.
            return multihost_utils.reached_preemption_sync_point(step)
        return self._requested
