import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxrobust import models

KEY = jax.random.key(0)


def _shapes(model, side):
    return jax.eval_shape(model.init, KEY, jnp.zeros((1, side, side, 3)))


def _count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def small():
    model = models.create("resnet8_small", num_classes=5, width=4)
    return model, jax.jit(model.init)(KEY, jnp.zeros((1, 16, 16, 3)))


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(1), (6, 16, 16, 3))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
        ("alexnet", 61_100_840 + 2 * (64 + 192 + 384 + 256 + 256)),
    ],
)
def test_parameter_counts_are_the_published_ones(name, parameters):
    assert _count(_shapes(models.create(name, num_classes=1000), 224)["params"]) == parameters


def test_wide_resnet_has_the_published_size():
    wide = models.create("resnet50", num_classes=1000, widening=2)
    assert _count(_shapes(wide, 224)["params"]) == 68_883_240


@pytest.mark.parametrize("name", models.names())
@pytest.mark.parametrize("num_classes", [7, None])
def test_every_network_gives_float32_logits(name, num_classes):
    model = models.create(name, num_classes=num_classes, dtype=jnp.bfloat16)
    side = 32 if name.endswith("_small") else 67
    variables = _shapes(model, side)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    logits = jax.eval_shape(model.apply, variables, jnp.zeros((2, side, side + 5, 3)))
    assert logits.dtype == jnp.float32
    features = {"alexnet": 4096, "alexnet_small": 256, "resnet8_small": 64}
    deep = 2048 if any(depth in name for depth in ("50", "101", "152")) else 512
    assert logits.shape == (2, num_classes or features.get(name, deep))


@pytest.mark.parametrize(("side", "stage_side"), [(224, 7), (225, 8), (97, 4), (33, 2)])
def test_resnet_resolution_is_torchvisions(side, stage_side):
    model = models.create("resnet50", num_classes=None)
    _, state = jax.eval_shape(
        lambda v, x: model.apply(v, x, capture_intermediates=True, mutable=["intermediates"]),
        _shapes(model, side),
        jnp.zeros((1, side, side, 3)),
    )
    last = state["intermediates"]["layer4_2"]["__call__"][0]
    assert last.shape == (1, stage_side, stage_side, 2048)


@pytest.mark.parametrize(("stem_stride", "side"), [(None, 32), (2, 16)])
def test_small_stem_stride(stem_stride, side):
    model = models.create("resnet8_small", num_classes=None, stem_stride=stem_stride)
    _, state = jax.eval_shape(
        lambda v, x: model.apply(v, x, capture_intermediates=True, mutable=["intermediates"]),
        _shapes(model, 32),
        jnp.zeros((1, 32, 32, 3)),
    )
    assert state["intermediates"]["conv1"]["__call__"][0].shape == (1, side, side, 16)


def test_shortcut_projections_are_named_downsample(small):
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(small[1])]
    kernels = sorted(p for p in paths if p.endswith("['kernel']") and "downsample" in p)
    assert kernels == [
        f"['params']['layer{stage}_0']['downsample']['conv']['kernel']" for stage in (2, 3)
    ]


def test_the_stride_is_in_the_three_by_three_convolution():
    model = models.create("resnet50", num_classes=None)
    _, state = jax.eval_shape(
        lambda v, x: model.apply(v, x, capture_intermediates=True, mutable=["intermediates"]),
        _shapes(model, 64),
        jnp.zeros((1, 64, 64, 3)),
    )
    block = state["intermediates"]["layer2_0"]
    assert block["conv1"]["__call__"][0].shape[1] == 16
    assert block["conv2"]["__call__"][0].shape[1] == 8


def test_normalisation_happens_inside(small, images):
    model, variables = small
    own = model.clone(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    identity = model.clone(mean=(0.0,) * 3, std=(1.0,) * 3)
    normalized = (images - jnp.array([0.1, 0.2, 0.3])) / jnp.array([0.5, 0.6, 0.7])
    np.testing.assert_allclose(
        own.apply(variables, images), identity.apply(variables, normalized), atol=1e-5
    )


def test_evaluation_does_not_depend_on_the_batch(small, images):
    model, variables = small
    apply = jax.jit(model.apply)
    together = apply(variables, images)
    alone = jnp.concatenate([apply(variables, images[i : i + 1]) for i in range(6)])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    vmapped = jax.vmap(lambda image: model.apply(variables, image[None])[0])(images)
    np.testing.assert_allclose(together, vmapped, atol=1e-5)


def test_batch_statistics_axis_equals_the_training_mode(small, images):
    model, variables = small
    expected, updates = model.apply(variables, images, train=True, mutable=["batch_stats"])
    across = model.clone(batch_statistics_axis="batch")
    logits = jax.vmap(lambda x: across.apply(variables, x[None])[0], axis_name="batch")(images)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert np.abs(logits - model.apply(variables, images)).max() > 1e-2
    before, after = variables["batch_stats"], updates["batch_stats"]
    changed = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before, after)
    assert all(jax.tree.leaves(changed))
    # The field changes neither the parameters nor where they lie.
    shapes = jax.tree.map(lambda leaf: leaf.shape, (variables, _shapes(across, 16)))
    assert shapes[0] == shapes[1]


def test_alexnet_small_uses_dropout_in_training_only():
    model = models.create("alexnet_small", num_classes=4, width=2, hidden=16)
    images = jax.random.uniform(KEY, (3, 32, 32, 3))
    variables = jax.jit(model.init)(KEY, images)

    @jax.jit
    def train(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return model.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)[0]

    np.testing.assert_array_equal(train(0), train(0))
    assert np.abs(train(0) - train(1)).max() > 1e-3
    assert jax.jit(model.apply)(variables, images).shape == (3, 4)


def test_alexnet_keeps_the_convolution_bias():
    parameters = _shapes(models.create("alexnet", num_classes=10), 224)["params"]
    widths = [parameters[f"conv{i}"]["bias"].shape[0] for i in range(1, 6)]
    assert widths == [64, 192, 384, 256, 256]
    assert parameters["fc6"]["kernel"].shape == (256 * 6 * 6, 4096)
    assert {"bn1", "bn2", "bn3", "bn4", "bn5"} < set(parameters)


def test_bfloat16_is_close_to_float32(small, images):
    model, variables = small
    half = model.clone(dtype=jnp.bfloat16).apply(variables, images)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, model.apply(variables, images), atol=0.1)


def test_modules_are_hashable_even_from_lists():
    first = models.create("resnet18", num_classes=3, mean=[0.5, 0.5, 0.5])
    second = models.create("resnet18", num_classes=3, mean=(0.5, 0.5, 0.5))
    assert hash(first) == hash(second)
    assert first == second


@pytest.mark.parametrize(
    ("shape", "name", "message"),
    [
        ((16, 16, 3), "resnet8_small", r"\(n, height, width, 3\), got \(16, 16, 3\)"),
        ((1, 16, 16, 1), "resnet8_small", r"got \(1, 16, 16, 1\)"),
        ((1, 32, 32, 3), "alexnet", "too small for a max-pool"),
    ],
)
def test_wrong_images_are_named(shape, name, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(models.create(name, num_classes=3).init, KEY, jnp.zeros(shape))


class Own(nn.Module):
    num_classes: int
    width: int = 3

    @nn.compact
    def __call__(self, images, *, train=False):
        return nn.Dense(self.num_classes)(images.mean((1, 2)))


class WithoutClasses(nn.Module):
    width: int = 3


def test_own_module_by_import_path():
    fields = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "dtype": jnp.float32, "width": 8}
    model = models.create(f"{__name__}:Own", num_classes=4, **fields)
    assert type(model).__name__ == "Own"
    assert (model.num_classes, model.width) == (4, 8)


@pytest.mark.parametrize(
    ("name", "fields", "error", "message"),
    [
        ("resnet51", {}, ValueError, "Unknown model 'resnet51', did you mean resnet50"),
        ("vit", {}, ValueError, "known are alexnet, .*resnet8_small"),
        ("resnet18", {"widht": 3}, ValueError, "'resnet18' has no field widht; .*width"),
        ("resnet18", {"num_classes": 0}, ValueError, "num_classes must be .* got 0"),
        ("resnet18", {"num_classes": 2.5}, ValueError, "num_classes must be .* got 2.5"),
        ("resnet18", {"width": 0}, ValueError, "width must be .* got 0"),
        ("no_such_package:Net", {}, ValueError, "No module named 'no_such_package'"),
        (f"{__name__}:Nothing", {}, ValueError, "Nothing"),
        ("math:sqrt", {}, TypeError, "must name a flax.linen.Module class"),
        (f"{__name__}:WithoutClasses", {}, ValueError, "must declare the field num_classes"),
        (f"{__name__}:Own", {"depth": 3}, ValueError, "has no field depth"),
    ],
)
def test_errors_name_what_is_wrong(name, fields, error, message):
    with pytest.raises(error, match=message):
        models.create(name, **{"num_classes": 3, **fields})
