import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from jaxrobust import Classifier, as_classifier, attacks, models
from tests.tiny import assert_equal_to_rounding, drawn_variables

SHAPE = (8, 8, 3)
CLASSES = 5
BALLS = [("linf", 8 / 255), ("l2", 0.5), ("l1", 6.0)]
ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}


def linear(seed=0, classes=2, shape=SHAPE):
    weights = jax.random.normal(jax.random.key(seed), (int(np.prod(shape)), classes))
    return as_classifier(lambda w, image: image.reshape(-1) @ w, weights)


class LinenNetwork(nn.Module):
    @nn.compact
    def __call__(self, images, *, train=False):
        features = nn.relu(nn.Conv(8, (3, 3), strides=2)(images - 0.5))
        features = nn.relu(nn.Conv(8, (3, 3), strides=2)(features))
        return nn.Dense(CLASSES)(features.reshape(len(images), -1))


@functools.cache
def convolutional():
    return Classifier(LinenNetwork(), drawn_variables(LinenNetwork(), (16, 16, 3)))


def images(count=6, shape=(16, 16, 3)):
    return jax.random.uniform(jax.random.key(1), (count, *shape))


LABELS = jnp.array([0, 1, 2, 3, 4, 0])


def norms_of(delta, norm):
    delta = np.float64(delta)
    return np.linalg.norm(delta.reshape(len(delta), -1), ORDERS[norm], axis=1)


@pytest.mark.parametrize(("norm", "epsilon"), BALLS)
@pytest.mark.parametrize("attack", ["fgsm", "pgd", "momentum"])
def test_results_lie_in_ball_and_box(attack, norm, epsilon):
    options = {
        "fgsm": {"random_start": True},
        "pgd": {"steps": 4, "restarts": 2},
        "momentum": {"steps": 4, "random_start": True},
    }[attack]
    # Dark and bright images, so that the box binds.
    x = jnp.clip(2 * images() - 0.5, 0, 1)
    result = attacks.get(attack)(
        convolutional(), x, LABELS, key=jax.random.key(0), epsilon=epsilon, norm=norm, **options
    )
    assert result.min() >= 0
    assert result.max() <= 1
    distance = norms_of(result - x, norm)
    assert np.all(distance <= epsilon * (1 + 1e-5) + 1e-6)
    assert np.all(distance > 0.3 * epsilon)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_zero_epsilon_returns_the_image(norm):
    classifier, x = convolutional(), images()
    # Four steps and two starts, as above: the same program.
    result = attacks.pgd(
        classifier, x, LABELS, key=jax.random.key(0), epsilon=0.0, steps=4, restarts=2, norm=norm
    )
    np.testing.assert_array_equal(result, x)
    np.testing.assert_array_equal(attacks.fgsm(classifier, x, LABELS, epsilon=0.0, norm=norm), x)


def test_box_and_ball_are_kept_at_every_step():
    seen = []

    def record(weights, image):
        jax.debug.callback(lambda value: seen.append(np.asarray(value)), image)
        return image.reshape(-1) @ weights

    weights = jax.random.normal(jax.random.key(0), (int(np.prod(SHAPE)), 2))
    x = jnp.clip(2 * images(1, SHAPE)[0] - 0.5, 0, 1)
    attacks.pgd(
        as_classifier(record, weights), x, 0, key=jax.random.key(0), epsilon=0.1, steps=5
    ).block_until_ready()
    jax.effects_barrier()
    assert len(seen) >= 5
    for image in seen:
        assert image.min() >= 0
        assert image.max() <= 1
        assert np.abs(image - x).max() <= 0.1 + 1e-6


def test_pgd_starts_at_random_and_fgsm_does_not():
    classifier, x = convolutional(), images()
    options = {"epsilon": 0.1, "steps": 1, "step_size": 0.0}
    first = attacks.pgd(classifier, x, LABELS, key=jax.random.key(0), **options)
    second = attacks.pgd(classifier, x, LABELS, key=jax.random.key(1), **options)
    assert np.abs(first - second).max() > 0.1
    fixed = attacks.pgd(classifier, x, LABELS, random_start=False, **options)
    np.testing.assert_array_equal(fixed, x)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_linear_optimum_is_found_exactly(norm):
    """For a linear model the loss grows with w·delta, whose maximum over the ball is known."""
    classifier = linear()
    x = jnp.full(SHAPE, 0.5)
    epsilon = {"linf": 0.1, "l2": 0.8}[norm]
    direction = np.float64(classifier.variables[:, 1] - classifier.variables[:, 0])
    optimum = {
        "linf": epsilon * np.sign(direction),
        "l2": epsilon * direction / np.linalg.norm(direction),
    }[norm]
    result = attacks.pgd(classifier, x, 0, epsilon=epsilon, steps=10, norm=norm, random_start=False)
    np.testing.assert_allclose(np.ravel(result - x), optimum, atol=1e-6)
    if norm == "linf":
        np.testing.assert_allclose(
            attacks.fgsm(classifier, x, 0, epsilon=epsilon), result, atol=1e-7
        )


@pytest.mark.parametrize(("shape", "epsilon"), [((8, 8, 3), 2.0), ((32, 32, 3), 12.0)])
def test_linear_l1_optimum_is_reached_within_one_per_cent(shape, epsilon):
    """The optimum fills the coordinates of largest weight up to the box, one after the other."""
    classifier = linear(shape=shape)
    x = jax.random.uniform(jax.random.key(3), shape)
    direction = np.float64(classifier.variables[:, 1] - classifier.variables[:, 0])
    room = np.where(direction > 0, 1 - np.ravel(x), np.ravel(x))
    order = np.argsort(-np.abs(direction))
    filled = np.minimum(room[order], np.maximum(epsilon - np.cumsum(room[order]) + room[order], 0))
    optimum = np.sum(np.abs(direction)[order] * filled)
    result = attacks.pgd(classifier, x, 0, epsilon=epsilon, steps=20, norm="l1", random_start=False)
    gain = float(np.ravel(result - x) @ direction)
    assert 0.99 * optimum <= gain <= optimum * (1 + 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "epsilon"), BALLS)
def test_alone_and_in_a_batch_the_same(norm, epsilon):
    classifier, x, key = convolutional(), images(), jax.random.key(7)
    restarts = 2 if norm == "linf" else 1  # which know nothing of the norm
    options = {"epsilon": epsilon, "steps": 3, "norm": norm, "restarts": restarts}
    batch = attacks.pgd(classifier, x, LABELS, key=key, **options)
    keys = jax.random.split(key, len(x))
    for i in (0, 5):
        alone = attacks.pgd(classifier, x[i], LABELS[i], key=keys[i], **options)
        assert_equal_to_rounding(alone, batch[i], share=0.99)


def test_keys_may_be_given_one_by_one():
    classifier, x, key = convolutional(), images(), jax.random.key(7)
    options = {"epsilon": 0.1, "random_start": True}
    batch = attacks.fgsm(classifier, x, LABELS, key=key, **options)
    keys = jax.random.split(key, len(x))
    by_keys = attacks.fgsm(classifier, x[3:], LABELS[3:], key=keys[3:], **options)
    assert_equal_to_rounding(by_keys, batch[3:], share=0.999)


def test_more_restarts_never_hurt():
    classifier, x, key = convolutional(), images(), jax.random.key(0)

    def losses(restarts):
        result = attacks.pgd(
            classifier, x, LABELS, key=key, epsilon=0.02, steps=2, restarts=restarts
        )
        logits = classifier(result)
        fooled = np.asarray(jnp.argmax(logits, -1) != LABELS)
        return fooled, np.asarray(jax.vmap(attacks.cross_entropy)(logits, LABELS))

    before, after = losses(1), losses(3)
    assert np.all(after[0] >= before[0])
    same = after[0] == before[0]
    rounding = 1e-5 * before[1].max()
    assert np.all(after[1][same] >= before[1][same] - rounding)
    assert np.any(after[1] > before[1] + rounding)


def test_targeted_attack_reaches_its_target():
    classifier, x = linear(classes=3), images(4, SHAPE)
    target = jnp.array([0, 1, 2, 0])
    result = attacks.pgd(
        classifier, x, target, epsilon=0.3, steps=10, random_start=False, targeted=True
    )
    np.testing.assert_array_equal(jnp.argmax(classifier(result), -1), target)


def test_losses_equal_hand_calculations():
    logits = jnp.array([1.0, 3.0, 2.0])
    assert attacks.margin(logits, 1) == -1.0
    assert attacks.margin(logits, 2) == 1.0
    expected = -np.log(np.exp(2) / (np.exp(1) + np.exp(3) + np.exp(2)))
    np.testing.assert_allclose(attacks.cross_entropy(logits, 2), expected, rtol=1e-6)


def test_any_loss():
    classifier, x = convolutional(), images()
    options = {"epsilon": 0.05, "steps": 5, "random_start": False}
    named = attacks.pgd(classifier, x, LABELS, loss="margin", **options)
    own = attacks.pgd(classifier, x, LABELS, loss=attacks.margin, **options)
    np.testing.assert_array_equal(named, own)
    value = jax.vmap(attacks.margin)
    assert np.all(value(classifier(named), LABELS) > value(classifier(x), LABELS))


class Network(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, CLASSES, rngs=rngs)

    def __call__(self, image):
        return self.head(nnx.relu(self.norm(self.conv(image))).mean((-3, -2)))


def nnx_network():
    network = Network(nnx.Rngs(0))
    network.eval()
    return network


def ours():
    model = models.create("resnet8_small", num_classes=CLASSES, width=4)
    return Classifier(model, drawn_variables(model, (16, 16, 3)))


FOREIGN = {
    "nnx": nnx_network,
    "function": lambda: lambda image: image.reshape(-1)[:CLASSES] * 3,
    "partial": lambda: jax.tree_util.Partial(
        lambda w, image: w @ image.reshape(-1), jnp.eye(CLASSES, 16 * 16 * 3)
    ),
    "ours": ours,
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_models_that_the_project_did_not_write(kind):
    classifier, x = FOREIGN[kind](), images()
    result = attacks.pgd(classifier, x, LABELS, epsilon=0.1, steps=5, random_start=False)
    value = jax.vmap(attacks.cross_entropy)
    before, after = (value(jax.vmap(classifier)(each), LABELS) for each in (x, result))
    assert np.all(after > before)


BAD_INPUT = {
    "negative epsilon": (dict(epsilon=-0.1), ValueError, "epsilon must be a finite number"),
    "epsilon in levels": (dict(epsilon=8), ValueError, "divide levels by 255"),
    "nan epsilon": (dict(epsilon=float("nan")), ValueError, "epsilon must be a finite number"),
    "zero steps": (dict(steps=0), ValueError, "steps must be a whole number of at least 1, got 0"),
    "zero restarts": (dict(restarts=0), ValueError, "restarts must be a whole number"),
    "negative step": (dict(step_size=-1.0), ValueError, "step_size must be a finite number"),
    "norm": (dict(norm="l7"), ValueError, "norm must be one of"),
    "loss": (dict(loss="hinge"), ValueError, "loss must be a function or one of"),
    "no key": (dict(key=None), ValueError, "key must be given when random_start"),
    "restarts without random start": (
        dict(restarts=2, random_start=False),
        ValueError,
        "restarts must be 1",
    ),
    "no key at all": (dict(key=3), TypeError, "key must be a jax.random.key"),
    "too many keys": (
        dict(key=jax.random.split(jax.random.key(0), 9)),
        ValueError,
        r"one for each of 6 images, got shape \(9,\)",
    ),
    "batch size": (dict(batch_size=0), ValueError, "batch_size must be a whole number"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_options(case):
    options, error, message = BAD_INPUT[case]
    options = dict(key=jax.random.key(0), epsilon=0.1, steps=2) | options
    with pytest.raises(error, match=message):
        attacks.pgd(convolutional(), images(), LABELS, **options)


BAD_ARRAYS = {
    "integers": (jnp.zeros((16, 16, 3), jnp.uint8), 0, TypeError, "divide uint8 pictures by 255"),
    "rank": (jnp.zeros((16, 16)), 0, ValueError, r"got \(16, 16\)"),
    "above one": (jnp.full((16, 16, 3), 1.5), 0, ValueError, r"images must lie in \[0, 1\]"),
    "nan": (jnp.full((16, 16, 3), jnp.nan), 0, ValueError, r"images must lie in \[0, 1\], got NaN"),
    "one nan": (
        jnp.zeros((16, 16, 3)).at[3, 2, 1].set(jnp.nan),
        0,
        ValueError,
        r"images must lie in \[0, 1\], got NaN",
    ),
    "no image": (
        jnp.zeros((0, 16, 16, 3)),
        jnp.zeros(0, int),
        ValueError,
        "images must have shape",
    ),
    "label too large": (jnp.zeros((16, 16, 3)), 5, ValueError, r"\[0, 5\).*got 5"),
    "negative label": (jnp.zeros((16, 16, 3)), -1, ValueError, r"\[0, 5\).*got -1"),
    "float label": (jnp.zeros((16, 16, 3)), 1.0, TypeError, "labels must be integers"),
    "one label for two": (jnp.zeros((2, 16, 16, 3)), 0, ValueError, r"shape \(2,\), got \(\)"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays(case):
    x, label, error, message = BAD_ARRAYS[case]
    with pytest.raises(error, match=message):
        attacks.fgsm(convolutional(), x, label, epsilon=0.1)


def test_bad_classifiers():
    with pytest.raises(TypeError, match="classifier must be a function"):
        attacks.fgsm(3, images(), LABELS, epsilon=0.1)
    with pytest.raises(ValueError, match=r"to logits of shape \(classes,\), got \(16, 16, 3\)"):
        attacks.fgsm(lambda image: image, images(), LABELS, epsilon=0.1)


def test_options_of_configs_are_checked_without_running():
    attacks.check_options("pgd", {"epsilon": 0.1, "steps": 3})
    with pytest.raises(ValueError, match=r"attack must be one of .*fab.*, got 'pdg'"):
        attacks.check_options("pdg", {})
    with pytest.raises(ValueError, match="'eps' is no option of fgsm"):
        attacks.check_options("fgsm", {"eps": 0.1})
    with pytest.raises(ValueError, match="pgd needs steps"):
        attacks.check_options("pgd", {"epsilon": 0.1})
    with pytest.raises(ValueError, match="epsilon must be"):
        attacks.check_options("fgsm", {"epsilon": -0.1})


def test_reported_options_are_those_that_run():
    classifier, x = convolutional(), images()
    for name, options in (
        ("fgsm", {"epsilon": 0.1}),
        ("pgd", {"epsilon": 0.1, "steps": 3, "random_start": False}),
        ("pgd", {"epsilon": 3.0, "steps": 3, "norm": "l1", "random_start": False}),
        ("momentum", {"epsilon": 0.1, "steps": 3}),
    ):
        complete = attacks.complete_options(name, {"name": name, **options})
        known = {k: v for k, v in complete.items() if v is not None}
        # What a report says beside the options: that of fgsm there is one step, of both one start.
        said = {"fgsm": ("steps", "restarts"), "momentum": ("restarts",)}.get(name, ())
        known = {k: v for k, v in known.items() if k not in said}
        key = jax.random.key(0)
        # Two programs: what is left out in the one is an argument of the other.
        assert_equal_to_rounding(
            attacks.get(name)(classifier, x, LABELS, key=key, **options),
            attacks.get(name)(classifier, x, LABELS, key=key, **known),
            share=0.998,  # in the l1 ball few pixels change at all
        )
