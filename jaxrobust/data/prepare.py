"""Prepare a data set: `python -m jaxrobust.data.prepare DATASET [--data_dir=…]`.

The catalogue's TFDS data sets are downloaded and written as array_record, which needs TensorFlow
once: `pip install "jaxrobust[prepare]"`. Tiny ImageNet, Fashion-MNIST and the library's own data
sets need nothing.
`--list` instead of a data set says which are prepared.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxrobust.core.interrupts import terminable
from jaxrobust.data import catalog, sources
from jaxrobust.data.dataset_config import DatasetConfig, resolve
from jaxrobust.data.decode import decode
from jaxrobust.data.embedded import only_preparation, remove_abandoned
from jaxrobust.data.textured_shapes import TexturedShapes

# Archives that have to be downloaded by hand: all of the inner tuples, one name of each.
_BY_HAND = {
    "imagenet2012": (
        (("ILSVRC2012_img_train.tar",), ("ILSVRC2012_img_val.tar",)),
        "https://image-net.org/download-images (registration required)",
    ),
    "tiny_imagenet": (
        (("tiny-imagenet-200.zip", "tiny-imagenet-200"),),
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    ),
}


_ABANDONED = 24 * 3600.0  # seconds without a change: TFDS downloads beside the folder
_FEW_CLASSES = 10  # no more are counted one by one


def prepare(
    name: str, *, data_dir: str | None = None, manual_dir: str | None = None
) -> dict[str, int]:
    """Prepare a data set of the catalogue and check the result.

    Args:
      name: name in the catalogue.
      data_dir: TFDS's folder; None is its default, ~/tensorflow_datasets.
      manual_dir: folder of archives downloaded by hand; None is data_dir/downloads/manual.

    Returns:
      number of images of every split, counted in the files.

    Raises:
      ValueError: when the name is unknown, or what was written is not what its description says.
      FileNotFoundError: when an archive that has to be downloaded by hand is not in place.
      ModuleNotFoundError: when TensorFlow is needed and not installed.
    """
    dataset = catalog.get(name)
    if dataset.tfds_name is None:
        raise ValueError(f"{name} is read as it is and needs no preparation.")
    config, _ = resolve(DatasetConfig(name=name, data_dir=data_dir))
    builder = sources.open_builder(config, dataset)
    folder = pathlib.Path(builder.data_dir).parent
    # TFDS's own programs may prepare there too, and do not know our lock.
    remove_abandoned(folder, untouched=_ABANDONED)
    if not (builder.data_path.exists() and builder.is_prepared()):
        missing = _missing_archives(name, builder, manual_dir)
        if missing:
            raise FileNotFoundError(f"Place {missing}.")
        if hasattr(builder, "prepare"):
            builder.prepare(manual_dir=manual_dir)
        else:
            with only_preparation(name, folder):
                _prepare_with_tensorflow(name, builder, manual_dir)
    return _check(config, dataset)


def instructions(name: str, *, data_dir: str | None = None) -> str:
    """How to prepare a data set: the command, and before it the archives that are still missing.

    Args:
      name: name in the catalogue.
      data_dir: as for `prepare`.

    Example:
      >>> instructions("cifar10")
      'python -m jaxrobust.data.prepare cifar10'
    """
    config, dataset = resolve(DatasetConfig(name=name, data_dir=data_dir))
    command = sources.prepare_command(config)
    missing = _missing_archives(name, sources.find_builder(config, dataset), None)
    return f"place {missing}, then {command}" if missing else command


def prepared(*, data_dir: str | None = None) -> dict[str, pathlib.Path | None]:
    """Folders of all data sets that can be prepared; None for those that are not."""
    names = {name: [name] for name in catalog.names() if catalog.get(name).tfds_name}
    builder_configs = TexturedShapes.BUILDER_CONFIGS
    names["textured_shapes"] = [f"textured_shapes/{config.name}" for config in builder_configs]
    folders = {}
    for name in itertools.chain(*names.values()):
        config, dataset = resolve(DatasetConfig(name=name, data_dir=data_dir))
        folders[name] = sources.prepared_folder(config, dataset)
    return folders


def _missing_archives(name: str, builder: Any, manual_dir: str | None) -> str:
    archives, origin = _BY_HAND.get(name, ((), ""))
    default = pathlib.Path(builder.data_dir_root) / "downloads" / "manual"
    folder = pathlib.Path(manual_dir) if manual_dir else default
    missing = [names[0] for names in archives if not any((folder / n).exists() for n in names)]
    return f"{' and '.join(missing)} from {origin} in {folder}" if missing else ""


def _prepare_with_tensorflow(name: str, builder: Any, manual_dir: str | None) -> None:
    if importlib.util.find_spec("tensorflow") is None:
        raise ModuleNotFoundError(
            f"Preparing {name} needs TensorFlow, once: "
            'run pip install "jaxrobust[prepare]" and try again.'
        )
    import tensorflow_datasets as tfds

    builder.download_and_prepare(
        file_format="array_record",
        download_config=tfds.download.DownloadConfig(manual_dir=manual_dir),
    )


def _check(config: DatasetConfig, dataset: catalog.Dataset) -> dict[str, int]:
    sizes = {}
    for split in sources.split_sizes(config, dataset):
        # Opening compares the number of records with the description and the catalogue.
        opened = sources.open_split(config, dataset, split)
        decode(opened.records[0]["image"], name=opened.describe(0), channels=opened.channels)
        sizes[split] = len(opened)
    return sizes


def _by_class(name: str, split: str, data_dir: str | None) -> str:
    """How many images of which class, where there are few classes; only what is trained on or
    evaluated on is known to have labels."""
    config, dataset = resolve(DatasetConfig(name=name, data_dir=data_dir))
    if split not in (dataset.train_split, dataset.evaluation_split):
        return ""
    opened = sources.open_split(config, dataset, split)
    if opened.num_classes > _FEW_CLASSES:
        return ""
    labels = [opened[index]["label"] for index in range(len(opened))]
    counts = np.bincount(labels, minlength=opened.num_classes)
    names = opened.class_names or range(opened.num_classes)
    shown = (f"{name}: {count:,}" for name, count in zip(names, counts, strict=True))
    return f" ({', '.join(shown)})"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m jaxrobust.data.prepare", description=__doc__)
    names = ", ".join(name for name in catalog.names() if catalog.get(name).tfds_name)
    parser.add_argument("dataset", metavar="DATASET", nargs="?", help=names)
    parser.add_argument("--list", action="store_true", help="say what is prepared, and where")
    parser.add_argument("--data_dir", help="TFDS's folder (default: ~/tensorflow_datasets)")
    parser.add_argument("--manual_dir", help="archives downloaded by hand (default: in data_dir)")
    options = parser.parse_args(arguments)
    if options.list == (options.dataset is not None):
        parser.error("give either DATASET or --list.")
    if options.list:
        for name, folder in prepared(data_dir=options.data_dir).items():
            print(f"{name}: {folder or 'not prepared'}")
        return
    name, data_dir = options.dataset, options.data_dir
    try:
        with terminable():
            sizes = prepare(name, data_dir=data_dir, manual_dir=options.manual_dir)
            for split, size in sizes.items():
                print(f"{split}: {size:,} images{_by_class(name, split, data_dir)}")
    except KeyboardInterrupt:
        raise SystemExit("Interrupted; the same command begins anew.") from None
    except (ValueError, OSError, ModuleNotFoundError) as error:
        raise SystemExit(f"{parser.prog}: {error}") from error


if __name__ == "__main__":
    main()
