import itertools
import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from jaxrobust import models
from jaxrobust.core.settings import to_plain
from jaxrobust.experiments import figure4_first_layer as figure4
from jaxrobust.training import checkpoints
from jaxrobust.training import config as configs
from tests import tiny

ATTACK = {"name": "fgsm", "epsilon": 0.05}


def write(workdir, run, seed, model_name="tests.tiny:TinyNetwork"):
    """A training with drawn weights; those of ADV's first layer are half as large as STD's."""
    attack = ATTACK if run == "adv" else None
    config = tiny.config("unused", runs={run: {"attack": attack}}, model__name=model_name)
    fields = {"name": model_name, "num_classes": 10, "mean": [0.5] * 3, "std": [0.2] * 3}
    description = {"run": run, "seed": seed, "model": fields, "image_shape": [16, 16, 3]}
    description["config"] = to_plain(configs.for_run(config, run))
    folder = workdir / run / f"seed{seed}"
    checkpoints.write_config(folder, description)
    variables = dict(tiny.drawn_variables(models.create(**fields), (16, 16, 3)))
    name = "Conv_0" if "Conv_0" in variables["params"] else "conv1"
    layer = dict(variables["params"][name])
    noise = np.random.default_rng(seed).normal(size=layer["kernel"].shape)
    layer["kernel"] = jnp.asarray(noise * (0.5 if run == "adv" else 1.0), jnp.float32)
    variables["params"] = {**variables["params"], name: layer}
    store = checkpoints.Checkpoints(folder)
    store.save(30, variables, {"step": jnp.array(30)}, {})
    store.close()
    return noise


def test_pictures_and_figures(tmp_path, capsys):
    workdir, out = tmp_path / "runs", tmp_path / "figures"
    kernels = [write(workdir, "std", seed) for seed in (0, 1)]
    for seed in (0, 1):
        write(workdir, "adv", seed)
    figure4.EXPERIMENT.main(["--workdirs", str(workdir), "--out", str(out)])
    printed = capsys.readouterr().out
    for form in ("raw", "folded"):
        path = out / f"figure4_first_layer_{form}.png"
        assert str(path) in printed
        assert min(Image.open(path).size) > 300
    record = json.loads((out / "figure4_first_layer.json").read_text())
    found = record["architectures"]["TinyNetwork"]
    assert found["filters"] == [8, 3, 3, 3]
    norms = [np.linalg.norm(kernel.reshape(-1, 8), axis=0).mean() for kernel in kernels]
    raw, folded = found["forms"]["raw"], found["forms"]["folded"]
    assert [measures["l2_norm"] for measures in raw["std"]] == pytest.approx(norms, rel=1e-5)
    change = raw["differences"]["l2_norm"]
    assert change["mean"] == pytest.approx(-0.5 * np.mean(norms), rel=1e-5)
    assert change["low"] == pytest.approx(-0.5 * max(norms), rel=1e-5)
    assert change["claim"] == "holds"
    # Half the weights, the same pattern; BatchNorm weighs the filters otherwise.
    shares = raw["differences"]["nyquist_corner_share"]
    assert shares["mean"] == pytest.approx(0.0, abs=1e-6)
    assert folded["std"][0]["l2_norm"] != pytest.approx(norms[0], rel=1e-3)
    claims = record["shown"]["findings"]["TinyNetwork"]["claims"]
    assert claims["3"]["verdict"] == folded["differences"]["l2_norm"]["claim"] == "holds"


def made_forms(change):
    """Of three seeds; as they are, the filters say the contrary."""

    def seed(number, by):
        return {"l2_norm": 1 + 0.01 * number - by, "nyquist_corner_share": 0.3 + by}

    forms = {}
    for form, by in (("raw", -change), ("folded", change)):
        std, adv = ([seed(number, of_run) for number in range(3)] for of_run in (0, by))
        forms[form] = {"std": std, "adv": adv, "differences": figure4.compare(std, adv)}
    return forms


@pytest.mark.parametrize("name", ["l2_norm", "nyquist_corner_share"])
def test_claims_3_and_3b(name):
    decided = figure4.decide(made_forms(0.1), name)
    assert decided.verdict == "holds"
    assert [row.verdict for row in decided.measures] == ["holds", ""]
    assert [row.what.partition(", ")[2] for row in decided.measures] == [
        "BatchNorm folded in",
        "as they are",
    ]
    assert decided.measures[0].difference.change["mean"] == pytest.approx(
        -0.1 if name == "l2_norm" else 0.1
    )
    assert figure4.decide(made_forms(-0.1), name).verdict == "does not hold"


def test_without_batch_normalisation_the_filters_count_as_they_are():
    forms = made_forms(-0.1)
    del forms["folded"]
    decided = figure4.decide(forms, "l2_norm")
    assert [(row.what, row.verdict) for row in decided.measures] == [
        ("mean l2 norm of the filters, as they are", "holds")
    ]
    # Filters of one pixel have no pattern.
    del forms["raw"]["differences"]["nyquist_corner_share"]
    assert figure4.decide(forms, "nyquist_corner_share").verdict == "not measured"


class WithoutNorm(nn.Module):
    """As a user would write it: one convolution, no BatchNorm."""

    num_classes: int | None = 10

    @nn.compact
    def __call__(self, images, *, train=False):
        features = nn.relu(nn.Conv(4, (3, 3))(images)).mean((1, 2))
        return features if self.num_classes is None else nn.Dense(self.num_classes)(features)


def test_a_network_without_batch_normalisation(tmp_path):
    for run, seed in itertools.product(("std", "adv"), (0, 1)):
        write(tmp_path / "runs", run, seed, f"{__name__}:WithoutNorm")
    figure4.EXPERIMENT.main(["--workdirs", str(tmp_path / "runs"), "--out", str(tmp_path)])
    record = json.loads((tmp_path / "figure4_first_layer.json").read_text())
    assert list(record["architectures"]["WithoutNorm"]["forms"]) == ["raw"]
    assert record["files"] == ["figure4_first_layer_raw.png", "figure4_first_layer.md"]
    shown = record["shown"]["findings"]["WithoutNorm"]
    assert shown["claims"]["3"]["verdict"] == "holds"
    assert "No BatchNorm follows" in shown["parts"][1]["sentences"][0]


def test_several_architectures_and_one_seed(tmp_path, capsys):
    workdirs = [tmp_path / "tiny", tmp_path / "resnet"]
    for run in ("std", "adv"):
        write(workdirs[0], run, 0)
        write(workdirs[1], run, 0, "resnet8_small")
    figure4.EXPERIMENT.main(["--workdirs", *map(str, workdirs), "--out", str(tmp_path)])
    record = json.loads((tmp_path / "figure4_first_layer.json").read_text())
    assert set(record["architectures"]) == {"TinyNetwork", "ResNet-8 (small)"}
    for found in record["architectures"].values():
        change = found["forms"]["raw"]["differences"]["l2_norm"]
        assert change["claim"] == "open"
        assert change["low"] is None
    assert "one seed: no interval" in capsys.readouterr().out


def test_one_run_is_no_pair(tmp_path, capsys):
    write(tmp_path / "runs", "std", 0)
    with pytest.raises(SystemExit) as stopped:
        figure4.EXPERIMENT.main(
            ["--workdirs", str(tmp_path / "runs"), "--out", str(tmp_path / "figures")]
        )
    assert stopped.value.code == 2
    assert "STD and ADV trainings of one architecture" in capsys.readouterr().err
    assert not (tmp_path / "figures").exists()
