"""The filters of the first layer, STD above ADV on one scale: Figure 4 of the paper.

    python -m experiments.figure4_first_layer --workdirs runs/quickstart

draws the first convolution of every architecture among the workdirs (of its first seed), one filter
enlarged: the one that is largest in STD, for both. STD and ADV of an architecture share their
scale; mid-grey is zero. One picture shows the kernels as they are, one with the BatchNorm that
follows folded in. The figures behind them are the mean l_2 norm of the filters (the paper finds
smaller ones in ADV) and the share of their energy at the Nyquist corner (grid- or checkerboard-like
patterns in ADV), over all pairs of trainings.

Cost: seconds, after the models are loaded.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import command, statistics, trained
from jaxrobust import feature_visualization, map_metrics, plots
from jaxrobust.training import checkpoints

_NAME = "figure4_first_layer"
FORMS = {"raw": "as they are", "folded": "BatchNorm folded in"}
# What the paper says of ADV: smaller filters, more of the checkerboard.
CLAIMS = {"l2_norm": "negative", "nyquist_corner_share": "positive"}


def kernels_of(one: trained.Trained) -> dict[str, np.ndarray]:
    """The filters (n, kh, kw, c), raw and, where a BatchNorm follows, folded."""
    classifier = one.load()
    shape = (checkpoints.read_config(one.folder) or {})["image_shape"]
    kernels = {"raw": np.asarray(feature_visualization.first_layer_filters(classifier, shape))}
    try:
        kernels["folded"] = np.asarray(
            feature_visualization.first_layer_filters(classifier, shape, fold_batch_norm=True)
        )
    except ValueError as error:
        print(f"{one.title}: {error}")
    return kernels


def norms(kernels: np.ndarray) -> np.ndarray:
    """The l_2 norm of each filter.

    Example:
      >>> norms(np.full((1, 2, 2, 1), 0.5))
      array([1.])
    """
    return np.sqrt(np.square(kernels.astype(np.float64)).sum((1, 2, 3)))


def measure(kernels: np.ndarray) -> dict[str, float]:
    """Mean l_2 norm, and the share of energy at the Nyquist corner where filters have an extent."""
    measures = {"l2_norm": float(norms(kernels).mean())}
    if min(kernels.shape[1:3]) > 1:
        share = map_metrics.nyquist_corner_share(np.moveaxis(kernels, 0, -1))
        measures["nyquist_corner_share"] = float(share)
    return measures


def compare(std: Sequence[dict[str, float]], adv: Sequence[dict[str, float]]) -> dict[str, Any]:
    """STD, ADV and ADV - STD of each measure over seeds; no interval, and open, for one seed."""
    result: dict[str, Any] = {}
    for name in std[0]:
        first, second = ([measures[name] for measures in run] for run in (std, adv))
        change = statistics.compare(first, second, CLAIMS[name])
        verdict = change.pop("verdict")
        means = {"std": float(np.mean(first)), "adv": float(np.mean(second))}
        result[name] = means | change | {"claim": verdict}
    return result


def draw(architectures: dict[str, dict[str, np.ndarray]], *, title: str, path: Path) -> None:
    """A column an architecture, its STD above its ADV, on one scale for the two."""
    kernels, insets = {}, {}
    several = len(architectures) > 1
    if several:
        title += ", in units of each architecture's largest weight"
    for run in ("STD", "ADV"):
        for name, pair in architectures.items():
            peak = max(np.abs(values).max() for values in pair.values()) or 1.0
            kernels[f"{name} {run}"] = pair[run] / (peak if several else 1.0)
            insets[f"{name} {run}"] = int(np.argmax(norms(pair["STD"])))
    plots.filters(kernels, inset=insets, columns=len(architectures), title=title, path=path)


def _show_table(title: str, record: dict[str, Any]) -> None:
    print(f"\n{title}, first layer: STD, ADV, ADV - STD [95 % interval over seeds]")
    for form, found in record["forms"].items():
        for name, change in found["differences"].items():
            print(
                f"  {form:8}{name:22}{change['std']:9.4f}{change['adv']:9.4f}"
                f"  {statistics.as_text(change)}  {CLAIMS[name]}: {change['claim']}"
            )


def examine(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[Path]]:
    """Measures the filters of every architecture and draws them side by side."""
    architectures, written = {}, []
    shown: dict[str, dict[str, dict[str, np.ndarray]]] = {form: {} for form in FORMS}
    for title, pairs in trained.by_architecture(arguments.workdirs).items():
        kernels = [tuple(kernels_of(one) for one in pair) for pair in pairs]
        found: dict[str, Any] = {
            "pairs": trained.pairs_described(pairs),
            "filters": list(kernels[0][0]["raw"].shape),
            "forms": {},
        }
        for form in kernels[0][0]:
            std, adv = ([measure(pair[i][form]) for pair in kernels] for i in (0, 1))
            found["forms"][form] = {"std": std, "adv": adv, "differences": compare(std, adv)}
            shown[form][title] = {"STD": kernels[0][0][form], "ADV": kernels[0][1][form]}
        architectures[title] = found
        _show_table(title, found)
    for form, kernels_by_architecture in shown.items():
        if kernels_by_architecture:
            written.append(arguments.out / f"{_NAME}_{form}.png")
            draw(
                kernels_by_architecture,
                title=f"First-layer filters, {FORMS[form]}",
                path=written[-1],
            )
    return architectures, written


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the figures and writes what was measured."""
    command.run(_NAME, argv, document=__doc__, examine=examine)


if __name__ == "__main__":
    main()
