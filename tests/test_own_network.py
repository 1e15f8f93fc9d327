"""A user's network, without mean and std, on 42 pictures of three classes: every experiment."""

import importlib
import json

import cv2
import flax.linen as nn
import numpy as np
import pytest

from jaxrobust.experiments import figure2_sensitivity_maps, figure4_first_layer
from jaxrobust.training import config as configs
from jaxrobust.training import study
from tests.own_network import Network

PICTURES = {"train": (8, 8, 8), "validation": (14, 15, 13)}
FEW = ["--methods", "vanilla_gradient", "integrated_gradients"]


class WithoutConvolution(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, *, train):
        return nn.Dense(self.num_classes)(images.reshape(len(images), -1))


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    """{class: workdir} of STD and ADV, trained for two steps."""
    folder = tmp_path_factory.mktemp("own")
    generator = np.random.default_rng(0)
    for split, counts in PICTURES.items():
        for kind, count in zip(("ant", "bee", "cat"), counts, strict=True):
            place = folder / "pictures" / split / kind
            place.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 256, (18, 16, 3), dtype=np.uint8)
                cv2.imwrite(str(place / f"{index}.png"), pixels)
    workdirs = {}
    for network in (Network, WithoutConvolution):
        settings = configs.default()
        settings.dataset.name = "image_folder"
        settings.dataset.path = str(folder / "pictures")
        settings.dataset.image_size = 16
        settings.model.name = f"{network.__module__}:{network.__name__}"
        settings.runs = {"std": {}, "adv": {"attack": {"name": "fgsm", "epsilon": 0.02}}}
        settings.epochs, settings.steps, settings.batch_size = None, 2, 8
        settings.evaluation.attacks = {}
        workdirs[network] = folder / network.__name__
        study.run(settings, workdirs[network])
    return workdirs


def call(name, workdir, out, *arguments):
    """The record that an experiment has written."""
    experiment = importlib.import_module(f"jaxrobust.experiments.{name}").EXPERIMENT
    experiment.main(["--workdirs", str(workdir), "--out", str(out), *arguments])
    return json.loads((out / f"{name}.json").read_text())


def refusal(name, workdir, out, capsys, *arguments):
    """The sentence with which an experiment ends."""
    with pytest.raises(SystemExit) as stopped:
        call(name, workdir, out, *arguments)
    assert stopped.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_maps_are_of_the_pictures_that_there_are(trainings, tmp_path, caplog):
    found = call("figure2_sensitivity_maps", trainings[Network], tmp_path, *FEW)
    [of_network] = found["architectures"].values()
    assert of_network["images"] == 42
    assert sorted(of_network["methods"]) == ["integrated_gradients", "vanilla_gradient"]
    said = [record.getMessage() for record in caplog.records]
    place = "the split 'validation' of image_folder has 42."
    assert f"42 of the 200 pictures asked for are taken: {place}" in said


@pytest.mark.slow
def test_what_a_method_lacks_is_said_before_anything_is_measured(trainings, tmp_path, capsys):
    methods = ("--methods", "vanilla_gradient", "guided_backprop")
    workdir = trainings[WithoutConvolution]
    said = refusal("figure2_sensitivity_maps", workdir, tmp_path, capsys, *methods)
    assert said.startswith(
        "--methods must suit WithoutConvolution, got guided_backprop: the function has no jax.nn"
    )
    assert "maps" not in said.split(":")[0]


@pytest.mark.slow
def test_filters_of_pixels(trainings, tmp_path, capsys):
    steps = ("--steps", "2", "--regularized-steps", "2", "--measured-filters", "2")
    found = call("figure3_layer_visualization", trainings[Network], tmp_path, *steps)
    [of_network] = found["architectures"].values()
    assert sorted(of_network["styles"]) == ["paper", "regularized"]
    workdir = trainings[WithoutConvolution]
    said = refusal("figure3_layer_visualization", workdir, tmp_path, capsys)
    assert said == (
        "WithoutConvolution must have convolutions, whose filters are looked at, got none."
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("figure2_sensitivity_maps", ()),
        ("figure4_first_layer", ()),
        ("figure6_smoothing", ()),
        ("figure8_sanity_checks", FEW),
        ("figure20_variants", ()),
        ("table1_robustness", ("--steps", "2", "--restarts", "1")),
        ("table2_variants", ()),
    ],
)
def test_every_experiment_works(name, arguments, trainings, tmp_path):
    assert call(name, trainings[Network], tmp_path, *arguments)["files"]


@pytest.mark.slow
def test_one_seed_and_a_third_are_said_as_such(trainings, tmp_path):
    of_table2, of_figure4 = (
        json.dumps(call(name, trainings[Network], tmp_path)["shown"], ensure_ascii=False)
        for name in ("table2_variants", "figure4_first_layer")
    )
    assert "a guess has 33.3 %." in of_table2
    assert "Per cent, of 1 training each; " in of_table2
    assert "4 filters, 1 seed" in of_figure4
    assert "1 seeds" not in of_figure4
    found = {"methods": {}, "verdicts": {}, "images": 1, "pairs": [{}]}
    assert figure2_sensitivity_maps.table("A", found).caption == "A, 1 picture, 1 seed"
    # A network without a BatchNorm is not told that one is folded in.
    assert "BatchNorm folded in" not in of_figure4
    assert figure4_first_layer.EXPERIMENT.claims[0].rule == (
        "ADV − STD < 0; with the BatchNorm that follows, if one does, folded in"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cue_conflict", "--workdirs must be trainings on textured_shapes with the shape as label"),
        ("figure7_late_fusion", "No finished fine-tuning of late fusion is left"),
        ("stride_or_training", "Two networks that differ in their strides alone are needed"),
    ],
)
def test_others_say_what_they_need(name, said, trainings, tmp_path, capsys):
    assert refusal(name, trainings[Network], tmp_path, capsys).startswith(said)
