"""Logits and gradients against PyTorch's, from the files of tests/fixtures/make_torch_logits.py."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrobust import Classifier, torch_weights
from jaxrobust.models import layers
from jaxrobust.torch_weights import files as torch_files
from tests import torch_states

FIXTURES = Path(__file__).parent / "fixtures"
TOLERANCE = 5e-5
DOUBLE_TOLERANCE = 1e-5
FIELDS = {"alexnet_bn": {"name": "alexnet"}, "vgg11_bn": {"width": 16, "hidden": 64}}
SIGNS = np.where(np.arange(100) % 2, -1, 1)


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Opens what PyTorch computed, and the classifier of the same state dict."""

    def open_fixture(name):
        fixture = np.load(FIXTURES / f"torch_logits_{name}.npz")
        state = torch_states.state(json.loads(str(fixture["shapes"])), fixture)
        # Other tests write files; these would be of hundreds of MB.
        monkeypatch.setattr(torch_files, "read", lambda path: state)
        (tmp_path / "weights.pth").touch()
        fields = {"name": name} | FIELDS.get(name, {})
        return fixture, torch_weights.load(tmp_path / "weights.pth", fields.pop("name"), **fields)

    return open_fixture


def error(classifier, fixture, size):
    """The largest difference of logits, of the largest, both without the mean over pictures."""
    logits = np.asarray(classifier(torch_states.photographs(3, *torch_states.SIZES[size])))
    ours, torchs = (each - each.mean(0) for each in (logits[:, ::10], fixture[f"logits_{size}"]))
    assert np.abs(torchs).max() > 0.1
    return np.abs(ours - torchs).max() / np.abs(torchs).max()


def gradient_error(classifier, fixture, size):
    picture = torch_states.photographs(1, *torch_states.SIZES[size])[0].astype(np.float64)
    with jax.enable_x64(True):  # rounding would decide about some ReLUs
        variables = jax.tree.map(lambda leaf: leaf.astype(np.float64), classifier.variables)
        exact = Classifier(classifier.model.clone(dtype=np.float64), variables)
        gradient = jax.jit(jax.grad(lambda x, c: (c(x)[::10] * SIGNS).sum()))(picture, exact)
    ours, torchs = torch_states.sampled(np.asarray(gradient)), fixture["gradient"]
    return np.abs(ours - torchs).max() / np.abs(torchs).max()


# The deep ones differ from the others in how often a block is repeated.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sizes", "gradient_size"),
    [
        ("alexnet", ("224", "odd"), "odd"),
        ("alexnet_bn", ("224", "odd"), "odd"),
        ("resnet18", ("224", "odd"), "odd"),
        ("resnet34", ("odd",), None),
        ("resnet50", ("224", "odd"), "odd"),
        ("resnet101", ("odd",), None),
        ("resnet152", ("224",), None),
        ("wide_resnet50_2", ("odd",), None),
        ("resnet18_small", ("32",), "32"),
        ("vgg11_bn", ("224", "odd"), "odd"),
    ],
)
def test_logits_and_gradients_are_those_of_pytorch(opened, name, sizes, gradient_size):
    fixture, classifier = opened(name)
    for size in sizes:
        assert error(classifier, fixture, size) < TOLERANCE
    if gradient_size is not None:
        assert gradient_error(classifier, fixture, gradient_size) < DOUBLE_TOLERANCE


def same_padding(images, kernel, *, stride=1, padding=0, groups=1):
    assert groups == 1
    strides = (stride, stride)
    return jax.lax.conv_general_dilated(
        images, kernel, strides, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"), [("alexnet_bn", "odd"), ("resnet18", "224"), ("resnet18_small", "32")]
)
def test_the_tolerance_is_not_met_by_chance(opened, monkeypatch, name, size):
    fixture, classifier = opened(name)

    def with_other_epsilon(path, leaf):
        return leaf + (1e-3 - 1e-5) if path[-1].key == "var" else leaf

    variables = jax.tree.map_with_path(with_other_epsilon, classifier.variables)
    assert error(Classifier(classifier.model, variables), fixture, size) > 200 * TOLERANCE

    for wrong in ({"mean": (0.5, 0.5, 0.5)}, {"std": (0.225, 0.225, 0.225)}):
        other = Classifier(classifier.model.clone(**wrong), classifier.variables)
        assert error(other, fixture, size) > 200 * TOLERANCE

    # Padded as TensorFlow does, which moves what strides of 2 see by one pixel.
    monkeypatch.setattr(layers, "convolve", same_padding)
    padded = jax.jit(lambda images: classifier.model.apply(classifier.variables, images))
    assert error(padded, fixture, size) > 200 * TOLERANCE
