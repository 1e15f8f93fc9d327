"""The pictures of all variants side by side: Figures 20 to 22 of the paper.

    python -m jaxrobust.experiments.figure20_variants --workdirs runs/quickstart

draws a sheet for every data set among the workdirs: a row for each picture, the first of its class,
and a column for each variant: as it is, blurred, median-filtered, with its colours (if it has any)
reversed, a picture of the same class with the texture of another (where the data set draws such
pictures), and stylised (with `--stylized FOLDER`, the copy that `python -m jaxrobust.stylization
copy` has written). Variants are those of figure6_smoothing and table2_variants.

Cost: seconds.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxrobust import plots
from jaxrobust.data.dataset_config import resolve
from jaxrobust.experiments import accuracies, result, trained
from jaxrobust.experiments.experiment import Experiment, whole_number
from jaxrobust.experiments.pictures import Pictures, evaluation_pictures, shown_positions

_MOST_PICTURES = 10
FILTERS = (
    ("Gaussian blur", "σ = 1", accuracies.blurred(1)),
    ("Gaussian blur", "σ = 3", accuracies.blurred(3)),
    ("Gaussian blur", "σ = 5", accuracies.blurred(5)),
    ("Median filter", "once", accuracies.median_filtered(1)),
    ("Median filter", "5 times", accuracies.median_filtered(5)),
    ("Colours", "reversed", accuracies.reversed_colors()),
)


class Column(NamedTuple):
    """One variant of all pictures of a sheet; `source` says where it comes from."""

    group: str
    title: str
    source: str
    images: np.ndarray  # float32 (n, h, w, c) in [0, 1]


def columns(training: trained.Trained, pictures: Pictures, stylized: Path | None) -> list[Column]:
    """Pictures, one a class, as they are, filtered, and as cue conflicts and stylised if possible.

    Args:
      training: a training on the data set of the pictures.
      pictures: the first of each class, as all splits have them.
      stylized: the stylised copy, if there is one.
    """
    made = [Column("", "standard", "the evaluation split", pictures.images)]
    for group, title, variant in FILTERS:
        if group == "Colours" and pictures.images.shape[-1] == 1:
            continue  # grey has none
        settings = ", ".join(f"{key}={value}" for key, value in variant.items() if key != "name")
        images = accuracies.filtered(pictures.images, variant)
        made.append(Column(group, title, f"{variant['name']}({settings})", images))
    textures = []
    if accuracies.has_cue_conflict(training):
        textures.append(("cue conflict", "the split cue_conflict", training.config, "cue_conflict"))
    if stylized is not None:
        config = ConfigDict({"dataset": accuracies.stylized_dataset(training, stylized)})
        textures.append(("stylized", str(stylized), config, None))
    for title, source, config, split in textures:
        drawn = evaluation_pictures(config, len(pictures), per_class=True, split=split)
        made.append(Column("Texture", title, source, drawn.images))
    return made


def draw(
    sheet: Sequence[Column],
    pictures: Pictures,
    positions: Sequence[int],
    *,
    title: str,
    path: Path,
) -> None:
    """The sheet: a row a picture, a column a variant."""
    note = f"{accuracies.FILTERS_NOTE}."
    if any(column.group == "Colours" for column in sheet):
        note += " Colours are reversed about the mean of ImageNet."
    if any(column.title == "cue conflict" for column in sheet):
        note += (
            " Cue conflict: another picture of the same class, with the texture of another class."
        )
    groups = itertools.groupby(column.group for column in sheet)
    plots.grid(
        [[column.images[position] for column in sheet] for position in positions],
        row_titles=[pictures.class_names[pictures.labels[position]] for position in positions],
        column_titles=[column.title for column in sheet],
        column_groups=[(group, len(list(members))) for group, members in groups],
        title=title,
        note=note,
        path=path,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is drawn."""
    accuracies.add_stylized_argument(parser)
    parser.add_argument(
        "--pictures",
        type=whole_number(1),
        metavar="N",
        help=f"of different classes (default: one a class, at most {_MOST_PICTURES})",
    )


def run(arguments: argparse.Namespace) -> result.Result:
    """Draws the sheet of every data set; its architectures share it."""
    sheets: dict[tuple[Any, ...], str] = {}
    findings: dict[str, result.Finding] = {}
    parts: list[result.Part] = []
    for training in trained.find(arguments.workdirs):
        if training.title in findings:
            continue
        resolved, dataset = resolve(training.config.dataset)
        key = resolved.name, resolved.path, resolved.image_size, resolved.resize_size
        if key in sheets:
            findings[training.title] = result.Finding({"sheet": sheets[key]})
            continue
        title = dataset.title
        if any(key[0] == kept[0] for kept in sheets):
            title += f" ({resolved.image_size} px{', ' + resolved.path if resolved.path else ''})"
        classes = accuracies.number_of_classes(training)
        pictures = evaluation_pictures(training.config, classes, per_class=True)
        count = min(arguments.pictures or _MOST_PICTURES, classes)
        positions = shown_positions(pictures.labels, count)
        sheet = columns(training, pictures, arguments.stylized)
        figure = result.Figure(
            f"figure20_variants_{trained.slug(title)}.png", f"Variants of {title}"
        )
        path = arguments.out / figure.file
        draw(sheet, pictures, positions, title=figure.caption, path=path)
        sheets[key] = str(path)
        drawn = pictures.described(positions)["drawn"]
        variants = [
            dict(zip(("group", "title", "source"), column, strict=False)) for column in sheet
        ]
        findings[training.title] = result.Finding(
            {"sheet": str(path), "dataset": resolved.name, "variants": variants, "drawn": drawn}
        )
        rows = ", ".join(f"{picture['index']} ({picture['class']})" for picture in drawn)
        parts += [
            result.Table(
                ["column", "from"],
                [[f"{column.group} {column.title}".strip(), column.source] for column in sheet],
                caption=title,
                left=2,
            ),
            result.Text(f"Rows: pictures {rows} of the evaluation split."),
            figure,
        ]
    return result.Result(findings, parts)


EXPERIMENT = Experiment(
    name="figure20_variants",
    title="Figures 20 to 22: the pictures of all variants",
    short="Figure 20",
    paper="examples of the pictures that were shown to the networks.",
    run=run,
    document=__doc__,
    add_arguments=add_arguments,
)

if __name__ == "__main__":
    EXPERIMENT.main()
