"""What a classifier is: of any library, short to print, the same in every call."""

import logging
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrobust import Classifier, as_classifier, attacks, feature_visualization, models, saliency
from jaxrobust.classifier import mean_pixel

IMAGES = jax.random.uniform(jax.random.key(0), (3, 6, 6, 3))
LABELS = jnp.arange(3)


class Mixed(NamedTuple):
    """A pytree with leaves that are no arrays, as those of other libraries are."""

    weights: jax.Array
    activation: object
    name: str

    def __call__(self, image):
        return self.activation(image.reshape(-1) @ self.weights)


def mixed():
    return Mixed(jax.random.normal(jax.random.key(1), (108, 4)), jnp.tanh, "mixed")


def expected_gradients(normalise=lambda image: image):
    """Of `mixed`, from its weights."""
    weights = mixed().weights

    def logit(image, label):
        return jnp.tanh(normalise(image).reshape(-1) @ weights)[label]

    return jax.vmap(jax.grad(logit))(IMAGES, LABELS)


def test_leaves_that_are_no_arrays_are_part_of_the_program():
    for classifier in (as_classifier(lambda model, x: model(x), mixed()), as_classifier(mixed())):
        found = saliency.vanilla_gradient(classifier, IMAGES, LABELS)
        np.testing.assert_allclose(found, expected_gradients(), rtol=1e-5)
        logits = jax.jit(lambda classifier, images: classifier(images))(classifier, IMAGES)
        np.testing.assert_allclose(logits, jax.vmap(mixed())(IMAGES), rtol=1e-5)
        assert classifier.variables.name == "mixed"
        # What is an array is an argument: others compile nothing.
        assert [leaf.shape for leaf in jax.tree.leaves(classifier)] == [(108, 4)]


def test_mean_and_std_of_a_function_without_variables():
    classifier = as_classifier(mixed(), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    found = saliency.vanilla_gradient(classifier, IMAGES, LABELS)
    expected = expected_gradients(lambda image: (image - 0.5) / 0.25)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert mean_pixel(classifier) == (0.5, 0.5, 0.5)
    of_batches = as_classifier(lambda images: images.mean((1, 2)), batched=True)
    np.testing.assert_allclose(of_batches(IMAGES), IMAGES.mean((1, 2)), rtol=1e-6)


def test_equinox():
    eqx = pytest.importorskip("equinox")

    class Network(eqx.Module):
        mlp: eqx.nn.MLP

        def __call__(self, image):
            return self.mlp(image.reshape(-1))

    network = Network(eqx.nn.MLP(108, 4, 8, 2, key=jax.random.key(0)))
    weights = [(layer.weight, layer.bias) for layer in network.mlp.layers]

    def logit(image, label):
        values = image.reshape(-1)
        for weight, bias in weights[:-1]:
            values = jnp.maximum(weight @ values + bias, 0)
        return (weights[-1][0] @ values + weights[-1][1])[label]

    expected = jax.vmap(jax.grad(logit))(IMAGES, LABELS)
    applied = as_classifier(lambda network, image: network(image), network)
    for classifier in (network, applied, as_classifier(network)):
        found = saliency.vanilla_gradient(classifier, IMAGES, LABELS)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        ball = {"key": jax.random.key(0), "epsilon": 0.1, "steps": 2}
        attacked = attacks.pgd(classifier, IMAGES, LABELS, **ball)
        assert float(jnp.abs(attacked - IMAGES).max()) > 0.05
    assert repr(applied.variables) == repr(network)


class Normalized(nnx.Module):
    """Its BatchNorm and its Dropout are in train mode until `eval()`."""

    def __init__(self, dropout=0.0):
        rngs = nnx.Rngs(0)
        self.convolution = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.head = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, images):
        return self.head(self.dropout(nnx.relu(self.norm(self.convolution(images)))).mean((-3, -2)))


WAYS = {
    "as it is": lambda network: network,
    "a function of it": lambda network: as_classifier(lambda m, x: m(x), network, batched=True),
    "itself": lambda network: as_classifier(network, batched=True),
}


@pytest.mark.parametrize("way", WAYS)
def test_nnx_in_train_mode_is_refused(way):
    network = Normalized()
    before = jax.tree.leaves(network)
    classifier = WAYS[way](network)
    said = r"a call has changed .*norm.* of this Normalized: .* by its eval\(\)"
    with pytest.raises(ValueError, match=said):
        saliency.vanilla_gradient(classifier, IMAGES, LABELS)
    with pytest.raises(ValueError, match=said):
        attacks.pgd(classifier, IMAGES, LABELS, key=jax.random.key(0), epsilon=0.1, steps=1)
    if way != "as it is":
        with pytest.raises(ValueError, match=said):
            classifier(IMAGES)
    # The user's module is as it was.
    assert all(one is other for one, other in zip(before, jax.tree.leaves(network), strict=True))
    network.eval()
    expected = jax.grad(lambda images: network(images)[jnp.arange(3), LABELS].sum())(IMAGES)
    found = saliency.vanilla_gradient(WAYS[way](network), IMAGES, LABELS)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_dropout_in_train_mode_is_refused():
    network = Normalized(dropout=0.5)
    network.eval()
    network.dropout.deterministic = False
    with pytest.raises(ValueError, match=r"a call has changed .*dropout.*rngs"):
        saliency.vanilla_gradient(network, IMAGES, LABELS)


class Compiled(nnx.Module):
    """Hands all its arrays through transforms of NNX, which change them only in train mode."""

    def __init__(self):
        self.network = Normalized()

    def __call__(self, image):
        module = nnx.remat(lambda module, image: module(image))
        return nnx.jit(lambda module, image: module(image))(self.network, image) + module(
            self.network, image
        )


def test_what_goes_through_a_transform_has_changed_only_in_train_mode():
    network = Compiled()
    with pytest.raises(ValueError, match=r"a call has changed .*network.*norm.* of this Compiled"):
        saliency.vanilla_gradient(network, IMAGES, LABELS)
    network.eval()
    found = saliency.vanilla_gradient(network, IMAGES, LABELS)
    expected = saliency.vanilla_gradient(network.network, IMAGES, LABELS)
    np.testing.assert_allclose(found, 2 * expected, atol=1e-6)


def test_a_module_that_is_trained_on_is_seen_as_it_is():
    network = Normalized()
    network.eval()
    classifier = as_classifier(network, batched=True)
    before = classifier(IMAGES)
    network.head.bias[...] += 1.0
    np.testing.assert_allclose(classifier(IMAGES), before + 1.0, rtol=1e-5)


def drawing():
    rng = np.random.default_rng(0)
    return lambda image: image.mean((0, 1)) + rng.normal(size=3)


def counting():
    calls = []

    def classifier(image):
        calls.append(image.shape)
        return image.mean((0, 1)) * len(calls)

    return classifier


@pytest.mark.parametrize("make", [drawing, counting])
def test_one_that_changes_from_call_to_call_is_refused(make):
    said = "must give the same for every call, .* draws random numbers, or counts, outside of JAX"
    with pytest.raises(ValueError, match=said):
        saliency.vanilla_gradient(make(), IMAGES, LABELS)
    with pytest.raises(ValueError, match=said):
        saliency.vanilla_gradient(as_classifier(make()), IMAGES, LABELS)


def test_one_that_is_the_same_is_looked_at_once():
    calls = []
    weights = np.full(3, np.nan)  # equal to itself here

    def classifier(image):
        calls.append(image)
        return jax.nn.gelu(image.mean((0, 1))) * weights

    saliency.vanilla_gradient(classifier, IMAGES, LABELS)
    first = len(calls)
    saliency.vanilla_gradient(classifier, IMAGES, LABELS)
    assert len(calls) == first

    # Weights that a caller's jit or grad is tracing are the same in both looks.
    def total(weights):
        maps = saliency.vanilla_gradient(lambda x: x.mean((0, 1)) * weights, IMAGES, LABELS)
        return maps.sum()

    np.testing.assert_allclose(jax.jit(jax.grad(total))(jnp.ones(3)), jnp.ones(3), rtol=1e-5)


def test_printed_it_is_one_line():
    trained = models.pretrained("quickstart_adv")
    count = sum(leaf.size for leaf in jax.tree.leaves(trained.variables["params"]))
    assert repr(trained).startswith("Classifier(ResNet(stage_sizes=(1, 1, 1), ")
    assert repr(trained).endswith(f", {count:,} parameters, 10 classes)")
    assert len(repr(trained)) < 200
    assert "\n" not in str(trained)

    def linear(weights, image):
        return image.mean((0, 1)) @ weights

    assert repr(as_classifier(mixed())) == "FunctionClassifier(Mixed, 432 parameters)"
    name = test_printed_it_is_one_line.__name__ + ".<locals>.linear"
    assert repr(as_classifier(linear, jnp.ones((3, 4)))) == (
        f"FunctionClassifier({name}, 12 parameters)"
    )
    apply = trained.model.apply
    assert repr(as_classifier(apply, trained.variables)).startswith("FunctionClassifier(ResNet(")
    assert f"{count:,} parameters" in repr(as_classifier(apply, trained.variables))


class OnPixels(nn.Module):
    """Without a field but the one that every network has."""

    num_classes: int

    @nn.compact
    def __call__(self, images, *, train):
        features = nn.relu(nn.Conv(4, (3, 3))(images))
        return nn.Dense(self.num_classes)(features.mean((1, 2)))


def test_a_module_without_mean_and_std_works_on_pixels(caplog):
    classifier = Classifier.init(jax.random.key(0), OnPixels(3), (6, 6, 3))
    with caplog.at_level(logging.WARNING, logger="jaxrobust"):
        found = saliency.integrated_gradients(classifier, IMAGES, LABELS)
        seen = feature_visualization.maximize(
            classifier, 1, 2, key=jax.random.key(0), image_shape=(6, 6, 3), steps=3
        )
    black = saliency.integrated_gradients(classifier, IMAGES, LABELS, baseline=0.0)
    np.testing.assert_array_equal(found, black)
    options = {"key": jax.random.key(0), "image_shape": (6, 6, 3), "steps": 3}
    stated = feature_visualization.maximize(
        classifier, 1, 2, mean=(0.0,) * 3, std=(1.0,) * 3, **options
    )
    np.testing.assert_allclose(seen, stated, atol=1e-6)
    [record] = caplog.records
    assert record.getMessage().startswith("OnPixels does not have both fields `mean` and `std`")
