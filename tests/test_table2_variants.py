import re

import numpy as np
import pytest
from PIL import Image

from jaxrobust.data import textured_shapes
from jaxrobust.experiments import table2_variants as table2
from jaxrobust.experiments.accuracies import Accuracy
from jaxrobust.experiments.render import cell_text
from tests.test_accuracies import write_pictures
from tests.test_figure2_sensitivity_maps import SMALL, drawn_shapes, read, write_workdir

IMAGES = 400


def made_runs(std, adv, *, seeds=3):
    """Made-up trainings with these accuracies in per cent, by variant."""

    def accuracy(share):
        right = np.where(np.arange(IMAGES) < round(share / 100 * IMAGES), 100.0, 0.0)
        return Accuracy(right.mean(), None, None, right)

    return {
        run: [{name: accuracy(share + seed) for name, share in of.items()} for seed in range(seeds)]
        for run, of in (("std", std), ("adv", adv))
    }


@pytest.mark.parametrize(
    ("std", "adv", "verdicts"),
    [
        # The paper's ResNet-50: 43.48 and 48.26 points lost.
        (
            {"standard": 75, "reversed": 32, "stylized": 7},
            {"standard": 71, "reversed": 23, "stylized": 20},
            {"reversed": "holds", "stylized": "holds", "claim_6": "holds"},
        ),
        (
            {"standard": 90, "reversed": 30, "cue_conflict": 40},
            {"standard": 90, "reversed": 60, "cue_conflict": 20},
            {
                "reversed": "does not hold",
                "cue_conflict": "does not hold",
                "claim_6": "does not hold",
            },
        ),
        (
            {"standard": 90, "reversed": 30},
            {"standard": 85, "reversed": 25},
            {"reversed": "holds", "claim_6": "open"},
        ),
        # Nothing is lost by either: no confirmation, whatever the other half says.
        (
            {"standard": 90, "reversed": 89.5, "cue_conflict": 20},
            {"standard": 90, "reversed": 91, "cue_conflict": 40},
            {"reversed": "open", "cue_conflict": "holds", "claim_6": "open"},
        ),
        # One of them loses something: compared.
        (
            {"standard": 90, "reversed": 90, "cue_conflict": 20},
            {"standard": 90, "reversed": 88, "cue_conflict": 40},
            {"reversed": "holds", "cue_conflict": "holds", "claim_6": "holds"},
        ),
    ],
)
def test_claim_6(std, adv, verdicts):
    found = table2.decide(made_runs(std, adv))
    assert list(found) == list(verdicts)
    for name, verdict in verdicts.items():
        assert (found[name] if name == "claim_6" else found[name]["verdict"]) == verdict
    more = (std["standard"] - std["reversed"]) - (adv["standard"] - adv["reversed"])
    assert found["reversed"]["std_loses_more_by"]["mean"] == pytest.approx(more)


@pytest.mark.parametrize(
    ("variants", "verdict"),
    [({}, "open"), ({"cue_conflict": 20}, "holds")],
)
def test_pictures_without_colours_are_not_reversed(variants, verdict):
    runs = made_runs({"standard": 90, **variants}, {"standard": 80, **dict.fromkeys(variants, 60)})
    found = {"accuracies": table2.describe(runs), "claim": table2.decide(runs)}
    found |= {"pairs": [], "chance": 10.0, "reversed_about": [0.485, 0.456, 0.406]}
    assert found["claim"]["claim_6"] == verdict
    text, table, notes = table2.tables("Net", found | {"dataset_title": "Fashion-MNIST"})
    assert "reversed" not in text.text
    assert notes.sentences[0].endswith("to reverse them is not applicable.")
    assert table.rows[0][3] == ""
    decision = table2.decision(found)
    reversal = decision.measures[0]
    assert (reversal.first, reversal.difference, reversal.verdict) == ("–", "–", "not applicable")
    assert decision.verdict == verdict


@pytest.mark.parametrize(("adv_reversed", "said"), [(90, True), (80, False)])
def test_a_half_without_losses_says_so(adv_reversed, said):
    runs = made_runs({"standard": 90, "reversed": 90}, {"standard": 90, "reversed": adv_reversed})
    claim = table2.decide(runs)
    assert claim["reversed"]["nothing_lost"] is said
    found = {"accuracies": table2.describe(runs), "claim": claim, "dataset_title": "Digits"}
    found |= {"pairs": [], "chance": 10.0, "reversed_about": [0.485, 0.456, 0.406]}
    text, _, notes = table2.tables("Net", found)
    assert "about the mean of ImageNet, [0.485, 0.456, 0.406]." in text.text
    sentence = "By reversed colours nothing was lost, so nothing is compared."
    assert (sentence in notes.sentences) is said


def test_measures_of_claim_6_are_its_differences():
    runs = made_runs(
        {"standard": 90, "reversed": 60, "stylized": 20},
        {"standard": 85, "reversed": 50, "stylized": 40},
    )
    found = {"accuracies": table2.describe(runs), "claim": table2.decide(runs)}
    lost, stylized = table2.decision(found).measures
    assert [cell_text(lost.first), cell_text(lost.second)] == ["30.0 ± 0.0", "35.0 ± 0.0"]
    assert cell_text(lost.difference).startswith("STD loses more by -5.0 [-")
    assert stylized.what == "top-1 on stylised pictures, %"
    assert [cell_text(stylized.first), cell_text(stylized.second)] == ["21.0 ± 1.0", "41.0 ± 1.0"]
    assert cell_text(stylized.difference).startswith("ADV − STD +20.0 [+")
    assert stylized.verdict == "holds"


def test_the_papers_figures_are_those_of_its_table():
    """The numbers, typed here once more row by row as the paper prints them."""
    rows = """
      55.28 13.18 4.20  80.60 28.88 10.74  50.59 7.97 5.07  73.73 19.09 11.86
      75.84 32.36 6.90  92.74 56.61 15.52  71.52 23.26 11.08  90.02 43.01 21.89
    """
    spreads = """
      0.18 0.17 0.06  0.05 0.35 0.15  0.22 0.11 0.04  0.07 0.23 0.10
      0.31 0.77 0.22  0.14 0.87 0.23  0.06 0.14 0.26  0.03 0.42 0.32
    """
    figures = [
        table2.PAPER[title][run][name][metric]
        for title in ("AlexNet", "ResNet-50")
        for run in ("std", "adv")
        for metric in ("top1", "top5")
        for name in ("standard", "reversed", "stylized")
    ]
    assert figures == list(zip(map(float, rows.split()), map(float, spreads.split()), strict=True))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Two seeds of STD and ADV on a small set with cue conflicts, and a stylised copy of it."""
    with drawn_shapes(tmp_path_factory.mktemp("shapes"), SMALL) as folder:
        names = [f"{number}_{name}" for number, name in enumerate(textured_shapes.SHAPES)]
        write_pictures(folder / "copy", names)
        yield folder


@pytest.mark.slow
def test_table_with_cue_conflicts_and_a_stylised_copy(shapes, tmp_path, capsys):
    options = ["--workdirs", str(shapes / "work"), "--out", str(tmp_path)]
    table2.EXPERIMENT.main([*options, "--stylized", str(shapes / "copy")])
    printed = capsys.readouterr().out
    record = read(tmp_path / "table2_variants.json")
    found = record["architectures"]["TinyNetwork"]
    assert found["reversed_about"] == [0.485, 0.456, 0.406]
    for run in ("std", "adv"):
        accuracy = found["accuracies"][run]
        assert {name: accuracy[name]["n"] for name in accuracy} == {
            "standard": 30,
            "reversed": 30,
            "cue_conflict": 9,
            "stylized": 20,
        }
        assert set(accuracy["cue_conflict"]) == {"n", "top1", "top5", "texture"}
        assert set(accuracy["standard"]) == {"n", "top1", "top5"}
        for metric in ("top1", "top5"):
            values = accuracy["standard"][metric]
            assert values["mean"] == pytest.approx(np.mean(values["by_seed"]))
            assert values["std"] == pytest.approx(np.std(values["by_seed"], ddof=1))
    table = (tmp_path / "table2_variants.md").read_text()
    assert re.search(r"\| TinyNetwork ADV, Textured shapes \| by texture \|", table)
    paper = (
        "| *the paper:* ResNet-50 STD, ImageNet | top-1 | 75.84 ± 0.31 | 32.36 ± 0.77 |  | 6.90 "
    )
    assert paper in table
    assert f"stylisation favours ADV: {found['claim']['claim_6']}." in printed
    width, height = Image.open(tmp_path / "table2_variants.png").size
    assert width > 2 * height


def test_digits_have_neither(data_dir, tmp_path, capsys):
    work = write_workdir(
        tmp_path / "work", data_dir, seeds=(3,), dataset__evaluation_split="test[:50]"
    )
    options = ["--workdirs", str(work), "--out", str(tmp_path / "out")]
    table2.EXPERIMENT.main(options)
    printed = capsys.readouterr().out
    assert "Nothing stylised was given, and the data set has no cue conflicts." in printed
    found = read(tmp_path / "out" / "table2_variants.json")["architectures"]["TinyNetwork"]
    assert list(found["accuracies"]["std"]) == ["standard", "reversed"]
    assert found["accuracies"]["std"]["standard"]["top1"]["std"] is None
    assert found["reversed_about"] == [0.485, 0.456, 0.406]
    with pytest.raises(SystemExit) as stopped:
        table2.EXPERIMENT.main([*options, "--stylized", str(tmp_path / "nowhere")])
    assert stopped.value.code == 2
    assert "must be a folder" in capsys.readouterr().err
