"""Networks whose layers are initialised anew, and what becomes of their maps."""

import argparse
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust import Classifier, plots
from jaxrobust.classifier import SHORTCUT
from jaxrobust.core.logs import Progress
from jaxrobust.experiments import result, sensitivity, statistics, trained
from jaxrobust.experiments.pictures import Pictures, evaluation_pictures
from jaxrobust.experiments.sensitivity import (
    MAIN_SIMILARITIES,
    RUNS,
    SIMILARITY_TITLES,
    method_title,
)
from jaxrobust.experiments.words import counted

_MOST_COLUMNS = 12
# From the top down, or each alone: what its figures are called, and their steps.
KINDS = {
    "cascade": ("layers initialised anew from the top down", "Initialised anew down to"),
    "single_layers": ("single layers initialised anew", "Initialised anew alone"),
}


def layers(classifier: Classifier, image_shape: Sequence[int]) -> dict[str, set[tuple[str, ...]]]:
    """The layers of a Linen model in depth order, each with the modules that belong to it.

    A layer begins with a module that holds a kernel; normalisations after it, and the projection of
    a shortcut after it, belong to it. What is never called in inference belongs to the first layer.

    Args:
      classifier: of a Linen model.
      image_shape: (h, w, c) of its images.

    Returns:
      {name: paths of modules}.
    """
    called: list[tuple[str, ...]] = []

    def record(call, args, kwargs, context):
        called.append(context.module.path)
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        jax.eval_shape(
            lambda variables, images: classifier.model.apply(variables, images, train=False),
            classifier.variables,
            jax.ShapeDtypeStruct((1, *image_shape), jnp.float32),
        )
    rank: dict[tuple[str, ...], int] = {}
    for path, leaf in jax.tree.leaves_with_path(classifier.variables):
        rank[_module(path)] = max(rank.get(_module(path), 0), np.ndim(leaf))
    of_layers: dict[str, set[tuple[str, ...]]] = {}
    modules = rank.keys() - set(called)  # of the layer that is being gathered
    for path in dict.fromkeys(called):
        if rank.get(path, 0) > 1 and SHORTCUT not in path:
            modules = of_layers["/".join(path)] = set() if of_layers else modules
        if path in rank:
            modules.add(path)
    return of_layers


def _module(path: Any) -> tuple[str, ...]:
    return tuple(entry.key for entry in path[1:-1])  # between the collection and the variable


def cascade(
    classifier: Classifier,
    key: jax.Array,
    image_shape: Sequence[int],
    *,
    independent: bool = False,
) -> Iterator[tuple[str, Classifier]]:
    """The classifier with its layers initialised anew, one more at a time, from the top down.

    All layers come from one draw of the model's own initialisers, running statistics of
    normalisations included: the last classifier is `Classifier.init(key, model, image_shape)`.

    Args:
      classifier: of a Linen model; it is left as it is.
      key: of the draw.
      image_shape: (h, w, c) of its images.
      independent: initialise each layer alone, the others stay as they are.

    Yields:
      The name of the layer that is new, as `layers` names it, and the classifier.
    """
    fresh = Classifier.init(key, classifier.model, image_shape)
    chosen: set[tuple[str, ...]] = set()
    for name, modules in reversed(layers(classifier, image_shape).items()):
        chosen = modules if independent else chosen | modules
        variables = jax.tree.map_with_path(
            lambda path, old, new, chosen=chosen: new if _module(path) in chosen else old,
            classifier.variables,
            fresh.variables,
        )
        yield name, Classifier(classifier.model, variables)


def examine(
    pairs: trained.Pairs, kind: str, stem: Path, arguments: argparse.Namespace
) -> tuple[dict[str, Any], list[result.Part]]:
    """What becomes of the maps of one architecture: figures for the JSON file, and what is shown.

    Args:
      pairs: STD and ADV of each seed.
      kind: of `KINDS`.
      stem: how the paths of the figures begin.
      arguments: of `sensitivity.add_arguments`, and the number of `cascade_images`.
    """
    first = pairs[0][0]
    pictures = evaluation_pictures(first.config, arguments.cascade_images, per_class=True)
    found, maps = randomize(pairs, pictures, kind, arguments)
    title = f"{trained.title_of(pairs[0])}: {KINDS[kind][0]}"
    caption = f"{title}, similarity with the trained network's maps"
    curves, sheet = (stem.with_name(f"{stem.name}_{kind}{end}.png") for end in ("", "_maps"))
    draw_curves(found, kind, title=title, path=curves)
    note = f"{sensitivity.NOTE} Trainings of seed {first.seed}."
    draw_maps(maps, pictures.images[0], found, kind, title=title, note=note, path=sheet)
    return found, [
        table(found, caption),
        result.Figure(curves.name, caption),
        result.Figure(sheet.name, f"{title}, maps of one picture"),
    ]


def randomize(
    pairs: trained.Pairs, pictures: Pictures, kind: str, arguments: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, dict[str, list[np.ndarray]]]]:
    """The maps of STD and ADV compared with those after each step of the cascade.

    Returns:
      For the JSON file the names of the layers in the order of steps, and {"std" | "adv": {method:
      {similarity: (seeds, steps + 1)}}}, from the trained network on, means over the images at
      which both maps have a structure, and how many had not; and the maps of the first picture and
      the first pair, {"std" | "adv": {method: (steps + 1) maps}}.
    """
    names = list(dict.fromkeys(arguments.methods))
    options = {"seed": arguments.seed, "batch_size": arguments.batch_size}
    shape = pictures.images.shape[1:]
    order = list(reversed(layers(pairs[0][0].load(), shape)))
    title = f"{trained.title_of(pairs[0])}, {KINDS[kind][0]}"
    total = len(pairs) * 2 * (len(order) + 1)
    runs = ("std", "adv")
    compared: dict[str, Any] = {run: {name: {} for name in names} for run in runs}
    undefined = {run: dict.fromkeys(names, 0) for run in runs}
    drawn: dict[str, Any] = {run: {name: [] for name in names} for run in runs}
    with Progress(title, total, steps="networks", images=len(pictures)) as progress:
        for position, pair in enumerate(pairs):
            for run, training in zip(runs, pair, strict=True):
                original, key = training.load(), sensitivity.random_key(training.seed)
                steps = cascade(original, key, shape, independent=kind == "single_layers")
                trained_maps: dict[str, np.ndarray] = {}
                for classifier in itertools.chain([original], (step for _, step in steps)):
                    for name in names:
                        maps = sensitivity.maps_of(classifier, name, pictures, **options)
                        original_maps = trained_maps.setdefault(name, maps)
                        similarities = sensitivity.similarities(original_maps, maps)
                        undefined[run][name] += int(
                            np.isnan(similarities["rank_correlation"]).sum()
                        )
                        for similarity, values in similarities.items():
                            seeds = compared[run][name].setdefault(similarity, [[] for _ in pairs])
                            seeds[position].append(statistics.defined_mean(values))
                        if position == 0:
                            drawn[run][name].append(maps[0])
                    progress.step()
        progress.close(f"{title}: {progress.elapsed:.0f} s")
    found = {"layers": order, "images": len(pictures), "similarities": compared}
    return found | {"undefined": undefined}, drawn


def table(found: Mapping[str, Any], title: str) -> result.Table:
    """The similarities at the first, the middle and the last step."""
    count = len(found["layers"])
    steps = sorted({1, (count + 1) // 2, count})
    rows = []
    for run, methods in found["similarities"].items():
        for name, measured in methods.items():
            undefined = sensitivity.undefined(found["undefined"][run][name], "pairs of maps")
            for similarity in MAIN_SIMILARITIES:
                means = np.mean(measured[similarity], 0)[steps]
                rows.append(
                    [
                        f"{RUNS[run]}, {method_title(name)}",
                        SIMILARITY_TITLES[similarity] + undefined,
                        *map(result.Number, means.tolist()),
                    ]
                )
    header = ["", "similarity", *(f"{step}: {found['layers'][step - 1]}" for step in steps)]
    caption = f"{title}, {counted(found['images'], 'picture')}"
    return result.Table(header, rows, caption=caption, left=2, folded=True)


def draw_curves(found: Mapping[str, Any], kind: str, *, title: str, path: Path) -> None:
    """Similarity with the trained network's maps over the steps: SSIM and ranks, STD and ADV."""
    panels: dict[str, dict[str, Any]] = {}
    left_out = []
    for similarity in MAIN_SIMILARITIES:
        for run, methods in found["similarities"].items():
            panel = f"{RUNS[run]}: {SIMILARITY_TITLES[similarity]}"
            for name, values in methods.items():
                if np.isfinite(values[similarity]).all():  # a line has no gaps
                    panels.setdefault(panel, {})[method_title(name)] = values[similarity]
                else:
                    left_out.append(f"{panel} of {method_title(name)}")
    steps = ["trained", *found["layers"]]
    few = len(steps) <= _MOST_COLUMNS
    plots.curves(
        range(len(steps)),
        panels,
        x_label=KINDS[kind][1] + ("" if few else ": layer, counted from the top"),
        y_label="Similarity",
        x_ticks=steps if few else None,
        title=title,
        note=f"Not defined at every step: {', '.join(left_out)}." if left_out else None,
        path=path,
    )


def draw_maps(
    maps: Mapping[str, Mapping[str, Sequence[np.ndarray]]],
    image: np.ndarray,
    found: Mapping[str, Any],
    kind: str,
    *,
    title: str,
    note: str,
    path: Path,
) -> None:
    """The maps of one picture from the trained network to the last step, STD above ADV."""
    names = ["Trained", *found["layers"]]
    last = len(names) - 1
    steps = [0, *np.linspace(1, last, min(last, _MOST_COLUMNS - 1)).round().astype(int)]
    rows = [
        [image if place == 0 else None, *(plots.to_picture(of_steps[step]) for step in steps)]
        for methods in maps.values()
        for place, of_steps in enumerate(methods.values())
    ]
    plots.grid(
        rows,
        row_titles=[method_title(name) for methods in maps.values() for name in methods],
        row_groups=[(RUNS[run], len(methods)) for run, methods in maps.items()],
        # A name wraps where it has a space.
        column_titles=["Image", *(names[step].replace("/", " ") for step in steps)],
        column_groups=[("", 2), (KINDS[kind][1], len(steps) - 1)],
        title=title,
        note=note,
        path=path,
    )
