"""The filters of the first layer, STD above ADV on one scale: Figure 4 of the paper.

    python -m jaxrobust.experiments.figure4_first_layer --workdirs runs/quickstart

draws the first convolution of every architecture among the workdirs (of its first seed), one filter
enlarged: the one that is largest in STD, for both. STD and ADV of an architecture share their
scale; mid-grey is zero. One picture shows the kernels as they are, one with the BatchNorm that
follows folded in. Measured are, over all pairs of trainings, the mean l_2 norm of the filters (the
paper finds smaller ones in ADV) and the share of their energy at the Nyquist corner (grid- or
checkerboard-like patterns in ADV).

Cost: seconds, after the models are loaded.
"""

import argparse
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrobust import feature_visualization, map_metrics, plots
from jaxrobust.experiments import result, statistics, trained
from jaxrobust.experiments.experiment import Experiment
from jaxrobust.experiments.words import counted
from jaxrobust.training import checkpoints

# The form that comes first decides; without a BatchNorm there is only the other.
FORMS = {"folded": "BatchNorm folded in", "raw": "as they are"}
MEASURES = {
    "l2_norm": "mean l2 norm of the filters",
    "nyquist_corner_share": "filter energy at the Nyquist corner",
}
# Where the paper has ADV - STD: smaller filters, more of the checkerboard.
SIDES = {"l2_norm": "negative", "nyquist_corner_share": "positive"}
_RULE = "ADV − STD {} 0; with the BatchNorm that follows, if one does, folded in"

Kernels = dict[str, dict[str, np.ndarray]]
"""{form: {"STD" | "ADV": filters (n, kh, kw, c)}}."""


def kernels_of(training: trained.Trained) -> dict[str, np.ndarray]:
    """The filters (n, kh, kw, c), raw and, where a BatchNorm follows, folded."""
    classifier = training.load()
    shape = (checkpoints.read_config(training.folder) or {})["image_shape"]
    kernels = {"raw": feature_visualization.first_layer_filters(classifier, shape)}
    with contextlib.suppress(ValueError):  # no BatchNorm follows
        kernels["folded"] = feature_visualization.first_layer_filters(
            classifier, shape, fold_batch_norm=True
        )
    return {form: np.asarray(values) for form, values in kernels.items()}


def deciding_form(forms: Mapping[str, Any]) -> str:
    """Of the forms of some filters the one that decides.

    Example:
      >>> deciding_form({"raw": [], "folded": []}), deciding_form({"raw": []})
      ('folded', 'raw')
    """
    return next(form for form in FORMS if form in forms)


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
    differences: dict[str, Any] = {}
    for name in std[0]:
        first, second = ([measures[name] for measures in run] for run in (std, adv))
        change = statistics.compare(first, second, SIDES[name])
        verdict = change.pop("verdict")
        means = {"std": float(np.mean(first)), "adv": float(np.mean(second))}
        differences[name] = means | change | {"claim": verdict}
    return differences


def decide(forms: Mapping[str, Any], name: str) -> result.Decision:
    """What one measure says of its claim."""
    measures = []
    for form, how in FORMS.items():
        if form in forms and name in forms[form]["differences"]:
            std, adv = (
                result.Spread([values[name] for values in forms[form][run]], digits=3)
                for run in ("std", "adv")
            )
            change = forms[form]["differences"][name]
            verdict = "" if measures else change["claim"]
            what = f"{MEASURES[name]}, {how}"
            measures.append(result.Measure(what, std, adv, result.Change(change), verdict))
    return result.Decision(measures[0].verdict if measures else "not measured", measures)


def draw(architectures: Mapping[str, Mapping[str, np.ndarray]], *, title: str, path: Path) -> None:
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


def examine(pairs: trained.Pairs) -> tuple[result.Finding, Kernels]:
    """What is found of one architecture, and the filters of its first seed."""
    kernels = [(kernels_of(standard), kernels_of(adversarial)) for standard, adversarial in pairs]
    forms, shown = {}, {}
    for form in kernels[0][0]:
        std, adv = ([measure(pair[index][form]) for pair in kernels] for index in (0, 1))
        forms[form] = {"std": std, "adv": adv, "differences": compare(std, adv)}
        shown[form] = {"STD": kernels[0][0][form], "ADV": kernels[0][1][form]}
    shape = kernels[0][0]["raw"].shape
    claims = {"3": decide(forms, "l2_norm"), "3b": decide(forms, "nyquist_corner_share")}
    table = result.Table(
        ["measure", "STD", "ADV", "ADV − STD [95 %]"],
        [
            [row.what, row.first, row.second, row.difference]
            for decision in claims.values()
            for row in decision.measures
        ],
        caption=f"{counted(shape[0], 'filter')}, {counted(len(pairs), 'seed')}",
    )
    note = result.Notes(["No BatchNorm follows the first layer: its filters count as they are."])
    numbers = {"pairs": trained.pairs_described(pairs), "filters": shape, "forms": forms}
    return result.Finding(numbers, [table] if "folded" in forms else [table, note], claims), shown


def run(arguments: argparse.Namespace) -> result.Result:
    """Measures the filters of every architecture and draws them side by side."""
    findings, shown = {}, {}
    for title, pairs in trained.by_architecture(arguments.workdirs).items():
        findings[title], shown[title] = examine(pairs)
    figures = []
    for form, how in FORMS.items():
        kernels = {title: forms[form] for title, forms in shown.items() if form in forms}
        if kernels:
            path = arguments.out / f"{EXPERIMENT.name}_{form}.png"
            caption = f"First-layer filters, {how}"
            draw(kernels, title=caption, path=path)
            figures.append(result.Figure(path.name, caption))
    return result.Result(findings, figures)


EXPERIMENT = Experiment(
    name="figure4_first_layer",
    title="Figure 4: filters of the first layer",
    short="Figure 4",
    paper="filters of ADV are smaller, and some show grids or checkerboards.",
    claims=(
        result.Claim("3", "First-layer filters are smaller", _RULE.format("<")),
        result.Claim(
            "3b",
            "Grid- or checkerboard-like patterns in the first layer",
            _RULE.format(">"),
        ),
    ),
    run=run,
    document=__doc__,
)

if __name__ == "__main__":
    EXPERIMENT.main()
