"""Pictures of one channel, (h, w, 1): what the methods make of them is what they make of grey."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from PIL import Image

from jaxrobust import Classifier, attacks, feature_visualization, map_metrics, plots, saliency
from jaxrobust.experiments import sensitivity, tiles
from tests import tiny

SHAPE = (28, 28, 1)
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0.2, 0.8, (3, *SHAPE)).astype(np.float32)
LABELS = np.array([0, 3, 1])
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def grey():
    """A classifier of one channel, with a mean and a std of one number."""
    model = tiny.TinyNetwork(num_classes=5, mean=(0.3,), std=(0.4,))
    return Classifier(model, tiny.drawn_variables(model, SHAPE))


def of_mean(grey, image):
    """The same of the mean of three channels."""
    return grey(image.mean(-1, keepdims=True))


@pytest.mark.parametrize("name", ["vanilla_gradient", "loss_gradient", "guided_backprop"])
def test_gradients_are_those_of_grey_pictures(name, grey):
    method = getattr(saliency, name)
    maps = method(grey, IMAGES, LABELS)
    assert maps.shape == IMAGES.shape
    in_colors = method(Partial(of_mean, grey), IMAGES.repeat(3, -1), LABELS)
    tiny.assert_equal_to_rounding(maps[..., 0], in_colors.sum(-1), share=0.99)


@pytest.mark.parametrize(
    "name",
    ["smoothgrad", "integrated_gradients", "input_times_gradient", "grad_cam", "guided_grad_cam"],
)
def test_other_maps_have_one_channel_too(name, grey):
    method = sensitivity.methods()[name]
    options = {"key": KEY} if "key" in inspect.signature(method).parameters else {}
    maps = np.asarray(method(grey, IMAGES, LABELS, batch_size=32, **options))
    assert maps.shape == IMAGES.shape
    assert np.abs(maps).max() > 0
    with pytest.raises(ValueError, match=r"images must have 3 colour channels, got 1\.$"):
        map_metrics.chroma_share(maps)


def test_attacks_are_those_on_grey_pictures(grey):
    options = {"epsilon": 0.1, "steps": 2, "random_start": False}
    attacked = attacks.pgd(grey, IMAGES, LABELS, **options)
    assert np.abs(attacked - IMAGES).max() == pytest.approx(0.1, rel=1e-5)
    in_colors = attacks.pgd(Partial(of_mean, grey), IMAGES.repeat(3, -1), LABELS, **options)
    tiny.assert_equal_to_rounding(jnp.repeat(attacked, 3, -1), in_colors, share=0.99)


@pytest.mark.parametrize("style", feature_visualization.STYLES)
def test_filters_are_maximised_by_grey_images(style, grey):
    options = {"key": KEY, "image_shape": SHAPE, "style": style}
    start, made = (
        feature_visualization.maximize(
            grey, "Conv_1", [2, 5], steps=steps, learning_rate=rate, **options
        )
        for steps, rate in ((1, 0.0), (20, None))
    )
    assert made.shape == (2, *SHAPE)
    before, after = (grey.activations(images, ["Conv_1"])["Conv_1"] for images in (start, made))
    for position, channel in enumerate((2, 5)):
        assert after[position, ..., channel].mean() > before[position, ..., channel].mean() + 0.05


def test_correlations_of_colours_do_not_fit_one_channel(grey):
    colors = feature_visualization.Fourier(color_correlation=np.eye(3))
    options = {"key": KEY, "image_shape": SHAPE, "parameterization": colors}
    with pytest.raises(ValueError, match=r"must be \(1, 1\), as the images' channels, got \(3, 3"):
        feature_visualization.maximize(grey, "Conv_1", 0, **options)


def test_maps_are_shown_in_grey(tmp_path):
    values = RNG.standard_normal((1, 16, 16, 1))
    values[0, 0, 1:3, 0] = 0.0, -9.0  # mid-grey, and beyond 3 standard deviations
    deviation = np.sqrt((values**2).mean())
    picture = plots.to_picture(values)
    expected = 0.5 + 0.5 * np.clip(values / (3 * deviation), -1, 1)
    np.testing.assert_allclose(picture, expected, atol=1e-6)
    levels = np.rint(255 * expected[0, ..., 0])
    assert (levels[0, 2], levels[0, 1]) == (0, 128)
    (axes,) = plots.grid([list(picture)]).axes
    page = np.asarray(axes.images[0].get_array())
    assert np.ptp(page, axis=-1).max() == 0
    assert set(levels.ravel()) <= set(page.ravel())
    row = np.asarray(Image.open(tmp_path / tiles.write(picture, tmp_path / "row.png")))
    np.testing.assert_array_equal(row[..., :3], levels[..., None].repeat(3, -1))
