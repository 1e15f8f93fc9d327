import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import Classifier, as_classifier, attacks, models, saliency
from jaxrobust.models import late_fusion
from tests import tiny

SHAPE = (32, 32, 3)
KEY = jax.random.key(7)
RESNET = {"name": "resnet8_small", "width": 4}
ALEXNET = {"name": "alexnet_small", "width": 4, "hidden": 16}


@functools.cache
def backbone(name, seed):
    model = models.create(num_classes=10, **{"resnet": RESNET, "alexnet": ALEXNET}[name])
    variables = tiny.drawn_variables(model, SHAPE)
    shifted = jax.tree.map(lambda leaf: leaf + 0.01 * seed, variables)
    return Classifier(model, shifted)


def images(count=4):
    return jax.random.uniform(jax.random.key(1), (count, *SHAPE))


def features(classifier, batch):
    """What enters the last layer, caught on its way."""
    caught = []

    def catch(call, args, kwargs, context):
        if context.module.name in ("fc", "fc8"):
            caught.append(args[0])
        return call(*args, **kwargs)

    with nn.intercept_methods(catch):
        classifier.model.apply(classifier.variables, batch, train=False)
    return np.asarray(caught[0])


@pytest.mark.parametrize(
    "kinds", [("resnet",), ("resnet", "resnet"), ("resnet", "alexnet", "resnet")], ids=len
)
def test_logits_are_those_of_the_joined_features(kinds):
    backbones = [backbone(kind, seed) for seed, kind in enumerate(kinds)]
    fused = late_fusion.fuse(backbones, num_classes=5, key=KEY, image_shape=SHAPE)
    joined = np.concatenate([features(one, images()) for one in backbones], axis=1)
    dense = fused.variables["params"]["fc"]
    expected = joined @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"])
    tiny.assert_equal_to_rounding(fused(images()), expected, 1e-4)
    assert np.std(expected, axis=0).min() > 1e-3  # they depend on the images


def test_each_backbone_keeps_its_own_weights_and_loses_its_last_layer():
    one, other = backbone("resnet", 0), backbone("resnet", 1)
    fused = late_fusion.fuse([one, other], num_classes=5, key=KEY, image_shape=SHAPE)
    for index, source in enumerate((one, other)):
        kept = fused.variables["params"][f"backbones_{index}"]
        assert set(kept) == set(source.variables["params"]) - {"fc"}
        jax.tree.map(
            np.testing.assert_array_equal,
            kept,
            {name: source.variables["params"][name] for name in kept},
        )
    assert set(fused.variables["params"]) == {"backbones_0", "backbones_1", "fc"}


def test_the_new_classifier_is_drawn_with_the_key():
    def kernel(key):
        fused = late_fusion.fuse([backbone("resnet", 0)], num_classes=5, key=key)
        return np.asarray(fused.variables["params"]["fc"]["kernel"])

    np.testing.assert_array_equal(kernel(KEY), kernel(KEY))
    assert not np.allclose(kernel(KEY), kernel(jax.random.key(8)))


@pytest.mark.slow
def test_methods_take_a_fused_classifier():
    fused = late_fusion.fuse(
        [backbone("resnet", 0), backbone("resnet", 1)], num_classes=5, key=KEY, image_shape=SHAPE
    )
    batch, labels = images(), jnp.arange(4)
    adversarial = attacks.pgd(fused, batch, labels, key=KEY, epsilon=0.05, steps=3)
    assert np.abs(np.asarray(adversarial - batch)).max() <= 0.05 + 1e-6
    loss = jax.vmap(attacks.cross_entropy)
    assert np.all(loss(fused(adversarial), labels) > loss(fused(batch), labels))
    maps = saliency.guided_backprop(fused, batch, labels)
    plain = saliency.vanilla_gradient(fused, batch, labels)
    assert maps.shape == batch.shape
    assert not np.allclose(maps, plain)  # both backbones' ReLUs are guided
    assert fused.mean == (0.485, 0.456, 0.406)
    # The paper's "conv 9" of each backbone, one after the other.
    single = backbone("resnet", 0).conv_layers(SHAPE)
    assert fused.conv_layers(SHAPE) == [f"backbones_{i}/{name}" for i in (0, 1) for name in single]


def test_guided_backprop_is_the_sum_over_both_backbones():
    one, other = backbone("resnet", 0), backbone("resnet", 1)
    fused = late_fusion.fuse([one, other], num_classes=5, key=KEY, image_shape=SHAPE)
    kernel = fused.variables["params"]["fc"]["kernel"]
    total = 0.0
    for index, source in enumerate((one, other)):
        # The backbone with its own rows of the fused classifier, as an ordinary network.
        size = kernel.shape[0] // 2
        part = {"kernel": kernel[index * size : (index + 1) * size], "bias": jnp.zeros(5)}
        params = {**source.variables["params"], "fc": part}
        alone = Classifier(
            source.model.clone(num_classes=5), {**source.variables, "params": params}
        )
        total += saliency.guided_backprop(alone, images(), jnp.arange(4))
    found = saliency.guided_backprop(fused, images(), jnp.arange(4))
    tiny.assert_equal_to_rounding(found, total, share=0.99)


def test_a_fused_classifier_can_be_a_backbone():
    fused = late_fusion.fuse(
        [backbone("resnet", 0), backbone("resnet", 1)], num_classes=5, key=KEY, image_shape=SHAPE
    )
    again = late_fusion.fuse([fused, backbone("resnet", 2)], num_classes=3, key=KEY)
    assert again(images()).shape == (4, 3)


def test_create_by_name_gives_the_same_network():
    fused = late_fusion.fuse(
        [backbone("resnet", 0), backbone("alexnet", 0)], num_classes=5, key=KEY, image_shape=SHAPE
    )
    created = models.create("late_fusion", num_classes=5, backbones=[RESNET, ALEXNET])
    assert created == fused.model
    np.testing.assert_array_equal(Classifier(created, fused.variables)(images()), fused(images()))
    # Equal networks that are one object would share their weights.
    twice = late_fusion.LateFusion((models.create(num_classes=None, **RESNET),) * 2, 5)
    assert "backbones_1" in tiny.drawn_variables(twice, SHAPE)["params"]


class NoFeatures(nn.Module):
    """A user's network that always classifies."""

    num_classes: int | None
    mean: tuple = (0.485, 0.456, 0.406)
    std: tuple = (0.229, 0.224, 0.225)

    @nn.compact
    def __call__(self, images, *, train=False):
        return nn.Dense(self.num_classes)(images.mean((1, 2)))


def without_features():
    return Classifier.init(KEY, NoFeatures(4), SHAPE)


def of_other_range():
    model = models.create(num_classes=10, mean=(127.5,) * 3, std=(255.0,) * 3, **RESNET)
    return Classifier(model, backbone("resnet", 1).variables)


@pytest.mark.parametrize(
    ("backbones", "options", "error", "message"),
    [
        (list, {}, ValueError, "at least one classifier, got none"),
        (
            lambda: [as_classifier(lambda w, x: x.sum((0, 1)) * w, 1.0)],
            {},
            TypeError,
            "Classifiers of Linen models, got a FunctionClassifier at position 0",
        ),
        (
            lambda: [backbone("resnet", 0), lambda image: image.sum((0, 1))],
            {},
            TypeError,
            "Classifiers of Linen models, got a function at position 1",
        ),
        (lambda: backbone("resnet", 0), {}, TypeError, "a list of Classifiers, got a Classifier"),
        (
            lambda: [backbone("resnet", 0), backbone("alexnet", 0), backbone("resnet", 0)],
            {},
            ValueError,
            "same weights at positions 0 and 2; allow_same=True",
        ),
        (
            lambda: [backbone("resnet", 0), of_other_range()],
            {},
            ValueError,
            r"normalise images alike, .*127\.5.* at position 1",
        ),
        (lambda: [without_features()], {}, ValueError, "NoFeatures must return its features"),
        (lambda: [backbone("resnet", 0)], {"num_classes": 0}, ValueError, "num_classes .* got 0"),
        (lambda: [backbone("resnet", 0)], {"key": 3}, TypeError, "key must be a jax.random.key"),
        (
            lambda: [backbone("resnet", 0)],
            {"image_shape": (32, 32)},
            ValueError,
            r"image_shape must be \(height, width, channels\), got \(32, 32\)",
        ),
    ],
)
def test_bad_input_is_one_sentence(backbones, options, error, message):
    with pytest.raises(error, match=message) as raised:
        late_fusion.fuse(backbones(), **{"num_classes": 5, "key": KEY} | options)
    assert "\n" not in str(raised.value)


def test_the_same_weights_are_known_by_another_dtype_and_under_another_classifier():
    one = backbone("resnet", 0)
    params = {**one.variables["params"]}
    params["fc"] = jax.tree.map(lambda leaf: leaf + 1, params["fc"])
    disguises = (
        Classifier(one.model.clone(dtype=jnp.bfloat16), one.variables),
        Classifier(one.model, {**one.variables, "params": params}),
    )
    for disguise in disguises:
        with pytest.raises(ValueError, match="same weights at positions 0 and 1"):
            late_fusion.fuse([one, disguise], num_classes=5, key=KEY, image_shape=SHAPE)


def test_a_frozen_network_thaws_as_a_backbone():
    inner = late_fusion.fuse(
        [backbone("alexnet", 0)], num_classes=5, key=KEY, frozen=True, image_shape=SHAPE
    )
    outer = late_fusion.fuse([inner, backbone("resnet", 0)], num_classes=3, key=KEY)
    assert inner.model.frozen_parameters == ("backbones_0",)
    assert outer.model.backbones[0].frozen is False
    # Its statistics move in training, as those of all backbones.
    _, updated = outer.model.apply(
        outer.variables,
        images(),
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": KEY},
    )
    before = outer.variables["batch_stats"]["backbones_0"]
    moved = jax.tree.map(
        lambda a, b: bool(np.any(a != b)), before, updated["batch_stats"]["backbones_0"]
    )
    assert all(jax.tree.leaves(moved))


def test_a_dtype_is_for_all_backbones_at_any_depth():
    pair = {"name": "late_fusion", "backbones": [RESNET, ALEXNET]}
    model = models.create(
        "late_fusion",
        num_classes=5,
        dtype="bfloat16",
        backbones=[pair, {**RESNET, "dtype": "auto"}],
    )
    inner, resnet = model.backbones
    assert {b.dtype for b in (*inner.backbones, resnet)} == {jnp.bfloat16}


def test_the_same_training_twice_when_it_is_meant():
    one = backbone("resnet", 0)
    fused = late_fusion.fuse([one, one], num_classes=5, key=KEY, allow_same=True)
    halves = np.split(np.asarray(fused.variables["params"]["fc"]["kernel"]), 2)
    shared = features(one, images())
    expected = shared @ halves[0] + shared @ halves[1] + fused.variables["params"]["fc"]["bias"]
    tiny.assert_equal_to_rounding(fused(images()), expected, 1e-4)


@pytest.mark.parametrize("backbones", [None, [], ["resnet50"], [{"width": 4}]])
def test_create_names_what_backbones_must_be(backbones):
    with pytest.raises(ValueError, match="backbones must hold the name and fields"):
        models.create("late_fusion", num_classes=5, backbones=backbones)
