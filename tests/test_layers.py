import re
from collections import namedtuple
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxrobust.core import cpu_compiler, cpu_lowering
from jaxrobust.models import layers
from tests.tiny import assert_equal_to_rounding

Case = namedtuple("Case", "batch height width channels features kernel stride padding groups")
CASES = [
    Case(2, 8, 8, 3, 4, 3, 1, 1, 1),
    Case(2, 9, 7, 3, 4, 3, 2, 1, 1),
    Case(2, 8, 8, 4, 6, 1, 1, 0, 1),
    Case(2, 9, 8, 4, 6, 1, 2, 0, 1),
    Case(2, 7, 7, 4, 6, 1, 2, 1, 1),
    Case(2, 9, 9, 3, 4, 5, 1, 2, 1),
    Case(2, 15, 13, 3, 4, 7, 2, 3, 1),
    Case(2, 23, 27, 3, 4, 11, 4, 2, 1),
    Case(2, 8, 8, 4, 6, 3, 1, 1, 2),
    Case(2, 9, 8, 4, 4, 3, 2, 1, 4),
    Case(3, 5, 5, 4, 6, 5, 1, 0, 1),
    Case(3, 8, 6, 3, 4, (3, 5), (2, 1), (0, 2), 1),
    # More images than pixels.
    Case(32, 6, 6, 64, 3, 3, 1, 1, 1),
    Case(32, 7, 6, 64, 3, 3, 2, 1, 1),
    Case(32, 7, 7, 64, 3, 1, 2, 0, 1),
    # Strides that pass pixels over, and a border wider than the kernel.
    Case(2, 10, 11, 3, 4, 3, 4, 0, 1),
    Case(2, 7, 9, 4, 3, 2, 3, 2, 1),
]


def _pair(value):
    return (value, value) if isinstance(value, int) else value


def _operands(case, seed=0):
    rng = np.random.default_rng(seed)
    shape = (case.batch, case.height, case.width, case.channels)
    images = rng.standard_normal(shape, np.float32)
    shape = (*_pair(case.kernel), case.channels // case.groups, case.features)
    kernel = rng.standard_normal(shape, np.float32)
    return jnp.asarray(images), jnp.asarray(kernel)


def _convolve(images, kernel, case):
    return layers.convolve(
        images, kernel, stride=case.stride, padding=case.padding, groups=case.groups
    )


def _numpy_convolution(images, kernel, case):
    (down, across), (top, left) = _pair(case.stride), _pair(case.padding)
    images = np.pad(np.float64(images), ((0, 0), (top, top), (left, left), (0, 0)))
    rows, columns = kernel.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(images, (rows, columns), (1, 2))
    windows = windows[:, ::down, ::across]
    outputs = []
    for group in range(case.groups):
        part = slice(group * kernel.shape[2], (group + 1) * kernel.shape[2])
        size = case.features // case.groups
        weights = np.float64(kernel[..., group * size : (group + 1) * size])
        outputs.append(np.einsum("nhwcij,ijco->nhwo", windows[:, :, :, part], weights))
    return np.concatenate(outputs, -1)


def _values_and_gradients(case, call):
    """Output, input gradient, weight gradient and the gradient of a gradient, compiled anew."""

    def compute(images, kernel):
        def loss(images, kernel):
            output = call(images, kernel, case)
            return jnp.sum(output**2), output

        gradients, output = jax.grad(loss, (0, 1), has_aux=True)(images, kernel)

        def gradient_norm(kernel):
            return jnp.sum(jax.grad(loss, has_aux=True)(images, kernel)[0] ** 2)

        second = jax.grad(gradient_norm)(kernel)
        return output, *gradients, second

    return jax.jit(compute)(*_operands(case))


def _vmapped(images, kernel, case):
    return jax.vmap(lambda image: _convolve(image[None], kernel, case)[0])(images)


@pytest.mark.parametrize(
    ("case", "call"),
    [(case, _convolve) for case in CASES] + [(CASES[i], _vmapped) for i in (1, 3, 8, 13)],
)
def test_convolution_equals_numpy_and_its_gradients_the_plain_ones(case, call):
    ours = _values_and_gradients(case, call)
    expected = _numpy_convolution(*_operands(case), case)
    np.testing.assert_allclose(ours[0], expected, rtol=1e-4, atol=1e-3)
    with cpu_lowering.only():
        plain = _values_and_gradients(case, call)
    for one, other in zip(ours, plain, strict=True):
        assert_equal_to_rounding(one, other, 2e-5)


@pytest.mark.parametrize("case", [CASES[i] for i in (0, 1, 3, 8, 12)])
def test_gradients_in_a_loop_equal_those_outside(case):
    def step(images, kernel):
        gradient = jax.grad(lambda x, k: jnp.sum(jnp.sin(_convolve(x, k, case))), (0, 1))
        return jax.tree.map(lambda x, g: x + 1e-3 * g, (images, kernel), gradient(images, kernel))

    operands = _operands(case)
    looped = jax.jit(lambda *o: jax.lax.fori_loop(0, 2, lambda _, o: step(*o), o))(*operands)
    with cpu_lowering.only():
        plain_step = jax.jit(step)
        expected = plain_step(*plain_step(*operands))
    for one, other in zip(looped, expected, strict=True):
        assert_equal_to_rounding(one, other, 1e-4)


@pytest.mark.parametrize("case", [CASES[i] for i in (0, 1, 3, 13)])
def test_gradients_of_images_sharded_over_devices(case):
    case = case._replace(batch=2 * jax.device_count())

    def loss(images, kernel):
        pooled = layers.max_pool(_convolve(images, kernel, case), 2, stride=1)
        return jnp.sum(jnp.sin(pooled))

    # Of few bits, so that the convolution's sums are exact in any order: its rounding, which one
    # and eight devices may do differently, would be enlarged by what comes after it.
    images, kernel = (jnp.round(8 * operand.clip(-4, 4)) / 8 for operand in _operands(case))
    expected = jax.jit(jax.grad(loss, (0, 1)))(images, kernel)
    mesh = jax.make_mesh((jax.device_count(),), ("data",), (jax.sharding.AxisType.Auto,))
    batch = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    images = jax.device_put(images, batch)
    kernel = jax.device_put(kernel, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
    sharded = jax.jit(jax.grad(loss, (0, 1)))(images, kernel)
    assert sharded[0].sharding.is_equivalent_to(batch, 4)
    for one, other in zip(sharded, expected, strict=True):
        assert_equal_to_rounding(one, other)


def test_forward_mode_still_works():
    images, kernel = _operands(CASES[1])

    @jax.jit
    def forward(kernel):
        return jax.jvp(lambda k: _convolve(images, k, CASES[1]), (kernel,), (kernel,))

    output, tangent = forward(kernel)
    np.testing.assert_allclose(tangent, output, rtol=1e-5)


def _convolutions(function, *operands):
    """The dimension numbers and dilations of the convolutions that XLA is given."""
    text = jax.jit(function).lower(*operands).as_text()
    return re.findall(r"dim_numbers = (\S.*->\S.*?\]), .*?lhs_dilate = \[([^]]*)\]", text)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="a formulation for CPU")
@pytest.mark.parametrize("case", [CASES[i] for i in (0, 1, 3, 7)])
def test_loops_hold_only_convolutions_in_the_fast_form(case):
    assert cpu_lowering.available()

    def attack(images, kernel):
        gradient = jax.grad(lambda x: jnp.sum(_convolve(x, kernel, case) ** 2))
        return jax.lax.fori_loop(0, 3, lambda _, x: x - gradient(x), images)

    found = set(_convolutions(attack, *_operands(case)))
    assert found == {("[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]", "1, 1")}
    with cpu_lowering.only():
        plain = set(_convolutions(lambda *operands: attack(*operands), *_operands(case)))
    assert len(plain) == 2


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="a formulation for CPU")
@pytest.mark.parametrize("products", [False, True])
def test_weight_gradients_are_products_where_those_are_fast(products, monkeypatch):
    monkeypatch.setattr(cpu_compiler, "has_onednn", lambda: products)

    def gradients(case):
        def gradient(images, kernel):
            return jax.grad(lambda k: jnp.sum(jnp.sin(_convolve(images, k, case))))(kernel)

        return gradient

    for case in (CASES[0], CASES[5], CASES[11]._replace(stride=1)):
        gradient = gradients(case)
        assert len(_convolutions(gradient, *_operands(case))) == (1 if products else 2)
        result = jax.jit(gradient)(*_operands(case))
        with cpu_lowering.only():
            expected = jax.jit(gradients(case))(*_operands(case))
        assert_equal_to_rounding(result, expected)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="a formulation for CPU")
@pytest.mark.parametrize("channels", [1, 3])
def test_input_gradients_of_few_channels_are_products(channels):
    """Of the first layer of networks: only the convolution into its features is left."""
    case = CASES[0]._replace(channels=channels)

    def features():
        def gradient(images, kernel):
            return jax.grad(lambda x: jnp.sum(jnp.sin(_convolve(x, kernel, case))))(images)

        text = jax.jit(gradient).lower(*_operands(case)).as_text()
        return re.findall(r"stablehlo.convolution.*-> tensor<2x8x8x(\d+)xf32>", text)

    assert features() == [str(case.features)]
    with cpu_lowering.only():
        assert features() == [str(case.features), str(channels)]


@pytest.mark.parametrize("shape", [(8, 9, 5, 64), (3, 80, 80), (4, 4, 2, 3, 300)])
def test_long_sums_over_all_but_the_last_axis(shape):
    values = jnp.asarray(np.random.default_rng(0).standard_normal(shape, np.float32))
    axes = tuple(range(len(shape) - 1))
    total = jax.jit(lambda v: jnp.sum(v, axes))(values)
    assert total.dtype == jnp.float32
    np.testing.assert_allclose(total, np.float64(values).sum(axes), rtol=0, atol=1e-3)
    doubled = jax.jit(jax.grad(lambda v: jnp.sum(jnp.sum(v, axes) ** 2) / 2))(values)
    np.testing.assert_allclose(doubled, np.broadcast_to(total, shape), rtol=0, atol=1e-3)


def test_long_sums_of_images_of_a_number_not_known_yet_are_exported():
    (count,) = jax.export.symbolic_shape("n")
    mean = jax.jit(lambda images: jnp.mean(images, (0, 1, 2)))
    exported = jax.export.export(mean)(jax.ShapeDtypeStruct((count, 32, 32, 3), jnp.float32))
    images = jnp.ones((7, 32, 32, 3))
    np.testing.assert_allclose(exported.call(images), mean(images), rtol=1e-6)


def test_single_images_under_vmap_are_one_convolution():
    case = CASES[0]
    jaxpr = jax.make_jaxpr(lambda x, k: _vmapped(x, k, case))(*_operands(case))
    convolutions = [e for e in jaxpr.eqns if e.primitive.name == "conv_general_dilated"]
    assert len(convolutions) == 1
    assert len(convolutions[0].invars[0].aval.shape) == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kernel_size": 3, "stride": 0}, "stride must be"),
        ({"kernel_size": 3, "padding": -1}, "padding must be"),
        ({"kernel_size": (3, 3, 3)}, "kernel_size must be"),
        ({"kernel_size": 7}, "too small for a convolution of size 7"),
        ({"kernel_size": 3, "groups": 2}, "groups must divide the 3 input"),
    ],
)
def test_convolution_names_what_is_wrong(fields, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(
            layers.Convolution(4, **fields).init, jax.random.key(0), jnp.zeros((1, 5, 5, 3))
        )


def test_convolution_parameters_and_bias():
    layer = layers.Convolution(4, 3, padding=1, use_bias=True, dtype=jnp.bfloat16)
    output, variables = jax.jit(layer.init_with_output)(jax.random.key(0), jnp.zeros((1, 5, 5, 3)))
    kernel, bias = variables["params"]["kernel"], variables["params"]["bias"]
    assert kernel.shape == (3, 3, 3, 4)
    assert kernel.dtype == bias.dtype == jnp.float32
    assert np.abs(kernel).max() <= 27**-0.5
    assert np.abs(bias).max() <= 27**-0.5
    assert output.dtype == jnp.bfloat16
    np.testing.assert_allclose(output[0, 0, 0].astype(jnp.float32), bias, rtol=1e-2)


def test_he_initialisation_has_the_fan_out_variance():
    initialize = jax.jit(layers.he_normal_fan_out(), static_argnums=1)
    kernel = initialize(jax.random.key(0), (3, 3, 64, 128))
    np.testing.assert_allclose(np.std(kernel), (2 / (9 * 128)) ** 0.5, rtol=0.02)


def _batch_norm(**fields):
    norm = layers.BatchNorm(**fields)
    statistics = {"mean": jnp.zeros(3), "var": jnp.ones(3)}
    rng = np.random.default_rng(1)
    draw = {"scale": rng.uniform(0.5, 2, 3), "bias": rng.normal(size=3)}
    params = {name: jnp.asarray(value, jnp.float32) for name, value in draw.items()}
    inputs = jnp.asarray(3 + 2 * rng.standard_normal((4, 5, 6, 3), np.float32))
    return norm, {"batch_stats": statistics, "params": params}, inputs


def _trained(norm):
    return jax.jit(partial(norm.apply, train=True, mutable=["batch_stats"]))


def test_batch_norm_starts_as_the_identity():
    norm, variables, _ = _batch_norm()
    drawn = jax.jit(norm.init)(jax.random.key(0), jnp.zeros((1, 2, 2, 3)))
    expected = {"scale": jnp.ones(3), "bias": jnp.zeros(3)}
    expected = {"params": expected, "batch_stats": variables["batch_stats"]}
    jax.tree.map(np.testing.assert_array_equal, drawn, expected)


def test_batch_norm_in_training():
    norm, variables, inputs = _batch_norm()
    output, updates = _trained(norm)(variables, inputs)
    values = np.float64(inputs)
    mean, var = values.mean((0, 1, 2)), values.var((0, 1, 2))
    expected = (values - mean) / np.sqrt(var + 1e-5)
    expected = expected * variables["params"]["scale"] + variables["params"]["bias"]
    np.testing.assert_allclose(output, expected, atol=1e-5)
    unbiased = values.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(updates["batch_stats"]["mean"], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(updates["batch_stats"]["var"], 0.9 + 0.1 * unbiased, rtol=1e-5)


def test_batch_norm_statistics_stay_exact_far_from_zero():
    norm, variables, inputs = _batch_norm()
    apply = _trained(norm)
    output, _ = apply(variables, inputs + 1000)
    near, _ = apply(variables, inputs)
    np.testing.assert_allclose(output, near, atol=5e-3)


def test_batch_norm_in_evaluation():
    norm, variables, inputs = _batch_norm()
    statistics = {"mean": jnp.array([1.0, 2.0, 3.0]), "var": jnp.array([0.5, 1.0, 4.0])}
    variables = {**variables, "batch_stats": statistics}
    expected = (np.float64(inputs) - statistics["mean"]) / np.sqrt(statistics["var"] + 1e-5)
    expected = expected * variables["params"]["scale"] + variables["params"]["bias"]
    np.testing.assert_allclose(jax.jit(norm.apply)(variables, inputs), expected, atol=1e-5)


def test_batch_statistics_across_a_vmapped_axis():
    norm, variables, inputs = _batch_norm()
    expected, _ = _trained(norm)(variables, inputs)
    across = norm.clone(batch_statistics_axis="images")
    apply = jax.vmap(lambda x: across.apply(variables, x[None])[0], axis_name="images")
    output = jax.jit(apply)(inputs)
    np.testing.assert_allclose(output, expected, atol=1e-5)


def test_batch_norm_computes_statistics_in_float32():
    norm, variables, inputs = _batch_norm(dtype=jnp.bfloat16)
    inputs = inputs.astype(jnp.bfloat16)
    output, updates = _trained(norm)(variables, inputs)
    assert output.dtype == jnp.bfloat16
    mean = np.float64(inputs.astype(jnp.float32)).mean((0, 1, 2))
    np.testing.assert_allclose(updates["batch_stats"]["mean"], 0.1 * mean, rtol=1e-5)


def test_batch_norm_refuses_a_single_value_per_channel():
    norm, variables, _ = _batch_norm()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        jax.eval_shape(_trained(norm), variables, jnp.zeros((1, 1, 1, 3)))


POOLS = [(8, 8, 2, 2, 0), (9, 7, 3, 2, 1), (11, 12, 3, 2, 0), (6, 6, 3, 1, 1)]


def _numpy_pool_and_gradient(images, gradient_of, size, stride, padding):
    images = np.asarray(images)
    border = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = np.pad(images, border, constant_values=-np.inf)
    n, height, width, channels = padded.shape
    rows, columns = (height - size) // stride + 1, (width - size) // stride + 1
    output = np.zeros((n, rows, columns, channels), np.float32)
    gradient = np.zeros_like(padded)
    for i, r, c, k in np.ndindex(output.shape):
        top, left = r * stride, c * stride
        window = padded[i, top : top + size, left : left + size, k]
        output[i, r, c, k] = window.max()
        down, across = divmod(int(window.argmax()), size)
        gradient[i, top + down, left + across, k] += gradient_of[i, r, c, k]
    inner = slice(padding, -padding or None)
    return output, gradient[:, inner, inner]


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(("height", "width", "size", "stride", "padding"), POOLS)
def test_max_pool_and_its_gradient(height, width, size, stride, padding, plain):
    rng = np.random.default_rng(0)
    # Rounded and cut at zero, so that windows are full of ties.
    images = np.maximum(np.round(rng.standard_normal((2, height, width, 3), np.float32)), 0)

    def pool(images):
        return layers.max_pool(images, size, stride=stride, padding=padding)

    shape = jax.eval_shape(pool, images).shape
    gradient_of = rng.standard_normal(shape, np.float32)
    expected = _numpy_pool_and_gradient(images, gradient_of, size, stride, padding)

    def pool_and_gradient(images):
        output, backward = jax.vjp(pool, images)
        return output, backward(jnp.asarray(gradient_of))[0]

    if plain:
        with cpu_lowering.only():
            output, gradient = jax.jit(pool_and_gradient)(jnp.asarray(images))
    else:
        output, gradient = jax.jit(pool_and_gradient)(jnp.asarray(images))
    np.testing.assert_array_equal(output, expected[0])
    np.testing.assert_allclose(gradient, expected[1], atol=1e-6)


def test_max_pool_names_what_is_wrong():
    with pytest.raises(ValueError, match="between 0 and half the size 2, got 2"):
        layers.max_pool(jnp.zeros((1, 8, 8, 1)), 2, padding=2)
    with pytest.raises(ValueError, match="too small for a max-pool of size 3"):
        layers.max_pool(jnp.zeros((1, 2, 8, 1)), 3)


def _halved(image, downsampling):
    """By SciPy, for one channel."""
    if downsampling == "blur_pool":
        binomial = np.outer([1, 2, 1], [1, 2, 1]) / 16
        return ndimage.correlate(image, binomial, mode="mirror")[::2, ::2]
    if downsampling == "max_blur_pool":
        image = ndimage.maximum_filter(image, 2, origin=-1, mode="nearest")
    image = np.pad(image, [(0, side % 2) for side in image.shape], mode="edge")
    if downsampling == "max_pool":
        return ndimage.maximum_filter(image, 2, origin=-1)[::2, ::2]
    return ndimage.correlate(image, np.full((2, 2), 0.25), origin=-1)[::2, ::2]


@pytest.mark.parametrize("downsampling", layers.DOWNSAMPLINGS[1:])
@pytest.mark.parametrize(("height", "width"), [(8, 6), (7, 4), (5, 9)])
def test_halve(height, width, downsampling):
    images = np.random.default_rng(0).standard_normal((2, height, width, 3), np.float32)
    output = jax.jit(layers.halve, static_argnums=1)(images, downsampling)
    for i, c in np.ndindex(2, 3):
        expected = _halved(images[i, :, :, c].astype(np.float64), downsampling)
        np.testing.assert_allclose(output[i, :, :, c], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("downsampling", "gradient"),
    [
        ("max_pool", [[1 / 3, 1 / 3], [1 / 3, 0]]),
        # Of four maxima, a quarter each; the upper left one is shared down, then across.
        ("max_blur_pool", [[1 / 16, 3 / 8], [5 / 16, 1 / 4]]),
    ],
)
def test_equal_maxima_share_the_gradient(downsampling, gradient):
    """By hand."""
    image = jnp.array([[1.0, 1.0], [1.0, 0.0]])[None, :, :, None]
    shares = jax.grad(lambda images: layers.halve(images, downsampling).sum())(image)
    np.testing.assert_allclose(shares[0, :, :, 0], gradient, rtol=1e-6)


@pytest.mark.parametrize("downsampling", layers.DOWNSAMPLINGS[1:])
def test_halving_reads_every_pixel_alike(downsampling):
    """Of many pictures of noise, each phase of 2 x 2 pixels gets a quarter of the gradient."""
    images = np.random.default_rng(0).standard_normal((64, 32, 32, 1), np.float32)
    gradient = jax.grad(lambda images: layers.halve(images, downsampling).sum())(images)
    inner = np.asarray(gradient)[:, 2:-2, 2:-2]
    shares = [inner[:, row::2, column::2].sum() for row, column in np.ndindex(2, 2)]
    np.testing.assert_allclose(np.array(shares) / sum(shares), 0.25, atol=0.01)


@pytest.mark.parametrize(
    ("height", "width", "size"), [(13, 13, 6), (6, 6, 6), (7, 3, 6), (12, 18, (6, 4)), (5, 5, 1)]
)
def test_adaptive_average_pool(height, width, size):
    images = np.random.default_rng(0).standard_normal((2, height, width, 3), np.float32)
    rows, columns = _pair(size)
    expected = np.zeros((2, rows, columns, 3))
    for r in range(rows):
        for c in range(columns):
            top, bottom = int(np.floor(r * height / rows)), int(np.ceil((r + 1) * height / rows))
            left, right = (
                int(np.floor(c * width / columns)),
                int(np.ceil((c + 1) * width / columns)),
            )
            expected[:, r, c] = images[:, top:bottom, left:right].mean((1, 2))
    output = jax.jit(layers.adaptive_average_pool, static_argnums=1)(images, size)
    np.testing.assert_allclose(output, expected, atol=1e-6)


def test_normalize():
    images = np.random.default_rng(0).uniform(size=(2, 3, 4, 2)).astype(np.float32)
    output = layers.normalize(jnp.asarray(images), (0.5, 0.25), (0.1, 0.2), jnp.bfloat16)
    assert output.dtype == jnp.bfloat16
    expected = jnp.asarray((images - [0.5, 0.25]) / [0.1, 0.2], jnp.float32)
    # Rounded once, after the arithmetic.
    np.testing.assert_allclose(output.astype(jnp.float32), expected, rtol=2**-8, atol=0)


@pytest.mark.parametrize(
    ("images", "std", "error", "message"),
    [
        (np.zeros((3, 4, 3), np.float32), (1.0,) * 3, ValueError, r"got \(3, 4, 3\)"),
        (np.zeros((1, 3, 4, 1), np.float32), (1.0,) * 3, ValueError, r"\(n, height, width, 3\)"),
        (np.zeros((1, 3, 4, 3), np.uint8), (1.0,) * 3, TypeError, "got uint8"),
        (np.zeros((1, 3, 4, 3), np.float32), (1.0,) * 2, ValueError, "got 3 and 2"),
    ],
)
def test_normalize_names_what_is_wrong(images, std, error, message):
    with pytest.raises(error, match=message):
        layers.normalize(jnp.asarray(images), (0.5,) * 3, std)
