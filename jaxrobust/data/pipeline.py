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
from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jaxrobust.core.checks import check_that
from jaxrobust.core.digests import digest as digest_of
from jaxrobust.data import catalog, decode, sources
from jaxrobust.data.batches import Batches
from jaxrobust.data.dataset_config import DatasetConfig, ResolvedConfig, resolve
from jaxrobust.data.in_memory import InMemoryBatches
from jaxrobust.data.listing import files_stamp
from jaxrobust.data.streaming import StreamedBatches
from jaxrobust.data.transforms import HostTransform

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
      name: name in the config.
      title: name in tables.
      num_classes: number of classes.
      class_names: their names; empty if the data set has none.
      labels: integer features of every batch, "label" first.
      mean: mean of every channel, on the scale [0, 1].
      std: standard deviation of every channel, on the scale [0, 1].
      image_shape: height, width and channels of the network's input.
      train_split: split that is trained on.
      evaluation_split: split that is evaluated on.
      train_examples: number of training images.
      evaluation_examples: number of evaluation images.
      splits: number of images of every split of the data set.
      augmentation: the augmentation that "auto" has become.
      config: what it was opened with, nothing left to the catalogue.
    """

    name: str
    title: str
    num_classes: int
    class_names: tuple[str, ...]
    labels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
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
          FileNotFoundError, ValueError: as `describe`.
        """
        if split in self._opened:
            return self._opened[split]
        return sources.open_split(self.config, catalog.get(self.config.name), split)


def describe(dataset_config: Any) -> DatasetInfo:
    """Open and check a data set; prepare it first if the library makes it itself.

    Args:
      dataset_config: a `DatasetConfig`, or a ConfigDict with its keys.

    Returns:
      what was found.

    Raises:
      FileNotFoundError: when the data set is not prepared (the message names the command), or the
        folder is not there.
      ValueError: when a key of the config is wrong, or the data are not what they claim to be.
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
        image_shape=(config.image_size, config.image_size, dataset.channels),
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
      dataset: what `describe` returned, or a `DatasetConfig`, or a ConfigDict with its keys.
      batch_size: images in a batch, over all devices and processes.
      seed: decides order and augmentation; in [0, 2**32).
      mesh: devices; the batch is sharded along its axis "data". Its axes count as Auto axes.

    Returns:
      iterator of "image": uint8 (batch_size, image_size, image_size, channels); "label", "index"
      (the position in the split) and further integer features: int32 (batch_size,).

    Raises:
      FileNotFoundError: as `describe`.
      ValueError: as `describe`; or the devices do not divide batch_size.

    Example:
      >>> import jax
      >>> mesh = jax.make_mesh((1,), ("data",))
      >>> with train_batches(DatasetConfig(name="digits"), batch_size=8, seed=0, mesh=mesh) as it:
      ...     next(it)["image"].shape
      (8, 32, 32, 3)
    """
    check_that(0 <= seed < 2**32, "seed", "be in [0, 2**32)", seed)
    return _batches(dataset, None, batch_size=batch_size, seed=seed, mesh=mesh)


def evaluation_batches(dataset: Any, split: str | None, *, batch_size: int, mesh: Mesh) -> Batches:
    """One pass over a split, in order.

    All batches are of one size, the smallest with which there are no more of them, so that hardly
    anything is computed for padding. The last is padded with repetitions of the first image, which
    "mask" marks: every process sees the same number of batches and every image counts once.

    Args:
      dataset: as for `train_batches`.
      split: name of the split; None is the config's evaluation split.
      batch_size: the most images in a batch, over all devices and processes.
      mesh: as for `train_batches`.

    Returns:
      iterator as of `train_batches`, with "mask": bool (batch_size,), False for padding. It has a
      length.

    Raises:
      FileNotFoundError: as `train_batches`.
      ValueError: as `train_batches`.
    """
    return _batches(dataset, split, batch_size=batch_size, seed=None, mesh=mesh)


def digest(dataset: Any, split: str | None = None) -> str:
    """What tells that a split, or how it is decoded, has changed.

    Covers the names, sizes and times of change of the files (so a copy is other data), the number
    of images, their size, the decoded pixels and labels of up to 64 of them spread evenly over the
    split, and `decode.VERSION`.

    Args:
      dataset: as for `train_batches`.
      split: name of the split; None is the config's evaluation split.
    """
    config, opened = _open(dataset, split, train=False)
    transform, rng = HostTransform.create(opened, config, "none"), np.random.default_rng(0)
    positions = np.unique(np.linspace(0, len(opened) - 1, _SAMPLED).astype(int))
    sample = [transform(opened[position], rng) for position in positions[: len(opened)]]
    stamp = files_stamp(sources.folder(config, opened.name))
    described = [decode.VERSION, len(opened), config.image_size, config.resize_size, stamp]
    return digest_of(
        described, *(made[name] for made in sample for name in ("image", *opened.labels))
    )


def _open(dataset: Any, split: str | None, *, train: bool) -> tuple[ResolvedConfig, sources.Split]:
    """The resolved config, and a split; None is the config's own for training or evaluation."""
    if isinstance(dataset, DatasetInfo):
        default = dataset.train_split if train else dataset.evaluation_split
        return dataset.config, dataset.open(split or default)
    config, entry = resolve(dataset)
    split = split or (config.train_split if train else config.evaluation_split)
    return config, sources.open_split(config, entry, split)


def _batches(
    dataset: Any, split: str | None, *, batch_size: int, seed: int | None, mesh: Mesh
) -> Batches:
    config, opened = _open(dataset, split, train=seed is not None)
    axes = f"the axes {mesh.axis_names}"
    check_that("data" in mesh.shape, "mesh", "have an axis 'data'", axes)
    devices = mesh.shape["data"]
    rule = f"be a positive multiple of the {devices} devices along the mesh axis 'data'"
    check_that(batch_size > 0 and batch_size % devices == 0, "batch_size", rule, batch_size)
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
        in_memory = split.channels * len(split) * split.native_size**2 < _IN_MEMORY_LIMIT
    return InMemoryBatches if in_memory else StreamedBatches
