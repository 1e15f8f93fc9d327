"""One training step, standard or adversarial, as one compiled program, and what it needs."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from jaxrobust import attacks
from jaxrobust.classifier import Classifier
from jaxrobust.core.checks import BATCH_AXIS


@flax.struct.dataclass
class TrainState:
    """All that a training step changes.

    Attributes:
      step: how many steps are done, an int32 scalar.
      variables: the model's collections, `params` and perhaps `batch_stats`.
      optimizer: the state of the optimizer.
    """

    step: jax.Array
    variables: dict[str, Any]
    optimizer: Any


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What the compiled step depends on, hashable, so that equal runs share one program."""

    steps: int
    learning_rate: float
    momentum: float
    nesterov: bool
    weight_decay: float
    decay_norm_and_bias: bool
    schedule: str
    boundaries: tuple[float, ...]
    factor: float
    warmup: float
    attack: str | None
    attack_options: tuple[tuple[str, Any], ...]
    adversarial_share: float
    attack_batch_statistics: bool

    @classmethod
    def from_config(cls, config: ConfigDict, steps: int) -> "Recipe":
        """The recipe of a config that trains for `steps` steps."""
        attack = dict(config.attack or {})
        return cls(
            steps=steps,
            **config.optimizer.to_dict(),
            schedule=config.schedule.name,
            boundaries=tuple(config.schedule.boundaries),
            factor=config.schedule.factor,
            warmup=config.schedule.warmup,
            attack=attack.pop("name", None),
            attack_options=tuple(sorted(attack.items())),
            adversarial_share=config.adversarial_share,
            attack_batch_statistics=config.attack_batch_statistics,
        )

    def learning_rate_at(self, step: jax.Array | int) -> jax.Array:
        """The learning rate of a step, counted from 0."""
        warmup = round(self.warmup * self.steps)
        if self.schedule == "cosine":
            decayed = optax.cosine_decay_schedule(self.learning_rate, max(self.steps - warmup, 1))
        elif self.schedule == "step":
            at = {round(share * self.steps) - warmup: self.factor for share in self.boundaries}
            decayed = optax.piecewise_constant_schedule(self.learning_rate, at)
        else:
            decayed = optax.constant_schedule(self.learning_rate)
        if not warmup:
            return jnp.asarray(decayed(step))
        # The first step already moves: with a rate of 0 it would be lost.
        rising = self.learning_rate * (step + 1) / (warmup + 1)
        return jnp.where(step < warmup, rising, decayed(jnp.maximum(step - warmup, 0)))

    def optimizer(self) -> optax.GradientTransformation:
        """SGD with momentum, the weight decay added to the gradient (as PyTorch's)."""

        def decayed(params):
            everything = self.decay_norm_and_bias
            return jax.tree.map(lambda leaf: everything or leaf.ndim > 1, params)

        return optax.chain(
            optax.add_decayed_weights(self.weight_decay, mask=decayed),
            optax.sgd(
                self.learning_rate_at,
                momentum=self.momentum or None,
                nesterov=self.nesterov,
            ),
        )


@functools.partial(jax.jit, static_argnames=("model", "image_shape", "recipe", "mesh"))
def initial_state(
    key: jax.Array, *, model: nn.Module, image_shape: tuple[int, ...], recipe: Recipe, mesh: Mesh
) -> TrainState:
    """Freshly drawn weights and the optimizer's state for them, replicated over the mesh.

    Raises:
      ValueError: when the model has collections other than `params` and `batch_stats`.
    """
    variables = dict(Classifier.init(key, model, image_shape).variables)
    unknown = set(variables) - {"params", "batch_stats"}
    if unknown:
        raise ValueError(
            f"{type(model).__name__} has the collections {sorted(unknown)}; "
            "training knows params and batch_stats."
        )
    trained, _ = _split(variables["params"], model)
    state = TrainState(jnp.zeros((), jnp.int32), variables, recipe.optimizer().init(trained))
    return _replicated(state, mesh)


def _replicated(state: TrainState, mesh: Mesh) -> TrainState:
    replicated = NamedSharding(mesh, PartitionSpec())
    return jax.lax.with_sharding_constraint(state, jax.tree.map(lambda _: replicated, state))


def _split(params: dict[str, Any], model: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters that are trained, and those that the model declares frozen."""
    frozen = getattr(model, "frozen_parameters", ())
    return (
        {name: part for name, part in params.items() if name not in frozen},
        {name: part for name, part in params.items() if name in frozen},
    )


@functools.partial(jax.jit, static_argnames=("model", "recipe", "mesh"), donate_argnums=0)
def train_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    key: jax.Array,
    *,
    model: nn.Module,
    recipe: Recipe,
    mesh: Mesh,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update of the weights, the attack included, as one compiled program.

    Args:
      state: donated.
      batch: `image` uint8 (n, h, w, c) and `label` (n,), sharded along the mesh axis "data".
      key: the key of the whole training; that of the step is derived from it.
      model, recipe, mesh: static.

    Returns:
      The new state; `loss` and `accuracy` (0 to 1) on the images that were trained on, and
      `weight_norm`, the l_2 norm of the new weights.
    """
    # Derived here, not in the loop: nothing is left for the host to do between two steps.
    attack_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
    images = batch["image"].astype(jnp.float32) / 255.0
    labels = batch["label"]
    if recipe.attack is not None:
        images = _attacked(state, images, labels, attack_key, model=model, recipe=recipe, mesh=mesh)

    trained, frozen = _split(state.variables["params"], model)

    def loss_of(trained):
        logits, updated = model.apply(
            {**state.variables, "params": {**trained, **frozen}},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": dropout_key},
        )
        logits = logits.astype(jnp.float32)  # a user's module may return its compute dtype
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses), (logits, updated)

    (loss, (logits, updated)), gradient = jax.value_and_grad(loss_of, has_aux=True)(trained)
    change, optimizer = recipe.optimizer().update(gradient, state.optimizer, trained)
    params = {**optax.apply_updates(trained, change), **frozen}
    state = TrainState(state.step + 1, {**state.variables, **updated, "params": params}, optimizer)
    state = _replicated(state, mesh)
    accuracy = jnp.mean(jnp.argmax(logits, axis=-1) == labels)
    weight_norm = jnp.sqrt(sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(params)))
    return state, {"loss": loss, "accuracy": accuracy, "weight_norm": weight_norm}


def _attacked(state, images, labels, key, *, model, recipe, mesh):
    """The images, the recipe's share of them replaced by adversarial ones."""
    if recipe.attack_batch_statistics:
        model = model.clone(batch_statistics_axis=BATCH_AXIS)
    classifier = Classifier(model, state.variables)
    attack = functools.partial(
        attacks.get(recipe.attack), classifier, key=key, **dict(recipe.attack_options)
    )
    if recipe.adversarial_share == 1.0:
        return attack(images, labels)
    # Each device attacks its share of its own images: a choice across the batch would make every
    # device attack all that is chosen.
    parts = mesh.shape["data"]
    chosen = attacked_positions(images.shape[0] // parts, recipe.adversarial_share)

    def cut(array):
        return array.reshape(parts, -1, *array.shape[1:])

    part = attack(
        cut(images)[:, chosen].reshape(-1, *images.shape[1:]), cut(labels)[:, chosen].reshape(-1)
    )
    mixed = cut(images).at[:, chosen].set(part.reshape(parts, -1, *images.shape[1:]))
    return mixed.reshape(images.shape)


def attacked_positions(count: int, share: float) -> np.ndarray:
    """Which of `count` images are attacked: the share of them, rounded down, evenly spaced."""
    passed = np.floor(np.arange(1, count + 1) * share + 1e-9)
    return np.flatnonzero(np.diff(passed, prepend=0))
