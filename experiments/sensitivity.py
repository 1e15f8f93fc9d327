"""Sensitivity maps by any method, compared and drawn: what experiments on maps share."""

import argparse
import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import command, trained
from experiments.pictures import Pictures
from jaxrobust import Classifier, map_metrics, plots, saliency
from jaxrobust.core import batching

TITLES = {
    "vanilla_gradient": "Vanilla gradient",
    "loss_gradient": "Loss gradient",
    "guided_backprop": "Guided backprop",
    "smoothgrad": "SmoothGrad",
    "integrated_gradients": "Integrated gradients",
    "input_times_gradient": "Input × gradient",
    "grad_cam": "Grad-CAM",
    "guided_grad_cam": "Guided Grad-CAM",
}
RUNS = {"random": "Random", "std": "STD", "adv": "ADV"}
SIMILARITIES: dict[str, Callable[[Any, Any], Any]] = {
    "ssim": map_metrics.structural_similarity,
    "rank_correlation": map_metrics.rank_correlation,
    "hog": map_metrics.hog_similarity,
    "signed_rank_correlation": functools.partial(map_metrics.rank_correlation, signed=True),
}
SIMILARITY_TITLES = {
    "ssim": "SSIM",
    "rank_correlation": "Rank correlation",
    "hog": "HOG",
    "signed_rank_correlation": "Signed rank corr.",
}
# Those that decide claim 8, and are drawn.
MAIN_SIMILARITIES = ("ssim", "rank_correlation")
NOTE = "Each map on its own scale, clipped at ±3 standard deviations; mid-grey is zero."


def add_arguments(parser: argparse.ArgumentParser, images: int) -> None:
    """The arguments of experiments on maps; `images` is how many they measure by default."""
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=methods(),
        default=list(saliency.PAPER_METHODS),
        metavar="METHOD",
        help=f"of {', '.join(methods())} (default: the paper's, the first five)",
    )
    parser.add_argument(
        "--images",
        type=command.whole_number(1),
        default=images,
        metavar="N",
        help="measured, evenly over the classes (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=command.whole_number(0), default=0, metavar="N", help="of noise (default: 0)"
    )
    parser.add_argument(
        "--batch-size",
        type=command.whole_number(1),
        metavar="N",
        help="images x samples at once (default: 32 of 224 x 224 pixels)",
    )


def methods() -> dict[str, Callable[..., jax.Array]]:
    """All methods of `jaxrobust.saliency` by name, the paper's first."""
    others = {name: getattr(saliency, name) for name in saliency.__all__ if name.islower()}
    return saliency.PAPER_METHODS | others


def method_title(name: str) -> str:
    """How a method is written.

    Example:
      >>> method_title("grad_cam"), method_title("my_method")
      ('Grad-CAM', 'My method')
    """
    return TITLES.get(name, name.replace("_", " ").capitalize())


def maps_of(
    classifier: Classifier,
    name: str,
    pictures: Pictures,
    *,
    seed: int,
    batch_size: int | None = None,
) -> np.ndarray:
    """The maps of a method for the true classes, (n, h, w, c).

    Args:
      classifier: of images like the pictures.
      name: of the method.
      pictures: what it looks at.
      seed: of methods with noise. An image's key comes from its place in the data set, so that its
        map does not depend on the other pictures, and its noise is the same for every classifier.
      batch_size: images x samples at once; None: as many as come to `batching.PIXELS_AT_ONCE`.
    """
    method = methods()[name]
    height, width = pictures.images.shape[1:3]
    options: dict[str, Any] = {
        "batch_size": batch_size or max(1, batching.PIXELS_AT_ONCE // (height * width))
    }
    if "key" in inspect.signature(method).parameters:
        of_image = functools.partial(jax.random.fold_in, jax.random.key(seed))
        options["key"] = jax.vmap(of_image)(pictures.index)
    return np.asarray(method(classifier, pictures.images, pictures.labels, **options))


def similarities(maps: np.ndarray, others: np.ndarray) -> dict[str, np.ndarray]:
    """All similarities of maps, one value an image."""
    return {name: function(maps, others) for name, function in SIMILARITIES.items()}


def show_undefined(counts: dict[str, int]) -> None:
    """How many pairs of maps of each method have no similarity."""
    for name, count in counts.items():
        if count:
            print(
                f"  {method_title(name)}: {count} pairs of maps left out, one is the same all over"
            )


def described(pairs: trained.Pairs, pictures: Pictures, positions: Sequence[int]) -> dict[str, Any]:
    """Which trainings and which pictures, as JSON; `positions` of those drawn."""
    return {
        "pairs": trained.pairs_described(pairs),
        "dataset": pairs[0][0].config.dataset.name,
        **pictures.described(positions),
    }


def draw(
    pictures: Pictures,
    maps: dict[str, dict[str, np.ndarray]],
    positions: Sequence[int],
    *,
    title: str,
    note: str,
    path: Path,
) -> None:
    """For each picture its maps, a row for each run; two pictures side by side when there are many.

    Args:
      pictures: all that were looked at.
      maps: {method: {run: maps of all pictures}}, the runs from top to bottom.
      positions: of the pictures to draw.
      title, note: of the figure.
      path: of the PNG.
    """
    across = 2 if len(positions) > 1 and len(maps) <= len(saliency.PAPER_METHODS) else 1
    runs = list(next(iter(maps.values())))
    displayed = {
        name: {run: plots.to_picture(values[run][list(positions)]) for run in runs}
        for name, values in maps.items()
    }
    cells: list[list[np.ndarray | None]] = []
    captions: list[list[str]] = []
    empty = [None] * (len(maps) + 1)
    for start in range(0, len(positions), across):
        here = range(start, min(start + across, len(positions)))
        for run in runs:
            row: list[np.ndarray | None] = []
            names: list[str] = []
            for place in here:
                position = positions[place]
                row.append(pictures.images[position] if run == runs[0] else None)
                row += [displayed[name][run][place] for name in maps]
                label = pictures.class_names[pictures.labels[position]]
                names += [label if run == runs[0] else "", *[""] * len(maps)]
            missing = (across - len(here)) * len(empty)
            cells.append(row + [None] * missing)
            captions.append(names + [""] * missing)
    plots.grid(
        cells,
        row_titles=[RUNS[run] for run in runs] * (len(cells) // len(runs)),
        column_titles=["Image", *map(method_title, maps)] * across,
        row_groups=[("", len(runs))] * (len(cells) // len(runs)),
        column_groups=[("", len(empty))] * across,
        captions=captions,
        title=title,
        note=note,
        path=path,
    )
