import dataclasses
import json

import jax
import numpy as np
import pytest
import scipy.stats
from PIL import Image

from jaxrobust.experiments import render, statistics, stride_grid, trained, two_by_two_shown
from jaxrobust.experiments import stride_or_training as experiment
from jaxrobust.training import checkpoints
from jaxrobust.training.run import resolve
from tests import tiny

STRIDED = {"name": "tests.tiny:TinyResNet", "stem_stride": 2}
POOLED = {**STRIDED, "downsampling": "average_pool"}
ATTACKS = {
    "std": None,
    "pgd": {"name": "pgd", "epsilon": 0.1, "steps": 5},
    "fgsm": {"name": "pgd", "epsilon": 0.1, "steps": 1},
}
# As results.json has it.
PGD_20 = {"name": "pgd", "norm": "linf", "epsilon": 0.1, "steps": 20, "step_size": 0.02}
PGD_20 |= {"restarts": 1, "random_start": True}
SEEDS = (11, 12, 13)
TITLE = "TinyResNet, strided and average-pooled"
METHODS = ("vanilla gradient", "loss gradient", "guided backprop")


@pytest.fixture(scope="module")
def study(tmp_path_factory, data_dir):
    """Six runs of three seeds, untrained, whose stems read single pixels; each is evaluated."""
    workdir = tmp_path_factory.mktemp("study")
    runs = {
        f"{name}_{stem}": {"model": model, "attack": attack}
        for stem, model in (("strided", STRIDED), ("pooled", POOLED))
        for name, attack in ATTACKS.items()
    }
    config = tiny.config(data_dir, runs=runs, seeds=SEEDS, model=STRIDED)
    for run in resolve(config, workdir):
        checkpoints.write_config(run.folder, run.description)
        rng = np.random.default_rng([list(runs).index(run.name), run.seed])
        variables = jax.tree.map(
            lambda leaf, rng=rng: leaf * rng.uniform(0.9, 1.1, leaf.shape).astype(leaf.dtype),
            tiny.drawn_variables(run.model, run.data.image_shape),
        )
        kernel = np.zeros_like(variables["params"]["conv1"]["kernel"])
        kernel[1, 1] = rng.uniform(0.5, 1.0, kernel.shape[2:])
        if run.name.startswith("pgd"):
            # The difference of two neighbours: nearer to the Nyquist corner, and a second phase.
            kernel[1, 0] = -kernel[1, 1]
        variables["params"]["conv1"]["kernel"] = kernel
        store = checkpoints.Checkpoints(run.folder)
        store.save(30, dict(variables), {"step": np.zeros(1)}, {})
        store.close()
        results = {
            "step": 30,
            "clean": {"top1": float(run.seed)},
            "attacks": [PGD_20 | {"robust_accuracy": run.seed - 1.0}],
        }
        (run.folder / "evaluation.json").write_text(json.dumps({"results": results}))
    return workdir


def found_by(workdirs, out, *arguments):
    experiment.EXPERIMENT.main(
        ["--workdirs", *map(str, workdirs), "--out", str(out), "--images", "10", *arguments]
    )
    return json.loads((out / "stride_or_training.json").read_text())


@pytest.fixture(scope="module")
def record(study, tmp_path_factory):
    return found_by([study], tmp_path_factory.mktemp("figures"))


@pytest.mark.slow
def test_the_grid_of_a_strided_stem_is_found_and_laid_to_the_stride(record):
    found = record["architectures"][TITLE]
    cells = {(cell["network"], cell["attack"]): cell for cell in found["cells"]}
    assert list(cells) == [
        (network, attack)
        for network in ("strided", "average-pooled")
        for attack in ("PGD-5", "FGSM-RS")
    ]
    # A stem that reads every second pixel: all energy in one of four phases.
    grid = cells["strided", "FGSM-RS"]["grid"]["vanilla_gradient"]
    assert grid["adv"] == grid["std"] == pytest.approx([75.0] * 3)
    assert max(cells["average-pooled", "FGSM-RS"]["grid"]["vanilla_gradient"]["adv"]) < 30
    for method in METHODS:
        values = np.array(
            [cell["grid"][method.replace(" ", "_")]["adv"] for cell in cells.values()]
        )
        a, b, c, d = values
        moved = found["effects"][f"grid in the maps of ADV, points, {method}"]
        assert moved["network"]["by_seed"] == pytest.approx((a + b - c - d) / 2)
        interval = scipy.stats.ttest_1samp((a + b - c - d) / 2, 0.0).confidence_interval()
        assert moved["network"]["t_low"] == pytest.approx(interval.low)
        assert moved["network"]["verdict"] == "holds"
        assert moved["by_network"]["strided"] == pytest.approx((a + b) / 2)
    shown = record["shown"]["findings"][TITLE]
    claim = shown["claims"]["3c"]
    assert claim["verdict"] == "holds"
    assert [row["verdict"] for row in claim["measures"]] == ["holds"] * 3 + [""]
    sentence = shown["parts"][1]["sentences"][0]
    assert sentence.startswith(
        "Grid in the maps of ADV, points, vanilla gradient: strided instead of average-pooled: "
        "raises it; PGD-5 instead of FGSM-RS: lowers it"
    )


@pytest.mark.slow
def test_the_first_layers_of_pgd_are_nearer_to_the_nyquist_corner(record):
    found = record["architectures"][TITLE]
    for cell in found["cells"]:
        changes = np.subtract(cell["corner"]["adv"], cell["corner"]["std"])
        assert cell["corner"]["difference"]["mean"] == pytest.approx(changes.mean())
        assert cell["claim_3b"] == ("holds" if cell["attack"] == "PGD-5" else "open")
        assert (cell["attack"] == "PGD-5") == (changes.mean() > 0.01)
    assert found["effects"][experiment.CORNER_CHANGE]["attack"]["verdict"] == "holds"


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        # Of all three the bootstrap, which resamples them, has the same sign and no 0.
        ([-0.10, -0.30, -0.01], "open"),
        ([-0.10, -0.12, -0.11], "holds"),
        ([0.10, 0.12, 0.11], "does not hold"),
    ],
)
@pytest.mark.parametrize("gridded", [False, True])
def test_claims_of_a_cell_go_by_students_t_and_claim_2_not_where_there_is_a_grid(
    changes, verdict, gridded
):
    interval = scipy.stats.ttest_1samp(changes, 0.0).confidence_interval()
    by_hand = "open" if interval.low < 0 < interval.high else "decided"
    assert (verdict == "open") == (by_hand == "open")
    std = [0.4, 0.5, 0.45]
    fewer, more = np.add(std, changes), np.subtract(std, changes)
    centroid = statistics.compare(std, fewer, "negative")
    assert centroid["verdict"] == ("does not hold" if verdict == "does not hold" else "holds")
    maps = np.zeros((1, 4, 4, 1))
    maps[:, :: 1 + gridded, :: 1 + gridded] = 1.0
    phases = stride_grid.phases({run: [maps] * 3 for run in ("std", "adv")})
    method = {"measures": {"spectral_centroid": {"difference": centroid}}, "phases": phases}
    cell = {
        # SmoothGrad is not one of the methods of claim 2.
        "methods": dict.fromkeys(("vanilla_gradient", "guided_backprop", "smoothgrad"), method),
        "corner": {"difference": statistics.compare(std, more)},
    }
    decided = experiment.decide(cell)
    assert set(decided["claim_2"]) == {"vanilla_gradient", "guided_backprop"}
    assert set(decided["claim_2"].values()) == {"open: stride" if gridded else verdict}
    assert decided["claim_3b"] == verdict
    # A filter of one pixel has no pattern.
    assert experiment.decide(cell | {"corner": None})["claim_3b"] == "not measured"


def test_it_decides_no_claim_of_other_figures(record):
    assert set(record["shown"]["findings"][TITLE]["claims"]) == {"3c"}
    assert {pair["seed"] for pair in record["architectures"][TITLE]["pairs"]} == set(SEEDS)


def test_tables_and_figures(record):
    shown = record["shown"]["findings"][TITLE]
    effects, _, rates, grids, centroids, filters, maps, sheet = shown["parts"]
    assert effects["header"][1:] == [
        "strided − average-pooled",
        "PGD-5 − FGSM-RS",
        "interaction",
    ]
    assert len(effects["rows"]) == 7
    attack = "pgd linf 0.1: steps 20, step size 0.02, restarts 1"
    assert rates["header"] == ["network", "training", "clean", attack]
    assert [row[:2] for row in rates["rows"]] == [
        [network, training]
        for network in ("strided", "average-pooled")
        for training in ("STD", "PGD-5", "FGSM-RS")
    ]
    assert {render.cell_text(row[2]) for row in rates["rows"]} == {"12.0 ± 1.0"}
    assert {render.cell_text(row[3]) for row in rates["rows"]} == {"11.0 ± 1.0"}
    assert len(grids["rows"]) == len(centroids["rows"]) == 12
    assert len(filters["rows"]) == 4
    folder = record["settings"]["out"]
    for figure in (maps, sheet):
        assert min(Image.open(f"{folder}/{figure['file']}").size) > 300


def test_each_accuracy_stands_under_its_attack(record):
    cells = {
        (cell["network"], cell["attack"]): cell | {"accuracies": {"std": rates, "adv": rates}}
        for cell, rates in zip(
            record["architectures"][TITLE]["cells"],
            [{"clean": [90.0], "l2": [80.0]}] * 2 + [{"clean": [70.0], "linf": [50.0, None]}] * 2,
            strict=True,
        )
    }
    table = two_by_two_shown.tables(cells)[0]
    assert table.header == ["network", "training", "clean", "l2", "linf"]
    shown = [[render.cell_text(cell) for cell in row[2:]] for row in table.rows]
    assert shown == [["90.0", "80.0", "–"]] * 3 + [["70.0", "–", "50.0"]] * 3


def test_one_seed_decides_nothing(study, tmp_path, capsys):
    folders = [
        study / f"{name}_{stem}" / "seed12" for name in ATTACKS for stem in ("strided", "pooled")
    ]
    record = found_by(folders, tmp_path, "--methods", "vanilla_gradient", "--pictures", "1")
    found = record["architectures"][TITLE]
    verdicts = {
        moved[name]["verdict"]
        for moved in found["effects"].values()
        for name in ("network", "attack", "interaction")
    }
    assert verdicts == {"open"}
    assert {cell["claim_3b"] for cell in found["cells"]} == {"open"}
    assert record["shown"]["findings"][TITLE]["claims"]["3c"]["verdict"] == "open"
    assert "one seed: no interval" in capsys.readouterr().out


def test_of_two_networks_that_both_pool_the_effects_are_stated_alone(study, tmp_path):
    folders = [
        f"{study}/{name}_{stem}/seed12" for name in ATTACKS for stem in ("strided", "pooled")
    ]
    (crossed,) = experiment.find(folders)
    options = ["--images", "10", "--methods", "vanilla_gradient", "--pictures", "1"]
    arguments = experiment.EXPERIMENT._parser().parse_args(["--out", str(tmp_path), *options])
    pooled = dataclasses.replace(crossed, strided_and_pooled=False)
    found = experiment.find_out(pooled, arguments)
    assert found.claims == {}
    assert [row[0] for row in found.parts[0].rows] == list(found.numbers["effects"])


@pytest.mark.slow
def test_nothing_is_decided_of_networks_that_have_learnt_too_little(study, tmp_path, monkeypatch):
    monkeypatch.setitem(trained._LEAST_CLEAN, "digits", 12.5)
    record = found_by([study], tmp_path, "--methods", "vanilla_gradient", "--pictures", "1")
    assert record["architectures"][TITLE]["undertrained"].endswith(", and std_strided has 12.")
    shown = record["shown"]["findings"][TITLE]
    assert shown["claims"]["3c"]["verdict"] == "open: undertrained"
    assert [row["verdict"] for row in shown["claims"]["3c"]["measures"]] == [
        "open: undertrained",
        "",
    ]
    *_, centroids, filters, _, _, notes = shown["parts"]
    for row in (*centroids["rows"], *filters["rows"]):
        assert row[-1]["text"] == "open: undertrained"
    assert notes["sentences"][0].startswith("Nothing is decided: STD must have 12.5 per cent")


def test_a_missing_cell_ends_the_command_with_a_sentence(study, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        found_by([study / "std_strided" / "seed11", study / "pgd_strided" / "seed11"], tmp_path)
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.endswith("from the same seeds, got strided against PGD-5 (seeds 11).")
    assert not list(tmp_path.iterdir())
