import contextlib
import dataclasses
import json
import statistics as plain_statistics

import jax
import matplotlib.image
import numpy as np
import pytest
import scipy.stats

from jaxrobust import saliency
from jaxrobust.data import textured_shapes
from jaxrobust.experiments import figure2_sensitivity_maps as figure2
from jaxrobust.experiments import render, statistics, stride_grid, trained
from jaxrobust.experiments.pictures import Pictures, evaluation_pictures
from jaxrobust.experiments.sensitivity import Drawn
from jaxrobust.training import checkpoints
from jaxrobust.training.run import resolve
from tests import tiny

SMALL = textured_shapes.Parameters(train_examples=20, test_examples=30, cue_conflict_examples=9)
ATTACK = {"name": "fgsm", "epsilon": 0.05}


def write_workdir(workdir, data_dir, *, seeds=(0, 1), **changes):
    """STD and ADV of each seed as `train` leaves them, of weights that nobody trained."""
    config = tiny.config(
        data_dir, runs={"std": {}, "adv": {"attack": ATTACK}}, seeds=seeds, **changes
    )
    for run in resolve(config, workdir):
        checkpoints.write_config(run.folder, run.description)
        rng = np.random.default_rng([list(config.runs).index(run.name), run.seed])
        variables = jax.tree.map(
            lambda leaf, rng=rng: leaf * rng.uniform(0.5, 1.5, leaf.shape).astype(leaf.dtype),
            tiny.drawn_variables(run.model, run.data.image_shape),
        )
        store = checkpoints.Checkpoints(run.folder)
        store.save(30, dict(variables), {"step": np.zeros(1)}, {})
        store.close()
    return workdir


@contextlib.contextmanager
def drawn_shapes(folder, parameters, *, seeds=(0, 1)):
    """`folder`, with STD and ADV in `work` on textured_shapes drawn with these parameters."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(textured_shapes, "PARAMETERS", parameters)
        changes = {"dataset__name": "textured_shapes", "dataset__image_size": None}
        write_workdir(folder / "work", folder, seeds=seeds, **changes)
        yield folder


def read(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Two seeds of STD and ADV on a small set that has masks."""
    with drawn_shapes(tmp_path_factory.mktemp("shapes"), SMALL) as folder:
        yield folder / "work"


@pytest.fixture(scope="module")
def digits(tmp_path_factory, data_dir):
    """One seed of STD and ADV on a set without masks."""
    return write_workdir(tmp_path_factory.mktemp("digits"), data_dir, seeds=(3,))


def centroid(picture):
    """Term by term: the mean radial frequency of all waves, weighted by their power."""
    height, width, _ = picture.shape
    power = (np.abs(np.fft.fft2(picture - picture.mean((0, 1)), axes=(0, 1))) ** 2).sum(-1)
    total = 0.0
    for y in range(height):
        for x in range(width):
            total += power[y, x] * np.hypot(min(y, height - y) / height, min(x, width - x) / width)
    return total / power.sum()


@pytest.mark.slow
def test_figures_written_are_those_of_the_maps(shapes, tmp_path, capsys):
    figure2.EXPERIMENT.main(["--workdirs", str(shapes), "--out", str(tmp_path), "--images", "12"])
    record = read(tmp_path / "figure2_sensitivity_maps.json")
    (title,) = record["architectures"]
    found = record["architectures"][title]
    assert title == "TinyNetwork"
    assert [pair["seed"] for pair in found["pairs"]] == [0, 1]
    assert list(found["methods"]) == list(saliency.PAPER_METHODS)
    assert [one["class"] for one in found["drawn"]] == list(textured_shapes.SHAPES)
    # The gradients, taken here from the functions themselves, for the true classes.
    models_found = trained.find(shapes)
    pictures = evaluation_pictures(models_found[0].config, 12, per_class=True)
    assert found["index"] == pictures.index.tolist()
    for name, method in (
        ("vanilla_gradient", saliency.vanilla_gradient),
        ("guided_backprop", saliency.guided_backprop),
    ):
        measures = found["methods"][name]["measures"]
        values = {"std": [], "adv": []}
        inside = {"std": [], "adv": []}
        for one in models_found:
            maps = np.asarray(method(one.load(), pictures.images, pictures.labels), np.float64)
            values[one.run].append(np.array([centroid(picture) for picture in maps]))
            energy = (maps**2).sum(-1)
            inside[one.run].append(
                ((energy * pictures.masks).sum((1, 2)) / energy.sum((1, 2))).mean()
            )
        for run in values:
            np.testing.assert_allclose(
                measures["spectral_centroid"][f"{run}_by_seed"],
                [one.mean() for one in values[run]],
                rtol=1e-4,
            )
            assert measures["inside_share"][run] == pytest.approx(np.mean(inside[run]), rel=1e-4)
        change = measures["spectral_centroid"]["difference"]
        expected = statistics.difference(values["std"], values["adv"])
        assert change["mean"] == pytest.approx(expected.mean, abs=1e-6)
        assert change["high"] == pytest.approx(expected.high, abs=1e-5)
        assert change["verdict"] == expected.verdict("negative")
        assert (change["resampled"], change["images"], change["left_out"]) == (
            "seeds and images",
            24,
            0,
        )
        assert "verdict" not in measures["inside_share"]["difference"]
    page = (tmp_path / "figure2_sensitivity_maps.md").read_text()
    assert "TinyNetwork, 12 pictures, 2 seeds" in page
    for title in ("Vanilla gradient", "Guided backprop", "SmoothGrad", "Integrated gradients"):
        assert page.count(f"| {title} |") == 6 + 2
    written = tmp_path / "figure2_sensitivity_maps_tinynetwork.png"
    assert record["files"] == [written.name, "figure2_sensitivity_maps.md"]
    assert str(written) in capsys.readouterr().out
    height, width, _ = matplotlib.image.imread(written).shape
    assert width > 12 * 100  # two pictures and their maps side by side
    assert height > 10 * 100


def test_without_masks_the_centroid_decides_alone(digits, tmp_path):
    # Two workdirs of one training are one training.
    figure2.EXPERIMENT.main(
        [
            "--workdirs",
            str(digits),
            str(digits),
            "--out",
            str(tmp_path),
            "--images",
            "8",
            "--methods",
            "grad_cam",
            "vanilla_gradient",
            "--pictures",
            "2",
            "--batch-size",
            "3",
            "--tiles",
        ]
    )
    record = read(tmp_path / "figure2_sensitivity_maps.json")
    found = record["architectures"]["TinyNetwork"]
    assert list(found["methods"]) == ["grad_cam", "vanilla_gradient"]
    method = found["methods"]["vanilla_gradient"]
    assert list(method["measures"]) == list(figure2.MEASURES)[:4]
    change = method["measures"]["spectral_centroid"]["difference"]
    assert (change["resampled"], change["t_low"]) == ("images", None)
    # One of the three methods: the claim cannot hold.
    assert list(found["verdicts"]) == ["vanilla_gradient"]
    assert list(found["verdicts"]["vanilla_gradient"]) == ["spectral_centroid"]
    assert found["claim_2"] in ("open", "open: stride", "does not hold")
    assert not found["masks"]
    assert len(found["drawn"]) == 2
    assert "no masks" in (tmp_path / "figure2_sensitivity_maps.md").read_text()
    # A box instead, and the figure behind its caption.
    box, *_, figure = record["shown"]["findings"]["TinyNetwork"]["parts"]
    assert [panel["title"] for panel in box["panels"]] == ["Grad-CAM", "Vanilla gradient"]
    assert figure["folded"]
    tiles = [strip["file"] for panel in box["panels"] for strip in panel["strips"]]
    assert set(tiles) | {box["before"]["file"]} < set(record["files"])
    assert all((tmp_path / name).is_file() for name in record["files"])
    centroid_of_std = method["measures"]["spectral_centroid"]["std"]
    assert box["panels"][1]["strips"][0] == {
        "kind": "Strip",
        "file": "figure2_sensitivity_maps_tinynetwork_tiles_vanilla_gradient_std.png",
        "title": f"STD: spectral centroid {centroid_of_std:.3f} cycles/pixel",
        "alt": "Vanilla gradient of STD for 0, 5",
        "run": "std",
    }


def test_measures_of_known_maps():
    rows, columns = np.indices((32, 32))
    masks = np.zeros((2, 32, 32), bool)
    masks[:, 8:24, 8:24] = True
    wave = np.cos(2 * np.pi * columns / 8)
    checkerboard = (-1.0) ** (rows + columns)
    inside = np.where(masks[0], checkerboard, 0.0)
    inside[10:22, 10:22] = 0.0  # within 2 pixels of the edge
    maps = np.stack([wave, inside])[..., None].repeat(3, -1)
    values = figure2.measure(maps, shown(masks))
    assert values["spectral_centroid"][0] == pytest.approx(1 / 8)
    assert values["high_frequency_share"][0] == pytest.approx(0.0, abs=1e-12)
    assert values["inside_share"][1] == 1.0
    assert values["inside_share"][0] == pytest.approx(1 / 4)
    assert values["band_share"][1] == 1.0
    # The pictures are waves of 4 pixels.
    assert values["centroid_to_picture"][0] == pytest.approx(1 / 2)
    without = figure2.measure(maps, dataclasses.replace(shown(masks), masks=None))
    assert list(without) == ["spectral_centroid", "centroid_to_picture", "high_frequency_share"]


def shown(masks):
    """Pictures with these masks: waves of 4 pixels."""
    wave = 0.5 + 0.5 * np.cos(2 * np.pi * np.arange(32) / 4)
    count = len(masks)
    images = np.broadcast_to(wave[:, None], (count, 32, 32, 1))
    return Pictures(images, np.zeros(count, int), masks, ("a",), np.arange(count))


def made_maps(share_of_edge, *, seeds=3, images=8):
    """A checkerboard all over, and a smooth edge around a square: this share of the two.

    Squares lie elsewhere in each map, and checkerboards have both signs, so that there is no grid.
    """
    rng = np.random.default_rng(int(10 * share_of_edge))
    rows, columns = np.indices((32, 32))
    signs = (-1.0) ** (np.arange(images) // 4)
    checkerboards = signs[:, None, None] * (-1.0) ** (rows + columns)
    distance = np.maximum(np.abs(rows - 15.5), np.abs(columns - 15.5))
    edges, masks = (
        np.stack([np.roll(one, (shift % 4, shift % 4), (0, 1)) for shift in range(images)])
        for one in (np.exp(-((distance - 8) ** 2)), distance < 8)
    )
    shares = share_of_edge + rng.uniform(-0.1, 0.1, (seeds, images, 1, 1, 1))
    maps = shares * edges[..., None] + (1 - shares) * checkerboards[..., None]
    return list(maps), masks


def compared(std, adv, masks):
    """The maps of one method beside white noise as those of random weights."""
    noise = list(np.random.default_rng(9).standard_normal(np.shape(std)))
    maps = {"random": noise, "std": std, "adv": adv}
    return figure2.compare(maps, shown(masks), maps)


def decided(share_of_std, share_of_adv):
    """What the experiment says of three methods whose maps are made up."""
    (std, masks), (adv, _) = made_maps(share_of_std), made_maps(share_of_adv)
    method = compared(std, adv, masks)
    methods = dict.fromkeys(figure2.CLAIMED, method)
    found = {"methods": methods, **figure2.decide(methods)}
    return figure2.decision(found), method["measures"]


def test_claim_2_holds_for_maps_of_edges():
    decision, measures = decided(0.2, 0.8)
    assert decision.verdict == "holds"
    assert [measure.verdict for measure in decision.measures] == ["holds"] * 6
    assert measures["spectral_centroid"]["adv"] < measures["spectral_centroid"]["std"]
    second = decision.measures[1]
    assert second.what == "vanilla gradient: share of the map's energy along the silhouette"
    values = measures["band_share"]["std_by_seed"]
    spread = f"{plain_statistics.mean(values):.3f} ± {plain_statistics.stdev(values):.3f}"
    assert render.cell_text(second.first) == spread
    change = measures["band_share"]["difference"]
    interval = f"[{change['low']:+.3f}, {change['high']:+.3f}]"
    assert render.cell_text(second.difference) == f"{change['mean']:+.3f} {interval}"


def test_claim_2_does_not_hold_for_finer_maps_of_adv():
    decision, _ = decided(0.8, 0.2)
    assert decision.verdict == "does not hold"
    assert {measure.verdict for measure in decision.measures} == {"does not hold"}


def with_grid(maps, share):
    """The maps with more energy in one phase of 2 x 2, such that it has this share."""
    rows, columns = np.indices((32, 32))
    on_grid = (rows % 2 == 1) & (columns % 2 == 0)
    shares = np.array(
        [[(one[on_grid] ** 2).sum() / (one**2).sum() for one in seed] for seed in maps]
    )[..., None, None, None]
    factor = np.sqrt(share / (1 - share) * (1 - shares) / shares)
    return list(np.where(on_grid[..., None], factor * maps, maps))


@pytest.mark.parametrize(("share", "gridded"), [(0.29, False), (0.31, True), (0.99, True)])
@pytest.mark.parametrize("run", ["std", "adv", "random"])
def test_a_grid_keeps_the_centroid_from_deciding(run, share, gridded):
    # Random weights have no say: what they paint is stated.
    gridded = gridded and run != "random"
    (std, masks), (adv, _) = made_maps(0.2), made_maps(0.8)
    smooth = compared(with_grid(std, 0.25), with_grid(adv, 0.25), masks)
    maps = {
        "random": with_grid(std, 0.25),
        "std": with_grid(std, 0.25),
        "adv": with_grid(adv, 0.25),
    }
    maps[run] = with_grid(maps[run], share)
    method = figure2.compare(maps, shown(masks), maps)
    found = method["phases"]["2"][run]
    np.testing.assert_allclose(np.array(found["shares"])[1, 0], share)
    assert found["points_from_equal"] == pytest.approx(100 * (share - 0.25))
    assert np.shape(found["by_seed"]) == (3, 2, 2)
    # One method with a grid is enough for the network.
    methods = {**dict.fromkeys(figure2.CLAIMED, smooth), "guided_backprop": method}
    decided = figure2.decide(methods)
    assert decided["stride"] is gridded
    centroid = "open: stride" if gridded else "holds"
    for verdicts in decided["verdicts"].values():
        assert verdicts == {"spectral_centroid": centroid, "band_share": "holds"}
    assert decided["claim_2"] == centroid
    # Of a method that the paper does not show, it says nothing.
    others = {**dict.fromkeys(figure2.CLAIMED, smooth), "smoothgrad": method}
    assert figure2.decide(others)["claim_2"] == "holds"


def test_grids_of_seeds_do_not_make_up_for_each_other():
    maps = np.zeros((2, 1, 4, 4, 1))
    maps[0, :, ::2], maps[1, :, 1::2] = 1.0, 1.0
    found = stride_grid.phases({"std": list(maps)})
    np.testing.assert_allclose(found["2"]["std"]["shares"], 0.25)
    assert found["2"]["std"]["points_from_equal"] == 25.0
    assert stride_grid.is_there(found, ["std"])


def test_without_masks_the_centroid_decides_claim_2():
    (std, masks), (adv, _) = made_maps(0.2), made_maps(0.8)
    pictures = dataclasses.replace(shown(masks), masks=None)
    maps = {"random": std, "std": std, "adv": adv}
    method = figure2.compare(maps, pictures, maps)
    methods = dict.fromkeys(figure2.CLAIMED, method)
    decided = figure2.decide(methods)
    assert decided["claim_2"] == "holds"
    assert decided["verdicts"]["loss_gradient"] == {"spectral_centroid": "holds"}
    two = {name: methods[name] for name in figure2.CLAIMED[:2]}
    assert figure2.decide(two)["claim_2"] == "open"
    measures = method["measures"]
    # STD's own maps stand for those of random weights here.
    assert measures["centroid_to_random"]["std"] == 1.0
    centroids = [
        np.array([[centroid(one) for one in seed] for seed in maps]) for maps in (std, adv)
    ]
    ratio = centroids[1] / centroids[0]
    assert measures["centroid_to_random"]["adv_by_seed"] == pytest.approx(ratio.mean(1))
    change = measures["spectral_centroid"]["difference"]
    test = scipy.stats.ttest_rel(centroids[1].mean(1), centroids[0].mean(1))
    assert (change["t_low"], change["t_high"]) == pytest.approx(tuple(test.confidence_interval()))


def test_maps_without_structure_are_counted_beside_their_measure():
    (std, masks), (adv, _) = made_maps(0.2), made_maps(0.8)
    std[1][2:4] = 0.0
    methods = {"grad_cam": compared(std, adv, masks)}
    found = {
        "methods": methods,
        "images": 8,
        "pairs": [None] * 3,
        **figure2.decide(methods),
    }
    assert found["methods"]["grad_cam"]["measures"]["band_share"]["undefined"]["std"] == 2
    table = figure2.table("Network", found)
    assert table.rows[4][1] == "share along silhouette (not defined for 2 maps)"
    phases = found["methods"]["grad_cam"]["phases"]["4"]["std"]["shares"]
    assert np.sum(phases) == pytest.approx(1.0)
    assert all(row[-1] == "" for row in table.rows)  # the claim is about other methods


def test_box_shows_the_first_pictures(tmp_path):
    maps = {"vanilla_gradient": {run: np.ones((9, 8, 8, 3)) for run in ("std", "adv")}}
    drawn = Drawn(np.zeros((9, 8, 8, 3)), [f"class {label}" for label in range(9)], maps, seed=0)
    measures = {"spectral_centroid": {"std": 0.25, "adv": 0.125}}
    measures["band_share"] = {"std": 0.1, "adv": 0.5}
    found = {"methods": {"vanilla_gradient": {"measures": measures}}}
    box = figure2.write_box("Network", found, drawn, tmp_path / "stem")
    assert box.before.alt == "Pictures: " + ", ".join(drawn.classes[:6])
    (panel,) = box.panels
    assert panel.strips[1].title == (
        "ADV: spectral centroid 0.125 cycles/pixel, along the silhouette 0.500"
    )
    row = matplotlib.image.imread(tmp_path / panel.strips[1].file)
    assert row.shape[:2] == (8, 6 * 8 + 5)  # gaps of one pixel


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdirs", "nowhere"], "nowhere is no folder"),
        (["--images", "0"], "must be a whole number of at least 1, got '0'"),
        (["--methods", "deepdream"], "got 'deepdream'"),
    ],
)
def test_errors_are_one_sentence(arguments, message, digits, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        figure2.EXPERIMENT.main(
            [
                "--workdirs",
                str(digits),
                "--out",
                str(tmp_path),
                "--methods",
                "vanilla_gradient",
                *arguments,
            ]
        )
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error
    assert not list(tmp_path.iterdir())


def test_help_says_what_it_costs(capsys):
    with pytest.raises(SystemExit) as stop:
        figure2.EXPERIMENT.main(["--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "Cost:" in printed
    assert "guided_grad_cam" in printed
