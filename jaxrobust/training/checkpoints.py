"""Checkpoints of a run: written whole or not at all, and opened as a Classifier with one line."""

import contextlib
import json
import logging
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
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
_LOCK = "training.lock"
_VARIABLES, _CHECKSUMS = "variables", "checksums"


@contextlib.contextmanager
def only_training(folder: str | Path) -> Iterator[None]:
    """Of several programs that train in a folder, one; the others wait and say for which.

    Two at once would delete each other's unfinished checkpoints.

    Args:
      folder: of one run and seed; made if need be.
    """
    if jax.process_index() > 0:  # of one program; the first waits, and the others for the first
        yield
        return
    with files.alone(Path(folder) / _LOCK, f"trains in {folder}"):
        yield


class Checkpoints:
    """The checkpoints of one run, the newest `keep` of them.

    A checkpoint has four items: `variables` (all that a Classifier needs), `training` (the rest
    of the state), `data` (the state of the data iterator) and `checksums`, of each array of the
    others, by which damage is noticed; those of earlier versions lack the last.
    """

    def __init__(self, folder: str | Path, *, keep: int = 2):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, cleanup_tmp_directories=True, step_prefix=None
        )
        self._folder = Path(folder).absolute() / _FOLDER
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=options,
            item_names=(_VARIABLES, "training", "data", _CHECKSUMS),
        )

    def save(self, step: int, variables: Any, training: Any, data: dict) -> None:
        """Begin to write the state after `step` steps; it becomes visible when it is complete."""
        self._manager.save(
            step,
            args=ocp.args.Composite(
                variables=ocp.args.StandardSave(variables),
                training=ocp.args.StandardSave(training),
                data=ocp.args.JsonSave(data),
                checksums=ocp.args.JsonSave(
                    {
                        _VARIABLES: _checksums(variables),
                        "training": _checksums(training),
                        "data": _checksum(data),
                    }
                ),
            ),
            force=True,
        )

    def steps(self) -> list[int]:
        """The steps of which there is a checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def restore(self, variables: Any, training: Any) -> tuple[int, Any, Any, dict] | None:
        """The newest checkpoint that can be read: step, variables, training, data; None if none is.

        One that cannot be read is named in a warning, and the one before is taken. What is newer
        than that is set aside: its folder gets the ending ".unreadable", nothing is deleted.

        Args:
          variables, training: pytrees of the same structure, whose shardings the result gets.

        Raises:
          OSError: when there are checkpoints and none can be read.
        """
        damaged: list[tuple[int, Exception]] = []
        for step in reversed(self.steps()):
            try:
                found = self._read(step, variables, training)
            except Exception as error:
                damaged.append((step, error))
                _warn_unreadable(self._folder, step, error)
                continue
            for newer, _ in damaged:
                self._set_aside(newer)
            return found
        if damaged:
            _, first = damaged[0]
            raise OSError(
                f"No checkpoint in {self._folder} can be read, the newest because of "
                f"{_in_short(first)}; remove the folder to start anew."
            ) from first
        return None

    def _read(self, step: int, variables: Any, training: Any) -> tuple[int, Any, Any, dict]:
        asked: dict[str, Any] = {
            _VARIABLES: ocp.args.StandardRestore(variables),
            "training": ocp.args.StandardRestore(training),
            "data": ocp.args.JsonRestore(),
        }
        if _has_checksums(self._folder / str(step)):
            asked[_CHECKSUMS] = ocp.args.JsonRestore()
        found = self._manager.restore(step, args=ocp.args.Composite(**asked))
        if _CHECKSUMS in asked:
            for name in (_VARIABLES, "training"):
                _check(found[name], found.checksums[name])
            if found.checksums["data"] != _checksum(found.data):
                raise ValueError("the data iterator's state is not what was written.")
        if found.data["batches"] != step:
            raise ValueError(f"the data iterator's state is of step {found.data['batches']}.")
        return step, found[_VARIABLES], found.training, found.data

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
    logging.getLogger("jaxrobust").warning(
        "The checkpoint %s of step %d cannot be read (%s); the one before is used.",
        folder / str(step),
        step,
        _in_short(error),
    )


def _in_short(error: Exception) -> str:
    first_line = str(error).strip().splitlines()[0][:200] if str(error).strip() else ""
    return f"{type(error).__name__}: {first_line}"


def _checksums(tree: Any) -> list[str]:
    """The CRC-32 of each array, in the order of the leaves.

    25 million numbers take 0.05 s.
    """
    return [_checksum(leaf) for leaf in jax.tree.leaves(tree)]


def _checksum(content: Any) -> str:
    """Of an array, its type and shape included; of all else as JSON."""
    if not isinstance(content, np.ndarray | np.generic | jax.Array):
        return digests.checksum(json.dumps(content, sort_keys=True).encode())
    if isinstance(content, jax.Array) and content.is_fully_replicated:
        content = content.addressable_data(0)  # of several hosts' devices: what is here
    array = np.asarray(content)
    begun = zlib.crc32(f"{array.dtype} {array.shape}".encode())
    return digests.checksum(array.reshape(-1).view(np.uint8).data, begun)


def _check(tree: Any, checksums: list[str]) -> None:
    """Raise unless each array is the one that was written."""
    for (path, leaf), checksum in zip(
        jax.tree_util.tree_leaves_with_path(tree), checksums, strict=True
    ):
        if _checksum(leaf) != checksum:
            raise ValueError(f"the array {jax.tree_util.keystr(path)} is not what was written.")


def _has_checksums(checkpoint: Path) -> bool:
    return (checkpoint / _CHECKSUMS).is_dir()


def write_config(folder: str | Path, description: dict) -> None:
    """Write `config.json`, whole or not at all."""
    files.write_json(Path(folder) / _CONFIG, description)


def read_config(folder: str | Path) -> dict | None:
    """What `write_config` wrote, None when there is nothing.

    Raises:
      ValueError: when it is damaged or holds something else.
    """
    path = Path(folder) / _CONFIG
    return files.read_json(path, model=dict, image_shape=list) if path.exists() else None


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
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as writer:
        items = {
            _VARIABLES: ocp.args.StandardSave(variables),
            _CHECKSUMS: ocp.args.JsonSave({_VARIABLES: _checksums(variables)}),
        }
        writer.save(folder / _FOLDER / "0", args=ocp.args.Composite(**items), force=True)


def load(workdir: str | Path) -> Classifier:
    """The classifier of the newest checkpoint in a folder.

    Its arrays are not committed to a device: they follow the images that they are used with.

    Args:
      workdir: the folder of one run and seed, or a workdir that holds a single one.

    Raises:
      FileNotFoundError: when there is no such folder or no checkpoint in it that can be read.
      ValueError: when config.json is damaged; when the workdir holds several runs or seeds, which
        the sentence lists.

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
    found = _newest_readable(folder)
    if found is None:
        raise FileNotFoundError(f"{folder / _FOLDER} holds no checkpoint that can be read.")
    _, model, variables = found
    return Classifier(model, jax.tree.map(jnp.asarray, variables))


def _newest_readable(folder: Path) -> tuple[int, nn.Module, Any] | None:
    """Step, network and variables of the newest checkpoint of a run that can be read."""
    description = read_config(folder)
    if description is None:
        raise FileNotFoundError(f"{folder} holds no {_CONFIG}.")
    model = models.create(**description["model"])
    drawn = jax.eval_shape(
        lambda key: Classifier.init(key, model, description["image_shape"]), jax.random.key(0)
    )
    template = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), dict(drawn.variables))
    for step in reversed(_steps(folder)):
        checkpoint = (folder / _FOLDER / str(step)).absolute()
        try:
            with ocp.StandardCheckpointer() as reader:
                variables = reader.restore(checkpoint / _VARIABLES, template)
            if _has_checksums(checkpoint):
                with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
                    _check(variables, reader.restore(checkpoint / _CHECKSUMS)[_VARIABLES])
        except Exception as error:
            _warn_unreadable(checkpoint.parent, step, error)
            continue
        return step, model, variables
    return None


def runs(workdir: str | Path) -> list[Path]:
    """The folders under a workdir (or itself) that hold the checkpoints of one run and seed."""
    workdir = Path(workdir)
    if (workdir / _FOLDER).is_dir():
        return [workdir]
    return sorted(path.parent for path in workdir.glob(f"*/seed*/{_FOLDER}"))


def newest_step(folder: str | Path) -> int | None:
    """The step of the newest checkpoint of one run and seed."""
    return max(_steps(Path(folder)), default=None)


def readable_step(folder: str | Path) -> int | None:
    """The step of the newest checkpoint whose weights can be read, which a warning says of others.

    Raises:
      FileNotFoundError, ValueError: as `load`, where config.json is missing or damaged.
    """
    folder = Path(folder)
    found = _newest_readable(folder) if _steps(folder) else None
    return None if found is None else found[0]


def digest(folder: str | Path) -> str:
    """Of the content of the newest checkpoint that can be read, the one that `load` opens.

    Args:
      folder: of one run and seed, wherever it lies.

    Raises:
      FileNotFoundError: when there is none.
      ValueError: when config.json is damaged.
    """
    step = readable_step(folder)
    if step is None:
        raise FileNotFoundError(f"{folder} holds no checkpoint that can be read.")
    variables = Path(folder) / _FOLDER / str(step) / _VARIABLES
    contents = sorted(path for path in variables.rglob("*") if path.is_file())
    return digests.digest([path.name for path in contents], *contents)


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
