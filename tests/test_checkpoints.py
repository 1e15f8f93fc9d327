import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import Classifier, models
from jaxrobust.training import checkpoints
from tests.tiny import drawn_variables

FIELDS = {"name": "resnet8_small", "num_classes": 4, "width": 4, "mean": [0.5] * 3}
TRAINING = {"momentum": jnp.arange(3.0)}


def classifier(seed=0):
    model = models.create(**FIELDS)
    variables = drawn_variables(model, (16, 16, 3))
    return Classifier(model, jax.tree.map(lambda leaf: (1 + seed) * leaf, variables))


def write(folder, steps=(10, 20)):
    """A checkpoint a step, with the weights of that seed."""
    checkpoints.write_config(folder, {"model": FIELDS, "image_shape": [16, 16, 3]})
    store = checkpoints.Checkpoints(folder)
    for step in steps:
        variables = dict(classifier(step).variables)
        store.save(step, variables, TRAINING, {"batches": step})
        store.wait()
    return store


def truncate(folder, step):
    """Cut every file of a checkpoint's weights in half, as a full disk might."""
    for path in (folder / "checkpoints" / str(step) / "variables").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def assert_weights(variables, seed):
    jax.tree.map(np.testing.assert_array_equal, dict(variables), dict(classifier(seed).variables))


def test_round_trip_is_exact(tmp_path):
    with_three = write(tmp_path, steps=(10, 20, 30))
    assert with_three.steps() == [20, 30]  # the newest two
    step, variables, training, data = with_three.restore(dict(classifier().variables), TRAINING)
    assert (step, data) == (30, {"batches": 30})
    assert_weights(variables, 30)
    np.testing.assert_array_equal(training["momentum"], TRAINING["momentum"])
    with_three.close()


def test_load(tmp_path):
    write(tmp_path / "std" / "seed0").close()
    for folder in (tmp_path, tmp_path / "std" / "seed0"):
        loaded = checkpoints.load(folder)
        assert_weights(loaded.variables, 20)
        assert loaded.mean == (0.5, 0.5, 0.5)
        image = jnp.full((16, 16, 3), 0.25)
        np.testing.assert_allclose(loaded(image), classifier(20)(image), rtol=1e-6)


def test_loaded_arrays_follow_the_images(tmp_path):
    write(tmp_path).close()
    image = jax.device_put(jnp.zeros((16, 16, 3)), jax.devices()[5])
    assert checkpoints.load(tmp_path)(image).devices() == {jax.devices()[5]}


def test_a_truncated_checkpoint_gives_way_to_the_one_before(tmp_path, caplog):
    store = write(tmp_path)
    store.close()
    truncate(tmp_path, 20)
    with caplog.at_level(logging.WARNING):
        loaded = checkpoints.load(tmp_path)
    assert_weights(loaded.variables, 10)
    assert "of step 20 cannot be read" in caplog.text
    store = checkpoints.Checkpoints(tmp_path)
    step, variables, _, data = store.restore(dict(classifier().variables), TRAINING)
    assert (step, data) == (10, {"batches": 10})
    assert_weights(variables, 10)
    # Training goes on and saves that step again.
    store.save(20, dict(classifier(20).variables), TRAINING, {})
    store.wait()
    store.close()
    assert_weights(checkpoints.load(tmp_path).variables, 20)


def test_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no folder"):
        checkpoints.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no checkpoints"):
        checkpoints.load(tmp_path)
    write(tmp_path / "std" / "seed0", steps=(1,)).close()
    write(tmp_path / "adv" / "seed0", steps=(1,)).close()
    with pytest.raises(ValueError, match=r"adv/seed0, .*std/seed0"):
        checkpoints.load(tmp_path)
