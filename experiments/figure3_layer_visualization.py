"""What the filters of STD and ADV look for, by depth: Figure 3 of the paper, and 15 to 19.

    python -m jaxrobust.experiments.figure3_layer_visualization --workdirs runs/quickstart

makes images that maximise random filters of several layers, once with the paper's plain settings
and once regularised (Fourier parameterisation, decorrelated colours, jitter, scale and rotation),
and draws four filters a layer, STD above ADV. The images are measured before they are clipped to be
shown, over all pairs of trainings: their radial spectral centroid and their energy of colour above
half Nyquist. Figures 15 to 19 are the same with other layers, by the paper's numbers of the
convolutions: --layers 9 14 19 24 29 34 39 44 49.

Cost: about 2 minutes for the quickstart's six models on two CPU cores.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust import Classifier, feature_visualization, map_metrics, plots
from jaxrobust.core.logs import Progress
from jaxrobust.experiments import result, statistics, tiles, trained
from jaxrobust.experiments.experiment import Experiment, whole_number
from jaxrobust.experiments.words import counted
from jaxrobust.training import checkpoints

RUNS = ("std", "adv")
STYLES = {"paper": "plain", "regularized": "regularised"}
# Functions of map_metrics; the paper says of the first two that ADV's deep layers have less.
MEASURES = {
    "spectral_centroid": "spectral centroid, cycles/pixel",
    "chroma_energy": "colour energy above half Nyquist",
    "chroma_share": "share of it in the colour energy",
}
CLAIMED = ("spectral_centroid", "chroma_energy")

Images = Mapping[int, Mapping[str, np.ndarray]]
"""{layer: {"std" | "adv": (filters, h, w, c)}}, of the first seed."""


def evenly(count: int, most: int = 6) -> list[int]:
    """Numbers of convolutions spread evenly over the depth, the first and the last included.

    Example:
      >>> evenly(49), evenly(3)
      ([1, 11, 20, 30, 39, 49], [1, 2, 3])
    """
    return sorted({int(number) for number in np.rint(np.linspace(1, count, min(most, count)))})


def drawn_channels(
    classifier: Classifier, name: str, shape: Sequence[int], count: int, seed: int
) -> np.ndarray:
    """Random channels of a layer, the same for every training of the architecture."""
    image = jax.ShapeDtypeStruct(tuple(shape), jnp.float32)
    outputs = jax.eval_shape(lambda c, x: c.activations(x, layers=[name]), classifier, image)
    channels = outputs[name].shape[-1]
    rng = np.random.default_rng([seed, *name.encode()])
    return rng.choice(channels, min(count, channels), replace=False)


def measure(images: Any) -> dict[str, list[float]]:
    """All measures that such images have, one value an image: grey ones have no colour."""
    names = MEASURES if images.shape[-1] == 3 else ["spectral_centroid"]
    return {name: [float(value) for value in getattr(map_metrics, name)(images)] for name in names}


def compare(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """ADV - STD of each measure over seeds and, within them, the filters of the layers together.

    Filters of two trainings do not correspond: which of them make a pair is arbitrary, and no
    matter for the mean. A layer holds {"std" | "adv": what `measure` returned of each seed}.
    """
    differences = {}
    for name in layers[0]["std"][0] if layers else ():
        std, adv = (
            [
                np.concatenate([values[name] for values in seed])
                for seed in zip(*of_layers, strict=True)
            ]
            for of_layers in ([layer[run] for layer in layers] for run in RUNS)
        )
        change = statistics.compare(std, adv, "negative")
        verdict = change.pop("verdict")
        by_seed = [[statistics.defined_mean(values) for values in run] for run in (std, adv)]
        differences[name] = {
            "std": float(np.mean(by_seed[0])),
            "adv": float(np.mean(by_seed[1])),
            "std_by_seed": by_seed[0],
            "adv_by_seed": by_seed[1],
            **change,
            "adv_smaller": verdict,
        }
    return differences


def visualize(
    classifiers: Sequence[tuple[str, Classifier]],
    layers: Mapping[int, str],
    *,
    filters: int,
    seed: int,
    progress: Progress,
    **options: Any,
) -> tuple[dict[str, Any], Images]:
    """Images that maximise random filters of all trainings, with what they measure by layer.

    Args:
      classifiers: ("std" | "adv", network) of every training.
      layers: {number of the convolution: its name}.
      filters, seed: so many of each layer, drawn with this seed, the same for every training.
      options: of `feature_visualization.maximize`.
    """
    measured, images = {}, {}
    for number, name in layers.items():
        shape = options["image_shape"]
        channels = drawn_channels(classifiers[0][1], name, shape, filters, seed)
        key = jax.random.fold_in(jax.random.key(seed), number)
        values: dict[str, Any] = {run: [] for run in RUNS}
        images[number] = {}
        for run, classifier in classifiers:
            made = feature_visualization.maximize(classifier, name, channels, key=key, **options)
            values[run].append(measure(made))
            images[number].setdefault(run, np.asarray(made))
            progress.step()
        differences = compare([values])
        described = {"name": name, "channels": channels.tolist(), "differences": differences}
        measured[str(number)] = described | values
    return measured, images


def draw(images: Images, *, title: str, note: str, filters: int, path: Path) -> None:
    """Layers from left to right, the filters of STD above those of ADV."""
    count = min(filters, *(len(runs["std"]) for runs in images.values()))
    plots.grid(
        [
            [np.clip(runs[run][position], 0.0, 1.0) for runs in images.values()]
            for run in RUNS
            for position in range(count)
        ],
        column_titles=[f"conv {number}" for number in images],
        row_groups=[(run.upper(), count) for run in RUNS],
        title=title,
        note=note,
        frames=True,  # a white image on white paper needs an edge
        path=path,
    )


def slider(title: str, images: Images, layers: Mapping[str, Any], path: Path) -> result.Box:
    """The same by layer, with the centroid of each; writes a row of images beside `path` for it."""
    panels = []
    for number, runs in images.items():
        centroid = layers[str(number)]["differences"]["spectral_centroid"]
        strips = []
        for run in RUNS:
            tile = path.with_name(f"{path.stem}_tiles_{number}_{run}.png")
            file = tiles.write(runs[run][: tiles.MOST], tile)
            heading = f"{run.upper()}: spectral centroid {centroid[run]:.3f} cycles/pixel"
            alt = f"Images that maximise filters of conv {number} of {run.upper()}"
            strips.append(result.Strip(file, heading, alt, run))
        panels.append(result.Panel(f"conv {number}", strips))
    return result.Box(title, "Depth", panels, slide=True, start=len(panels) - 1)


def rows(where: str, differences: Mapping[str, Any]) -> list[result.Measure]:
    """Each measure of some layers, and whether ADV's is smaller."""
    return [
        result.Measure(
            f"{where}: {MEASURES[name]}",
            *(result.Spread(change[f"{run}_by_seed"], digits=4) for run in RUNS),
            result.Change(change, digits=4),
            change["adv_smaller"],
        )
        for name, change in differences.items()
    ]


def table(caption: str, measured: Mapping[str, Any]) -> result.Table:
    """All measures of a style, by layer."""
    places = {f"conv {number}": layer for number, layer in measured["layers"].items()}
    cells = [
        [row.what, row.first, row.second, row.difference, result.Verdict(row.verdict)]
        for where, layer in (places | {"deepest third": measured["deepest_third"]}).items()
        for row in rows(where, layer["differences"])
    ]
    header = ["measure", "STD", "ADV", "ADV − STD [95 %]", "smaller"]
    return result.Table(header, cells, caption=caption, folded=True)


def decide(styles: Mapping[str, Any]) -> result.Decision:
    """Claim 4; the regularised images are only stated beside the plain ones."""
    measures = []
    for style, measured in styles.items():
        deepest = measured["deepest_third"]
        layers = f"{STYLES[style]} images, conv {', '.join(map(str, deepest['layers']))}"
        differences = deepest["differences"]
        claimed = rows(layers, {name: differences[name] for name in CLAIMED if name in differences})
        # Where anything was measured, what is missing is the colour that grey images do not have.
        claimed += [
            result.Measure(
                f"{layers}: {MEASURES[name]}", "–", "–", "–", verdict=statistics.NOT_APPLICABLE
            )
            for name in CLAIMED
            if differences and name not in differences
        ]
        decides = style == "paper"
        measures += claimed if decides else [replace(row, verdict="") for row in claimed]
    verdicts = [row.verdict for row in measures if row.verdict]
    complete = len(verdicts) == len(CLAIMED)
    return result.Decision(statistics.all_hold(verdicts) if complete else "not measured", measures)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which filters, and how they are visualised."""
    tiles.add_argument(parser)
    parser.add_argument(
        "--layers",
        nargs="+",
        type=whole_number(1),
        metavar="N",
        help="the paper's numbers of convolutions, 1 is the first (default: 6 over the depth)",
    )
    parser.add_argument(
        "--styles", nargs="+", choices=STYLES, default=list(STYLES), help="(default: both)"
    )
    for name, least, default, text in (
        ("--filters", 1, 4, "drawn, a layer (default: 4)"),
        ("--measured-filters", 1, 16, "measured, the drawn ones among them (default: 16)"),
        ("--steps", 1, None, "of the plain form (default: 30)"),
        ("--regularized-steps", 1, None, "of the regularised form (default: 512)"),
        ("--seed", 0, 0, "of filters and starts (default: 0)"),
    ):
        parser.add_argument(name, type=whole_number(least), default=default, metavar="N", help=text)


def examine(title: str, pairs: trained.Pairs, arguments: argparse.Namespace) -> result.Finding:
    """Visualises, measures and draws filters of one architecture."""
    shape = (checkpoints.read_config(pairs[0][0].folder) or {})["image_shape"]
    classifiers = [
        (run, training.load()) for pair in pairs for run, training in zip(RUNS, pair, strict=True)
    ]
    names = classifiers[0][1].conv_layers(shape)
    if not names:
        raise ValueError(f"{title} must have convolutions, whose filters are looked at, got none.")
    chosen = arguments.layers or evenly(len(names))
    if max(chosen) > len(names):
        raise ValueError(
            f"layers must be numbers of convolutions from 1 to {len(names)}, got {max(chosen)}."
        )
    deepest = [number for number in chosen if number > 2 * len(names) / 3]
    filters = max(arguments.filters, arguments.measured_filters)
    total = len(arguments.styles) * len(chosen) * len(classifiers)
    styles: dict[str, Any] = {}
    boxes, tables, figures = [], [], []
    with Progress(title, total, steps="layers", images=filters) as progress:
        for style in arguments.styles:
            steps = arguments.steps if style == "paper" else arguments.regularized_steps
            options = {"image_shape": shape, "style": style, "steps": steps}
            layers, images = visualize(
                classifiers,
                {number: names[number - 1] for number in chosen},
                filters=filters,
                seed=arguments.seed,
                progress=progress,
                **options,
            )
            complete = feature_visualization.complete_options(**options)
            differences = compare([layers[str(number)] for number in deepest])
            styles[style] = {
                "options": {
                    name: value if isinstance(value, int | float | str) else repr(value)
                    for name, value in complete.items()
                },
                "layers": layers,
                "deepest_third": {"layers": deepest, "differences": differences},
            }
            path = arguments.out / f"{EXPERIMENT.name}_{trained.slug(title)}_{style}.png"
            caption = f"{title}: images that maximise filters by depth ({STYLES[style]})"
            note = f"Random filters of each layer, seed {pairs[0][0].seed}"
            note += "; clipped to [0, 1] to be shown." if style == "paper" else "."
            draw(images, title=caption, note=note, filters=arguments.filters, path=path)
            figures.append(result.Figure(path.name, caption, folded=arguments.tiles))
            seeds = counted(len(pairs), "seed")
            tables.append(table(f"Measures, {STYLES[style]} images, {seeds}", styles[style]))
            if arguments.tiles:
                boxes.append(
                    slider(f"What filters look for, {STYLES[style]}", images, layers, path)
                )
        progress.close(f"{title}: {total * filters} images in {progress.elapsed:.0f} s")
    numbers = {
        "image_shape": shape,
        "convolutions": len(names),
        "pairs": trained.pairs_described(pairs),
        "styles": styles,
    }
    return result.Finding(numbers, [*boxes, *tables, *figures], {"4": decide(styles)})


def run(arguments: argparse.Namespace) -> result.Result:
    """Examines every architecture."""
    architectures = trained.by_architecture(arguments.workdirs)
    return result.Result(
        {title: examine(title, pairs, arguments) for title, pairs in architectures.items()}
    )


EXPERIMENT = Experiment(
    name="figure3_layer_visualization",
    title="Figures 3 and 15 to 19: what filters look for, by depth",
    short="Figure 3",
    paper="in deep layers ADV looks for larger, less cluttered structure than STD.",
    claims=(
        result.Claim(
            "4",
            "Deep layers look for larger structure, without small colour clutter",
            "both ADV − STD < 0 in the deepest third, in the paper's plain form",
        ),
    ),
    run=run,
    document=__doc__,
    add_arguments=add_arguments,
)

if __name__ == "__main__":
    EXPERIMENT.main()
