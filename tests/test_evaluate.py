import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.datasets

from jaxrobust import Classifier, attacks, filters
from jaxrobust.data import pipeline, sources
from jaxrobust.evaluation import evaluate, report
from tests import tiny

KEY = jax.random.key(0)
ATTACKS = {
    "fgsm": {"name": "fgsm", "epsilon": 0.03},
    # Nothing but its random start, so that a picture's result is that of its key.
    "noise": {"name": "pgd", "epsilon": 0.8, "steps": 1, "step_size": 0.0},
}


class NearestMean(nn.Module):
    """The class whose mean picture is nearest: right often enough for counts to tell something."""

    @nn.compact
    def __call__(self, images, *, train=False):
        return nn.Dense(10, name="head")(images.reshape(len(images), -1))


@functools.cache
def classifier():
    digits = sklearn.datasets.load_digits()
    pictures = np.kron(digits.images / 16, np.ones((2, 2)))[..., None].repeat(3, axis=-1)
    means = [pictures[digits.target == digit].mean(0).ravel() for digit in range(10)]
    kernel = jnp.float32(means).T
    head = {"kernel": kernel, "bias": -(kernel**2).sum(0) / 2}
    return Classifier(NearestMean(), {"params": {"head": head}})


def mesh(devices):
    return jax.make_mesh(
        (devices,),
        ("data",),
        (jax.sharding.AxisType.Auto,),
        devices=jax.devices()[:devices],
    )


def counts(data_dir, batch_size, devices, **options):
    return evaluate.evaluate(
        classifier(),
        tiny.config(data_dir).dataset,
        "test[:30]",
        batch_size=batch_size,
        mesh=mesh(devices),
        key=KEY,
        attacks_by_name=ATTACKS,
        **options,
    )


def test_hits():
    logits = jnp.array([0.0, 3.0, 1.0, 2.0, -1.0, -2.0, -3.0])
    assert evaluate.hits(logits, 1)
    assert not evaluate.hits(logits, 3)
    assert evaluate.hits(logits, 4, top=5)
    assert not evaluate.hits(logits, 5, top=5)
    assert not evaluate.hits(jnp.full(7, jnp.nan), 0, top=5)
    # Of equal logits the first wins, as for argmax: a constant classifier is right for one class.
    constant = [bool(evaluate.hits(jnp.zeros(7), label)) for label in range(7)]
    assert constant == [True] + 6 * [False]


def test_counts_do_not_depend_on_batches_or_devices_and_equal_a_plain_loop(data_dir):
    counted = [counts(data_dir, *cut) for cut in ((7, 1), (16, 8))]
    assert counted[0] == counted[1]

    # Image by image, each attacked alone with the key of its index.
    config = tiny.config(data_dir).dataset
    net = classifier()
    right, robust = 0, dict.fromkeys(ATTACKS, "")
    with pipeline.evaluation_batches(config, "test[:30]", batch_size=30, mesh=mesh(1)) as batches:
        (batch,) = batches
    for index in range(30):
        image, label = batch["image"][index] / 255.0, batch["label"][index]
        clean = int(jnp.argmax(net(image))) == label
        right += clean
        for name, attack in ATTACKS.items():
            options = {k: v for k, v in attack.items() if k != "name"}
            key = jax.random.fold_in(KEY, index)
            adversarial = attacks.get(attack["name"])(net, image, label, key=key, **options)
            fooled = int(jnp.argmax(net(adversarial))) != label
            robust[name] += str(int(clean and not fooled))
    assert counted[0]["n"] == 30
    assert counted[0]["top1"] == right
    attacked = counted[0]["attacks"]
    assert {name: one["right"] for name, one in attacked.items()} == robust
    assert [one["top1"] for one in attacked.values()] == [
        text.count("1") for text in robust.values()
    ]
    assert 20 < right < 30


def nan_of_changed(image):
    """No logits of an image whose pixels are no longer whole numbers."""
    changed = jnp.abs(image * 255 - jnp.round(image * 255)).max() > 1e-3
    return jnp.where(changed, jnp.nan, classifier()(image))


def test_logits_that_are_not_finite_are_told(data_dir, caplog):
    def told(network, **options):
        caplog.clear()
        dataset, size = tiny.config(data_dir).dataset, {"batch_size": 16, "mesh": mesh(2)}
        found = evaluate.evaluate(network, dataset, "test[:30]", key=KEY, **size, **options)
        return found, [record.getMessage() for record in caplog.records]

    options = {"attacks_by_name": ATTACKS, "variants": {"blur": VARIANTS["blur_1"]}}
    assert told(classifier(), **options)[1] == []
    found, said = told(nan_of_changed, **options)
    assert found["not_finite"] == 0
    assert [one["not_finite"] for one in found["attacks"].values()] == [30, 30]
    assert [one["top1"] for one in found["attacks"].values()] == [0, 0]
    assert said == [
        f"The logits of 30 of 30 images under {name} are NaN or infinite, expected finite ones: "
        "these images count as misclassified."
        for name in ("fgsm", "noise", "blur")
    ]
    found, said = told(lambda image: jnp.full(10, jnp.inf))
    assert (found["not_finite"], found["top1"]) == (30, 0)
    assert len(said) == 1
    assert "30 of 30 images are NaN or infinite" in said[0]


VARIANTS = {
    "blur_0": {"name": "gaussian_blur", "sigma": 0.0},
    "blur_1": {"name": "gaussian_blur", "sigma": 1.0},
    "blur_2": {"name": "gaussian_blur", "sigma": 2.0, "kernel_size": 5},
    "median_2": {"name": "median_filter", "times": 2, "kernel_size": 3},
    "reversed": {"name": "reverse_colors", "mean": [0.3, 0.3, 0.3]},
}


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_sweep_of_variants_equals_a_plain_loop_and_decodes_each_image_once(
    data_dir, in_memory, monkeypatch
):
    read = []
    original = sources.Split.__getitem__

    def counting(self, index):
        read.append(index)
        return original(self, index)

    config = tiny.config(data_dir, dataset__in_memory=str(in_memory)).dataset
    with pipeline.evaluation_batches(config, "test[:30]", batch_size=30, mesh=mesh(1)) as batches:
        (batch,) = batches
    monkeypatch.setattr(sources.Split, "__getitem__", counting)
    sweep = VARIANTS | {
        f"level_{level}": {"name": "gaussian_blur", "sigma": level / 4} for level in range(21)
    }
    found = evaluate.evaluate(
        classifier(),
        config,
        "test[:30]",
        batch_size=16,
        mesh=mesh(8),
        key=KEY,
        variants=sweep,
        attacks_by_name=ATTACKS,
    )
    # The first image also says what the pictures are like, and pads the last batch.
    assert sorted(set(read)) == list(range(30))
    assert len(read) <= 30 + 2
    assert list(found["variants"]) == list(sweep)
    for name, variant in VARIANTS.items():
        options = {key: value for key, value in variant.items() if key != "name"}
        images = filters.get(variant["name"])(batch["image"] / 255.0, **options)
        right = np.asarray(classifier()(images)).argmax(1) == batch["label"]
        assert found["variants"][name]["top1"] == right.sum(), name
        assert found["variants"][name]["n"] == 30
        assert found["variants"][name]["right"] == "".join(map(str, right.astype(int)))
    assert found["variants"]["blur_0"]["top1"] == found["top1"]
    assert found["variants"]["blur_0"]["right"] == found["right"]
    for attacked in found["attacks"].values():
        assert (attacked["n"], len(attacked["right"])) == (30, 30)
        assert attacked["right"].count("1") == attacked["top1"]


def test_zero_epsilon_is_the_clean_accuracy(data_dir):
    total = evaluate.evaluate(
        classifier(),
        tiny.config(data_dir).dataset,
        "test",
        batch_size=128,
        mesh=mesh(8),
        key=KEY,
        attacks_by_name={"none": {"name": "pgd", "epsilon": 0.0, "steps": 3}},
    )
    assert total["n"] == 360
    assert total["attacks"]["none"]["right"] == total["right"]
    assert 0 < total["top1"] <= total["top5"]


def test_an_interrupted_evaluation_goes_on(data_dir, tmp_path, monkeypatch):
    whole = counts(data_dir, 4, 1)
    note = tmp_path / "evaluation.partial.json"
    monkeypatch.setattr(evaluate, "_SAVE_EVERY", 0.0)
    calls = []
    original = evaluate.count

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(evaluate, "count", failing)
    with pytest.raises(KeyboardInterrupt):
        counts(data_dir, 4, 1, partial_file=note)
    assert note.exists()
    assert counts(data_dir, 4, 1, partial_file=note) == whole
    assert len(calls) == 5 + 8 - 4  # what was done is not done again
    assert not note.exists()


def test_rates():
    np.testing.assert_allclose(report._per_cent(1, 8), 12.5)
    assert report._per_cent(0, 0) is None
