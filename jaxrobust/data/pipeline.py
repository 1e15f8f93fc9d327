"""Batches on the devices: shuffled and endless for training, in order and masked for evaluation.

Two paths stand behind one interface. Small data sets are decoded once and stay on the devices,
where a compiled function gathers and augments (`in_memory`); others are read, decoded and augmented
on the host while the devices compute (`streaming`). In both, Grain decides the order.

A batch depends on nothing but the config, the seed and its number. So the state of an iterator is
that number, whatever has been prefetched, and it may be restored with other numbers of workers,
devices or processes.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxrobust.data import catalog, decode, sources
from jaxrobust.data.batches import Batches
from jaxrobust.data.dataset_config import DatasetConfig, ResolvedConfig, resolve
from jaxrobust.data.in_memory import InMemoryBatches
from jaxrobust.data.listing import files_stamp
from jaxrobust.data.streaming import StreamedBatches

__all__ = [
    "Batches",
    "DatasetConfig",
    "DatasetInfo",
    "describe",
    "digest",
    "evaluation_batches",
    "train_batches",
]

_IN_MEMORY_LIMIT = 2 * 2**30
_SAMPLED = 64  # images whose pixels tell that the decoding has changed


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """A data set as it was found when opened, and as a network will see it.

    Attributes:
        name: Name in the config.
        title: Name in tables.
        num_classes: Number of classes.
        class_names: Their names; empty if the data set has none.
        labels: Integer features of every batch, "label" first.
        mean: Mean of every channel, on the scale [0, 1].
        std: Standard deviation of every channel, on the scale [0, 1].
        image_shape: Height, width and channels of the network's input.
        train_split: Split that is trained on.
        evaluation_split: Split that is evaluated on.
        train_examples: Number of training images.
        evaluation_examples: Number of evaluation images.
        splits: Number of images of every split of the data set.
        augmentation: The augmentation that "auto" has become.
        config: What it was opened with, nothing left to the catalogue.
    """

    name: str
    title: str
    num_classes: int
    class_names: tuple[str, ...]
    labels: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_shape: tuple[int, int, int]
    train_split: str
    evaluation_split: str
    train_examples: int
    evaluation_examples: int
    splits: dict[str, int]
    augmentation: str
    config: ResolvedConfig = dataclasses.field(repr=False)
    _opened: Mapping[str, sources.Split] = dataclasses.field(repr=False, compare=False)

    def open(self, split: str) -> sources.Split:
        """A split, as it was opened; another than the config's two is opened now.

        Raises:
            FileNotFoundError, ValueError: As `describe`.
        """
        if split in self._opened:
            return self._opened[split]
        return sources.open_split(self.config, catalog.get(self.config.name), split)


def describe(dataset_config: Any) -> DatasetInfo:
    """Opens and checks a data set; prepares it first if the library makes it itself.

    Args:
        dataset_config: A `DatasetConfig`, or a ConfigDict with its keys.

    Returns:
        What was found.

    Raises:
        FileNotFoundError: The data set is not prepared (the message names the command), or the
            folder is not there.
        ValueError: A key of the config is wrong, or the data are not what they claim to be.
    """
    config, dataset = resolve(dataset_config)
    train = sources.open_split(config, dataset, config.train_split)
    evaluation = sources.open_split(config, dataset, config.evaluation_split)
    return DatasetInfo(
        name=config.name,
        title=dataset.title,
        num_classes=train.num_classes,
        class_names=train.class_names,
        labels=train.labels,
        mean=dataset.mean,
        std=dataset.std,
        image_shape=(config.image_size, config.image_size, 3),
        train_split=config.train_split,
        evaluation_split=config.evaluation_split,
        train_examples=len(train),
        evaluation_examples=len(evaluation),
        splits=sources.split_sizes(config, dataset),
        augmentation=config.augmentation,
        config=config,
        _opened={train.name: train, evaluation.name: evaluation},
    )


def train_batches(dataset: Any, *, batch_size: int, seed: int, mesh: Mesh) -> Batches:
    """Endless batches of the training split, shuffled anew in every epoch.

    Every epoch takes each image once, over all processes; batches may reach across its end. Global
    batches are the same for any number of devices, processes and workers.

    Args:
        dataset: What `describe` returned, or a `DatasetConfig`, or a ConfigDict with its keys.
        batch_size: Images in a batch, over all devices and processes.
        seed: Decides order and augmentation; in [0, 2**32).
        mesh: Devices; the batch is sharded along its axis "data". Its axes count as Auto axes.

    Returns:
        Iterator of "image": uint8 (batch_size, image_size, image_size, 3); "label", "index" (the
        position in the split) and further integer features: int32 (batch_size,).

    Raises:
        FileNotFoundError: As `describe`.
        ValueError: As `describe`; or the devices do not divide batch_size.

    Example:
        >>> import jax
        >>> mesh = jax.make_mesh((1,), ("data",))
        >>> with train_batches(DatasetConfig(name="digits"), batch_size=8, seed=0, mesh=mesh) as it:
        ...     next(it)["image"].shape
        (8, 32, 32, 3)
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be in [0, 2**32), got {seed}.")
    return _batches(dataset, None, batch_size=batch_size, seed=seed, mesh=mesh)


def evaluation_batches(dataset: Any, split: str | None, *, batch_size: int, mesh: Mesh) -> Batches:
    """One pass over a split, in order.

    All batches are of one size, the smallest with which there are no more of them, so that hardly
    anything is computed for padding. The last is padded with repetitions of the first image, which
    "mask" marks: every process sees the same number of batches and every image counts once.

    Args:
        dataset: As for `train_batches`.
        split: Name of the split; None is the config's evaluation split.
        batch_size: The most images in a batch, over all devices and processes.
        mesh: As for `train_batches`.

    Returns:
        Iterator as of `train_batches`, with "mask": bool (batch_size,), False for padding. It has a
        length.

    Raises:
        FileNotFoundError: As `train_batches`.
        ValueError: As `train_batches`.
    """
    return _batches(dataset, split, batch_size=batch_size, seed=None, mesh=mesh)


def digest(dataset: Any, split: str | None = None) -> str:
    """What tells that a split, or how it is decoded, has changed.

    Covers the names, sizes and times of change of the files, the number of images, the decoded
    pixels and labels of up to 64 images spread evenly over the split, and `decode.VERSION`.

    Args:
        dataset: As for `train_batches`.
        split: Name of the split; None is the config's evaluation split.
    """
    config, opened = _open(dataset, split, train=False)
    positions = np.unique(np.linspace(0, len(opened) - 1, _SAMPLED).astype(int))
    sample = dataclasses.replace(opened, records=_Selected(opened.records, positions))
    mesh = Mesh(np.array(jax.local_devices()[:1]), ("data",))
    kind = _kind(config, opened, "none")
    with kind(sample, config, "none", batch_size=len(positions), seed=None, mesh=mesh) as batches:
        batch = jax.device_get(next(batches))
    known = hashlib.sha256(
        f"{decode.VERSION} {len(opened)} {files_stamp(sources.folder(config))}".encode()
    )
    for name in ("image", *opened.labels):
        known.update(np.ascontiguousarray(batch[name]).tobytes())
    return known.hexdigest()


class _Selected:
    """Some of the records of a split."""

    def __init__(self, records: sources.Records, positions: np.ndarray) -> None:
        self._records, self._positions = records, positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self._records[int(self._positions[index])]


def _open(dataset: Any, split: str | None, *, train: bool) -> tuple[ResolvedConfig, sources.Split]:
    """The resolved config, and a split; None is the config's own for training or evaluation."""
    known = isinstance(dataset, DatasetInfo)
    config, entry = (dataset.config, None) if known else resolve(dataset)
    split = split or (config.train_split if train else config.evaluation_split)
    return config, dataset.open(split) if known else sources.open_split(config, entry, split)


def _batches(
    dataset: Any, split: str | None, *, batch_size: int, seed: int | None, mesh: Mesh
) -> Batches:
    config, opened = _open(dataset, split, train=seed is not None)
    if "data" not in mesh.shape:
        raise ValueError(f"mesh must have an axis 'data', got the axes {mesh.axis_names}.")
    devices = mesh.shape["data"]
    if batch_size < 1 or batch_size % devices:
        raise ValueError(
            f"batch_size must be a positive multiple of the {devices} devices along the mesh axis "
            f"'data', got {batch_size}."
        )
    # With explicit axes, the type of jax.make_mesh, gathers would need annotations everywhere.
    mesh = Mesh(mesh.devices, mesh.axis_names)
    if not len(opened):
        raise ValueError(f"Split {opened.name!r} of {opened.dataset_name} holds no images.")
    augmentation = "none" if seed is None else config.augmentation
    if seed is None:
        count = -(-len(opened) // batch_size)
        batch_size = -(-len(opened) // (count * devices)) * devices
    kind = _kind(config, opened, augmentation)
    return kind(opened, config, augmentation, batch_size=batch_size, seed=seed, mesh=mesh)


def _kind(
    config: ResolvedConfig, split: sources.Split, augmentation: str
) -> type[InMemoryBatches] | type[StreamedBatches]:
    if isinstance(config.in_memory, bool):
        in_memory = config.in_memory
    elif split.native_size is None or augmentation == "random_resized_crop":
        in_memory = False
    else:
        in_memory = 3 * len(split) * split.native_size**2 < _IN_MEMORY_LIMIT
    return InMemoryBatches if in_memory else StreamedBatches
