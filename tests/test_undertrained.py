"""Of pictures that STD has learnt too little of, no experiment decides anything."""

import importlib
import json
import shutil

import pytest

from jaxrobust.experiments import result, trained
from tests.test_figure2_sensitivity_maps import write_workdir
from tests.test_trained import evaluate

FEW = ["--images", "10", "--methods", "vanilla_gradient", "guided_backprop"]
# What each takes to be quick, and the claims that it decides.
EXPERIMENTS = {
    "table1_robustness": (["--steps", "1", "--restarts", "1"], ["1"]),
    "table2_variants": ([], ["6"]),
    "figure2_sensitivity_maps": (["--tiles", *FEW], ["2"]),
    "figure3_layer_visualization": (["--styles", "paper", "--measured-filters", "4"], ["4"]),
    "figure4_first_layer": ([], ["3", "3b"]),
    "figure6_smoothing": ([], ["5"]),
    "figure8_sanity_checks": (["--cascade-images", "0", *FEW], ["8"]),
}


@pytest.fixture(scope="module")
def trainings(tmp_path_factory, data_dir):
    """Two seeds of STD and ADV, not evaluated."""
    folder = tmp_path_factory.mktemp("digits")
    return write_workdir(folder, data_dir, dataset__evaluation_split="test[:100]")


@pytest.fixture
def work(trainings, tmp_path, monkeypatch):
    """A copy of them, with digits held to the rule of Fashion-MNIST."""
    monkeypatch.setitem(trained._LEAST_CLEAN, "digits", trained._LEAST_CLEAN["fashion_mnist"])
    return shutil.copytree(trainings, tmp_path / "work")


def found_by(name, work, out):
    module = importlib.import_module(f"jaxrobust.experiments.{name}")
    module.EXPERIMENT.main(["--workdirs", str(work), "--out", str(out), *EXPERIMENTS[name][0]])
    record = json.loads((out / f"{name}.json").read_text())
    return record["architectures"]["TinyNetwork"], record["shown"]["findings"]["TinyNetwork"]


def verdicts_of(shown):
    """All that parts and claims say, wherever it stands."""
    if isinstance(shown, list):
        return set().union(*map(verdicts_of, shown))
    if not isinstance(shown, dict):
        return set()
    own = shown.get("text" if shown.get("kind") == "Verdict" else "verdict")
    own = {own} if shown.get("kind") in ("Verdict", "Measure", "Decision") else set()
    return own.union(*map(verdicts_of, shown.values()))


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_decides_nothing_before_std_is_evaluated(name, work, tmp_path):
    numbers, shown = found_by(name, work, tmp_path)
    assert numbers["undertrained"].startswith("Nothing is decided before ")
    assert shown["parts"][-1] == result.as_json(result.Notes([numbers["undertrained"]]))
    assert list(shown["claims"]) == EXPERIMENTS[name][1]
    for claim in shown["claims"].values():
        assert claim["verdict"] in ("open: undertrained", "not measured")
    said = verdicts_of(shown)
    assert "open: undertrained" in said
    assert said <= {"open: undertrained", "not measured", "not applicable", ""}


def test_verdicts_wait_for_the_mean_over_seeds(work, tmp_path, capsys):
    for rates, decided in (([88.0, 91.9], False), ([88.0, 92.0], True)):
        for seed, rate in enumerate(rates):
            evaluate(work / "std" / f"seed{seed}", rate)
        numbers, shown = found_by("figure4_first_layer", work, tmp_path)
        verdicts = verdicts_of(shown["claims"])
        assert ("undertrained" in numbers) is not decided
        if decided:
            assert verdicts <= {"holds", "does not hold", "open", ""}
        else:
            assert verdicts == {"open: undertrained", ""}
            sentence = "STD must have 90 per cent of the clean pictures right, and std has 89.95."
            assert sentence in numbers["undertrained"]
        assert ("- Nothing is decided: " in capsys.readouterr().out) is not decided
