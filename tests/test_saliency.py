import dataclasses
import functools
import itertools
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from jaxrobust import Classifier, as_classifier, models, saliency
from jaxrobust.core import cpu_compiler
from jaxrobust.core.checks import BATCH_AXIS
from jaxrobust.guided import guided
from tests.tiny import TinyNetwork, assert_equal_to_rounding, drawn_variables

# ------------------------------------------------------- a network small enough to do by hand

SHAPE = (3, 4, 2)
RNG = np.random.default_rng(0)
SIZES = [int(np.prod(SHAPE)), 7, 6, 4]
WEIGHTS = [RNG.standard_normal(size) for size in itertools.pairwise(SIZES)]
BIASES = [0.3 * RNG.standard_normal(size) for size in SIZES[1:]]
MEAN, STD = (0.4, 0.6), (0.2, 0.3)
IMAGES = RNG.uniform(size=(5, *SHAPE)).astype(np.float32)
LABELS = np.array([0, 1, 2, 3, 1])
KEY = jax.random.key(7)


@functools.cache
def perceptron():
    """One object for all tests, so that its programs are compiled once."""

    def apply(weights, image):
        hidden = image.reshape(-1)
        for matrix, bias in weights[:-1]:
            hidden = jax.nn.relu(hidden @ matrix + bias)
        return hidden @ weights[-1][0] + weights[-1][1]

    weights = [
        (jnp.float32(matrix), jnp.float32(bias))
        for matrix, bias in zip(WEIGHTS, BIASES, strict=True)
    ]
    return as_classifier(apply, weights, mean=MEAN, std=STD)


def by_hand(image, wanted, rule="vanilla"):
    """Logits of one image and the gradient of `wanted(logits)`, layer by layer in NumPy.

    Args:
      wanted: from the logits to the gradient of the quantity with respect to them.
      rule: of the backward pass through a ReLU, "vanilla" or "guided".
    """
    signal = ((np.float64(image) - MEAN) / STD).reshape(-1)
    inputs = []
    for matrix, bias in zip(WEIGHTS[:-1], BIASES[:-1], strict=True):
        inputs.append(signal @ matrix + bias)
        signal = np.maximum(inputs[-1], 0)
    logits = signal @ WEIGHTS[-1] + BIASES[-1]
    gradient = WEIGHTS[-1] @ wanted(logits)
    for unit, matrix in zip(inputs[::-1], WEIGHTS[-2::-1], strict=True):
        passes = unit > 0
        if rule == "guided":
            passes = passes & (gradient > 0)
        gradient = matrix @ (gradient * passes)
    return logits, gradient.reshape(SHAPE) / STD


def one_hot(label):
    return lambda logits: np.eye(len(logits))[label]


def vanilla_by_hand(image, label, key=None):
    return by_hand(image, one_hot(label))[1]


def loss_by_hand(image, label, key=None):
    def wanted(logits):
        probabilities = np.exp(logits - logits.max())
        return probabilities / probabilities.sum() - np.eye(len(logits))[label]

    return by_hand(image, wanted)[1]


def guided_by_hand(image, label, key=None):
    return by_hand(image, one_hot(label), "guided")[1]


def input_by_hand(image, label, key=None):
    return image * vanilla_by_hand(image, label)


def noisy_maps(image, label, key, level, samples, method=vanilla_by_hand):
    deviation = level * (image.max() - image.min())
    noises = [jax.random.normal(jax.random.fold_in(key, s), SHAPE) for s in range(samples)]
    return np.array([method(image + deviation * np.float64(noise), label) for noise in noises])


def path_maps(image, label, nodes, baseline):
    return [vanilla_by_hand(baseline + t * (image - baseline), label) for t in nodes]


def integrated_by_hand(image, label, key=None):
    return np.mean(path_maps(image, label, (np.arange(50) + 0.5) / 50, np.array(MEAN)), axis=0)


CASES = {
    "vanilla_gradient": (saliency.vanilla_gradient, vanilla_by_hand),
    "loss_gradient": (saliency.loss_gradient, loss_by_hand),
    "guided_backprop": (saliency.guided_backprop, guided_by_hand),
    "input_times_gradient": (saliency.input_times_gradient, input_by_hand),
    "smoothgrad": (
        saliency.smoothgrad,
        lambda image, label, key: noisy_maps(image, label, key, 0.2, 50).mean(0),
    ),
    "smoothgrad of guided_backprop": (
        functools.partial(
            saliency.smoothgrad, noise_level=0.5, samples=5, method=saliency.guided_backprop
        ),
        lambda image, label, key: noisy_maps(image, label, key, 0.5, 5, guided_by_hand).mean(0),
    ),
    "smoothgrad squared": (
        functools.partial(saliency.smoothgrad, samples=7, statistic="mean_square"),
        lambda image, label, key: (noisy_maps(image, label, key, 0.2, 7) ** 2).mean(0),
    ),
    "vargrad": (
        functools.partial(saliency.smoothgrad, samples=7, statistic="variance"),
        lambda image, label, key: noisy_maps(image, label, key, 0.2, 7).var(0),
    ),
    "integrated_gradients": (saliency.integrated_gradients, integrated_by_hand),
    "integrated_gradients of the authors": (
        functools.partial(saliency.integrated_gradients, rule="left", steps=6, baseline=0.0),
        lambda image, label, key: np.mean(path_maps(image, label, np.arange(6) / 6, 0.0), axis=0),
    ),
    "integrated_gradients, standard": (
        functools.partial(
            saliency.integrated_gradients,
            rule="right",
            steps=4,
            baseline=np.float32([1.0, 0.0]),
            multiply_by_input=True,
        ),
        lambda image, label, key: (
            (image - [1.0, 0.0])
            * np.mean(path_maps(image, label, np.arange(1, 5) / 4, np.array([1.0, 0.0])), axis=0)
        ),
    ),
    "integrated_gradients, trapezoid": (
        functools.partial(
            saliency.integrated_gradients, rule="trapezoid", steps=4, baseline=IMAGES[0]
        ),
        lambda image, label, key: np.average(
            path_maps(image, label, np.arange(4) / 3, np.float64(IMAGES[0])),
            axis=0,
            weights=[0.5, 1, 1, 0.5],
        ),
    ),
}
TAKES_KEY = [name for name in CASES if "smooth" in name or name == "vargrad"]
# One case of each method: batches and the user's jit and vmap know nothing of the options.
METHODS = [name for name in CASES if name in saliency.__all__]


@pytest.mark.parametrize(
    ("name", "how"),
    [(name, "plain") for name in CASES] + [(n, how) for n in METHODS for how in ("jit", "vmap")],
)
def test_every_method_equals_a_calculation_by_hand(name, how):
    method, hand = CASES[name]

    def maps(images, labels):
        options = {"key": KEY} if name in TAKES_KEY else {}
        return method(perceptron(), images, labels, **options)

    keys = jax.random.split(KEY, len(IMAGES))
    if how == "jit":
        maps = jax.jit(maps)
    if how == "vmap":  # each image alone, all with the one key
        maps, keys = jax.vmap(maps), [KEY] * len(IMAGES)
    expected = [hand(*case) for case in zip(IMAGES, LABELS, keys, strict=True)]
    np.testing.assert_allclose(maps(IMAGES, LABELS), expected, rtol=2e-4, atol=2e-5)


def test_guided_and_vanilla_differ_in_the_network_by_hand():
    vanilla, guidance = (
        [hand(image, label) for image, label in zip(IMAGES, LABELS, strict=True)]
        for hand in (vanilla_by_hand, guided_by_hand)
    )
    assert not np.allclose(vanilla, guidance, atol=0.1)


@pytest.mark.parametrize("name", METHODS)
def test_an_image_alone_gets_its_map_in_the_batch(name):
    method = CASES[name][0]
    keyed = name in TAKES_KEY
    maps = method(perceptron(), IMAGES, LABELS, **({"key": KEY} if keyed else {}))
    alone = {"key": jax.random.split(KEY, len(IMAGES))[3]} if keyed else {}
    assert_equal_to_rounding(method(perceptron(), IMAGES[3], LABELS[3], **alone), maps[3])


def test_gauss_legendre_is_exact_for_polynomials():
    """n nodes integrate a gradient of degree 2n - 1 exactly: here t^5 with three."""
    classifier = lambda image: jnp.stack([(image**6).sum(), image.sum()])  # noqa: E731
    image = np.full((1, 1, 2), 0.75, np.float32)
    found = saliency.integrated_gradients(
        classifier, image, 0, baseline=0.0, steps=3, rule="gauss_legendre"
    )
    np.testing.assert_allclose(found, 0.75**5, rtol=1e-6)


# --------------------------------------------------------------------------------- invariants


@functools.cache
def tiny():
    model = TinyNetwork(num_classes=5)
    return Classifier(model, drawn_variables(model, (16, 16, 3)))


PICTURES = jax.random.uniform(jax.random.key(1), (8, 16, 16, 3))
CLASSES = jnp.arange(8) % 5


@pytest.mark.parametrize("baseline", [None, 0.0, 1.0])
def test_standard_integrated_gradients_are_complete(baseline):
    maps, finer = (
        saliency.integrated_gradients(
            tiny(), PICTURES, CLASSES, baseline=baseline, steps=steps, multiply_by_input=True
        )
        for steps in (50, 2000)
    )
    start = jnp.broadcast_to(
        jnp.array(tiny().mean) if baseline is None else baseline, PICTURES.shape
    )
    rows = jnp.arange(len(PICTURES))
    expected = (tiny()(PICTURES) - tiny()(start))[rows, CLASSES]
    np.testing.assert_allclose(maps.sum((1, 2, 3)), expected, atol=0.01 * np.abs(expected).max())
    np.testing.assert_allclose(finer.sum((1, 2, 3)), expected, rtol=0.01)


def test_smoothgrad_without_noise_is_the_vanilla_gradient():
    found = saliency.smoothgrad(tiny(), PICTURES, CLASSES, key=KEY, noise_level=0.0, samples=10)
    expected = saliency.vanilla_gradient(tiny(), PICTURES, CLASSES)
    assert_equal_to_rounding(found, expected, share=0.99)


SAMPLED = {
    "smoothgrad": functools.partial(saliency.smoothgrad, key=KEY, samples=10),
    "variance": functools.partial(saliency.smoothgrad, key=KEY, samples=10, statistic="variance"),
    "integrated_gradients": functools.partial(saliency.integrated_gradients, steps=10),
    "vanilla_gradient": saliency.vanilla_gradient,
    "guided_grad_cam": saliency.guided_grad_cam,
}


CUTS = [(1, 1), (7, 1), (25, 1), (3, 8), (1000, 8)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "batch_size", "devices"),
    # The variance differs from the mean only where the samples of one image are cut apart.
    [
        (name, *cut)
        for name in SAMPLED
        for cut in (CUTS if name != "variance" else [(7, 1), (3, 8)])
    ],
)
def test_batch_size_and_devices_do_not_change_the_maps(name, batch_size, devices):
    expected = SAMPLED[name](tiny(), PICTURES, CLASSES)
    images, labels = PICTURES, CLASSES
    if devices > 1:
        mesh = jax.make_mesh((devices,), ("data",), (jax.sharding.AxisType.Auto,))
        sharding = NamedSharding(mesh, PartitionSpec("data"))
        images, labels = jax.device_put((images, labels), sharding)
    found = SAMPLED[name](tiny(), images, labels, batch_size=batch_size)
    if devices > 1:
        assert found.sharding.is_equivalent_to(sharding, found.ndim)
    assert_equal_to_rounding(found, expected, share=0.99)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smoothgrad", "integrated_gradients"])
def test_a_thousand_images_of_50_samples_fit_into_6_gib(name):
    model = models.create("resnet50", num_classes=1000)
    classifier = jax.eval_shape(
        lambda key: Classifier.init(key, model, (224, 224, 3)), jax.random.key(0)
    )
    options = {"key": KEY} if name == "smoothgrad" else {}
    program = jax.jit(
        lambda classifier, images, labels: getattr(saliency, name)(
            classifier, images, labels, **options
        )
    ).lower(
        classifier,
        jax.ShapeDtypeStruct((1000, 224, 224, 3), jnp.float32),
        jax.ShapeDtypeStruct((1000,), jnp.int32),
    )
    # What is allocated is decided before the code is optimised, which would take as long again.
    unoptimised = {"xla_backend_optimization_level": 0}
    memory = program.compile(compiler_options=unoptimised).memory_analysis()
    total = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    assert total < 6 * 2**30


@pytest.mark.parametrize("name", [*SAMPLED, "grad_cam"])
def test_a_second_call_compiles_nothing(name):
    method = SAMPLED.get(name, saliency.grad_cam)
    other, images, labels = jax.tree.map(
        lambda leaf: leaf + 0, (tiny(), 1 - PICTURES, (CLASSES + 1) % 5)
    )
    method(tiny(), PICTURES, CLASSES)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    method(other, images, labels)
    jax.monitoring.clear_event_listeners()
    assert compiled == []


class NNXNetwork(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.convolution = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.head = nnx.Linear(4, 5, rngs=rngs)

    def __call__(self, image):
        return self.head(nnx.relu(self.convolution(image)).mean((-3, -2)))


@functools.cache
def everything():
    """One classifier of every kind that users bring."""
    model = TinyNetwork(num_classes=5)
    variables = drawn_variables(model, (16, 16, 3))
    weights = jax.random.normal(jax.random.key(0), (3, 5))

    def apply(weights, image):
        return jax.nn.relu(image - 0.5).mean((0, 1)) @ weights

    return {
        "linen": tiny(),
        "nnx": NNXNetwork(),
        "partial": jax.tree_util.Partial(apply, weights),
        "function": lambda image: apply(weights, image),
        "batched": as_classifier(
            lambda variables, images: model.apply(variables, images), variables, batched=True
        ),
    }


@pytest.mark.parametrize("kind", everything())
def test_every_method_works_on_every_kind_of_classifier(kind):
    classifier = everything()[kind]
    for name in saliency.__all__:
        if name == "PAPER_METHODS":
            continue
        options = {"key": KEY, "samples": 2} if name == "smoothgrad" else {}
        if name == "integrated_gradients":
            options = {"steps": 2, "baseline": 0.0}
        maps = getattr(saliency, name)(classifier, PICTURES[:2], CLASSES[:2], **options)
        assert maps.shape == (2, 16, 16, 3)
        assert np.all(np.isfinite(maps)), name
        assert np.any(maps != 0), name


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class WithFlags:
    """As Equinox has its modules: functions and flags among the leaves."""

    weights: jax.Array
    activation: object = jax.nn.relu
    scale: float = 0.0

    def __call__(self, image):
        features = self.activation(image - 0.5).mean((0, 1)) @ self.weights
        return features if self.scale == 0.0 else features * self.scale


class WithTransforms(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.first = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.second = nnx.Conv(4, 4, (3, 3), rngs=rngs)
        self.head = nnx.Linear(4, 5, rngs=rngs)

    def __call__(self, image):
        features = nnx.remat(lambda module, x: nnx.relu(module(x)))(self.first, image)
        features = nnx.jit(lambda module, x: nnx.relu(module(x)))(self.second, features)
        return self.head(features.mean((-3, -2)))


@pytest.mark.parametrize("kind", [WithFlags, WithTransforms])
def test_classifiers_that_are_more_than_arrays(kind):
    network = kind() if kind is WithTransforms else kind(jnp.arange(15.0).reshape(3, 5) - 7)
    definition = jax.tree.structure(network)
    leaves = jax.tree.leaves(network)

    def logit(image):
        return jax.tree.unflatten(definition, leaves)(image)[2]

    expected = jax.grad(logit)(PICTURES[0])
    found = saliency.vanilla_gradient(network, PICTURES[0], 2)
    assert_equal_to_rounding(found, expected, share=0.99)
    for method in (saliency.guided_backprop, saliency.grad_cam):
        assert np.any(method(network, PICTURES[:2], CLASSES[:2]) != 0)


def test_statistics_across_the_images_work_for_one_image():
    def centered(image):
        pixels = image.mean((0, 1))
        return pixels + jax.lax.pmean(pixels, BATCH_AXIS)

    maps = saliency.vanilla_gradient(centered, PICTURES[0], 1)
    np.testing.assert_allclose(maps.sum((0, 1)), [0, 2, 0], rtol=1e-5)


def test_double_precision():
    with jax.enable_x64(True):
        weights = np.random.default_rng(0).standard_normal((3, 3, 3, 4))

        def classifier(weights, image):
            convolved = jax.lax.conv_general_dilated(
                image[None], weights, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            return jax.nn.relu(convolved).sum((0, 1, 2))

        image = np.random.default_rng(1).uniform(size=(6, 6, 3))
        classifier = jax.tree_util.Partial(classifier, weights)
        for method in (saliency.vanilla_gradient, saliency.grad_cam):
            assert method(classifier, image, 1).dtype == np.float64


def test_guided_is_guided_backprop():
    assert_equal_to_rounding(
        saliency.vanilla_gradient(guided(tiny()), PICTURES, CLASSES),
        saliency.guided_backprop(tiny(), PICTURES, CLASSES),
        share=0.99,
    )
    # and it keeps what integrated gradients ask of a classifier
    maps, plain = (
        saliency.integrated_gradients(classifier, PICTURES, CLASSES, steps=2)
        for classifier in (guided(tiny()), tiny())
    )
    assert np.abs(maps - plain).max() > 0.01 * np.abs(plain).max()


# ----------------------------------------------------------------------------------- Grad-CAM


class TwoBlocks(nn.Module):
    """A network whose Grad-CAM can be written down: the head is linear in the pooled features."""

    @nn.compact
    def __call__(self, images, *, train=False):
        features = nn.relu(nn.Conv(4, (3, 3), strides=2, name="first")(images - 0.5))
        features = jax.checkpoint(nn.relu)(nn.Conv(6, (3, 3), name="second")(features))
        pooled = features.mean((1, 2))
        return nn.Dense(5, name="head")(nn.relu(pooled))


@functools.cache
def two_blocks():
    return Classifier(TwoBlocks(), drawn_variables(TwoBlocks(), (16, 16, 3)))


def test_grad_cam_by_hand():
    classifier = two_blocks()
    convolved = np.asarray(classifier.activations(PICTURES, ["second"])["second"], np.float64)
    features = np.maximum(convolved, 0)
    # The pooled features are not negative, so the second ReLU passes those that are positive.
    head = np.asarray(classifier.variables["params"]["head"]["kernel"])[:, CLASSES].T
    weights = head * (features.mean((1, 2)) > 0) / 64
    expected = np.maximum(np.einsum("nhwk,nk->nhw", features, weights), 0)
    found = saliency.grad_cam(classifier, PICTURES, CLASSES)
    enlarged = jax.image.resize(expected, (8, 16, 16), "bilinear")
    assert_equal_to_rounding(found[..., 0], enlarged)
    np.testing.assert_array_equal(found[..., 0], found[..., 2])
    backprop = saliency.guided_backprop(classifier, PICTURES, CLASSES)
    product = saliency.guided_grad_cam(classifier, PICTURES, CLASSES)
    assert_equal_to_rounding(product, found * backprop)


def test_layers_of_grad_cam_by_name_and_by_position():
    classifier = two_blocks()
    # The name is the convolution, the position its ReLU: another map, unless the features agree.
    by_name = saliency.grad_cam(classifier, PICTURES, CLASSES, layer="second")
    convolved = np.asarray(classifier.activations(PICTURES, ["second"])["second"], np.float64)
    head = np.asarray(classifier.variables["params"]["head"]["kernel"])[:, CLASSES].T
    passes = (np.maximum(convolved, 0).mean((1, 2)) > 0)[:, None, None] * (convolved > 0)
    weights = (head[:, None, None] * passes / 64).mean((1, 2))
    expected = np.maximum(np.einsum("nhwk,nk->nhw", convolved, weights), 0)
    assert_equal_to_rounding(by_name[..., 0], jax.image.resize(expected, (8, 16, 16), "bilinear"))
    last, first = (
        saliency.grad_cam(classifier, PICTURES, CLASSES, layer=layer) for layer in (-1, 0)
    )
    np.testing.assert_array_equal(last, saliency.grad_cam(classifier, PICTURES, CLASSES, layer=1))
    assert np.any(np.asarray(last) != first)


def test_a_residual_network_takes_the_end_of_its_last_block():
    model = models.create("resnet8_small", num_classes=5, width=4)
    classifier = Classifier(model, drawn_variables(model, (16, 16, 3)))
    by_position = saliency.grad_cam(classifier, PICTURES, CLASSES)
    by_name = saliency.grad_cam(classifier, PICTURES, CLASSES, layer="layer3_0")
    assert_equal_to_rounding(by_position, by_name)


class Block(nn.Module):
    @nn.compact
    def __call__(self, features, _=None):
        return nn.relu(nn.Conv(4, (3, 3), name="conv")(features)), None


class Lifted(nn.Module):
    """A stem and a block that is scanned three times or rematerialised."""

    lift: str

    @nn.compact
    def __call__(self, images, *, train=False):
        features = nn.relu(nn.Conv(4, (3, 3), name="stem")(images - 0.5))
        if self.lift == "scan":
            lifted = nn.scan(
                Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3
            )
        else:
            lifted = nn.remat(Block)
        features, _ = lifted(name="block")(features, None)
        return nn.Dense(5)(features.mean((1, 2)))


def test_relus_that_cannot_be_counted_are_not_passed_over():
    def classifier(lift):
        return Classifier(Lifted(lift), drawn_variables(Lifted(lift), (16, 16, 3)))

    with pytest.raises(ValueError, match="1 ReLUs lie inside scan, cond or the like, 1 outside"):
        saliency.grad_cam(classifier("scan"), PICTURES, CLASSES)
    assert np.any(saliency.grad_cam(classifier("scan"), PICTURES, CLASSES, layer=0) != 0)
    last, first = (
        saliency.grad_cam(classifier("remat"), PICTURES, CLASSES, layer=n) for n in (-1, 0)
    )
    assert np.any(last != first)
    with pytest.raises(ValueError, match=r"'block/conv' lies inside a lifted module \(nn.remat"):
        saliency.grad_cam(classifier("remat"), PICTURES, CLASSES, layer="block/conv")


class Repeated(nn.Module):
    """One convolution called twice, and feature maps of a single pixel before the head."""

    @nn.compact
    def __call__(self, images, *, train=False):
        convolution = nn.Conv(3, (3, 3), name="conv")
        features = nn.relu(convolution(nn.relu(convolution(images - 0.5))))
        pooled = nn.relu(features.mean((1, 2), keepdims=True))
        return nn.Dense(5)(pooled.reshape(len(images), -1))


def test_a_repeated_layer_is_tapped_once_and_single_pixels_are_no_maps():
    classifier = Classifier(Repeated(), drawn_variables(Repeated(), (16, 16, 3)))
    positions = [saliency.grad_cam(classifier, PICTURES, CLASSES, layer=n) for n in (-2, -1)]
    assert np.any(positions[0] != positions[1])
    with pytest.raises(ValueError, match=r"layer 2 is out of range: .* 2 ReLUs"):
        saliency.grad_cam(classifier, PICTURES, CLASSES, layer=2)
    named = saliency.grad_cam(classifier, PICTURES, CLASSES, layer="conv")
    convolved = classifier.activations(PICTURES, ["conv"])["conv"]

    def logit(change, image, label):
        calls = []

        def add(call, args, kwargs, context):
            output = call(*args, **kwargs)
            if context.module.name == "conv":
                calls.append(output)
                return output + change if len(calls) == 1 else output
            return output

        with nn.intercept_methods(add):
            return Repeated().apply(classifier.variables, image[None])[0, label]

    gradients = jax.jit(jax.vmap(jax.grad(logit)))(jnp.zeros_like(convolved), PICTURES, CLASSES)
    expected = jnp.maximum((convolved * gradients.mean((1, 2), keepdims=True)).sum(-1), 0)
    np.testing.assert_allclose(named[..., 0], expected, rtol=1e-4, atol=1e-7)


# ---------------------------------------------------------------------------------- bad input


BAD = {
    "label": (dict(labels=jnp.full(8, 5)), ValueError, r"labels must lie in \[0, 5\).*got 5"),
    "integer images": (
        dict(images=np.zeros((8, 16, 16, 3), np.uint8)),
        TypeError,
        "floating point.*uint8; divide",
    ),
    "no vector of logits": (
        dict(classifier=lambda image: image),
        ValueError,
        r"logits of shape \(classes,\), got \(16, 16, 3\)",
    ),
}


@pytest.mark.parametrize("name", [name for name in saliency.__all__ if name != "PAPER_METHODS"])
@pytest.mark.parametrize("case", BAD)
def test_bad_input_to_every_method(case, name):
    change, error, message = BAD[case]
    arguments = dict(classifier=tiny(), images=PICTURES, labels=CLASSES) | change
    options = {"key": KEY} if name == "smoothgrad" else {}
    with pytest.raises(error, match=message) as raised:
        getattr(saliency, name)(**arguments, **options)
    assert str(raised.value).count(". ") == 0


BAD_OPTIONS = [
    ("smoothgrad", dict(key=None), ValueError, "key must be given"),
    ("smoothgrad", dict(noise_level=-0.1), ValueError, "noise_level .* at least 0, got -0.1"),
    ("smoothgrad", dict(noise_level=np.nan), ValueError, "noise_level .* got nan"),
    ("smoothgrad", dict(samples=0), ValueError, "samples .* at least 1, got 0"),
    ("smoothgrad", dict(samples=2.5), ValueError, "samples .* got 2.5"),
    ("smoothgrad", dict(statistic="median"), ValueError, "statistic must be one of mean, "),
    ("smoothgrad", dict(method="vanilla"), TypeError, "method must be a function"),
    ("smoothgrad", dict(method=lambda *_: 0.0), ValueError, r"the image's shape .* got \(\)"),
    ("smoothgrad", dict(noise_level="high"), TypeError, "noise_level must be a number"),
    ("smoothgrad", dict(batch_size=0), ValueError, "batch_size .* got 0"),
    ("integrated_gradients", dict(steps=0), ValueError, "steps .* at least 1, got 0"),
    ("integrated_gradients", dict(rule="simpson"), ValueError, "rule must be one of left, "),
    ("integrated_gradients", dict(rule="trapezoid", steps=1), ValueError, "at least 2 for"),
    ("integrated_gradients", dict(multiply_by_input=1), TypeError, "True or False, got 1"),
    ("integrated_gradients", dict(baseline="mean"), TypeError, "baseline must be None, a number"),
    ("integrated_gradients", dict(baseline=np.nan), ValueError, "baseline must be finite"),
    ("integrated_gradients", dict(baseline=np.zeros((8, 16, 16, 3))), ValueError, "baseline must"),
    ("integrated_gradients", dict(baseline=np.zeros(4)), ValueError, r"got shape \(4,\)"),
    ("grad_cam", dict(layer=9), ValueError, "layer 9 is out of range: .* 2 ReLUs"),
    ("grad_cam", dict(layer="Conv_2"), ValueError, "'Conv_2' is no module .* 'Conv_1'"),
    ("grad_cam", dict(layer=1.0), TypeError, "layer must be the name .* got 1.0"),
    ("guided_grad_cam", dict(layer=-3), ValueError, "layer -3 is out of range"),
]


@pytest.mark.parametrize(("name", "options", "error", "message"), BAD_OPTIONS)
def test_bad_options(name, options, error, message):
    if name == "smoothgrad":
        options = {"key": KEY} | options
    with pytest.raises(error, match=message):
        getattr(saliency, name)(tiny(), PICTURES, CLASSES, **options)


def test_what_cannot_be_known_of_a_classifier_is_said():
    def plain(image):
        return image.sum((0, 1))

    with pytest.raises(ValueError, match="baseline must be given: the mean image of a function"):
        saliency.integrated_gradients(plain, PICTURES, CLASSES % 3)
    with pytest.raises(ValueError, match="of a FunctionClassifier is known only if"):
        saliency.integrated_gradients(
            as_classifier(lambda weights, image: image.sum((0, 1)), ()), PICTURES, CLASSES % 3
        )
    with pytest.raises(ValueError, match="can be named only in a Classifier"):
        saliency.grad_cam(plain, PICTURES, CLASSES % 3, layer="conv1")
    with pytest.raises(ValueError, match="has 0 ReLUs"):
        saliency.grad_cam(plain, PICTURES, CLASSES % 3)
    with pytest.raises(ValueError, match=r"no jax\.nn\.relu"):
        saliency.guided_backprop(plain, PICTURES, CLASSES % 3)


def test_programs_of_grad_cam_raise_no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cpu_compiler.ignore_cache_warnings()
        saliency.grad_cam(NNXNetwork(), PICTURES[0, :12], 0)
