"""The ten data sets as they are prepared here, beside the paper's figures: Table 3 of the paper.

    python -m jaxrobust.experiments.table3_datasets --data-dir ~/tensorflow_datasets

counts training images and classes, measures the pictures of every data set that is prepared, and
names what differs from the paper; of the others it says how to prepare them. Data sets that are not
the paper's follow, as far as they are prepared. A sheet shows a picture of each as a network of the
paper's input size is given it.

"Pixels" is the mean of (height + width) / 2 over all images of the evaluation split, read from
their headers: nothing is decoded. Where the paper has ≈, up to 2 % beside its figure count as
equal. (Its ≈ 549 for Food-101 cannot be such a mean: these pictures were published with at most 512
pixels on a side.)

Cost: reading all evaluation images once, about 10 GB for all ten: a minute from a fast disk.
"""

import argparse
import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxrobust import plots
from jaxrobust.core.logs import Progress
from jaxrobust.data import catalog, prepare, sources
from jaxrobust.data.dataset_config import DatasetConfig, resolve
from jaxrobust.data.transforms import HostTransform
from jaxrobust.experiments import result
from jaxrobust.experiments.experiment import Experiment, whole_number

COLUMNS = {
    "pixels": "pixels",
    "classes": "classes",
    "train": "training images",
    "evaluation": "evaluation images",
}
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
    progress = Progress(title, len(split), steps="pictures")
    sizes = np.zeros((len(split), 2))
    for index in range(len(split)):
        try:
            with Image.open(io.BytesIO(split.record(index)["image"])) as picture:
                sizes[index] = picture.height, picture.width
        except OSError as error:
            raise ValueError(f"Cannot read the size of {split.describe(index)}.") from error
        if (index + 1) % _PICTURES_A_STEP == 0:
            progress.step(_PICTURES_A_STEP)
    progress.close(f"{title}: {len(split):,} pictures in {progress.elapsed:.1f} s")
    return sizes


def differences(name: str, measured: Mapping[str, float]) -> list[str]:
    """Sentences on what the paper, or else the catalogue, expects of a data set.

    Example:
      >>> cifar10 = {"pixels": 32.0, "classes": 10, "train": 45_000, "evaluation": 10_000}
      >>> differences("cifar10", cifar10)
      ['CIFAR-10 has 45,000 training images where the paper has 50,000.']
    """
    dataset = catalog.get(name)
    own = (dataset.native_size, dataset.num_classes, dataset.train_examples)
    expected = (*PAPER.get(name, own), dataset.evaluation_examples)
    sentences = []
    for column, value in zip(COLUMNS, expected, strict=True):
        approximate = column == "pixels" and dataset.native_size is None
        if abs(measured[column] - value) > (_TOLERANCE * value if approximate else 0):
            whose = "paper" if name in PAPER and column != "evaluation" else "catalogue"
            sentences.append(
                f"{dataset.title} has {_shown(name, column, measured[column])} {COLUMNS[column]} "
                f"where the {whose} has {_shown(name, column, value)}."
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


def tables(datasets: Mapping[str, dict[str, Any]]) -> list[result.Part]:
    """The tables, what differs, and how to prepare what is missing."""

    def row(name: str) -> list[str]:
        measured = datasets[name].get("found", {})
        cells = [datasets[name]["title"]]
        for column, of_paper in itertools.zip_longest(COLUMNS, PAPER.get(name, ())):
            cells.append(_shown(name, column, measured.get(column)))
            if of_paper is not None:
                cells.append(_shown(name, column, of_paper))
        return cells

    header = ["Pixels", "Classes", "Training images", "Evaluation images"]
    with_paper = [text for title in header for text in (title, "paper")][:-1]
    shown: list[result.Part] = [result.Table(["Data set", *with_paper], [*map(row, PAPER)])]
    extra = '`pip install "jaxrobust[prepare]"`'
    for key, heading in (
        ("differences", "Differences:"),
        ("error", "Cannot be used:"),
        ("prepare", f"Not prepared (all of these but Tiny ImageNet need {extra}):"),
    ):
        sentences: list[str] = []
        for dataset in datasets.values():
            said = dataset.get(key, [])
            sentences += [f"{dataset['title']}: {said}"] if isinstance(said, str) else said
        if sentences:
            shown += [result.Text(heading), result.Notes(sentences)]
    others = [name for name, found in datasets.items() if name not in PAPER and "found" in found]
    if others:
        shown.append(result.Table(["Not the paper's", *header], [*map(row, others)]))
    made = "The library makes its own data sets (textured_shapes, digits) when they are used."
    return [*shown, result.Text(made)]


def draw(examples: Sequence[tuple[Any, str]], *, image_size: int, title: str, path: Path) -> None:
    """The sheet of pictures with what to write under them."""
    wide = min(len(examples), _PICTURES_A_ROW)
    padded = [*examples, *[(None, "")] * (-len(examples) % wide)]
    rows = [padded[start : start + wide] for start in range(0, len(padded), wide)]
    plots.grid(
        [[picture for picture, _ in row] for row in rows],
        captions=[[caption for _, caption in row] for row in rows],
        title=title,
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
        type=whole_number(1),
        default=224,
        metavar="PIXELS",
        help="of the pictures on the sheet (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> result.Result:
    """Measures the paper's data sets, and the others as far as they are prepared."""
    prepared = prepare.prepared(data_dir=arguments.data_dir)
    names = [name for name, folder in prepared.items() if name in PAPER or folder]
    datasets = {name: measure(name, arguments.data_dir) for name in names}
    shown = tables(datasets)
    examples = [
        example(name, arguments.data_dir, arguments.image_size)
        for name, dataset in datasets.items()
        if "found" in dataset
    ]
    if examples:
        figure = result.Figure("table3_datasets.png", "The data sets")
        path = arguments.out / figure.file
        draw(examples, image_size=arguments.image_size, title=figure.caption, path=path)
        shown.append(figure)
    for name, figures in PAPER.items():
        datasets[name]["paper"] = dict(zip(COLUMNS, figures, strict=False))
    findings = {name: result.Finding(dataset) for name, dataset in datasets.items()}
    return result.Result(findings, shown)


EXPERIMENT = Experiment(
    name="table3_datasets",
    title="Table 3: the data sets",
    short="Table 3",
    paper="ten data sets of different resolutions, for late fusion.",
    run=run,
    document=__doc__,
    add_arguments=add_arguments,
    workdirs=None,
)

if __name__ == "__main__":
    EXPERIMENT.main()
