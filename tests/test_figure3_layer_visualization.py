import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxrobust import feature_visualization, models
from jaxrobust.core.settings import to_plain
from jaxrobust.experiments import figure3_layer_visualization as figure3
from jaxrobust.experiments.result import Decision
from jaxrobust.training import checkpoints
from jaxrobust.training import config as configs
from tests import tiny

MEAN, STD = [0.3, 0.4, 0.5], [0.2, 0.2, 0.2]
ATTACK = {"name": "fgsm", "epsilon": 0.05}
CHECKERBOARD = np.indices((3, 3)).sum(0) % 2 * 2.0 - 1.0


def write(workdir, run, seed, attack):
    """A training whose first layer is a checkerboard (STD) or constant (ADV), times a number."""
    config = tiny.config("unused", runs={run: {"attack": attack}})
    fields = {"name": config.model.name, "num_classes": 10, "mean": MEAN, "std": STD}
    description = {"run": run, "seed": seed, "model": fields, "image_shape": [16, 16, 3]}
    description["config"] = to_plain(configs.for_run(config, run))
    folder = workdir / run / f"seed{seed}"
    checkpoints.write_config(folder, description)
    variables = dict(tiny.drawn_variables(models.create(**fields), (16, 16, 3)))
    pattern = np.ones((3, 3)) if attack else CHECKERBOARD
    factors = np.random.default_rng(seed).uniform(0.5, 1.5, (3, 8))
    kernel = jnp.asarray(pattern[..., None, None] * factors, jnp.float32)
    variables["params"] = {**variables["params"], "Conv_0": {"kernel": kernel}}
    store = checkpoints.Checkpoints(folder)
    store.save(30, variables, {"step": jnp.array(30)}, {})
    store.close()


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        write(folder, "std", seed, None)
        write(folder, "adv", seed, ATTACK)
    return folder


@pytest.mark.slow
def test_pictures_and_figures(workdir, tmp_path, capsys):
    arguments = ["--workdirs", str(workdir), "--out", str(tmp_path)]
    arguments += ["--measured-filters", "6", "--filters", "3"]
    figure3.EXPERIMENT.main([*arguments, "--styles", "paper", "--seed", "5", "--tiles"])
    record = json.loads((tmp_path / "figure3_layer_visualization.json").read_text())
    path = tmp_path / "figure3_layer_visualization_tinynetwork_paper.png"
    assert str(path) in capsys.readouterr().out
    width, height = Image.open(path).size
    assert height > 2 * width  # 6 rows, 2 columns
    found = record["architectures"]["TinyNetwork"]
    assert [pair["seed"] for pair in found["pairs"]] == [0, 1]
    plain = found["styles"]["paper"]
    assert plain["options"]["steps"] == 30
    assert list(plain["layers"]) == ["1", "2"]
    first = plain["layers"]["1"]
    assert len(set(first["channels"])) == 6

    # What was measured is what `maximize` makes with these settings.
    classifier = checkpoints.load(workdir / "std" / "seed1")
    key = jax.random.fold_in(jax.random.key(5), 1)
    shape = found["image_shape"]
    images = feature_visualization.maximize(
        classifier, 1, first["channels"], key=key, image_shape=shape
    )
    centred = np.float64(images - images.mean((1, 2), keepdims=True))
    power = (np.abs(np.fft.fft2(centred, axes=(1, 2))) ** 2).sum(-1)
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(shape[0]), np.fft.fftfreq(shape[1])))
    expected = (power * radius).sum((1, 2)) / power.sum((1, 2))
    np.testing.assert_allclose(first["std"][1]["spectral_centroid"], expected, rtol=1e-3)

    # A checkerboard is finer than the noise that is left where all pixels go one way.
    change = first["differences"]["spectral_centroid"]
    assert change["low"] <= change["adv"] - change["std"] <= change["high"] < 0
    assert change["adv_smaller"] == "holds"
    assert plain["deepest_third"]["layers"] == [2]
    assert change["seeds"] == 2

    # What a reader of the page switches between: the first seed's images, clipped.
    shown = record["shown"]["findings"]["TinyNetwork"]
    box, table, figure = shown["parts"]
    assert [panel["title"] for panel in box["panels"]] == ["conv 1", "conv 2"]
    assert (box["start"], figure["folded"]) == (1, True)
    strip = box["panels"][0]["strips"][0]
    assert (strip["run"], strip["file"]) == ("std", f"{path.stem}_tiles_1_std.png")
    assert f"centroid {change['std']:.3f} cycles/pixel" in strip["title"]
    tile = np.asarray(Image.open(tmp_path / strip["file"]).convert("RGB"))[:, :16]
    classifier = checkpoints.load(workdir / "std" / "seed0")
    image = feature_visualization.maximize(
        classifier,
        1,
        first["channels"][0],
        key=jax.random.fold_in(jax.random.key(5), 1),
        image_shape=shape,
    )
    np.testing.assert_allclose(tile, 255 * np.clip(image, 0, 1), atol=2)
    assert len(table["rows"]) == 3 * (2 + 1)
    assert shown["claims"]["4"]["verdict"] == figure3.decide(found["styles"]).verdict

    figure3.EXPERIMENT.main(
        [*arguments, "--styles", "regularized", "--regularized-steps", "2", "--layers", "1"]
    )
    record = json.loads((tmp_path / "figure3_layer_visualization.json").read_text())
    found = record["architectures"]["TinyNetwork"]["styles"]["regularized"]
    assert found["options"]["steps"] == 2
    assert list(found["layers"]) == ["1"]
    assert found["deepest_third"] == {"layers": [], "differences": {}}
    assert (tmp_path / "figure3_layer_visualization_tinynetwork_regularized.png").exists()
    assert not record["shown"]["findings"]["TinyNetwork"]["parts"][-1]["folded"]
    claim = record["shown"]["findings"]["TinyNetwork"]["claims"]["4"]
    assert (claim["verdict"], claim["measures"]) == ("not measured", [])


def styles(**smaller):
    """By so much ADV's measures are smaller than STD's, by style."""

    def seed(by):
        centroid, energy = np.array([0.5, 0.51]) - by, np.array([0.2, 0.21]) - by / 2
        return {"spectral_centroid": centroid, "chroma_energy": energy, "chroma_share": energy}

    return {
        style: {
            "deepest_third": {
                "layers": [5, 6],
                "differences": figure3.compare([{"std": [seed(0)] * 3, "adv": [seed(by)] * 3}]),
            }
        }
        for style, by in smaller.items()
    }


def test_claim_4():
    """The plain images decide, whatever the regularised ones say."""
    decided = figure3.decide(styles(paper=0.1, regularized=-0.1))
    assert decided.verdict == "holds"
    assert [row.verdict for row in decided.measures] == ["holds", "holds", "", ""]
    assert [row.what.partition(":")[0] for row in decided.measures[1:3]] == [
        "plain images, conv 5, 6",
        "regularised images, conv 5, 6",
    ]
    assert decided.measures[0].difference.change["mean"] == pytest.approx(-0.1)
    assert decided.measures[0].second.values == pytest.approx([0.405] * 3)
    assert figure3.decide(styles(paper=-0.1, regularized=0.1)).verdict == "does not hold"
    assert figure3.decide(styles(regularized=0.1)).verdict == "not measured"


def test_grey_images_are_judged_by_their_centroid():
    grey = styles(paper=0.1)
    differences = grey["paper"]["deepest_third"]["differences"]
    del differences["chroma_energy"], differences["chroma_share"]
    decided = figure3.decide(grey)
    assert decided.verdict == "holds"
    assert [row.verdict for row in decided.measures] == ["holds", "not applicable"]
    assert decided.measures[1].what == "plain images, conv 5, 6: colour energy above half Nyquist"
    differences.clear()  # no layer of the deepest third was asked for
    assert figure3.decide(grey) == Decision("not measured", [])


def test_layers_over_the_depth():
    assert figure3.evenly(49) == [1, 11, 20, 30, 39, 49]
    assert figure3.evenly(5) == [1, 2, 3, 4, 5]
    assert figure3.evenly(1) == [1]


def test_grey_images_have_no_chroma():
    images = np.random.default_rng(0).uniform(size=(2, 8, 8, 1))
    assert list(figure3.measure(images)) == ["spectral_centroid"]
    assert len(figure3.measure(images.repeat(3, -1))) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "3"], "layers must be numbers of convolutions from 1 to 2, got 3"),
        (["--layers", "0"], "must be a whole number of at least 1, got '0'"),
        (["--filters", "x"], "must be a whole number of at least 1, got 'x'"),
        (["--styles", "lucid"], "invalid choice: 'lucid'"),
        (["--workdirs", "no/such/folder"], "no/such/folder is no folder"),
    ],
)
def test_bad_arguments(workdir, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        figure3.EXPERIMENT.main(["--workdirs", str(workdir), "--out", str(tmp_path), *arguments])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())
