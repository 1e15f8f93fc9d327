import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from jaxrobust.attacks import norms

NAMES = ("linf", "l2", "l1")
ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}


MODES = {
    "plain": lambda function: function,
    "jit": jax.jit,
    "vmap": lambda function: (
        lambda *args: jax.jit(jax.vmap(function))(*[jnp.asarray(arg)[None] for arg in args])[0]
    ),
}


def l1_projection_by_sorting(delta, epsilon):
    """Duchi et al. 2008, figure 1."""
    magnitude = np.abs(delta)
    if magnitude.sum() <= epsilon:
        return delta
    ordered = np.sort(magnitude)[::-1]
    excess = np.cumsum(ordered) - epsilon
    count = np.flatnonzero(ordered > excess / np.arange(1, len(ordered) + 1))[-1]
    return np.sign(delta) * np.maximum(magnitude - excess[count] / (count + 1), 0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_l2_and_l1_projections_equal_independent_solutions(scale, mode):
    delta = scale * np.random.default_rng(0).normal(size=60)
    delta32 = jnp.asarray(delta, jnp.float32)
    epsilon = 2.0
    expected = delta * min(1.0, epsilon / np.linalg.norm(delta))
    project = MODES[mode](norms.l2.project)
    np.testing.assert_allclose(project(delta32, epsilon), expected, rtol=1e-5, atol=1e-6)
    expected = l1_projection_by_sorting(delta, epsilon)
    project = MODES[mode](norms.l1.project)
    np.testing.assert_allclose(project(delta32, epsilon), expected, rtol=1e-5, atol=2e-6 * scale)


@pytest.mark.parametrize("name", NAMES)
def test_projection_onto_ball_and_box_equals_a_general_solver(name):
    generator = np.random.default_rng(1)
    image = generator.uniform(size=8)
    delta = generator.normal(size=8)
    epsilon = {"linf": 0.3, "l2": 0.7, "l1": 1.2}[name]
    lower, upper = -image, 1 - image
    ours = np.asarray(
        norms.get(name).project(jnp.float32(delta), epsilon, jnp.float32(lower), jnp.float32(upper))
    )
    # The l_1 and l_inf constraints, made smooth by splitting delta into positive and negative part.
    split = optimize.minimize(
        lambda z: np.sum((z[:8] - z[8:] - delta) ** 2),
        np.zeros(16),
        bounds=[(0, max(u, 0)) for u in upper] + [(0, max(-low, 0)) for low in lower],
        constraints={
            "linf": {"type": "ineq", "fun": lambda z: epsilon - np.concatenate([z[:8], z[8:]])},
            "l2": {"type": "ineq", "fun": lambda z: epsilon**2 - np.sum((z[:8] - z[8:]) ** 2)},
            "l1": {"type": "ineq", "fun": lambda z: epsilon - np.sum(z)},
        }[name],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    np.testing.assert_allclose(ours, split.x[:8] - split.x[8:], atol=2e-4)
    ours_distance = np.sum((ours - delta) ** 2)
    assert ours_distance <= split.fun * (1 + 1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [1e-20, 1e-6, 1.0, 1e6])
def test_projection_stays_inside_and_keeps_what_is_inside(name, scale):
    project = jax.jit(norms.get(name).project)
    delta = scale * jax.random.normal(jax.random.key(0), (7, 5, 3))
    image = jax.random.uniform(jax.random.key(1), (7, 5, 3))
    projected = project(delta, 0.5, -image, 1 - image)
    assert np.linalg.norm(np.float64(projected).ravel(), ORDERS[name]) <= 0.5 * (1 + 1e-6)
    assert jnp.all((projected >= -image) & (projected <= 1 - image))
    np.testing.assert_allclose(project(projected, 0.5, -image, 1 - image), projected, atol=1e-6)
    np.testing.assert_array_equal(project(delta, 0.0, -image, 1 - image), 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_uniform_in_the_ball(name):
    """The radius of a uniform point of a d-ball has the distribution function r^d."""
    norm, shape, epsilon = norms.get(name), (2, 2, 1), 3.0
    keys = jax.random.split(jax.random.key(0), 4000)
    samples = jax.jit(jax.vmap(lambda key: norm.sample(key, shape, epsilon)))(keys)
    radii = np.asarray(jax.vmap(norm.measure)(samples)) / epsilon
    assert radii.max() <= 1 + 1e-6
    quantiles = np.sort(radii**4)
    assert np.max(np.abs(quantiles - np.linspace(0, 1, 4000))) < 1.63 / np.sqrt(4000)  # KS at 1 %
    mean = np.asarray(samples).reshape(4000, -1).mean(axis=0)
    np.testing.assert_allclose(mean, 0, atol=4 * epsilon / np.sqrt(4000))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [0.0, 1e-25, 1.0, 1e25])
def test_steepest_step_has_norm_one_and_is_finite(name, scale):
    gradient = scale * jax.random.normal(jax.random.key(0), (9, 9, 3))
    step = norms.get(name).steepest(gradient, jnp.ones_like(gradient, bool))
    expected = 0.0 if scale == 0 else 1.0
    np.testing.assert_allclose(norms.get(name).measure(step), expected, rtol=1e-5)


def test_l1_step_passes_over_what_the_box_stops():
    gradient = jnp.array([5.0, 4.0, 3.0, -2.0])
    movable = jnp.array([False, True, True, True])
    step = norms.l1.steepest(gradient, movable)
    assert step[1] == 1.0  # one of four coordinates, the largest that can move
    assert step[2] == step[3] == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_measure_equals_numpy(name):
    delta = np.random.default_rng(0).normal(size=(4, 3, 3))
    expected = np.linalg.norm(delta.ravel(), ORDERS[name])
    np.testing.assert_allclose(norms.get(name).measure(jnp.float32(delta)), expected, rtol=1e-5)


def test_unknown_norm():
    with pytest.raises(ValueError, match="norm must be one of linf, l2, l1, got 'l3'"):
        norms.get("l3")
