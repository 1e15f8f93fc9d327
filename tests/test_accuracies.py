import argparse
import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxrobust import filters
from jaxrobust.evaluation import evaluate as evaluation
from jaxrobust.experiments import accuracies, trained
from jaxrobust.experiments.pictures import evaluation_pictures
from tests.test_figure2_sensitivity_maps import write_workdir
from tests.test_trained import ATTACK, evaluate, write

VARIANTS = {
    "plain": None,
    "blurred": accuracies.blurred(1.0),
    "median": accuracies.median_filtered(2),
    "reversed": accuracies.reversed_colors(),
}


@pytest.fixture
def digits(trainings, tmp_path):
    """A copy of the trainings, without what other tests have measured."""
    return shutil.copytree(trainings, tmp_path / "digits")


@pytest.fixture(scope="module")
def trainings(tmp_path_factory, data_dir):
    """One seed of STD and ADV on part of a small set."""
    return write_workdir(
        tmp_path_factory.mktemp("digits"),
        data_dir,
        seeds=(3,),
        dataset__evaluation_split="test[:50]",
    )


@pytest.fixture
def passes(monkeypatch):
    """The names of the variants of each pass over the data."""
    done = []
    original = evaluation.evaluate

    def counting(*args, **kwargs):
        done.append([json.loads(key) for key in kwargs["variants"]])
        return original(*args, **kwargs)

    monkeypatch.setattr(evaluation, "evaluate", counting)
    return done


def test_levels_are_those_of_the_paper():
    assert len(accuracies.SIGMAS) == 21
    assert accuracies.SIGMAS[:3] == (0.0, 0.25, 0.5)
    assert accuracies.SIGMAS[-1] == 5.0
    assert accuracies.TIMES == (0, 1, 2, 3, 4, 5)
    assert accuracies.blurred(2) == {"name": "gaussian_blur", "sigma": 2.0, "kernel_size": 7}
    assert accuracies.median_filtered(2) == {"name": "median_filter", "times": 2, "kernel_size": 5}
    assert accuracies.reversed_colors() == {"name": "reverse_colors", "mean": [0.485, 0.456, 0.406]}
    image = np.random.default_rng(0).random((4, 4, 3)).astype(np.float32)
    np.testing.assert_array_equal(
        accuracies.filtered(image, accuracies.reversed_colors()), filters.reverse_colors(image)
    )


def test_accuracies_are_rates_of_the_outcomes(digits, passes):
    one = trained.find(digits)[0]
    found = accuracies.measure(one, VARIANTS)
    assert list(found) == list(VARIANTS)
    pictures = evaluation_pictures(one.config, 50)
    classifier = one.load()
    for name, variant in VARIANTS.items():
        images = (
            pictures.images if variant is None else accuracies.filtered(pictures.images, variant)
        )
        logits = np.asarray(classifier(jnp.asarray(images)))
        right = logits.argmax(1) == pictures.labels
        np.testing.assert_array_equal(found[name].right, 100.0 * right)
        assert found[name].top1 == 100 * right.mean()
        assert found[name].texture is None
    accuracies.measure(one, VARIANTS)
    assert len(passes) == 1


def test_pairs_share_their_passes(digits, tmp_path, passes, capfd):
    pairs = trained.pairs(trained.find(digits))
    runs = accuracies.measure_pairs(pairs, {"plain": None}, batch_size=3)
    assert [len(seeds) for seeds in runs.values()] == [1, 1]
    assert list(runs) == ["std", "adv"]
    assert len(passes) == 2
    std = accuracies.measure(pairs[0][0], {"plain": None})
    np.testing.assert_array_equal(runs["std"][0]["plain"].right, std["plain"].right)


PGD = {"name": "pgd", "norm": "linf", "epsilon": 0.1, "steps": 20, "step_size": 0.01}
PGD |= {"restarts": 1, "random_start": True}


def test_what_was_evaluated_is_told_apart_by_all_that_is_known_of_the_attacks(tmp_path):
    rates = {
        "pgd linf 0.1: steps 20, step size 0.01, restarts 1": PGD,
        "pgd l2 0.1: steps 20, step size 0.01, restarts 1": PGD | {"norm": "l2"},
        "pgd linf 0.1: steps 20, step size 0.01, restarts 5": PGD | {"restarts": 5},
        "pgd linf 0.1: steps 50, step size 0.01, restarts 1": PGD | {"steps": 50},
        # By another loss, say, which results do not have.
        "pgd linf 0.1: steps 20, step size 0.01, restarts 1 (2)": PGD,
        "my_attack": dict.fromkeys(PGD) | {"name": "my_attack"},
    }
    found = [attack | {"robust_accuracy": 50.0 + i} for i, attack in enumerate(rates.values())]
    for run, attack in (("std", None), ("adv", ATTACK)):
        for seed in (0, 1):
            attacks = found[: len(found) - seed]  # the last one of seed 0 alone
            evaluate(write(tmp_path, run, seed, attack=attack), 90.0 + seed, *attacks)
    pairs = trained.pairs(trained.find(tmp_path))
    for of_run in accuracies.as_evaluated(pairs).values():
        assert list(of_run) == ["clean", *rates]
        assert of_run.pop("clean") == [90.0, 91.0]
        assert of_run.pop("my_attack") == [55.0, None]
        assert list(of_run.values()) == [[50.0 + index] * 2 for index in range(5)]
    (pairs[1][0].folder / "evaluation.json").unlink()
    assert accuracies.as_evaluated(pairs) is None


def write_pictures(folder: Path, classes, count=2):
    for position, name in enumerate(classes):
        (folder / "test" / name).mkdir(parents=True)
        for number in range(count):
            picture = np.full((16, 16, 3), 20 * position + number, np.uint8)
            Image.fromarray(picture).save(folder / "test" / name / f"{number}.png")


def test_a_stylised_copy_has_the_classes_of_its_source(digits, tmp_path, passes):
    one = trained.find(digits)[0]
    write_pictures(tmp_path / "copy", map(str, range(10)))
    dataset = accuracies.stylized_dataset(one, tmp_path / "copy")
    assert dataset.image_size == 16
    found = accuracies.measure(one, {"s": None}, dataset=dataset)["s"]
    assert len(found.right) == 20
    # Another picture in the folder is another data set.
    write_pictures(tmp_path / "more", map(str, range(10)), count=3)
    shutil.copy(tmp_path / "more/test/0/2.png", tmp_path / "copy/test/0/2.png")
    from jaxrobust.data import image_folder

    image_folder._open_split.cache_clear()
    found = accuracies.measure(one, {"s": None}, dataset=dataset)["s"]
    assert len(found.right) == 21
    assert len(passes) == 2
    write_pictures(tmp_path / "others", ("cat", "dog"))
    with pytest.raises(
        ValueError, match=r"must have the classes of Digits, 0, 1, 2, … \(10\), got cat, dog\."
    ):
        accuracies.stylized_dataset(one, tmp_path / "others")
    with pytest.raises(FileNotFoundError, match="must be a folder"):
        accuracies.stylized_dataset(one, tmp_path / "nowhere")


def test_arguments():
    parser = argparse.ArgumentParser()
    accuracies.add_arguments(parser)
    accuracies.add_stylized_argument(parser)
    found = parser.parse_args(["--batch-size", "8", "--stylized", "copy"])
    assert (found.batch_size, found.stylized) == (8, Path("copy"))
