"""What the filters of STD and ADV look for, by depth: Figure 3 of the paper, and 15 to 19.

    python -m experiments.figure3_layer_visualization --workdirs runs/quickstart

makes images that maximise random filters of several layers, once with the paper's plain settings
and once regularised (Fourier parameterisation, decorrelated colours, jitter, scale and rotation),
and draws four filters a layer, STD above ADV. The figures behind the pictures are the radial
spectral centroid and the energy of colour above half Nyquist of the images, as they are before they
are clipped to be shown, over all pairs of trainings. Figures 15 to 19 are the same with other
layers, by the paper's numbers of the convolutions: --layers 9 14 19 24 29 34 39 44 49.

Cost: about 2 minutes for the quickstart's six models on two CPU cores.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import command, statistics, tiles, trained
from jaxrobust import Classifier, feature_visualization, map_metrics, plots
from jaxrobust.training import checkpoints

_NAME = "figure3_layer_visualization"
_MOST_LAYERS = 6
STYLES = {"paper": "plain, as in the paper", "regularized": "regularised"}
# What the paper says of ADV's images in deep layers: each measure is smaller than STD's.
MEASURES: dict[str, Callable[[Any], Any]] = {
    "spectral_centroid": map_metrics.spectral_centroid,
    "chroma_energy": map_metrics.chroma_energy,
    "chroma_share": map_metrics.chroma_share,
}


def evenly(count: int, most: int = _MOST_LAYERS) -> list[int]:
    """Numbers of convolutions spread evenly over the depth, the first and the last included.

    Example:
      >>> evenly(49), evenly(3)
      ([1, 11, 20, 30, 39, 49], [1, 2, 3])
    """
    return sorted({int(number) for number in np.rint(np.linspace(1, count, min(most, count)))})


def drawn_channels(classifier: Classifier, name: str, shape: Sequence[int], count: int, seed: int):
    """Random channels of a layer, the same for every training of the architecture."""
    image = jax.ShapeDtypeStruct(tuple(shape), jnp.float32)
    outputs = jax.eval_shape(lambda c, x: c.activations(x, layers=[name]), classifier, image)
    channels = outputs[name].shape[-1]
    rng = np.random.default_rng([seed, *name.encode()])
    return rng.choice(channels, min(count, channels), replace=False)


def measure(images: Any) -> dict[str, list[float]]:
    """All measures that are defined for such images, one value an image."""
    coloured = images.shape[-1] == 3
    return {
        name: list(map(float, function(images)))
        for name, function in MEASURES.items()
        if coloured or not name.startswith("chroma")
    }


def visualize(
    pairs: trained.Pairs,
    *,
    layers: Sequence[int] | None,
    styles: Sequence[str],
    filters: int,
    steps: dict[str, int | None],
    seed: int,
) -> tuple[dict[str, Any], dict[str, dict[int, dict[str, np.ndarray]]]]:
    """The images of all pairs of one architecture, measured, and those of the first pair.

    Args:
      pairs: STD and ADV of each seed.
      layers: numbers of convolutions; None spreads them over the depth.
      styles: of `feature_visualization.maximize`.
      filters: how many a layer.
      steps: of gradient ascent, by style; None is the style's own.
      seed: of filters, starts and transformations, the same for every training.

    Returns:
      What the JSON file holds of the architecture, and {style: {layer: {"std" | "adv": images}}}.

    Raises:
      ValueError: for a layer that the architecture does not have.
    """
    shape = (checkpoints.read_config(pairs[0][0].folder) or {})["image_shape"]
    classifiers = [[one.load() for one in pair] for pair in pairs]
    names = classifiers[0][0].conv_layers(shape)
    numbers = list(layers) if layers else evenly(len(names))
    wrong = [number for number in numbers if not 1 <= number <= len(names)]
    if wrong:
        raise ValueError(
            f"layers must be numbers of convolutions from 1 to {len(names)}, got {wrong[0]}."
        )
    title = trained.title_of(pairs[0])
    progress = command.Steps(title, len(styles) * len(numbers) * len(pairs) * 2, images=filters)
    record: dict[str, Any] = {
        "image_shape": list(shape),
        "convolutions": len(names),
        "pairs": trained.pairs_described(pairs),
        "styles": {},
    }
    shown: dict[str, dict[int, dict[str, np.ndarray]]] = {}
    for style in styles:
        options = feature_visualization.complete_options(shape, style=style, steps=steps[style])
        record["styles"][style] = {
            "options": {name: _plain(value) for name, value in options.items()},
            "layers": {},
        }
        shown[style] = {}
        for number in numbers:
            name = names[number - 1]
            channels = drawn_channels(classifiers[0][0], name, shape, filters, seed)
            key = jax.random.fold_in(jax.random.key(seed), number)
            values: dict[str, list[dict[str, list[float]]]] = {"std": [], "adv": []}
            for position, pair in enumerate(classifiers):
                for run, classifier in zip(values, pair, strict=True):
                    images = np.asarray(
                        feature_visualization.maximize(
                            classifier,
                            name,
                            channels,
                            key=key,
                            image_shape=shape,
                            style=style,
                            steps=steps[style],
                        )
                    )
                    values[run].append(measure(images))
                    if position == 0:
                        shown[style].setdefault(number, {})[run] = images
                    progress.step()
            record["styles"][style]["layers"][str(number)] = {
                "name": name,
                "channels": channels.tolist(),
                "differences": compare([values]),
                **values,
            }
        deepest = [number for number in numbers if number > 2 * len(names) / 3]
        found = record["styles"][style]["layers"]
        record["styles"][style]["deepest_third"] = {
            "layers": deepest,
            "differences": compare([found[str(number)] for number in deepest]),
        }
    progress.close(f"{title}: {progress.total * filters} images in {progress.elapsed:.0f} s")
    return record, shown


def compare(layers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """ADV - STD of each measure over seeds and, within them, the filters of the layers together.

    Filters of two trainings do not correspond: which of them make a pair is arbitrary, and no
    matter for the mean.
    """
    result: dict[str, Any] = {}
    for name in layers[0]["std"][0] if layers else ():
        std, adv = (
            [
                np.concatenate([layer[run][seed][name] for layer in layers])
                for seed in range(len(layers[0][run]))
            ]
            for run in ("std", "adv")
        )
        change = statistics.compare(std, adv, "negative")
        verdict = change.pop("verdict")
        by_seed = [[statistics.defined_mean(values) for values in run] for run in (std, adv)]
        result[name] = {
            "std": float(np.mean(by_seed[0])),
            "adv": float(np.mean(by_seed[1])),
            "std_by_seed": by_seed[0],
            "adv_by_seed": by_seed[1],
            **change,
            "adv_smaller": verdict,
        }
    return result


def draw(
    images: dict[int, dict[str, np.ndarray]], *, title: str, note: str, filters: int, path: Path
) -> None:
    """Layers from left to right, the filters of STD above those of ADV."""
    count = min(filters, *(len(runs["std"]) for runs in images.values()))
    rows = [
        [np.clip(runs[run][position], 0.0, 1.0) for runs in images.values()]
        for run in ("std", "adv")
        for position in range(count)
    ]
    plots.grid(
        rows,
        column_titles=[f"conv {number}" for number in images],
        row_groups=[("STD", count), ("ADV", count)],
        title=title,
        note=note,
        frames=True,  # a white image on white paper needs an edge
        path=path,
    )


def write_tiles(
    images: dict[int, dict[str, np.ndarray]], layers: dict[str, Any], path: Path
) -> list[Path]:
    """Rows of images, a file for each layer and run, noted in the record's layers; the files."""
    written = []
    for number, runs in images.items():
        layers[str(number)]["tiles"] = {}
        for run, values in runs.items():
            written.append(path.with_name(f"{path.stem}_tiles_{number}_{run}.png"))
            name = tiles.write(values[: tiles.MOST], written[-1])
            layers[str(number)]["tiles"][run] = name
    return written


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str) else repr(value)


def _show_table(title: str, record: dict[str, Any]) -> None:
    for style, found in record["styles"].items():
        print(f"\n{title}, {STYLES[style]}: STD, ADV, ADV - STD [95 % interval]")
        rows = [(f"conv {n}", layer["differences"]) for n, layer in found["layers"].items()]
        rows.append(("deepest third", found["deepest_third"]["differences"]))
        for name, differences in rows:
            for measured, change in differences.items():
                print(
                    f"  {name:14}{measured:19}{change['std']:9.4f}{change['adv']:9.4f}"
                    f"  {statistics.as_text(change)}"
                    f"  smaller: {change['adv_smaller']}"
                )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which filters, and how they are visualised."""
    tiles.add_argument(parser)
    at_least_1 = command.whole_number(1)
    parser.add_argument(
        "--layers",
        nargs="+",
        type=at_least_1,
        metavar="N",
        help="the paper's numbers of convolutions, 1 is the first (default: 6 over the depth)",
    )
    parser.add_argument(
        "--styles", nargs="+", choices=STYLES, default=list(STYLES), help="(default: both)"
    )
    for name, default, text in (
        ("--filters", 4, "drawn, a layer (default: %(default)s)"),
        ("--measured-filters", 16, "measured, the drawn ones among them (default: %(default)s)"),
        ("--steps", None, "of the plain form (default: 30)"),
        ("--regularized-steps", None, "of the regularised form (default: 512)"),
    ):
        parser.add_argument(name, type=at_least_1, default=default, metavar="N", help=text)
    parser.add_argument(
        "--seed",
        type=command.whole_number(0),
        default=0,
        metavar="N",
        help="of filters and starts (default: 0)",
    )


def examine(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[Path]]:
    """Visualises, measures and draws filters of every architecture."""
    architectures, written = {}, []
    for title, pairs in trained.by_architecture(arguments.workdirs).items():
        architectures[title], images = visualize(
            pairs,
            layers=arguments.layers,
            styles=arguments.styles,
            filters=max(arguments.filters, arguments.measured_filters),
            steps={"paper": arguments.steps, "regularized": arguments.regularized_steps},
            seed=arguments.seed,
        )
        for style in arguments.styles:
            written.append(arguments.out / f"{_NAME}_{trained.slug(title)}_{style}.png")
            draw(
                images[style],
                title=f"{title}: images that maximise filters by depth ({STYLES[style]})",
                note=f"Random filters of each layer, seed {pairs[0][0].seed}"
                + ("; clipped to [0, 1] to be shown." if style == "paper" else "."),
                filters=arguments.filters,
                path=written[-1],
            )
            if arguments.tiles:
                layers = architectures[title]["styles"][style]["layers"]
                written += write_tiles(images[style], layers, written[-1])
        _show_table(title, architectures[title])
    return architectures, written


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the figures and writes what was measured."""
    command.run(_NAME, argv, document=__doc__, examine=examine, add_arguments=add_arguments)


if __name__ == "__main__":
    main()
