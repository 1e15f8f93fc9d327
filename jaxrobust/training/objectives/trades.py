"""TRADES: a clean loss, and how far the answers move within the ball (Zhang et al. 2019)."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxrobust import attacks
from jaxrobust.classifier import Classifier
from jaxrobust.core.checks import check_number
from jaxrobust.training.objectives import Batch, Loss, Variables, accuracy, train_logits

# Standard deviation of the normal noise that the inner maximisation starts from, in pixel units: at
# the image itself the divergence is least, and its gradient 0.
_START = 1e-3


def divergence(clean_logits: jax.Array, logits: jax.Array) -> jax.Array:
    """KL(p ‖ q) for p, q the softmax of `clean_logits` and `logits` (…, k), in nats: shape (…).

    Example:
      >>> float(divergence(jnp.zeros(4), jnp.zeros(4)))
      0.0
    """
    clean, other = jax.nn.log_softmax(clean_logits), jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(clean) * (clean - other), axis=-1)


def trades(
    model: nn.Module,
    variables: Variables,
    batch: Batch,
    key: jax.Array,
    *,
    attack: Mapping[str, Any],
    beta: float = 6.0,
) -> Loss:
    """CE(x) + beta KL(p(x) ‖ p(x')), x' in the ball where that divergence is largest (their eq. 5).

    The inner maximisation is projected gradient ascent on the divergence from the answer to the
    clean image, from x + 0.001 N(0, 1), in inference mode. The clean and the perturbed images pass
    the network in train mode one after the other, and both update BatchNorm's statistics.

    Args:
      attack: {"name": "pgd", "epsilon", "steps"} and perhaps "norm" and "step_size".
      beta: weight of the divergence, at least 0; the paper's is 6 for CIFAR-10.

    Raises:
      ValueError: when the attack is another than that, or beta is below 0.
    """
    check_number("objective.beta", beta)
    taken = ("name", "epsilon", "steps", "norm", "step_size")
    if attack["name"] != "pgd" or set(attack) - set(taken):
        raise ValueError(
            f"attack must be pgd with some of {', '.join(taken[1:])} for the objective trades, "
            f"got {dict(attack)}."
        )
    options = attacks.complete_options("pgd", attack)
    attack_key, dropout_key = jax.random.split(key)
    images, labels = batch["image"], batch["label"]
    classifier = Classifier(model, jax.lax.stop_gradient(dict(variables)))

    def perturbed(image, key):
        clean = classifier(image)
        noise = _START * jax.random.normal(key, image.shape)
        return attacks.ascend(
            lambda moved: divergence(clean, classifier(moved)),
            image,
            start=jnp.clip(image + noise, 0.0, 1.0) - image,
            norm=options["norm"],
            epsilon=options["epsilon"],
            step_size=options["step_size"],
            steps=options["steps"],
        )

    moved = jax.vmap(perturbed)(images, jax.random.split(attack_key, images.shape[0]))
    clean_key, moved_key = jax.random.split(dropout_key)
    logits, updated = train_logits(model, variables, images, clean_key)
    moved_logits, updated = train_logits(model, {**variables, **updated}, moved, moved_key)
    cross_entropy = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
    apart = jnp.mean(divergence(logits, moved_logits))
    metrics = {
        "accuracy": accuracy(logits, labels),
        "perturbed_accuracy": accuracy(moved_logits, labels),
        "divergence": apart,
    }
    return cross_entropy + beta * apart, (updated, metrics)
