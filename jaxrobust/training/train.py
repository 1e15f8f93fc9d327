"""One training, from top to bottom: resumed where it stopped, saved as it goes, stopped on NaN."""

import contextlib
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxrobust.classifier import Classifier
from jaxrobust.core import logs, runtime
from jaxrobust.core.interrupts import Interrupts, NotFinite, TrainingStopped
from jaxrobust.data import pipeline
from jaxrobust.data.batches import Batches
from jaxrobust.evaluation import evaluate
from jaxrobust.training import checkpoints, fine_tuning
from jaxrobust.training.run import Run, check_folder, resolve_single
from jaxrobust.training.step import TrainState, initial_state, train_step

__all__ = ["NotFinite", "TrainingStopped", "fit", "train"]

# The devices are waited for at least once in so many steps, to see that the loss is finite.
_MOST_UNREAD = 100


def train(config: ConfigDict, workdir: str | Path, *, seed: int | None = None) -> Classifier:
    """Train the single run of a config, or go on where an earlier call was interrupted.

    Args:
      config: of one run (`config.for_run` picks one of several), checked first.
      workdir: the folder for config.json, checkpoints, metrics.jsonl and TensorBoard's files.
      seed: of weights, data order and attacks; None: the config's only seed.

    Returns:
      The trained classifier, its arrays uncommitted.

    Raises:
      FileNotFoundError: when data or the trainings to start from are missing.
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
    return fit(resolve_single(config, workdir, seed))


def fit(run: Run) -> Classifier:
    """Train a resolved run, or what is left of it.

    Returns:
      The trained classifier, its arrays uncommitted.

    Raises:
      NotFinite, TrainingStopped: as `train`.
    """
    mesh = runtime.data_mesh()
    init_key, train_key = jax.random.split(jax.random.key(run.seed))
    fixed = {"model": run.model, "recipe": run.recipe, "mesh": mesh}
    step = functools.partial(train_step, key=train_key, **fixed)
    state = initial_state(init_key, image_shape=run.data.image_shape, **fixed)
    with (
        checkpoints.only_training(run.folder),
        contextlib.closing(_opened(run)) as store,
        pipeline.train_batches(
            run.data, batch_size=run.batch_size, seed=run.seed, mesh=mesh
        ) as batches,
        Interrupts() as interrupts,
    ):
        state, begun = _restored(run, state, store, batches, mesh)
        log = _Log(run, begun)
        with log.progress, contextlib.closing(log):
            for done in range(begun + 1, run.steps + 1):
                state, metrics = step(state, next(batches))
                last = done == run.steps
                stop = interrupts.requested(done)
                save = last or stop or done % run.save_every == 0
                log.add(done, metrics, read=save)
                # Before it is saved: what an interrupted log lacks is then measured again.
                if run.measure_every and (last or _passes(done, run.measure_every)):
                    log.write(done, {"evaluation_top1": _top1(run, state, mesh)})
                if save:
                    training = (state.step, state.optimizer)
                    store.save(done, state.variables, training, batches.get_state())
                if stop and not last:
                    store.wait()
                    raise TrainingStopped(
                        f"Stopped at step {done} of {run.steps}, which is saved: "
                        "the same command goes on from here."
                    )
    variables = jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), state.variables)
    return Classifier(run.model, jax.tree.map(jnp.asarray, variables))


def _opened(run: Run) -> checkpoints.Checkpoints:
    """The checkpoints of a run's folder, whose config.json is from now on the run's."""
    check_folder(run)  # once more: another program may have begun meanwhile
    if jax.process_index() == 0 and checkpoints.read_config(run.folder) != run.description:
        checkpoints.write_config(run.folder, run.description)
    return checkpoints.Checkpoints(run.folder, keep=run.keep)


def _restored(
    run: Run, state: TrainState, store: checkpoints.Checkpoints, batches: Batches, mesh: Mesh
) -> tuple[TrainState, int]:
    """The state to go on from, and the number of steps that it has behind it."""
    restored = store.restore(state.variables, (state.step, state.optimizer))
    if restored is not None:
        done, variables, (step, optimizer), position = restored
        batches.set_state(position)
        return TrainState(step, variables, optimizer), done
    if run.backbones:
        variables = fine_tuning.with_pretrained(
            state.variables, run.backbones, mesh, run.allow_same_backbones
        )
        state = TrainState(state.step, variables, state.optimizer)
    return state, 0


def _passes(done: int, every: float) -> bool:
    """Whether a multiple of `every` lies within the last step."""
    return int(done / every + 1e-9) > int((done - 1) / every + 1e-9)


def _top1(run: Run, state: TrainState, mesh: Mesh) -> float:
    """Clean accuracy on the evaluation split, in per cent."""
    counted = evaluate.evaluate(
        Classifier(run.model, state.variables),
        run.data,
        run.data.evaluation_split,
        batch_size=run.evaluation.batch_size,
        mesh=mesh,
        key=jax.random.key(run.evaluation.seed),
        title="evaluation while training",
        every=run.log_every_seconds,
    )
    return 100.0 * counted["top1"] / counted["n"]


class _Log:
    """The metrics of the steps: read from the devices now and then, checked, written, shown."""

    def __init__(self, run: Run, begun: int) -> None:
        self._run, self._begun, self._done = run, begun, begun
        self._unread: list[dict[str, jax.Array]] = []
        self._writer = logs.MetricsWriter(run.folder, step=begun, active=jax.process_index() == 0)
        self.progress = logs.Progress(
            f"{run.title}  training",
            run.steps,
            steps="steps",
            images=run.batch_size,
            every=run.log_every_seconds,
            active=jax.process_index() == 0,
        )

    def add(self, done: int, metrics: dict[str, jax.Array], *, read: bool) -> None:
        """Note the metrics of a step; with `read`, or when it is time, look at all new ones.

        Raises:
          NotFinite: when the loss or the weights are not finite.
        """
        self._done = done
        self._unread.append(metrics)
        first = done == self._begun + 1
        # All processes must look at the loss after the same step, whatever their clocks say.
        due = self.progress.due() and jax.process_count() == 1
        if read or first or due or len(self._unread) >= _MOST_UNREAD:
            self._read(show=first or done == self._run.steps or self.progress.due())

    def write(self, done: int, figures: dict[str, float]) -> None:
        """Write figures that are not of a step alone."""
        self._writer.write(done, figures)

    def _read(self, *, show: bool) -> None:
        """Look at the metrics of the steps since the last time (this waits for the devices)."""
        read = jax.device_get(self._unread)
        self._unread = []
        self.progress.mark(self._done)
        for name in ("loss", "weight_norm"):
            for position, value in enumerate(float(metrics[name]) for metrics in read):
                if not np.isfinite(value):
                    raise NotFinite(
                        f"The {name} of step {self._done - len(read) + position + 1} is {value}; "
                        "the last checkpoint is of step "
                        f"{checkpoints.newest_step(self._run.folder) or 0}: "
                        "start anew in another workdir with a lower learning rate."
                    )
        figures = {
            name: float(np.mean([metrics[name] for metrics in read]))
            * (100 if name.endswith("accuracy") else 1)
            for name in ("loss", *read[0])
            if name != "weight_norm"
        }
        rate = self.progress.rate()
        self._writer.write(
            self._done,
            figures
            | {"learning_rate": float(self._run.recipe.learning_rate_at(self._done - 1))}
            | {"weight_norm": float(read[-1]["weight_norm"])}
            | ({"images_per_second": rate} if rate else {}),
        )
        if show:
            self.progress.show(self._done, figures)

    def close(self) -> None:
        """Close the files; at the end, say how many steps were taken."""
        self._writer.close()
        if self._begun < self._done == self._run.steps:
            self.progress.close(
                f"{self._run.title}  trained {self._done - self._begun} of {self._run.steps} steps "
                f"in {logs.clock(self.progress.elapsed)}"
            )
