"""Sensitivity maps by any method, compared and drawn: what experiments on maps share."""

import argparse
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrobust import Classifier, map_metrics, plots, saliency
from jaxrobust.core import batching, named
from jaxrobust.core.logs import Progress
from jaxrobust.experiments import trained
from jaxrobust.experiments.experiment import whole_number
from jaxrobust.experiments.pictures import Pictures, evaluation_pictures, shown_positions
from jaxrobust.experiments.result import Figure

# Of methods whose names are not written as words.
_TITLES = {
    "smoothgrad": "SmoothGrad",
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

_MOST_PICTURES = 10


@dataclass(frozen=True)
class Drawn:
    """What is to be drawn.

    Attributes:
      images: float32 (n, h, w, c) in [0, 1].
      classes: their names.
      maps: {method: {run: maps (n, h, w, c)}}, the runs from top to bottom.
      seed: of the trainings.
    """

    images: np.ndarray
    classes: Sequence[str]
    maps: Mapping[str, Mapping[str, np.ndarray]]
    seed: int


def add_arguments(
    parser: argparse.ArgumentParser,
    *,
    images: int,
    pictures: int | None = None,
    of_methods: int = len(saliency.PAPER_METHODS),
) -> None:
    """The arguments of experiments on maps; the defaults: so many images, pictures and methods."""
    parser.add_argument(
        "--methods",
        nargs="+",
        type=_method_name,
        default=list(saliency.PAPER_METHODS)[:of_methods],
        metavar="METHOD",
        help=f"of {', '.join(methods())}, or your own by its import path, package.module:function "
        f"(default: the paper's, the first {of_methods})",
    )
    drawn = pictures or f"one a class, at most {_MOST_PICTURES}"
    for flag, least, default, text in (
        ("--images", 1, images, "measured, evenly over the classes (default: %(default)s)"),
        ("--pictures", 1, pictures, f"drawn, of the measured ones (default: {drawn})"),
        ("--seed", 0, 0, "of noise (default: %(default)s)"),
        ("--batch-size", 1, None, "images x samples at once (default: 32 of 224 x 224 pixels)"),
    ):
        parser.add_argument(flag, type=whole_number(least), default=default, metavar="N", help=text)


def methods() -> dict[str, Callable[..., jax.Array]]:
    """All methods of `jaxrobust.saliency` by name, the paper's first."""
    every = {name: getattr(saliency, name) for name in saliency.__all__ if name.islower()}
    return saliency.PAPER_METHODS | every


def _method_name(name: str) -> str:
    try:
        named.get("method", methods(), name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return name


def method_title(name: str) -> str:
    """How a method is written.

    Example:
      >>> method_title("grad_cam"), method_title("my_maps:my_method")
      ('Grad-CAM', 'My method')
    """
    return _TITLES.get(name, name.rpartition(":")[2].replace("_", " ").capitalize())


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
    return np.asarray(_maps(classifier, name, pictures, seed=seed, batch_size=batch_size))


def _maps(
    classifier: Classifier, name: str, pictures: Pictures, *, seed: int, batch_size: int | None
) -> jax.Array:
    method = named.get("method", methods(), name)
    height, width = pictures.images.shape[1:3]
    options: dict[str, Any] = {
        "batch_size": batch_size or max(1, batching.PIXELS_AT_ONCE // (height * width))
    }
    if "key" in inspect.signature(method).parameters:
        of_image = functools.partial(jax.random.fold_in, jax.random.key(seed))
        options["key"] = jax.vmap(of_image)(pictures.index)
    return method(classifier, pictures.images, pictures.labels, **options)


def random_key(seed: int) -> jax.Array:
    """Of the random network that belongs to a training; not the key of the training's own start."""
    return jax.random.fold_in(jax.random.key(seed), 8)


def examine(
    pairs: trained.Pairs,
    compare: Callable[..., dict[str, Any]],
    arguments: argparse.Namespace,
    *,
    random: bool = False,
    moved: int = 0,
) -> tuple[dict[str, Any], Drawn]:
    """The maps of one architecture compared, one method after the other, under a progress line.

    Args:
      pairs: STD and ADV of each seed.
      compare: of {run: a method's maps of each seed} and the pictures.
      arguments: of `add_arguments`.
      random: a randomly initialised network of each seed is a run as well.
      moved: not 0: `compare` gets, as its last argument, the maps of `pictures.moved(moved)`, too.

    Returns:
      Which trainings, which pictures and {method: what `compare` returned}, as JSON; and pictures
      with their maps of the first seed.
    """
    first = pairs[0][0]
    pictures = evaluation_pictures(first.config, arguments.images, per_class=True)
    count = arguments.pictures or min(len(pictures.class_names), _MOST_PICTURES)
    positions = shown_positions(pictures.labels, count)
    std, adv = ([training.load() for training in of_run] for of_run in zip(*pairs, strict=True))
    classifiers = {"std": std, "adv": adv}
    if random:
        shape = pictures.images.shape[1:]
        fresh = [
            Classifier.init(random_key(training.seed), classifier.model, shape)
            for (training, _), classifier in zip(pairs, std, strict=True)
        ]
        classifiers = {"random": fresh, **classifiers}
    names = list(dict.fromkeys(arguments.methods))
    options = {"seed": arguments.seed, "batch_size": arguments.batch_size}
    for name in names:
        # What a method wants of a network and lacks is said now, not after the methods before it.
        try:
            jax.eval_shape(
                functools.partial(_maps, name=name, pictures=pictures, **options), std[0]
            )
        except ValueError as error:
            raise ValueError(
                f"--methods must suit {trained.title_of(pairs[0])}, got {name}: {error}"
            ) from error
    shown = [pictures, pictures.moved(moved)] if moved else [pictures]
    steps = len(names) * len(classifiers) * len(pairs) * len(shown)
    compared, maps = {}, {}
    title = trained.title_of(pairs[0])
    with Progress(title, steps, steps="sets of maps", images=len(pictures)) as progress:

        def maps_by(classifier: Classifier, name: str, these: Pictures) -> np.ndarray:
            maps = maps_of(classifier, name, these, **options)
            progress.step()
            return maps

        for name in names:
            of_runs, *of_moved = [
                {
                    run: [maps_by(one, name, these) for one in seeds]
                    for run, seeds in classifiers.items()
                }
                for these in shown
            ]
            compared[name] = compare(of_runs, pictures, *of_moved)
            maps[name] = {run: seeds[0][positions] for run, seeds in of_runs.items()}
        progress.close(f"{title}: {steps * len(pictures)} maps in {progress.elapsed:.0f} s")
    found = {
        "pairs": trained.pairs_described(pairs),
        "dataset": first.config.dataset.name,
        **pictures.described(positions),
        "methods": compared,
    }
    classes = [drawn["class"] for drawn in found["drawn"]]
    return found, Drawn(pictures.images[positions], classes, maps, first.seed)


def undefined(count: int, what: str) -> str:
    """What follows the name of a measure, if it was not always defined.

    Example:
      >>> undefined(3, "maps"), undefined(0, "maps")
      (' (not defined for 3 maps)', '')
    """
    return f" (not defined for {count} {what})" if count else ""


def similarities(first: np.ndarray, second: np.ndarray) -> dict[str, np.ndarray]:
    """All similarities of maps, one value an image."""
    return {name: function(first, second) for name, function in SIMILARITIES.items()}


def draw(drawn: Drawn, *, title: str, path: Path, folded: bool = False) -> Figure:
    """For each picture its maps, a row for each run; two pictures side by side when there are many.

    Args:
      drawn: what is in it.
      title: of the figure.
      path: of the PNG.
      folded: of the `Figure`.
    """
    maps, count = drawn.maps, len(drawn.images)
    across = 2 if count > 1 and len(maps) <= len(saliency.PAPER_METHODS) else 1
    runs = list(next(iter(maps.values())))
    shape = -(-count // across) * across, len(runs), 1 + len(maps)
    cells, captions = np.full(shape, None, object), np.full(shape, None, object)
    for place in range(count):
        cells[place, 0, 0] = drawn.images[place]
        captions[place, 0, 0] = drawn.classes[place]
        for column, of_runs in enumerate(maps.values(), 1):
            for row, of_run in enumerate(of_runs.values()):
                cells[place, row, column] = plots.to_picture(of_run[place])

    def side_by_side(blocks: np.ndarray) -> list[list[Any]]:
        rows = blocks.reshape(-1, across, *shape[1:]).swapaxes(1, 2)
        return rows.reshape(-1, across * shape[2]).tolist()

    plots.grid(
        side_by_side(cells),
        captions=side_by_side(captions),
        row_titles=[RUNS[run] for run in runs] * (shape[0] // across),
        row_groups=[("", len(runs))] * (shape[0] // across),
        column_titles=["Image", *map(method_title, maps)] * across,
        column_groups=[("", shape[2])] * across,
        title=title,
        note=f"{NOTE} Trainings of seed {drawn.seed}.",
        path=path,
    )
    return Figure(path.name, title, folded)
