import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments import figure4_first_layer as figure4
from jaxrobust import models
from jaxrobust.core.settings import to_plain
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
    figure4.main(["--workdirs", str(workdir), "--out", str(out)])
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


def test_several_architectures_and_one_seed(tmp_path, capsys):
    workdirs = [tmp_path / "tiny", tmp_path / "resnet"]
    for run in ("std", "adv"):
        write(workdirs[0], run, 0)
        write(workdirs[1], run, 0, "resnet8_small")
    figure4.main(["--workdirs", *map(str, workdirs), "--out", str(tmp_path)])
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
        figure4.main(["--workdirs", str(tmp_path / "runs"), "--out", str(tmp_path / "figures")])
    assert stopped.value.code == 2
    assert "STD and ADV trainings of one architecture" in capsys.readouterr().err
    assert not (tmp_path / "figures").exists()
