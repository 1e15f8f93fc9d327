"""Checkpoints of a run: written whole or not at all, and opened as a Classifier with one line."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from jaxrobust import models
from jaxrobust.classifier import Classifier
from jaxrobust.core import digests, files

_CONFIG = "config.json"
_FOLDER = "checkpoints"


class Checkpoints:
    """The checkpoints of one run, the newest `keep` of them.

    A checkpoint has three items: `variables` (all that a Classifier needs), `training` (the rest
    of the state) and `data` (the state of the data iterator).
    """

    def __init__(self, folder: str | Path, *, keep: int = 2):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, cleanup_tmp_directories=True, step_prefix=None
        )
        self._folder = Path(folder).absolute() / _FOLDER
        self._manager = ocp.CheckpointManager(
            self._folder, options=options, item_names=("variables", "training", "data")
        )

    def save(self, step: int, variables: Any, training: Any, data: dict) -> None:
        """Begin to write the state after `step` steps; it becomes visible when it is complete."""
        self._manager.save(
            step,
            args=ocp.args.Composite(
                variables=ocp.args.StandardSave(variables),
                training=ocp.args.StandardSave(training),
                data=ocp.args.JsonSave(data),
            ),
            force=True,
        )

    def steps(self) -> list[int]:
        """The steps of which there is a checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def restore(self, variables: Any, training: Any) -> tuple[int, Any, Any, dict] | None:
        """The newest checkpoint that can be read: step, variables, training, data; None if none is.

        One that cannot be read is named in a warning and set aside (its folder gets the ending
        ".unreadable", nothing is deleted), and the one before is taken.

        Args:
          variables, training: pytrees of the same structure, whose shardings the result gets.

        Raises:
          OSError: when there are checkpoints and none can be read.
        """
        for step in reversed(self.steps()):
            try:
                restored = self._manager.restore(
                    step,
                    args=ocp.args.Composite(
                        variables=ocp.args.StandardRestore(variables),
                        training=ocp.args.StandardRestore(training),
                        data=ocp.args.JsonRestore(),
                    ),
                )
            except Exception as error:
                if step == min(self.steps()):
                    raise OSError(
                        f"No checkpoint in {self._folder} can be read, the oldest because of "
                        f"{type(error).__name__}; remove the folder to start anew."
                    ) from error
                _warn_unreadable(self._folder, step, error)
                self._set_aside(step)
                continue
            return step, restored.variables, restored.training, restored.data
        return None

    def _set_aside(self, step: int) -> None:
        if jax.process_index() == 0:
            folder = self._folder / str(step)
            shutil.rmtree(folder.with_suffix(".unreadable"), ignore_errors=True)
            folder.rename(folder.with_suffix(".unreadable"))
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"set aside {step}")
        self._manager.reload()

    def wait(self) -> None:
        """Block until what was begun is written."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, and end the background threads."""
        self._manager.close()


def _warn_unreadable(folder: Path, step: int, error: Exception) -> None:
    first_line = str(error).strip().splitlines()[0][:200] if str(error).strip() else ""
    logging.getLogger("jaxrobust").warning(
        "The checkpoint %s of step %d cannot be read (%s: %s); the one before is used.",
        folder / str(step),
        step,
        type(error).__name__,
        first_line,
    )


def write_config(folder: str | Path, description: dict) -> None:
    """Write `config.json`, whole or not at all."""
    files.write_json(Path(folder) / _CONFIG, description)


def read_config(folder: str | Path) -> dict | None:
    """What `write_config` wrote, None when there is nothing."""
    path = Path(folder) / _CONFIG
    return json.loads(path.read_text()) if path.exists() else None


def write(
    folder: str | Path,
    description: dict,
    variables: Any,
    *,
    identity: Callable[[dict], Any] = lambda description: description,
) -> None:
    """Write a classifier that comes from elsewhere so that `load` and the experiments find it.

    Its checkpoint is that of step 0. Writing the same one again is allowed.

    Args:
      folder: of one run and seed.
      description: for config.json; `model` and `image_shape` are what `load` needs of it.
      variables: of the classifier.
      identity: what of a description tells whether it is of the same training; all of it.

    Raises:
      ValueError: when the folder holds something else.
    """
    folder = Path(folder).absolute()
    description = json.loads(json.dumps(description))
    existing = read_config(folder)
    same = existing is not None and identity(existing) == identity(description)
    if not same and (existing is not None or runs(folder)):
        raise ValueError(f"{folder} holds another training: give another workdir, run or seed.")
    write_config(folder, description)
    with ocp.StandardCheckpointer() as writer:
        writer.save(folder / _FOLDER / "0" / "variables", variables, force=True)


def load(workdir: str | Path) -> Classifier:
    """The classifier of the newest checkpoint in a folder.

    Its arrays are not committed to a device: they follow the images that they are used with.

    Args:
      workdir: the folder of one run and seed, or a workdir that holds a single one.

    Raises:
      FileNotFoundError: when there is no such folder or no checkpoint in it.
      ValueError: when the workdir holds several runs or seeds; the sentence lists them.

    Example:
      >>> import tempfile
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import Classifier, checkpoints, models
      >>> model = {"name": "resnet8_small", "num_classes": 10, "width": 4}
      >>> classifier = Classifier.init(jax.random.key(0), models.create(**model), (32, 32, 3))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     description = {"model": model, "image_shape": [32, 32, 3]}
      ...     checkpoints.write(folder, description, classifier.variables)
      ...     loaded = checkpoints.load(folder)
      >>> image = jnp.full((32, 32, 3), 0.5)
      >>> bool((loaded(image) == classifier(image)).all())
      True
    """
    folder = _only_run(Path(workdir))
    description = read_config(folder)
    if description is None:
        raise FileNotFoundError(f"{folder} holds no {_CONFIG}.")
    model = models.create(**description["model"])
    drawn = jax.eval_shape(
        lambda key: Classifier.init(key, model, description["image_shape"]), jax.random.key(0)
    )
    template = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), dict(drawn.variables))
    checkpoints = folder / _FOLDER
    with ocp.StandardCheckpointer() as reader:
        for step in reversed(_steps(folder)):
            try:
                variables = reader.restore(
                    (checkpoints / str(step) / "variables").absolute(), template
                )
            except Exception as error:
                _warn_unreadable(checkpoints, step, error)
                continue
            return Classifier(model, jax.tree.map(jnp.asarray, variables))
    raise FileNotFoundError(f"{checkpoints} holds no checkpoint that can be read.")


def runs(workdir: str | Path) -> list[Path]:
    """The folders under a workdir (or itself) that hold the checkpoints of one run and seed."""
    workdir = Path(workdir)
    if (workdir / _FOLDER).is_dir():
        return [workdir]
    return sorted(path.parent for path in workdir.glob(f"*/seed*/{_FOLDER}"))


def newest_step(folder: str | Path) -> int | None:
    """The step of the newest checkpoint of one run and seed."""
    return max(_steps(Path(folder)), default=None)


def digest(folder: str | Path) -> str:
    """Of the content of the newest checkpoint of one run and seed, wherever it lies.

    Raises:
      FileNotFoundError: when there is none.
    """
    step = newest_step(folder)
    if step is None:
        raise FileNotFoundError(f"{folder} holds no checkpoints.")
    variables = Path(folder) / _FOLDER / str(step) / "variables"
    contents = sorted(path for path in variables.rglob("*") if path.is_file())
    return digests.digest(*(part for path in contents for part in (path.name, path.read_bytes())))


def _steps(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in (folder / _FOLDER).glob("*") if path.name.isdigit())


def _only_run(workdir: Path) -> Path:
    if not workdir.is_dir():
        raise FileNotFoundError(f"{workdir} is no folder.")
    found = runs(workdir)
    if not found:
        raise FileNotFoundError(f"{workdir} holds no checkpoints.")
    if len(found) > 1:
        choices = ", ".join(str(path) for path in found)
        raise ValueError(f"{workdir} holds several trainings; name one of {choices}.")
    return found[0]
