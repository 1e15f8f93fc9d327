import json
import logging
import re

import jax
import numpy as np
import pytest

from jaxrobust import Classifier, models
from jaxrobust.core.settings import to_plain
from jaxrobust.experiments import trained
from jaxrobust.training import checkpoints
from jaxrobust.training import config as configs
from jaxrobust.training.run import resolve_single
from tests import tiny

ATTACK = {"name": "fgsm", "epsilon": 0.05}


def write(workdir, run, seed=0, *, attack=None, complete=True, **changes):
    """The folder of a training as `train` leaves it, without its weights."""
    config = tiny.config("nowhere", runs={run: {"attack": attack}}, **changes)
    folder = workdir / run / f"seed{seed}"
    config = to_plain(configs.for_run(config, run))
    description = {"run": run, "seed": seed, "image_shape": [16, 16, 3], "config": config}
    description["model"] = {"num_classes": 10, **config["model"]}
    checkpoints.write_config(folder, description)
    (folder / "checkpoints" / ("30" if complete else "")).mkdir(parents=True)
    return folder


def evaluate(folder, clean, *attacks, step=30):
    """What an evaluation leaves: per cent of clean pictures right, and of attacks."""
    results = {"step": step, "clean": {"top1": clean}, "attacks": list(attacks)}
    (folder / "evaluation.json").write_text(json.dumps({"results": results}))


def named(found):
    return [(one.run, one.seed, one.title) for one in found]


def test_what_was_trained_is_found_and_loaded(data_dir, tmp_path):
    config = tiny.config(data_dir, runs={"robust": {"attack": ATTACK}})
    folder = tmp_path / "robust" / "seed3"
    description = resolve_single(config, folder, seed=3).description
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
    assert loaded(np.zeros((5, 16, 16, 3), np.float32)).shape == (5, 10)


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
    described = '{"model": {}, "image_shape": []}'
    for text, reason in (
        ("{", "must hold an object in JSON, got something else"),
        ("{}", "must hold model of type dict, got none"),
        ("[]", "must hold an object in JSON, got list"),
        (described, "does not describe a training of this library .KeyError"),
        (
            described[:-1] + ', "config": {"attack": null}, "run": "a", "seed": 0}',
            "does not describe a training of this library .AttributeError",
        ),
    ):
        (folder / "config.json").write_text(text)
        with pytest.raises(ValueError, match=rf"config\.json {reason}") as error:
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


def test_trainings_that_differ_in_more_than_their_seed_stay_apart(tmp_path):
    for seed in (0, 1):
        write(tmp_path, "std", seed)
        write(tmp_path, "weak", seed, attack=ATTACK)
        write(tmp_path, "strong", seed, attack=ATTACK)
    groups = trained.by_architecture([tmp_path])
    assert {
        title: [(std.run, adv.run, adv.seed) for std, adv in pairs]
        for title, pairs in groups.items()
    } == {f"TinyNetwork, {run}": [("std", run, 0), ("std", run, 1)] for run in ("strong", "weak")}
    assert len({trained.slug(title) for title in groups}) == 2


def test_config_of_a_finished_study_is_readable_as_written(tmp_path):
    folder = write(tmp_path, "std")
    (one,) = trained.find([tmp_path])
    written = json.loads((folder / "config.json").read_text())["config"]
    assert json.loads(one.config.to_json_best_effort()) == written


def write_evaluated(workdir, rates, *, run="std", **changes):
    """The folders of trainings that have so many clean pictures right; of None, not evaluated."""
    folders = [write(workdir, run, seed, **changes) for seed in range(len(rates))]
    for folder, rate in zip(folders, rates, strict=True):
        if rate is not None:
            evaluate(folder, rate)
    return folders


def test_what_was_evaluated_is_of_the_newest_checkpoint(tmp_path):
    folder = write(tmp_path, "std")
    (one,) = trained.find(tmp_path)
    assert one.evaluation() is None
    evaluate(folder, 89.0)
    assert one.evaluation()["clean"] == {"top1": 89.0}
    (folder / "checkpoints" / "60").mkdir()
    assert one.evaluation() is None
    evaluate(folder, 91.0, step=60)
    assert one.evaluation()["clean"] == {"top1": 91.0}


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ([89.0, 90.8], "Nothing is decided: STD must have 90 per cent .*, and std has 89.9."),
        ([89.0, 91.0], ""),
        ([90.0], ""),
    ],
)
def test_std_must_have_enough_right_on_average_over_seeds(tmp_path, rates, said):
    folders = write_evaluated(tmp_path, rates, dataset__name="fashion_mnist")
    assert re.fullmatch(said, trained.undertrained(folders))
    # Against several attacks, STD of a seed is part of several pairs, and still one training.
    assert re.fullmatch(said, trained.undertrained([*folders, folders[0]]))


def test_a_network_does_not_make_up_for_another(tmp_path):
    name, small = {"dataset__name": "fashion_mnist"}, {"model__name": "resnet8_small"}
    folders = write_evaluated(tmp_path, [95.0, 95.0], **name, **small)
    pooled = {"model__downsampling": "average_pool"}
    folders += write_evaluated(tmp_path, [89.0, 89.0], run="std_pooled", **name, **small, **pooled)
    assert trained.undertrained(folders).endswith(", and std_pooled has 89.")


def test_what_is_not_known_is_not_enough(tmp_path):
    folders = write_evaluated(tmp_path, [99.0, None, 99.0], dataset__name="fashion_mnist")
    said = f"Nothing is decided before {folders[1]} is evaluated, which python -m jaxrobust.main"
    assert trained.undertrained(folders).startswith(said)
    evaluate(folders[1], 99.0)
    assert not trained.undertrained(folders)
    # It went on after that.
    (folders[2] / "checkpoints" / "60").mkdir()
    assert f"before {folders[2]} is evaluated" in trained.undertrained(folders)


def test_of_other_pictures_nothing_is_asked(tmp_path):
    assert trained.undertrained(write_evaluated(tmp_path, [50.0, None])) == ""
    assert trained.undertrained([]) == ""
