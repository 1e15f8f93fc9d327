"""The evaluation of a trained network that a config asks for, as it stands in results.json."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxrobust.classifier import Classifier
from jaxrobust.data import pipeline
from jaxrobust.evaluation import attack_options, outcomes
from jaxrobust.evaluation.outcomes import Outcome


@dataclasses.dataclass(frozen=True)
class EvaluationPlan:
    """What is evaluated, `config.evaluation` as plain values.

    Attributes:
      batch_size: the most images at once, over all devices.
      seed: of the attacks.
      attacks: {name: {"name": attack, options}}; AutoAttack may have `images`, how many of the
        first ones it is tried on.
      variants: {name: {"name": filter, options}}.
      cue_conflict: whether shape or texture decides is counted; None: where the data has the split.
    """

    batch_size: int
    seed: int
    attacks: Mapping[str, Mapping[str, Any]]
    variants: Mapping[str, Mapping[str, Any]]
    cue_conflict: bool | None


def report(
    plan: EvaluationPlan,
    classifier: Classifier | None,
    *,
    data: pipeline.DatasetInfo,
    folder: Path,
    title: str,
    every: float,
) -> dict[str, Any]:
    """Rates in per cent, from outcomes that are kept beside the checkpoint.

    Args:
      plan: what is evaluated.
      classifier: of the newest checkpoint in the folder; None: loaded when it is needed.
      data: the data set, as `pipeline.describe` gives it.
      folder: of the run and seed.
      title: of the progress lines.
      every: seconds between two of them.
    """
    measure = functools.partial(
        outcomes.measure,
        folder,
        data,
        classifier=classifier,
        batch_size=plan.batch_size,
        seed=plan.seed,
        every=every,
    )
    found = measure(
        {"clean": {}}
        | {f"attack {name}": {"attack": attack} for name, attack in plan.attacks.items()}
        | {f"variant {name}": {"variant": variant} for name, variant in plan.variants.items()},
        title=f"{title}  evaluation",
    )
    clean = found["clean"]
    results: dict[str, Any] = {
        "clean": _accuracies(clean, data.num_classes),
        "attacks": [
            _attack_entry(attack, found[f"attack {name}"], clean, plan.seed)
            for name, attack in plan.attacks.items()
        ],
    }
    if plan.variants:
        results["variants"] = {
            name: dict(variant) | _accuracies(found[f"variant {name}"], data.num_classes)
            for name, variant in plan.variants.items()
        }
    if plan.cue_conflict or (plan.cue_conflict is None and "cue_conflict" in data.splits):
        conflict = measure({"clean": {}}, split="cue_conflict", title=f"{title}  cue conflict")
        results["cue_conflict"] = {
            "shape": _per_cent(conflict["clean"].top1, conflict["clean"].n),
            "texture": _per_cent(conflict["clean"].texture, conflict["clean"].n),
            "n": conflict["clean"].n,
        }
    return results


def _accuracies(outcome: Outcome, num_classes: int) -> dict[str, Any]:
    return {
        "top1": _per_cent(outcome.top1, outcome.n),
        # Of five classes or fewer, the label is always among the five.
        "top5": _per_cent(outcome.top5, outcome.n) if num_classes > 5 else None,
        "n": outcome.n,
    }


def _attack_entry(
    attack: Mapping[str, Any], robust: Outcome, clean: Outcome, seed: int
) -> dict[str, Any]:
    options = attack_options.complete_options(attack)
    named = ("norm", "epsilon", "steps", "step_size", "restarts", "random_start")
    # Of the same images: those that were attacked.
    right = int(clean.right[: robust.n].sum())
    entry = {
        "name": attack["name"],
        **{name: options.get(name) for name in named},
        "robust_accuracy": _per_cent(robust.top1, robust.n),
        "defense_success_rate": _per_cent(robust.top1, right),
        "n": robust.n,
        "seed": seed,
    }
    if robust.details is None:
        return entry
    asked = {name: options[name] for name in ("attacks", "queries", "images")}
    return entry | asked | {"clean_accuracy": _per_cent(right, robust.n), **robust.details}


def _per_cent(part: int | None, whole: int) -> float | None:
    return 100.0 * part / whole if whole and part is not None else None
