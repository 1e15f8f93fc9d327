"""The ten data sets as they are prepared here, beside the paper's figures: Table 3 of the paper.

    python -m experiments.table3_datasets --data-dir ~/tensorflow_datasets

counts training images and classes, measures the pictures of every data set that is prepared, and
names what differs from the paper; of the others it says how to prepare them. Below a rule are the
library's own data sets, as far as they have been made. A sheet shows a picture of each as a network
of the paper's input size is given it.

"Pixels" is the mean of (height + width) / 2 over all images of the evaluation split, read from
their headers: nothing is decoded. Where the paper has ≈, up to 2 % beside its figure count as
equal. (Its ≈ 549 for Food-101 cannot be such a mean: these pictures were published with at most 512
pixels on a side.)

Cost: reading all evaluation images once, about 10 GB for all ten: a minute from a fast disk.
"""

import argparse
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments import command
from experiments.accuracies import markdown_table
from jaxrobust import plots
from jaxrobust.core.files import write_text
from jaxrobust.data import catalog, prepare, sources
from jaxrobust.data.dataset_config import DatasetConfig, resolve
from jaxrobust.data.transforms import HostTransform

_NAME = "table3_datasets"
COLUMNS = {"pixels": "pixels", "classes": "classes", "train": "training images"}
# Pixels, classes, training images.
PAPER = {
    "svhn_cropped": (32, 10, 73_257),
    "cifar10": (32, 10, 50_000),
    "cifar100": (32, 100, 50_000),
    "tiny_imagenet": (64, 200, 100_000),
    "stl10": (96, 10, 5_000),
    "food101": (549, 101, 75_750),
    "oxford_flowers102": (583, 102, 1_020),
    "stanford_dogs": (414, 120, 12_000),
    "caltech_birds2011": (426, 200, 5_994),
    "imagenet2012": (460, 1_000, 1_281_167),
}
_TOLERANCE = 0.02  # of the pixels where the paper has ≈
_PICTURES_A_STEP = 100
_PICTURES_A_ROW = 5


def measure(name: str, data_dir: str | None) -> dict[str, Any]:
    """What is found of a data set.

    Args:
      name: in the catalogue.
      data_dir: TFDS's folder; None is its default.

    Returns:
      "title", and one of "prepare": how to prepare it; "error": why it cannot be used; "found":
      "pixels", "height", "width" (means over the evaluation images), "classes", "train" and
      "evaluation" (numbers of images), with "differences": sentences on what else was expected.
    """
    config, dataset = resolve(DatasetConfig(name=name, data_dir=data_dir))
    try:
        train = sources.open_split(config, dataset, config.train_split)
        evaluation = sources.open_split(config, dataset, config.evaluation_split)
        height, width = _sizes(evaluation, dataset.title).mean(0).tolist()
    except FileNotFoundError:
        return {"title": dataset.title, "prepare": prepare.instructions(name, data_dir=data_dir)}
    except ValueError as error:
        return {"title": dataset.title, "error": str(error)}
    found = {
        "pixels": (height + width) / 2,
        "height": height,
        "width": width,
        "classes": train.num_classes,
        "train": len(train),
        "evaluation": len(evaluation),
    }
    return {"title": dataset.title, "found": found, "differences": differences(name, found)}


def _sizes(split: sources.Split, title: str) -> np.ndarray:
    """Height and width of all images, (n, 2)."""
    progress = command.Steps(title, -(-len(split) // _PICTURES_A_STEP), images=_PICTURES_A_STEP)
    sizes = np.zeros((len(split), 2))
    for index in range(len(split)):
        try:
            with Image.open(io.BytesIO(split.records[index]["image"])) as picture:
                sizes[index] = picture.height, picture.width
        except OSError as error:
            raise ValueError(f"Cannot read the size of {split.describe(index)}.") from error
        if (index + 1) % _PICTURES_A_STEP == 0 or index + 1 == len(split):
            progress.step()
    progress.close(f"{title}: {len(split):,} pictures in {progress.elapsed:.1f} s")
    return sizes


def differences(name: str, found: Mapping[str, float]) -> list[str]:
    """Sentences on what the paper, or else the catalogue, expects of a data set.

    Example:
      >>> cifar10 = {"pixels": 32.0, "classes": 10, "train": 45_000, "evaluation": 10_000}
      >>> differences("cifar10", cifar10)
      ['CIFAR-10 has 45,000 training images where the paper has 50,000.']
    """
    dataset = catalog.get(name)
    own = (dataset.native_size, dataset.num_classes, dataset.train_examples)
    columns = COLUMNS | {"evaluation": "evaluation images"}
    sentences = []
    for key, expected in zip(
        columns, (*PAPER.get(name, own), dataset.evaluation_examples), strict=True
    ):
        approximate = key == "pixels" and dataset.native_size is None
        if abs(found[key] - expected) > (_TOLERANCE * expected if approximate else 0):
            whose = "paper" if name in PAPER and key in COLUMNS else "catalogue"
            sentences.append(
                f"{dataset.title} has {_shown(name, key, found[key])} {columns[key]} where the "
                f"{whose} has {_shown(name, key, expected)}."
            )
    return sentences


def _shown(name: str, column: str, value: float | None) -> str:
    if value is None:
        return "—"
    rounded = column == "pixels" and catalog.get(name).native_size is None
    return f"≈ {value:.0f}" if rounded else f"{value:,.4g}" if value % 1 else f"{value:,.0f}"


def example(name: str, data_dir: str | None, image_size: int) -> tuple[np.ndarray, str]:
    """The first evaluation image as a network is given it, and what to write under it."""
    config, dataset = resolve(DatasetConfig(name=name, data_dir=data_dir, image_size=image_size))
    split = sources.open_split(config, dataset, config.evaluation_split)
    transform = HostTransform.create(split, config, "none")
    record = split[0]
    with Image.open(io.BytesIO(record["image"])) as picture:
        caption = f"{dataset.title}\nfrom {picture.height} × {picture.width}"
    # Asked for, not used: nothing is augmented.
    return transform(record, np.random.default_rng(0))["image"], caption


def as_markdown(datasets: Mapping[str, dict[str, Any]]) -> str:
    """The tables, what differs, and how to prepare what is missing."""
    header = ["Data set"]
    for title in COLUMNS.values():
        header += [title.capitalize(), "paper"]
    rows = [
        [datasets[name]["title"], *_cells(name, datasets[name].get("found", {}))] for name in PAPER
    ]
    parts = [markdown_table([*header, "Evaluation images"], rows)]
    for key, heading in (
        ("differences", "Differences:"),
        ("error", "Cannot be used:"),
        ("prepare", "Not prepared:"),
    ):
        lines = [f"- {line}" for one in datasets.values() for line in _lines(one, key)]
        if lines:
            parts.append("\n".join([heading, "", *lines]))
    own = [
        [one["title"], *_cells(name, one["found"], paper=False)]
        for name, one in datasets.items()
        if name not in PAPER and "found" in one
    ]
    if any("prepare" in one for one in datasets.values()):
        extra = '`pip install "jaxrobust[prepare]"`'
        parts.append(f"All of these commands but that of Tiny ImageNet need {extra}.")
    parts.append("---")
    if own:
        header = ["The library's own", *(title.capitalize() for title in COLUMNS.values())]
        parts.append(markdown_table([*header, "Evaluation images"], own))
    parts.append(
        "The library makes its own data sets (textured_shapes, digits) when they are used."
    )
    return "\n\n".join(parts)


def _lines(one: Mapping[str, Any], key: str) -> list[str]:
    if key == "differences":
        return one.get(key, [])
    return [f"{one['title']}: {one[key]}"] if key in one else []


def _cells(name: str, found: Mapping[str, float], *, paper: bool = True) -> list[str]:
    cells = []
    for index, column in enumerate(COLUMNS):
        cells.append(_shown(name, column, found.get(column)))
        if paper:
            cells.append(_shown(name, column, PAPER[name][index]))
    return [*cells, _shown(name, "evaluation", found.get("evaluation"))]


def draw(examples: Sequence[tuple[np.ndarray, str]], *, image_size: int, path: Path) -> None:
    """The sheet of pictures."""
    rows = [
        examples[start : start + _PICTURES_A_ROW]
        for start in range(0, len(examples), _PICTURES_A_ROW)
    ]
    wide = len(rows[0])
    padded = [[*row, *[(None, "")] * (wide - len(row))] for row in rows]
    plots.grid(
        [[picture for picture, _ in row] for row in padded],
        captions=[[caption for _, caption in row] for row in padded],
        title="The data sets",
        note=f"First evaluation images, as a network of {image_size} px is given them.",
        path=path,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments beside those of all experiments."""
    parser.add_argument(
        "--data-dir", metavar="FOLDER", help="TFDS's folder (default: ~/tensorflow_datasets)"
    )
    parser.add_argument(
        "--image-size",
        type=command.whole_number(1),
        default=224,
        metavar="PIXELS",
        help="of the pictures on the sheet (default: %(default)s)",
    )


def examine(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[Path]]:
    """Measures the paper's data sets and the library's own as far as they are prepared."""
    prepared = prepare.prepared(data_dir=arguments.data_dir)
    names = [name for name, folder in prepared.items() if name in PAPER or folder]
    datasets = {name: measure(name, arguments.data_dir) for name in names}
    text = as_markdown(datasets)
    print(text)
    written = [arguments.out / f"{_NAME}.md"]
    write_text(written[0], f"# The data sets (Table 3)\n\n{text}\n")
    usable = [name for name, one in datasets.items() if "found" in one]
    if usable:
        written.append(arguments.out / f"{_NAME}.png")
        examples = [example(name, arguments.data_dir, arguments.image_size) for name in usable]
        draw(examples, image_size=arguments.image_size, path=written[1])
    for name, one in datasets.items():
        if name in PAPER:
            one["paper"] = dict(zip(COLUMNS, PAPER[name], strict=True))
    return datasets, written


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the sheet and writes what was found."""
    command.run(
        _NAME, argv, document=__doc__, examine=examine, add_arguments=add_arguments, workdirs=None
    )


if __name__ == "__main__":
    main()
