"""The filters: against OpenCV and NumPy on random pictures and on photographs."""

import time

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
import sklearn.datasets
from jax.sharding import NamedSharding, PartitionSpec

from jaxrobust import filters

# Down to a single pixel, where OpenCV reflects a border several times.
SHAPES = [(1, 1, 3), (1, 9, 3), (2, 3, 1), (7, 4, 3), (31, 47, 3), (46, 33, 1)]

SMALL = {
    "gaussian_blur": {"sigma": 1.5},
    "median_filter": {"times": 2},
    "reverse_colors": {"mean": (0.3, 0.5, 0.6)},
}


def pictures(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def photographs():
    """Of odd sizes, with the flat regions and equal values that random pictures lack."""
    china = sklearn.datasets.load_sample_image("china.jpg")[:201, :333]
    return {"china": china / np.float32(255), "cat": skimage.data.chelsea() / np.float32(255)}


def opencv_blur(picture, sigma, kernel_size=7):
    return cv2.GaussianBlur(picture, (kernel_size, kernel_size), sigma).reshape(picture.shape)


def opencv_median(picture, kernel_size, times):
    for _ in range(times):
        picture = cv2.medianBlur(picture, kernel_size).reshape(picture.shape)
    return picture


def assert_same_bits(result, expected):
    expected = np.asarray(expected)
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(np.asarray(result).view(np.uint8), expected.view(np.uint8))


@pytest.mark.parametrize("shape", SHAPES)
def test_blur_is_that_of_opencv(shape):
    picture = pictures(*shape)
    for kernel_size in (1, 7):
        for sigma in (0.1, 0.25, 1.0, 5.0, 1e6):
            np.testing.assert_allclose(
                filters.gaussian_blur(picture, sigma=sigma, kernel_size=kernel_size),
                opencv_blur(picture, sigma, kernel_size),
                atol=1e-6,
                err_msg=f"sigma {sigma}, kernel {kernel_size}",
            )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_median_is_exactly_that_of_opencv(shape, kernel_size):
    picture = pictures(*shape)
    for times in range(4):
        result = filters.median_filter(picture, kernel_size=kernel_size, times=times)
        assert_same_bits(result, opencv_median(picture, kernel_size, times))


@pytest.mark.parametrize("name", ["china", "cat"])
def test_photographs_are_filtered_as_by_opencv(name):
    photograph = photographs()[name]
    for sigma in (0.5, 2.75):
        result = filters.gaussian_blur(photograph, sigma=sigma)
        np.testing.assert_allclose(result, opencv_blur(photograph, sigma), atol=1e-6)
    for times in (1, 5):
        result = filters.median_filter(photograph, times=times)
        assert_same_bits(result, opencv_median(photograph, 5, times))


@pytest.mark.parametrize("kernel_size", [1, 7, 9, 13, 21])
def test_medians_of_other_kernels_are_those_of_numpy(kernel_size):
    picture, radius = pictures(12, 17, 3), kernel_size // 2
    padded = np.pad(picture, ((radius, radius), (radius, radius), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel_size,) * 2, axis=(0, 1))
    expected = np.median(windows, axis=(-2, -1))
    assert_same_bits(filters.median_filter(picture, kernel_size=kernel_size), expected)


def test_no_blur_and_no_median_are_the_identity():
    picture = pictures(9, 14, 3)
    picture[0, 0] = (-0.0, 1e-45, 1.0)  # not even a zero changes its sign
    for images in (picture, np.stack([picture, picture])):
        assert_same_bits(filters.gaussian_blur(images, sigma=0), images)
        assert_same_bits(filters.gaussian_blur(images, sigma=0.0, kernel_size=5), images)
        assert_same_bits(filters.median_filter(images, times=0), images)
        assert_same_bits(filters.median_filter(images, times=0, kernel_size=3), images)


def test_median_of_any_numbers_under_a_trace():
    """Under jit nothing is known of the range: negative numbers have their order all the same."""
    picture = 2 * pictures(10, 11, 3) - 1
    result = jax.jit(lambda image: filters.median_filter(image, times=3))(picture)
    assert_same_bits(result, opencv_median(picture, 5, 3))
    picture[4, 5] = np.nan
    result = np.asarray(jax.jit(filters.median_filter)(picture))
    assert np.isfinite(result).all()


def test_colors_are_mirrored_about_the_mean():
    picture = pictures(5, 6, 3)
    expected = np.clip(2 * np.array([0.485, 0.456, 0.406]) - picture, 0, 1)
    np.testing.assert_allclose(filters.reverse_colors(picture), expected, atol=1e-6)
    assert expected.min() == 0  # something was clipped
    gray = filters.reverse_colors(picture[..., :1], mean=0.5)
    np.testing.assert_allclose(gray, 1 - picture[..., :1], atol=1e-6)
    mean = np.array([0.9, 0.1, 0.5])
    np.testing.assert_allclose(
        filters.reverse_colors(picture, mean=mean), np.clip(2 * mean - picture, 0, 1), atol=1e-6
    )


FORMS = {
    "plain": lambda method, images: method(images),
    "one by one": lambda method, images: jnp.stack([method(image) for image in images]),
    "batch size": lambda method, images: method(images, batch_size=2),
    "jit": lambda method, images: jax.jit(method)(images),
    "vmap": lambda method, images: jax.vmap(method)(images),
    "map": lambda method, images: jax.lax.map(method, images),
}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("form", FORMS)
def test_an_image_is_filtered_alike_in_every_form(name, form):
    images = pictures(5, 13, 18, 3)

    def method(images, **options):
        return filters.get(name)(images, **SMALL[name], **options)

    expected = {
        "gaussian_blur": lambda image: opencv_blur(image, 1.5),
        "median_filter": lambda image: opencv_median(image, 5, 2),
        "reverse_colors": lambda image: np.clip(2 * np.array([0.3, 0.5, 0.6]) - image, 0, 1),
    }[name]
    result = FORMS[form](method, images)
    tolerance = 0 if name == "median_filter" else 1e-6
    np.testing.assert_allclose(result, list(map(expected, images)), rtol=0, atol=tolerance)


@pytest.mark.parametrize("batch_size", [None, 1])
def test_images_on_several_devices_stay_there(batch_size):
    mesh = jax.make_mesh((4,), ("data",), (jax.sharding.AxisType.Auto,))
    images = pictures(8, 13, 18, 3)
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    result = filters.median_filter(jax.device_put(images, sharding), batch_size=batch_size)
    assert len(result.sharding.device_set) == 4
    assert not result.is_fully_replicated
    np.testing.assert_array_equal(result, [opencv_median(image, 5, 1) for image in images])


def compilations(function):
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    function()
    return len(compiled)


def test_a_sweep_compiles_once():
    images = jnp.asarray(pictures(2, 11, 12, 3))

    def sweep(start):
        for step in range(start, 4):
            filters.gaussian_blur(images, sigma=0.25 * step)
            filters.median_filter(images, times=step)
            filters.reverse_colors(images, mean=(0.1 * step, 0.5, 0.5))

    assert compilations(lambda: sweep(3)) >= 3
    assert compilations(lambda: sweep(0)) == 0


def test_levels_may_be_traced():
    picture = pictures(9, 12, 3)
    blurred = jax.vmap(lambda sigma: filters.gaussian_blur(picture, sigma=sigma))(
        jnp.array([0.0, 0.5, 2.0])
    )
    np.testing.assert_array_equal(blurred[0], picture)
    np.testing.assert_allclose(blurred[2], opencv_blur(picture, 2.0), atol=1e-6)
    medians = jax.vmap(lambda times: filters.median_filter(picture, times=times))(jnp.arange(4))
    for times in range(4):
        np.testing.assert_array_equal(medians[times], opencv_median(picture, 5, times))


def numpy_median_gradient(picture, kernel_size, gradient):
    """The gradient at each pixel's output, handed to the pixels that are its window's median."""
    result, radius = np.zeros(picture.shape), kernel_size // 2
    height, width, _ = picture.shape
    for y, x, c in np.ndindex(picture.shape):
        rows = np.clip(np.arange(y - radius, y + radius + 1), 0, height - 1)
        columns = np.clip(np.arange(x - radius, x + radius + 1), 0, width - 1)
        window = picture[np.ix_(rows, columns)][..., c]
        hits = window == np.median(window)
        for i, j in np.argwhere(hits):
            result[rows[i], columns[j], c] += gradient[y, x, c] / hits.sum()
    return result


@pytest.mark.parametrize("batch_size", [None, 1])
def test_median_gradient_goes_to_the_medians(batch_size):
    images = np.round(pictures(2, 8, 9, 2), 1)  # with ties
    weights = pictures(2, 8, 9, 2, seed=1)

    def loss(images, times):
        return (weights * filters.median_filter(images, times=times, batch_size=batch_size)).sum()

    gradient_of = jax.jit(jax.grad(loss))
    for times in (0, 1, 3):
        result = gradient_of(images, times)
        for image, gradient, found in zip(images, weights, result, strict=True):
            for level in range(times - 1, -1, -1):
                gradient = numpy_median_gradient(
                    opencv_median(image, 5, level).reshape(image.shape), 5, gradient
                )
            np.testing.assert_allclose(found, gradient, atol=1e-5)


def test_median_gradient_of_a_large_kernel():
    """In a few seconds of compilation, where one for each place of the window took minutes."""
    picture = np.round(pictures(8, 9, 2), 1)
    weights = pictures(8, 9, 2, seed=1)
    started = time.process_time()
    gradient = jax.grad(lambda x: (weights * filters.median_filter(x, kernel_size=17)).sum())(
        picture
    )
    assert time.process_time() - started < 20
    np.testing.assert_allclose(gradient, numpy_median_gradient(picture, 17, weights), atol=1e-5)


def test_gradients_of_the_others_are_finite_differences():
    picture, weights = pictures(8, 9, 3), pictures(8, 9, 3, seed=1)

    def blur(sigma):
        return (weights * filters.gaussian_blur(picture, sigma=sigma)).sum()

    step = 0.05
    difference = (blur(1.0 + step) - blur(1.0 - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(blur)(1.0), difference, rtol=1e-2)
    assert np.isfinite(jax.grad(blur)(0.0))
    assert np.isfinite(jax.grad(blur)(1e-30))
    # The blur is linear: its gradient is its transpose.
    other = pictures(8, 9, 3, seed=2)
    gradient = jax.grad(lambda image: (weights * filters.gaussian_blur(image, sigma=1.5)).sum())
    np.testing.assert_allclose(
        (gradient(picture) * other).sum(), (weights * opencv_blur(other, 1.5)).sum(), rtol=1e-5
    )
    mean = jnp.array([0.4, 0.5, 0.6])
    inside = (2 * mean - picture > 0) & (2 * mean - picture < 1)
    by_image, by_mean = jax.grad(
        lambda image, mean: (weights * filters.reverse_colors(image, mean=mean)).sum(), (0, 1)
    )(picture, mean)
    np.testing.assert_allclose(by_image, -weights * inside, atol=1e-6)
    np.testing.assert_allclose(by_mean, 2 * (weights * inside).sum((0, 1)), rtol=1e-5)


PICTURE = np.zeros((6, 7, 3), np.float32)
BAD_INPUT = {
    "integers": ("median_filter", PICTURE.astype(np.uint8), {}, TypeError, "divide uint8"),
    "rank": ("median_filter", PICTURE[..., 0], {}, ValueError, r"got \(6, 7\)"),
    "empty": ("median_filter", PICTURE[:0], {}, ValueError, r"got \(0, 7, 3\)"),
    "nan": ("median_filter", PICTURE * np.nan, {}, ValueError, "got NaN"),
    "range": ("reverse_colors", PICTURE + 2, {}, ValueError, "from 2 to 2"),
    "even kernel": (
        "median_filter",
        PICTURE,
        {"kernel_size": 4},
        ValueError,
        "kernel_size must be odd, got 4",
    ),
    "even blur": (
        "gaussian_blur",
        PICTURE,
        {"sigma": 1, "kernel_size": 6},
        ValueError,
        "kernel_size must be odd, got 6",
    ),
    "no kernel": (
        "gaussian_blur",
        PICTURE,
        {"sigma": 1, "kernel_size": 0},
        ValueError,
        "kernel_size must be a whole number of at least 1, got 0",
    ),
    "broken kernel": (
        "median_filter",
        PICTURE,
        {"kernel_size": 5.0},
        ValueError,
        "kernel_size must be a whole number",
    ),
    "negative sigma": (
        "gaussian_blur",
        PICTURE,
        {"sigma": -0.5},
        ValueError,
        "sigma must be a finite number of at least 0, got -0.5",
    ),
    "nan sigma": (
        "gaussian_blur",
        PICTURE,
        {"sigma": float("nan")},
        ValueError,
        "sigma must be a finite number of at least 0, got nan",
    ),
    "several sigmas": (
        "gaussian_blur",
        PICTURE,
        {"sigma": jnp.ones(3)},
        ValueError,
        r"sigma must be one number, got shape \(3,\)",
    ),
    "no sigma": ("gaussian_blur", PICTURE, {"sigma": None}, TypeError, "sigma must be a number"),
    "negative times": (
        "median_filter",
        PICTURE,
        {"times": -1},
        ValueError,
        "times must be a whole number of at least 0, got -1",
    ),
    "broken times": ("median_filter", PICTURE, {"times": 1.5}, ValueError, "times must be a whole"),
    "several times": (
        "median_filter",
        PICTURE,
        {"times": [1, 2]},
        ValueError,
        r"times must be one number, got shape \(2,\)",
    ),
    "channels": (
        "reverse_colors",
        PICTURE[..., :1],
        {},
        ValueError,
        r"images' 1 channels, got shape \(3,\)",
    ),
    "mean": ("reverse_colors", PICTURE, {"mean": (124, 116, 104)}, ValueError, "mean must lie in"),
    "batch size": (
        "reverse_colors",
        PICTURE,
        {"batch_size": 0},
        ValueError,
        "batch_size must be a whole number",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(case):
    name, images, options, error, message = BAD_INPUT[case]
    with pytest.raises(error, match=message):
        filters.get(name)(images, **options)


def test_broken_times_under_a_trace():
    with pytest.raises(TypeError, match="times must be a whole number, got dtype float32"):
        jax.jit(lambda times: filters.median_filter(PICTURE, times=times))(1.0)


def test_options_of_configs_are_checked_without_running():
    filters.check_options("gaussian_blur", {"sigma": 0.5})
    filters.check_options("median_filter", {})
    filters.check_options("reverse_colors", {"mean": [0.5, 0.5, 0.5]})
    with pytest.raises(ValueError, match=r"filter must be one of .* \(did you mean 'median_filt"):
        filters.check_options("median_fliter", {})
    with pytest.raises(ValueError, match="'size' is no option of median_filter"):
        filters.check_options("median_filter", {"size": 5})
    with pytest.raises(ValueError, match="'batch_size' is no option of median_filter"):
        filters.check_options("median_filter", {"batch_size": 5})
    with pytest.raises(ValueError, match="gaussian_blur needs sigma"):
        filters.check_options("gaussian_blur", {"kernel_size": 5})
    with pytest.raises(ValueError, match="sigma must be a finite number"):
        filters.check_options("gaussian_blur", {"sigma": -1.0})
    with pytest.raises(ValueError, match="kernel_size must be odd"):
        filters.check_options("median_filter", {"kernel_size": 2})
