"""Shared by tests: a small config on real scans, a small network, weights of any network."""

import os
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.models import resnet
from jaxrobust.training import config as configs


def environment(devices):
    """Of a program that a test starts on so many devices, compiled as the tests are."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    return os.environ | {"XLA_FLAGS": flags}


class TinyNetwork(nn.Module):
    """Two convolutions, as a user would write them: Linen's own layers."""

    num_classes: int | None
    mean: tuple = (0.3, 0.3, 0.3)
    std: tuple = (0.4, 0.4, 0.4)

    @nn.compact
    def __call__(self, images, *, train=False):
        features = (images - jax.numpy.array(self.mean)) / jax.numpy.array(self.std)
        for channels in (8, 16):
            features = nn.Conv(channels, (3, 3), strides=2, use_bias=False)(features)
            features = nn.relu(nn.BatchNorm(use_running_average=not train)(features))
        features = features.mean((1, 2))
        return features if self.num_classes is None else nn.Dense(self.num_classes)(features)


class TinyResNet(resnet.ResNet):
    """One basic block with a projection: little to compile."""

    stage_sizes: tuple[int, ...] = (1,)
    small_images: bool = True
    width: int = 4
    widening: int = 2


def assert_equal_to_rounding(one, other, tolerance=1e-5, *, share=1.0):
    """In units of the largest value: what cancels is as exact as what it was added up from.

    Below 1, `share` is that of entries which must be equal: where rounding can decide about a ReLU
    or the sign of a gradient, single ones may be far off.
    """
    allowed = tolerance * np.abs(other).max()
    if share == 1:
        np.testing.assert_allclose(one, other, rtol=0, atol=allowed)
    else:
        assert np.shape(one) == np.shape(other)
        assert np.mean(np.abs(np.asarray(one) - np.asarray(other)) <= allowed) >= share


def drawn_variables(model, image_shape):
    """Weights and running statistics like a trained network's, without compiling `model.init`."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        if name == "kernel":
            values = rng.standard_normal(leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))
        elif name in ("scale", "var"):
            values = rng.uniform(0.5, 1.5, leaf.shape)
        else:
            values = 0.1 * rng.standard_normal(leaf.shape)
        return jnp.asarray(values, leaf.dtype)

    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *image_shape)))
    return jax.tree.map_with_path(draw, shapes)


def config(data_dir: str | Path, **changes):
    """Digits at 16 px, the tiny network, a few steps; `changes` are keys with dots."""
    made = configs.default()
    made.dataset.name = "digits"
    made.dataset.data_dir = str(data_dir)
    made.dataset.image_size = 16
    made.model.name = "tests.tiny:TinyNetwork"
    made.batch_size = 64
    made.epochs = None
    made.steps = 30
    made.log_every_seconds = 1000.0
    made.checkpoint.every_steps = 10
    made.evaluation.batch_size = 128
    made.evaluation.attacks = {"pgd": {"name": "pgd", "epsilon": 0.05, "steps": 2}}
    made.runs = {"std": {}}
    for key, value in changes.items():
        made.update_from_flattened_dict({key.replace("__", "."): value})
    return made
