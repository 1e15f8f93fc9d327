"""Opening a split: random access to its encoded images and integer labels."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import pathlib
import re
from collections.abc import Mapping
from typing import Any, Protocol, cast

import grain
from absl import logging

from jaxrobust.core.checks import check_that
from jaxrobust.data import catalog, image_folder
from jaxrobust.data.dataset_config import DatasetConfig


class Records(Protocol):
    """Random access to mappings with an image and integers."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


@dataclasses.dataclass(frozen=True)
class Split:
    """Random access to the records of one split.

    `split[i]` is {"image": encoded bytes or a uint8 array, "index": i, "label": int, …}.

    Attributes:
      dataset_name: name of the data set.
      name: name of the split, for messages.
      records: random access to mappings with an image and integers.
      labels: names of the integer features, "label" first.
      num_classes: number of values of "label".
      class_names: their names; empty if they have none.
      native_size: height and width of all images, in pixels; None where they differ.
      channels: that images are decoded to: 3, or 1, grey.
      files: those that the records are read from, in their order, and how many of each; none where
        every record is a file of its own.
    """

    dataset_name: str
    name: str
    records: Records
    labels: tuple[str, ...]
    num_classes: int
    class_names: tuple[str, ...]
    native_size: int | None
    channels: int
    files: tuple[tuple[str, int], ...] = ()

    def __len__(self) -> int:
        return len(self.records)

    def record(self, index: int) -> Mapping[str, Any]:
        """All that is kept of an image, as `records` has it.

        Raises:
          ValueError: naming the file, when it is damaged.
        """
        try:
            return self.records[index]
        except (RuntimeError, ValueError) as error:  # of array_record, of the record's format
            if not self.files:
                raise
            raise ValueError(
                f"Cannot read {self.describe(index)} from {self._file(index)}, which is damaged "
                f"({_first_line(error)}): delete its folder and prepare the data set again."
            ) from error

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = int(index)
        record = self.record(index)
        label = int(record["label"])
        if not 0 <= label < self.num_classes:
            raise ValueError(
                f"Labels must be in [0, {self.num_classes}), got {label} "
                f"for {self.describe(index)}."
            )
        return {
            "image": record["image"],
            "index": index,
            **{name: int(record[name]) for name in self.labels},
        }

    def describe(self, index: int) -> str:
        """What to call a record in a message."""
        named = getattr(self.records, "describe", None)
        return named(index) if named else f"image {index} of {self.dataset_name} {self.name}"

    def _file(self, index: int) -> str:
        ends = itertools.accumulate(count for _, count in self.files)
        names = (name for name, _ in self.files)
        return next(name for name, end in zip(names, ends, strict=True) if index < end)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def prepare_command(config: DatasetConfig) -> str:
    """The command that prepares a data set."""
    place = f" --data_dir={config.data_dir}" if config.data_dir else ""
    return f"python -m jaxrobust.data.prepare {config.name}{place}"


def open_builder(config: DatasetConfig, dataset: catalog.Dataset) -> Any:
    """The TFDS builder of a data set; prepares it first where the library can do so by itself."""
    if dataset.embedded:
        find_builder(config, dataset).prepare()
    return find_builder(config, dataset)  # reads what there is when it is made


def prepared_folder(config: DatasetConfig, dataset: catalog.Dataset) -> pathlib.Path | None:
    """Where a data set is prepared, None if it is not; prepares nothing."""
    try:
        builder = find_builder(config, dataset)
    except ValueError:
        return None
    if dataset.embedded:
        prepared = builder.is_current()
    else:
        prepared = (
            builder.data_path.exists()
            and builder.is_prepared()
            and builder.info.file_format.value == "array_record"
        )
    return pathlib.Path(builder.data_dir) if prepared else None


def folder(config: DatasetConfig, split: str) -> str:
    """Where the files of a split lie, beside others if need be."""
    if config.path is not None:
        return str(image_folder.find_split(pathlib.Path(config.path).expanduser(), split).resolve())
    return str(find_builder(config, catalog.get(config.name)).data_dir)


def find_builder(config: DatasetConfig, dataset: catalog.Dataset) -> Any:
    """The TFDS builder of a data set, prepared or not.

    Raises:
      ValueError: when the description of one that the library does not make itself is damaged.
    """
    import tensorflow_datasets as tfds

    # Importing these registers their builders.
    from jaxrobust.data import digits, fashion_mnist, textured_shapes, tiny_imagenet

    del digits, fashion_mnist, textured_shapes, tiny_imagenet
    if not dataset.embedded:
        try:
            return tfds.builder(dataset.tfds_name, data_dir=config.data_dir)
        except (OSError, ImportError):
            raise
        except Exception as error:  # of whatever kind TFDS trips over in a description
            place = config.data_dir or "TFDS's folder"
            raise ValueError(
                f"The description of {config.name} in {place} cannot be read "
                f"({_first_line(error)}): delete its folder and run {prepare_command(config)}."
            ) from error
    name, _, builder_config = cast(str, dataset.tfds_name).partition("/")
    kwargs = {"config": builder_config} if builder_config else {}
    return tfds.builder_cls(name)(data_dir=config.data_dir, **kwargs)


def open_split(config: DatasetConfig, dataset: catalog.Dataset, split: str) -> Split:
    """Open a split of a resolved config.

    Args:
      config: what `resolve` returned.
      dataset: likewise.
      split: name of the split, or a sub-split as in "train[:90%]".

    Raises:
      FileNotFoundError: when the data set is not prepared, or the folder is not there.
      ValueError: when the split is unknown, or the data are not what their description says.
    """
    if config.path is not None:  # Given for image_folder, and for it alone.
        records = image_folder.open_split(config.path, split, config.corrupt_images)
        return Split(
            dataset_name=config.name,
            name=split,
            records=records,
            labels=("label",),
            num_classes=len(records.class_names),
            class_names=records.class_names,
            native_size=records.native_size,
            channels=dataset.channels,
        )
    return _open_tfds(config, dataset, split)


def _open_tfds(config: DatasetConfig, dataset: catalog.Dataset, split: str) -> Split:
    import tensorflow_datasets as tfds

    builder = open_builder(config, dataset)
    features = builder.info.features
    decoders = {
        name: tfds.decode.SkipDecoding()
        for name, feature in features.items()
        if isinstance(feature, tfds.features.Image)
    }
    splits = {name: info.num_examples for name, info in builder.info.splits.items()}
    base = re.split(r"[\[+]", split)[0]
    if splits and base not in splits:
        raise ValueError(
            f"Unknown split {split!r} of {config.name}: it must be one of {', '.join(splits)}, "
            "or a part of one, as in 'train[:90%]'."
        )
    try:
        empty = bool(splits) and builder.info.splits[split].num_examples == 0
        records = () if empty else builder.as_data_source(split, decoders=decoders)
    except Exception as error:
        if splits and builder.info.file_format.value == "array_record":
            reason = str(error).splitlines()[0]
            raise ValueError(f"Cannot open split {split!r} of {config.name}: {reason}") from error
        if splits:
            raise FileNotFoundError(
                f"{config.name} in {builder.data_dir} is prepared as "
                f"{builder.info.file_format.value}, which has no random access: prepare it in "
                "another folder, with --data_dir."
            ) from error
        raise FileNotFoundError(
            f"{config.name} is not prepared as array_record in {builder.data_dir}: "
            f"run {prepare_command(config)}."
        ) from error
    check_that(not empty, f"The split {split!r} of {config.name}", "hold at least one image", 0)
    for part in re.findall(r"\w+(?=\[|\+|$)", split) if splits else ():
        info = builder.info.splits[part]
        paths = tuple(map(str, info.filepaths))
        try:
            counted = _count_records(paths)
        except Exception as error:
            raise ValueError(
                f"Cannot open split {part!r} of {config.name}, of whose files {paths[0]} is the "
                f"first ({_first_line(error)}): delete {builder.data_dir} and run "
                f"{prepare_command(config)}."
            ) from error
        if counted != info.num_examples:
            raise ValueError(
                f"{config.name} in {builder.data_dir} holds {counted} records in {part!r} where "
                f"its description states {info.num_examples}: delete it and run "
                f"{prepare_command(config)}."
            )
    _compare_with_catalog(dataset, split, len(records))
    label = features["label"]
    if dataset.num_classes not in (None, label.num_classes):
        raise ValueError(
            f"{config.name} in {builder.data_dir} has {label.num_classes} classes where the "
            f"catalogue expects {dataset.num_classes}."
        )
    labels = ["label"] + [
        name
        for name, feature in features.items()
        if isinstance(feature, tfds.features.ClassLabel) and name != "label"
    ]
    return Split(
        dataset_name=config.name,
        name=split,
        records=records,
        labels=tuple(labels),
        num_classes=label.num_classes,
        class_names=tuple(label.names) if label.names else (),
        native_size=dataset.native_size,
        channels=dataset.channels,
        files=tuple(
            (str(part.filename), part.take)
            for part in (builder.info.splits[split].file_instructions if splits else ())
        ),
    )


@functools.cache
def _count_records(paths: tuple[str, ...]) -> int:
    # TFDS takes its word for the length of a data source; Grain's counts in the files' footers.
    return len(grain.sources.ArrayRecordDataSource(list(paths)))


@functools.cache  # Says it once.
def _compare_with_catalog(dataset: catalog.Dataset, split: str, examples: int) -> None:
    expected = {
        dataset.train_split: dataset.train_examples,
        dataset.evaluation_split: dataset.evaluation_examples,
    }.get(split)
    if expected not in (None, examples):
        logging.warning(
            "%s has %d examples in %r where the catalogue expects %d.",
            dataset.name, examples, split, expected,
        )  # fmt: skip


def split_sizes(config: DatasetConfig, dataset: catalog.Dataset) -> dict[str, int]:
    """Number of images of every split, as far as it is known without reading them."""
    if config.path is not None:
        return {
            name: len(image_folder.open_split(config.path, name, config.corrupt_images))
            for name in image_folder.splits(config.path)
        }
    splits = open_builder(config, dataset).info.splits
    return {name: info.num_examples for name, info in splits.items()}
