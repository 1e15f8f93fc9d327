import cv2
import numpy as np
import pytest
from PIL import Image

from jaxrobust import plots
from jaxrobust.experiments import accuracies, result, trained
from jaxrobust.experiments import figure6_smoothing as figure6
from jaxrobust.experiments.accuracies import SIGMAS, TIMES, Accuracy
from jaxrobust.experiments.pictures import evaluation_pictures
from jaxrobust.experiments.render import cell_text
from tests.test_figure2_sensitivity_maps import read, write_workdir

IMAGES = 400


def made_runs(std, adv, *, seeds=3):
    """Accuracies in per cent by variant, of made-up trainings; images in the same order."""
    rng = np.random.default_rng(0)

    def accuracy(share):
        right = np.where(np.arange(IMAGES) < round(share / 100 * IMAGES), 100.0, 0.0)
        return Accuracy(right.mean(), None, None, rng.permutation(right))

    names = [*figure6.BLUR, *figure6.MEDIAN]
    return {
        run: [{name: accuracy(of(name) + seed) for name in names} for seed in range(seeds)]
        for run, of in (("std", std), ("adv", adv))
    }


def by_level(blur, median):
    """A function of a variant's name, from one of sigma and one of times."""
    values = dict(zip(figure6.BLUR, map(blur, SIGMAS), strict=True))
    return (values | dict(zip(figure6.MEDIAN, map(median, TIMES), strict=True))).__getitem__


def notes(found):
    """The sentences beside the tables of made-up trainings."""
    parts = figure6.tables(found | {"dataset": "digits", "images": IMAGES, "pairs": []})
    (found,) = (part.sentences for part in parts if isinstance(part, result.Notes))
    return found


def files_of(folder):
    """When each was written; a lock names whoever held it last."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path: path.stat().st_mtime_ns for path in files}


def test_claim_5_holds_where_the_paper_is_right():
    runs = made_runs(
        by_level(lambda sigma: 90 - 14 * sigma, lambda times: 90 - 14 * times),
        by_level(lambda sigma: 80 - 14 * sigma, lambda times: 80 - 8 * times),
    )
    found = figure6.decide(runs, chance=10.0)
    blur, median = found["blur"], found["median"]
    assert blur["ahead_without_blur"] == "std"
    # 80 - 14 sigma + 1 (the mean over seeds) is above 20 up to 4.25.
    assert blur["counted_up_to"] == 4.25
    assert [level["counts"] for level in blur["levels"]] == [sigma <= 4.25 for sigma in SIGMAS]
    assert blur["verdict"] == blur["order"] == median["verdict"] == found["claim_5"] == "holds"
    assert blur["turned_at"] == []
    level = blur["levels"][8]
    assert (level["sigma"], level["std"]["mean"], level["adv"]["mean"]) == (2.0, 63.0, 53.0)
    assert level["std_minus_adv"]["mean"] == pytest.approx(10.0)
    assert level["change"]["mean"] == pytest.approx(0.0)
    assert -10 < level["change"]["low"] < 0 < level["change"]["high"] < 10
    assert median["adv_minus_std_at_the_end"]["mean"] == pytest.approx(20.0)


def test_claim_5_fails_where_blur_turns_the_order():
    runs = made_runs(
        by_level(lambda sigma: 90 - 50 * min(sigma, 1.5), lambda times: 90),
        by_level(lambda sigma: 80, lambda times: 60),
    )
    found = figure6.decide(runs, chance=10.0)
    blur = found["blur"]
    # 90 - 50 sigma + 1 is above 20 up to 1.25; what comes later does not count.
    assert blur["counted_up_to"] == 1.25
    assert blur["verdict"] == blur["order"] == "does not hold"
    assert blur["turned_at"] == [sigma for sigma in SIGMAS if sigma >= 0.5]
    assert found["median"]["verdict"] == found["claim_5"] == "does not hold"
    order, turned = notes(found)
    assert "STD ahead (up to σ = 1.25, while both are above 20 %): does not hold." in order
    assert turned.startswith("ADV is ahead at σ = 0.5, 0.75, 1, ")
    blurred, filtered = figure6.decision(found).measures
    assert blurred.what.endswith(
        "of σ ≤ 1.25, where both are above 20 %, the one with the largest change: σ = 1.25"
    )
    assert [cell_text(blurred.first), cell_text(blurred.second)] == ["28.5 ± 1.0", "81.0 ± 1.0"]
    assert cell_text(blurred.difference).startswith("STD − ADV has changed by -62.5 [-")
    assert filtered.what == "top-1 after 5 median filters, %"
    assert cell_text(filtered.difference).startswith("ADV − STD -30.0 [-")


def test_near_chance_nothing_counts_even_if_it_recovers():
    runs = made_runs(
        by_level(lambda sigma: 90 if sigma in (0.0, 3.0) else 12, lambda times: 50),
        by_level(lambda sigma: 80, lambda times: 50 + times),
    )
    found = figure6.decide(runs, chance=10.0)
    assert found["blur"]["counted_up_to"] is None
    assert found["blur"]["verdict"] == found["claim_5"] == "open"
    assert "Under blur: not measured" in notes(found)[0]
    # Of the claim, only the half of the median filter has a measure.
    assert len(figure6.decision(found).measures) == 1


@pytest.fixture(scope="module")
def digits(tmp_path_factory, data_dir):
    """Two seeds of STD and ADV on part of a small set."""
    return write_workdir(
        tmp_path_factory.mktemp("digits"), data_dir, dataset__evaluation_split="test[:60]"
    )


@pytest.mark.slow
def test_figures_record_and_table(digits, tmp_path, capsys):
    arguments = ["--workdirs", str(digits), "--out", str(tmp_path), "--pictures", "2"]
    figure6.EXPERIMENT.main(arguments)
    printed = capsys.readouterr().out
    record = read(tmp_path / "figure6_smoothing.json")
    found = record["architectures"]["TinyNetwork"]
    assert found["images"] == 60
    assert found["chance"] == 10.0
    assert [level["sigma"] for level in found["blur"]["levels"]] == list(SIGMAS)
    assert [level["times"] for level in found["median"]["levels"]] == list(TIMES)
    # Level 0 of both is the picture as it is.
    plain = [
        accuracies.measure(one, {"plain": None})["plain"].top1
        for one in trained.find(digits)
        if not one.adversarial
    ]
    assert found["blur"]["levels"][0]["std"]["by_seed"] == plain
    assert found["median"]["levels"][0]["std"]["by_seed"] == plain
    for name, least in (("", 400), ("_pictures", 400)):
        path = tmp_path / f"figure6_smoothing_tinynetwork{name}.png"
        assert str(path) in printed
        assert min(Image.open(path).size) > least
    table = (tmp_path / "figure6_smoothing.md").read_text()
    assert "## TinyNetwork" in table
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    measures = len(figure6.decision(found).measures)
    assert len(rows) == 2 * 2 + 21 + 6 + 2 + measures
    said = "Blur hurts both alike; the median filter turns the order: "
    assert f"{said}{found['claim_5']}." in table
    assert f"{said}{found['claim_5']}." in printed
    # All is kept: a second call measures nothing and finds the same.
    before = files_of(digits)
    figure6.EXPERIMENT.main(arguments)
    assert read(tmp_path / "figure6_smoothing.json") == record
    assert files_of(digits) == before


@pytest.mark.slow
def test_sliders_show_pictures_and_accuracies_of_each_level(digits, tmp_path):
    figure6.EXPERIMENT.main(["--workdirs", str(digits), "--out", str(tmp_path), "--tiles"])
    record = read(tmp_path / "figure6_smoothing.json")
    (found,), (shown,) = record["architectures"].values(), record["shown"]["findings"].values()
    blur, median, *_ = shown["parts"]
    assert [len(blur["panels"]), len(median["panels"])] == [21, 6]
    assert all(box["kind"] == "Box" and box["slide"] for box in (blur, median))
    assert (blur["panels"][12]["title"], median["panels"][5]["title"]) == ("σ = 3", "5 times")
    for box, levels in ((blur, found["blur"]["levels"]), (median, found["median"]["levels"])):
        for panel, level in zip(box["panels"], levels, strict=True):
            assert panel["bars"] == {run: level[run]["mean"] for run in ("std", "adv")}
    # The first picture of the first class, blurred here.
    std = next(one for one in trained.find(digits) if not one.adversarial)
    picture = evaluation_pictures(std.config, 10, per_class=True).images[0]
    (strip,) = blur["panels"][12]["strips"]
    tile = np.asarray(Image.open(tmp_path / strip["file"]).convert("RGB"))
    height, width, _ = picture.shape
    expected = 255 * cv2.GaussianBlur(picture, (7, 7), 3.0)
    np.testing.assert_allclose(tile[:height, :width], expected, atol=0.6)
    # The sheet that shows some of them again is folded away.
    folded = {part["file"]: part["folded"] for part in shown["parts"] if part["kind"] == "Figure"}
    assert list(folded.values()) == [False, True]


@pytest.mark.parametrize("std_seeds", [1, 3])
def test_a_figure_says_what_its_bands_are(tmp_path, monkeypatch, std_seeds):
    runs = made_runs(lambda _: 90, lambda _: 80, seeds=std_seeds)
    notes = []
    original = plots.curves

    def drawing(*arguments, **options):
        figure = original(*arguments, **options)
        notes.append(figure.legends[0].get_title().get_text())
        return figure

    monkeypatch.setattr(plots, "curves", drawing)
    figure6.draw_curves(runs, title="Net", chance=10.0, path=tmp_path / "a.png")
    bands = {1: "One seed", 3: "Bands: ± one standard deviation over 3 seeds"}[std_seeds]
    assert notes == [f"{bands}; 400 images; a guess has 10 %."]
    assert (tmp_path / "a.png").exists()


def test_too_many_pictures_are_refused_before_measuring(digits, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(accuracies, "measure", None)
    options = ["--workdirs", str(digits), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stopped:
        figure6.EXPERIMENT.main([*options, "--pictures", "5000"])
    assert stopped.value.code == 2
    assert "--pictures must be at most 50, got 5000" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_errors_are_one_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        figure6.EXPERIMENT.main(
            ["--workdirs", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]
        )
    assert stopped.value.code == 2
    assert "nowhere is no folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
