"""The pictures of all variants side by side: Figures 20 to 22 of the paper.

    python -m experiments.figure20_variants --workdirs runs/quickstart

draws a sheet for every data set among the workdirs: a row for each picture, the first of its class,
and a column for each variant: as it is, blurred, median-filtered, with its colours reversed, a
picture of the same class with the texture of another (where the data set draws such pictures), and
stylised (with `--stylized FOLDER`, the copy that `python -m jaxrobust.stylization copy` has
written). Variants are those of figure6_smoothing and table2_variants.

Cost: seconds.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import accuracies, command, trained
from experiments.pictures import Pictures, evaluation_pictures, shown_positions
from jaxrobust import plots
from jaxrobust.data import catalog
from jaxrobust.data.dataset_config import resolve

_NAME = "figure20_variants"
_MOST_PICTURES = 10
SIGMAS = (1.0, 3.0, 5.0)
TIMES = (1, 5)


@dataclasses.dataclass(frozen=True, eq=False)
class Column:
    """One variant of all pictures of a sheet.

    Attributes:
      title: above it.
      group: what it belongs to.
      source: where it comes from, for the table.
      images: float32 (n, h, w, 3) in [0, 1].
    """

    title: str
    group: str
    source: str
    images: np.ndarray


def filtered_columns(pictures: Pictures) -> list[Column]:
    """The pictures as they are and under all filters."""
    variants = [
        *(("Gaussian blur", f"σ = {s:g}", accuracies.blurred(s)) for s in SIGMAS),
        *(("Median filter", _times(times), accuracies.median_filtered(times)) for times in TIMES),
        ("Colours", "reversed", accuracies.reversed_colors()),
    ]
    columns = [Column("standard", "", "the evaluation split", pictures.images)]
    for group, title, variant in variants:
        settings = ", ".join(f"{key}={value}" for key, value in variant.items() if key != "name")
        source = f"{variant['name']}({settings})"
        columns.append(Column(title, group, source, accuracies.filtered(pictures.images, variant)))
    return columns


def _times(times: int) -> str:
    return "once" if times == 1 else f"{times} times"


def other_columns(one: trained.Trained, count: int, stylized: Path | None) -> list[Column]:
    """The cue conflicts and the stylised pictures, as far as there are any, class by class."""
    columns = []
    if accuracies.has_cue_conflict(one):
        found = evaluation_pictures(one.config, count, per_class=True, split="cue_conflict")
        columns.append(Column("cue conflict", "Texture", "the split cue_conflict", found.images))
    if stylized is not None:
        config = ConfigDict({"dataset": accuracies.stylized_dataset(one, stylized)})
        found = evaluation_pictures(config, count, per_class=True)
        columns.append(Column("stylized", "Texture", str(stylized), found.images))
    return columns


def draw(
    columns: Sequence[Column],
    pictures: Pictures,
    positions: Sequence[int],
    *,
    title: str,
    path: Path,
) -> None:
    """The sheet: a row a picture, a column a variant."""
    groups: list[tuple[str, int]] = []
    for column in columns:
        if groups and groups[-1][0] == column.group:
            groups[-1] = (column.group, groups[-1][1] + 1)
        else:
            groups.append((column.group, 1))
    plots.grid(
        [[column.images[position] for column in columns] for position in positions],
        row_titles=[pictures.class_names[pictures.labels[position]] for position in positions],
        column_titles=[column.title for column in columns],
        column_groups=groups,
        title=title,
        note=f"Blur of {accuracies.BLUR_KERNEL} × {accuracies.BLUR_KERNEL} pixels, σ in pixels; "
        f"median filter of {accuracies.MEDIAN_KERNEL} × {accuracies.MEDIAN_KERNEL} pixels; colours "
        "reversed about the mean of ImageNet."
        + (
            " Cue conflict: another picture of the same class, with the texture of another class."
            if any(column.title == "cue conflict" for column in columns)
            else ""
        ),
        path=path,
    )


def as_markdown(title: str, found: dict[str, Any]) -> str:
    """What is on the sheet of one data set."""
    variants = [
        [f"{variant['group']} {variant['title']}".strip(), variant["source"]]
        for variant in found["variants"]
    ]
    drawn = [[one["class"], str(one["index"])] for one in found["drawn"]]
    return "\n".join(
        [
            f"## {title}",
            "",
            accuracies.markdown_table(["column", "from"], variants, left_columns=2),
            "",
            accuracies.markdown_table(["row", "picture of the evaluation split"], drawn),
        ]
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is drawn."""
    accuracies.add_stylized_argument(parser)
    parser.add_argument(
        "--pictures",
        type=command.whole_number(1),
        metavar="N",
        help=f"of different classes (default: one a class, at most {_MOST_PICTURES})",
    )


def examine(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[Path]]:
    """Draws the sheet of every data set; its architectures share it."""
    sheets: dict[tuple[Any, ...], Path] = {}
    architectures: dict[str, Any] = {}
    written, tables = [], []
    for one in trained.find(arguments.workdirs):
        if one.title in architectures:
            continue
        resolved, _ = resolve(one.config.dataset)
        key = resolved.name, resolved.path, resolved.image_size, resolved.resize_size
        if key in sheets:
            architectures[one.title] = {"sheet": str(sheets[key])}
            continue
        title = catalog.get(resolved.name).title
        if any(key[0] == other[0] for other in sheets):
            title += f" ({resolved.image_size} px{', ' + resolved.path if resolved.path else ''})"
        classes = accuracies.number_of_classes(one)
        # The first of each class come first, in every split alike.
        pictures = evaluation_pictures(one.config, classes, per_class=True)
        positions = shown_positions(
            pictures.labels, min(arguments.pictures or _MOST_PICTURES, classes)
        )
        columns = filtered_columns(pictures)
        columns += other_columns(one, classes, arguments.stylized)
        path = sheets[key] = arguments.out / f"{_NAME}_{trained.slug(title)}.png"
        draw(columns, pictures, positions, title=f"Variants of {title}", path=path)
        written.append(path)
        found = architectures[one.title] = {
            "sheet": str(path),
            "dataset": resolved.name,
            "variants": [
                {"group": column.group, "title": column.title, "source": column.source}
                for column in columns
            ],
            "drawn": pictures.described(positions)["drawn"],
        }
        tables.append(as_markdown(title, found))
    page = arguments.out / f"{_NAME}.md"
    heading = "Example pictures of all variants (Figures 20 to 22)"
    written.append(command.write_markdown(page, heading, tables))
    return architectures, written


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the sheets and writes what is on them."""
    command.run(_NAME, argv, document=__doc__, examine=examine, add_arguments=add_arguments)


if __name__ == "__main__":
    main()
