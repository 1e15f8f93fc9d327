"""Adversarial attacks: inside a norm ball and the pixel box [0, 1], or to the nearest boundary.

Every attack is `attack(classifier, images, labels, *, options)` and returns images. It is written
for one image and takes one or many (`jaxrobust.core.batching`); radii and steps are in pixel units,
whatever normalisation the classifier does inside. Files bear the attacks' long names: `fab` here is
the function, and `fast_boundary` its file.
"""

from collections.abc import Mapping
from typing import Any

from jaxrobust.attacks import ensemble, norms
from jaxrobust.attacks.auto_pgd import apgd
from jaxrobust.attacks.carlini_wagner import carlini_wagner
from jaxrobust.attacks.deep_fool import deepfool
from jaxrobust.attacks.ensemble import autoattack
from jaxrobust.attacks.fast_boundary import fab
from jaxrobust.attacks.losses import (
    LOSSES,
    Loss,
    cross_entropy,
    difference_of_logits_ratio,
    margin,
    misclassified,
)
from jaxrobust.attacks.minimum_norm import distances, robust_accuracy
from jaxrobust.attacks.momentum_ascent import momentum
from jaxrobust.attacks.projected_gradient import (
    ascend,
    check_ball,
    default_step_size,
    fgsm,
    pgd,
    start_in_ball,
)
from jaxrobust.attacks.random_squares import square
from jaxrobust.core import batching, named
from jaxrobust.core.types import Method

__all__ = [
    "ATTACKS",
    "DRIVERS",
    "LOSSES",
    "Loss",
    "apgd",
    "ascend",
    "autoattack",
    "carlini_wagner",
    "check_ball",
    "check_options",
    "complete_options",
    "cross_entropy",
    "deepfool",
    "difference_of_logits_ratio",
    "distances",
    "fab",
    "fgsm",
    "get",
    "margin",
    "misclassified",
    "momentum",
    "norms",
    "pgd",
    "robust_accuracy",
    "square",
    "start_in_ball",
]

ATTACKS: dict[str, Method] = {
    "fgsm": fgsm,
    "pgd": pgd,
    "apgd": apgd,
    "fab": fab,
    "square": square,
    "momentum": momentum,
    "deepfool": deepfool,
    "carlini_wagner": carlini_wagner,
}
# They take many images at once: a network is evaluated with them, not trained.
DRIVERS = ("autoattack",)


def get(name: str) -> Method:
    """The attack of that name, or a user's own: "package.module:function", as configs give it.

    Raises:
      ValueError: for an unknown name.

    Example:
      >>> get("pgd") is pgd
      True
    """
    return named.get("attack", ATTACKS, name)


def check_options(name: str, options: dict[str, Any]) -> None:
    """Raise now what an attack would raise about its options, before any training.

    Args:
      name: as `get` takes it, or "autoattack".
      options: of the attack.

    Raises:
      ValueError: for an unknown attack or option, a missing one, or a value out of its range.
    """
    if name in DRIVERS:
        ensemble.check_options(**named.complete(name, ensemble.check_options, options))
        return
    if ":" not in str(name):
        named.check_choice("attack", name, (*ATTACKS, *DRIVERS))
    attack = get(name)
    batching.check_options(attack, named.complete(name, attack, options))


def complete_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options that an attack runs with, defaults filled in, as a report should state them.

    Example:
      >>> complete_options("fgsm", {"epsilon": 0.25})["step_size"]
      0.25
    """
    chosen = {option: value for option, value in options.items() if option != "name"}
    if name in DRIVERS:
        return ensemble.complete_options(chosen)
    complete = named.complete(name, get(name), chosen)
    if name == "fgsm":
        complete |= {"steps": 1, "restarts": 1}
        complete["step_size"] = complete["step_size"] or complete["epsilon"]
    if name == "pgd" and complete["step_size"] is None:
        complete["step_size"] = default_step_size(**complete)
    if name == "momentum":
        complete["restarts"] = 1
        if complete["step_size"] is None:
            complete["step_size"] = complete["epsilon"] / complete["steps"]
    if name == "carlini_wagner":
        complete["norm"] = "l2"
    return complete
