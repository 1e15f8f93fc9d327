import json
import logging
import shutil

import jax
import numpy as np
import pytest

from jaxrobust import models
from jaxrobust.core import files
from jaxrobust.data import pipeline
from jaxrobust.evaluation import evaluate
from jaxrobust.models import late_fusion
from jaxrobust.training import checkpoints, fine_tuning, study, train
from jaxrobust.training import step as train_step
from jaxrobust.training.run import resolve_single
from tests import catalog_data, tiny

# The same for almost all: a program is compiled for each number of steps.
STEPS = 6


@pytest.fixture(scope="module")
def pretrained(data_dir, tmp_path_factory):
    """A workdir with two trainings of each of two runs; how they were trained does not matter."""
    workdir = tmp_path_factory.mktemp("pretrained")
    for run, seeds in (("std", (3, 10)), ("adv", (4, 11))):
        config = tiny.config(data_dir, steps=STEPS, seeds=seeds, runs={run: {}})
        config.evaluation.attacks = {}
        study.run(config, workdir)
    for seed, other in ((4, 3), (11, 10)):  # other weights under the same seeds
        folder = (workdir / "adv" / f"seed{seed}").rename(workdir / "adv" / f"seed{other}")
        checkpoints.write_config(folder, {**checkpoints.read_config(folder), "seed": other})
    return workdir


def fusion(data_dir, *backbones, **changes):
    config = tiny.config(data_dir, steps=STEPS, **changes)
    config.model = {"name": "late_fusion"}
    config.pretrained.backbones = tuple(map(str, backbones))
    config.evaluation.attacks = {}
    return config


def assert_same(first, second):
    jax.tree.map(np.testing.assert_array_equal, dict(first), dict(second))


def part(classifier, collection, index):
    return classifier.variables[collection][f"backbones_{index}"]


@pytest.mark.slow
def test_repeated_folders_and_other_seeds_mean_other_trainings(pretrained, data_dir):
    std, adv = pretrained / "std", pretrained / "adv"
    config = fusion(data_dir, std, std, adv)

    def seeds(seed):
        folders = fine_tuning.backbone_folders(config, seed)
        return [(folder.parent.name, folder.name) for folder in folders]

    first, second = ("std", "seed3"), ("std", "seed10")  # 3 before 10: numbers, not texts
    assert seeds(0) == [first, second, ("adv", "seed3")]
    assert seeds(1) == [second, first, ("adv", "seed10")]
    assert seeds(2) == seeds(0)
    # One training by its own folder stays that one.
    config.pretrained.backbones = (str(std / "seed10"),)
    assert [seeds(seed) for seed in (0, 1)] == [[second], [second]]


@pytest.mark.slow
def test_frozen_backbones_do_not_move_by_a_bit(pretrained, data_dir, tmp_path):
    config = fusion(data_dir, pretrained / "std", pretrained / "adv")
    config.pretrained.frozen = True
    assert config.optimizer.weight_decay > 0
    tuned = train.train(config, tmp_path, seed=0)
    for index, source in enumerate(("std/seed3", "adv/seed3")):
        source = checkpoints.load(pretrained / source)
        kept = late_fusion.without_classifier(source, (16, 16, 3))
        for collection in ("params", "batch_stats"):
            assert_same(part(tuned, collection, index), kept.variables[collection])
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert logged[-1]["loss"] < logged[0]["loss"]  # the classifier learns


def test_fine_tuning_starts_at_the_backbones_and_moves_all_layers(pretrained, data_dir, tmp_path):
    source = late_fusion.without_classifier(
        checkpoints.load(pretrained / "std" / "seed3"), (16, 16, 3)
    )
    config = fusion(data_dir, pretrained / "std")
    config.optimizer.learning_rate = 1e-4
    tuned = part(train.train(config, tmp_path, seed=0), "params", 0)
    moves = jax.tree.map(lambda a, b: np.abs(a - b).max(), tuned, source.variables["params"])
    assert 0 < min(jax.tree.leaves(moves)) <= max(jax.tree.leaves(moves)) < 0.01


def test_what_is_loaded_is_what_was_trained_without_the_backbones(
    pretrained, data_dir, tmp_path, monkeypatch
):
    config = fusion(data_dir, pretrained / "std", pretrained / "std")
    tuned = train.train(config, tmp_path, seed=1)
    described = checkpoints.read_config(tmp_path)
    assert [one["seed"] for one in described["backbones"]] == [10, 3]
    assert [one["adversarial"] for one in described["backbones"]] == [False, False]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fine_tuning, "backbone_folders", None)  # not asked for
    loaded = checkpoints.load(tmp_path)
    assert_same(loaded.variables, tuned.variables)
    images = np.zeros((2, 16, 16, 3), np.float32)
    np.testing.assert_array_equal(loaded(images), tuned(images))


def test_an_interrupted_fine_tuning_ends_as_an_uninterrupted_one(pretrained, data_dir, tmp_path):
    config = fusion(data_dir, pretrained / "std", pretrained / "adv")
    config.checkpoint.every_steps = 5
    config.evaluation.every_epochs = 2 / (1437 / 64)  # every two steps
    whole = train.train(config, tmp_path / "whole", seed=0)

    taken = 0

    class Asked(train.Interrupts):
        def requested(self, step):
            nonlocal taken
            taken += 1
            return taken == 3

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "Interrupts", Asked)
        with pytest.raises(train.TrainingStopped):
            train.train(config, tmp_path / "parts", seed=0)
    resumed = train.train(config, tmp_path / "parts", seed=0)
    assert_same(whole.variables, resumed.variables)

    def measured(folder):
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return {
            line["step"]: line["evaluation_top1"] for line in lines if "evaluation_top1" in line
        }

    assert list(measured(tmp_path / "whole")) == [2, 4, 6]
    assert measured(tmp_path / "whole") == measured(tmp_path / "parts")


def test_accuracy_while_training_is_the_evaluations(pretrained, data_dir, tmp_path):
    config = fusion(data_dir, pretrained / "std")
    config.evaluation.every_epochs = 100.0  # longer than the training: at its end
    (entry,) = study.run(config, tmp_path)
    lines = files.read_log(tmp_path / "std" / "seed0" / "metrics.jsonl")
    measured = [line for line in lines if "evaluation_top1" in line]
    assert measured == [{"step": STEPS, "evaluation_top1": entry["clean"]["top1"]}]


def test_programs_are_compiled_once_for_equal_shapes(pretrained, data_dir, tmp_path):
    """A study of many fine-tunings would else compile for most of its time."""
    programs = (train_step.train_step, train_step.initial_state, evaluate.count)
    config = fusion(data_dir, pretrained / "std", pretrained / "std")
    study.run(config, tmp_path / "first")
    before = [program._cache_size() for program in programs]
    config.pretrained.backbones = (str(pretrained / "std"), str(pretrained / "adv"))
    config.seeds = (1, 2)
    study.run(config, tmp_path / "others")
    assert [program._cache_size() for program in programs] == before


def write_training(folder, *, seed=0, image_shape=(16, 16, 3), **fields):
    """The config.json of a training, and an empty checkpoint: enough to be refused for."""
    model = {"name": "resnet8_small", "num_classes": 10, **fields}
    checkpoints.write_config(
        folder,
        {
            "run": folder.parent.name,
            "seed": seed,
            "model": model,
            "image_shape": list(image_shape),
            "config": {"attack": None},
        },
    )
    (folder / "checkpoints" / "5").mkdir(parents=True)


@pytest.mark.parametrize(
    ("prepare", "backbones", "error", "message"),
    [
        (lambda to: None, ["nowhere"], FileNotFoundError, "must name folders, got .*nowhere"),
        (
            lambda to: (to / "std" / "seed0" / "checkpoints").mkdir(parents=True),
            ["std"],
            FileNotFoundError,
            "std holds no checkpoint",
        ),
        (
            lambda to: write_training(to / "std" / "seed0"),
            ["std", "std"],
            ValueError,
            "different trainings, got .*seed0 twice; pretrained.allow_same=True",
        ),
        (
            lambda to: write_training(to / "std" / "seed0"),
            ["std", "std/seed0"],  # the same by another name
            ValueError,
            "different trainings",
        ),
        (
            lambda to: [
                write_training(to / "a" / "seed0"),
                write_training(to / "b" / "seed0", image_shape=(32, 32, 3)),
            ],
            ["a", "b"],
            ValueError,
            r"images of one shape, got \[16, 16, 3\] for .*a/seed0 and \[32, 32, 3\] for .*b/seed0",
        ),
        (
            lambda to: [
                write_training(to / "a" / "seed0"),
                write_training(to / "b" / "seed0", mean=[0.0] * 3, std=[1.0] * 3),
            ],
            ["a", "b"],
            ValueError,
            r"pretrained.backbones must normalise images alike, .* mean \(0\.0, 0\.0, 0\.0\)",
        ),
        (
            lambda to: [write_training(to / f"{run}" / "seed0") for run in ("std", "adv")],
            ["."],
            ValueError,
            "holds several runs; name one of .*adv, .*std",
        ),
    ],
)
def test_wrong_backbones_are_refused_before_training(
    prepare, backbones, error, message, data_dir, tmp_path
):
    prepare(tmp_path)
    config = fusion(data_dir, *(tmp_path / name for name in backbones))
    with pytest.raises(error, match=message) as raised:
        study.run(config, tmp_path / "new")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c.model.update(name="resnet50"),
            "late_fusion, and for it alone; got .*resnet50",
        ),
        (lambda c: c.pretrained.update(backbones=()), "got none for late_fusion"),
        (lambda c: c.pretrained.update(backbones=("",)), "must be names of folders"),
        (lambda c: c.dataset.update(image_size=None), "dataset.image_size must be given"),
        (lambda c: c.model.update(num_classes=7), "model.num_classes must be 10, .* got 7"),
        (lambda c: c.model.update(backbones=[]), "model.backbones cannot be given"),
        (lambda c: c.model.update(frozen=True), "model.frozen cannot be given"),
        (
            lambda c: c.runs.update(std={"pretrained": {"frozen": "yes"}}),
            "pretrained.frozen must be True or False, got 'yes'",
        ),
        (lambda c: c.dataset.update(image_size=32), "image_size must be 16, .* trained at, got 32"),
        (lambda c: c.evaluation.update(every_epochs=0.0), "be a finite number above 0, got 0.0"),
    ],
)
def test_settings_that_contradict_each_other(change, message, pretrained, data_dir, tmp_path):
    config = fusion(data_dir, pretrained / "std")
    with config.unlocked():
        change(config)
    with pytest.raises(ValueError, match=message) as raised:
        study.run(config, tmp_path)
    assert "\n" not in str(raised.value)


def test_backbones_of_other_channels_are_refused(pretrained, tmp_path):
    catalog_data.write("fashion_mnist", tmp_path / "data")
    config = fusion(tmp_path / "data", pretrained / "std", dataset__name="fashion_mnist")
    message = "channels must be 3, as the backbones were trained on, got 1 in fashion_mnist"
    with pytest.raises(ValueError, match=message):
        study.run(config, tmp_path / "run")


def test_seeds_that_one_run_lacks_are_refused_and_those_without_checkpoint_named(
    data_dir, tmp_path, caplog
):
    for run, seeds in (("std", (11, 12, 13)), ("adv", (11, 13))):
        for seed in seeds:
            write_training(tmp_path / run / f"seed{seed}", seed=seed)
    config = fusion(data_dir, tmp_path / "std", tmp_path / "adv")
    with pytest.raises(ValueError, match=r"same seeds, got \[11, 12, 13\] in .* \[11, 13\]"):
        fine_tuning.backbone_folders(config, 0)
    # As an interrupted training leaves it, before its first checkpoint.
    shutil.rmtree(tmp_path / "std" / "seed12" / "checkpoints")
    with caplog.at_level(logging.WARNING, "jaxrobust"):
        folders = fine_tuning.backbone_folders(config, 1)
    assert [folder.name for folder in folders] == ["seed13", "seed13"]
    assert "seed12 has no checkpoint yet" in caplog.text


def test_an_unfinished_backbone_is_named(pretrained, data_dir, tmp_path, caplog):
    folder = tmp_path / "std" / "seed3"
    shutil.copytree(pretrained / "std" / "seed3", folder)
    described = checkpoints.read_config(folder)
    assert described["steps"] == STEPS
    checkpoints.write_config(folder, {**described, "steps": 40})
    with caplog.at_level(logging.WARNING, "jaxrobust"):
        fine_tuning.describe_backbones(fusion(data_dir, folder), 0)
    assert f"seed3 is not finished: step {STEPS} of 40" in caplog.text


def test_a_copied_training_is_no_second_one(pretrained, data_dir, tmp_path):
    for seed in (0, 1):
        shutil.copytree(pretrained / "std" / "seed3", tmp_path / "std" / f"seed{seed}")
    config = fusion(data_dir, tmp_path / "std", tmp_path / "std")
    with pytest.raises(ValueError, match="same weights at positions 0 and 1"):
        train.train(config, tmp_path / "new", seed=0)


@pytest.mark.slow
def test_a_fine_tuning_is_a_backbone_with_the_default_dtype(pretrained, data_dir, tmp_path):
    first = fusion(data_dir, pretrained / "std")
    first.model.dtype = "auto"
    train.train(first, tmp_path / "first", seed=0)
    # Fine-tuned on clean images: what it was trained against before still counts.
    described = checkpoints.read_config(tmp_path / "first")
    described["backbones"][0]["adversarial"] = True
    checkpoints.write_config(tmp_path / "first", described)
    second = fusion(data_dir, tmp_path / "first", pretrained / "adv")
    second.model.dtype = "auto"
    tuned = train.train(second, tmp_path / "second", seed=0)
    assert tuned.model.backbones[0].backbones[0] == models.create(
        "tests.tiny:TinyNetwork", num_classes=None, **_normalization(tuned)
    )
    (inner, other) = checkpoints.read_config(tmp_path / "second")["backbones"]
    assert (inner["adversarial"], other["adversarial"]) == (True, False)


def _normalization(classifier):
    return {"mean": classifier.model.mean, "std": classifier.model.std}


def test_a_fine_tuning_of_other_backbones_is_another_training(pretrained, data_dir, tmp_path):
    train.train(fusion(data_dir, pretrained / "std"), tmp_path, seed=0)
    with pytest.raises(
        ValueError, match=r"another config \(backbones.0.run: 'std', now 'adv'\): give"
    ):
        train.train(fusion(data_dir, pretrained / "adv"), tmp_path, seed=0)
    # The same training by another path is the same.
    train.train(fusion(data_dir, pretrained / "std" / "seed3"), tmp_path, seed=0)


@pytest.mark.slow
def test_each_seed_has_the_fields_of_its_own_backbone(pretrained, data_dir, tmp_path):
    shutil.copytree(pretrained / "std", tmp_path / "std")
    other = checkpoints.read_config(tmp_path / "std/seed10")
    other["model"]["mean"] = [0.9, 0.9, 0.9]
    checkpoints.write_config(tmp_path / "std/seed10", other)
    config = fusion(data_dir, tmp_path / "std", seeds=(0, 1))
    study.run(config, tmp_path / "fused")
    (run,) = config.runs
    means = []
    for seed in (0, 1):
        described = checkpoints.read_config(tmp_path / "fused" / run / f"seed{seed}")
        means.append(described["model"]["backbones"][0]["mean"])
        assert described["backbones"][0]["model"]["mean"] == means[-1]
    assert means[0] != means[1] == [0.9, 0.9, 0.9]


def test_a_backbone_trained_anew_with_other_settings_is_another_one(pretrained, data_dir, tmp_path):
    std = tmp_path / "std/seed0"
    shutil.copytree(pretrained / "std/seed10", std)
    config = fusion(data_dir, std, pretrained / "adv")
    run = resolve_single(config, tmp_path / "fused", seed=0)
    checkpoints.write_config(run.folder, run.description)
    assert resolve_single(config, run.folder, seed=0).description == run.description
    trained = checkpoints.read_config(std)
    trained["config"]["optimizer"]["learning_rate"] *= 2
    checkpoints.write_config(std, trained)
    with pytest.raises(ValueError, match=r"run of another config \(backbones.0.trained"):
        resolve_single(config, run.folder, seed=0)


def test_one_backbone_is_the_network_with_a_new_classifier(pretrained, data_dir, tmp_path):
    config = fusion(data_dir, pretrained / "std")
    model = resolve_single(config, tmp_path, seed=0).model
    assert isinstance(model, late_fusion.LateFusion)
    assert model.num_classes == pipeline.describe(config.dataset).num_classes
    assert len(model.backbones) == 1
