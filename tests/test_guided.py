import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrobust import Classifier, models, saliency
from jaxrobust.guided import count_relus, guided, guided_relu
from jaxrobust.models import resnet
from tests.tiny import assert_equal_to_rounding, drawn_variables

WEIGHTS = np.random.default_rng(0).standard_normal((4, 6, 6)).astype(np.float32) / 2
POINTS = np.random.default_rng(1).standard_normal((5, 6)).astype(np.float32)


def nested(relu):
    """ReLUs inside everything that a program can be nested in."""

    def fn(x):
        hidden = jax.checkpoint(lambda x: relu(WEIGHTS[0] @ x))(x)
        hidden, _ = jax.lax.scan(
            lambda hidden, weights: (jax.jit(relu)(weights @ hidden), None), hidden, WEIGHTS
        )
        hidden = jax.lax.cond(
            hidden[0] > 0.1, lambda h: relu(WEIGHTS[1] @ h), lambda h: relu(h - 0.1), hidden
        )
        hidden = jax.vmap(relu)((WEIGHTS[2] @ hidden).reshape(2, 3)).reshape(-1)
        hidden = jax.lax.switch(1, [jnp.sin, lambda h: relu(WEIGHTS[3] @ h) - h], hidden)
        return ((hidden**2 + hidden) * jnp.array([1.0, -1.0, 2.0, -2.0, 1.0, -1.0])).sum()

    return fn


TRANSFORMATIONS = {
    "map of gradients": lambda fn: [jax.grad(fn)(x) for x in POINTS],
    "vmap of grad": lambda fn: jax.vmap(jax.grad(fn))(POINTS),
    "jit of vmap of grad": lambda fn: jax.jit(jax.vmap(jax.grad(fn)))(POINTS),
    "vmap of jit of grad": lambda fn: jax.vmap(jax.jit(jax.grad(fn)))(POINTS),
    "vmap of grad of jit": lambda fn: jax.vmap(jax.grad(jax.jit(fn)))(POINTS),
    "grad of vmap": lambda fn: jax.grad(lambda xs: jax.vmap(fn)(xs).sum())(POINTS),
    "grad of remat of vmap": lambda fn: jax.grad(jax.checkpoint(lambda xs: jax.vmap(fn)(xs).sum()))(
        POINTS
    ),
    "grad of scan": lambda fn: jax.grad(
        lambda xs: jax.lax.scan(lambda total, x: (total + fn(x), None), 0.0, xs)[0]
    )(POINTS),
    "grad of grad": lambda fn: jax.vmap(jax.grad(lambda x: (jax.grad(fn)(x) ** 2).sum()))(POINTS),
}


@pytest.mark.slow
@pytest.mark.parametrize("transformation", TRANSFORMATIONS.values(), ids=TRANSFORMATIONS)
def test_any_order_of_transformations_equals_the_function_written_with_guided_relus(transformation):
    found = np.stack(transformation(guided(nested(jax.nn.relu))))
    assert_equal_to_rounding(found, np.stack(transformation(nested(guided_relu))))


@pytest.mark.parametrize("name", ["jit of vmap of grad", "grad of grad"])
def test_guided_gradients_are_others(name):
    transformation = TRANSFORMATIONS[name]
    found, vanilla = (transformation(nested(relu)) for relu in (guided_relu, jax.nn.relu))
    assert not np.allclose(found, vanilla, rtol=0.1)


def test_values_are_unchanged():
    fn = nested(jax.nn.relu)
    for x in POINTS:
        np.testing.assert_allclose(guided(fn)(x), jax.jit(fn)(x), rtol=1e-5)


def test_the_rule_by_hand():
    unit = np.array([-1.0, -1.0, 0.0, 0.0, 2.0, 2.0], np.float32)
    incoming = np.array([-3.0, 3.0, -3.0, 3.0, -3.0, 3.0], np.float32)
    _, pull = jax.vjp(guided(jax.nn.relu), unit)
    assert pull(incoming)[0].tolist() == [0, 0, 0, 0, 0, 3]
    _, pull = jax.vjp(jax.nn.relu, unit)
    assert pull(incoming)[0].tolist() == [0, 0, 0, 0, -3, 3]


@pytest.mark.parametrize(
    ("name", "relus"),
    [
        ("alexnet", 7),
        ("resnet8_small", 7),
        ("resnet18", 17),
        ("resnet34", 33),
        ("resnet50", 49),
        ("resnet101", 100),
        ("resnet152", 151),
    ],
)
def test_no_relu_of_an_architecture_is_missed(name, relus):
    model = models.create(name, num_classes=10)
    classifier = jax.eval_shape(
        lambda key: Classifier.init(key, model, (64, 64, 3)), jax.random.key(0)
    )
    assert count_relus(classifier, jax.ShapeDtypeStruct((64, 64, 3), jnp.float32)) == relus


ARCHITECTURES = {
    # Blocks with and without a projection: all that a ResNet-50 has, to which the count holds.
    "bottlenecks": resnet.ResNet((2, 1), bottleneck=True, num_classes=7),
    "alexnet": models.create("alexnet", num_classes=7, hidden=64),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures_equal_those_written_with_guided_relus(name, monkeypatch):
    size = 64
    model = ARCHITECTURES[name]
    classifier = Classifier(model, drawn_variables(model, (size, size, 3)))
    image = jax.random.uniform(jax.random.key(0), (size, size, 3))

    def map_of(classifier):
        return np.asarray(saliency.vanilla_gradient(classifier, image, 3))

    found, vanilla = map_of(guided(classifier)), map_of(classifier)
    # The same network, its layers calling the guided ReLU.
    monkeypatch.setattr(jax.nn, "relu", guided_relu)
    jax.clear_caches()
    with pytest.raises(ValueError, match="has no jax"):
        guided(classifier)(image)
    assert_equal_to_rounding(found, map_of(classifier), share=0.99)
    assert np.abs(found - vanilla).max() > 0.1 * np.abs(vanilla).max()
    monkeypatch.undo()
    jax.clear_caches()


class Network(nnx.Module):
    """NNX, with layers that hold max(x, 0) or clip without being ReLUs."""

    def __init__(self, relu, train=False):
        rngs = nnx.Rngs(0)
        self.relu = relu
        self.convolution = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.group = nnx.GroupNorm(8, num_groups=2, rngs=rngs)
        self.batch = nnx.BatchNorm(8, use_running_average=not train, rngs=rngs)
        self.layer = nnx.LayerNorm(8, rngs=rngs)
        self.head = nnx.Linear(8, 4, rngs=rngs)

    def __call__(self, image):
        features = self.relu(self.group(self.convolution(image)))
        features = self.relu(self.batch(features) - 0.1)
        features = jnp.clip(self.layer(features), -0.5, 2.0)
        return self.head(self.relu(features).mean((-3, -2)))


def test_nnx_with_every_normalization_keeps_all_but_its_relus():
    image = jax.random.uniform(jax.random.key(1), (6, 6, 3))
    network = Network(nnx.relu)
    assert count_relus(network, image) == 3
    # max(x, 0) stands in the variance of the two norms too, and would be taken without need.
    assert count_relus(network, image, maximum_as_relu=True) > 3
    assert_equal_to_rounding(guided(network)(image), jax.jit(Network.__call__)(network, image))

    def gradient(network):
        return jax.jit(jax.grad(lambda network, image: network(image)[2], argnums=1))(
            network, image
        )

    found = jax.jit(jax.grad(lambda image: guided(network)(image)[2]))(image)
    assert_equal_to_rounding(found, gradient(Network(guided_relu)), share=0.99)
    assert np.abs(found - gradient(network)).max() > 0.01 * np.abs(found).max()


def test_nnx_in_train_mode_is_refused():
    with pytest.raises(ValueError, match=r"a call has changed \.batch.* of this Network: .*eval"):
        guided(Network(nnx.relu, train=True))(jnp.ones((6, 6, 3)))


class TrainMode(nn.Module):
    relu: object

    @nn.compact
    def __call__(self, x):
        x = self.relu(nn.BatchNorm(use_running_average=False)(nn.Dense(5)(x)))
        return nn.Dense(3)(self.relu(nn.LayerNorm()(x)))


def test_linen_in_train_mode_returns_its_updates_too():
    x = jnp.asarray(POINTS)
    variables = TrainMode(nn.relu).init(jax.random.key(0), x)

    def apply(relu):
        return lambda variables, x: TrainMode(relu).apply(variables, x, mutable=["batch_stats"])

    found, updates = guided(apply(nn.relu))(variables, x)
    expected, expected_updates = apply(nn.relu)(variables, x)
    assert_equal_to_rounding(found, expected)  # compiled as one, and layer by layer
    for update, wanted in zip(*map(jax.tree.leaves, (updates, expected_updates)), strict=True):
        assert_equal_to_rounding(update, wanted)

    def gradient(fn):
        return jax.jit(jax.grad(lambda x: fn(variables, x)[0][:, 1].sum()))(x)

    assert_equal_to_rounding(gradient(guided(apply(nn.relu))), gradient(apply(guided_relu)))


MAXIMA = {
    "maximum(x, 0)": lambda x: jnp.maximum(x, 0),
    "maximum(0.0, x)": lambda x: jnp.maximum(0.0, x),
    "maximum(x, zeros)": lambda x: jnp.maximum(x, jnp.zeros_like(x)),
    "lax.max": lambda x: jax.lax.max(x, jnp.float32(0)),
    "jit with the zero as argument": lambda x: jax.jit(jnp.maximum)(x, 0.0),
    "remat": lambda x: jax.checkpoint(lambda x: jnp.maximum(x, 0.0))(x),
    "max of lists": lambda x: jax.lax.map(lambda value: jnp.maximum(value, 0), x),
    "clip without upper end": lambda x: jnp.clip(x, 0),
}


@pytest.mark.parametrize("maximum", MAXIMA.values(), ids=MAXIMA)
def test_maximum_as_relu_takes_either_order(maximum):
    weights = jnp.array([1.0, -1.0, 2.0, -2.0, 1.0, -1.0])

    def fn(x):
        return (maximum(x) * weights).sum()

    for x in POINTS:
        expected = np.where((x > 0) & (weights > 0), weights, 0)
        np.testing.assert_array_equal(jax.grad(guided(fn, maximum_as_relu=True))(x), expected)
    with pytest.raises(ValueError, match=r"no jax\.nn\.relu.*pass maximum_as_relu=True"):
        guided(fn)(POINTS[0])


def test_a_maximum_with_anything_else_is_no_relu():
    def fn(x):
        return (jnp.maximum(x, 0.5) + jnp.maximum(x, x[0]) + jnp.maximum(1, x)).sum()

    with pytest.raises(ValueError, match=r"no jax\.nn\.relu to which"):
        guided(fn, maximum_as_relu=True)(POINTS[0])


@jax.custom_vjp
def scaled(x):
    """A layer with a backward rule of its own: seven times the gradient."""
    return 2 * x


scaled.defvjp(lambda x: (scaled(x), None), lambda _, gradient: (7 * gradient,))


@jax.custom_jvp
def relu(x):
    """Named like the ReLU and of its values, but with a slope of a half everywhere."""
    return jnp.maximum(x, 0)


relu.defjvps(lambda tangent, _, x: 0.5 * tangent)


@jax.custom_vjp
def hidden_relu(x):
    return jax.nn.relu(x)


hidden_relu.defvjp(lambda x: (hidden_relu(x), None), lambda _, gradient: (3 * gradient,))


def test_custom_rules_survive():
    x = jnp.array([-1.0, 2.0, 3.0])
    weights = jnp.array([1.0, 1.0, -1.0])

    def fn(layer):
        return lambda x: (jax.nn.relu(layer(x)) * weights).sum()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert jax.grad(guided(fn(scaled)))(x).tolist() == [0, 7, 0]
        assert jax.grad(guided(fn(relu)))(x).tolist() == [0, 0.5, 0]
        with pytest.raises(ValueError, match="has no jax"):
            guided(relu)(x)
    with pytest.warns(UserWarning, match="1 ReLU inside functions with a derivative rule"):
        assert jax.grad(guided(fn(hidden_relu)))(x).tolist() == [0, 3, 0]
    with pytest.raises(ValueError, match="1 under derivative rules of their own"):
        guided(hidden_relu)(x)


def test_weights_are_arguments_and_a_second_call_compiles_nothing():
    model = models.create("resnet8_small", num_classes=3, width=4)
    classifier = Classifier(model, drawn_variables(model, (16, 16, 3)))
    image = jnp.ones((16, 16, 3))
    program = jax.make_jaxpr(lambda classifier, image: guided(classifier)(image))(classifier, image)
    assert not any(np.size(const) > 10 for const in program.consts)

    saliency.guided_backprop(classifier, image, 0)
    other, darker = jax.tree.map(lambda leaf: leaf + 1, (classifier, image - 1.5))
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    saliency.guided_backprop(other, darker, 2)
    jax.monitoring.clear_event_listeners()
    assert compiled == []


def test_arguments_that_are_no_arrays_stay_python():
    def fn(x, power, *, scale=None, flag=True):
        assert isinstance(power, int)
        y = jax.nn.relu(x) ** power if flag else x
        return y if scale is None else y * scale

    x = jnp.array([2.0, -2.0])
    assert guided(fn)(x, 2).tolist() == [4, 0]
    assert guided(fn)(x, 2, scale=3.0).tolist() == [12, 0]
    assert guided(fn)(x, 1).tolist() == [2, 0]
    with pytest.raises(ValueError, match="has no jax"):
        guided(fn)(x, 1, flag=False)


def test_one_and_true_are_two_programs():
    def fn(x, flag):
        return jax.nn.relu(x) * (2 if flag is True else 3)

    assert guided(fn)(jnp.array(1.0), 1) == 3
    assert guided(fn)(jnp.array(1.0), True) == 2
    with pytest.raises(TypeError, match=r"must be hashable, got \{5\}"):
        guided(fn)(jnp.array(1.0), {5})


def test_a_function_called_twice_counts_twice():
    block = jax.jit(lambda x: jax.nn.relu(x) + jax.nn.relu(x - 1))
    assert count_relus(lambda x: block(block(x)), jnp.ones(3)) == 4


def test_zeros_that_are_constants_of_the_program():
    def fn(x):
        return (jnp.maximum(x, np.zeros(3, np.float32)) * jnp.array([1.0, -1.0, 1.0])).sum()

    gradient = jax.grad(guided(fn, maximum_as_relu=True))(jnp.array([1.0, 1.0, -1.0]))
    assert gradient.tolist() == [1, 0, 0]


def test_a_gradient_is_not_taken_for_the_function():
    with pytest.warns(UserWarning, match="apply guided to the function itself"):
        guided(jax.grad(nested(jax.nn.relu)))(POINTS[0])


def test_relus_inside_shard_map():
    mesh = jax.make_mesh((5,), ("data",), (jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("data")

    def fn(check):
        sharded = jax.shard_map(
            jax.nn.relu, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=check
        )
        return lambda x: -sharded(x).sum()

    assert not np.any(jax.grad(guided(fn(False)))(POINTS))
    with pytest.raises(ValueError, match="only with check_vma=False"):
        guided(fn(True))(POINTS)


def test_what_the_function_says_of_itself_is_passed_on():
    model = models.create("resnet8_small", num_classes=3, width=4)
    classifier = guided(Classifier(model, drawn_variables(model, (16, 16, 3))))
    assert classifier.mean == model.mean
    assert len(classifier.conv_layers((16, 16, 3))) == 7
    assert not hasattr(classifier, "median")


def test_guided_twice_is_guided_once():
    fn = nested(jax.nn.relu)
    twice = guided(guided(fn))
    np.testing.assert_array_equal(jax.grad(twice)(POINTS[0]), jax.grad(guided(fn))(POINTS[0]))
    assert guided(guided(fn), maximum_as_relu=True).maximum_as_relu


def test_inside_shard_map():
    mesh = jax.make_mesh((5,), ("data",), (jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("data")
    gradient = jax.vmap(jax.grad(guided(lambda x: (jax.nn.relu(x) * WEIGHTS[0, 0]).sum())))
    sharded = jax.shard_map(gradient, mesh=mesh, in_specs=spec, out_specs=spec)
    np.testing.assert_allclose(sharded(POINTS), gradient(POINTS), rtol=1e-6)


def test_not_callable():
    with pytest.raises(TypeError, match="must be a function"):
        guided(3)
    with pytest.raises(TypeError, match="True or False, got 1"):
        guided(jax.nn.relu, maximum_as_relu=1)
