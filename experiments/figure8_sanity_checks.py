"""Do the maps depend on the weights: Figures 8 to 12 of the paper, after Adebayo et al. (2018).

    python -m experiments.figure8_sanity_checks --workdirs runs/quickstart

compares, for every architecture among the workdirs, the maps of a randomly initialised network, of
STD and of ADV, as pictures and as similarities: SSIM, rank correlation and correlation of HOG
descriptors of absolute maps, and rank correlation of signed ones. Claim 8, that maps depend on the
weights, holds for a method when the maps of two settings are less alike (SSIM and rank correlation)
than those of either setting and its next seed; with one seed it is not measured. STD and ADV of a
seed share their initial weights and batches, which makes them rather more alike.

Then the layers of STD and ADV are initialised anew one after the other, from the top down (or, with
--independent, each alone), and the maps compared with those of the trained network.

Cost: about 2 minutes for the quickstart's six models on two CPU cores.
"""

import argparse
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments import trained
from experiments.figure2_sensitivity_maps import (
    RUNS,
    Pairs,
    add_arguments,
    all_hold,
    by_architecture,
    compare,
    defined_mean,
    described,
    draw,
    maps_of,
    method_title,
    pairs_described,
    shown_positions,
    slug,
    title_of,
    whole_number,
)
from jaxrobust import Classifier, map_metrics, plots
from jaxrobust.classifier import SHORTCUT
from jaxrobust.files import write_json
from jaxrobust.logs import Progress

_NAME = "figure8_sanity_checks"
_MOST_COLUMNS = 12
SIMILARITIES: dict[str, Callable[[Any, Any], Any]] = {
    "ssim": map_metrics.structural_similarity,
    "rank_correlation": map_metrics.rank_correlation,
    "hog": map_metrics.hog_similarity,
    "signed_rank_correlation": functools.partial(map_metrics.rank_correlation, signed=True),
}
TITLES = {
    "ssim": "SSIM",
    "rank_correlation": "Rank correlation",
    "hog": "HOG",
    "signed_rank_correlation": "Signed rank corr.",
}
_TEXTS = {
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
CLAIMED = ("ssim", "rank_correlation")
SETTINGS = list(itertools.combinations(RUNS, 2))


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


def similarities(maps: np.ndarray, others: np.ndarray) -> dict[str, np.ndarray]:
    """All similarities of maps, one value an image."""
    return {name: function(maps, others) for name, function in SIMILARITIES.items()}


def _random_key(seed: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), 8)  # not the key of the training's own start


def compare_settings(maps: dict[str, list[np.ndarray]]) -> dict[str, Any]:
    """Similarities of the maps of one method between settings and between seeds, as JSON.

    Args:
      maps: {"random" | "std" | "adv": maps of each seed}.
    """
    seeds = len(maps["std"])
    between = {
        f"{a}-{b}": [similarities(*pair) for pair in zip(maps[a], maps[b], strict=True)]
        for a, b in SETTINGS
    }
    within = {
        run: [similarities(maps[run][i], maps[run][(i + 1) % seeds]) for i in range(seeds)]
        for run in RUNS
        if seeds > 1
    }
    result: dict[str, Any] = {}
    for name in SIMILARITIES:
        apart = {pair: [one[name] for one in values] for pair, values in between.items()}
        alike = {run: [one[name] for one in values] for run, values in within.items()}
        result[name] = {
            "between_settings": {pair: _summary(values) for pair, values in apart.items()},
            "between_seeds": {run: _summary(values) for run, values in alike.items()} or None,
            "differences": {
                pair: {run: compare(alike[run], values, "negative") for run in pair.split("-")}
                for pair, values in apart.items()
                if alike
            }
            or None,
        }
    return result


def _summary(values: Sequence[np.ndarray]) -> dict[str, Any]:
    means = [defined_mean(one) for one in values]
    return {
        "mean": float(np.mean(means)),
        "by_seed": means,
        "undefined": int(sum(np.isnan(one).sum() for one in values)),
    }


def claim_8(measured: dict[str, Any]) -> str:
    """Whether maps of two settings are less alike than maps of either setting's seeds."""
    if any(measured[name]["differences"] is None for name in CLAIMED):
        return "not measured"
    return all_hold(
        change["verdict"]
        for name in CLAIMED
        for pair in measured[name]["differences"].values()
        for change in pair.values()
    )


def examine(
    pairs: Pairs, pictures: trained.Pictures, names: Sequence[str], **options: Any
) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """Random, STD and ADV of all seeds compared, and the maps of the first seed.

    Args:
      pairs: STD and ADV of each seed.
      pictures: what they look at.
      names: of methods.
      **options: of `maps_of`.

    Returns:
      {method: figures} for the JSON file, and {method: {"random" | "std" | "adv": maps}}.
    """
    classifiers: dict[str, list[Classifier]] = {"random": [], "std": [], "adv": []}
    for standard, adversarial in pairs:
        std = standard.load()
        classifiers["random"].append(
            Classifier.init(_random_key(standard.seed), std.model, pictures.images.shape[1:])
        )
        classifiers["std"].append(std)
        classifiers["adv"].append(adversarial.load())
    title = f"{title_of(pairs[0])}, settings and seeds"
    progress = Progress(title, len(names) * len(pairs) * 3, images=len(pictures))
    record, shown, done = {}, {}, 0
    for name in names:
        maps: dict[str, list[np.ndarray]] = {run: [] for run in classifiers}
        for run, of_seeds in classifiers.items():
            for classifier in of_seeds:
                maps[run].append(maps_of(classifier, name, pictures, **options))
                done += 1
                progress.mark(done)
                if progress.due():
                    progress.show(done)
        measured = compare_settings(maps)
        record[name] = {"similarities": measured, "claim_8": claim_8(measured)}
        shown[name] = {run: values[0] for run, values in maps.items()}
    progress.close(f"{title}: {progress.elapsed:.0f} s")
    return record, shown


def randomize(
    pairs: Pairs,
    pictures: trained.Pictures,
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
    title = f"{title_of(pairs[0])}, {'single layers' if independent else 'cascade'}"
    progress = Progress(title, len(pairs) * 2 * (len(order) + 1), images=len(pictures))
    record: dict[str, Any] = {"layers": order, "images": len(pictures), "similarities": {}}
    undefined: dict[str, dict[str, int]] = {run: dict.fromkeys(names, 0) for run in ("std", "adv")}
    shown: dict[str, dict[str, list[np.ndarray]]] = {}
    done = 0
    for position, pair in enumerate(pairs):
        for run, one in zip(("std", "adv"), pair, strict=True):
            original = one.load()
            trained_maps: dict[str, np.ndarray] = {}
            steps = cascade(original, _random_key(one.seed), shape, independent=independent)
            found = record["similarities"].setdefault(run, {name: {} for name in names})
            for _, classifier in itertools.chain([("", original)], steps):
                for name in names:
                    maps = maps_of(classifier, name, pictures, **options)
                    measured = similarities(trained_maps.setdefault(name, maps), maps)
                    undefined[run][name] += int(np.isnan(measured["rank_correlation"]).sum())
                    for similarity, values in measured.items():
                        seeds = found[name].setdefault(similarity, [[] for _ in pairs])
                        seeds[position].append(defined_mean(values))
                    if position == 0:
                        shown.setdefault(run, {}).setdefault(name, []).append(maps[0])
                done += 1
                progress.mark(done)
                if progress.due():
                    progress.show(done)
    progress.close(f"{title}: {progress.elapsed:.0f} s")
    return record | {"undefined": undefined}, shown


def draw_curves(
    record: dict[str, Any], *, title: str, named: str, numbered: str, path: Path
) -> None:
    """Similarity with the trained network's maps over the steps: SSIM and ranks, STD and ADV.

    Args:
      record: of `randomize`.
      title: of the figure.
      named, numbered: labels of the axis, with the names of a few layers or the number of a step.
      path: of the PNG.
    """
    panels: dict[str, dict[str, Any]] = {}
    for similarity in CLAIMED:
        for run, methods in record["similarities"].items():
            lines = panels.setdefault(f"{RUNS[run]}: {TITLES[similarity]}", {})
            for name, values in methods.items():
                if np.isfinite(values[similarity]).all():  # a line has no gaps
                    lines[method_title(name)] = values[similarity]
                else:
                    print(f"{method_title(name)} of {RUNS[run]} is not defined at every step.")
    x = range(len(record["layers"]) + 1)
    few = len(x) <= _MOST_COLUMNS
    figure = plots.curves(
        x,
        {name: lines for name, lines in panels.items() if lines},
        x_label=named if few else numbered,
        y_label="Similarity",
        title=title,
    )
    if few:
        for axes in figure.axes:
            axes.set_xticks(x, ["trained", *record["layers"]], rotation=45, ha="right")
    plots.save(figure, path)


def draw_cascade(
    maps: dict[str, dict[str, list[np.ndarray]]],
    image: np.ndarray,
    order: Sequence[str],
    *,
    heading: str,
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
        column_groups=[("", 2), (heading, len(steps) - 1)],
        title=title,
        note=note,
        path=path,
    )


def _show_settings(title: str, found: dict[str, Any]) -> None:
    print(
        f"\n{title}: similarity of maps between settings, and of each setting's seeds "
        f"({found['images']} images, seeds {', '.join(str(p['seed']) for p in found['pairs'])})"
    )
    columns = [f"{RUNS[a]}-{RUNS[b]}" for a, b in SETTINGS]
    columns += [f"{name}-{name}'" for name in RUNS.values()]
    print(" " * 42 + "".join(f"{column:>15}" for column in columns))
    for name, method in found["methods"].items():
        for similarity, measured in method["similarities"].items():
            values = [one["mean"] for one in measured["between_settings"].values()]
            seeds = measured["between_seeds"] or {}
            cells = [f"{value:.3f}" for value in values]
            cells += [f"{seeds[run]['mean']:.3f}" if seeds else "not measured" for run in RUNS]
            print(
                f"  {method_title(name):22}{TITLES[similarity]:18}"
                + "".join(f"{cell:>15}" for cell in cells)
            )
    _show_undefined(
        {
            name: sum(
                one["undefined"]
                for similarity in ("between_settings", "between_seeds")
                for one in (method["similarities"]["rank_correlation"][similarity] or {}).values()
            )
            for name, method in found["methods"].items()
        }
    )
    print("  Claim 8, between settings less alike than between seeds of one setting:")
    for name, method in found["methods"].items():
        print(f"  {method_title(name):22}{method['claim_8']}")
        for similarity in CLAIMED:
            for pair, against in (method["similarities"][similarity]["differences"] or {}).items():
                for run, change in against.items():
                    interval = "not defined"
                    if change["mean"] is not None:
                        interval = (
                            f"{change['mean']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}]"
                        )
                    settings = "-".join(RUNS[one] for one in pair.split("-"))
                    compared = f"{settings} less {RUNS[run]}-{RUNS[run]}'"
                    print(
                        f"    {TITLES[similarity]:18}{compared:32}{interval:26}{change['verdict']}"
                    )


def _show_cascade(title: str, found: dict[str, Any]) -> None:
    count = len(found["layers"])
    steps = sorted({1, (count + 1) // 2, count})
    print(f"\n{title}: similarity with the trained network's maps ({found['images']} images)")
    heads = [f"{step}: {found['layers'][step - 1]}" for step in steps]
    print(" " * 46 + "".join(f"{head:>24}" for head in heads))
    for run, methods in found["similarities"].items():
        for name, measured in methods.items():
            for similarity in CLAIMED:
                values = np.mean(measured[similarity], 0)[steps]
                print(
                    f"  {RUNS[run]:4}{method_title(name):22}{TITLES[similarity]:18}"
                    + "".join(f"{value:24.3f}" for value in values)
                )
        _show_undefined(found["undefined"][run])


def _show_undefined(counts: dict[str, int]) -> None:
    for name, count in counts.items():
        if count:
            print(
                f"  {method_title(name)}: {count} pairs of maps left out, one is the same all over"
            )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m experiments.{_NAME}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser, images=100)
    for name, default, text in (
        ("--pictures", 4, "drawn, of the measured ones"),
        ("--cascade-images", 20, "images of the cascade, 0 for none"),
    ):
        parser.add_argument(
            name,
            type=whole_number(int(name == "--pictures")),
            default=default,
            metavar="N",
            help=f"{text} (default: %(default)s)",
        )
    parser.add_argument(
        "--independent", action="store_true", help="also initialise each layer alone"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the figures and writes what was measured."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    names = list(dict.fromkeys(arguments.methods))
    options = {"seed": arguments.seed, "batch_size": arguments.batch_size}
    try:
        record = described(arguments)
        written = []
        for title, pairs in by_architecture(arguments.workdirs).items():
            config = pairs[0][0].config
            pictures = trained.pictures(config, arguments.images, per_class=True)
            positions = shown_positions(pictures.labels, min(arguments.pictures, arguments.images))
            methods, maps = examine(pairs, pictures, names, **options)
            found = pairs_described(pairs, pictures, positions) | {"methods": methods}
            record["architectures"][title] = found
            _show_settings(title, found)
            name = f"{_NAME}_{slug(title)}"
            seed = f"Seed {pairs[0][0].seed}."
            note = "Each map on its own scale, clipped at ±3 standard deviations; mid-grey is zero."
            written.append(arguments.out / f"{name}.png")
            draw(
                pictures,
                maps,
                positions,
                title=f"{title}: maps of random, STD and ADV weights",
                note=f"{note} {seed}",
                path=written[-1],
            )
            if not arguments.cascade_images:
                continue
            pictures = trained.pictures(config, arguments.cascade_images, per_class=True)
            for kind in ("cascade", "single_layers")[: 1 + arguments.independent]:
                texts = _TEXTS[kind]
                found[kind], maps_of_steps = randomize(
                    pairs, pictures, names, independent=kind == "single_layers", **options
                )
                _show_cascade(f"{title}, {texts['title']}", found[kind])
                written.append(arguments.out / f"{name}_{kind}.png")
                draw_curves(
                    found[kind],
                    title=f"{title}: {texts['title']}",
                    named=texts["named"],
                    numbered=texts["numbered"],
                    path=written[-1],
                )
                written.append(arguments.out / f"{name}_{kind}_maps.png")
                draw_cascade(
                    maps_of_steps,
                    pictures.images[0],
                    found[kind]["layers"],
                    heading=texts["heading"],
                    title=f"{title}: {texts['title']}",
                    note=f"{note} {seed}",
                    path=written[-1],
                )
        written.append(arguments.out / f"{_NAME}.json")
        write_json(written[-1], record)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{error}\n")
    print("\nWrote " + ", ".join(map(str, written)))


if __name__ == "__main__":
    main()
