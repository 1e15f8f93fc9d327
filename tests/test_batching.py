import pydoc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxrobust import Classifier, attacks, models
from jaxrobust.core import batching
from tests.tiny import TinyNetwork, assert_equal_to_rounding, drawn_variables


def tiny(scale=1):
    model = TinyNetwork(num_classes=5)
    variables = drawn_variables(model, (16, 16, 3))
    return Classifier(model, jax.tree.map(lambda leaf: scale * leaf, variables))


@batching.per_image()
def shifted(images, *, key, amount, batch_size=None):
    return images * 0 + jax.random.uniform(key) + amount


@batching.per_image(static=("samples",), samples="samples")
def chunk_of(images, *, samples, batch_size=None):
    return jnp.zeros_like(images) + batch_size


IMAGES = jax.random.uniform(jax.random.key(0), (7, 4, 4, 3))


@pytest.mark.parametrize("batch_size", [None, 1, 3, 7, 50])
@pytest.mark.parametrize("outer", ["plain", "jit", "vmap"])
def test_chunks_do_not_change_the_result(batch_size, outer):
    keys = jax.random.split(jax.random.key(3), 7)
    expected = jax.vmap(lambda key: jax.random.uniform(key))(keys) + 0.5

    def method(images, key):
        return shifted(images, key=key, amount=0.5, batch_size=batch_size)

    if outer == "jit":
        method = jax.jit(method)
    if outer == "vmap":
        result = jax.vmap(method)(IMAGES[None], jax.random.key(3)[None])[0]
    else:
        result = method(IMAGES, jax.random.key(3))
    np.testing.assert_allclose(result[:, 0, 0, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("outer", [jax.jit, jax.grad, lambda function: jax.jit(jax.grad(function))])
def test_what_is_closed_over_may_be_traced_or_not(outer):
    """Inside somebody's jit or grad: concrete images and labels, weights that are traced."""
    images, labels = IMAGES, jnp.arange(7) % 3

    def total(weights):
        def classifier(image):
            return (image * weights).sum((0, 1)) ** 2

        adversarial = attacks.fgsm(classifier, images, labels, epsilon=0.1)
        return jnp.sum(adversarial * weights)

    weights = jnp.array([1.0, -2.0, 3.0])
    expected = {jax.jit: total(weights)}.get(outer)
    result = outer(total)(weights)
    assert np.all(np.isfinite(result))
    if expected is not None:
        np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_old_style_keys_are_accepted():
    new = shifted(IMAGES, key=jax.random.key(3), amount=0.0)
    old = shifted(IMAGES, key=jax.random.PRNGKey(3), amount=0.0)
    np.testing.assert_array_equal(new, old)


def test_batch_size_bounds_images_times_samples():
    result = chunk_of(IMAGES, samples=10, batch_size=4)
    assert result.max() == 4  # one image at once, four of its samples
    assert chunk_of(IMAGES, samples=2, batch_size=6).max() == 2


def test_memory_of_chunks_is_bounded():
    """The compiled program's temporary memory falls with batch_size."""
    model = models.create("resnet8_small", num_classes=5, width=4)
    classifier = Classifier(model, drawn_variables(model, (16, 16, 3)))
    images = jnp.zeros((256, 16, 16, 3))

    def temporary(batch_size):
        def attack(classifier, images, labels):
            return attacks.fgsm(classifier, images, labels, epsilon=0.1, batch_size=batch_size)

        lowered = jax.jit(attack).lower(classifier, images, jnp.zeros(256, int))
        compiled = lowered.compile({"xla_backend_optimization_level": 0})
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(8) < 0.3 * temporary(None)


@pytest.mark.parametrize("batch_size", [None, 2])
def test_sharded_images_stay_where_they_are(batch_size):
    classifier = tiny()
    images = jax.random.uniform(jax.random.key(1), (32, 16, 16, 3))
    labels = jnp.arange(32) % 5
    options = dict(key=jax.random.key(2), epsilon=0.1, random_start=True)
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    on_many = attacks.fgsm(
        classifier, *jax.device_put((images, labels), sharding), batch_size=batch_size, **options
    )
    assert on_many.sharding.is_equivalent_to(sharding, 4)
    on_one = attacks.fgsm(classifier, images, labels, **options)
    assert_equal_to_rounding(on_many, on_one, share=0.999)


def test_explicit_axes_are_refused_in_one_sentence():
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Explicit,))
    images = jax.device_put(jnp.zeros((8, 4, 4, 3)), NamedSharding(mesh, PartitionSpec("data")))
    with pytest.raises(ValueError, match="a mesh of Auto axes"):
        shifted(images, key=jax.random.key(0), amount=0.0)


def test_nothing_is_compiled_twice():
    images, labels = jnp.zeros((3, 16, 16, 3)), jnp.zeros(3, int)

    classifiers = [tiny(scale) for scale in (1, 2)]

    def call(seed, epsilon):
        attacks.pgd(
            classifiers[seed],
            images + 0.01 * seed,
            labels,
            key=jax.random.key(seed),
            epsilon=epsilon,
            steps=2,
        ).block_until_ready()

    call(0, 0.1)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration, **_: compiled.append(event) if "compile" in event else None
    )
    try:
        call(1, 0.2)
    finally:
        jax.monitoring.clear_event_listeners()
    assert not compiled


def test_methods_are_written_with_the_names_of_their_users():
    with pytest.raises(
        TypeError, match=r"brighten\(image, \*, amount\) must take images and batch"
    ):

        @batching.per_image()
        def brighten(image, *, amount):
            return image + amount


def test_help_shows_the_signature():
    shown = pydoc.render_doc(attacks.pgd, renderer=pydoc.plaintext)
    for text in ("images: ", "labels: ", "batch_size: int | None = None", "Projected gradient"):
        assert text in shown
