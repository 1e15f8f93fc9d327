"""One training step, whatever it minimises, as one compiled program, and what it needs."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax.core import FrozenDict
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrobust.classifier import Classifier
from jaxrobust.training.objectives import Objective


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
    objective: Objective
    objective_options: FrozenDict[str, Any]

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
      The new state; `loss`, the objective's metrics (`accuracy`, 0 to 1, on the images that were
      trained on) and `weight_norm`, the l_2 norm of the new weights.
    """
    # Derived here, not in the loop: nothing is left for the host to do between two steps.
    key = jax.random.fold_in(key, state.step)
    batch = {**batch, "image": batch["image"].astype(jnp.float32) / 255.0}
    trained, frozen = _split(state.variables["params"], model)

    def loss_of(trained):
        variables = {**state.variables, "params": {**trained, **frozen}}
        return recipe.objective(model, variables, batch, key, **recipe.objective_options)

    (loss, (updated, metrics)), gradient = jax.value_and_grad(loss_of, has_aux=True)(trained)
    change, optimizer = recipe.optimizer().update(gradient, state.optimizer, trained)
    params = {**optax.apply_updates(trained, change), **frozen}
    state = TrainState(state.step + 1, {**state.variables, **updated, "params": params}, optimizer)
    state = _replicated(state, mesh)
    weight_norm = jnp.sqrt(sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(params)))
    return state, {**metrics, "loss": loss, "weight_norm": weight_norm}
