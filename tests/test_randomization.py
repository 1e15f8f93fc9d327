import flax.linen as nn
import jax
import numpy as np
import pytest

from jaxrobust import Classifier, models, plots
from jaxrobust.experiments import randomization
from jaxrobust.experiments.pictures import Pictures
from jaxrobust.experiments.sensitivity import maps_of
from tests import tiny

SHAPE = (16, 16, 3)


def drawn(name):
    model = models.create(name, num_classes=4)
    return Classifier(model, tiny.drawn_variables(model, (32, 32, 3)))


def changed(old, new):
    """The modules of whose variables some, and of whose variables all, have changed."""
    before = jax.tree_util.tree_flatten_with_path(old.variables)[0]
    after = jax.tree.leaves(new.variables)
    some, kept = set(), set()
    for (path, leaf), other in zip(before, after, strict=True):
        module = "/".join(entry.key for entry in path[1:-1])
        (kept if np.array_equal(leaf, other) else some).add(module)
    return some, some - kept


class Framed(nn.Module):
    """A normalisation before the first kernel, and a head that only training calls."""

    num_classes: int

    @nn.compact
    def __call__(self, images, *, train=False):
        features = nn.LayerNorm(name="entry")(images).reshape(len(images), -1)
        features = nn.relu(nn.Dense(4, name="body")(features))
        if train or self.is_initializing():
            nn.Dense(2, name="auxiliary")(features)
        return nn.Dense(self.num_classes, name="top")(features)


@pytest.mark.parametrize("name", ["resnet8_small", "alexnet_small", "tests.tiny:TinyNetwork"])
def test_layers_are_the_convolutions_and_what_follows(name):
    classifier = drawn(name)
    convolutions = classifier.conv_layers((32, 32, 3))
    found = randomization.layers(classifier, (32, 32, 3))
    tops = {
        "resnet8_small": ["fc"],
        "alexnet_small": ["fc6", "fc7", "fc8"],
        "tests.tiny:TinyNetwork": ["Dense_0"],
    }
    assert list(found) == convolutions + tops[name]
    if name == "resnet8_small":
        assert found["conv1"] == {("conv1",), ("bn1",)}
        assert found["layer2_0/conv1"] == {("layer2_0", "conv1"), ("layer2_0", "bn1")}
        assert found["layer2_0/conv2"] == {("layer2_0", part) for part in ("conv2", "bn2")} | {
            ("layer2_0", "downsample", part) for part in ("conv", "norm")
        }


def test_layers_hold_every_variable():
    model = Framed(3)
    classifier = Classifier.init(jax.random.key(0), model, SHAPE)
    assert randomization.layers(classifier, SHAPE) == {
        "body": {("entry",), ("body",), ("auxiliary",)},
        "top": {("top",)},
    }


@pytest.mark.parametrize("independent", [False, True])
def test_cascade_changes_the_named_layers_and_no_other(independent):
    original = drawn("tests.tiny:TinyResNet")
    before = jax.tree.map(np.array, original.variables)
    key, shape = jax.random.key(7), (32, 32, 3)
    groups = {
        layer: {"/".join(path) for path in paths}
        for layer, paths in randomization.layers(original, shape).items()
    }
    steps = list(randomization.cascade(original, key, shape, independent=independent))
    assert [layer for layer, _ in steps] == list(reversed(groups))
    expected = set()
    for layer, classifier in steps:
        expected = groups[layer] if independent else expected | groups[layer]
        # Every variable of theirs: drawn weights and statistics have no ones and zeros.
        assert changed(original, classifier) == (expected, expected)
    jax.tree.map(np.testing.assert_array_equal, original.variables, before)
    if not independent:
        fresh = Classifier.init(key, original.model, shape)
        assert changed(original, steps[-1][1])[1] == set().union(*groups.values())
        assert changed(fresh, steps[-1][1]) == (set(), set())


def test_cascade_of_one_architecture_shares_its_program(tmp_path):
    original = drawn("tests.tiny:TinyResNet")
    images = np.random.default_rng(0).random((3, 32, 32, 3), np.float32)
    pictures = Pictures(images, np.arange(3, dtype=np.int32), None, tuple("abcd"), images)
    maps_of(original, "guided_backprop", pictures, seed=0)
    steps = list(randomization.cascade(original, jax.random.key(0), (32, 32, 3)))
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration, **_: compiled.append(event) if "compile" in event else None
    )
    try:
        for _, classifier in steps:
            maps_of(classifier, "guided_backprop", pictures, seed=0)
    finally:
        jax.monitoring.clear_event_listeners()
    assert not compiled


@pytest.mark.parametrize("count", [3, 14])
def test_curves_without_a_value_are_named(count, tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(
        plots, "curves", lambda x, series, **options: given.update(options, of=series)
    )
    steps = np.linspace(1, 0.5, count + 1).tolist()
    gap = [*steps[:-1], float("nan")]
    found = {
        "layers": [f"layer{n}" for n in range(count)],
        "similarities": {
            run: {
                "grad_cam": {"ssim": [steps], "rank_correlation": [steps]},
                "smoothgrad": {"ssim": [steps], "rank_correlation": [gap]},
            }
            for run in ("std", "adv")
        },
    }
    randomization.draw_curves(found, "cascade", title="Network", path=tmp_path / "curves.png")
    assert {panel: list(lines) for panel, lines in given["of"].items()} == {
        "STD: SSIM": ["Grad-CAM", "SmoothGrad"],
        "ADV: SSIM": ["Grad-CAM", "SmoothGrad"],
        "STD: Rank correlation": ["Grad-CAM"],
        "ADV: Rank correlation": ["Grad-CAM"],
    }
    assert given["note"] == (
        "Not defined at every step: STD: Rank correlation of SmoothGrad, "
        "ADV: Rank correlation of SmoothGrad."
    )
    few = ["trained", "layer0", "layer1", "layer2"]
    assert given["x_ticks"] == (few if count == 3 else None)
