"""Claims are gathered from the experiments that state them and the records that decide them."""

from jaxrobust.experiments import claims, render
from jaxrobust.experiments.experiment import Experiment
from jaxrobust.experiments.plan import Plan
from jaxrobust.experiments.result import (
    Change,
    Claim,
    Decision,
    Finding,
    Measure,
    Result,
    Spread,
    as_json,
)

NOT_MEASURED = "not measured"
PLAN = Plan("Title", "Summary", (), ())


def experiment(name, *numbers, **changes):
    made = [Claim(number, f"Sentence {number}", f"rule {number}", **changes) for number in numbers]
    return Experiment(name, name, name, lambda arguments: Result({}), None, claims=made)


def record(findings):
    """{title: {number: decision}} as an experiment's record has it."""
    return {"shown": as_json({"findings": {t: Finding({}, (), c) for t, c in findings.items()}})}


def decision(verdict):
    change = {"mean": 10.0, "low": 8.06, "high": 12.0}
    measures = [
        Measure("clean top-1, %", Spread([90, 91, 92]), Spread([80.0]), Change(change, 1), verdict),
        Measure("beside it", Spread([]), "–", Change({"mean": None}, label="ADV − STD")),
    ]
    return Decision(verdict, measures)


EXPERIMENTS = {
    "late": experiment("late", "10", "3b"),
    "none": experiment("none"),
    "early": experiment("early", "3", columns=("one", "the other", "difference, points")),
}


def test_claims_are_as_stated_and_as_decided():
    records = {
        "late": record({"A": {"10": decision("holds")}, "B": {"10": decision("does not hold")}}),
        "none": record({"A STD": {}}),
    }
    found = claims.gather(EXPERIMENTS, records)
    assert [claim["number"] for claim in found] == ["3", "3b", "10"]
    assert found[2] == {
        "number": "10",
        "sentence": "Sentence 10",
        "rule": "rule 10",
        "experiment": "late",
        "columns": ["STD", "ADV", "ADV − STD"],
        "verdicts": {"A": "holds", "B": "does not hold"},
        "rows": [
            {
                "architecture": title,
                "measure": what,
                "first": first,
                "second": second,
                "difference": difference,
                "verdict": verdict,
            }
            for title, decided in (("A", "holds"), ("B", "does not hold"))
            for what, first, second, difference, verdict in (
                ("clean top-1, %", "91.0 ± 1.0", "80.0", "+10.0 [+8.1, +12.0]", decided),
                ("beside it", "–", "–", "ADV − STD not defined", ""),
            )
        ],
        "verdict": "does not hold",
    }
    # Of an experiment that has decided others only, and of one that is not done.
    for claim in found[:2]:
        assert claim["verdicts"] == {"A": NOT_MEASURED, "B": NOT_MEASURED}
        assert (claim["rows"], claim["verdict"]) == ([], NOT_MEASURED)
    assert found[0]["columns"] == ["one", "the other", "difference, points"]


def test_what_was_not_measured_has_no_say():
    records = {"late": record({"A": {"10": decision("holds"), "3b": decision("open")}, "B": {}})}
    verdicts = {claim["number"]: claim for claim in claims.gather(EXPERIMENTS, records)}
    assert verdicts["10"]["verdicts"] == {"A": "holds", "B": NOT_MEASURED}
    assert verdicts["10"]["verdict"] == "holds"
    assert verdicts["3b"]["verdict"] == "open"
    assert {claim["verdict"] for claim in claims.gather(EXPERIMENTS, {})} == {NOT_MEASURED}


def test_both_tables_in_markdown():
    records = {"late": record({"A|B": {"10": decision("holds")}})}
    text = render.text("claims.md", plan=PLAN, claims=claims.gather(EXPERIMENTS, records))
    assert text.splitlines() == [
        "# Title: the paper's claims",
        "",
        "|  | claim | A\\|B | holds when |",
        "| :-- | :-- | :-- | :-- |",
        "| 3 | Sentence 3 | not measured | rule 3 |",
        "| 3b | Sentence 3b | not measured | rule 3b |",
        "| 10 | Sentence 10 | holds | rule 10 |",
        "",
        "|  | network | measure | STD (or the first) | ADV (or the second) | difference [95 %] "
        "| verdict |",
        "| :-- | :-- | :-- | :-- | :-- | :-- | :-- |",
        "| 10 | A\\|B | clean top-1, % | 91.0 ± 1.0 | 80.0 | +10.0 [+8.1, +12.0] | holds |",
        "| 10 | A\\|B | beside it | – | – | ADV − STD not defined |  |",
    ]


def test_before_anything_is_done_there_is_one_column_of_verdicts():
    text = render.text("claims.md", plan=PLAN, claims=claims.gather(EXPERIMENTS, {}))
    assert "|  | claim | verdict | holds when |" in text
    assert "| 3b | Sentence 3b | not measured | rule 3b |" in text
    assert "holds when" in render.text("claims.md", plan=PLAN, claims=[])
