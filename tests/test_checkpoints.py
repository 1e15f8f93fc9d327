import json
import logging
import re
import shutil
import zlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
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


def damaged_array(folder, step, item="variables"):
    """Other numbers in the place of an array's, as if a bit had flipped on the disk."""
    checkpoint = folder / "checkpoints" / str(step) / item
    tree = dict(classifier(step).variables) if item == "variables" else TRAINING
    leaves, structure = jax.tree.flatten(tree)
    leaves[0] = leaves[0].at[-1].add(1e-6 if item == "variables" else 1.0)
    with ocp.StandardCheckpointer() as writer:
        writer.save(checkpoint, jax.tree.unflatten(structure, leaves), force=True)


def restore(folder):
    store = checkpoints.Checkpoints(folder)
    try:
        return store.restore(dict(classifier().variables), TRAINING)
    finally:
        store.close()


def test_another_number_in_the_weights_is_noticed(tmp_path, caplog):
    write(tmp_path).close()
    whole = checkpoints.digest(tmp_path)
    assert checkpoints.readable_step(tmp_path) == 20
    damaged_array(tmp_path, 20)
    assert_weights(checkpoints.load(tmp_path).variables, 10)
    said = (
        r"step 20 cannot be read .ValueError: the array \['batch_stats'\].* is not what was written"
    )
    assert re.search(said, caplog.text)
    assert checkpoints.readable_step(tmp_path) == 10
    assert checkpoints.digest(tmp_path) != whole  # that of what is loaded
    step, variables, _, _ = restore(tmp_path)
    assert step == 10
    assert_weights(variables, 10)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["10", "20.unreadable"]


def test_another_number_in_the_rest_of_the_state_is_noticed(tmp_path, caplog):
    write(tmp_path).close()
    damaged_array(tmp_path, 20, "training")
    assert_weights(checkpoints.load(tmp_path).variables, 20)  # which needs the weights alone
    assert restore(tmp_path)[0] == 10
    assert "the array ['momentum'] is not what was written" in caplog.text


@pytest.mark.parametrize(
    ("state", "checksums"),
    [({"batches": 20, "seed": 1}, True)]
    + [(state, both) for state in ({"batches": 19}, {}, []) for both in (True, False)],
)
def test_another_state_of_the_data_is_noticed(tmp_path, caplog, state, checksums):
    write(tmp_path).close()
    checkpoint = tmp_path / "checkpoints" / "20"
    if not checksums:  # of an earlier version
        shutil.rmtree(checkpoint / "checksums")
    (checkpoint / "data" / "metadata").write_text(json.dumps(state))
    assert restore(tmp_path)[0] == 10
    assert "of step 20 cannot be read" in caplog.text


def test_checkpoints_without_checksums_are_opened(tmp_path):
    write(tmp_path).close()
    for step in ("10", "20"):
        shutil.rmtree(tmp_path / "checkpoints" / step / "checksums")
    assert_weights(checkpoints.load(tmp_path).variables, 20)
    step, variables, training, data = restore(tmp_path)
    assert (step, data) == (20, {"batches": 20})
    assert_weights(variables, 20)
    np.testing.assert_array_equal(training["momentum"], TRAINING["momentum"])


def test_weights_from_elsewhere_have_checksums(tmp_path):
    description = {"model": FIELDS, "image_shape": [16, 16, 3]}
    for _ in range(2):  # writing the same again is allowed
        checkpoints.write(tmp_path, description, dict(classifier(0).variables))
    assert_weights(checkpoints.load(tmp_path).variables, 0)
    damaged_array(tmp_path, 0)
    with pytest.raises(FileNotFoundError, match="holds no checkpoint that can be read"):
        checkpoints.load(tmp_path)


def test_checksums_of_every_type():
    arrays = [
        np.float32([0.0]),
        np.float32([-0.0]),
        np.int32([0]),
        np.float32([[0.0]]),
        np.float32(0.0),
        np.zeros(0, np.float32),
        np.ones(1, ml_dtypes.bfloat16),
        np.array([True]),
        np.arange(6.0).reshape(2, 3),
        np.arange(6.0).reshape(3, 2).T,
    ]
    found = [checkpoints._checksum(array) for array in arrays]
    assert len(set(found)) == len(arrays)
    assert found[8] == f"{zlib.crc32(arrays[8].tobytes(), zlib.crc32(b'float64 (2, 3)')):08x}"
    in_rows = checkpoints._checksum(np.ascontiguousarray(arrays[9]))
    assert found[9] == in_rows
    everywhere = jax.device_put(arrays[0], jax.NamedSharding(mesh(), jax.P()))
    assert checkpoints._checksum(everywhere) == found[0]


def mesh():
    return jax.make_mesh((8,), ("data",))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"model": {}, "image_shape": 3}'])
def test_a_damaged_config_is_named(tmp_path, content):
    write(tmp_path).close()
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json must hold "):
        checkpoints.load(tmp_path)


def test_another_mean_in_the_config_is_noticed(tmp_path):
    write(tmp_path).close()
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace("0.5", "0.7", 1))
    with pytest.raises(ValueError, match=r"config\.json must hold what was written there"):
        checkpoints.load(tmp_path)


def test_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no folder"):
        checkpoints.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no checkpoints"):
        checkpoints.load(tmp_path)
    write(tmp_path / "std" / "seed0", steps=(1,)).close()
    write(tmp_path / "adv" / "seed0", steps=(1,)).close()
    with pytest.raises(ValueError, match=r"adv/seed0, .*std/seed0"):
        checkpoints.load(tmp_path)
