"""The keys of `config.dataset`: their defaults, and whether they fit together."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxrobust.core.checks import check_count, check_that
from jaxrobust.core.named import check_choice
from jaxrobust.data import catalog

AUGMENTATIONS = ("none", "flip", "crop", "crop_flip", "random_resized_crop")


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
    """Which data, and how they reach the network.

    Attributes:
      name: a name of `jaxrobust.data.catalog`.
      data_dir: TFDS's folder; None is its default, ~/tensorflow_datasets.
      path: folder of the pictures; for "image_folder" alone.
      image_size: height and width of the network's input in pixels; None is the catalogue's.
      resize_size: length of the shorter side before evaluation's centre crop, in pixels; None is
        image_size where all images have one size, else image_size * 256 / 224, rounded.
      train_split: split to train on, sub-splits as in "train[:90%]" included; None is the
        catalogue's.
      evaluation_split: split to evaluate on, likewise.
      augmentation: "none", "flip", "crop" (zero padding of 4 pixels, random crop), "crop_flip",
        "random_resized_crop" (with flip), or "auto", the catalogue's choice.
      in_memory: whether a split is decoded once into arrays that stay on the devices; "auto" does
        so when its images have one size and take less than 2 GiB.
      workers: number of worker processes that read and decode; 0 uses threads instead. Processes
        need a program that runs through absl.app.run behind a `__main__` guard.
      corrupt_images: what happens to unreadable pictures of a folder: "stop" or "skip".
    """

    name: str = "textured_shapes"
    data_dir: str | None = None
    path: str | None = None
    image_size: int | None = None
    resize_size: int | None = None
    train_split: str | None = None
    evaluation_split: str | None = None
    augmentation: str = "auto"
    in_memory: bool | str = "auto"
    workers: int = 0
    corrupt_images: str = "stop"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResolvedConfig(DatasetConfig):
    """What `resolve` returns: the keys that the catalogue knows are filled in."""

    image_size: int
    train_split: str
    evaluation_split: str


def resolve(dataset_config: Any) -> tuple[ResolvedConfig, catalog.Dataset]:
    """Check a config and fill in what the catalogue knows.

    Args:
      dataset_config: a `DatasetConfig`, ConfigDict or other object with (some of) its attributes.

    Returns:
      the config without any None or "auto" but those of data_dir, path, resize_size and in_memory,
      and the catalogue's entry.

    Raises:
      ValueError: when a value is not among those allowed, or two contradict each other.
    """
    fields = [field.name for field in dataclasses.fields(DatasetConfig)]
    given = {
        name: getattr(dataset_config, name) for name in fields if hasattr(dataset_config, name)
    }
    config = DatasetConfig(**given)
    dataset = catalog.get(config.name)
    filled = {
        "image_size": dataset.image_size if config.image_size is None else config.image_size,
        "train_split": config.train_split or dataset.train_split,
        "evaluation_split": config.evaluation_split or dataset.evaluation_split,
        "augmentation": (
            dataset.augmentation if config.augmentation == "auto" else config.augmentation
        ),
    }
    config = ResolvedConfig(**{**given, **filled})
    if config.in_memory in ("True", "False"):  # as a flag gives it
        config = dataclasses.replace(config, in_memory=config.in_memory == "True")
    _check(config)
    return config, dataset


def _check(config: ResolvedConfig) -> None:
    size, resize_size, name = config.image_size, config.resize_size, config.name
    check_count("dataset.image_size", size)
    rule = f"be at least image_size ({size})"
    check_that(resize_size is None or resize_size >= size, "dataset.resize_size", rule, resize_size)
    check_choice("dataset.augmentation", config.augmentation, ("auto", *AUGMENTATIONS))
    check_choice("dataset.in_memory", config.in_memory, ("auto", True, False))
    check_choice("dataset.corrupt_images", config.corrupt_images, ("stop", "skip"))
    check_count("dataset.workers", config.workers, least=0)
    is_folder = name == "image_folder"
    rule = "be given for image_folder, and for it alone"
    given = config.path is not None
    check_that(is_folder == given, "dataset.path", rule, f"{config.path!r} for {name}")
    stop = is_folder or config.corrupt_images == "stop"
    check_that(stop, "dataset.corrupt_images", f"be 'stop' for {name}", "'skip'")
    fits = config.in_memory is not True or config.augmentation != "random_resized_crop"
    rule = "be 'auto' or False with the augmentation random_resized_crop"
    check_that(fits, "dataset.in_memory", rule, True)
