"""The paper's variants of the pictures, and which pictures trainings have right on them.

    on = accuracies.measure(one, {"σ = 1": accuracies.blurred(1.0)})
    on["σ = 1"].top1

A training is evaluated under all variants in one pass over the data; what was measured is kept
beside its checkpoint and not measured again (`jaxrobust.evaluation.outcomes`).
"""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxrobust import filters, plots
from jaxrobust.data import pipeline, sources
from jaxrobust.data.dataset_config import DatasetConfig, resolve
from jaxrobust.evaluation import outcomes
from jaxrobust.evaluation.outcomes import Outcome
from jaxrobust.experiments import statistics, trained
from jaxrobust.experiments.experiment import whole_number
from jaxrobust.stylization.copy_plan import class_folders
from jaxrobust.training import checkpoints, study

Variant = dict[str, Any]

RUNS = ("std", "adv")
SEED = 0  # of attacks
# Figure 6: pixels along the kernel's side, standard deviations in pixels; 5 x 5, so many times.
BLUR_KERNEL, MEDIAN_KERNEL = 7, 5
SIGMAS = tuple(quarter / 4 for quarter in range(21))
TIMES = tuple(range(6))
# Table 2 reverses about the mean of ImageNet.
REVERSED_ABOUT = (0.485, 0.456, 0.406)
FILTERS_NOTE = (
    f"Gaussian blur of {BLUR_KERNEL} × {BLUR_KERNEL} pixels, σ in pixels; median filter of "
    f"{MEDIAN_KERNEL} × {MEDIAN_KERNEL} pixels"
)


def blurred(sigma: float) -> Variant:
    """Gaussian blur as in Figure 6, `sigma` in pixels."""
    return {"name": "gaussian_blur", "sigma": float(sigma), "kernel_size": BLUR_KERNEL}


def median_filtered(times: int) -> Variant:
    """The median filter of Figure 6, so many times."""
    return {"name": "median_filter", "times": int(times), "kernel_size": MEDIAN_KERNEL}


def reversed_colors() -> Variant:
    """Colours reversed as in Table 2, whatever the data set: about the mean of ImageNet."""
    return {"name": "reverse_colors", "mean": list(REVERSED_ABOUT)}


def has_colors(one: trained.Trained) -> bool:
    """Whether a training's pictures have colours; grey ones of one channel have none to reverse."""
    return (checkpoints.read_config(one.folder) or {})["image_shape"][-1] == 3


def filtered(images: np.ndarray, variant: Variant) -> np.ndarray:
    """The images under a variant, to be looked at."""
    options = dict(variant)
    return np.asarray(filters.get(options.pop("name"))(images, **options))


@dataclass(frozen=True, eq=False)
class Accuracy:
    """Of one training on one variant of a split, in per cent.

    Attributes:
      top1: the label is first.
      top5: the label is among the first five; None where there are at most five classes, and under
        attack.
      texture: the class of the picture's texture is first; None where pictures have none.
      right: float64 (n,), 100 where the label is first, else 0: `top1` is its mean.
      seconds: that AutoAttack took, compilation included; None of anything else.
    """

    top1: float
    top5: float | None
    texture: float | None
    right: np.ndarray = field(repr=False)
    seconds: float | None = None


Runs = Mapping[str, Sequence[Mapping[str, Accuracy]]]  # {"std" | "adv": {variant: …} of each seed}


def measure(
    one: trained.Trained,
    variants: Mapping[str, Variant | None],
    *,
    attacks: Mapping[str, Mapping[str, Any]] | None = None,
    dataset: Any = None,
    split: str | None = None,
    batch_size: int | None = None,
    title: str = "",
) -> dict[str, Accuracy]:
    """The accuracies of a training on variants of a split.

    Args:
      one: the training; which images it has right is kept beside its checkpoint.
      variants: {name: {"name": filter, options}}; None stands for the pictures as they are.
      attacks: {name: {"name": attack, options}}: pictures that are right both clean and attacked.
      dataset: other data than those of the training's config, as its `dataset`.
      split: None is the data's evaluation split.
      batch_size: images at once over all devices, rounded up to a multiple of their number; None is
        the config's for evaluation.
      title: of the progress line.

    Raises:
      FileNotFoundError, ValueError: when the data cannot be opened, or an option is wrong.
    """
    # Worker processes need a program of their own kind; threads do as well.
    dataset = ConfigDict((dataset or one.config.dataset).to_dict() | {"workers": 0})
    devices = jax.device_count()
    wanted = batch_size or one.config.evaluation.batch_size
    found = outcomes.measure(
        one.folder,
        pipeline.describe(dataset),
        {name: {"variant": variant} if variant else {} for name, variant in variants.items()}
        | {name: {"attack": dict(attack)} for name, attack in (attacks or {}).items()},
        split=split,
        seed=SEED,
        batch_size=-(-wanted // devices) * devices,
        title=title or f"{one.title}, seed {one.seed}",
    )
    classes = number_of_classes(one)
    return {name: _accuracy(outcome, classes) for name, outcome in found.items()}


def measure_pairs(
    pairs: trained.Pairs, variants: Mapping[str, Variant | None], *, what: str = "", **options: Any
) -> dict[str, list[dict[str, Accuracy]]]:
    """{"std" | "adv": `measure` of each seed} for the pairs of one architecture.

    Args:
      pairs: of trainings.
      variants, options: as for `measure`.
      what: said in the progress line.
    """
    runs: dict[str, list[dict[str, Accuracy]]] = {run: [] for run in RUNS}
    for position, pair in enumerate(pairs):
        for index, (run, one) in enumerate(zip(runs, pair, strict=True), start=1):
            number = f"{2 * position + index}/{2 * len(pairs)}"
            title = f"{one.title}, seed {one.seed}{what and f', {what}'} ({number})"
            runs[run].append(measure(one, variants, title=title, **options))
    return runs


def as_evaluated(pairs: trained.Pairs) -> dict[str, dict[str, list[float | None]]] | None:
    """What the trainings' own evaluation found: {run: {"clean" or attack: per cent of each seed}}.

    None where one of them was not evaluated. Attacks are described as under a study's table; of a
    seed that was not attacked so there is None.
    """
    rates: dict[str, list[dict[str, float]]] = {run: [] for run in RUNS}
    for run, one in ((run, one) for pair in pairs for run, one in zip(RUNS, pair, strict=True)):
        results = one.evaluation()
        if results is None:
            return None
        rates[run].append(_rates(results))
    names = dict.fromkeys(name for seeds in rates.values() for seed in seeds for name in seed)
    return {
        run: {name: [seed.get(name) for seed in seeds] for name in names}
        for run, seeds in rates.items()
    }


def _rates(results: Mapping[str, Any]) -> dict[str, float]:
    rates = {"clean": results["clean"]["top1"]}
    for attack in results["attacks"]:
        title = name = study.attack_in_words(attack)
        # Where they differ in what is not said: none is lost.
        number = 2
        while name in rates:
            name, number = f"{title} ({number})", number + 1
        rates[name] = attack["robust_accuracy"]
    return rates


def radius_as_text(epsilon: float) -> str:
    """A radius in levels where it is a whole number of them.

    Example:
      >>> radius_as_text(8 / 255), radius_as_text(0.005)
      ('8/255', '0.005')
    """
    levels = epsilon * 255
    return f"{levels:.0f}/255" if abs(levels - round(levels)) < 1e-6 else f"{epsilon:g}"


def number_of_classes(one: trained.Trained) -> int:
    """Of the data that the training was made for."""
    return (checkpoints.read_config(one.folder) or {})["model"]["num_classes"]


def stylized_dataset(one: trained.Trained, folder: Path) -> ConfigDict:
    """The `dataset` of a config for a stylised copy of a training's data.

    Args:
      one: the training.
      folder: an image folder, as `python -m jaxrobust.stylization copy` writes it.

    Raises:
      FileNotFoundError: when there is no such folder, or no split in it.
      ValueError: when its classes are not those of the training's data set.
    """
    resolved, dataset = resolve(one.config.dataset)
    own = sources.open_split(resolved, dataset, resolved.evaluation_split)
    copy = DatasetConfig(name="image_folder", path=str(folder), image_size=resolved.image_size)
    split = resolve(copy)[0].evaluation_split
    # A folder of one split alone has no other to train on.
    copy = dataclasses.replace(copy, train_split=split, evaluation_split=split)
    names = pipeline.describe(copy).class_names
    if names != class_folders(own):
        raise ValueError(
            f"{folder} must have the classes of {dataset.title}, {_some(class_folders(own))}, "
            f"got {_some(names)}."
        )
    return ConfigDict(dataclasses.asdict(copy))


def has_cue_conflict(one: trained.Trained) -> bool:
    """Whether the data have pictures of one class with another's texture, labelled by shape."""
    resolved, dataset = resolve(one.config.dataset)
    by_shape = (dataset.tfds_name or "").startswith("textured_shapes/shape")
    return by_shape and "cue_conflict" in sources.split_sizes(resolved, dataset)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of experiments that evaluate."""
    parser.add_argument(
        "--batch-size",
        type=whole_number(1),
        metavar="N",
        help="images at once over all devices (default: as in the config of the training)",
    )


def add_stylized_argument(parser: argparse.ArgumentParser) -> None:
    """Where stylised pictures are, if there are any."""
    parser.add_argument(
        "--stylized",
        type=Path,
        metavar="FOLDER",
        help="a stylised copy of the evaluation pictures (python -m jaxrobust.stylization copy)",
    )


def ahead(runs: Runs, name: str, first: str = "std", second: str = "adv") -> dict[str, Any]:
    """Whether `second` has more images right on a variant: {"adv_minus_std": …, "verdict": …}."""
    right = [[seed[name].right for seed in runs[run]] for run in (first, second)]
    change = statistics.compare(*right, "positive")
    verdict = change.pop("verdict")
    return {f"{second}_minus_{first}": change, "verdict": verdict}


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation (n - 1; None of one) and the values themselves, as JSON."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": spread, "by_seed": list(values)}


def draw_beside_paper(
    panels: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]],
    papers: Mapping[str, Mapping[str, Mapping[str, tuple[float, float]]]],
    *,
    note: str,
    **options: Any,
) -> None:
    """Bars of STD and ADV, a panel an architecture; the paper's, for ImageNet, pale behind them.

    Args:
      panels: {title: {run: {name of the bar: what `over_seeds` gives}}}.
      papers: {title: {run: {name of the bar: (mean, standard deviation)}}}.
      note, options: of `plots.bars`.
    """

    def grouped(runs: Mapping[str, Mapping[str, tuple[float, Any]]]) -> dict[str, dict]:
        return {
            name: {run.upper(): runs[run][name] for run in runs if np.isfinite(runs[run][name][0])}
            for name in next(iter(runs.values()))
        }

    ours = {
        title: grouped(
            {
                run: {name: (one["mean"], one["std"]) for name, one in of_run.items()}
                for run, of_run in runs.items()
            }
        )
        for title, runs in panels.items()
    }
    theirs = {f"the paper: {title}, ImageNet": grouped(runs) for title, runs in papers.items()}
    spread = "Lines: ± one standard deviation over trainings. "
    plots.bars(ours | theirs, pale=list(theirs), note=spread + note, **options)


def _accuracy(outcome: Outcome, classes: int) -> Accuracy:
    def per_cent(count: int | None) -> float | None:
        return None if count is None else 100.0 * count / outcome.n

    return Accuracy(
        top1=100.0 * outcome.top1 / outcome.n,
        top5=per_cent(outcome.top5) if classes > 5 else None,
        texture=per_cent(outcome.texture),
        right=100.0 * outcome.right,
        seconds=sum(outcome.details["seconds"].values()) if outcome.details else None,
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f", … ({len(names)})" if len(names) > 3 else "")
