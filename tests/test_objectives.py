"""Objectives: TRADES against its closed form for linear logits, and the seam that it stands on."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from jaxrobust.training import objectives, study
from jaxrobust.training.objectives.trades import divergence, trades
from tests import tiny

KEY = jax.random.key(3)
ATTACK = {"name": "pgd", "epsilon": 0.1, "steps": 1, "step_size": 0.07}


class Linear(nn.Module):
    """Logits W x: everything about it is known in closed form."""

    @nn.compact
    def __call__(self, images, *, train=False):
        return nn.Dense(4, use_bias=False)(images.reshape(len(images), -1))


def batch(count=6):
    rng = np.random.default_rng(0)
    images = rng.uniform(0.2, 0.8, (count, 2, 2, 3)).astype(np.float32)
    return {"image": jnp.asarray(images), "label": jnp.arange(count) % 4}


def linear():
    kernel = np.random.default_rng(1).standard_normal((12, 4)).astype(np.float32)
    return kernel, {"params": {"Dense_0": {"kernel": jnp.asarray(kernel)}}}


def moved_by_hand(kernel, images):
    """One step of PGD on KL(p || q), whose gradient by the image is W (q - p), from the noise."""
    keys = jax.random.split(jax.random.split(KEY)[0], len(images))
    noise = np.stack([1e-3 * jax.random.normal(key, images.shape[1:]) for key in keys])
    flat, start = images.reshape(len(images), -1), noise.reshape(len(images), -1)
    p = scipy.special.softmax(flat @ kernel, axis=1)
    q = scipy.special.softmax((flat + start) @ kernel, axis=1)
    delta = start + 0.07 * np.sign((q - p) @ kernel.T)
    return np.clip(flat + np.clip(delta, -0.1, 0.1), 0, 1)


def test_divergence_is_scipys():
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 5, 7))
    expected = scipy.stats.entropy(
        scipy.special.softmax(first, axis=1), scipy.special.softmax(second, axis=1), axis=1
    )
    np.testing.assert_allclose(divergence(first, second), expected, rtol=1e-5)


def test_trades_and_its_gradient_by_hand():
    kernel, variables = linear()
    made = batch()
    images, labels = np.asarray(made["image"], np.float64), np.asarray(made["label"])

    def loss_of(params):
        return trades(Linear(), {"params": params}, made, KEY, attack=ATTACK, beta=6.0)

    (loss, (_, metrics)), gradient = jax.value_and_grad(loss_of, has_aux=True)(variables["params"])
    x, moved = images.reshape(6, -1), moved_by_hand(kernel.astype(np.float64), images)
    log_p = scipy.special.log_softmax(x @ kernel, axis=1)
    log_q = scipy.special.log_softmax(moved @ kernel, axis=1)
    p, q = np.exp(log_p), np.exp(log_q)
    apart = (p * (log_p - log_q)).sum(1)
    cross_entropy = -log_p[np.arange(6), labels]
    np.testing.assert_allclose(loss, np.mean(cross_entropy + 6.0 * apart), rtol=1e-4)
    np.testing.assert_allclose(metrics["divergence"], apart.mean(), rtol=1e-3)
    np.testing.assert_allclose(metrics["accuracy"], np.mean(p.argmax(1) == labels))
    np.testing.assert_allclose(metrics["perturbed_accuracy"], np.mean(q.argmax(1) == labels))
    # Through both answers, the perturbed image held still.
    by_clean = p - np.eye(4)[labels] + 6.0 * p * (log_p - log_q - apart[:, None])
    expected = (x.T @ by_clean + moved.T @ (6.0 * (q - p))) / 6
    tiny.assert_equal_to_rounding(gradient["Dense_0"]["kernel"], expected, 1e-3)


def test_trades_without_divergence_is_the_clean_loss():
    _, variables = linear()
    loss, _ = trades(Linear(), variables, batch(), KEY, attack=ATTACK, beta=0.0)
    expected, _ = objectives.standard(Linear(), variables, batch(), KEY)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_both_passes_of_trades_update_the_statistics():
    model = tiny.TinyNetwork(num_classes=4)
    images = jnp.tile(batch()["image"], (1, 4, 4, 1))
    variables = tiny.drawn_variables(model, images.shape[1:])
    still = {**ATTACK, "epsilon": 0.0}
    _, (updated, _) = trades(model, variables, {**batch(), "image": images}, KEY, attack=still)
    expected = dict(variables)
    for _ in range(2):
        _, changed = model.apply(expected, images, train=True, mutable=["batch_stats"])
        expected = {**expected, **changed}
    jax.tree.map(
        lambda one, other: tiny.assert_equal_to_rounding(one, other, 1e-4),
        updated["batch_stats"],
        dict(expected["batch_stats"]),
    )


def constant_margin(model, variables, batch, key, *, weight=1.0):
    """An objective of a user's own: the mean logit of the label, lowered."""
    logits, updated = objectives.train_logits(model, variables, batch["image"], key)
    picked = jnp.take_along_axis(logits, batch["label"][:, None], axis=1)
    metrics = {"accuracy": objectives.accuracy(logits, batch["label"])}
    return -weight * jnp.mean(picked), (updated, metrics)


@pytest.mark.slow
def test_objectives_of_ones_own_and_trades_train(data_dir, tmp_path):
    runs = {
        "own": {"objective": {"name": f"{__name__}:constant_margin", "weight": 0.5}},
        "trades": {
            "objective": {"name": "trades", "beta": 1.0},
            "attack": {"name": "pgd", "epsilon": 0.05, "steps": 1},
        },
    }
    config = tiny.config(data_dir, steps=2, runs=runs)
    config.evaluation.attacks = {}
    results = study.run(config, tmp_path)
    assert [entry["run"] for entry in results] == ["own", "trades"]
    log = (tmp_path / "trades" / "seed0" / "metrics.jsonl").read_text()
    assert "perturbed_accuracy" in log


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": {"name": "trade"}}, r"objective must be one of .*did you mean 'trades'"),
        ({"objective": {"name": "no_module:f"}}, "'no_module:f' cannot be imported"),
        ({"objective": {"name": "trades"}}, "attack must be an attack for the objective trades"),
        (
            {"objective": {"name": "standard"}, "attack": {"name": "fgsm", "epsilon": 0.1}},
            "attack must be None for the objective standard",
        ),
        (
            {"objective": {"name": "trades"}, "attack": {"name": "fgsm", "epsilon": 0.1}},
            "attack must be pgd with some of epsilon, steps, norm, step_size .*fgsm",
        ),
        (
            {"objective": {"name": "trades", "bta": 1.0}, "attack": dict(ATTACK)},
            "'bta' is no option of the objective trades .*did you mean 'beta'",
        ),
        (
            {
                "objective": {"name": "trades"},
                "attack": dict(ATTACK),
                "adversarial_share": 0.5,
            },
            "adversarial_share must be 1.0 for the objective trades, .* got 0.5",
        ),
        (
            {"objective": {"name": "jaxrobust:__version__"}},
            "objective 'jaxrobust:__version__' must be a function, got a str",
        ),
        (
            {"attack": {"name": "jax.numpy:sum", "epsilon": 0.1}},
            "attack: .*no option of jax.numpy:sum",
        ),
        (
            {"objective": {"name": "trades", "beta": -1.0}, "attack": dict(ATTACK)},
            "objective.beta must be a finite number of at least 0",
        ),
    ],
)
def test_objectives_that_do_not_fit_are_refused_before_training(
    changes, message, data_dir, tmp_path
):
    config = tiny.config(data_dir, runs={"run": changes})
    with pytest.raises(ValueError, match=message):
        study.run(config, tmp_path / "new")
    assert not (tmp_path / "new").exists()
