import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy import ndimage

from jaxrobust import models
from jaxrobust.models import resnet
from tests import tiny

KEY = jax.random.key(0)


def _shapes(model, side):
    return jax.eval_shape(model.init, KEY, jnp.zeros((1, side, side, 3)))


def _count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def small():
    model = models.create("resnet8_small", num_classes=5, width=4)
    return model, tiny.drawn_variables(model, (16, 16, 3))


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(1).random((6, 16, 16, 3), np.float32))


@pytest.fixture(scope="module")
def logits(small, images):
    model, variables = small
    return jax.jit(model.apply)(variables, images)


PUBLISHED_PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "alexnet": 61_100_840 + 2 * (64 + 192 + 384 + 256 + 256),
}


@pytest.mark.parametrize("name", models.names())
def test_every_network_has_its_size_and_gives_float32_logits(name):
    fields = {"backbones": [{"name": "resnet18"}] * 2} if name == "late_fusion" else {}
    model = models.create(name, num_classes=1000, dtype=jnp.bfloat16, **fields)
    side = 32 if name.endswith("_small") else 67
    images = jnp.zeros((2, side, side + 5, 3))
    logits, variables = jax.eval_shape(model.init_with_output, KEY, images)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    assert logits.dtype == jnp.float32
    assert logits.shape == (2, 1000)
    published = PUBLISHED_PARAMETERS.get(name.removesuffix("_small"))
    if name == "alexnet_small" or published is None:
        return
    # A stem of 3 x 3 instead of 7 x 7.
    stem = 64 * 3 * (7 * 7 - 3 * 3) if name.endswith("_small") else 0
    assert _count(variables["params"]) == published - stem


def test_wide_resnet_has_the_published_size():
    wide = models.create("resnet50", num_classes=1000, widening=2)
    assert _count(_shapes(wide, 64)["params"]) == 68_883_240


@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("alexnet", 4096),
        ("alexnet_small", 256),
        ("resnet8_small", 64),
        ("resnet18", 512),
        ("resnet50", 2048),
    ],
)
def test_without_classes_the_features_come_out(name, features):
    model = models.create(name, num_classes=None, dtype=jnp.bfloat16)
    output, variables = jax.eval_shape(model.init_with_output, KEY, jnp.zeros((2, 67, 67, 3)))
    assert not {"fc", "fc8"} & set(variables["params"])
    assert output.dtype == jnp.float32
    assert output.shape == (2, features)


@pytest.mark.parametrize("name", ["alexnet", "alexnet_small", "resnet18"])
def test_parameters_fit_images_of_every_size(name):
    model = models.create(name, num_classes=7)
    logits = jax.eval_shape(model.apply, _shapes(model, 67), jnp.zeros((2, 80, 97, 3)))
    assert logits.shape == (2, 7)


@pytest.mark.parametrize(("side", "stage_side"), [(224, 7), (225, 8), (97, 4), (33, 2)])
def test_resnet_resolution_is_torchvisions(side, stage_side):
    model = resnet.ResNet((1, 1, 1, 1), bottleneck=True, num_classes=None)
    _, state = jax.eval_shape(
        lambda v, x: model.apply(v, x, capture_intermediates=True, mutable=["intermediates"]),
        _shapes(model, side),
        jnp.zeros((1, side, side, 3)),
    )
    last = state["intermediates"]["layer4_0"]["__call__"][0]
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


@pytest.mark.parametrize(
    ("name", "stem_stride"), [("resnet8_small", None), ("resnet8_small", 2), ("resnet18", None)]
)
@pytest.mark.parametrize("downsampling", resnet.layers.DOWNSAMPLINGS)
def test_pools_take_every_stride(downsampling, name, stem_stride):
    """What comes after a pool sees what strided layers would give, and none is strided."""
    fields = {"num_classes": 10, "width": 4, "stem_stride": stem_stride}
    model = models.create(name, downsampling=downsampling, **fields)
    shapes = _shapes(model, 28)

    def apply(variables, images):
        return model.apply(variables, images, capture_intermediates=True, mutable="intermediates")

    _, state = jax.eval_shape(apply, shapes, jnp.zeros((1, 28, 28, 3)))
    # The stem of full-size networks takes two strides of 2.
    side = 28 // (4 if name == "resnet18" else stem_stride or 1)
    for stage in range(1, 1 + len(model.stage_sizes)):
        block = state["intermediates"][f"layer{stage}_0"]["__call__"][0]
        assert block.shape == (1, side, side, 2 * 2**stage)
        side = -(-side // 2)
    program = str(jax.make_jaxpr(apply)(shapes, jnp.zeros((1, 28, 28, 3))))
    # Those of convolutions are two numbers, those of max-pools four.
    strides = re.findall(r"window_strides=\(([\d, ]+)\)", program)
    expected = {"1, 1", "2, 2"} if downsampling == "stride" else {"1, 1"}
    if name == "resnet18":
        expected |= {"1, 2, 2, 1" if downsampling == "stride" else "1, 1, 1, 1"}
    assert set(strides) == expected
    plain = _shapes(models.create(name, **fields), 28)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, plain)


def test_pooled_stem_is_the_maxima_of_averages():
    """The mean over the averages of 2 x 2 maxima is the mean of all maxima; by SciPy."""
    model = resnet.ResNet((), width=1, downsampling="average_pool", num_classes=None)
    model = model.clone(mean=(0.0,), std=(1.0,))
    image = np.random.default_rng(0).random((12, 20), np.float32)
    kernel = jnp.zeros((7, 7, 1, 1)).at[3, 3].set(1.0)
    one, none = jnp.ones(1), jnp.zeros(1)
    variables = {
        "params": {"conv1": {"kernel": kernel}, "bn1": {"scale": one, "bias": none}},
        "batch_stats": {"bn1": {"mean": none, "var": one - 1e-5}},
    }
    averages = ndimage.correlate(image, np.full((2, 2), 0.25), origin=-1)[::2, ::2]
    expected = ndimage.maximum_filter(averages, 3).mean()
    features = jax.jit(model.apply)(variables, image[None, :, :, None])
    np.testing.assert_allclose(features, [[expected]], rtol=1e-5)


def test_downsampling_names_what_is_wrong():
    with pytest.raises(ValueError, match="downsampling must be one of stride, average_pool"):
        _shapes(models.create("resnet8_small", num_classes=10, downsampling="mean"), 32)
    fields = {"downsampling": "average_pool", "stem_stride": 4}
    with pytest.raises(ValueError, match="stem_stride must be 1 or 2 with the downsampling"):
        _shapes(models.create("resnet8_small", num_classes=10, **fields), 32)


def test_shortcut_projections_are_named_downsample(small):
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(small[1])]
    kernels = sorted(p for p in paths if p.endswith("['kernel']") and "downsample" in p)
    assert kernels == [
        f"['params']['layer{stage}_0']['downsample']['conv']['kernel']" for stage in (2, 3)
    ]


def test_the_stride_is_in_the_three_by_three_convolution():
    model = resnet.ResNet((1, 1), bottleneck=True, num_classes=None)
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
    tiny.assert_equal_to_rounding(
        jax.jit(own.apply)(variables, images), jax.jit(identity.apply)(variables, normalized)
    )


def test_evaluation_does_not_depend_on_the_batch(small, images, logits):
    model, variables = small
    apply = jax.jit(model.apply)
    alone = jnp.concatenate([apply(variables, images[i : i + 1]) for i in range(6)])
    tiny.assert_equal_to_rounding(logits, alone)
    vmapped = jax.jit(jax.vmap(lambda image: model.apply(variables, image[None])[0]))(images)
    tiny.assert_equal_to_rounding(logits, vmapped)


def test_batch_statistics_axis_equals_the_training_mode(small, images, logits):
    model, variables = small
    train = jax.jit(partial(model.apply, train=True, mutable=["batch_stats"]))
    expected, updates = train(variables, images)
    across = model.clone(batch_statistics_axis="batch")
    apply = jax.vmap(lambda x: across.apply(variables, x[None])[0], axis_name="batch")
    with_statistics = jax.jit(apply)(images)
    np.testing.assert_allclose(with_statistics, expected, atol=1e-4)
    assert np.abs(with_statistics - logits).max() > 1e-2
    before, after = variables["batch_stats"], updates["batch_stats"]
    changed = jax.tree.map(lambda a, b: bool(np.any(np.asarray(a) != b)), before, after)
    assert all(jax.tree.leaves(changed))
    # The field changes neither the parameters nor where they lie.
    shapes = jax.tree.map(lambda leaf: leaf.shape, (variables, _shapes(across, 16)))
    assert shapes[0] == shapes[1]


def test_alexnet_small_uses_dropout_in_training_only():
    model = models.create("alexnet_small", num_classes=4, width=2, hidden=16)
    images = np.random.default_rng(0).random((3, 32, 32, 3), np.float32)
    variables = tiny.drawn_variables(model, (32, 32, 3))

    @jax.jit
    def train(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return model.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)[0]

    np.testing.assert_array_equal(train(0), train(0))
    assert np.abs(train(0) - train(1)).max() > 1e-3
    assert jax.eval_shape(model.apply, variables, images).shape == (3, 4)


def test_alexnet_keeps_the_convolution_bias():
    parameters = _shapes(models.create("alexnet", num_classes=10), 224)["params"]
    widths = [parameters[f"conv{i}"]["bias"].shape[0] for i in range(1, 6)]
    assert widths == [64, 192, 384, 256, 256]
    assert parameters["fc6"]["kernel"].shape == (256 * 6 * 6, 4096)
    assert {"bn1", "bn2", "bn3", "bn4", "bn5"} < set(parameters)


def test_bfloat16_is_close_to_float32(small, images, logits):
    model, variables = small
    half = jax.jit(model.clone(dtype=jnp.bfloat16).apply)(variables, images)
    assert half.dtype == jnp.float32
    tiny.assert_equal_to_rounding(half, logits, 0.01)


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
        ("resnet51", {}, ValueError, r"Unknown model 'resnet51' \(did you mean 'resnet50'"),
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
