import matplotlib.image
import numpy as np
import pytest
import scipy.stats

from jaxrobust.experiments import figure8_sanity_checks as figure8
from jaxrobust.experiments import render, sensitivity
from tests.test_figure2_sensitivity_maps import read, write_workdir

METHODS = ("vanilla_gradient", "guided_backprop")
SHAPE = (16, 16, 3)


def made_maps(*, by_setting, by_seed, seeds=3, images=6):
    """Maps of which a part is the setting's own, and a part the seed's own."""
    rng = np.random.default_rng(0)
    of_seeds = rng.standard_normal((seeds, images, *SHAPE))
    return {
        run: [by_setting * of_setting + by_seed * of_seed for of_seed in of_seeds]
        for run in ("random", "std", "adv")
        for of_setting in [rng.standard_normal((images, *SHAPE))]
    }


@pytest.mark.parametrize(
    ("parts", "verdict"),
    [
        ({"by_setting": 1.0, "by_seed": 0.3}, "holds"),
        ({"by_setting": 0.3, "by_seed": 1.0}, "does not hold"),
    ],
)
def test_claim_8_is_decided_by_what_maps_share(parts, verdict):
    maps = made_maps(**parts)
    found = figure8.compare(maps)
    assert found["claim_8"] == verdict
    measured = found["similarities"]["rank_correlation"]
    assert list(measured["between_settings"]) == ["random-std", "random-adv", "std-adv"]

    def ranks(first, second):
        return np.mean(
            [
                scipy.stats.spearmanr(np.abs(a).sum(-1).ravel(), np.abs(b).sum(-1).ravel())[0]
                for a, b in zip(first, second, strict=True)
            ]
        )

    between = [ranks(maps["std"][seed], maps["adv"][seed]) for seed in range(3)]
    within = [ranks(maps["adv"][seed], maps["adv"][(seed + 1) % 3]) for seed in range(3)]
    np.testing.assert_allclose(measured["between_settings"]["std-adv"]["by_seed"], between)
    np.testing.assert_allclose(measured["between_seeds"]["adv"]["by_seed"], within)
    change = measured["differences"]["std-adv"]["adv"]
    assert change["mean"] == pytest.approx(np.mean(between) - np.mean(within))
    assert change["low"] < change["mean"] < change["high"]


def test_one_seed_measures_no_seeds_of_a_setting():
    found = figure8.compare(made_maps(by_setting=1.0, by_seed=0.3, seeds=1))
    assert found["claim_8"] == "not measured"
    assert figure8.decision({"methods": {"guided_backprop": found}}).verdict == "not measured"
    for measured in found["similarities"].values():
        assert measured["between_seeds"] is None
        assert measured["differences"] is None


def test_maps_without_structure_are_counted():
    maps = made_maps(by_setting=1.0, by_seed=0.3)
    maps["std"][1][2] = 0.0
    method = figure8.compare(maps)
    found = method["similarities"]["ssim"]
    assert found["between_settings"]["random-std"]["undefined"] == 1
    assert found["between_seeds"]["std"]["undefined"] == 2  # with the seeds before and after it
    assert found["differences"]["std-adv"]["std"]["left_out"] == 2
    assert found["differences"]["random-adv"]["random"]["left_out"] == 0
    found = {"methods": {"smoothgrad": method}, "images": 6, "pairs": [None] * 3}
    table = figure8.table("Network", found)
    # One pair with random, one with ADV, two with other seeds.
    assert table.rows[0][1] == "SSIM (not defined for 4 pairs of maps)"
    assert figure8.decision(found).verdict == "not measured"  # of guided backprop


def test_measures_of_the_claim():
    method = figure8.compare(made_maps(by_setting=1.0, by_seed=0.3))
    decision = figure8.decision({"methods": {"guided_backprop": method}})
    assert decision.verdict == "holds"
    assert [measure.verdict for measure in decision.measures] == ["holds"] * 12
    last = decision.measures[-1]
    assert last.what == "rank correlation: STD and ADV, against two seeds of ADV"
    ranks = method["similarities"]["rank_correlation"]
    for side, values in (
        (last.first, ranks["between_settings"]["std-adv"]["by_seed"]),
        (last.second, ranks["between_seeds"]["adv"]["by_seed"]),
    ):
        text = f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
        assert render.cell_text(side) == text
    change = ranks["differences"]["std-adv"]["adv"]
    interval = f"[{change['low']:+.3f}, {change['high']:+.3f}]"
    assert render.cell_text(last.difference) == f"{change['mean']:+.3f} {interval}"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, data_dir):
    return write_workdir(tmp_path_factory.mktemp("work"), data_dir)


@pytest.mark.slow
def test_figures_are_written(workdir, tmp_path, capsys):
    figure8.EXPERIMENT.main(
        [
            "--workdirs",
            str(workdir),
            "--out",
            str(tmp_path),
            "--images",
            "5",
            "--independent",
            "--cascade-images",
            "5",
            "--pictures",
            "3",
            "--methods",
            *METHODS,
        ]
    )
    found = read(tmp_path / "figure8_sanity_checks.json")["architectures"]["TinyNetwork"]
    assert list(found["methods"]) == list(METHODS)
    cascade, single = found["cascade"], found["single_layers"]
    assert cascade["layers"] == single["layers"] == ["Dense_0", "Conv_1", "Conv_0"]
    for method in METHODS:
        similarities = found["methods"][method]["similarities"]
        for name in sensitivity.SIMILARITIES:
            for run in ("std", "adv"):
                values = np.array(cascade["similarities"][run][method][name])
                alone = np.array(single["similarities"][run][method][name])
                assert values.shape == alone.shape == (2, 4)
                np.testing.assert_allclose(values[:, 0], 1.0)
                assert (values[:, 1:] < 1.0).all()
                np.testing.assert_allclose(alone[:, 1], values[:, 1], rtol=1e-5)  # the top alone
                # All layers anew: the random network of that seed.
                np.testing.assert_allclose(
                    values[:, -1],
                    similarities[name]["between_settings"][f"random-{run}"]["by_seed"],
                    rtol=1e-5,
                )
    printed = capsys.readouterr().out
    assert "TinyNetwork, 5 pictures, 2 seeds" in printed
    assert "| SSIM: random and STD, against two seeds of STD |" in printed
    # Two tables of steps, of STD and ADV.
    assert printed.count("| 1: Dense_0 | 2: Conv_1 | 3: Conv_0 |") == 2
    middle = np.mean(cascade["similarities"]["adv"][METHODS[1]]["ssim"], 0)[2]
    (row,) = [line for line in printed.splitlines() if "ADV, Guided backprop | SSIM" in line][:1]
    assert row.split(" | ")[3] == f"{middle:.3f}"
    written = sorted(path.name for path in tmp_path.glob("*.png"))
    stem = "figure8_sanity_checks_tinynetwork"
    assert written == sorted(
        f"{stem}{ending}.png"
        for ending in ("", "_cascade", "_cascade_maps", "_single_layers", "_single_layers_maps")
    )
    for name in written:
        assert str(tmp_path / name) in printed
        assert min(matplotlib.image.imread(tmp_path / name).shape[:2]) > 300


def test_one_seed_without_a_cascade(workdir, tmp_path, capsys):
    folders = [str(workdir / run / "seed1") for run in ("std", "adv")]
    figure8.EXPERIMENT.main(
        [
            "--workdirs",
            *folders,
            "--out",
            str(tmp_path),
            "--images",
            "5",
            "--cascade-images",
            "0",
            "--methods",
            "vanilla_gradient",
        ]
    )
    found = read(tmp_path / "figure8_sanity_checks.json")["architectures"]["TinyNetwork"]
    assert found["methods"]["vanilla_gradient"]["claim_8"] == "not measured"
    assert "cascade" not in found
    assert "parameters: not measured.**" in capsys.readouterr().out
    assert len(list(tmp_path.glob("*.png"))) == 1


def test_errors_are_one_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        figure8.EXPERIMENT.main(["--workdirs", str(tmp_path), "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert "holds no training with a checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
