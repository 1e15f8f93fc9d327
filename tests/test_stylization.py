import io
import json
import os
import shutil
import signal
from pathlib import Path

import filelock
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from jaxrobust import Classifier, models, stylization
from jaxrobust.core.interrupts import TrainingStopped
from jaxrobust.data import image_folder, pipeline, textured_shapes
from jaxrobust.data.dataset_config import DatasetConfig
from jaxrobust.stylization import __main__ as command
from jaxrobust.stylization import copy_plan
from jaxrobust.stylization import networks as networks_module
from jaxrobust.stylization.dataset_copy import CopyStopped
from jaxrobust.stylization.style_transfer import blend, stylize_unchecked
from tests import tiny

# Positions of VGG-19's convolutions in the public Sequential, and what follows them there.
VGG19 = (2, 5, 9, 12, 16, 19, 22, 25, 29, 32, 35, 38, 42, 45, 48, 51)
DECODER = (1, 5, 8, 11, 14, 18, 21, 25, 28)
UPSAMPLED = (1, 14, 21)


@jax.jit
def apply(network, inputs):
    return network(inputs)


def pictures(*shape, seed=0):
    return np.random.default_rng(seed).random((*shape, 3), np.float32)


def public_encoder(width=4, seed=0):
    """The tensors of a `vgg_normalised.pth`, of fewer channels."""
    rng = np.random.default_rng(seed)
    tensors = {"0.weight": rng.normal(size=(3, 3, 1, 1)), "0.bias": rng.normal(size=3)}
    channels = 3
    for place, position in enumerate(VGG19):
        stage = sum(place >= first for first in (2, 4, 8, 12))
        features = width * min(2**stage, 8)
        scale = (2 / (9 * channels)) ** 0.5
        tensors[f"{position}.weight"] = rng.normal(size=(features, channels, 3, 3)) * scale
        tensors[f"{position}.bias"] = 0.1 * rng.normal(size=features)
        channels = features
    return {name: np.float32(value) for name, value in tensors.items()}


def public_decoder(width=4, seed=1):
    rng = np.random.default_rng(seed)
    widths = [8 * width] + 4 * [4 * width] + 2 * [2 * width] + 2 * [width] + [3]
    tensors = {}
    for position, channels, features in zip(DECODER, widths, widths[1:], strict=False):
        scale = (2 / (9 * channels)) ** 0.5
        tensors[f"{position}.weight"] = rng.normal(size=(features, channels, 3, 3)) * scale
        tensors[f"{position}.bias"] = 0.1 * rng.normal(size=features)
    return {name: np.float32(value) for name, value in tensors.items()}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    safetensors.numpy.save_file(public_encoder(), folder / "encoder.safetensors")
    safetensors.numpy.save_file(public_decoder(), folder / "decoder.safetensors")
    return folder


@pytest.fixture(scope="module")
def networks(files):
    return (
        stylization.load_encoder(files / "encoder.safetensors"),
        stylization.load_decoder(files / "decoder.safetensors"),
    )


@pytest.fixture(scope="module")
def shallow(files):
    """Fewer layers to compile."""
    encoder = stylization.load_encoder(files / "encoder.safetensors", layer="relu2_1")
    return encoder, stylization.mirrored_decoder(encoder, jax.random.key(0))


def convolution_by_hand(image, weight, bias):
    """PyTorch's kernel (out, in, 3, 3) over a reflected border, window by window, in float64."""
    if weight.shape[2] == 1:
        return np.einsum("hwi,oi->hwo", image, weight[:, :, 0, 0]) + bias
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
    return np.einsum("hwiyx,oiyx->hwo", windows, weight.astype(np.float64)) + bias


def pool_by_hand(image):
    height, width, channels = image.shape
    rows = [
        [image[y : y + 2, x : x + 2].reshape(-1, channels).max(0) for x in range(0, width, 2)]
        for y in range(0, height, 2)
    ]
    return np.array(rows)


def encode_by_hand(tensors, image):
    """relu1_1, relu2_1, relu3_1 and relu4_1."""
    outputs = convolution_by_hand(np.float64(image), tensors["0.weight"], tensors["0.bias"])
    found = []
    for position in VGG19[:9]:
        if position in (9, 16, 29):
            outputs = pool_by_hand(outputs)
        name = f"{position}."
        outputs = convolution_by_hand(outputs, tensors[name + "weight"], tensors[name + "bias"])
        outputs = np.maximum(outputs, 0)
        if position in (2, 9, 16, 29):
            found.append(outputs)
    return found


def decode_by_hand(tensors, features):
    for position in DECODER:
        name = f"{position}."
        features = convolution_by_hand(features, tensors[name + "weight"], tensors[name + "bias"])
        if position != DECODER[-1]:
            features = np.maximum(features, 0)
        if position in UPSAMPLED:
            features = np.kron(features, np.ones((2, 2, 1)))
    return features


def adain_by_hand(content, style):
    content, style = np.float64(content), np.float64(style)
    result = np.empty_like(content)
    for channel in range(content.shape[-1]):
        c, s = content[..., channel], style[..., channel]
        scale = np.sqrt((np.var(s, ddof=1) + 1e-5) / (np.var(c, ddof=1) + 1e-5))
        result[..., channel] = (c - c.mean()) * scale + s.mean()
    return result


def assert_near(found, expected, tolerance=1e-5):
    assert found.shape == expected.shape
    tiny.assert_equal_to_rounding(found, expected, tolerance)


def features(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.gamma(1.0, 3.0, shape).astype(np.float32) * rng.uniform(0.2, 5, shape[-1:])


def test_adain_gives_the_styles_statistics_and_keeps_the_contents_pattern():
    content, style = features(5, 7, 16).astype(np.float32), features(4, 3, 16, seed=1)
    result = np.asarray(stylization.adain(content, jnp.float32(style)), np.float64)
    assert_near(result, adain_by_hand(content, style))
    np.testing.assert_allclose(result.mean((0, 1)), style.mean((0, 1)), rtol=1e-5)
    # Exactly the style's, but for the 1e-5 that is added to both variances.
    np.testing.assert_allclose(result.std((0, 1), ddof=1), style.std((0, 1), ddof=1), rtol=1e-4)
    for channel in range(16):
        pair = content[..., channel].ravel(), result[..., channel].ravel()
        assert np.corrcoef(*pair)[0, 1] > 1 - 1e-6


def test_adain_of_batches_and_of_constant_channels():
    content, style = jnp.float32(features(3, 5, 7, 4)), jnp.float32(features(3, 2, 9, 4, seed=1))
    result = stylization.adain(content, style)
    for index in range(3):
        assert_near(result[index], stylization.adain(content[index], style[index]))
    flat = stylization.adain(jnp.full((4, 4, 2), 7.0), style[0, ..., :2])
    assert_near(flat, jnp.broadcast_to(style[0, ..., :2].mean((0, 1)), (4, 4, 2)))


def test_the_standard_deviation_is_pytorchs():
    mean, std = stylization.channel_statistics(jnp.array([1.0, 2.0, 4.0, 9.0]).reshape(2, 2, 1))
    assert mean == 4.0
    # Squares 9, 4, 0 and 25, over n - 1 = 3.
    assert float(std[0]) == pytest.approx((38 / 3 + 1e-5) ** 0.5, rel=1e-6)


def test_strength_zero_is_the_content_itself():
    content, style = jnp.float32(features(5, 7, 4)), jnp.float32(features(4, 3, 4, seed=1))
    np.testing.assert_array_equal(blend(content, style, 0.0), content)
    np.testing.assert_array_equal(blend(content, style, 1.0), stylization.adain(content, style))
    half = blend(content, style, 0.5)
    np.testing.assert_allclose(half, (content + stylization.adain(content, style)) / 2, rtol=1e-5)


@pytest.mark.parametrize("shape", [(16, 24), (21, 10)])
def test_networks_equal_a_calculation_by_hand(networks, shape):
    encoder, decoder = networks
    image, style = pictures(*shape), pictures(17, 12, seed=1)
    content_maps, style_maps = (encode_by_hand(public_encoder(), x) for x in (image, style))
    for found, expected in zip(apply(encoder, image), content_maps, strict=True):
        assert_near(found, expected)
    for strength in (1.0, 0.25):
        mixed = strength * adain_by_hand(content_maps[-1], style_maps[-1])
        expected = decode_by_hand(public_decoder(), mixed + (1 - strength) * content_maps[-1])
        assert expected.shape[:2] == tuple(-(-side // 8) * 8 for side in shape)
        result = stylization.stylize(encoder, decoder, image, style, strength=strength)
        assert result.shape == image.shape
        np.testing.assert_allclose(
            result,
            np.clip(expected[: shape[0], : shape[1]], 0, 1),
            rtol=0,
            atol=1e-4 * np.abs(expected).max(),
        )
        assert np.mean((expected > 0) & (expected < 1)) > 0.02, "clipping hides the values"


def test_strength_zero_decodes_the_contents_features(networks):
    encoder, decoder = networks
    image = pictures(16, 24)
    reconstruction = jnp.clip(apply(decoder, apply(encoder, image)[-1]), 0, 1)
    for seed in (1, 2):
        style = pictures(17, 12, seed=seed)
        result = stylization.stylize(encoder, decoder, image, style, strength=0.0)
        np.testing.assert_allclose(result, reconstruction, atol=1e-4)


def test_one_or_many(shallow):
    images, styles = pictures(3, 9, 14), pictures(3, 11, 10, seed=1)
    many = stylization.stylize(*shallow, images, styles)
    pairs = zip(images, styles, strict=True)
    one_by_one = [stylization.stylize(*shallow, *pair) for pair in pairs]
    np.testing.assert_allclose(many, one_by_one, atol=1e-4)
    chunked = stylization.stylize(*shallow, images, styles, batch_size=2)
    np.testing.assert_allclose(chunked, many, atol=1e-4)
    one_style = stylization.stylize(*shallow, images, styles[1])
    np.testing.assert_allclose(one_style[1], many[1], atol=1e-4)
    np.testing.assert_allclose(
        one_style[2], stylization.stylize(*shallow, images[2], styles[1]), atol=1e-4
    )


@pytest.mark.parametrize("batch_size", [None, 1])
def test_sharded_over_devices(shallow, batch_size):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    images, styles = pictures(8, 9, 9), pictures(8, 9, 9, seed=1)
    placed = [jax.device_put(x, sharding) for x in (images, styles)]
    result = stylization.stylize(*shallow, *placed, batch_size=batch_size)
    assert result.sharding.is_equivalent_to(sharding, 4)
    np.testing.assert_allclose(result, stylization.stylize(*shallow, images, styles), atol=1e-4)


def test_a_sweep_over_strengths_compiles_once(shallow):
    image, style = pictures(9, 9), pictures(9, 9, seed=1)
    stylization.stylize(*shallow, image, style, strength=0.5)
    before = stylize_unchecked._cache_size()
    for strength in (0.0, 0.1, 0.9):
        stylization.stylize(*shallow, image, style, strength=strength)
    assert stylize_unchecked._cache_size() == before


def test_mirrored_decoder_is_the_public_one(networks, tmp_path):
    encoder, public = networks
    decoder = stylization.mirrored_decoder(encoder, jax.random.key(0))
    assert decoder.operations == public.operations
    assert [decoder.operations[i] for i in range(len(decoder.operations))].count("upsample") == 3
    assert sorted(map(int, decoder.parameters)) == list(DECODER)
    shapes = jax.tree.map(jnp.shape, decoder.parameters)
    assert shapes == jax.tree.map(jnp.shape, public.parameters)
    stylization.save_decoder(tmp_path / "decoder.safetensors", decoder)
    again = stylization.load_decoder(tmp_path / "decoder.safetensors")
    assert again.operations == decoder.operations
    jax.tree.map(np.testing.assert_array_equal, again.parameters, decoder.parameters)
    assert stylization.fingerprint(again) == stylization.fingerprint(decoder)
    assert stylization.fingerprint(again) != stylization.fingerprint(public)


def test_any_encoder_gets_a_decoder():
    def encoder(image):
        first = image.reshape(image.shape[0] // 4, 4, -1, 4, 3).mean((1, 3))
        first = jnp.concatenate([first, first**2], axis=-1)
        return [first, first.reshape(first.shape[0] // 2, 2, -1, 2, 6).max((1, 3)) ** 2]

    decoder = stylization.mirrored_decoder(encoder, jax.random.key(0), image_shape=(32, 32, 3))
    assert decoder.factor == 8
    result = stylization.stylize(encoder, decoder, pictures(2, 16, 24), pictures(32, 16))
    assert result.shape == (2, 16, 24, 3)
    with pytest.raises(ValueError, match="powers of two"):
        stylization.mirrored_decoder(
            lambda image: [image[::3, ::3]], jax.random.key(0), image_shape=(33, 33, 3)
        )


def test_classifier_as_encoder():
    model = models.create(
        "vgg13_bn_small", num_classes=3, width=4, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)
    )
    variables = tiny.drawn_variables(model, (32, 32, 3))
    classifier = Classifier(model, variables)
    encoder = stylization.vgg_encoder(classifier, layer="relu2_2")
    image = jnp.asarray(pictures(32, 32))
    found = apply(encoder, image)
    assert [leaf.shape for leaf in found] == [(32, 32, 4), (16, 16, 8), (16, 16, 8)]
    activations = classifier.activations(image, ["conv1_1", "conv2_1", "conv2_2"])
    for output, (layer, expected) in zip(found, activations.items(), strict=True):
        layer = layer.replace("conv", "bn")
        norm, running = variables["params"][layer], variables["batch_stats"][layer]
        expected = (expected - running["mean"]) / np.sqrt(running["var"] + 1e-5)
        expected = expected * norm["scale"] + norm["bias"]
        # Away from the border, where reflection stands in for the classifier's zeros.
        assert_near(output[4:-4, 4:-4], np.maximum(expected, 0)[4:-4, 4:-4], 1e-4)
    decoder = stylization.mirrored_decoder(encoder, jax.random.key(0))
    assert apply(decoder, found[-1]).shape == (32, 32, 3)


def test_vgg_encoder_says_what_it_takes():
    model = models.create("vgg11_small", num_classes=3, width=2)
    classifier = Classifier(model, tiny.drawn_variables(model, (32, 32, 3)))
    with pytest.raises(ValueError, match=r"layer must be one of relu1_1, relu2_1, .*'relu2_2'"):
        stylization.vgg_encoder(classifier, layer="relu2_2")
    with pytest.raises(TypeError, match="VGG model"):
        stylization.vgg_encoder(Classifier(models.create("resnet8_small", num_classes=3), {}))


def test_wrong_files_are_named(tmp_path):
    path = tmp_path / "weights.safetensors"

    def refuse(message, tensors, load=stylization.load_encoder):
        safetensors.numpy.save_file(tensors, path)
        with pytest.raises(ValueError, match=message):
            load(path)

    whole = public_encoder()
    refuse("must hold .*got 'features.0.weight'", {"features.0.weight": whole["0.weight"]})
    refuse("only one of them for 9", {k: v for k, v in whole.items() if k != "9.bias"})
    without = {k: v for k, v in whole.items() if not k.startswith("9.")}
    refuse(r"chain of 3x3 convolutions, got 12.weight", without)
    refuse(
        "no convolution at 3",
        {k.replace("2.", "3."): v for k, v in whole.items() if k[:2] in ("0.", "2.")},
    )
    refuse("of 3 channels, got 32", whole, stylization.load_decoder)
    refuse("no tensors", {})
    refuse("got '00.weight'", {"00.weight": whole["0.weight"]})
    refuse("got a int64 as '0.bias'", {**whole, "0.bias": np.arange(3)})
    with pytest.raises(FileNotFoundError, match="does not exist"):
        stylization.load_encoder(tmp_path / "nothing.pth")
    with pytest.raises(FileNotFoundError, match=r"holds no decoder\.safetensors"):
        stylization.load_decoder(tmp_path)


def test_wrong_pictures_are_named(networks):
    image = pictures(9, 9)

    def refuse(message, images=image, styles=image, error=ValueError, nets=networks, **options):
        with pytest.raises(error, match=message):
            stylization.stylize(*nets, images, styles, **options)

    refuse("at least 9 x 9 pixels .*got 8 x 20", images=pictures(8, 20))
    refuse("at least 9 x 9 pixels .*got 20 x 3", styles=pictures(20, 3))
    refuse("strength must be from 0 to 1, got 1.5", strength=1.5)
    refuse("strength must be from 0 to 1, got nan", strength=float("nan"))
    refuse("floating point", error=TypeError, styles=np.zeros((9, 9, 3), np.uint8))
    refuse(r"lie in \[0, 1\]", images=2 + image)
    refuse("one for each of the images", images=pictures(2, 9, 9), styles=pictures(3, 9, 9))
    refuse("one for each of the images", styles=pictures(1, 9, 9))
    refuse("batch_size must be", batch_size=0)
    deeper = (
        networks[0],
        stylization.Decoder(
            {"1": {"kernel": jnp.zeros((3, 3, 5, 3)), "bias": jnp.zeros(3)}}, ("pad", "convolution")
        ),
    )
    refuse("32 channels, got one that takes 5", nets=deeper)
    refuse("encoder must be a callable", error=TypeError, nets=(None, networks[1]))
    refuse("one number from 0 to 1, got 'half'", error=TypeError, strength="half")
    refuse("one number from 0 to 1, got array", error=TypeError, strength=np.ones(2))
    refuse("images must have 3 channels, got .*9, 1", images=image[..., :1])
    refuse("style_images must have 3 channels, got .*9, 4", styles=np.zeros((9, 9, 4), np.float32))


@pytest.mark.parametrize("size", [9, 12, 16, 33])
@pytest.mark.parametrize("generic", [False, True])
def test_a_decoder_of_another_depth_is_refused(networks, size, generic):
    encoder, decoder = networks
    networks_module.check_networks(
        (lambda image: encoder(image)) if generic else encoder, decoder, (size, size, 3), (9, 9, 3)
    )
    for factor in (4, 16):

        def wrong(features, factor=factor):
            return jnp.repeat(jnp.repeat(features[..., :3], factor, 0), factor, 1)

        reduces = -(-size // -(-size // 8)) if generic else 8
        with pytest.raises(
            ValueError, match=f"enlarges {factor} times, the encoder reduces {reduces} times"
        ):
            networks_module.check_networks(
                (lambda image: encoder(image)) if generic else encoder,
                wrong,
                (size, size, 3),
                (9, 9, 3),
            )


def test_fingerprint_sees_weights_and_structure():
    kernel = jnp.ones((3, 3, 3, 3))
    parameters = {"1": {"kernel": kernel, "bias": jnp.zeros(3)}}
    one = stylization.Decoder(parameters, ("pad", "convolution"))
    other = stylization.Decoder(parameters, ("pad", "convolution", "upsample"))
    assert stylization.fingerprint(one) != stylization.fingerprint(other)

    def partial(weights):
        return jax.tree_util.Partial(lambda weights, image: [weights * image], weights)

    first, again, changed = (stylization.fingerprint(partial(x)) for x in (kernel, kernel, one))
    assert first == again != changed
    with pytest.raises(TypeError, match=r"jax\.tree_util\.Partial"):
        stylization.fingerprint(lambda image: [image])


# Styles


@pytest.fixture
def paintings(tmp_path):
    folder = tmp_path / "paintings"
    (folder / "deeper").mkdir(parents=True)
    rng = np.random.default_rng(5)
    for index, place in enumerate(("a.png", "b.jpg", "deeper/a.png")):
        picture = rng.integers(0, 256, (30 + index, 40, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / place)
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_style_folder_draws_squares(paintings):
    styles = stylization.StyleFolder(paintings)
    assert styles.describe()["pictures"] == 3
    drawn = [styles.draw(np.random.default_rng(seed), 16) for seed in range(20)]
    assert {name for _, name in drawn} == {"a.png", "b.jpg", "deeper/a.png"}
    assert {picture.shape for picture, _ in drawn} == {(16, 16, 3)}
    assert {picture.dtype for picture, _ in drawn} == {np.dtype(np.uint8)}
    whole = np.asarray(Image.open(paintings / "a.png"))
    square, name = next(
        styles.draw(np.random.default_rng(seed), 30)
        for seed in range(20)
        if styles.draw(np.random.default_rng(seed), 30)[1] == "a.png"
    )
    np.testing.assert_array_equal(square, whole[:, 5:35])
    assert name == "a.png"


def test_styles_that_cannot_be_used_are_named(paintings, tmp_path, caplog):
    with pytest.raises(FileNotFoundError, match="folder of pictures, got"):
        stylization.StyleFolder(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"got none in .*empty"):
        stylization.StyleFolder(tmp_path / "empty")
    Image.new("RGB", (40, 7)).save(paintings / "tiny.png")
    with pytest.raises(ValueError, match=r"got 7 x 40 for .*tiny.png. \(1 of 4"):
        stylization.StyleFolder(paintings)
    (paintings / "b.jpg").write_bytes((paintings / "b.jpg").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"b.jpg.*\(2 of 4"):
        stylization.StyleFolder(paintings)
    assert stylization.StyleFolder(paintings, corrupt_images="skip").describe()["pictures"] == 2
    assert "tiny.png" in caplog.text
    assert "b.jpg" in caplog.text


def test_style_textures_are_those_of_textured_shapes():
    styles = stylization.StyleTextures(tiles=5)
    names = set()
    for seed in range(60):
        picture, name = styles.draw(np.random.default_rng(seed), 32)
        again, _ = styles.draw(np.random.default_rng(seed), 32)
        np.testing.assert_array_equal(picture, again)
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) <= (5 if name == "plain" else 10)
        if name == "fine_rows":  # rows alternate, but for the borders of tiles
            assert np.mean(np.any(picture[:-1] != picture[1:], axis=-1)) > 0.9
            assert np.mean(np.any(picture[:, :-1] != picture[:, 1:], axis=-1)) < 0.4
        names.add(name)
    assert names == set(textured_shapes.TEXTURES)


# Training a decoder


@pytest.fixture(scope="module")
def small_encoder():
    model = models.create("vgg13_small", num_classes=3, width=8)
    variables = tiny.drawn_variables(model, (32, 32, 3))
    return stylization.vgg_encoder(Classifier(model, variables), layer="relu2_1")


def train_small(encoder, data_dir, workdir, steps, **options):
    dataset = DatasetConfig(name="digits", data_dir=str(data_dir), image_size=16)
    styles = options.pop("styles", None) or stylization.StyleTextures()
    options = {"batch_size": 8, "learning_rate": 3e-3, "log_every_seconds": 1000.0} | options
    return stylization.train_decoder(encoder, dataset, styles, workdir, steps=steps, **options)


class Interrupting(stylization.StyleTextures):
    """Presses Ctrl-C while the picture of some number is drawn."""

    def __init__(self, after):
        super().__init__()
        self.left = after

    def draw(self, rng, size, *, augment=False):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)
        return super().draw(rng, size, augment=augment)


@pytest.mark.slow
def test_training_lowers_the_loss_and_resumes_bit_for_bit(small_encoder, data_dir, tmp_path):
    decoder = train_small(small_encoder, data_dir, tmp_path / "whole", 40, save_every=15)
    lines = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    metrics = [json.loads(line) for line in lines]
    assert (metrics[0]["step"], metrics[-1]["step"]) == (1, 40)
    for name in ("loss", "style_loss"):
        assert metrics[-1][name] < metrics[0][name] / 3

    with pytest.raises(TrainingStopped, match=r"step \d+ of 40, which is saved"):
        train_small(small_encoder, data_dir, tmp_path / "parts", 40, styles=Interrupting(8 * 12))
    assert not (tmp_path / "parts" / "decoder.safetensors").exists()
    with pytest.raises(FileNotFoundError, match="complete training"):
        stylization.load_decoder(tmp_path / "parts")
    resumed = train_small(small_encoder, data_dir, tmp_path / "parts", 40)
    jax.tree.map(np.testing.assert_array_equal, resumed.parameters, decoder.parameters)
    # A further call trains nothing; more steps go on.
    again = train_small(small_encoder, data_dir, tmp_path / "parts", 40)
    jax.tree.map(np.testing.assert_array_equal, again.parameters, decoder.parameters)

    images, styles = pictures(4, 17, 19), pictures(4, 16, 16, seed=1)
    assert stylization.stylize(small_encoder, decoder, images, styles).shape == images.shape
    with pytest.raises(ValueError, match=r"another decoder \(seed: 0, now 1\)"):
        train_small(small_encoder, data_dir, tmp_path / "whole", 40, seed=1)
    with pytest.raises(ValueError, match="training of 40 steps, more than steps=10"):
        train_small(small_encoder, data_dir, tmp_path / "whole", 10)


def test_losses_equal_a_calculation_by_hand(networks):
    from jaxrobust.stylization.decoder_training import losses

    images, styles = pictures(2, 16, 16), pictures(2, 16, 16, seed=1)
    content_losses, style_losses = [], []
    for image, style in zip(images, styles, strict=True):
        wanted = encode_by_hand(public_encoder(), style)
        target = adain_by_hand(encode_by_hand(public_encoder(), image)[-1], wanted[-1])
        found = encode_by_hand(public_encoder(), decode_by_hand(public_decoder(), target))
        content_losses.append(np.mean((found[-1] - target) ** 2))
        style_losses.append(
            sum(
                np.mean((a.mean((0, 1)) - b.mean((0, 1))) ** 2)
                + np.mean(
                    (np.sqrt(a.var((0, 1), ddof=1) + 1e-5) - np.sqrt(b.var((0, 1), ddof=1) + 1e-5))
                    ** 2
                )
                for a, b in zip(found, wanted, strict=True)
            )
        )
    found = jax.jit(losses)(*networks, images, styles)
    np.testing.assert_allclose(found, [np.mean(content_losses), np.mean(style_losses)], rtol=1e-4)


def test_training_refuses_what_cannot_work(small_encoder, data_dir, tmp_path):
    def refuse(message, **options):
        with pytest.raises(ValueError, match=message):
            train_small(small_encoder, data_dir, tmp_path / "run", **({"steps": 2} | options))
        assert not (tmp_path / "run").exists()

    refuse("steps must be a whole number", steps=0)
    with pytest.raises(TypeError, match="Partial"):
        train_small(lambda image: small_encoder(image), data_dir, tmp_path / "run", 2)
    refuse("learning_rate must be", learning_rate=0.0)
    with pytest.raises(ValueError, match="must have colours to stylise, got fashion_mnist"):
        stylization.train_decoder(
            small_encoder, DatasetConfig("fashion_mnist"), None, tmp_path / "run", steps=2
        )
    refuse("style_weight must be", style_weight=float("nan"))
    refuse("multiple of the 8 devices", batch_size=9)


def test_training_goes_on_with_the_same_pictures_alone(small_encoder, source, tmp_path):
    def train(path, steps):
        dataset = DatasetConfig(name="image_folder", path=str(path), image_size=16)
        stylization.train_decoder(
            small_encoder, dataset, stylization.StyleTextures(), tmp_path / "run",
            steps=steps, batch_size=8,
        )  # fmt: skip

    train(source, 1)
    shutil.copytree(source, tmp_path / "other")
    with pytest.raises(ValueError, match=r"another decoder \(dataset.path: "):
        train(tmp_path / "other", 2)
    Image.new("RGB", (24, 24)).save(source / "train" / "cat" / "9.png")
    image_folder._open_split.cache_clear()
    with pytest.raises(ValueError, match=r"dataset.files_sha256: .*dataset.pictures: 10, now 11"):
        train(source, 2)


# The stylised copy of a data set


@pytest.fixture
def source(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("validation", 9)):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / "source" / split / name).mkdir(parents=True)
            for index in range(count):
                picture = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
                suffix = ("png", "bmp")[label]
                Image.fromarray(picture).save(
                    tmp_path / "source" / split / name / f"{index}.{suffix}"
                )
    image_folder._open_split.cache_clear()
    return tmp_path / "source"


def copy(networks, source, styles, output, **options):
    config = source
    if isinstance(source, Path):
        config = DatasetConfig(name="image_folder", path=str(source))
    return stylization.stylize_dataset(*networks, config, styles, output, batch_size=8, **options)


def contents(folder):
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_copy_is_an_image_folder_with_records(shallow, source, paintings, tmp_path):
    before = contents(source)
    styles = stylization.StyleFolder(paintings)
    output = tmp_path / "copy"
    folder = copy(shallow, source, styles, output, seed=3, strength=0.5)
    assert folder == output / "validation"
    assert contents(source) == before
    found = contents(output)
    names = [f"{name}/{index}.png" for name in ("cat", "dog") for index in range(9)]
    expected = {f"validation/{name}" for name in names}
    assert set(found) == expected | {"validation.json", "validation.jsonl"}
    lines = records(output / "validation.jsonl")
    assert [line["picture"] for line in lines] == names
    assert [line["index"] for line in lines] == list(range(18))
    assert {(line["seed"], line["strength"]) for line in lines} == {(3, 0.5)}
    assert {line["style"] for line in lines} == {"a.png", "b.jpg", "deeper/a.png"}

    # Each is what `stylize` makes of its source and the style that is recorded.
    for line in (lines[0], lines[12], lines[17]):
        content = np.float32(Image.open(line["source"])) / 255
        style = Image.open(paintings / line["style"]).convert("RGB")
        box = ((40 - style.height) / 2, 0, (40 + style.height) / 2, style.height)
        style = style.resize((24, 24), Image.Resampling.BILINEAR, box=box)
        result = stylization.stylize(
            *shallow, content, np.float32(style) / 255, strength=line["strength"]
        )
        picture = np.float32(Image.open(folder / line["picture"]))
        assert np.abs(picture - 255 * np.asarray(result)).max() < 4
        assert np.abs(picture - 255 * np.asarray(result)).mean() < 0.6

    for line in records(output / "validation.jsonl"):
        assert line["source"].startswith(str(source / "validation"))
    copy(shallow, source, styles, output, seed=3, strength=0.5, split="train")
    info = pipeline.describe(DatasetConfig(name="image_folder", path=str(output), image_size=24))
    assert info.splits == {"train": 10, "validation": 18}
    assert info.class_names == ("cat", "dog")


def test_interrupted_copy_goes_on_and_equals_a_whole_one(shallow, source, tmp_path):
    whole = copy(shallow, source, stylization.StyleTextures(), tmp_path / "whole")
    output = tmp_path / "parts"
    with pytest.raises(CopyStopped, match=r"after 8 of 18 pictures, which are kept"):
        copy(shallow, source, Interrupting(3), output)
    assert not (output / "validation").exists()
    assert (output / "validation.incomplete").is_dir()
    with pytest.raises(FileNotFoundError, match="must hold folders train"):
        image_folder.splits(output)
    kept = contents(output / "validation.incomplete")
    assert len(kept) == 8
    # As a kill would leave it: a record cut off, a picture that is not recorded, another half made.
    unfinished = output / "validation.incomplete.jsonl"
    lines = unfinished.read_text().split("\n")
    lines[1] = lines[1][:30] + "\0"  # damaged
    unfinished.write_text("\n".join(lines)[:-20])
    (output / "validation.incomplete" / "cat" / "8.png").write_bytes(b"not recorded")
    (output / "validation.incomplete" / "cat" / ".8.png.tmp").write_bytes(b"half")
    drawn = []

    class Counting(stylization.StyleTextures):
        def draw(self, rng, size, *, augment=False):
            drawn.append(size)
            return super().draw(rng, size, augment=augment)

    copy(shallow, source, Counting(), output)
    assert len(drawn) == 18 - 6
    assert contents(output / "validation") == contents(whole)
    first, second = (
        [{**line, "source": None} for line in records(tmp_path / name / "validation.jsonl")]
        for name in ("whole", "parts")
    )
    assert first == second
    assert sorted(path.name for path in output.iterdir()) == [
        "validation",
        "validation.json",
        "validation.jsonl",
    ]
    drawn.clear()
    copy(shallow, source, Counting(), output)
    assert not drawn
    # Of a finished copy, what is gone or damaged is made again.
    folder = output / "validation" / "cat"
    (folder / "3.png").unlink()
    flip((folder / "4.png"), -20)
    (folder / "5.png").write_bytes((folder / "5.png").read_bytes()[:-9])
    flip(output / "validation.jsonl", -60)
    copy(shallow, source, Counting(), output)
    assert len(drawn) == 4
    assert contents(output / "validation") == contents(whole)
    assert len(records(output / "validation.jsonl")) == 18


@pytest.mark.slow
def flip(path, place):
    """The lowest bit of a byte."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_copy_is_verified_before_it_is_published(shallow, source, tmp_path, monkeypatch):
    """A disk that loses what it is given, in the middle of the copy."""
    whole = copy(shallow, source, stylization.StyleTextures(), tmp_path / "whole")
    write = copy_plan.CopyPlan.write

    def lossy(self, name, picture):
        checksum = write(self, name, picture)
        if name == "cat/3.png":
            flip(self.incomplete / name, -20)
        if name == "dog/1.png":
            os.truncate(self.incomplete / name, 30)
        return checksum

    output = tmp_path / "copy"
    monkeypatch.setattr(copy_plan.CopyPlan, "write", lossy)
    with pytest.raises(ValueError, match=r"^2 of the 18 pictures .*are not what was .*cat.3\.png"):
        copy(shallow, source, stylization.StyleTextures(), output)
    assert not (output / "validation").exists()
    monkeypatch.undo()
    copy(shallow, source, stylization.StyleTextures(), output)
    assert contents(output / "validation") == contents(whole)


@pytest.mark.slow
def test_copy_of_a_catalogued_set_keeps_the_labels(shallow, data_dir, tmp_path):
    config = DatasetConfig(name="textured_shapes", data_dir=str(data_dir))
    folder = copy(
        shallow, config, stylization.StyleTextures(), tmp_path / "copy", split="test[:10%]"
    )
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"{label}_{name}" for label, name in enumerate(textured_shapes.SHAPES)]
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    copied = DatasetConfig(name="image_folder", path=str(tmp_path / "copy"), image_size=32)
    labels = []
    for data, split in ((config, "test[:10%]"), (copied, "test")):
        with pipeline.evaluation_batches(data, split, batch_size=100, mesh=mesh) as batches:
            labels.append(np.asarray(next(batches)["label"]))
    assert (np.diff(labels[0]) < 0).any(), "the source is not in the order of its labels"
    # The copy is read class by class.
    order = np.argsort(labels[0], kind="stable")
    np.testing.assert_array_equal(labels[1], labels[0][order])
    lines = records(tmp_path / "copy" / "test.jsonl")
    files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.png"))
    assert [lines[index]["picture"] for index in order] == files


def test_pictures_of_one_stem_stay_apart(shallow, source, tmp_path):
    picture = source / "validation" / "cat" / "0.png"
    Image.open(picture).save(picture.with_suffix(".bmp"))
    folder = copy(
        shallow, source, stylization.StyleTextures(), tmp_path / "copy", file_format="jpg"
    )
    names = {path.name for path in (folder / "cat").iterdir()}
    assert {"0.png.jpg", "0.bmp.jpg", "1.png.jpg"} <= names
    assert len(names) == 10


def test_copy_refuses_what_would_lose_or_mix(networks, source, paintings, tmp_path):
    styles = stylization.StyleTextures()
    before = contents(tmp_path)

    def refuse(message, output=tmp_path / "copy", styles=styles, error=ValueError, **options):
        with pytest.raises(error, match=message):
            copy(networks, options.pop("source", source), styles, output, **options)
        assert contents(tmp_path) == before

    refuse("outside the source", source / "stylized")
    refuse("outside the source", tmp_path)
    refuse("outside the source", source)
    refuse("outside the folder of the styles", paintings / "x", stylization.StyleFolder(paintings))
    refuse("strength must be from 0 to 1, got 2", strength=2)
    refuse("seed must be", seed=-1)
    refuse("file_format must be", file_format="gif")
    refuse("output_split must be one of", output_split="stylized")
    refuse("style_size must be", style_size=0)
    refuse("at least 9 x 9 pixels", style_size=8)
    refuse("must be a folder", source=tmp_path / "nothing", error=FileNotFoundError)
    (tmp_path / "copy" / "validation").mkdir(parents=True)
    refuse("something else")


def test_copy_with_other_settings_is_refused(shallow, source, tmp_path):
    output = tmp_path / "copy"
    with pytest.raises(CopyStopped):
        copy(shallow, source, Interrupting(3), output)
    before = contents(output)
    with pytest.raises(ValueError, match=r"other settings \(seed: 0, now 1\)"):
        copy(shallow, source, stylization.StyleTextures(), output, seed=1)
    # A picture or a style that changed in place is another one.
    picture = source / "validation" / "cat" / "8.png"
    Image.new("RGB", (24, 24)).save(picture)
    with pytest.raises(ValueError, match=r"other settings \(source.files_sha256: "):
        copy(shallow, source, stylization.StyleTextures(), output)
    assert contents(output) == before
    (output / "validation.json").write_text('{"seed": 0')
    with pytest.raises(ValueError, match=r"validation\.json must hold an object"):
        copy(shallow, source, stylization.StyleTextures(), output)


def test_styles_that_changed_are_others(paintings):
    before = stylization.StyleFolder(paintings).describe()
    assert stylization.StyleFolder(paintings).describe() == before
    picture = np.asarray(Image.open(paintings / "a.png"))
    Image.fromarray(picture[::-1]).save(paintings / "a.png")
    after = stylization.StyleFolder(paintings).describe()
    assert {name for name in before if before[name] != after[name]} == {"files_sha256"}


def test_one_copy_at_a_time(shallow, source, tmp_path):
    output = tmp_path / "copy"
    with pytest.raises(CopyStopped):
        copy(shallow, source, Interrupting(3), output)
    before = contents(output)
    with filelock.FileLock(output / "validation.lock"):
        with pytest.raises(ValueError, match=r"holds .*validation\.lock: only one may"):
            copy(shallow, source, stylization.StyleTextures(), output)
        assert contents(output) == {**before, "validation.lock": b""}
    copy(shallow, source, stylization.StyleTextures(), output)
    assert not (output / "validation.lock").exists()


def test_skipped_pictures_leave_the_styles_of_the_others(shallow, source, paintings, tmp_path):
    def styles_of(output):
        config = DatasetConfig(name="image_folder", path=str(source), corrupt_images="skip")
        copy(shallow, config, stylization.StyleFolder(paintings), output)
        return {line["picture"]: line["style"] for line in records(output / "validation.jsonl")}

    whole = styles_of(tmp_path / "whole")
    (source / "validation" / "cat" / "1.png").write_bytes(b"no picture")
    Image.new("RGB", (40, 5)).save(source / "validation" / "dog" / "2.bmp")
    image_folder._open_split.cache_clear()
    del whole["cat/1.png"], whole["dog/2.png"]
    assert styles_of(tmp_path / "fewer") == whole


def test_pictures_that_cannot_be_used_stop_the_copy_and_are_named(shallow, source, tmp_path):
    Image.new("RGB", (40, 5)).save(source / "validation" / "dog" / "7.bmp")
    image_folder._open_split.cache_clear()
    with pytest.raises(ValueError, match=r"at least 16 x 16 pixels, got 5 x 40 for .*7.bmp"):
        copy(shallow, source, stylization.StyleTextures(), tmp_path / "copy")
    assert not (tmp_path / "copy" / "validation").exists()
    (source / "validation" / "dog" / "7.bmp").write_bytes(b"BM")
    image_folder._open_split.cache_clear()
    with pytest.raises(ValueError, match=r"7.bmp.*1 of 18 pictures"):
        copy(shallow, source, stylization.StyleTextures(), tmp_path / "other")
    assert not (tmp_path / "other").exists()


# The commands


def run(*arguments):
    command.main([str(argument) for argument in arguments])


@pytest.mark.slow
def test_commands(files, source, data_dir, tmp_path, capsys):
    run(
        *("train_decoder", "--encoder", files / "encoder.safetensors", "--layer=relu2_1"),
        *("--dataset=digits", "--data_dir", data_dir, "--image_size=16", "--styles=textures"),
        *("--steps=2", "--workdir", tmp_path / "decoder", "--learning_rate=0.001"),
    )
    arguments = [
        *("copy", "--encoder", files / "encoder.safetensors", "--layer=relu2_1"),
        *("--decoder", tmp_path / "decoder", "--path", source, "--styles=textures"),
        *("--output", tmp_path / "copy", "--seed=4", "--image_size=16"),
    ]
    run(*arguments)
    assert f"written to {tmp_path / 'copy' / 'validation'}" in capsys.readouterr().out
    lines = records(tmp_path / "copy" / "validation.jsonl")
    assert len(lines) == 18
    assert lines[0]["seed"] == 4
    picture = (tmp_path / "copy" / "validation" / lines[0]["picture"]).read_bytes()
    assert Image.open(io.BytesIO(picture)).size == (16, 16)
    with pytest.raises(SystemExit, match=r"^ValueError: output must lie outside the source"):
        run(*arguments, "--output", source / "copy")
    with pytest.raises(SystemExit, match=r"^ValueError: exactly one of --dataset and --path"):
        run(*arguments, "--dataset=digits")
    with pytest.raises(SystemExit, match="must have colours to stylise, got fashion_mnist"):
        run(*arguments[:6], "--dataset=fashion_mnist", "--styles=textures", "--output", tmp_path)
    with pytest.raises(SystemExit, match=r"^ValueError: decoder must be one of this encoder"):
        run(*arguments, "--layer=relu3_1", "--output", tmp_path / "third")
    with pytest.raises(SystemExit, match=r"^FileNotFoundError: styles must be a folder"):
        run(*arguments, "--styles", tmp_path / "nothing")
