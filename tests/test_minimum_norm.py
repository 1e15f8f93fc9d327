"""Attacks that look for the nearest image, beside what is known of the nearest one."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from jaxrobust import as_classifier, attacks
from jaxrobust.attacks import norms
from jaxrobust.attacks.fast_boundary import to_hyperplane
from jaxrobust.evaluation import evaluate
from tests.tiny import assert_equal_to_rounding

# Classes and the shape of the images.
SIZES = [(2, (8, 6, 3)), (3, (5, 9, 1)), (4, (6, 6, 3)), (10, (7, 4, 1))]
ORDERS = {"linf": np.inf, "l2": 2}
DUALS = {"linf": 1, "l2": 2}


@functools.cache
def linear(classes, shape):
    """A linear classifier, images far from its boundaries and the box, what they are taken for."""
    rng = np.random.default_rng(classes)
    weights = rng.standard_normal((int(np.prod(shape)), classes)).astype(np.float32)
    toward = np.sign(weights - weights.mean(1, keepdims=True))[:, np.arange(5) % classes]
    noise = rng.uniform(0.45, 0.55, (5, *shape))
    images = (noise + 0.1 * toward.T.reshape(noise.shape)).astype(np.float32)
    logits = (np.float64(images) - 0.5).reshape(5, -1) @ weights
    classifier = as_classifier(lambda w, image: (image - 0.5).reshape(-1) @ w, weights)
    return classifier, images, logits.argmax(1), logits, np.float64(weights)


def hyperplanes(classes, shape, norm):
    """How far they are from each image, in closed form: (n, classes)."""
    _, _, labels, logits, weights = linear(classes, shape)
    gaps = logits[np.arange(5), labels][:, None] - logits  # 0 for the label itself
    normals = weights[:, None, :] - weights[:, labels, None]
    lengths = np.linalg.norm(normals, DUALS[norm], axis=0)
    return np.where(gaps > 0, gaps / np.where(lengths > 0, lengths, 1), np.inf)


def network():
    """Two layers whose gradient turns on the way, for images (6, 5, 3), and four classes."""
    rng = np.random.default_rng(3)
    weights = [rng.standard_normal(size).astype(np.float32) for size in ((90, 16), (16, 4))]
    return as_classifier(
        lambda w, image: jnp.tanh((image - 0.5).reshape(-1) @ w[0] / 3) @ w[1], weights
    )


@functools.cache
def pictures():
    """Dark and bright ones, so that the box binds, and what they are taken for."""
    images = np.random.default_rng(4).uniform(-0.5, 1.5, (6, 6, 5, 3)).clip(0, 1)
    images = jnp.asarray(images, jnp.float32)
    return images, jnp.argmax(jax.vmap(network())(images), -1)


# Attack, options, and how far beyond the nearest image it may end.
CASES = {
    "deepfool l2": ("deepfool", {"norm": "l2", "overshoot": 0.0}, 1e-3),
    "deepfool linf": ("deepfool", {"norm": "linf", "overshoot": 0.0}, 1e-3),
    "fab l2": ("fab", {"norm": "l2", "steps": 30}, 0.01),
    "fab linf": ("fab", {"norm": "linf", "steps": 30}, 0.01),
    "carlini_wagner": ("carlini_wagner", {"steps": 300}, 0.02),
}


def norm_of(case):
    return CASES[case][1].get("norm", "l2")


def attack_of(case, **further):
    name, options, _ = CASES[case]
    return functools.partial(attacks.get(name), **options, **further)


def norms_of(delta, norm):
    return np.linalg.norm(np.float64(delta).reshape(len(delta), -1), ORDERS[norm], axis=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "size"),
    [
        *((case, size) for case in ("deepfool l2", "carlini_wagner") for size in SIZES),
        *((case, size) for case in ("deepfool linf", "fab l2") for size in SIZES[::3]),
        *(("fab linf", size) for size in SIZES[1:3]),
    ],
    ids=str,
)
def test_of_a_linear_classifier_the_nearest_hyperplane(case, size):
    classifier, images, labels, *_ = linear(*size)
    found = np.asarray(attack_of(case)(classifier, images, labels))
    distances = attacks.distances(classifier, images, found, labels, norm=norm_of(case))
    np.testing.assert_allclose(norms_of(found - images, norm_of(case)), distances, rtol=1e-4)
    known = hyperplanes(*size, norm_of(case))
    nearest = known.min(1)
    assert np.all(nearest > 0.02)
    assert np.all(distances >= nearest * (1 - 1e-4))
    if case == "carlini_wagner":
        # Which class it goes to is up to the descent.
        nearest = known[np.arange(5), jax.vmap(classifier)(found).argmax(1)]
    assert np.all(distances <= nearest * (1 + CASES[case][2]))


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_deepfool_goes_as_far_beyond_as_it_is_told(norm):
    classifier, images, labels, *_ = linear(*SIZES[2])
    found = attacks.deepfool(classifier, images, labels, norm=norm, overshoot=0.5)
    expected = 1.5 * hyperplanes(*SIZES[2], norm).min(1)
    np.testing.assert_allclose(norms_of(found - images, norm), expected, rtol=1e-3)


def test_deepfool_considers_as_many_classes_as_it_is_told():
    # Class 1 is next by its logit, class 2 is nearer.
    classifier = as_classifier(lambda w, image: w @ image.ravel(), jnp.array([[1.0], [0.5], [-3]]))
    image = jnp.full((1, 1, 1), 0.25)
    biased = lambda image: classifier(image) + jnp.array([0.0, -0.1, 0.2])  # noqa: E731
    # 0.225 is at the first boundary (x = 0.5 x - 0.1: at -0.2), 0.05 at the second.
    near = attacks.deepfool(biased, image, 0, candidates=2, overshoot=0.0)
    assert float(near.item()) == pytest.approx(0.05, abs=1e-3)
    far = attacks.deepfool(biased, image, 0, candidates=1, overshoot=0.0)
    assert float(far.item()) == pytest.approx(0.0, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_plain_compiled_and_mapped_the_same(case):
    images, labels = pictures()
    attack = functools.partial(attack_of(case), network())
    plain = attack(images, labels)
    assert plain.shape == images.shape
    assert_equal_to_rounding(jax.jit(attack)(images, labels), plain, 1e-3)
    assert_equal_to_rounding(jax.vmap(attack)(images, labels), plain, 1e-3)
    if case == "deepfool l2":  # else that chunks and single images are alike is batching's affair
        assert_equal_to_rounding(attack(images, labels, batch_size=4), plain, 1e-3)
        assert_equal_to_rounding(attack(images[0], labels[0]), plain[0], 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_results_are_misclassified_in_the_box_and_within_epsilon(case):
    (images, labels), classifier, norm = pictures(), network(), norm_of(case)
    found = attack_of(case)(classifier, images, labels)
    assert found.min() >= 0
    assert found.max() <= 1
    distances = np.asarray(attacks.distances(classifier, images, found, labels, norm=norm))
    assert np.all(np.isfinite(distances) & (distances > 0))
    epsilon = float(np.sort(distances)[2:4].mean())
    within = attack_of(case)(classifier, images, labels, epsilon=epsilon)
    near = distances < epsilon
    assert near.sum() == 3
    np.testing.assert_array_equal(within[~near], images[~near])
    assert_equal_to_rounding(within[near], found[near], 1e-3)
    # What is wrong already stays as it is, at a distance of 0.
    other = (labels + 1) % 4
    unmoved = attack_of(case)(classifier, images, other)
    np.testing.assert_array_equal(unmoved, images)
    distances = attacks.distances(classifier, images, unmoved, other, norm=norm)
    np.testing.assert_array_equal(distances, 0.0)


@pytest.mark.parametrize("case", CASES)
def test_where_nothing_is_found_the_image_as_it_is(case):
    images, labels = pictures()
    certain = as_classifier(lambda bias, image: bias + 0.0 * image.sum(), jnp.array([1.0, 0.0]))
    labels = jnp.zeros_like(labels)
    found = attack_of(case)(certain, images, labels)
    np.testing.assert_array_equal(found, images)
    distances = attacks.distances(certain, images, found, labels, norm=norm_of(case))
    np.testing.assert_array_equal(distances, np.inf)


def test_confidence_and_patience_of_carlini_and_wagner():
    (images, labels), classifier = pictures(), network()
    attack = functools.partial(attacks.carlini_wagner, classifier, images, labels, steps=300)

    def measured(found):
        margins = jax.vmap(attacks.margin)(jax.vmap(classifier)(found), labels)
        distances = attacks.distances(classifier, images, found, labels, norm="l2")
        return np.asarray(margins), np.asarray(distances)

    margins, distances = measured(attack())
    sure_margins, sure_distances = measured(attack(confidence=0.5))
    assert np.all(margins > 0)
    assert np.all(sure_margins > 0.5)
    assert np.all(sure_distances > distances)
    assert np.all(measured(attack(abort_early=False))[1] <= distances * 1.001)
    assert np.all(measured(attack(binary_search_steps=3))[1] >= distances)
    for other in ({"initial_constant": 1.0}, {"learning_rate": 0.1}):
        assert np.any(measured(attack(**other))[1] != distances)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("share", [0.05, 0.4, 0.8, 0.99])
@pytest.mark.parametrize("sign", [1, -1])
def test_steps_to_a_hyperplane_equal_scipy(norm, share, sign):
    """`share` is that of the way to the corner of the box that is furthest: the box binds."""
    rng = np.random.default_rng(round(100 * share))
    point, normal = rng.uniform(0, 1, 12), rng.standard_normal(12)
    normal[3] = 0.0
    point[:2] = 0.0, 1.0
    room = np.where(sign * normal > 0, 1 - point, point)
    gap = sign * share * np.sum(np.abs(normal) * room)
    step = to_hyperplane(*map(jnp.float32, (point, normal, gap)), norms.get(norm))
    bounds = list(zip(-point, 1 - point, strict=True))
    if norm == "linf":
        # The smallest t with |step| <= t.
        bound = np.hstack([np.vstack([np.eye(12), -np.eye(12)]), -np.ones((24, 1))])
        found = scipy.optimize.linprog(
            [0.0] * 12 + [1.0],
            A_ub=bound,
            b_ub=np.zeros(24),
            A_eq=[[*normal, 0.0]],
            b_eq=[gap],
            bounds=[*bounds, (0, None)],
        )
        smallest = found.fun
    else:
        found = scipy.optimize.minimize(
            lambda step: step @ step,
            np.zeros(12),
            jac=lambda step: 2 * step,
            bounds=bounds,
            constraints={
                "type": "eq",
                "fun": lambda step: normal @ step - gap,
                "jac": lambda step: normal,
            },
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 1000},
        )
        smallest = np.sqrt(found.fun)
        np.testing.assert_allclose(step, found.x, atol=1e-4)
    assert found.success
    step = np.float64(step)
    assert np.all((step >= -point - 1e-6) & (step <= 1 - point + 1e-6))
    assert normal @ step == pytest.approx(gap, rel=1e-5)
    assert np.linalg.norm(step, ORDERS[norm]) == pytest.approx(smallest, rel=1e-4)


def test_a_hyperplane_out_of_reach_is_come_near():
    point, normal = jnp.array([0.25, 0.5, 1.0]), jnp.array([1.0, -2.0, 3.0])
    for norm in (norms.linf, norms.l2):
        step = to_hyperplane(point, normal, jnp.float32(9.0), norm)
        np.testing.assert_allclose(step, [0.75, -0.5, 0.0], atol=1e-6)


def test_distances_by_hand():
    # Class 0 while the sum is above 1.
    classifier = as_classifier(lambda w, image: jnp.stack([image.sum(), w]), jnp.float32(1.0))
    images = jnp.array([[0.5, 1.0], [0.5, 1.0], [0.25, 0.5], [0.5, 1.0]]).reshape(4, 1, 2, 1)
    moved = jnp.array([[0.125, 0.5], [0.25, 1.0], [1.0, 1.0], [0.5, 0.25]]).reshape(4, 1, 2, 1)
    labels = jnp.zeros(4, int)
    for norm, first, last in (
        ("linf", 0.5, 0.75),
        ("l2", np.hypot(0.375, 0.5), 0.75),
        ("l1", 0.875, 0.75),
    ):
        distances = attacks.distances(classifier, images, moved, labels, norm=norm)
        np.testing.assert_allclose(distances, [first, np.inf, 0.0, last], rtol=1e-6)
        alone = attacks.distances(classifier, images[0], moved[0], 0, norm=norm)
        assert alone.shape == ()
        assert float(alone) == pytest.approx(first)
    for bad, error, message in (
        (moved[:3], ValueError, r"adversarial must have the images' shape \(4, 1, 2, 1\)"),
        (moved + 0.5, ValueError, r"adversarial must lie in \[0, 1\], got values from 0.625"),
        (jnp.zeros((4, 1, 2, 1), int), TypeError, "adversarial must be floating point"),
    ):
        with pytest.raises(error, match=message):
            attacks.distances(classifier, images, bad, labels, norm="l2")
    with pytest.raises(ValueError, match="norm must be one of linf, l2, l1, got 'l0'"):
        attacks.distances(classifier, images, moved, labels, norm="l0")


def test_robust_accuracy_by_hand():
    distances = np.array([0.0, 0.1, np.inf, 0.3, 0.1])
    accuracies = attacks.robust_accuracy(distances, [0.0, 0.0999, 0.1, 0.2, 0.5])
    np.testing.assert_allclose(accuracies, [0.8, 0.8, 0.4, 0.4, 0.2])
    assert float(attacks.robust_accuracy(distances, 0.2)) == pytest.approx(0.4)
    assert float(attacks.robust_accuracy(jnp.float32(0.3), 0.2)) == 1.0
    traced = jax.jit(attacks.robust_accuracy)(distances, jnp.array([0.2]))
    np.testing.assert_allclose(traced, [0.4])
    for bad, radii, message in (
        ([0.1, np.nan], 0.1, "distances must be at least 0, got nan"),
        ([-0.1], 0.1, "distances must be at least 0, got -0.1"),
        ([], 0.1, r"distances must have shape \(n,\) or \(\), got \(0,\)"),
        ([0.1], [[0.1]], r"epsilons must have shape \(m,\) or \(\), got \(1, 1\)"),
        ([0.1], [-1.0], "epsilons must be at least 0, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            attacks.robust_accuracy(np.array(bad), radii)


def test_what_lies_in_a_ball_counts_as_within_it():
    """The sum of image and perturbation is rounded: some of the distances are above the radius."""
    classifier, images, labels, *_ = linear(*SIZES[2])
    epsilon = 1.5 * float(hyperplanes(*SIZES[2], "linf").min(1).max())
    attacked = attacks.fgsm(classifier, images, labels, epsilon=epsilon)
    distances = attacks.distances(classifier, images, attacked, labels, norm="linf")
    assert np.any(np.float64(distances) > epsilon)
    assert float(attacks.robust_accuracy(distances, epsilon)) == 0.0
    assert float(attacks.robust_accuracy(distances, 0.999 * epsilon)) == 1.0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("deepfool", {"norm": "l1"}, "norm must be linf or l2 for attacks that look for the near"),
        ("deepfool", {"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ("deepfool", {"candidates": 0}, "candidates must be a whole number of at least 1, got 0"),
        ("deepfool", {"overshoot": -0.1}, "overshoot must be a finite number of at least 0"),
        ("deepfool", {"epsilon": 8, "norm": "linf"}, "divide levels by 255"),
        ("fab", {"epsilon": -1.0}, "epsilon must be a finite number of at least 0, got -1"),
        ("fab", {"targets": 0}, "targets must be a whole number of at least 1, got 0"),
        ("carlini_wagner", {"norm": "l2"}, "'norm' is no option of carlini_wagner"),
        ("carlini_wagner", {"binary_search_steps": 0}, "binary_search_steps must be a whole"),
        ("carlini_wagner", {"confidence": -1.0}, "confidence must be a finite number of at least"),
        ("carlini_wagner", {"learning_rate": float("nan")}, "learning_rate must be a finite"),
        ("carlini_wagner", {"initial_constant": -1}, "initial_constant must be a finite number"),
        ("carlini_wagner", {"epsilon": float("inf")}, "epsilon must be a finite number"),
    ],
)
def test_options_are_checked_without_running(name, options, message):
    attacks.check_options(name, {})
    with pytest.raises(ValueError, match=message):
        attacks.check_options(name, options)


def test_evaluation_calls_all_attacks_alike():
    assert all("key" in inspect.signature(attack).parameters for attack in attacks.ATTACKS.values())
    images, labels = pictures()
    batch = {
        "image": jnp.round(images * 255).astype(jnp.uint8),
        "label": labels,
        "index": jnp.arange(6),
        "mask": jnp.ones(6, bool),
    }
    attacked = tuple((name, (("epsilon", 1.0), ("steps", 5))) for name in ("deepfool", "fab"))
    counts = evaluate.count(network(), batch, jax.random.key(0), attacked=attacked)
    assert all(count["n"] == 6 for count in counts["attacks"])
    assert counts["attacks"][1]["top1"] < counts["top1"]
    assert attacks.complete_options("carlini_wagner", {})["norm"] == "l2"


def test_carlini_and_wagner_leave_black_and_white():
    """Where every pixel is at the end of the box the descent begins on the flat of the tangent."""
    weights = np.random.default_rng(0).standard_normal((48, 5)).astype(np.float32)
    classifier = as_classifier(lambda w, image: image.reshape(-1) @ w, weights)
    images = (np.random.default_rng(1).random((4, 4, 4, 3)) > 0.5).astype(np.float32)
    labels = np.asarray(classifier(images)).argmax(-1)
    found, nearest = (
        np.asarray(
            attacks.distances(
                classifier, images, attack(classifier, images, labels), labels, norm="l2"
            )
        )
        for attack in (attacks.carlini_wagner, functools.partial(attacks.fab, norm="l2"))
    )
    # It goes to the class that leads on the way; FAB tries each.
    assert np.all(found <= 1.3 * nearest)
