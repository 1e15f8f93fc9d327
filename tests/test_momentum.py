"""MI-FGSM, beside NumPy and PGD."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import as_classifier, attacks
from tests.tiny import assert_equal_to_rounding

SHAPE = (5, 4, 3)
CLASSES = 3


def coefficients():
    # Small ones: where the softmax is sure, rounding decides about signs.
    size = (2, CLASSES, int(np.prod(SHAPE)))
    return (0.2 * np.random.default_rng(0).standard_normal(size)).astype(np.float32)


def quadratic():
    """Logits that are quadratic in the image: the gradient is known and turns on the way."""
    return as_classifier(
        lambda w, image: w[0] @ image.ravel() ** 2 + w[1] @ image.ravel(), coefficients()
    )


IMAGES = np.random.default_rng(1).uniform(-0.2, 1.2, (4, *SHAPE)).clip(0, 1).astype(np.float32)
LABELS = np.array([0, 1, 2, 0])


def gradient(image, label):
    """Of the cross-entropy, in float64."""
    square, linear = map(np.float64, coefficients())
    logits = square @ image**2 + linear @ image
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    return (shares - np.eye(CLASSES)[label]) @ (2 * square * image + linear)


def by_numpy(image, label, *, epsilon, steps, norm, decay, sign):
    image, velocity = np.float64(image).ravel(), 0.0
    delta = np.zeros_like(image)
    for _ in range(steps):
        slope = sign * gradient(image + delta, label)
        velocity = decay * velocity + slope / np.abs(slope).sum()
        if norm == "linf":
            delta = np.clip(delta + epsilon / steps * np.sign(velocity), -epsilon, epsilon)
            delta = np.clip(image + delta, 0, 1) - image
        else:
            # With steps of epsilon / steps the ball does not bind, nor here the box after it.
            delta = delta + epsilon / steps * velocity / np.linalg.norm(velocity)
            assert np.linalg.norm(delta) <= epsilon
            delta = np.clip(image + delta, 0, 1) - image
    return (image + delta).reshape(SHAPE)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("decay", [1.0, 0.5])
@pytest.mark.parametrize("targeted", [False, True])
def test_steps_equal_numpy(norm, decay, targeted):
    options = {"epsilon": {"linf": 0.2, "l2": 1.0}[norm], "steps": 8, "norm": norm, "decay": decay}
    result = attacks.momentum(quadratic(), IMAGES, LABELS, targeted=targeted, **options)
    sign = -1 if targeted else 1
    expected = [by_numpy(*pair, **options, sign=sign) for pair in zip(IMAGES, LABELS, strict=True)]
    np.testing.assert_allclose(result, expected, atol=1e-5)
    other = attacks.momentum(
        quadratic(), IMAGES, LABELS, targeted=targeted, **options | {"decay": 0.0}
    )
    assert np.any(np.abs(other - result) > 0.01)


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.1), ("l2", 0.8), ("l1", 3.0)])
def test_without_a_memory_it_is_pgd(norm, epsilon):
    options = {"epsilon": epsilon, "steps": 5, "step_size": epsilon / 3, "norm": norm}
    ours = attacks.momentum(quadratic(), IMAGES, LABELS, decay=0.0, **options)
    theirs = attacks.pgd(quadratic(), IMAGES, LABELS, random_start=False, **options)
    assert_equal_to_rounding(ours, theirs)


def test_random_starts():
    options = {"epsilon": 0.1, "steps": 1, "step_size": 0.0, "random_start": True}
    first, second = (
        attacks.momentum(quadratic(), IMAGES, LABELS, key=jax.random.key(seed), **options)
        for seed in (0, 1)
    )
    assert np.abs(first - second).max() > 0.05
    assert np.abs(first - IMAGES).max() <= 0.1 + 1e-6
    with pytest.raises(ValueError, match="key must be given when random_start"):
        attacks.momentum(quadratic(), IMAGES, LABELS, **options)


def test_options_are_checked_and_completed():
    complete = attacks.complete_options("momentum", {"epsilon": 0.5, "steps": 4})
    assert complete["step_size"] == 0.125
    assert complete["restarts"] == 1
    assert complete["random_start"] is False
    own = attacks.complete_options("momentum", {"epsilon": 0.5, "steps": 4, "step_size": 0.0})
    assert own["step_size"] == 0.0
    for options, message in (
        ({"decay": -1.0}, "decay must be a finite number of at least 0, got -1"),
        ({"epsilon": 8}, "divide levels by 255"),
        ({"loss": "hinge"}, "loss must be a function or one of"),
        ({"restarts": 2}, "'restarts' is no option of momentum"),
    ):
        with pytest.raises(ValueError, match=message):
            attacks.check_options("momentum", {"epsilon": 0.1, "steps": 3} | options)


def test_a_gradient_of_zero_or_nan_goes_on():
    flat = as_classifier(lambda w, image: w + 0.0 * image.sum(), jnp.array([1.0, 0.0]))
    still = attacks.momentum(flat, IMAGES[0], 0, epsilon=0.1, steps=3)
    np.testing.assert_array_equal(still, IMAGES[0])
    broken = as_classifier(lambda w, image: w * jnp.sqrt(image - 2).sum(), jnp.array([1.0, 0.0]))
    still = attacks.momentum(broken, IMAGES[0], 0, epsilon=0.1, steps=3)
    np.testing.assert_array_equal(still, IMAGES[0])
