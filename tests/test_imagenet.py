"""The paper's ImageNet configs, over generated pictures in ImageNet's own layout."""

import importlib.util
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrobust.training import checkpoints, study
from jaxrobust.training import config as configs
from tests.test_data_pipeline import write_imagenet

CONFIGS = [
    path
    for path in sorted((Path(__file__).parents[1] / "configs").glob("*.py"))
    if not path.stem.startswith("paper_")  # plans of reports, see test_paper.py
]


def read(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, module.get_config()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_valid_and_says_its_command_cost_and_figures(path):
    module, config = read(path)
    configs.check(config)
    for heading in (f"--config=configs/{path.name}", "Cost:", "Expect:"):
        assert heading in module.__doc__


@pytest.mark.slow
def test_resnet50_adv_takes_real_steps_on_mock_imagenet(tmp_path):
    write_imagenet(tmp_path / "data", 8)
    _, config = read(Path("configs/resnet50_adv.py"))
    config.dataset.data_dir = str(tmp_path / "data")
    config.batch_size, config.evaluation.batch_size = 8, 8
    config.epochs, config.steps = None, 2
    # The network is the whole one; only its pictures are smaller.
    config.dataset.image_size = 64
    # One step and restart of the same attack: ten times ten would take many minutes on a CPU.
    for attack in config.evaluation.attacks.values():
        attack.steps, attack.restarts = 1, 1
    (entry,) = study.run(config, tmp_path / "run")
    assert entry["run"] == "adv"
    assert entry["step"] == 2
    assert entry["clean"]["n"] == 8
    assert [attack["epsilon"] for attack in entry["attacks"]] == [0.005, 0.01]
    losses = [
        json.loads(line)["loss"]
        for line in (tmp_path / "run/adv/seed0/metrics.jsonl").read_text().splitlines()
    ]
    assert np.all(np.isfinite(losses))
    classifier = checkpoints.load(tmp_path / "run")
    assert sum(leaf.size for leaf in jax.tree.leaves(classifier.variables["params"])) == 25_557_032
    assert jax.eval_shape(classifier, jax.ShapeDtypeStruct((224, 224, 3), float)).shape == (1000,)
