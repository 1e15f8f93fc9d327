"""The radii that a study trains against, among those that it is evaluated at by default."""

import math
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict

from jaxrobust.attacks import norms
from jaxrobust.evaluation import attack_options
from jaxrobust.training import config as configs


def evaluation_attacks(config: ConfigDict, runs: Iterable[ConfigDict]) -> dict[str, dict[str, Any]]:
    """The attacks that a run is evaluated with.

    A config that names its own gets what it names. Where the library's default ones are among them,
    PGD with the steps and restarts of the first of these is added at every radius that one of the
    runs trains against and no attack has: for all runs, so that they can be compared.

    Args:
      config: of one run, checked.
      runs: of all runs of the study.

    Example:
      >>> settings = configs.default()
      >>> settings.attack = {"name": "fgsm", "epsilon": 4 / 255}
      >>> list(evaluation_attacks(settings, [settings]))
      ['pgd_0_005', 'pgd_0_01', 'pgd_linf_0_0156863']
    """
    chosen = config.evaluation.attacks.to_dict()
    default = configs.default().evaluation.attacks.to_dict()
    if not default.keys() <= chosen.keys():
        return chosen
    name, first = next(iter(default.items()))
    counts = {option: chosen[name].get(option, first[option]) for option in ("steps", "restarts")}
    for run in runs:
        ball = _ball(run.attack)
        if ball is not None and not any(_same(ball, _ball(attack)) for attack in chosen.values()):
            norm, epsilon = ball
            name = f"pgd_{norm}_{epsilon:g}".replace(".", "_")
            chosen[name] = {"name": "pgd", "norm": norm, "epsilon": epsilon, **counts}
    return chosen


def _ball(attack: Any) -> tuple[str, float] | None:
    """Norm and radius of an attack; None where it has none, or a norm of its user's own."""
    if attack is None:
        return None
    complete = attack_options.complete_options(dict(attack))
    norm, epsilon = str(complete.get("norm")), complete.get("epsilon")
    return (norm, float(epsilon)) if norm in norms.NORMS and epsilon else None


def _same(one: tuple[str, float], other: tuple[str, float] | None) -> bool:
    if other is None:
        return False
    return one[0] == other[0] and math.isclose(one[1], other[1], rel_tol=1e-6)
