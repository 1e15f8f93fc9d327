import argparse
import json
import logging
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from experiments import trained
from jaxrobust import Classifier, checkpoints, models, train
from jaxrobust import config as configs
from jaxrobust.data import pipeline, textured_shapes
from tests import tiny

ATTACK = {"name": "fgsm", "epsilon": 0.05}


def write(workdir, run, seed=0, *, attack=None, complete=True, **changes):
    """The folder of a training as `train` leaves it, without its weights."""
    config = tiny.config("nowhere", runs={run: {"attack": attack}}, **changes)
    folder = workdir / run / f"seed{seed}"
    description = {"run": run, "seed": seed, "model": {}, "image_shape": [16, 16, 3]}
    config = configs.to_plain(configs.for_run(config, run))
    checkpoints.write_config(folder, description | {"config": config})
    (folder / "checkpoints" / ("30" if complete else "")).mkdir(parents=True)
    return folder


def named(found):
    return [(one.run, one.seed, one.title) for one in found]


def test_what_was_trained_is_found_and_loaded(data_dir, tmp_path):
    config = tiny.config(data_dir, runs={"robust": {"attack": ATTACK}})
    folder = tmp_path / "robust" / "seed3"
    description = train.describe(configs.for_run(config, "robust"), seed=3)
    checkpoints.write_config(folder, description)
    model = models.create(**description["model"])
    classifier = Classifier(model, tiny.drawn_variables(model, description["image_shape"]))
    store = checkpoints.Checkpoints(folder)
    store.save(30, dict(classifier.variables), {"step": np.zeros(1)}, {})
    store.close()
    for workdir in (tmp_path, folder):
        (one,) = trained.find([workdir])
        assert (one.workdir, one.folder, one.run, one.seed) == (workdir, folder, "robust", 3)
        assert one.title == "TinyNetwork ADV"
        assert one.architecture == "tests.tiny:TinyNetwork"
        assert one.adversarial
        assert one.config.attack.epsilon == 0.05
    loaded = one.load()
    jax.tree.map(np.testing.assert_array_equal, dict(loaded.variables), dict(classifier.variables))
    pictures = trained.pictures(one.config, 5)
    assert loaded(pictures.images).shape == (5, 10)


def test_trainings_are_found_in_order(tmp_path):
    for seed in (1, 0):
        write(tmp_path, "adv", seed, attack=ATTACK, model__name="resnet50")
        write(tmp_path, "std", seed, model__name="resnet50")
    found = trained.find([tmp_path, tmp_path, str(tmp_path / "std" / "seed0")])  # none twice
    assert named(found) == [
        ("std", 0, "ResNet-50 STD"),
        ("std", 1, "ResNet-50 STD"),
        ("adv", 0, "ResNet-50 ADV"),
        ("adv", 1, "ResNet-50 ADV"),
    ]
    assert {one.workdir for one in found} == {tmp_path}
    assert trained.find(str(tmp_path)) == found


def test_an_unfinished_training_is_named(tmp_path, caplog):
    write(tmp_path, "std")
    unfinished = write(tmp_path, "adv", attack=ATTACK, complete=False)
    with caplog.at_level(logging.WARNING):
        found = trained.find([tmp_path])
    assert [one.run for one in found] == ["std"]
    assert f"{unfinished} has no checkpoint yet" in caplog.text


def test_errors_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere is no folder; python -m jaxrobust.main"):
        trained.find([tmp_path / "nowhere"])
    with pytest.raises(FileNotFoundError, match=r"holds no training.*--config=configs/quickstart"):
        trained.find([tmp_path])
    folder = write(tmp_path, "std")
    for text, reason in (
        ("{", "JSONDecodeError"),
        ("{}", "KeyError"),
        ("[]", ""),
        ('{"config": {"attack": null}, "run": "a", "seed": 0}', "AttributeError"),
    ):
        (folder / "config.json").write_text(text)
        with pytest.raises(ValueError, match=rf"config.json does not describe.*{reason}") as error:
            trained.find([tmp_path])
        assert "\n" not in str(error.value)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match="does not describe a training"):
        trained.find([tmp_path])


TITLES = {
    "resnet50": "ResNet-50",
    "resnet101": "ResNet-101",
    "alexnet": "AlexNet",
    "alexnet_small": "AlexNet (small)",
    "resnet8_small": "ResNet-8 (small)",
    "vgg19": "VGG-19",
    "my.package:Network": "Network",
    "densenet": "densenet",
}


@pytest.mark.parametrize("name", TITLES)
def test_architectures_have_proper_titles(name):
    assert trained.architecture_title(name) == TITLES[name]


def test_titles_tell_runs_apart(tmp_path):
    first, second, third = (tmp_path / name for name in ("one", "two", "three"))
    write(first, "adv_4", attack=ATTACK)
    write(first, "adv_8", attack=ATTACK)
    write(first, "adv_8", seed=1, attack=ATTACK)
    write(first, "std")
    assert named(trained.find([first])) == [
        ("std", 0, "TinyNetwork STD"),
        ("adv_4", 0, "TinyNetwork ADV, adv_4"),
        ("adv_8", 0, "TinyNetwork ADV, adv_8"),
        ("adv_8", 1, "TinyNetwork ADV, adv_8"),
    ]
    write(second, "std")
    write(third, "std", dataset__name="cifar10")
    assert {one.title for one in trained.find([first, second, third]) if not one.adversarial} == {
        "TinyNetwork STD, Digits, one",
        "TinyNetwork STD, Digits, two",
        "TinyNetwork STD, CIFAR-10",
    }


def test_pairs_of_one_workdir(tmp_path, caplog):
    for seed in (0, 1):
        write(tmp_path, "std", seed)
        write(tmp_path, "adv", seed, attack=ATTACK)
    write(tmp_path, "std", 2)
    write(tmp_path, "weak", 0, attack=ATTACK)
    with caplog.at_level(logging.WARNING):
        pairs = trained.pairs(trained.find([tmp_path]))
    assert [(std.run, std.seed, adv.run, adv.seed) for std, adv in pairs] == [
        ("std", 0, "adv", 0),
        ("std", 1, "adv", 1),
        ("std", 0, "weak", 0),
    ]
    assert "Left out" in caplog.text
    assert str(tmp_path / "std" / "seed2") in caplog.text


def test_pairs_of_several_workdirs(tmp_path):
    # One workdir a config, as the configs of ImageNet have it.
    std, adv = tmp_path / "resnet50_std", tmp_path / "resnet50_adv"
    write(std, "std", model__name="resnet50")
    write(adv, "adv", attack=ATTACK, model__name="resnet50", model__dtype="bfloat16")
    write(tmp_path / "alexnet_adv", "adv", attack=ATTACK, model__name="alexnet")
    found = trained.find([adv, std, tmp_path / "alexnet_adv"])
    ((first, second),) = trained.pairs(found)
    assert (first.workdir, second.workdir) == (std, adv)
    # The pair is found from the inner folders as well.
    assert len(trained.pairs(trained.find([std / "std" / "seed0", adv / "adv" / "seed0"]))) == 1
    # Two studies: each ADV has the STD of its own, also when folders of seeds are named.
    both = [tmp_path / name for name in ("a", "b")]
    for workdir in both:
        write(workdir, "std")
        write(workdir, "adv", attack=ATTACK)
    inner = [workdir / run / "seed0" for workdir in both for run in ("std", "adv")]
    for workdirs in (both, inner):
        pairs = trained.pairs(trained.find(workdirs))
        assert [std.folder.parents[1] for std, _ in pairs] == both
        assert [adv.folder.parents[1] for _, adv in pairs] == both
    write(tmp_path / "c", "adv", attack=ATTACK)
    with pytest.raises(ValueError, match=r"c/adv/seed0 could be paired with any of .*a/std.*b/std"):
        trained.pairs(trained.find([*both, tmp_path / "c"]))


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"dataset__name": "cifar10"},
        {"dataset__image_size": 32},
        {"model__name": "resnet18"},
        {"model__width": 8},
    ],
)
def test_no_pair(tmp_path, changes):
    write(tmp_path / "a", "std", model__name="resnet8_small", model__width=4)
    changes = {"model__name": "resnet8_small", "model__width": 4} | changes
    write(tmp_path / "b", "adv", attack=ATTACK, **changes)
    found = trained.find([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(ValueError, match=r"of one architecture, data set and seed .*a/std/seed0"):
        trained.pairs(found)
    with pytest.raises(ValueError, match="got no training"):
        trained.pairs([])


def config_of(data_dir, **changes):
    return tiny.config(data_dir, **{f"dataset__{key}": value for key, value in changes.items()})


@pytest.mark.parametrize("dataset", [{}, {"in_memory": "False"}, {"image_size": 12}])
def test_pictures_are_those_of_evaluation(data_dir, dataset):
    config = config_of(data_dir, **dataset)
    found = trained.pictures(config, 20)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    with pipeline.evaluation_batches(config.dataset, None, batch_size=24, mesh=mesh) as batches:
        batch = next(batches)
    np.testing.assert_allclose(found.images * 255, batch["image"][:20], atol=1e-4)
    np.testing.assert_array_equal(found.labels, batch["label"][:20])
    np.testing.assert_array_equal(found.index, range(20))
    assert found.images.dtype == np.float32
    assert found.masks is None
    assert found.class_names == tuple("0123456789")
    assert len(found) == 20


@pytest.mark.parametrize("count", [3, 10, 20, 25])
def test_pictures_of_every_class(data_dir, count):
    config = config_of(data_dir)
    everything = trained.pictures(config, 360)
    found = trained.pictures(config, count, per_class=True)
    counts = np.bincount(found.labels, minlength=10)
    assert counts.max() - counts.min() <= 1
    # The first of each class in the split, all first ones before all second ones.
    for label in range(10):
        mine = found.index[found.labels == label]
        first = everything.index[everything.labels == label]
        np.testing.assert_array_equal(mine, first[: len(mine)])
    np.testing.assert_array_equal(found.images, everything.images[found.index])
    if count >= 10:
        np.testing.assert_array_equal(found.labels[:10], np.arange(10))
    else:
        assert (np.diff(found.labels) >= 10 // count).all()


def test_masks_are_the_silhouettes(tmp_path_factory, data_dir, monkeypatch):
    # A small set, drawn by the same generator.
    small = textured_shapes.Parameters(train_examples=20, test_examples=30, cue_conflict_examples=9)
    monkeypatch.setattr(textured_shapes, "PARAMETERS", small)
    folder = tmp_path_factory.mktemp("shapes")
    config = config_of(folder, name="textured_shapes", image_size=None)
    found = trained.pictures(config, 12, per_class=True)
    assert found.masks.shape == found.images.shape[:3] == (12, 32, 32)
    assert found.masks.dtype == bool
    drawn = [textured_shapes.draw("test", index, parameters=small) for index in range(30)]
    for image, mask, label in zip(found.images, found.masks, found.labels, strict=True):
        levels = np.rint(image * 255).astype(np.uint8)
        (match,) = [one for one in drawn if np.array_equal(one[0], levels)]
        np.testing.assert_array_equal(mask, match[1][..., 0] == 255)
        assert label == match[2]
    assert found.class_names == textured_shapes.SHAPES
    # Cut and resized as the image is: mask and silhouette still lie on each other.
    config.dataset.resize_size, config.dataset.image_size = 64, 48
    enlarged = trained.pictures(config, 12, per_class=True)
    assert enlarged.masks.shape == (12, 48, 48)
    centre = found.masks[:, 4:28, 4:28].repeat(2, 1).repeat(2, 2)
    assert (enlarged.masks == centre).mean() > 0.95
    conflict = trained.pictures(config, 5, split="cue_conflict")
    assert conflict.masks.shape == (5, 48, 48)


def test_too_many_pictures(data_dir):
    config = config_of(data_dir)
    with pytest.raises(ValueError, match="count must be at most 360, the images of the split 'tes"):
        trained.pictures(config, 361)
    with pytest.raises(ValueError, match=r"count must leave at most \d+ images for class \d, all"):
        trained.pictures(config, 360, per_class=True)
    for count in (0, 2.0, True):
        with pytest.raises(ValueError, match="count must be a whole number of at least 1"):
            trained.pictures(config, count)


def test_arguments():
    parser = argparse.ArgumentParser()
    trained.add_arguments(parser)
    defaults = parser.parse_args([])
    assert defaults.workdirs == [Path("runs/quickstart")]
    assert defaults.out == Path("runs/figures")
    given = parser.parse_args(["--workdirs", "a", "b", "--out", "c"])
    assert (given.workdirs, given.out) == ([Path("a"), Path("b")], Path("c"))


def test_config_of_a_finished_study_is_readable_as_written(tmp_path):
    folder = write(tmp_path, "std")
    (one,) = trained.find([tmp_path])
    written = json.loads((folder / "config.json").read_text())["config"]
    assert json.loads(one.config.to_json_best_effort()) == written
