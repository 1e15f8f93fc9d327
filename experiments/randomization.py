"""Networks whose layers are initialised anew, and what becomes of their maps."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments import command, statistics, trained
from experiments.pictures import Pictures
from experiments.sensitivity import (
    MAIN_SIMILARITIES,
    NOTE,
    RUNS,
    SIMILARITY_TITLES,
    maps_of,
    method_title,
    show_undefined,
    similarities,
)
from jaxrobust import Classifier, plots
from jaxrobust.classifier import SHORTCUT

_MOST_COLUMNS = 12
# From the top down, or each alone.
KINDS = {
    "cascade": {
        "title": "layers initialised anew from the top down",
        "heading": "Initialised anew down to",
        "named": "Layer initialised anew, and all above",
        "numbered": "Layers initialised anew, from the top",
    },
    "single_layers": {
        "title": "single layers initialised anew",
        "heading": "Initialised anew alone",
        "named": "Layer initialised anew",
        "numbered": "Layer initialised anew, counted from the top",
    },
}


def random_key(seed: int) -> jax.Array:
    """Of the random network that belongs to a training; not the key of the training's own start."""
    return jax.random.fold_in(jax.random.key(seed), 8)


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
    for path, leaf in jax.tree_util.tree_flatten_with_path(classifier.variables)[0]:
        rank[_module(path)] = max(rank.get(_module(path), 0), np.ndim(leaf))
    found: dict[str, set[tuple[str, ...]]] = {}
    before: set[tuple[str, ...]] = set()  # the first layer
    for path in dict.fromkeys(called):
        if rank.get(path, 0) > 1 and SHORTCUT not in path:
            found["/".join(path)] = {path} if found else before | {path}
        elif path in rank:
            (found[next(reversed(found))] if found else before).add(path)
    if found:
        found[next(iter(found))] |= rank.keys() - set(called)
    return found


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
        yield (
            name,
            Classifier(
                classifier.model,
                jax.tree_util.tree_map_with_path(
                    lambda path, old, new, chosen=chosen: new if _module(path) in chosen else old,
                    classifier.variables,
                    fresh.variables,
                ),
            ),
        )


def examine(
    pairs: trained.Pairs,
    pictures: Pictures,
    names: Sequence[str],
    *,
    kind: str,
    stem: Path,
    **options: Any,
) -> tuple[dict[str, Any], list[Path]]:
    """Measures, prints and draws what becomes of the maps of STD and ADV.

    Args:
      pairs: STD and ADV of each seed.
      pictures: what they look at.
      names: of methods.
      kind: of `KINDS`.
      stem: path of the figures without their endings.
      **options: of `maps_of`.

    Returns:
      The record of `randomize`, and the paths that were written.
    """
    record, maps = randomize(pairs, pictures, names, independent=kind == "single_layers", **options)
    title = trained.title_of(pairs[0])
    _show_table(f"{title}, {KINDS[kind]['title']}", record)
    title += f": {KINDS[kind]['title']}"
    written = [stem.with_name(f"{stem.name}_{kind}{ending}.png") for ending in ("", "_maps")]
    draw_curves(record, kind=kind, title=title, path=written[0])
    draw_maps(
        maps,
        pictures.images[0],
        record["layers"],
        kind=kind,
        title=title,
        note=f"{NOTE} Seed {pairs[0][0].seed}.",
        path=written[1],
    )
    return record, written


def randomize(
    pairs: trained.Pairs,
    pictures: Pictures,
    names: Sequence[str],
    *,
    independent: bool = False,
    **options: Any,
) -> tuple[dict[str, Any], dict[str, dict[str, list[np.ndarray]]]]:
    """The maps of STD and ADV compared with those after each step of the cascade.

    Args:
      pairs: STD and ADV of each seed.
      pictures: what they look at.
      names: of methods.
      independent: of `cascade`.
      **options: of `maps_of`.

    Returns:
      For the JSON file the names of the layers in the order of steps, and {"std" | "adv": {method:
      {similarity: (seeds, steps + 1)}}}, from the trained network on, means over the images at
      which both maps have a structure, and how many had not; and the maps of the first picture and
      the first pair, {"std" | "adv": {method: (steps + 1) maps}}.
    """
    shape = pictures.images.shape[1:]
    order = list(reversed(layers(pairs[0][0].load(), shape)))
    title = f"{trained.title_of(pairs[0])}, {'single layers' if independent else 'cascade'}"
    progress = command.Steps(title, len(pairs) * 2 * (len(order) + 1), images=len(pictures))
    record: dict[str, Any] = {"layers": order, "images": len(pictures), "similarities": {}}
    undefined: dict[str, dict[str, int]] = {run: dict.fromkeys(names, 0) for run in ("std", "adv")}
    shown: dict[str, dict[str, list[np.ndarray]]] = {}
    for position, pair in enumerate(pairs):
        for run, one in zip(("std", "adv"), pair, strict=True):
            original = one.load()
            trained_maps: dict[str, np.ndarray] = {}
            steps = cascade(original, random_key(one.seed), shape, independent=independent)
            found = record["similarities"].setdefault(run, {name: {} for name in names})
            for _, classifier in itertools.chain([("", original)], steps):
                for name in names:
                    maps = maps_of(classifier, name, pictures, **options)
                    measured = similarities(trained_maps.setdefault(name, maps), maps)
                    undefined[run][name] += int(np.isnan(measured["rank_correlation"]).sum())
                    for similarity, values in measured.items():
                        seeds = found[name].setdefault(similarity, [[] for _ in pairs])
                        seeds[position].append(statistics.defined_mean(values))
                    if position == 0:
                        shown.setdefault(run, {}).setdefault(name, []).append(maps[0])
                progress.step()
    progress.close(f"{title}: {progress.elapsed:.0f} s")
    return record | {"undefined": undefined}, shown


def draw_curves(record: dict[str, Any], *, kind: str, title: str, path: Path) -> None:
    """Similarity with the trained network's maps over the steps: SSIM and ranks, STD and ADV.

    Args:
      record: of `randomize`.
      kind: of `KINDS`.
      title: of the figure.
      path: of the PNG.
    """
    panels: dict[str, dict[str, Any]] = {}
    for similarity in MAIN_SIMILARITIES:
        for run, methods in record["similarities"].items():
            lines = panels.setdefault(f"{RUNS[run]}: {SIMILARITY_TITLES[similarity]}", {})
            for name, values in methods.items():
                if np.isfinite(values[similarity]).all():  # a line has no gaps
                    lines[method_title(name)] = values[similarity]
                else:
                    print(f"{method_title(name)} of {RUNS[run]} is not defined at every step.")
    x = range(len(record["layers"]) + 1)
    few = len(x) <= _MOST_COLUMNS
    plots.curves(
        x,
        {name: lines for name, lines in panels.items() if lines},
        x_label=KINDS[kind]["named" if few else "numbered"],
        y_label="Similarity",
        x_ticks=["trained", *record["layers"]] if few else None,
        title=title,
        path=path,
    )


def draw_maps(
    maps: dict[str, dict[str, list[np.ndarray]]],
    image: np.ndarray,
    order: Sequence[str],
    *,
    kind: str,
    title: str,
    note: str,
    path: Path,
) -> None:
    """The maps of one picture from the trained network to the last step, STD above ADV."""
    count = min(len(order), _MOST_COLUMNS - 1)
    steps = [0, *np.linspace(1, len(order), count).round().astype(int).tolist()]
    rows = [
        [image if place == 0 else None] + [plots.to_picture(of_steps[step]) for step in steps]
        for methods in maps.values()
        for place, of_steps in enumerate(methods.values())
    ]
    plots.grid(
        rows,
        row_titles=[method_title(name) for methods in maps.values() for name in methods],
        row_groups=[(RUNS[run], len(methods)) for run, methods in maps.items()],
        # A name wraps where it has a space.
        column_titles=["Image", *(["Trained", *order][n].replace("/", " ") for n in steps)],
        column_groups=[("", 2), (KINDS[kind]["heading"], len(steps) - 1)],
        title=title,
        note=note,
        path=path,
    )


def _show_table(title: str, found: dict[str, Any]) -> None:
    count = len(found["layers"])
    steps = sorted({1, (count + 1) // 2, count})
    print(f"\n{title}: similarity with the trained network's maps ({found['images']} images)")
    heads = [f"{step}: {found['layers'][step - 1]}" for step in steps]
    print(" " * 46 + "".join(f"{head:>24}" for head in heads))
    for run, methods in found["similarities"].items():
        for name, measured in methods.items():
            for similarity in MAIN_SIMILARITIES:
                values = np.mean(measured[similarity], 0)[steps]
                print(
                    f"  {RUNS[run]:4}{method_title(name):22}{SIMILARITY_TITLES[similarity]:18}"
                    + "".join(f"{value:24.3f}" for value in values)
                )
        show_undefined(found["undefined"][run])
