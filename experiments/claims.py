"""The claims of a report's experiments, gathered: what each says, and what was decided here.

Nothing is decided or measured here: a claim stands in its experiment's module, its verdicts and
measures in that experiment's record.
"""

from collections.abc import Mapping
from typing import Any

from jaxrobust.experiments import render, statistics
from jaxrobust.experiments.experiment import Experiment

NOT_MEASURED = "not measured"
_SIDES = ("first", "second", "difference")

Decided = dict[str, Any]
"""A claim as `claims.json` has it."""


def gather(
    experiments: Mapping[str, Experiment], records: Mapping[str, Mapping[str, Any]]
) -> list[Decided]:
    """All claims, in the order of their numbers.

    Args:
      experiments: by name.
      records: {experiment: its record}, of those that are done.

    Returns:
      For each claim its "number", "sentence", "rule", "experiment" (that decides it), "columns"
      (what the sides and their difference are), "verdicts" {architecture: verdict}, "rows" (the
      measures, in words) and the "verdict" over all architectures where it was measured.
    """
    shown = {
        name: records[name]["shown"]["findings"] if name in records else {}
        for name, experiment in experiments.items()
        if experiment.claims
    }
    titles = list(dict.fromkeys(title for findings in shown.values() for title in findings))
    decided = []
    for name, findings in shown.items():
        for claim in experiments[name].claims:
            decisions = {
                title: findings[title]["claims"][claim.number]
                for title in titles
                if claim.number in findings.get(title, {}).get("claims", {})
            }
            verdicts = {
                title: decisions[title]["verdict"] if title in decisions else NOT_MEASURED
                for title in titles
            }
            measured = [verdict for verdict in verdicts.values() if verdict != NOT_MEASURED]
            decided.append(
                {
                    "number": claim.number,
                    "sentence": claim.sentence,
                    "rule": claim.rule,
                    "experiment": name,
                    "columns": list(claim.columns),
                    "verdicts": verdicts,
                    "rows": [
                        _row(title, measure)
                        for title, decision in decisions.items()
                        for measure in decision["measures"]
                    ],
                    "verdict": statistics.all_hold(measured) if measured else NOT_MEASURED,
                }
            )
    return sorted(decided, key=lambda claim: _order(claim["number"]))


def _row(title: str, measure: Mapping[str, Any]) -> dict[str, str]:
    sides = {side: render.cell_text(measure[side]) for side in _SIDES}
    words = {"architecture": title, "measure": measure["what"]}
    return words | sides | {"verdict": measure["verdict"]}


def _order(number: str) -> tuple[int, str]:
    """Of claims: 3, 3b, 10.

    Example:
      >>> sorted(["10", "3b", "3"], key=_order)
      ['3', '3b', '10']
    """
    letters = number.lstrip("0123456789")
    return int(number.removesuffix(letters) or 0), letters
