"""The keys of `config.dataset`: their defaults, and whether they fit together."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any

from jaxrobust.data import catalog

AUGMENTATIONS = ("none", "flip", "crop_flip", "random_resized_crop")


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
    """Which data, and how they reach the network.

    Attributes:
        name: A name of `jaxrobust.data.catalog`.
        data_dir: TFDS's folder; None is its default, ~/tensorflow_datasets.
        path: Folder of the pictures; for "image_folder" alone.
        image_size: Height and width of the network's input in pixels; None is the catalogue's.
        resize_size: Evaluation: length of the shorter side before the centre crop, in pixels; None
            is image_size where all images have one size, else image_size * 256 / 224, rounded.
        train_split: Split to train on, sub-splits as in "train[:90%]" included; None is the
            catalogue's.
        evaluation_split: Split to evaluate on, likewise.
        augmentation: "none", "flip", "crop_flip" (zero padding of 4 pixels, random crop, flip),
            "random_resized_crop" (with flip), or "auto", the catalogue's choice.
        in_memory: Whether a split is decoded once into arrays that stay on the devices; "auto" does
            so when its images have one size and take less than 2 GiB.
        workers: Number of worker processes that read and decode; 0 uses threads instead. Processes
            need a program that runs through absl.app.run behind a `__main__` guard.
        corrupt_images: What happens to unreadable pictures of a folder: "stop" or "skip".
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
    """Checks a config and fills in what the catalogue knows.

    Args:
        dataset_config: A `DatasetConfig`, ConfigDict or other object with (some of) its attributes.

    Returns:
        The config without any None or "auto" but those of data_dir, path, resize_size and
        in_memory, and the catalogue's entry.

    Raises:
        ValueError: A value is not among those allowed, or two contradict each other.
    """
    fields = [field.name for field in dataclasses.fields(DatasetConfig)]
    given = {
        name: getattr(dataset_config, name) for name in fields if hasattr(dataset_config, name)
    }
    config = DatasetConfig(**given)
    dataset = catalog.get(config.name)
    known = {
        "image_size": dataset.image_size if config.image_size is None else config.image_size,
        "train_split": config.train_split or dataset.train_split,
        "evaluation_split": config.evaluation_split or dataset.evaluation_split,
        "augmentation": (
            dataset.augmentation if config.augmentation == "auto" else config.augmentation
        ),
    }
    config = ResolvedConfig(**{**given, **known})
    if not isinstance(config.image_size, int) or config.image_size < 1:
        raise ValueError(
            f"dataset.image_size must be a positive integer, got {config.image_size!r}."
        )
    if config.resize_size is not None and config.resize_size < config.image_size:
        raise ValueError(
            f"dataset.resize_size must be at least image_size ({config.image_size}), "
            f"got {config.resize_size}."
        )
    _check_choice("augmentation", config.augmentation, ("auto", *AUGMENTATIONS))
    if config.in_memory in ("True", "False"):  # as a flag gives it
        config = dataclasses.replace(config, in_memory=config.in_memory == "True")
    _check_choice("in_memory", config.in_memory, ("auto", True, False))
    _check_choice("corrupt_images", config.corrupt_images, ("stop", "skip"))
    if not isinstance(config.workers, int) or config.workers < 0:
        raise ValueError(
            f"dataset.workers must be an integer of at least 0, got {config.workers!r}."
        )
    is_folder = config.name == "image_folder"
    if is_folder != (config.path is not None):
        raise ValueError(
            f"dataset.path must be given for image_folder, and for it alone; got {config.path!r} "
            f"for {config.name}."
        )
    if config.corrupt_images == "skip" and not is_folder:
        raise ValueError(f"dataset.corrupt_images must be 'stop' for {config.name}, got 'skip'.")
    if config.in_memory is True and config.augmentation == "random_resized_crop":
        raise ValueError(
            "dataset.in_memory must be 'auto' or False with the augmentation random_resized_crop, "
            "got True."
        )
    return config, dataset


def _check_choice(key: str, value: Any, choices: Sequence[Any]) -> None:
    if value not in choices:
        near = difflib.get_close_matches(str(value), [str(c) for c in choices], n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(
            f"dataset.{key} must be one of {', '.join(map(repr, choices))}, got {value!r}{hint}."
        )
