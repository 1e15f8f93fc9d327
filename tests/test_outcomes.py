"""Outcomes are measured once, and anew when something has changed that could change them."""

import json
import shutil
import subprocess
import sys

import grain
import jax
import numpy as np
import pytest
from array_record.python import array_record_module

from jaxrobust import attacks, filters, models
from jaxrobust.data import decode, pipeline
from jaxrobust.evaluation import evaluate, outcomes
from jaxrobust.training import checkpoints
from tests.test_figure2_sensitivity_maps import write_workdir

BLUR = {"name": "gaussian_blur", "sigma": 1.0, "kernel_size": 7}
MEDIAN = {"name": "median_filter", "times": 2, "kernel_size": 3}
FGSM = {"name": "fgsm", "epsilon": 0.05}
QUESTIONS = {
    "clean": {},
    "blurred": {"variant": BLUR},
    "median": {"variant": MEDIAN},
    "attacked": {"attack": FGSM},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_dir):
    """The folder of a training on part of a small set."""
    workdir = tmp_path_factory.mktemp("digits")
    write_workdir(workdir, data_dir, seeds=(3,), dataset__evaluation_split="test[:50]")
    return workdir / "std" / "seed3"


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture
def passes(monkeypatch):
    """How many variants and attacks each pass over the data has."""
    done = []
    original = evaluate.evaluate

    def counting(*args, **kwargs):
        done.append((len(kwargs["variants"]), len(kwargs["attacks_by_name"])))
        return original(*args, **kwargs)

    monkeypatch.setattr(evaluate, "evaluate", counting)
    return done


def config_of(folder):
    from ml_collections import ConfigDict

    return ConfigDict(checkpoints.read_config(folder)["config"]["dataset"])


def measure(folder, questions=QUESTIONS, **options):
    data = pipeline.describe(config_of(folder))
    return outcomes.measure(folder, data, questions, **{"batch_size": 16} | options)


def test_outcomes_are_those_of_a_plain_loop_and_measured_once(folder, passes):
    first = measure(folder, {"clean": {}})
    found = measure(folder)
    assert passes == [(0, 0), (2, 1)]  # what is known is not asked again
    mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
    data = config_of(folder)
    with pipeline.evaluation_batches(data, None, batch_size=50, mesh=mesh) as batches:
        (batch,) = batches
    images, labels = batch["image"] / np.float32(255), np.asarray(batch["label"])
    classifier = checkpoints.load(folder)
    options = {name: value for name, value in MEDIAN.items() if name != "name"}
    seen = {
        "clean": images,
        "median": filters.median_filter(images, **options),
        "attacked": attacks.fgsm(classifier, images, labels, epsilon=0.05),
    }
    right = {name: np.asarray(classifier(seen[name])).argmax(1) == labels for name in seen}
    right["attacked"] &= right["clean"]
    for name, expected in right.items():
        np.testing.assert_array_equal(found[name].right, expected)
        assert (found[name].n, found[name].top1) == (50, expected.sum())
    np.testing.assert_array_equal(first["clean"].right, found["clean"].right)
    fifth = np.sort(np.asarray(classifier(images)), axis=1)[:, -5]
    top5 = np.asarray(classifier(images))[np.arange(50), labels] >= fifth
    assert found["clean"].top5 == top5.sum()
    again = measure(folder, dict(reversed(QUESTIONS.items())))
    assert len(passes) == 2
    assert list(again) == list(reversed(QUESTIONS))


def test_a_copy_is_the_same_and_other_weights_are_not(folder, tmp_path, passes):
    measure(folder)
    copied = shutil.copytree(folder, tmp_path / "copied", copy_function=shutil.copy)
    measure(copied)
    assert len(passes) == 1
    store = checkpoints.Checkpoints(copied)
    variables = jax.tree.map(lambda leaf: 2 * leaf, dict(checkpoints.load(copied).variables))
    store.save(31, variables, {"step": np.zeros(1)}, {})
    store.close()
    measure(copied)
    assert len(passes) == 2


def test_other_options_splits_and_seeds_are_other_questions(folder, passes):
    measure(folder)
    changed = {"a": {"attack": {**FGSM, "epsilon": 0.06}}, "b": {"variant": {**BLUR, "sigma": 2.0}}}
    measure(folder, QUESTIONS | changed)
    assert passes[1:] == [(1, 1)]
    measure(folder, seed=1)
    assert passes[2:] == [(0, 1)]  # the seed is the attack's
    measure(folder, split="test[:20]")
    assert passes[3:] == [(2, 1)]
    measure(folder, QUESTIONS | changed)
    assert len(passes) == 4


def test_black_pictures_are_noticed(folder, passes, monkeypatch):
    before = measure(folder)
    whole = decode.decode
    monkeypatch.setattr(
        decode, "decode", lambda *args, **kwargs: np.zeros_like(whole(*args, **kwargs))
    )
    after = measure(folder)
    assert len(passes) == 2
    assert len(np.unique(after["clean"].right)) == 2  # one answer for all
    assert after["clean"].top1 != before["clean"].top1


def test_a_number_for_decoding_tells_what_a_sample_of_pictures_does_not(
    folder, passes, monkeypatch
):
    measure(folder)
    monkeypatch.setattr(decode, "VERSION", decode.VERSION + 1)
    measure(folder)
    assert len(passes) == 2


def test_changed_records_are_other_data(tmp_path, passes):
    workdir = write_workdir(tmp_path / "work", tmp_path / "data", seeds=(3,))
    folder = workdir / "std" / "seed3"
    before = measure(folder, {"clean": {}})["clean"]
    (path,) = (tmp_path / "data").rglob("*test.array_record*")
    records = grain.sources.ArrayRecordDataSource([str(path)])
    encoded = [records[position] for position in reversed(range(len(records)))]
    turned = path.with_name("turned")
    writer = array_record_module.ArrayRecordWriter(str(turned), "group_size:1")
    for record in encoded:
        writer.write(record)
    writer.close()
    turned.replace(path)
    after = measure(folder, {"clean": {}})["clean"]
    assert len(passes) == 2
    np.testing.assert_array_equal(after.right, before.right[::-1])


PROGRAM = """
from jaxrobust import models
from jaxrobust.evaluation import outcomes

model = models.create("resnet8_small", num_classes=10, width=4)
for attack in %r:
    print(outcomes._program(model, (16, 16, 3), ("label",), {"attack": attack}))
"""
AUTOATTACK = {"name": "autoattack", "epsilon": 0.1, "attacks": ["apgd-ce", "fab-t"]}


@pytest.mark.slow
def test_the_program_is_known_by_its_text():
    model = models.create("resnet8_small", num_classes=10, width=4)

    def program(question, **fields):
        return outcomes._program(model.clone(**fields), (16, 16, 3), ("label",), question)

    same = program({"attack": FGSM})
    assert program({"attack": {**FGSM, "epsilon": 0.06}}) != same  # a constant of the program
    assert program({"attack": FGSM}, dtype=jax.numpy.bfloat16) != same
    assert program({"attack": FGSM}, mean=(0.1, 0.2, 0.3)) != same
    assert program({"variant": BLUR}) == program({"variant": {**BLUR, "sigma": 2.0}})  # one program
    ensemble = program({"attack": AUTOATTACK})
    assert program({"attack": AUTOATTACK | {"images": 5, "epsilon": 0.2}}) == ensemble
    assert program({"attack": AUTOATTACK | {"steps": 5}}) != ensemble
    assert program({"attack": AUTOATTACK | {"attacks": ["apgd-ce"]}}) != ensemble
    assert program({"attack": AUTOATTACK}, mean=(0.1, 0.2, 0.3)) != ensemble
    command = [sys.executable, "-c", PROGRAM % [FGSM, AUTOATTACK]]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [same, ensemble]  # in every process


@pytest.mark.parametrize("damage", ['{"identity"', "{}", "[]", "no outcomes", "outcomes a list"])
def test_what_cannot_be_read_is_measured_again(folder, passes, damage):
    measure(folder)
    (path,) = (folder / outcomes.FOLDER).glob("*.json")
    whole = json.loads(path.read_text())
    damaged = {
        "no outcomes": json.dumps({"identity": whole["identity"]}),
        "outcomes a list": json.dumps(whole | {"outcomes": []}),
    }
    path.write_text(damaged.get(damage, damage))
    measure(folder)
    assert len(passes) == 2
    assert json.loads(path.read_text()) == whole


def interrupted_at(number, monkeypatch):
    """The calls of `count`, of which the one of that number is interrupted."""
    monkeypatch.setattr(evaluate, "_SAVE_EVERY", 0.0)
    calls = []
    original = evaluate.count

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) == number:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    failing.lower = original.lower
    monkeypatch.setattr(evaluate, "count", failing)
    return calls


def test_an_interrupted_pass_goes_on(folder, tmp_path, monkeypatch):
    whole = measure(shutil.copytree(folder, tmp_path / "whole"), batch_size=8)  # 7 batches
    # Of each batch the pictures as they are, attacked too, and two variants.
    calls = interrupted_at(3 * 5, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        measure(folder, batch_size=8)
    found = measure(folder, batch_size=8)
    assert len(calls) == 3 * 5 + 3 * 3
    for name in QUESTIONS:
        np.testing.assert_array_equal(found[name].right, whole[name].right)
    assert len(list((folder / outcomes.FOLDER).glob("*.json"))) == 1  # the note is gone


@pytest.mark.parametrize("content", [b"", b"[]", b'{"settings": 3}', "another number"])
def test_a_damaged_note_of_an_interrupted_pass_is_left_out(
    folder, tmp_path, monkeypatch, content, caplog
):
    whole = measure(shutil.copytree(folder, tmp_path / "whole"), {"clean": {}}, batch_size=8)
    calls = interrupted_at(5, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        measure(folder, {"clean": {}}, batch_size=8)  # 7 batches
    (note,) = (folder / outcomes.FOLDER).glob("*.partial.json")
    if content == "another number":
        content = note.read_bytes().replace(b'"done": 4', b'"done": 5')
    note.write_bytes(content)
    found = measure(folder, {"clean": {}}, batch_size=8)
    assert len(calls) == 5 + 7
    np.testing.assert_array_equal(found["clean"].right, whole["clean"].right)
    assert f"{note} must hold " in caplog.text


def test_an_interrupted_pass_does_not_go_on_over_other_pictures(folder, tmp_path, monkeypatch):
    calls = interrupted_at(5, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        measure(folder, {"clean": {}}, batch_size=8)  # 7 batches
    whole = decode.decode
    monkeypatch.setattr(
        decode, "decode", lambda *args, **kwargs: np.zeros_like(whole(*args, **kwargs))
    )
    measure(folder, {"clean": {}}, batch_size=8)
    assert len(calls) == 5 + 7


def test_what_is_wrong_is_said(folder):
    with pytest.raises(ValueError, match="question must be one of attack, variant, got 'variants'"):
        measure(folder, {"clean": {"variants": {}}})
    data = pipeline.describe(config_of(folder))
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        outcomes.measure(folder, data, {"clean": {}}, batch_size=16)


def test_logits_that_are_not_finite_are_told_each_time(folder, caplog):
    network = checkpoints.load(folder)
    variables = jax.tree.map(lambda leaf: leaf * np.nan, network.variables)
    questions = {"clean": {}, "blurred": {"variant": BLUR}}
    expected = [
        f"The logits of 50 of 50 images{where} are NaN or infinite, expected finite ones: these "
        "images count as misclassified."
        for where in ("", " under blurred")
    ]
    for again in (False, True):
        caplog.clear()
        given = None if again else network.replace(variables=variables)
        found = measure(folder, questions, classifier=given)
        assert [one.not_finite for one in found.values()] == [50, 50]
        assert [record.getMessage() for record in caplog.records] == expected
