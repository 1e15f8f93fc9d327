"""What training minimises: functions of one form, by name or import path.

    objective(model, variables, batch, key, *, options) -> (loss, (updated, metrics))

`batch` holds `image` float32 (n, h, w, c) in [0, 1] and `label` (n,); `updated` are the collections
that the forward pass in train mode has changed (`batch_stats`), `metrics` scalars for the log,
`accuracy` (0 to 1) among them. The training step differentiates the loss and knows nothing else of
an objective. Options are static. Those named `attack` (a mapping, as configs have it), `share`,
`batch_statistics` and `shards` are given by the config's `attack`, `adversarial_share`,
`attack_batch_statistics` and the number of devices; all others stand beside the objective's name.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrobust import attacks
from jaxrobust.classifier import Classifier
from jaxrobust.core import named
from jaxrobust.core.checks import BATCH_AXIS

Variables = Mapping[str, Any]
Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]
Loss = tuple[jax.Array, tuple[dict[str, Any], Metrics]]
Objective = Callable[..., Loss]


def train_logits(
    model: nn.Module, variables: Variables, images: jax.Array, key: jax.Array
) -> tuple[jax.Array, dict[str, Any]]:
    """Logits (n, k) in train mode, float32, and the collections that the forward pass has changed.

    Args:
      model: of the classifier.
      variables: its collections.
      images: (n, h, w, c) in [0, 1].
      key: of dropout.
    """
    logits, updated = model.apply(
        variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key}
    )
    return logits.astype(jnp.float32), dict(updated)  # a module may return its compute dtype


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The share of logits (n, k) that are largest at their label (n,)."""
    return jnp.mean(jnp.argmax(logits, axis=-1) == labels)


def standard(model: nn.Module, variables: Variables, batch: Batch, key: jax.Array) -> Loss:
    """The mean cross-entropy of the images as they are."""
    _, dropout_key = jax.random.split(key)
    logits, updated = train_logits(model, variables, batch["image"], dropout_key)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
    return jnp.mean(losses), (updated, {"accuracy": accuracy(logits, batch["label"])})


def adversarial(
    model: nn.Module,
    variables: Variables,
    batch: Batch,
    key: jax.Array,
    *,
    attack: Mapping[str, Any],
    share: float = 1.0,
    batch_statistics: bool = False,
    shards: int = 1,
) -> Loss:
    """The mean cross-entropy of attacked images (Madry et al. 2018; eq. 2 of the paper).

    Args:
      attack: its name and options.
      share: of the images that is attacked, the same within each shard of the batch.
      batch_statistics: BatchNorm inside the attack takes the batch's own statistics.
      shards: parts into which devices cut the batch.
    """
    attack_key, _ = jax.random.split(key)
    # The attack sees the weights and is not differentiated with respect to them.
    fixed = jax.lax.stop_gradient(dict(variables))
    attacked = model.clone(batch_statistics_axis=BATCH_AXIS) if batch_statistics else model
    options = {name: value for name, value in attack.items() if name != "name"}
    perturb = functools.partial(
        attacks.get(attack["name"]), Classifier(attacked, fixed), key=attack_key, **options
    )
    images = _with_share_attacked(perturb, batch["image"], batch["label"], share, shards)
    return standard(model, variables, {**batch, "image": images}, key)


def _with_share_attacked(perturb, images, labels, share, shards):
    if share == 1.0:
        return perturb(images, labels)
    # Each device attacks its share of its own images: a choice across the batch would make every
    # device attack all that is chosen.
    chosen = attacked_positions(images.shape[0] // shards, share)

    def cut(array):
        return array.reshape(shards, -1, *array.shape[1:])

    part = perturb(
        cut(images)[:, chosen].reshape(-1, *images.shape[1:]), cut(labels)[:, chosen].reshape(-1)
    )
    mixed = cut(images).at[:, chosen].set(part.reshape(shards, -1, *images.shape[1:]))
    return mixed.reshape(images.shape)


def attacked_positions(count: int, share: float) -> np.ndarray:
    """Which of `count` images are attacked: the share of them, rounded down, evenly spaced.

    Example:
      >>> attacked_positions(8, 0.25).tolist()
      [3, 7]
    """
    passed = np.floor(np.arange(1, count + 1) * share + 1e-9)
    return np.flatnonzero(np.diff(passed, prepend=0))


# name -> where it is; a user's own is named by its import path, "package.module:function".
OBJECTIVES = {
    "standard": f"{__name__}:standard",
    "adversarial": f"{__name__}:adversarial",
    "trades": f"{__name__}.trades:trades",
}


def get(name: str) -> Objective:
    """The objective of that name or import path.

    Raises:
      ValueError: when there is none.

    Example:
      >>> get("standard") is standard
      True
    """
    return named.get("objective", OBJECTIVES, name)
