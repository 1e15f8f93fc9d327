"""The configs of late fusion: which runs they name, and steps of every kind of the paper's."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxrobust import models
from jaxrobust.data import catalog
from jaxrobust.training import checkpoints, study
from jaxrobust.training import config as configs
from tests import catalog_data, tiny
from tests.test_imagenet import read

SETTINGS = ["adv", "adv+adv", "std", "std+adv", "std+std"]
NARROW = {"width": 4, "hidden": 16}


def paper_config(selection):
    module, _ = read(Path("configs/figure7.py"))
    return module.get_config(selection)


def test_the_paper_has_ten_data_sets_two_architectures_and_five_settings():
    config = paper_config("")
    assert len(config.runs) * len(config.seeds) == 10 * 2 * 5 * 3
    names = [name.split("_", 1) for name in config.runs]
    assert {architecture for architecture, _ in names} == {"resnet50", "alexnet"}
    assert {rest.rpartition("_")[0] for _, rest in names} == set(catalog.PAPER)


def test_a_part_of_it_can_be_chosen():
    config = paper_config("alexnet,stl10")
    assert sorted(config.runs) == [f"alexnet_stl10_{setting}" for setting in SETTINGS]
    assert len(paper_config("cifar10").runs) == 10
    assert len(paper_config("resnet50").runs) == 50
    with pytest.raises(ValueError, match=r"some of resnet50, alexnet, .* got resnet18"):
        paper_config("resnet18,cifar10")


def test_a_wrong_part_ends_the_command_with_one_sentence():
    command = [sys.executable, "-m", "jaxrobust.main", "--config=configs/figure7.py:resnet18"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1
    message = ended.stderr.strip()
    assert message.startswith("ValueError: After the colon stand names of")
    assert message.endswith("got resnet18.")
    assert "\n" not in message


def write_backbones(folder):
    """Untrained narrow networks where the config looks for trained ones."""
    model = {"name": "alexnet", "num_classes": 1000, **NARROW}
    shape = (224, 224, 3)
    variables = tiny.drawn_variables(models.create(**model), shape)
    for run, attack in (("std", None), ("adv", {"name": "fgsm"})):
        for seed in (0, 1):
            description = {
                "run": run,
                "seed": seed,
                "model": model,
                "image_shape": list(shape),
                "config": {"attack": attack},
            }
            variables = jax.tree.map(lambda leaf: leaf + 0.01, variables)  # each its own
            place = folder / "runs" / f"alexnet_{run}" / run / f"seed{seed}"
            checkpoints.write(place, description, variables)


@pytest.mark.slow
def test_steps_of_every_kind_on_mock_data(tmp_path, monkeypatch, quickly_compiled):
    catalog_data.write("svhn_cropped", tmp_path / "data")
    write_backbones(tmp_path)
    config = paper_config("svhn_cropped,alexnet")
    monkeypatch.chdir(tmp_path)
    config.dataset.data_dir = str(tmp_path / "data")
    config.batch_size = config.evaluation.batch_size = jax.device_count()
    config.epochs, config.steps, config.seeds = None, 1, (0,)
    configs.check(config)
    results = study.run(config, tmp_path / "fused")
    assert sorted(entry["run"] for entry in results) == sorted(config.runs)
    assert all(entry["clean"]["n"] == 5 and entry["step"] == 1 for entry in results)
    for name in config.runs:
        described = checkpoints.read_config(tmp_path / "fused" / name / "seed0")
        kinds = ["adv" if one["adversarial"] else "std" for one in described["backbones"]]
        assert name.endswith("_" + "+".join(kinds))
        folders = [one["folder"] for one in described["backbones"]]
        assert len(set(folders)) == len(folders)  # STD+STD is two trainings
