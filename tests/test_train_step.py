import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from jaxrobust import Classifier, attacks, models
from jaxrobust.training import objectives, run
from jaxrobust.training import step as train_step
from tests import tiny

MODEL = tiny.TinyNetwork(num_classes=10)
SHAPE = (16, 16, 3)
KEY = jax.random.key(5)


def mesh(devices=1):
    return Mesh(
        np.array(jax.devices()[:devices]), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
    )


def recipe(steps=10, **changes):
    config = tiny.config("unused")
    for name, value in changes.items():
        config.update_from_flattened_dict({name.replace("__", "."): value})
    return run.recipe(config, steps, devices=1)


def batch(count=16, devices=None):
    images = jax.random.randint(jax.random.key(1), (count, *SHAPE), 0, 256).astype(jnp.uint8)
    made = {"image": images, "label": jnp.arange(count) % 10}
    if devices:
        spec = jax.sharding.PartitionSpec("data")
        made = jax.device_put(made, jax.sharding.NamedSharding(mesh(devices), spec))
    return made


def state_of(made, devices=1, seed=0):
    """Drawn anew each time: the step donates it."""
    return initial(seed, MODEL, SHAPE, made, devices)


def initial(seed, model, image_shape, made, devices=1):
    return train_step.initial_state(
        jax.random.key(seed), model=model, image_shape=image_shape, recipe=made, mesh=mesh(devices)
    )


def step(made, devices=1, model=MODEL):
    return functools.partial(
        train_step.train_step, key=KEY, model=model, recipe=made, mesh=mesh(devices)
    )


@pytest.mark.slow
def test_two_steps_equal_sgd_written_by_hand():
    """PyTorch's SGD: v = momentum v + (g + decay w), w = w - rate v."""
    made = recipe(schedule__name="constant", optimizer__weight_decay=0.01)
    state = state_of(made)
    params, stats = state.variables["params"], state.variables["batch_stats"]
    velocity = jax.tree.map(jnp.zeros_like, params)
    images, labels = batch()["image"] / 255.0, batch()["label"]
    for _ in range(2):

        def loss_of(params, stats=stats):
            logits, new = MODEL.apply(
                {"params": params, "batch_stats": stats}, images, train=True, mutable="batch_stats"
            )
            picked = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
            return jnp.mean(jnp.log(jnp.sum(jnp.exp(logits), axis=1)) - picked), new

        gradient, new = jax.grad(loss_of, has_aux=True)(params)
        stats = new["batch_stats"]
        velocity = jax.tree.map(lambda v, g, w: 0.9 * v + g + 0.01 * w, velocity, gradient, params)
        params = jax.tree.map(lambda w, v: w - 0.1 * v, params, velocity)
    for _ in range(2):
        state, _ = step(made)(state, batch())
    jax.tree.map(
        functools.partial(tiny.assert_equal_to_rounding, tolerance=1e-3),
        state.variables,
        {"params": params, "batch_stats": stats},
    )
    assert state.step == 2


@pytest.mark.slow
def test_adversarial_step_trains_on_the_attack_of_the_library():
    """The loss that is reported is that of train mode on the images that fgsm returns."""
    made = recipe(attack={"name": "fgsm", "epsilon": 0.1})
    state = state_of(made)
    images, labels = batch()["image"] / 255.0, batch()["label"]
    adversarial = attacks.fgsm(Classifier(MODEL, state.variables), images, labels, epsilon=0.1)
    logits, _ = MODEL.apply(state.variables, adversarial, train=True, mutable="batch_stats")
    expected = jnp.mean(jax.vmap(attacks.cross_entropy)(logits, labels))
    _, metrics = step(made)(state, batch())
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-4)


@pytest.mark.parametrize("shards", [1, 2])
def test_share_of_adversarial_images(shards):
    images = batch()["image"] / 255.0
    mixed = objectives._with_share_attacked(
        lambda images, labels: 1.0 - images, images, batch()["label"], 0.25, shards
    )
    changed = np.any(np.asarray(mixed != images), axis=(1, 2, 3))
    assert changed.sum() == 4
    assert all(changed.reshape(4, 4).sum(axis=1) == 1)  # spread evenly


def seen_by_the_loss(model, state, made):
    """The images that an objective minimises its loss on."""
    seen = []
    images = batch()["image"] / 255.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            objectives, "standard", lambda model, variables, batch, key: seen.append(batch["image"])
        )
        made.objective(
            model,
            state.variables,
            {"image": images, "label": batch()["label"]},
            KEY,
            **made.objective_options,
        )
    return seen[0]


@pytest.mark.slow
def test_batch_statistics_inside_the_attack():
    """As an attack on the whole batch's loss through train-mode normalisation."""
    model = models.create("resnet8_small", num_classes=10, width=4)
    made = recipe(attack={"name": "fgsm", "epsilon": 0.05}, attack_batch_statistics=True)
    state = initial(0, model, SHAPE, made)
    images, labels = batch()["image"] / 255.0, batch()["label"]

    def total_loss(images):
        logits, _ = model.apply(state.variables, images, train=True, mutable="batch_stats")
        return jnp.sum(jax.vmap(attacks.cross_entropy)(logits, labels))

    expected = jnp.clip(images + 0.05 * jnp.sign(jax.grad(total_loss)(images)), 0, 1)
    ours = seen_by_the_loss(model, state, made)
    # Under vmap each image's gradient is that of its own loss alone, through statistics that the
    # others share: almost the batch's gradient, so almost all signs are equal.
    assert np.mean(np.abs(np.asarray(ours - expected)) < 1e-6) > 0.8
    made = recipe(attack={"name": "fgsm", "epsilon": 0.05})
    running = seen_by_the_loss(model, state, made)
    assert np.mean(np.abs(np.asarray(running - expected)) < 1e-6) < np.mean(
        np.abs(np.asarray(ours - expected)) < 1e-6
    )


def test_fgsm_step_costs_five_thirds_of_a_standard_step():
    """Forward 1, input gradient 1, weight gradient 1: 3 against 5, so no weight gradient is paid
    for the attack (with them it would be 6/3)."""
    model = models.create("resnet8_small", num_classes=10)

    def flops(made):
        state = initial(0, model, (32, 32, 3), made)
        images = jnp.zeros((8, 32, 32, 3), jnp.uint8)
        traced = train_step.train_step.trace(
            state,
            {"image": images, "label": jnp.zeros(8, int)},
            KEY,
            model=model,
            recipe=made,
            mesh=mesh(),
        )
        # As for a TPU: XLA cannot count what is handed to the libraries of a CPU.
        return traced.lower(lowering_platforms=("tpu",)).cost_analysis()["flops"]

    ratio = flops(recipe(attack={"name": "fgsm", "epsilon": 0.1})) / flops(recipe())
    assert ratio == pytest.approx(5 / 3, rel=0.05)


@pytest.mark.slow
def test_one_and_eight_devices_take_the_same_standard_steps():
    made = recipe()
    one, eight = state_of(made), state_of(made, devices=8)
    for _ in range(3):
        one, metrics = step(made)(one, batch())
        eight, sharded_metrics = step(made, devices=8)(eight, batch(devices=8))
        np.testing.assert_allclose(metrics["loss"], sharded_metrics["loss"], rtol=1e-4)
    jax.tree.map(
        functools.partial(tiny.assert_equal_to_rounding, tolerance=1e-3),
        one.variables,
        eight.variables,
    )
    for leaf in jax.tree.leaves(eight.variables):
        assert leaf.sharding.is_fully_replicated


@pytest.mark.slow
def test_one_and_eight_devices_make_the_same_adversarial_loss():
    """The sums differ in their last bits, so signs of near-zero gradients may flip; each flips one
    pixel by 2 epsilon at the places where the loss hardly depends on it."""
    made = recipe(attack={"name": "pgd", "epsilon": 0.05, "steps": 3})
    _, metrics = step(made)(state_of(made), batch())
    _, sharded_metrics = step(made, devices=8)(state_of(made, devices=8), batch(devices=8))
    np.testing.assert_allclose(metrics["loss"], sharded_metrics["loss"], rtol=1e-3)


def test_no_step_compiles_twice():
    made = recipe(attack={"name": "fgsm", "epsilon": 0.1})
    state, _ = step(made)(state_of(made), batch())
    before = train_step.train_step._cache_size()
    for _ in range(2):
        state, _ = step(made)(state, batch())
    step(made)(state_of(made, seed=3), batch())
    assert train_step.train_step._cache_size() == before


SCHEDULES = {
    "step": (dict(), {0: 0.1, 32: 0.1, 33: 0.01, 66: 0.01, 67: 0.001, 99: 0.001}),
    "constant": (dict(schedule__name="constant"), {0: 0.1, 99: 0.1}),
    "cosine": (dict(schedule__name="cosine"), {0: 0.1, 50: 0.05, 100: 0.0}),
    "warmup": (
        dict(schedule__name="constant", schedule__warmup=0.04),
        {0: 0.02, 1: 0.04, 3: 0.08, 4: 0.1, 99: 0.1},
    ),
}


@pytest.mark.parametrize("case", SCHEDULES)
def test_learning_rate(case):
    changes, expected = SCHEDULES[case]
    made = recipe(steps=100, **changes)
    for at, rate in expected.items():
        np.testing.assert_allclose(made.learning_rate_at(at), rate, atol=1e-6)


def test_weight_decay_can_spare_norms_and_biases():
    made = recipe(optimizer__decay_norm_and_bias=False, optimizer__weight_decay=0.5)
    params = {"kernel": jnp.ones((2, 2)), "scale": jnp.ones(2)}
    optimizer = made.optimizer()
    zero = jax.tree.map(jnp.zeros_like, params)
    change, _ = optimizer.update(zero, optimizer.init(params), params)
    assert np.all(change["kernel"] < 0)
    assert np.all(change["scale"] == 0)
