"""APGD, beside the paper's algorithm in NumPy, and beside PGD."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import as_classifier, attacks, models
from jaxrobust.attacks import auto_pgd, losses, norms
from jaxrobust.data import textured_shapes
from tests.test_square import MODES, case, norms_of
from tests.tiny import assert_equal_to_rounding

pytestmark = pytest.mark.usefixtures("quickly_compiled")

STEPS = 100
SHAPE, CLASSES = (5, 4, 3), 4


def coefficients():
    size = (2, CLASSES, int(np.prod(SHAPE)))
    return (0.2 * np.random.default_rng(0).standard_normal(size)).astype(np.float32)


def quadratic():
    """Logits that are quadratic in the image: the gradient is known and turns on the way."""
    return as_classifier(
        lambda w, image: w[0] @ jnp.square(image.ravel()) + w[1] @ image.ravel(), coefficients()
    )


IMAGES = np.random.default_rng(1).uniform(-0.2, 1.2, (6, *SHAPE)).clip(0, 1).astype(np.float32)
LABELS = np.array([0, 1, 2, 3, 0, 1])


def logits_of(image):
    square, linear = map(np.float64, coefficients())
    return square @ image**2 + linear @ image


def loss_of(image, label):
    logits = logits_of(image.ravel())
    return np.log(np.exp(logits - logits[label]).sum())


def by_numpy(image, label, start, *, epsilon, norm):
    """Algorithm 1 of Croce & Hein 2020 on the cross-entropy, in float64; checkpoints by eq. 4."""
    square, linear = map(np.float64, coefficients())
    image = np.float64(image).ravel()

    def ascent(point):
        shares = np.exp(logits_of(point))
        shares /= shares.sum()
        gradient = (shares - np.eye(CLASSES)[label]) @ (2 * square * point + linear)
        return np.sign(gradient) if norm == "linf" else gradient / np.linalg.norm(gradient)

    def project(point):
        if norm == "linf":
            return np.clip(np.clip(point, image - epsilon, image + epsilon), 0, 1)
        # The nearest point of ball and box is image + clip(c · delta) for the c that fits: sought
        # by bisection.
        delta = point - image

        def scaled(c):
            return np.clip(image + c * delta, 0, 1) - image

        low, high = 0.0, 1.0
        if np.linalg.norm(scaled(high)) > epsilon:
            for _ in range(60):
                middle = (low + high) / 2
                if np.linalg.norm(scaled(middle)) > epsilon:
                    high = middle
                else:
                    low = middle
        return image + scaled(high)

    shares = [0.0, 0.22]
    while shares[-1] <= 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    checkpoints = [int(np.ceil(round(share * STEPS, 6))) for share in shares]

    points, values = [np.float64(start).ravel()], []
    values.append(loss_of(points[0], label))
    best, size = 0, 2 * epsilon
    now, before = points[0], points[0]
    rises, last, best_then, halved = 0, 0, values[0], True
    for step in range(1, STEPS + 1):
        ahead = project(now + size * ascent(now))
        share = 0.75 if step > 1 else 1.0
        moved = project(now + share * (ahead - now) + (1 - share) * (now - before))
        before, now = now, moved
        points.append(now)
        values.append(loss_of(now, label))
        rises += values[-1] > values[-2]
        best = int(np.argmax(values))
        if step in checkpoints:
            # The paper has "fewer than", the authors' code "at most".
            few = rises <= 0.75 * (step - last)
            stuck = not halved and values[best] <= best_then
            halved = bool(few or stuck)
            if halved:
                size, now = size / 2, points[best]
            rises, last, best_then = 0, step, values[best]
    wrong = [np.argmax(logits_of(point)) != label for point in points]
    chosen = max(range(len(points)), key=lambda index: (wrong[index], values[index]))
    return points[chosen].reshape(SHAPE)


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.3), ("l2", 1.0)])
def test_the_search_equals_the_algorithm_in_numpy(norm, epsilon):
    key = jax.random.key(2)
    keys = jax.random.split(key, len(IMAGES))
    search = auto_pgd.AutoPGD(epsilon, STEPS, norms.get(norm), losses.cross_entropy)
    starts = [
        search.start(image, label, jax.random.fold_in(key, 0)).point
        for image, label, key in zip(IMAGES, LABELS, keys, strict=True)
    ]
    result = attacks.apgd(
        quadratic(),
        IMAGES,
        LABELS,
        key=key,
        epsilon=epsilon,
        norm=norm,
        steps=STEPS,
        until_found=False,
    )
    expected = [
        by_numpy(image, label, start, epsilon=epsilon, norm=norm)
        for image, label, start in zip(IMAGES, LABELS, starts, strict=True)
    ]
    # Where a pixel is at its best value, rounding decides about the sign of its gradient, and the
    # last, small steps differ.
    np.testing.assert_allclose(result, expected, atol=5e-3)
    for ours, numpys, label in zip(result, expected, LABELS, strict=True):
        np.testing.assert_allclose(loss_of(np.float64(ours), label), loss_of(numpys, label), 1e-5)


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.1), ("l2", 0.5)])
def test_it_starts_on_the_sphere(norm, epsilon):
    search = auto_pgd.AutoPGD(epsilon, 5, norms.get(norm), losses.cross_entropy)
    image = np.full(SHAPE, 0.5, np.float32)
    first, second = (search.start(image, 0, jax.random.key(seed)).point for seed in (0, 1))
    moved = np.stack([first, second]) - image
    np.testing.assert_allclose(norms_of(moved, norm), epsilon, rtol=1e-5)
    assert np.abs(first - second).max() > 0.1 * epsilon


def test_ratios_equal_sorted_logits():
    logits = np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)
    for values, label in zip(logits, np.arange(20) % 6, strict=True):
        ordered = np.sort(values)[::-1]
        others = np.delete(values, label)
        expected = -(values[label] - others.max()) / (ordered[0] - ordered[2])
        np.testing.assert_allclose(losses.difference_of_logits_ratio(values, label), expected, 1e-5)
        target = (label + 2) % 6
        spread = ordered[0] - (ordered[2] + ordered[3]) / 2
        np.testing.assert_allclose(
            losses.targeted_difference_of_logits_ratio(values, label, target),
            -(values[label] - values[target]) / spread,
            1e-5,
        )


@pytest.mark.parametrize(
    ("classes", "options", "message"),
    [
        (2, {"loss": "dlr"}, "logits must be of at least 3 classes for the difference .* got 2"),
        (3, {"loss": "dlr", "targets": 9}, "must be of at least 4 classes for the targeted .*3"),
        (4, {"targets": 9}, "loss must be 'dlr' with targets, got 'cross_entropy'"),
        (4, {"norm": "l1"}, "norm must be linf or l2 for apgd, got 'l1'"),
        (4, {"targets": 0}, "targets must be a whole number of at least 1"),
    ],
)
def test_bad_options(classes, options, message):
    classifier, x, labels = case((3, 4, 2), classes)
    with pytest.raises(ValueError, match=message):
        attacks.apgd(classifier, x, labels, key=jax.random.key(0), epsilon=0.1, **options)


VARIANTS = {
    "cross-entropy": {"norm": "linf", "epsilon": 0.1},
    "ratio": {"norm": "l2", "epsilon": 0.5, "loss": "dlr", "restarts": 2},
    "targeted": {"norm": "linf", "epsilon": 0.1, "loss": "dlr", "targets": 9},
    "all steps": {"norm": "l2", "epsilon": 0.5, "until_found": False},
}


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_plain_jit_vmap_and_chunks_are_the_same(variant, mode):
    classifier, x, labels = case((5, 3, 1), 5)

    def attack(x, labels, key, **options):
        options = VARIANTS[variant] | options
        return attacks.apgd(classifier, x, labels, key=key, steps=12, **options)

    keys = jax.random.split(jax.random.key(7), len(x))
    expected = attack(x, labels, jax.random.key(7))
    # Twelve steps back onto the sphere carry rounding on.
    assert_equal_to_rounding(MODES[mode](attack, x, labels, keys), expected, 1e-3)


# Shape, classes, norm, options.
CASES = [
    ((8, 8, 3), 2, "linf", {"loss": "margin"}),
    ((10, 6, 1), 3, "l2", {"loss": "dlr"}),
    ((10, 6, 1), 4, "linf", {"loss": "dlr", "targets": 9}),
    ((8, 8, 3), 10, "l2", {"loss": "dlr", "targets": 9}),
]


@pytest.mark.parametrize(("shape", "classes", "norm", "options"), CASES)
def test_results_lie_in_ball_and_box(shape, classes, norm, options):
    classifier, x, labels = case(shape, classes)
    epsilon = {"linf": 0.1, "l2": 0.5}[norm]
    options = {"key": jax.random.key(0), "epsilon": epsilon, "norm": norm, "steps": 12} | options
    result = attacks.apgd(classifier, x, labels, **options)
    assert result.min() >= 0
    assert result.max() <= 1
    distance = norms_of(result - x, norm)
    assert np.all(distance <= epsilon * (1 + 1e-5) + 1e-6)
    assert np.all(distance > 0.3 * epsilon)


def test_at_radius_zero_the_image():
    classifier, x, labels = case()
    result = attacks.apgd(classifier, x, labels, key=jax.random.key(0), epsilon=0.0, steps=3)
    np.testing.assert_array_equal(result, x)


@functools.cache
def trained(name):
    images, labels, *_ = textured_shapes.draw_batch("test", range(40))
    return models.pretrained(f"quickstart_{name}"), images, labels


# Radii at which many images fall and many stand.
RADII = {("std", "linf"): 3 / 255, ("std", "l2"): 0.3, ("adv", "linf"): 8 / 255, ("adv", "l2"): 1}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "norm"), RADII)
def test_it_is_at_least_as_strong_as_pgd_of_the_same_steps(name, norm):
    network, images, labels = trained(name)
    options = {"key": jax.random.key(0), "epsilon": RADII[name, norm], "norm": norm, "steps": 10}

    def found(attack, **more):
        logits = network(attack(network, images, labels, **options, **more))
        values = jax.vmap(attacks.cross_entropy)(logits, labels)
        return int((logits.argmax(-1) == labels).sum()), float(values.mean())

    stand, value = found(attacks.pgd)
    stand_too, value_too = found(attacks.apgd, until_found=False)
    assert 2 < stand < 38
    assert stand_too <= stand
    assert value_too > 0.99 * value
