"""BatchNorm folded into the convolutions where weights stand still: equal, and really folded."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import as_classifier, models, saliency
from jaxrobust.classifier import Classifier
from jaxrobust.models import layers, resnet
from tests import tiny

SHAPE = (32, 32, 3)
MODELS = {
    "basic blocks": lambda **fields: models.create("resnet8_small", width=4, **fields),
    "bottlenecks": lambda **fields: resnet.ResNet((1, 1), bottleneck=True, width=4, **fields),
    "alexnet": lambda **fields: models.create("alexnet_small", width=4, hidden=16, **fields),
    "vgg": lambda **fields: models.create("vgg11_small", batch_norm=True, width=4, **fields),
}


@pytest.fixture(params=MODELS)
def classifier(request):
    model = MODELS[request.param](num_classes=10)
    return Classifier(model, tiny.drawn_variables(model, SHAPE))


@pytest.fixture
def images():
    return jnp.asarray(np.random.default_rng(0).random((5, *SHAPE), np.float32))


def _unfolded(classifier):
    model = classifier.model
    return as_classifier(lambda v, x: model.apply(v, x), classifier.variables, batched=True)


def _scaled_outputs(function, images):
    """How many products the program takes that are as large as a convolution's output."""
    text = jax.jit(function).lower(images).as_text()
    return len(re.findall(rf"multiply .*tensor<{images.shape[0]}x\d+x\d+x\d+xf32>", text))


@pytest.mark.slow
def test_logits_and_maps_are_equal_to_rounding(classifier, images):
    plain, labels = _unfolded(classifier), jnp.arange(5)
    tiny.assert_equal_to_rounding(classifier(images), plain(images))
    for method in (saliency.loss_gradient, saliency.guided_backprop):
        ours, theirs = (method(one, images, labels) for one in (classifier, plain))
        tiny.assert_equal_to_rounding(ours, theirs, share=0.99)


def test_outputs_are_no_longer_scaled(classifier, images):
    assert _scaled_outputs(_unfolded(classifier), images) > 0
    assert _scaled_outputs(classifier, images) == 0


def test_convolutions_that_are_looked_at_are_not_folded(classifier, images):
    names = classifier.conv_layers(SHAPE)
    found = classifier.activations(images, names[:1])[names[0]]
    model, variables = classifier.model, classifier.variables
    params = variables["params"][names[0]]
    normalized = layers.normalize(images, model.mean, model.std)
    kernel = params["kernel"]
    expected = jax.lax.conv_general_dilated(
        normalized,
        kernel,
        (getattr(model, "stem_stride", None) or (images.shape[1] // found.shape[1]),) * 2,
        [(kernel.shape[0] // 2,) * 2] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    ) + params.get("bias", 0.0)
    tiny.assert_equal_to_rounding(found, expected)


def test_batch_statistics_are_not_folded(images):
    model = models.create("resnet8_small", num_classes=10, width=4)
    classifier = Classifier(model, tiny.drawn_variables(model, SHAPE))
    across = Classifier(model.clone(batch_statistics_axis="images"), classifier.variables)
    logits = jax.vmap(across, axis_name="images")(images)
    assert np.abs(logits - classifier(images)).max() > 1e-2
