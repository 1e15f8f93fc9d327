import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import as_classifier, attacks
from jaxrobust.attacks import norms, random_squares
from tests.test_pyramids import naive_pair
from tests.tiny import assert_equal_to_rounding

SHAPES = [(8, 8, 3), (10, 6, 1), (3, 4, 2), (1, 1, 1)]
BALLS = [("linf", 0.1), ("l2", 0.5)]
ORDERS = {"linf": np.inf, "l2": 2}


def linear(shape=SHAPES[0], classes=3, seed=0):
    weights = jax.random.normal(jax.random.key(seed), (int(np.prod(shape)), classes))
    return as_classifier(lambda w, image: (image - 0.5).reshape(-1) @ w, weights)


@functools.cache
def case(shape=SHAPES[0], classes=3, count=4):
    """A classifier, images dark and bright so that the box binds, and what it takes them for."""
    classifier = linear(shape, classes)
    x = jnp.clip(2 * jax.random.uniform(jax.random.key(1), (count, *shape)) - 0.5, 0, 1)
    return classifier, x, jnp.argmax(classifier(x), -1)


def norms_of(delta, norm):
    return np.linalg.norm(np.float64(delta).reshape(len(delta), -1), ORDERS[norm], axis=1)


def margins(classifier, x, labels):
    return np.asarray(jax.vmap(attacks.margin)(classifier(x), labels))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("norm", "epsilon"), BALLS)
def test_results_lie_in_ball_and_box(norm, epsilon, shape):
    classifier, x, labels = case(shape)
    result = attacks.square(
        classifier, x, labels, key=jax.random.key(0), epsilon=epsilon, norm=norm, queries=60
    )
    assert result.min() >= 0
    assert result.max() <= 1
    distance = norms_of(result - x, norm)
    assert np.all(distance <= epsilon * (1 + 1e-5) + 1e-6)
    # A single pixel may stand at the edge of the box.
    assert np.all(distance > 0.3 * epsilon) or shape == (1, 1, 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_zero_epsilon_returns_the_image(norm):
    classifier, x, labels = case()
    result = attacks.square(
        classifier, x, labels, key=jax.random.key(0), epsilon=0.0, norm=norm, queries=60
    )
    np.testing.assert_array_equal(result, x)


MODES = {
    "jit": lambda attack, x, labels, keys: jax.jit(attack)(x, labels, keys),
    "vmap": lambda attack, x, labels, keys: jax.vmap(attack)(x, labels, keys),
    "one by one": lambda attack, *batch: jnp.stack(
        [attack(*one) for one in zip(*batch, strict=True)]
    ),
    "chunks": lambda attack, *batch: attack(*batch, batch_size=3),
}


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("norm", "epsilon"), BALLS)
def test_plain_jit_vmap_and_chunks_are_the_same(norm, epsilon, mode):
    classifier, x, labels = case()
    attack = functools.partial(
        lambda x, labels, key, **options: attacks.square(classifier, x, labels, key=key, **options),
        epsilon=epsilon,
        norm=norm,
        queries=60,
    )
    keys = jax.random.split(jax.random.key(7), len(x))
    expected = attack(x, labels, jax.random.key(7))
    assert_equal_to_rounding(MODES[mode](attack, x, labels, keys), expected)


SIDES = {
    # The square roots of 819.2, 409.6, … are 28.6, 20.2, 14.3, 10.1, 7.2, 5.1, 3.6, 2.5, 1.8, 1.3.
    ("linf", 32, 32): [29, 20, 14, 10, 7, 5, 4, 3, 2, 1],
    ("l2", 32, 32): [29, 21, 15, 11, 7, 5, 5, 3, 3, 3],
    # Of 102.4, 51.2, …: 10.1, 7.2, 5.1, 3.6, 2.5, 1.8, 1.3, 0.9, 0.6, 0.4.
    ("linf", 16, 8): [8, 7, 5, 4, 3, 2, 1, 1, 1, 1],
    ("l2", 8, 16): [8, 7, 5, 5, 3, 3, 3, 3, 3, 3],
    ("l2", 2, 2): [2] * 10,
}


@pytest.mark.parametrize("which", SIDES)
def test_sides_equal_hand_calculations(which):
    norm, height, width = which
    sides = random_squares.side_lengths(height, width, norms.get(norm))
    np.testing.assert_array_equal(sides, SIDES[which])


def proposals(norm, epsilon, x, best, taken):
    """What the network is shown next after so many queries, and the keys that it is drawn with."""
    squares = random_squares.RandomSquares(epsilon, 10_000, norms.get(norm))
    keys = jax.random.split(jax.random.key(3), len(taken))

    def propose(taken, key):
        margin = jnp.full((), -1.0, jnp.float32)  # above that of the point: the best stays
        walk = random_squares._Walk(best, best, margin, jax.random.key_data(key), taken)
        walk, _ = squares.step(lambda image: jnp.array([2.0, 0.0]), x, 0, 0, walk)
        return walk.point, jax.random.fold_in(key, walk.taken)

    return jax.jit(jax.vmap(propose))(jnp.asarray(taken), keys)


STAGES = [0, 10, 11, 50, 51, 200, 201, 500, 501, 1000, 1001, 2000, 2001, 4000, 4001, 6000, 6001]
STAGES += [8000, 8001, 9999]


def test_in_linf_one_square_changes_to_the_ends_of_ball_and_box():
    epsilon, x = 0.1, jax.random.uniform(jax.random.key(0), (32, 32, 3))
    signs = jnp.where(jnp.arange(3) % 2, 1.0, -1.0)
    best = jnp.clip(x + epsilon * signs, 0, 1)
    points, _ = proposals("linf", epsilon, x, best, STAGES)
    points, x, best, signs = map(np.asarray, (points, x, best, signs))
    changes = 0
    for point, side in zip(points, np.repeat(SIDES["linf", 32, 32], 2), strict=True):
        # A channel changes in the whole square (but for what rounds), or keeps its sign.
        rows, columns, channels = np.nonzero(np.abs(point - best) > 1e-6)
        lower, upper = np.clip(x - epsilon, 0, 1), np.clip(x + epsilon, 0, 1)
        for channel in set(channels):
            own = channels == channel
            assert np.sum(own) == side**2
            assert np.ptp(rows[own]) == np.ptp(columns[own]) == side - 1
            inside = np.s_[rows[own], columns[own], channel]
            expected = lower if signs[channel] > 0 else upper
            np.testing.assert_allclose(point[inside], expected[inside], atol=1e-6)
            changes += 1
        if len(rows):
            assert np.ptp(rows) == np.ptp(columns) == side - 1
    assert 15 <= changes <= 45  # of 60, each with probability one half


@pytest.mark.parametrize("shape", [(32, 32, 3), (12, 20, 1)])
def test_in_l2_a_proposal_equals_the_algorithm_on_slices(shape):
    """Algorithm 3 of the paper, with the same random numbers."""
    epsilon, (height, width, channels) = 0.7, shape
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.uniform(keys[0], shape)
    direction = jax.random.normal(keys[1], shape)
    best = jnp.clip(x + epsilon * direction / jnp.linalg.norm(direction), 0, 1)
    points, drawn_with = proposals("l2", epsilon, x, best, STAGES)
    points, x, best = np.asarray(points), np.float64(x), np.float64(best)
    sides = np.repeat(random_squares.side_lengths(height, width, norms.l2), 2)
    for point, key, side in zip(points, drawn_with, sides, strict=True):
        numbers = np.asarray(jax.random.uniform(key, (5 + channels,)))
        r1, c1, r2, c2 = np.int32(numbers[:4] * (np.array([height, width] * 2) - side))
        one = np.s_[r1 : r1 + side, c1 : c1 + side]
        two = np.s_[r2 : r2 + side, c2 : c2 + side]
        delta = best - x
        both = np.zeros((height, width, 1))
        both[one] = both[two] = 1
        pair = naive_pair(side)
        pair = (pair.T if numbers[4] < 0.5 else pair)[..., None]
        new = pair * np.where(numbers[5:] < 0.5, -1, 1)
        new = new + delta[one] / np.linalg.norm(delta[one], axis=(0, 1))
        unused = max(epsilon**2 - np.sum(delta**2), 0)
        length = np.sqrt(unused / channels + np.sum((both * delta) ** 2, (0, 1)))
        new *= length / np.linalg.norm(new, axis=(0, 1))
        delta[two] = 0
        delta[one] = new
        expected = np.clip(x + epsilon * delta / np.linalg.norm(delta), 0, 1)
        np.testing.assert_allclose(point, expected, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"queries": 100}, {"queries": 50, "restarts": 3}])
@pytest.mark.parametrize(("norm", "epsilon"), BALLS)
def test_more_queries_and_more_restarts_never_hurt(norm, epsilon, more):
    classifier, x, labels = case()

    def after(**options):
        result = attacks.square(
            classifier,
            x,
            labels,
            key=jax.random.key(2),
            epsilon=0.2 * epsilon,
            norm=norm,
            until_found=False,
            **options,
        )
        return margins(classifier, result, labels)

    few, many = after(queries=50), after(**more)
    rounding = 1e-5 * np.abs(few).max()
    assert np.all(many >= few - rounding)
    assert np.any(many > few + rounding)
    assert np.all(few > margins(classifier, x, labels))


@pytest.mark.parametrize(("norm", "epsilon"), BALLS)
def test_it_breaks_a_classifier_without_gradients_and_pgd_does_not(norm, epsilon):
    smooth, x, _ = case()
    hidden = as_classifier(lambda w, image: jnp.round(40 * smooth(image)) / 40, jnp.zeros(()))
    labels = jnp.argmax(hidden(x), -1)
    options = dict(key=jax.random.key(0), epsilon=5 * epsilon, norm=norm)
    by_gradients = attacks.pgd(hidden, x, labels, steps=20, random_start=False, **options)
    np.testing.assert_array_equal(jnp.argmax(hidden(by_gradients), -1), labels)
    by_squares = attacks.square(hidden, x, labels, queries=500, **options)
    assert np.all(jnp.argmax(hidden(by_squares), -1) != labels)


def test_queries_are_counted_and_end_where_one_is_misclassified():
    seen = []

    weights = jax.random.normal(jax.random.key(5), (8, 8, 1))
    lowest = -0.1 * float(jnp.sum(jnp.abs(weights)))  # of the first logit, in the ball

    def record(level, image):
        jax.debug.callback(lambda value: seen.append(np.asarray(value)), image)
        return jnp.stack([jnp.sum(weights * (image - 0.5)), level])

    def shown(level, **options):
        seen.clear()
        classifier = as_classifier(record, jnp.asarray(level))
        options = dict(key=jax.random.key(0), epsilon=0.1, queries=100) | options
        result = attacks.square(classifier, jnp.full((8, 8, 1), 0.5), 0, **options)
        jax.block_until_ready(result)
        jax.effects_barrier()
        return result, len(seen)

    assert shown(lowest)[1] == 100
    assert shown(lowest, restarts=2)[1] == 200
    assert shown(-lowest)[1] == 1
    result, count = shown(0.2 * lowest)
    assert 1 < count < 100
    np.testing.assert_array_equal(result, seen[-1])
    assert jnp.sum(weights * (result - 0.5)) < 0.2 * lowest
    further, count = shown(0.2 * lowest, until_found=False, queries=1000)
    assert count == 1000
    assert jnp.sum(weights * (further - result)) < 0


@pytest.mark.parametrize("classes", [2, 3, 4, 10])
def test_any_number_of_classes(classes):
    classifier, x, labels = case(classes=classes)
    result = attacks.square(classifier, x, labels, key=jax.random.key(0), epsilon=0.6, queries=100)
    assert np.all(jnp.argmax(classifier(result), -1) != labels)


def test_a_misclassified_tie_is_found():
    """Of equal logits the first is the class: the margin is 0 on either side."""
    x = jnp.full((2, 2, 1), 0.5)

    def classifier(image):
        return jnp.stack([jnp.maximum(jnp.sum(image) - 1.9, 0.0), 0.0])[::-1]

    result = attacks.square(classifier, x, 1, key=jax.random.key(0), epsilon=0.1, queries=60)
    assert jnp.sum(result) <= 1.9
    assert attacks.misclassified(classifier(result), 1)


BAD_OPTIONS = {
    "norm": (dict(norm="l1"), ValueError, "norm must be linf or l2 for square, got 'l1'"),
    "queries": (dict(queries=0), ValueError, "queries must be a whole number of at least 1, got 0"),
    "restarts": (dict(restarts=0), ValueError, "restarts must be a whole number"),
    "no key": (dict(key=None), ValueError, "key must be given, as squares are drawn .* got None"),
    "levels": (dict(epsilon=8), ValueError, "divide levels by 255"),
}


@pytest.mark.parametrize("which", BAD_OPTIONS)
def test_bad_options(which):
    options, error, message = BAD_OPTIONS[which]
    classifier, x, labels = case()
    with pytest.raises(error, match=message):
        attacks.square(classifier, x, labels, **dict(key=jax.random.key(0), epsilon=0.1) | options)


def test_configs_know_it_by_name():
    assert attacks.get("square") is attacks.square
    attacks.check_options("square", {"epsilon": 0.1, "queries": 100})
    assert attacks.complete_options("square", {"epsilon": 0.1})["queries"] == 5000
