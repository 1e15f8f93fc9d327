"""The claims table reads what the experiments decide: on made-up values in their own records."""

import numpy as np
import pytest

from experiments import figure2_sensitivity_maps as figure2
from experiments import figure3_layer_visualization as figure3
from experiments import figure4_first_layer as figure4
from experiments import figure6_smoothing as figure6
from experiments import figure8_sanity_checks as figure8
from experiments import late_fusion_claim, statistics, trained
from experiments import table1_robustness as table1
from experiments import table2_variants as table2
from experiments.accuracies import Accuracy
from experiments.report import claims
from experiments.report.claims import NOT_MEASURED

IMAGES = 100
SEEDS = 3
NAME = "Network"


def accuracy(share):
    """Of made-up images, so many per cent are right."""
    right = np.where(np.arange(IMAGES) < round(share / 100 * IMAGES), 100.0, 0.0)
    return Accuracy(right.mean(), None, None, right)


def runs(std, adv):
    return {
        run: [{name: accuracy(share + seed) for name, share in of.items()} for seed in range(SEEDS)]
        for run, of in (("std", std), ("adv", adv))
    }


def record_1(std_clean, adv_robust):
    made = runs({"clean": std_clean, "8/255": 2}, {"clean": 80, "8/255": adv_robust})
    return {
        "attacks": {"8/255": {"steps": 10, "restarts": 1}},
        "accuracies": table1.describe(made, ["8/255"]),
        "claim": table1.decide(made, "8/255"),
    }


def record_2(centroid, band, monkeypatch):
    """ADV's measures are those of STD plus these."""
    added = {"std": (0.0, 0.0), "adv": (centroid, band)}

    def measure(maps, masks):
        of_run = added[maps]
        noise = np.linspace(0, 0.01, 20)
        return {"spectral_centroid": 0.5 + noise + of_run[0], "band_share": 0.5 + of_run[1] + noise}

    class One:
        def __init__(self, run):
            self.run = run

        def load(self):
            return self.run

    class Pictures(list):
        masks = None

    monkeypatch.setattr(figure2, "measure", measure)
    monkeypatch.setattr(figure2.sensitivity, "maps_of", lambda run, *_, **__: run)
    monkeypatch.setattr(trained, "title_of", lambda pair: NAME)
    methods, _ = figure2.measure_pairs(
        [(One("std"), One("adv"))] * SEEDS,
        Pictures(range(20)),
        figure2.CLAIMED,
        seed=0,
        batch_size=None,
    )
    together = statistics.all_hold(methods[name]["claim_2"] for name in figure2.CLAIMED)
    return {"methods": methods, "claim_2": together}


def record_4(added):
    """Of the first layer."""

    def one(seed, change):
        return {"l2_norm": 1 + 0.01 * seed - change, "nyquist_corner_share": 0.3 + change}

    forms = {}
    for form, change in (("raw", -added), ("folded", added)):
        std = [one(seed, 0) for seed in range(SEEDS)]
        adv = [one(seed, change) for seed in range(SEEDS)]
        forms[form] = {"std": std, "adv": adv, "differences": figure4.compare(std, adv)}
    return {"forms": forms}


def record_3(smaller):
    def layer(change):
        return {
            run: [
                {
                    "spectral_centroid": [0.5 - by, 0.51 - by],
                    "chroma_energy": [0.2 - by / 2, 0.21 - by / 2],
                }
                for _ in range(SEEDS)
            ]
            for run, by in (("std", 0), ("adv", change))
        }

    return {
        "styles": {
            style: {"deepest_third": {"layers": [5], "differences": figure3.compare([layer(by)])}}
            for style, by in (("paper", smaller), ("regularized", -smaller))
        }
    }


def record_5(after_median):
    std = dict.fromkeys(figure6.BLUR, 90) | dict.fromkeys(figure6.MEDIAN, 30)
    adv = dict.fromkeys(figure6.BLUR, 85) | dict.fromkeys(figure6.MEDIAN, after_median)
    return figure6.decide(runs(std, adv), chance=10.0)


def record_6(conflict):
    made = runs(
        {"standard": 90, "reversed": 60, "cue_conflict": 20},
        {"standard": 85, "reversed": 55, "cue_conflict": conflict},
    )
    return {"accuracies": table2.described(made), "claim": table2.decide(made)}


def record_7(together):
    shares = {"STD": 70, "ADV": 60, "STD+STD": 72, "ADV+ADV": 62, "STD+ADV": together}
    made = {
        setting: {seed: accuracy(share + seed) for seed in range(SEEDS)}
        for setting, share in shares.items()
    }
    top1 = {
        setting: {"by_seed": {str(seed): one.top1 for seed, one in seeds.items()}}
        for setting, seeds in made.items()
    }
    datasets = {
        "digits": {
            "resolution": "high",
            "top1": top1,
            "decided": late_fusion_claim.decide(made, resolution="high"),
        },
        "svhn": {
            "resolution": "low",
            "top1": top1,
            "decided": late_fusion_claim.decide(
                made | {"STD+STD": made["ADV+ADV"], "ADV+ADV": made["STD+STD"]}, resolution="low"
            ),
        },
    }
    return {"datasets": datasets, "claim": late_fusion_claim.decide_together(datasets)}


def record_8(shared):
    """Maps of the seeds of a setting share a part; those of two settings nothing."""
    rng = np.random.default_rng(0)

    def noise():
        return rng.standard_normal((4, 16, 16, 3)).astype(np.float32)

    maps = {}
    for run in ("random", "std", "adv"):
        common = noise()
        maps[run] = [shared * common + noise() for _ in range(SEEDS)]
    measured = figure8.compare_settings(maps)
    method = {"similarities": measured, "claim_8": figure8.claim_8(measured)}
    return {"methods": {"guided_backprop": method}}


OTHERWISE = {
    "table1_robustness": (lambda: record_1(70, 50), {"1"}),
    "figure4_first_layer": (lambda: record_4(-0.1), {"3", "3b"}),
    "figure3_layer_visualization": (lambda: record_3(-0.2), {"4"}),
    "figure6_smoothing": (lambda: record_5(20), {"5"}),
    "table2_variants": (lambda: record_6(10), {"6"}),
    "figure7_late_fusion": (lambda: record_7(66), {"7"}),
}


@pytest.fixture(scope="module")
def records():
    """All that can be made without standing in for anything."""
    return {
        "table1_robustness": record_1(90, 50),
        "figure4_first_layer": record_4(0.1),
        "figure3_layer_visualization": record_3(0.2),
        "figure6_smoothing": record_5(40),
        "table2_variants": record_6(60),
        "figure7_late_fusion": record_7(80),
        "figure8_sanity_checks": record_8(3.0),
    }


def decided(records):
    as_written = {name: {"architectures": {NAME: found}} for name, found in records.items()}
    return {claim.number: claim for claim in claims.decide(as_written)}


def test_what_holds_holds(records, monkeypatch):
    records = records | {"figure2_sensitivity_maps": record_2(-0.1, 0.1, monkeypatch)}
    found = decided(records)
    assert list(found) == ["1", "2", "3", "3b", "4", "5", "6", "7", "8"]
    assert {claim.verdict for claim in found.values()} == {"holds"}
    # Each verdict of a claim is one of the rows' together.
    for claim in found.values():
        rows = [row.verdict for row in claim.rows if row.verdict]
        assert statistics.all_hold(rows) == claim.verdicts[NAME]
    assert [len(claim.rows) for claim in found.values()] == [2, 6, 2, 2, 4, 2, 2, 6, 12]
    row = found["1"].rows[0]
    assert (row.first, row.second) == ("91.0 ± 1.0", "81.0 ± 1.0")
    assert row.difference.startswith("STD − ADV +10.0 [+")
    # What is only stated beside the measure that decides has no verdict: it says the contrary here.
    assert [row.verdict for row in found["3"].rows] == ["holds", ""]
    assert [row.verdict for row in found["4"].rows] == ["holds", "holds", "", ""]
    assert "BatchNorm folded in" in found["3b"].rows[0].measure


@pytest.mark.parametrize("experiment", OTHERWISE)
def test_what_does_not_hold_does_not(experiment, records):
    record, numbers = OTHERWISE[experiment]
    found = decided(records | {experiment: record()})
    wrong = {number for number, claim in found.items() if claim.verdict == "does not hold"}
    assert wrong == numbers


def test_maps_that_are_not_finer_do_not_hold(monkeypatch):
    record = record_2(-0.1, -0.1, monkeypatch)
    claim = decided({"figure2_sensitivity_maps": record})["2"]
    assert claim.verdict == "does not hold"
    assert [row.verdict for row in claim.rows] == ["holds", "does not hold"] * 3


def test_what_is_not_there_is_not_measured():
    found = decided({"table1_robustness": record_1(90, 50)})
    assert found["1"].verdict == "holds"
    assert {claim.verdict for number, claim in found.items() if number != "1"} == {NOT_MEASURED}
    assert {claim.verdict for claim in claims.decide({})} == {NOT_MEASURED}


def test_one_architecture_more():
    two = {"architectures": {NAME: record_1(90, 50), "Other": record_1(70, 50)}}
    (claim, *others) = claims.decide({"table1_robustness": two})
    assert claim.verdicts == {NAME: "holds", "Other": "does not hold"}
    assert claim.verdict == "does not hold"
    assert others[0].verdicts == {NAME: NOT_MEASURED, "Other": NOT_MEASURED}
    assert claim.as_json()["verdict"] == "does not hold"
    lines = claims.as_markdown([claim]).splitlines()
    assert lines[0] == f"|  | claim | {NAME} | Other | holds when |"
    verdicts = "| 1 | Robustness costs clean accuracy | holds | does not hold |"
    assert lines[2] == f"{verdicts} {claim.rule} |"
    assert "| Both kinds of features help | not measured |" in claims.as_markdown(claims.decide({}))
    assert len(lines) == 3 + 1 + 2 + 2 * 2  # two measures of each network
    assert lines[-2].startswith("| 1 | Other | clean top-1, % | 71.0 ± 1.0 | 81.0")
