import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from flax import linen as nn
from flax import nnx

from jaxrobust import Classifier, as_classifier, feature_visualization, models
from jaxrobust.feature_visualization import (
    Fourier,
    Jitter,
    Pixel,
    RandomRotate,
    RandomScale,
    activation_maximization,
    maximize,
)
from tests.tiny import TinyNetwork, assert_equal_to_rounding, drawn_variables

SHAPE = (16, 16, 3)
KEY = jax.random.key(3)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


class Convolution(nn.Module):
    """Normalisation, one convolution, a mean: small enough for NumPy."""

    mean: tuple = MEAN
    std: tuple = STD

    @nn.compact
    def __call__(self, images, *, train=False):
        images = (images - jnp.array(self.mean)) / jnp.array(self.std)
        return nn.Conv(4, (3, 3), padding="VALID", name="conv")(images).mean((1, 2))


def drawn(model, image_shape=SHAPE):
    return Classifier(model, drawn_variables(model, image_shape))


def convolution():
    return drawn(Convolution())


def tiny():
    return drawn(TinyNetwork(num_classes=5))


def numpy_convolution(z, kernel, bias):
    height, width = z.shape[0] - 2, z.shape[1] - 2
    outputs = np.full((height, width), float(bias))
    for y in range(height):
        for x in range(width):
            outputs[y, x] += np.sum(z[y : y + 3, x : x + 3] * kernel)
    return outputs


def numpy_convolution_gradient(upstream, kernel):
    gradient = np.zeros((upstream.shape[0] + 2, upstream.shape[1] + 2, kernel.shape[-1]))
    for y in range(upstream.shape[0]):
        for x in range(upstream.shape[1]):
            gradient[y : y + 3, x : x + 3] += upstream[y, x] * kernel
    return gradient


# name -> the objective, and its derivative by the activations
OBJECTIVES = {
    "sum": ("sum", np.ones_like),
    "mean": ("mean", lambda a: np.full_like(a, 1 / a.size)),
    "neuron": ("neuron", lambda a: (np.indices(a.shape) == [[[3]], [[3]]]).all(0).astype(float)),
    "own": (lambda a: -jnp.sum((a - 1.0) ** 2), lambda a: -2 * (a - 1.0)),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_equals_adam_written_by_hand(name):
    """PyTorch's Adam: the weight decay is added to the gradient of the loss, -objective."""
    objective, derivative = OBJECTIVES[name]
    classifier, shape = convolution(), (8, 8, 3)
    layer = classifier.variables["params"]["conv"]
    kernel, bias = np.float64(layer["kernel"][..., 2]), float(layer["bias"][2])
    rate, decay, steps = 0.1, 0.3, 30
    z, first, second = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for t in range(1, steps + 1):
        upstream = derivative(numpy_convolution(z, kernel, bias))
        gradient = -numpy_convolution_gradient(upstream, kernel) + decay * z
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        z -= rate * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
    image = maximize(
        classifier,
        "conv",
        2,
        key=KEY,
        image_shape=shape,
        weight_decay=decay,
        objective=objective,
        parameterization=Pixel(scale=0.0),
    )
    np.testing.assert_allclose(image, np.array(MEAN) + np.array(STD) * z, atol=2e-4)


def test_defaults_are_the_papers():
    assert feature_visualization.complete_options(SHAPE) == {
        "steps": 30,
        "learning_rate": 0.1,
        "weight_decay": 1e-6,
        "objective": "sum",
        "parameterization": Pixel(scale=0.01),
        "transformations": (),
    }
    # Where the gradient never changes, each of Adam's steps has the length of the learning rate.
    image = maximize(convolution(), "conv", 0, key=KEY, image_shape=SHAPE)
    moved = np.abs((np.float64(image) - MEAN) / STD)
    np.testing.assert_allclose(moved, 30 * 0.1, atol=0.0101)


def test_start_is_uniform_in_normalised_space():
    images = maximize(
        convolution(), "conv", [0, 1], key=KEY, image_shape=(64, 64, 3), learning_rate=0.0
    )
    start = (np.float64(images) - MEAN) / STD
    assert 0.0099 < np.abs(start).max() < 0.010001
    np.testing.assert_allclose(start.std((0, 1, 2)), 0.01 / np.sqrt(3), rtol=0.03)
    assert np.abs(start[0] - start[1]).max() > 0.01


def test_alone_together_and_in_chunks_the_same():
    classifier, channels = convolution(), np.array([3, 0, 2, 3, 1])
    options = {"image_shape": SHAPE, "steps": 5}
    together = maximize(classifier, 1, channels, key=KEY, **options)
    assert together.shape == (5, *SHAPE)
    assert together.dtype == jnp.float32
    keys = jax.random.split(KEY, 5)
    for i in (0, 3):
        alone = maximize(classifier, 1, channels[i], key=keys[i], **options)
        assert alone.shape == SHAPE
        np.testing.assert_allclose(alone, together[i], atol=1e-5)
    assert np.abs(together[0] - together[3]).max() > 1e-4  # one channel from two keys
    for batch_size in (1, 2, None):
        chunked = maximize(classifier, 1, channels, key=keys, batch_size=batch_size, **options)
        np.testing.assert_allclose(chunked, together, atol=1e-5)


def test_alone_and_in_chunks_the_same_with_transformations():
    classifier = convolution()
    options = {"image_shape": SHAPE, "parameterization": "fourier", "steps": 5}
    options |= {"transformations": (Jitter(2),)}
    chunked = maximize(classifier, 1, [3, 1, 2], key=KEY, batch_size=2, **options)
    alone = maximize(classifier, 1, 1, key=jax.random.split(KEY, 3)[1], **options)
    assert_equal_to_rounding(chunked[1], alone, 1e-4, share=0.99)


def test_other_channels_keys_weights_and_rates_compile_nothing():
    options = {"image_shape": SHAPE, "steps": 3}
    first = tiny()
    second = first.replace(variables=jax.tree.map(lambda leaf: -leaf, first.variables))
    before = maximize(first, 1, [0, 1], key=KEY, learning_rate=0.1, **options)
    compiled = activation_maximization._ascend._cache_size()
    maximize(first, "Conv_0", [7, 3], key=jax.random.key(9), learning_rate=0.1, **options)
    after = maximize(second, 1, [0, 1], key=KEY, learning_rate=0.1, **options)
    maximize(first, 1, [0, 1], key=KEY, learning_rate=0.2, parameterization="pixel", **options)
    maximize(first, 1, [0, 1], key=KEY, batch_size=2, **(options | {"steps": 9}))
    assert activation_maximization._ascend._cache_size() == compiled
    assert np.abs(before - after).max() > 0.01  # so the weights are no constants of the program


@pytest.mark.parametrize("style", ["paper", "regularized"])
def test_the_channel_becomes_active(style):
    classifier, steps = tiny(), 30
    images = maximize(
        classifier, "Conv_1", jnp.arange(16), key=KEY, image_shape=SHAPE, style=style, steps=steps
    )
    starts = maximize(
        classifier,
        "Conv_1",
        jnp.arange(16),
        key=KEY,
        image_shape=SHAPE,
        style=style,
        steps=1,
        learning_rate=0.0,
    )
    reached, before = (
        np.asarray(classifier.activations(x, layers=["Conv_1"])["Conv_1"]).sum((1, 2))
        for x in (images, starts)
    )
    own, others = reached[range(16), range(16)], reached.mean(0)
    assert np.all(own > before[range(16), range(16)] + 1)
    assert np.all(own > others)
    if style == "regularized":
        assert images.min() >= 0
        assert images.max() <= 1


def test_the_papers_number_of_a_convolution():
    classifier = drawn(models.create("resnet8_small", num_classes=5, width=4))
    names = classifier.conv_layers(SHAPE)
    options = {"key": KEY, "image_shape": SHAPE, "steps": 3}
    by_number = maximize(classifier, 5, 1, **options)
    np.testing.assert_array_equal(by_number, maximize(classifier, names[4], 1, **options))
    assert np.abs(by_number - maximize(classifier, names[3], 1, **options)).max() > 0.01


class Network(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 6, (3, 3), rngs=rngs)
        self.head = nnx.Linear(6, 5, rngs=rngs)

    def __call__(self, image):
        return self.head(nnx.relu(self.conv(image)).mean((-3, -2)))


# Logit i is how bright rows 3i to 3i + 2 are, beside the image.
BANDS = jnp.repeat(jnp.eye(5, 16), 3, axis=1)[:, :16].repeat(48, axis=1) / 144 - 1 / 768

FOREIGN = {
    "linen": tiny,
    "nnx": lambda: Network(nnx.Rngs(0)),
    "function": lambda: lambda image: BANDS @ image.reshape(-1),
    "partial": lambda: jax.tree_util.Partial(lambda w, image: w @ image.reshape(-1), BANDS),
    "batched": lambda: as_classifier(
        lambda w, x: x.reshape(len(x), -1) @ w.T, BANDS, batched=True, mean=MEAN, std=STD
    ),
}


@pytest.mark.parametrize(
    ("kind", "style"),
    # Of the regularised style one classifier that knows its mean and one that does not.
    [(kind, "paper") for kind in FOREIGN] + [("linen", "regularized"), ("nnx", "regularized")],
)
def test_logits_of_any_classifier(kind, style):
    classifier = FOREIGN[kind]()
    known = kind in ("linen", "batched")
    normalization = {} if known or style != "paper" else {"mean": MEAN, "std": STD}
    images = maximize(
        classifier,
        "logits",
        jnp.arange(5),
        key=KEY,
        image_shape=SHAPE,
        style=style,
        steps=20,
        transformations=(Jitter(1),) if style == "regularized" else (),
        **normalization,
    )
    logits = np.asarray(jax.vmap(classifier)(images))
    assert np.all(np.diag(logits) > logits.mean(0))


def test_layer_as_a_function():
    network = Network(nnx.Rngs(0))
    channels = jnp.arange(6)

    def first(network, image):
        return network.conv(image)

    images = maximize(
        network, first, channels, key=KEY, image_shape=SHAPE, mean=(0.5,), std=(0.25,)
    )
    sums = np.asarray(network.conv(images)).sum((1, 2))
    assert np.all(np.diag(sums) > sums.mean(0))
    with pytest.raises(ValueError, match=r"channels must lie in \[0, 6\).*got 6"):
        maximize(network, first, 6, key=KEY, image_shape=SHAPE, mean=(0.5,), std=(0.25,))


def test_under_jit_and_vmap_of_the_users():
    classifier = tiny()

    def image_of(classifier, channel):
        return maximize(classifier, "Conv_0", channel, key=KEY, image_shape=SHAPE, steps=3)

    expected = maximize(
        classifier, "Conv_0", [1, 4], key=jnp.stack([KEY, KEY]), image_shape=SHAPE, steps=3
    )
    mapped = jax.jit(jax.vmap(image_of, in_axes=(None, 0)))(classifier, jnp.array([1, 4]))
    np.testing.assert_allclose(mapped, expected, atol=1e-4)


def test_fourier_image_equals_sums_of_waves():
    """The synthesis by its definition: cosines and sines of all frequencies, one by one."""
    shape = (4, 6, 3)
    matrix = np.array([[0.5, 0.1, 0.0], [0.4, 0.0, 0.2], [0.3, -0.1, 0.1]])
    parameters = np.float64(jax.random.normal(KEY, (2, 4, 4, 3)))
    values = np.zeros(shape)
    rows, columns = np.indices(shape[:2])
    for i, down in enumerate([0, 1, 2, -1]):
        for across in range(4):
            frequency = np.hypot(down / 4, across / 6)
            amplitude = max(frequency, 1 / 6) ** -1.5 / np.sqrt(24) / 4
            angle = 2 * np.pi * (down * rows / 4 + across * columns / 6)
            # All but the first and the last column stand for their conjugates as well.
            twice = 2 if 0 < across < 3 else 1
            wave = np.cos(angle)[..., None] * parameters[0, i, across]
            wave -= np.sin(angle)[..., None] * parameters[1, i, across]
            values += twice * amplitude * wave
    colors = matrix / np.sqrt((matrix**2).sum(0)).max()
    expected = 1 / (1 + np.exp(-np.einsum("ij,hwj->hwi", colors, values)))
    image = Fourier(decay=1.5, color_correlation=matrix).image(jnp.float32(parameters), shape)
    np.testing.assert_allclose(image, expected, atol=1e-5)


def test_fourier_start_and_other_channels():
    start = Fourier(scale=0.1).init(KEY, (32, 32, 3))
    np.testing.assert_allclose(np.std(start), 0.1, rtol=0.05)
    for shape in ((9, 7, 1), (9, 7, 4)):
        start = jax.eval_shape(functools.partial(Fourier().init, image_shape=shape), KEY)
        image = jax.eval_shape(functools.partial(Fourier().image, image_shape=shape), start)
        assert image.shape == shape
    with pytest.raises(ValueError, match=r"color_correlation must be \(4, 4\)"):
        Fourier(color_correlation=np.eye(3)).image(jnp.zeros((2, 9, 4, 4)), (9, 7, 4))


def test_color_correlation_is_a_root_of_the_covariance():
    images = np.float32(np.random.default_rng(0).uniform(size=(4, 8, 8, 3)))
    images[..., 1] = 0.5 * images[..., 0] + 0.2
    root = np.array(feature_visualization.color_correlation(images))
    np.testing.assert_allclose(root @ root.T, np.cov(images.reshape(-1, 3).T, bias=True), atol=1e-7)
    lengths = np.linalg.norm(root, axis=0)
    assert lengths[0] > lengths[1] > lengths[2]
    assert hash(Fourier(color_correlation=root)) == hash(Fourier(color_correlation=root.tolist()))


@pytest.mark.parametrize("fill", [None, 0.25])
def test_jitter_shifts_by_every_amount(fill):
    image = jax.random.uniform(KEY, (6, 5, 2))
    border = [(2, 2), (2, 2), (0, 0)]
    if fill is None:
        padded = np.pad(image, border, mode="wrap")
    else:
        padded = np.pad(image, border, constant_values=fill)
    shifts = {(y, x): padded[y : y + 6, x : x + 5] for y in range(5) for x in range(5)}
    seen = set()
    jitter = jax.jit(Jitter(2, fill=fill))
    for key in jax.random.split(KEY, 200):
        result = np.asarray(jitter(key, image))
        seen |= {shift for shift, expected in shifts.items() if np.array_equal(result, expected)}
    assert seen == set(shifts)


@pytest.mark.parametrize("fill", [None, 0.5])
@pytest.mark.parametrize(("height", "width"), [(9, 9), (8, 11)])
def test_scale_and_rotation_equal_scipy(height, width, fill):
    image = jax.random.uniform(KEY, (height, width, 2))
    center = (np.array([height, width]) - 1) / 2
    factor = float(jax.random.uniform(KEY, minval=0.6, maxval=1.5))
    degrees = float(jax.random.uniform(KEY, minval=-30.0, maxval=30.0))
    turn = np.deg2rad(degrees)
    cases = (
        (RandomScale(0.6, 1.5, fill), np.eye(2) / factor),
        (RandomRotate(30.0, fill), [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]),
    )
    for transformation, matrix in cases:
        expected = np.stack(
            [
                scipy.ndimage.affine_transform(
                    np.float64(image[..., c]),
                    matrix,
                    center - np.array(matrix) @ center,
                    order=1,
                    mode="grid-wrap" if fill is None else "grid-constant",
                    cval=fill or 0.0,
                )
                for c in range(2)
            ],
            -1,
        )
        np.testing.assert_allclose(transformation(KEY, image), expected, atol=1e-5)
    for transformation in (RandomScale(1.0, 1.0), RandomRotate(1e-6)):
        np.testing.assert_allclose(transformation(KEY, image), image, atol=1e-5)


@dataclasses.dataclass(frozen=True)
class Recorder:
    seen: tuple = ()
    log = []  # noqa: RUF012

    def __call__(self, key, image):
        jax.debug.callback(
            lambda data: self.log.append(np.asarray(data).tobytes()), jax.random.key_data(key)
        )
        return image


def test_each_step_and_transformation_has_its_own_key():
    Recorder.log.clear()
    options = {"image_shape": SHAPE, "steps": 4, "transformations": (Recorder(), Recorder())}
    maximize(tiny(), 1, [0, 1, 2], key=KEY, **options).block_until_ready()
    jax.effects_barrier()
    assert len(set(Recorder.log)) == 4 * 2 * 3


@functools.partial(jax.jit, static_argnums=2)
def batch_norm_outputs(classifier, images, name):
    _, state = classifier.model.apply(
        classifier.variables,
        images,
        capture_intermediates=lambda module, _: module.name == name,
        mutable=["intermediates"],
    )
    return state["intermediates"][name]["__call__"][0]


FIRST_LAYERS = {
    "tiny": (lambda: TinyNetwork(num_classes=5), "BatchNorm_0", (3, 3), 2, "SAME"),
    "resnet8_small": (
        lambda: models.create("resnet8_small", num_classes=5),
        "bn1",
        (3, 3),
        1,
        [(1, 1)] * 2,
    ),
    "alexnet": (
        lambda: models.create("alexnet", num_classes=5, hidden=8),
        "bn1",
        (11, 11),
        4,
        [(2, 2)] * 2,
    ),
}


@pytest.mark.parametrize("name", FIRST_LAYERS)
def test_first_layer_filters_with_batch_norm_folded_in(name):
    """A convolution with the folded filters is BatchNorm of the layer, but for its constant."""
    create, norm, size, stride, padding = FIRST_LAYERS[name]
    model, shape = create(), (64, 64, 3)
    classifier = drawn(model, shape)
    filters = feature_visualization.first_layer_filters(classifier, shape, fold_batch_norm=True)
    assert filters.shape[1:] == (*size, 3)
    raw = feature_visualization.first_layer_filters(classifier, shape)
    layer = classifier.variables["params"][classifier.conv_layers(shape)[0]]
    np.testing.assert_array_equal(raw, np.moveaxis(layer["kernel"], -1, 0))
    images = jax.random.uniform(KEY, (2, *shape))
    outputs = batch_norm_outputs(classifier, images, norm)
    difference = (images[:1] - images[1:]) / jnp.array(model.std)
    expected = jax.lax.conv_general_dilated(
        difference,
        jnp.moveaxis(filters, 0, -1),
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    np.testing.assert_allclose(outputs[:1] - outputs[1:], expected, atol=1e-3)


class NormAfterRelu(nn.Module):
    @nn.compact
    def __call__(self, images, *, train=False):
        features = nn.relu(nn.Conv(4, (3, 3))(images))
        return nn.BatchNorm(use_running_average=not train)(features).mean((1, 2))


class Dense(nn.Module):
    @nn.compact
    def __call__(self, images, *, train=False):
        return nn.Dense(5)(images.reshape(len(images), -1))


def test_first_layer_filters_that_there_are_not():
    filters = feature_visualization.first_layer_filters
    with pytest.raises(TypeError, match="classifier must be a Classifier"):
        filters(lambda image: image, SHAPE)
    with pytest.raises(ValueError, match="classifier must have a convolution, Dense has none"):
        filters(drawn(Dense()), SHAPE)
    for classifier in (convolution(), drawn(NormAfterRelu())):
        assert filters(classifier, SHAPE).shape == (4, 3, 3, 3)
        with pytest.raises(ValueError, match="fold_batch_norm needs a BatchNorm directly after"):
            filters(classifier, SHAPE, fold_batch_norm=True)


BAD_INPUT = {
    "channel too large": (dict(channels=16), ValueError, r"channels must lie in \[0, 16\).*got 16"),
    "negative channel": (dict(channels=[0, -2]), ValueError, "got -2"),
    "float channel": (dict(channels=1.0), TypeError, "channels must be integers, got 1.0"),
    "bool channel": (dict(channels=True), TypeError, "channels must be integers"),
    "no channel": (dict(channels=np.zeros(0, int)), ValueError, r"got shape \(0,\)"),
    "channels of rank 2": (dict(channels=[[0, 1]]), ValueError, r"got shape \(1, 2\)"),
    "class": (dict(layer="logits", channels=5), ValueError, r"channels must lie in \[0, 5\)"),
    "layer": (dict(layer="Conv_11"), ValueError, r"\(did you mean 'Conv_1' or 'Conv_0'\?\)"),
    "conv 0": (dict(layer=0), ValueError, "number of a convolution from 1 to 2, got 0"),
    "conv 3": (dict(layer=3), ValueError, "number of a convolution from 1 to 2, got 3"),
    "layer of no kind": (dict(layer=1.0), TypeError, "layer must be a name, the number"),
    "layer function": (
        dict(layer=lambda classifier, image: image.sum()),
        ValueError,
        "layer must return activations with the channels last",
    ),
    "zero steps": (dict(steps=0), ValueError, "steps must be a whole number of at least 1, got 0"),
    "float steps": (dict(steps=2.0), ValueError, "steps must be a whole number"),
    "rate": (dict(learning_rate=-0.1), ValueError, "learning_rate must be a finite number"),
    "decay": (dict(weight_decay=float("nan")), ValueError, "weight_decay must be a finite number"),
    "shape": (dict(image_shape=(16, 16)), ValueError, r"image_shape must be .* got \(16, 16\)"),
    "float shape": (dict(image_shape=(16.0, 16, 3)), ValueError, "image_shape must be"),
    "empty shape": (dict(image_shape=(0, 16, 3)), ValueError, "image_shape must be"),
    "one number": (dict(image_shape=16), ValueError, "image_shape must be .* got 16"),
    "other channels": (
        dict(image_shape=(16, 16, 4)),
        ValueError,
        "one value for each of the 4 channels of image_shape",
    ),
    "style": (dict(style="lucid"), ValueError, "style must be one of paper, regularized"),
    "objective": (dict(objective="max"), ValueError, "objective must be a function or one of"),
    "parameterization": (dict(parameterization="fft"), ValueError, "one of pixel, fourier, got"),
    "parameterization class": (dict(parameterization=Pixel), TypeError, "methods init and image"),
    "transformation": (dict(transformations=(3,)), TypeError, "sequence of functions of"),
    "transformation alone": (dict(transformations=Jitter), TypeError, "sequence of functions of"),
    "no key": (dict(key=None), ValueError, "key must be given"),
    "keys": (
        dict(key=jax.random.split(KEY, 3), channels=[0, 1]),
        ValueError,
        r"key must be one key, or one for each of 2 \w+, got shape \(3,\)",
    ),
    "batch size": (dict(batch_size=0), ValueError, "batch_size must be a whole number"),
    "mean alone": (dict(mean=(0.5,)), ValueError, "mean and std go together"),
    "std": (dict(mean=(0.5,), std=(0.0,)), ValueError, "std must be positive"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(case):
    options, error, message = BAD_INPUT[case]
    options = dict(layer="Conv_1", channels=0, key=KEY, image_shape=SHAPE, steps=2) | options
    layer, channels = options.pop("layer"), options.pop("channels")
    with pytest.raises(error, match=message):
        maximize(tiny(), layer, channels, **options)


def test_bad_classifiers():
    options = {"key": KEY, "image_shape": SHAPE}
    with pytest.raises(ValueError, match="needs mean and std, which the classifier does not have"):
        maximize(lambda image: image.mean((0, 1)), "logits", 0, **options)
    options |= {"style": "regularized"}
    with pytest.raises(TypeError, match="whose layers have no names, got 'conv1'"):
        maximize(lambda image: image.mean((0, 1)), "conv1", 0, **options)
    with pytest.raises(TypeError, match="classifier must be a function"):
        maximize(3, "logits", 0, **options)
    with pytest.raises(ValueError, match=r"logits of shape \(classes,\), got \(16, 16, 3\)"):
        maximize(lambda image: image, "logits", 0, **options)


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda: Pixel(scale=-1.0), "scale must be a finite number of at least 0"),
        (lambda: Fourier(decay=float("nan")), "decay must be a finite number"),
        (lambda: Fourier(color_correlation="cifar"), "color_correlation must be a square matrix"),
        (lambda: Fourier(color_correlation=np.ones((3, 2))), "must be a square matrix"),
        (lambda: Jitter(0), "pixels must be a whole number of at least 1, got 0"),
        (lambda: Jitter(1.5), "pixels must be a whole number"),
        (lambda: RandomScale(1.1, 0.9), "factors above 0 in order, got 1.1 and 0.9"),
        (lambda: RandomScale(0.0, 1.0), "factors above 0 in order"),
        (lambda: RandomRotate(0.0), "degrees must be above 0"),
        (
            lambda: feature_visualization.color_correlation(np.full((4, 4, 3), 0.5)),
            "images must have more than one colour",
        ),
        (lambda: feature_visualization.complete_options(SHAPE, rate=1.0), "'rate' is no option"),
    ],
)
def test_bad_pieces(create, message):
    with pytest.raises(ValueError, match=message):
        create()
