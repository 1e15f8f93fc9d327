"""Sensitivity maps of STD above ADV: Figure 2 of the paper, 13 (AlexNet) and 14 (ResNet-50).

    python -m experiments.figure2_sensitivity_maps --workdirs runs/quickstart

draws, for every architecture among the workdirs, the maps of some evaluation images (of the first
pair of trainings) for their true class, each on its own scale: mid-grey is zero. The figures
behind them are, over more images and all pairs of trainings: the radial spectral centroid of the
maps, the share of their power above half Nyquist and, where the data set has masks, the shares of
their energy along the silhouette and inside it. Claim 2, that the maps of ADV ignore fine texture,
holds for a method when its centroid is lower and its share along the silhouette higher than STD's.

Cost: about a minute for the quickstart's six models on two CPU cores.
"""

import argparse
import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import statistics, trained
from jaxrobust import Classifier, __version__, batching, map_metrics, plots, saliency
from jaxrobust.files import write_json
from jaxrobust.logs import Progress

_NAME = "figure2_sensitivity_maps"
_MOST_PICTURES = 10
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
MEASURES = {
    "spectral_centroid": "centroid (cycles/pixel)",
    "high_frequency_share": "share above half Nyquist",
    "band_share": "share along silhouette",
    "inside_share": "share inside silhouette",
}
RUNS = {"random": "Random", "std": "STD", "adv": "ADV"}
# Claim 2: the side of 0 on which ADV - STD is to lie, and the methods of the paper's Figure 2.
CLAIM = {"spectral_centroid": "negative", "band_share": "positive"}
CLAIMED = ("vanilla_gradient", "loss_gradient", "guided_backprop")

Pairs = list[tuple[trained.Trained, trained.Trained]]


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
    pictures: trained.Pictures,
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


def measure(maps: np.ndarray, masks: np.ndarray | None) -> dict[str, np.ndarray]:
    """All measures of the maps, one value an image; those on a silhouette only with masks."""
    values = {
        "spectral_centroid": map_metrics.spectral_centroid(maps),
        "high_frequency_share": map_metrics.high_frequency_share(maps),
    }
    if masks is not None:
        values["band_share"] = map_metrics.band_share(maps, masks)
        values["inside_share"] = map_metrics.energy_share(maps, masks)
    return values


def defined_mean(values: np.ndarray) -> float:
    """The mean without the values that are not defined; NaN when none is.

    Example:
      >>> defined_mean(np.array([1.0, np.nan, 3.0]))
      2.0
    """
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")


def compare(first: Sequence[np.ndarray], second: Sequence[np.ndarray], side: str | None) -> dict:
    """Second - first over pairs of trainings and, within them, images, as JSON.

    Args:
      first, second: for each pair of trainings (images,), NaN where not defined.
      side: on which the difference is claimed to lie, "positive" or "negative"; None: no claim.

    Returns:
      The fields of `statistics.Difference` and, with a side, the verdict; without an interval and
      open when a pair has no image at which both are defined, or there is one such image in all.
    """
    defined = [
        int(np.sum(~np.isnan(one + other))) for one, other in zip(first, second, strict=True)
    ]
    if min(defined) == 0 or sum(defined) == 1:
        empty = {"mean": None, "low": None, "high": None}
        return empty | ({"verdict": "open"} if side else {})
    change = statistics.difference(first, second, leave_out_undefined=True)
    verdict = {"verdict": change.verdict(side)} if side else {}
    return dataclasses.asdict(change) | verdict


def all_hold(verdicts: Iterable[str]) -> str:
    """The verdict of several claims together; what is not measured leaves it open.

    Example:
      >>> all_hold(["holds", "holds"]), all_hold(["holds", "open"]), all_hold([])
      ('holds', 'open', 'open')
    """
    found = set(verdicts)
    if "does not hold" in found:
        return "does not hold"
    return "holds" if found == {"holds"} else "open"


def shown_positions(labels: np.ndarray, count: int) -> list[int]:
    """Which pictures to draw: spread over the classes, of those that lead with one of each class.

    Example:
      >>> shown_positions(np.array([0, 1, 2, 3, 0, 1]), 2), shown_positions(np.array([0, 1, 0]), 3)
      ([0, 2], [0, 1, 2])
    """
    leading = len(np.unique(labels))
    if count > leading:
        return list(range(min(count, len(labels))))
    return [position * leading // count for position in range(count)]


def examine(
    pairs: Pairs,
    pictures: trained.Pictures,
    names: Sequence[str],
    *,
    seed: int,
    batch_size: int | None,
) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """The maps of all pairs of one architecture, measured, and those of the first pair.

    Args:
      pairs: STD and ADV of each seed.
      pictures: what they look at.
      names: of methods.
      seed, batch_size: as for `maps_of`.

    Returns:
      {method: figures} for the JSON file, and {method: {"std" | "adv": maps}}.
    """
    classifiers = [[one.load() for one in pair] for pair in pairs]
    progress = Progress(title_of(pairs[0]), len(names) * len(pairs) * 2, images=len(pictures))
    done = 0
    record: dict[str, Any] = {}
    shown: dict[str, dict[str, np.ndarray]] = {}
    for name in names:
        values: dict[str, list[dict[str, np.ndarray]]] = {"std": [], "adv": []}
        shown[name] = {}
        for pair in classifiers:
            for run, classifier in zip(values, pair, strict=True):
                maps = maps_of(classifier, name, pictures, seed=seed, batch_size=batch_size)
                values[run].append(measure(maps, pictures.masks))
                shown[name].setdefault(run, maps)
                done += 1
                progress.mark(done)
                if progress.due():
                    progress.show(done)
        record[name] = {"measures": {}}
        for measured in values["std"][0]:
            both = {run: [one[measured] for one in values[run]] for run in values}
            means = {run: [defined_mean(one) for one in both[run]] for run in both}
            record[name]["measures"][measured] = {
                "std": float(np.mean(means["std"])),
                "adv": float(np.mean(means["adv"])),
                "std_by_seed": means["std"],
                "adv_by_seed": means["adv"],
                "undefined": {
                    run: int(sum(np.isnan(one).sum() for one in both[run])) for run in both
                },
                "difference": compare(both["std"], both["adv"], CLAIM.get(measured)),
            }
        found = record[name]["measures"]
        record[name]["claim_2"] = all_hold(
            found[measured]["difference"]["verdict"] if measured in found else "open"
            for measured in CLAIM
        )
    progress.close(f"{title_of(pairs[0])}: {done * len(pictures)} maps in {progress.elapsed:.0f} s")
    return record, shown


def draw(
    pictures: trained.Pictures,
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


def title_of(pair: tuple[trained.Trained, trained.Trained]) -> str:
    """What STD and ADV have in common: the architecture, and more where that names several."""
    return pair[1].title.replace(" ADV", "", 1)


def by_architecture(workdirs: Sequence[Path]) -> dict[str, Pairs]:
    """The pairs of trainings in the workdirs: those that differ only in their seed together."""
    groups: dict[str, Pairs] = {}
    for pair in trained.pairs(trained.find(workdirs)):
        groups.setdefault(title_of(pair), []).append(pair)
    return groups


def slug(title: str) -> str:
    """A title in the name of a file.

    Example:
      >>> slug("ResNet-8 (small)")
      'resnet_8_small'
    """
    return re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_")


def whole_number(least: int) -> Callable[[str], int]:
    """What argparse calls with a text that is to be a whole number."""

    def parse(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"must be a whole number of at least {least}, got {text!r}"
            )
        return int(text)

    return parse


def add_arguments(parser: argparse.ArgumentParser, images: int) -> None:
    """The arguments of experiments on maps."""
    trained.add_arguments(parser)
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
        type=whole_number(1),
        default=images,
        metavar="N",
        help="measured, evenly over the classes (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, metavar="N", help="of noise (default: 0)"
    )
    parser.add_argument(
        "--batch-size",
        type=whole_number(1),
        metavar="N",
        help="images x samples at once (default: 32 of 224 x 224 pixels)",
    )


def described(arguments: argparse.Namespace) -> dict[str, Any]:
    """Settings and versions, and room for the architectures: what a JSON file begins with."""
    plain = {
        name: list(map(str, value)) if isinstance(value, list) else value
        for name, value in vars(arguments).items()
    }
    return {
        "settings": plain | {"out": str(arguments.out)},
        "versions": {"jaxrobust": __version__, "jax": jax.__version__},
        "architectures": {},
    }


def pairs_described(pairs: Pairs, pictures: trained.Pictures, positions: Sequence[int]) -> dict:
    """Which trainings and which pictures, as JSON."""
    return {
        "pairs": [{"seed": s.seed, "std": str(s.folder), "adv": str(a.folder)} for s, a in pairs],
        "dataset": pairs[0][0].config.dataset.name,
        "images": len(pictures),
        "masks": pictures.masks is not None,
        "index": pictures.index.tolist(),
        "drawn": [
            {
                "index": int(pictures.index[position]),
                "label": int(pictures.labels[position]),
                "class": pictures.class_names[pictures.labels[position]],
            }
            for position in positions
        ],
    }


def _show_table(title: str, found: dict[str, Any]) -> None:
    pairs = len(found["pairs"])
    print(f"\n{title}: {found['images']} images, {pairs} pair{'s' * (pairs > 1)} of trainings")
    print(f"  {'':47}{'STD':>8}{'ADV':>8}   ADV - STD [95 % interval]     claim 2")
    for name, method in found["methods"].items():
        for measured, values in method["measures"].items():
            change = values["difference"]
            interval, undefined = "not defined", values["undefined"]
            if change["mean"] is not None:
                interval = f"{change['mean']:+.4f} [{change['low']:+.4f}, {change['high']:+.4f}]"
            print(
                f"  {method_title(name):22}{MEASURES[measured]:25}{values['std']:8.4f}"
                f"{values['adv']:8.4f}   {interval:29} {change.get('verdict', '')}"
                + (f" (undefined: {undefined})" if any(undefined.values()) else "")
            )
    verdicts = ", ".join(f"{m} {method['claim_2']}" for m, method in found["methods"].items())
    print(f"  Claim 2, maps of ADV ignore fine texture: {verdicts}.")
    if not found["masks"]:
        print("  The data set has no masks: the half of the claim on silhouettes is not measured.")
    print(f"  Together, over the three methods of the paper's Figure 2: {found['claim_2']}.")


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the figures and writes what was measured."""
    parser = argparse.ArgumentParser(
        prog=f"python -m experiments.{_NAME}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser, images=200)
    parser.add_argument(
        "--pictures",
        type=whole_number(1),
        metavar="N",
        help=f"drawn, of the measured ones (default: one a class, at most {_MOST_PICTURES})",
    )
    arguments = parser.parse_args(argv)
    names = list(dict.fromkeys(arguments.methods))
    try:
        record = described(arguments)
        written = []
        for title, pairs in by_architecture(arguments.workdirs).items():
            pictures = trained.pictures(pairs[0][0].config, arguments.images, per_class=True)
            drawn = arguments.pictures or min(len(pictures.class_names), _MOST_PICTURES)
            positions = shown_positions(pictures.labels, min(drawn, len(pictures)))
            methods_found, maps = examine(
                pairs, pictures, names, seed=arguments.seed, batch_size=arguments.batch_size
            )
            found = pairs_described(pairs, pictures, positions) | {
                "methods": methods_found,
                "claim_2": all_hold(
                    methods_found[name]["claim_2"] if name in methods_found else "not measured"
                    for name in CLAIMED
                ),
            }
            record["architectures"][title] = found
            written.append(arguments.out / f"{_NAME}_{slug(title)}.png")
            draw(
                pictures,
                maps,
                positions,
                title=f"{title}: sensitivity maps for the true class",
                note="Each map on its own scale, clipped at ±3 standard deviations; mid-grey is "
                f"zero. Trainings of seed {pairs[0][0].seed}.",
                path=written[-1],
            )
            _show_table(title, found)
        written.append(arguments.out / f"{_NAME}.json")
        write_json(written[-1], record)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{error}\n")
    print("\nWrote " + ", ".join(map(str, written)))


if __name__ == "__main__":
    main()
