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
from typing import Any

from jax.sharding import Mesh

from jaxrobust.core.checks import check_that
from jaxrobust.data import sources
from jaxrobust.data.batches import Batches
from jaxrobust.data.dataset_config import DatasetConfig, ResolvedConfig, resolve
from jaxrobust.data.in_memory import InMemoryBatches
from jaxrobust.data.streaming import StreamedBatches

__all__ = [
    "Batches",
    "DatasetConfig",
    "DatasetInfo",
    "describe",
    "evaluation_batches",
    "train_batches",
]

_IN_MEMORY_LIMIT = 2 * 2**30


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
        image_shape=(config.image_size, config.image_size, 3),
        train_split=config.train_split,
        evaluation_split=config.evaluation_split,
        train_examples=len(train),
        evaluation_examples=len(evaluation),
        splits=sources.split_sizes(config, dataset),
        augmentation=config.augmentation,
    )


def train_batches(dataset_config: Any, *, batch_size: int, seed: int, mesh: Mesh) -> Batches:
    """Endless batches of the training split, shuffled anew in every epoch.

    Every epoch takes each image once, over all processes; batches may reach across its end. Global
    batches are the same for any number of devices, processes and workers.

    Args:
      dataset_config: a `DatasetConfig`, or a ConfigDict with its keys.
      batch_size: images in a batch, over all devices and processes.
      seed: decides order and augmentation; in [0, 2**32).
      mesh: devices; the batch is sharded along its axis "data". Its axes count as Auto axes.

    Returns:
      iterator of "image": uint8 (batch_size, image_size, image_size, 3); "label", "index" (the
      position in the split) and further integer features: int32 (batch_size,).

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
    return _batches(dataset_config, None, batch_size=batch_size, seed=seed, mesh=mesh)


def evaluation_batches(
    dataset_config: Any, split: str | None, *, batch_size: int, mesh: Mesh
) -> Batches:
    """One pass over a split, in order.

    All batches are of one size, the smallest with which there are no more of them, so that hardly
    anything is computed for padding. The last is padded with repetitions of the first image, which
    "mask" marks: every process sees the same number of batches and every image counts once.

    Args:
      dataset_config: as for `train_batches`.
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
    return _batches(dataset_config, split, batch_size=batch_size, seed=None, mesh=mesh)


def _batches(
    dataset_config: Any, split: str | None, *, batch_size: int, seed: int | None, mesh: Mesh
) -> Batches:
    config, dataset = resolve(dataset_config)
    axes = f"the axes {mesh.axis_names}"
    check_that("data" in mesh.shape, "mesh", "have an axis 'data'", axes)
    devices = mesh.shape["data"]
    rule = f"be a positive multiple of the {devices} devices along the mesh axis 'data'"
    check_that(batch_size > 0 and batch_size % devices == 0, "batch_size", rule, batch_size)
    # With explicit axes, the type of jax.make_mesh, gathers would need annotations everywhere.
    mesh = Mesh(mesh.devices, mesh.axis_names)
    default = config.evaluation_split if seed is None else config.train_split
    opened = sources.open_split(config, dataset, split or default)
    if not len(opened):
        raise ValueError(f"Split {opened.name!r} of {opened.dataset_name} holds no images.")
    augmentation = "none" if seed is None else config.augmentation
    if seed is None:
        count = -(-len(opened) // batch_size)
        batch_size = -(-len(opened) // (count * devices)) * devices
    in_memory = _fits_in_memory(config, opened, augmentation)
    kind = InMemoryBatches if in_memory else StreamedBatches
    return kind(opened, config, augmentation, batch_size=batch_size, seed=seed, mesh=mesh)


def _fits_in_memory(config: ResolvedConfig, split: sources.Split, augmentation: str) -> bool:
    if not isinstance(config.in_memory, str):
        return config.in_memory
    if split.native_size is None or augmentation == "random_resized_crop":
        return False
    return 3 * len(split) * split.native_size**2 < _IN_MEMORY_LIMIT
