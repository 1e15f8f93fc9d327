"""The driver against the attacks themselves, and against itself in other batches and orders."""

import functools
import inspect
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import as_classifier, attacks
from jaxrobust.attacks import ensemble, many, verdicts
from jaxrobust.attacks.verdicts import Verdicts
from tests.tiny import environment

pytestmark = pytest.mark.usefixtures("quickly_compiled")

KEY = jax.random.key(3)
SHAPE = (12, 10, 3)
QUICK = {"steps": 6, "queries": 20}
RADIUS = {"linf": 0.008, "l2": 0.1}


@functools.cache
def network(classes=10, shape=SHAPE):
    """Two dense layers: little to compile."""
    rng = np.random.default_rng(0)
    inputs, hidden = int(np.prod(shape)), 32
    weights = (
        rng.standard_normal((inputs, hidden), np.float32) * np.sqrt(1 / inputs),
        rng.standard_normal((hidden, classes), np.float32) * np.sqrt(1 / hidden),
    )

    def logits(weights, image):
        features = jnp.tanh(4.0 * (image - 0.5).reshape(-1) @ weights[0])
        return 10.0 * features @ weights[1]

    return as_classifier(logits, weights)


def classes_of(classifier, images):
    return np.argmax(np.asarray(jax.vmap(classifier)(images)), axis=1)


@functools.cache
def pictures(count=24, classes=10, shape=SHAPE):
    """Images and labels, of which the network has most right and some close to a boundary."""
    images = np.asarray(jax.random.uniform(jax.random.key(1), (count, *shape)), np.float32)
    labels = classes_of(network(classes, shape), images)
    labels[0] = (labels[0] + 1) % classes
    return images, labels


def autoattack(*, classes=10, shape=SHAPE, norm="linf", key=KEY, **options):
    images, labels = pictures(classes=classes, shape=shape)
    options = {"epsilon": RADIUS[norm], "norm": norm, **QUICK, **options}
    options.setdefault("devices", jax.devices()[:1])
    return attacks.autoattack(network(classes, shape), images, labels, key=key, **options)


@pytest.mark.slow
@pytest.mark.parametrize("norm", RADIUS)
def test_the_verdicts_are_what_the_images_say(norm):
    record = autoattack(norm=norm)
    images, labels = pictures()
    right = classes_of(network(), record.images) == labels
    np.testing.assert_array_equal(record.robust, right)
    np.testing.assert_array_equal(record.robust, record.broken_by == "")
    assert record.broken_by[0] == "clean"
    assert 0 < record.robust.sum() < 23
    np.testing.assert_array_equal(record.images[record.robust], images[record.robust])
    assert record.images.min() >= 0
    assert record.images.max() <= 1
    delta = np.float64(record.images - images).reshape(len(images), -1)
    lengths = np.linalg.norm(delta, {"linf": np.inf, "l2": 2}[norm], axis=1)
    assert lengths.max() <= RADIUS[norm] * (1 + 1e-5)
    assert record.clean_accuracy == pytest.approx(23 / 24)
    assert record.robust_accuracy == pytest.approx(right.mean())
    assert list(record.seconds) == ["clean", *ensemble.STANDARD]
    assert record.version == "custom"  # fewer steps than the standard's


ALONE = {
    "apgd-ce": lambda *given, steps, queries, **options: attacks.apgd(
        *given, steps=steps, **options
    ),
    "apgd-dlr": lambda *given, steps, queries, **options: attacks.apgd(
        *given, steps=steps, loss="dlr", **options
    ),
    "apgd-t": lambda *given, steps, queries, **options: attacks.apgd(
        *given, steps=steps, loss="dlr", targets=9, **options
    ),
    "fab-t": lambda *given, steps, queries, key, **options: attacks.fab(
        *given, steps=steps, **options
    ),
    "square": lambda *given, steps, queries, **options: attacks.square(
        *given, queries=queries, **options
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("norm", RADIUS)
@pytest.mark.parametrize("name", ALONE)
def test_each_part_is_the_attack_of_that_name(name, norm):
    # In batches of 4, of which one after the other ends; the attack itself takes all at once.
    keys = jax.random.split(KEY, 24)
    record = autoattack(attacks=(name,), norm=norm, key=keys, batch_size=4)
    images, labels = pictures()
    options = {"epsilon": RADIUS[norm], "norm": norm, "key": keys, **QUICK}
    moved = ALONE[name](network(), images, labels, **options)
    wrong = classes_of(network(), moved) != labels
    np.testing.assert_array_equal(wrong[1:], ~record.robust[1:])
    if name != "fab-t":  # it goes on to nearer images, the driver does not
        broken = np.flatnonzero(record.broken_by == name)
        np.testing.assert_allclose(record.images[broken], moved[broken], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [{"batch_size": 1}, {"batch_size": 7}, {"devices": 1}])
def test_batches_and_devices_change_no_verdict(batch):
    devices = jax.devices()[: batch.get("devices", 3)]
    record = autoattack(batch_size=batch.get("batch_size"), devices=devices)
    np.testing.assert_array_equal(record.broken_by, autoattack().broken_by)


@pytest.mark.slow
def test_the_order_changes_no_verdict():
    images, labels = pictures()
    order = np.random.default_rng(0).permutation(len(images))
    options = {"epsilon": RADIUS["linf"], **QUICK}
    turned = attacks.autoattack(network(), images[order], labels[order], key=KEY, **options)
    np.testing.assert_array_equal(turned.broken_by, autoattack().broken_by[order])


@pytest.mark.slow
def test_programs_are_few_whatever_the_number_of_images_and_the_radius():
    def programs():
        return many._advance._cache_size() + many._renew._cache_size()

    before = programs()
    options = {"batch_size": 2, "devices": jax.devices()[:2], "key": KEY, **QUICK}
    images, labels = pictures()
    for count, epsilon in ((24, 0.006), (17, 0.0061), (5, 0.003)):
        attacks.autoattack(network(), images[:count], labels[:count], epsilon=epsilon, **options)
    # Two for each of four attacks and two sizes of a batch.
    assert 8 <= programs() - before <= 16


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "said"), [(2, 1), (3, 1), (4, 0), (10, 0)])
@pytest.mark.filterwarnings("ignore:With")
def test_few_classes(classes, said):
    record = autoattack(classes=classes, attacks=("apgd-t",))
    assert len(record.warnings) == said
    if said:
        assert f"With {classes} classes the targeted difference" in record.warnings[0]
    assert 0 < record.robust.sum() < 24


@pytest.mark.filterwarnings("ignore:With 2 classes the difference of logits ratio")
def test_two_classes_have_no_ratio():
    assert "apgd-dlr raises the margin" in autoattack(classes=2, attacks=("apgd-dlr",)).warnings[0]


def test_one_channel():
    record = autoattack(shape=(8, 14, 1))
    assert record.images.shape == (24, 8, 14, 1)
    assert 0 < record.robust.sum() < 24


def judged(function, **options):
    images, labels = pictures()
    options = {"key": KEY, "epsilon": 0.008, "devices": jax.devices()[:1], **QUICK, **options}
    return attacks.autoattack(as_classifier(function, network()), images, labels, **options)


def test_probabilities_are_noticed():
    with pytest.warns(UserWarning, match="look like probabilities"):
        judged(lambda network, image: jax.nn.softmax(network(image)), attacks=("apgd-ce",))


def test_changing_outputs_are_noticed():
    drawn = np.random.default_rng(0)

    def noisy(network, image):
        noise = jax.pure_callback(
            lambda: np.float32(1e-3 * drawn.standard_normal()), jax.ShapeDtypeStruct((), np.float32)
        )
        return network(image) + noise

    with pytest.warns(UserWarning, match="change from call to call"):
        judged(
            lambda network, image: noisy(network, jax.lax.stop_gradient(image)),
            attacks=("apgd-ce",),
        )


def test_masked_gradients_are_noticed_and_fall_to_square():
    def masked(network, image):
        return network(jnp.round(image * 32) / 32)

    with pytest.warns(UserWarning, match="gradient of the cross-entropy is zero for 2") as said:
        record = judged(masked, attacks=("apgd-ce", "square"), queries=200, epsilon=0.03)
    assert (record.broken_by == "square").sum() > 3
    assert any("Only the black-box attack breaks" in str(one.message) for one in said)


def test_logits_that_an_attack_makes_nan_are_noticed():
    def vanishing(network, image):  # where a pixel has reached an end of the box
        return jnp.where((image == 0).any() | (image == 1).any(), jnp.nan, network(image))

    with pytest.warns(UserWarning, match="that attacks broke are not finite") as said:
        record = judged(vanishing, attacks=("apgd-ce",), epsilon=0.2)
    broken = (record.broken_by == "apgd-ce").sum()
    message = f"The logits of {broken} of {broken} images that attacks broke are not finite"
    assert message in str(said[-1].message)
    assert str(said[-1].message) in record.warnings


def infinite(network, image):
    return jnp.where(image[0, 0, 0] > 0.5, jnp.inf, network(image))


BAD = {
    "radius": ({"epsilon": 0.0}, "epsilon must be above 0, got 0"),
    "levels": ({"epsilon": 8.0}, "epsilon must be at most 1 in linf"),
    "norm": ({"epsilon": 1.0, "norm": "l1"}, "norm must be linf or l2 for autoattack, got 'l1'"),
    "version": ({"epsilon": 0.1, "version": "plus"}, "version must be one of standard, got 'plus'"),
    "part": ({"epsilon": 0.1, "attacks": ("pgd",)}, "attacks must be one of apgd-ce, .*got 'pgd'"),
    "queries": ({"epsilon": 0.1, "queries": 0}, "queries must be a whole number of at least 1"),
    "batch": ({"epsilon": 0.1, "batch_size": -1}, "batch_size must be a whole number of at least"),
    "twice": ({"epsilon": 0.1, "attacks": ("square",) * 2}, "attacks must be a list of some of"),
    "object": ({"epsilon": 8.0, "norm": attacks.norms.linf}, "epsilon must be at most 1 in linf"),
    "key": ({"epsilon": 0.1, "key": None}, "key must be given, got None"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options(case):
    options, message = BAD[case]
    images, labels = pictures()
    with pytest.raises(ValueError, match=message):
        attacks.autoattack(network(), images, labels, **{"key": KEY, **options})


def test_bad_images_and_logits():
    images, labels = pictures()
    options = {"key": KEY, "epsilon": 0.1}
    with pytest.raises(ValueError, match=r"images must have shape \(n, h, w, c\)"):
        attacks.autoattack(network(), images[0], labels[:1], **options)
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
        attacks.autoattack(network(), 255 * images, labels, **options)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 10\).*got 10"):
        attacks.autoattack(network(), images, labels * 0 + 10, **options)
    with pytest.raises(
        ValueError, match=r"classifier must give finite logits, got .*inf.* for image"
    ):
        judged(infinite)


def test_a_note_of_another_call_is_refused(tmp_path):
    path = tmp_path / "state.npz"
    verdicts.Verdicts(path, "another", *pictures()).write()
    with pytest.raises(ValueError, match="must be of the same classifier, images and options"):
        autoattack(state_file=path)


KILLED = """
import sys
from pathlib import Path
import jax
from jaxrobust.attacks import many, verdicts
from tests import test_autoattack
verdicts._SAVE_EVERY, many._LOOK_EVERY = 0.0, 0.0
record = test_autoattack.autoattack(
    state_file=Path(sys.argv[1]), batch_size=4, steps=40, queries=400
)
print(",".join(record.broken_by), record.images.tobytes().hex())
"""


@pytest.mark.slow
def test_killed_in_each_part_it_ends_with_the_same_verdicts(tmp_path):
    path = tmp_path / "state.npz"

    def start():
        return subprocess.Popen(
            [sys.executable, "-c", KILLED, path],
            env=environment(2),
            stdout=subprocess.PIPE,
            text=True,
        )

    whole, _ = start().communicate()
    killed = []
    for part in range(4):
        process = start()
        while process.poll() is None:
            try:
                with np.load(path) as note:
                    reached = int(note["part"]) == part and "index" in note
            except (OSError, ValueError, KeyError, EOFError):
                reached = False
            if reached:
                process.send_signal(signal.SIGKILL)
                killed.append(part)
                break
            time.sleep(0.01)
        process.communicate()
    assert killed == [0, 1, 2, 3]
    again, _ = start().communicate()
    assert again == whole
    assert not path.exists()


@pytest.mark.slow
@pytest.mark.parametrize("part", ensemble.STANDARD)
def test_logits_of_half_precision_are_attacked_in_float32(part):
    record = judged(lambda network, image: network(image).astype(jnp.bfloat16), attacks=(part,))
    assert 0 < record.robust.sum() < 24


def test_a_note_of_another_function_is_refused(tmp_path, monkeypatch):
    """Of functions without weights: what they compute is in the program, or in what they answer."""
    images, labels = pictures()
    monkeypatch.setattr(verdicts, "_SAVE_EVERY", 0.0)
    path = tmp_path / "state.npz"
    options = {"key": KEY, "epsilon": 0.008, "state_file": path, "batch_size": 4, **QUICK}
    first, second = (network(shape=SHAPE), as_classifier(lambda net, x: -net(x), network()))

    def stop(self, status=None):
        write(self, status)
        raise KeyboardInterrupt

    write = verdicts.Verdicts.write
    monkeypatch.setattr(verdicts.Verdicts, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        attacks.autoattack(lambda image: first(image), images, labels, **options)
    with pytest.raises(ValueError, match="must be of the same classifier"):
        attacks.autoattack(lambda image: second(image), images, labels, **options)


def test_it_is_a_driver():
    images, labels = pictures()
    attack = jax.jit(
        lambda images: attacks.autoattack(network(), images, labels, key=KEY, epsilon=0.1)
    )
    with pytest.raises(TypeError, match="autoattack must be outside of jit and vmap"):
        attack(images)


def test_defaults_are_stated_once():
    checked = inspect.signature(ensemble.check_options).parameters
    taken = inspect.signature(attacks.autoattack).parameters
    assert {name: one.default for name, one in checked.items()} == {
        name: taken[name].default for name in checked
    }


@pytest.mark.parametrize("damage", ["empty", "text", "cut off", "a bit", "another part"])
def test_a_damaged_note_is_left_out(tmp_path, damage, caplog):
    path, images = tmp_path / "note.npz", np.zeros((4, 2, 2, 3), np.float32)
    first = Verdicts(path, "settings", images, np.array(["", "", "clean", ""], "<U8"))
    first.broken_by[1], first.images[1], first.part = "apgd-ce", 0.5, 1
    first.write()
    second = Verdicts(path, "settings", images, np.array(["", "", "clean", ""], "<U8"))
    assert (second.part, second.broken_by[1], second.images[1, 0, 0, 0]) == (1, "apgd-ce", 0.5)
    content = path.read_bytes()
    place = content.index("apgd-ce".encode("utf-32-le"))
    path.write_bytes(
        {
            "empty": b"",
            "text": b"{}",
            "cut off": content[:-30],
            "a bit": content[:place] + b"b" + content[place + 1 :],
            "another part": content.replace(b"part.npy", b"qart.npy"),
        }[damage]
    )
    third = Verdicts(path, "settings", images, np.array(["", "", "clean", ""], "<U8"))
    assert (third.part, third.broken_by[1], third.images.max()) == (0, "", 0.0)
    assert f"{path} must hold a note of AutoAttack" in caplog.text
