import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxrobust import Classifier, models
from tests import tiny

KEY = jax.random.key(0)
PUBLISHED_PARAMETERS = {
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
}


def shapes(model, side):
    return jax.eval_shape(model.init, KEY, jnp.zeros((1, side, side, 3)))


def count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", PUBLISHED_PARAMETERS)
def test_sizes_are_the_published_ones(name):
    model = models.create(name, num_classes=1000)
    assert count(shapes(model, 64)["params"]) == PUBLISHED_PARAMETERS[name]


def test_layers_are_named_after_stage_and_place():
    model = models.create("vgg16_bn", num_classes=10)
    variables = shapes(model, 64)
    stages = {1: 2, 2: 2, 3: 3, 4: 3, 5: 3}
    names = [f"{stage}_{place}" for stage, n in stages.items() for place in range(1, n + 1)]
    expected = {f"{kind}{name}" for name in names for kind in ("conv", "bn")}
    assert set(variables["params"]) == expected | {"fc6", "fc7", "fc8"}
    assert set(variables["batch_stats"]) == {f"bn{name}" for name in names}
    classifier = Classifier(model, variables)
    assert classifier.conv_layers((64, 64, 3)) == [f"conv{name}" for name in names]
    assert variables["params"]["fc6"]["kernel"].shape == (7 * 7 * 512, 4096)


def test_small_form_for_32_pixels():
    model = models.create("vgg19_small", num_classes=10, width=8)
    params = shapes(model, 32)["params"]
    assert params["conv5_4"]["kernel"].shape == (3, 3, 64, 64)
    assert params["fc6"]["kernel"].shape == (64, 256)
    features = models.create("vgg19_small", num_classes=None)
    output = jax.eval_shape(features.apply, shapes(features, 32), jnp.zeros((2, 32, 32, 3)))
    assert output.shape == (2, 256)


@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn_small"])
def test_logits_equal_a_calculation_with_other_layers(name):
    """XLA's own convolutions, pooling by reshaping, averages by slicing."""
    model = models.create(name, num_classes=5, width=4, hidden=16)
    images = np.random.default_rng(3).random((2, 67, 64, 3), np.float32)
    variables = tiny.drawn_variables(model, images.shape[1:])
    logits = jax.jit(model.apply)(variables, jnp.asarray(images))

    params, statistics = variables["params"], variables.get("batch_stats")
    outputs = (images - np.array(model.mean)) / np.array(model.std)
    for stage, places in enumerate((1, 1, 2, 2, 2), start=1):
        for place in range(1, places + 1):
            conv = params[f"conv{stage}_{place}"]
            dimensions = ("NHWC", "HWIO", "NHWC")
            outputs = lax.conv_general_dilated(
                np.float32(outputs), conv["kernel"], (1, 1), "SAME", dimension_numbers=dimensions
            )
            outputs = np.asarray(outputs) + conv["bias"]
            if statistics is not None:
                norm, running = params[f"bn{stage}_{place}"], statistics[f"bn{stage}_{place}"]
                outputs = (outputs - running["mean"]) / np.sqrt(running["var"] + 1e-5)
                outputs = outputs * norm["scale"] + norm["bias"]
            outputs = np.maximum(outputs, 0)
        n, height, width, channels = outputs.shape
        even = outputs[:, : height // 2 * 2, : width // 2 * 2]
        outputs = even.reshape(n, height // 2, 2, width // 2, 2, channels).max((2, 4))
    grid = 7 if name == "vgg11" else 1
    rows = [
        [
            outputs[
                :,
                i * outputs.shape[1] // grid : -(-(i + 1) * outputs.shape[1] // grid),
                j * outputs.shape[2] // grid : -(-(j + 1) * outputs.shape[2] // grid),
            ].mean((1, 2))
            for j in range(grid)
        ]
        for i in range(grid)
    ]
    outputs = np.array(rows).transpose(2, 0, 1, 3).reshape(2, -1)
    for layer in ("fc6", "fc7", "fc8"):
        outputs = outputs @ np.asarray(params[layer]["kernel"]) + params[layer]["bias"]
        outputs = outputs if layer == "fc8" else np.maximum(outputs, 0)
    np.testing.assert_allclose(logits, outputs, rtol=2e-4, atol=2e-4 * np.abs(outputs).max())


def test_dropout_in_training_only():
    model = models.create("vgg11_small", num_classes=5, width=2, hidden=64)
    images = jax.random.uniform(KEY, (2, 32, 32, 3))
    variables = tiny.drawn_variables(model, images.shape[1:])
    training = jax.jit(
        lambda key: model.apply(variables, images, train=True, rngs={"dropout": key})
    )
    assert not np.allclose(training(jax.random.key(0)), training(jax.random.key(1)))
    # Without an rng, dropout would fail if it were on.
    assert jax.jit(model.apply)(variables, images).shape == (2, 5)


def test_too_small_pictures_are_refused():
    model = models.create("vgg11", num_classes=5, width=2, hidden=4)
    with pytest.raises(ValueError, match="too small for a max-pool"):
        jax.eval_shape(model.init, KEY, jnp.zeros((1, 31, 40, 3)))
