"""AutoAttack by its name in an evaluation: on which images, kept, gone on with, reported."""

import importlib
import inspect
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import attacks
from jaxrobust.attacks import ensemble, many
from jaxrobust.data import pipeline
from jaxrobust.evaluation import attack_options, driven, outcomes
from jaxrobust.training import study
from tests import catalog_data, tiny
from tests.test_evaluate import KEY, classifier, mesh
from tests.test_outcomes import folder, measure, passes, trained

# Shared fixtures: pytest finds them by their names.
__all__ = ["folder", "passes", "trained"]

PARTS = ("apgd-ce", "fab-t")
ATTACK = {"name": "autoattack", "epsilon": 0.05, "attacks": list(PARTS), "steps": 4}
FIRST = {"attack": {**ATTACK, "images": 21}}


def test_options_are_those_of_the_driver():
    known = inspect.signature(attacks.autoattack).parameters
    for name, parameter in inspect.signature(ensemble.check_options).parameters.items():
        assert parameter.default == known[name].default
    complete = attack_options.complete_options({"name": "autoattack", "epsilon": 0.1})
    assert complete == {
        "epsilon": 0.1,
        "norm": "linf",
        "version": "standard",
        "attacks": ["apgd-ce", "apgd-t", "fab-t", "square"],
        "steps": 100,
        "queries": 5000,
        "images": None,
    }
    attack_options.check_options("autoattack", complete)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": 0}, "images must be a whole number of at least 1, got 0"),
        ({"attacks": "fab-t"}, "attacks must be a list of some of apgd-ce, .*, got 'fab-t'"),
        ({"attacks": []}, r"attacks must be a list of some of apgd-ce, .*, got \[\]"),
        ({"attacks": ["fab"]}, r"attacks must be one of .*, got 'fab' \(did you mean 'fab-t'"),
        ({"version": "rand"}, "version must be one of standard, got 'rand'"),
        ({"norm": "l1"}, "norm must be linf or l2 for autoattack, got 'l1'"),
        ({"epsilon": 0}, "epsilon must be above 0, got 0"),
        ({"state_file": "here"}, "'state_file' is no option of autoattack"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        attack_options.check_options("autoattack", {"epsilon": 0.1} | options)
    with pytest.raises(ValueError, match="autoattack needs epsilon"):
        attack_options.check_options("autoattack", {})
    with pytest.raises(ValueError, match=r"did you mean 'autoattack'\?"):
        attack_options.check_options("autoatack", {"epsilon": 0.1})


def evaluated(data_dir, *, batch_size, devices, images=30, **options):
    return driven.evaluate(
        classifier(),
        tiny.config(data_dir).dataset,
        "test[:50]",
        {**ATTACK, "images": images},
        batch_size=batch_size,
        mesh=mesh(devices),
        key=KEY,
        **options,
    )


@pytest.mark.slow
def test_counts_are_those_of_the_attack_on_the_first_images(data_dir):
    found = evaluated(data_dir, batch_size=16, devices=8)
    other = evaluated(data_dir, batch_size=17, devices=1)  # read in other batches
    data = tiny.config(data_dir).dataset
    with pipeline.evaluation_batches(data, "test[:30]", batch_size=30, mesh=mesh(1)) as batches:
        (batch,) = batches
    images, labels = np.asarray(batch["image"]) / np.float32(255), np.asarray(batch["label"])
    record = attacks.autoattack(
        classifier(),
        images,
        labels,
        key=jax.vmap(lambda place: jax.random.fold_in(KEY, place))(jnp.arange(30)),
        batch_size=2,
        **{name: value for name, value in ATTACK.items() if name != "name"},
    )
    expected = "".join("1" if robust else "0" for robust in record.robust)
    for one in (found, other):
        assert (one["n"], one["top1"], one["right"]) == (30, expected.count("1"), expected)
        details = one["details"]
        assert details["version"] == "custom"
        broken_by = {name: (record.broken_by == name).sum() for name in PARTS}
        assert details["broken_by"] == broken_by
        assert list(details["seconds"]) == ["clean", *PARTS]
        assert details["warnings"] == list(record.warnings)
    assert 0 < found["top1"] < 30 * record.clean_accuracy


@pytest.mark.slow
def test_all_images_are_those_of_the_split(data_dir):
    everything = evaluated(data_dir, batch_size=16, devices=1, images=None)
    assert everything["n"] == len(everything["right"]) == 50
    more = evaluated(data_dir, batch_size=16, devices=1, images=1000)
    assert more["right"] == everything["right"]


def test_parts_of_several_processes_are_put_together():
    one = {"version": "custom", "places": [0, 2, 4], "broken_by": ["", "clean", "fab-t"]}
    one |= {"seconds": {"clean": 1.0, "fab-t": 2.0}, "warnings": ["a", "b"]}
    other = {"version": "custom", "places": [1, 3], "broken_by": ["fab-t", ""]}
    other |= {"seconds": {"clean": 3.0, "fab-t": 1.0}, "warnings": ["b"]}
    idle = {"version": "", "places": [], "broken_by": [], "seconds": {}, "warnings": []}
    joined = driven._joined([one, other, idle], ["fab-t"], 5)
    assert (joined["n"], joined["top1"], joined["right"]) == (5, 2, "10010")
    assert joined["details"] == {
        "version": "custom",
        "broken_by": {"fab-t": 2},
        "seconds": {"clean": 3.0, "fab-t": 2.0},
        "warnings": ["a", "b"],
    }


@pytest.fixture
def calls(monkeypatch):
    """The questions that are measured by the driver."""
    done = []
    original = driven.evaluate

    def counting(*args, **kwargs):
        done.append(args[3])
        return original(*args, **kwargs)

    monkeypatch.setattr(driven, "evaluate", counting)
    return done


@pytest.mark.slow
def test_it_is_measured_once_and_beside_what_one_pass_answers(folder, passes, calls):
    found = measure(folder, {"clean": {}, "first": FIRST})
    assert (len(passes), len(calls)) == (1, 1)
    first, clean = found["first"], found["clean"]
    assert (first.n, clean.n) == (21, 50)
    assert first.details["version"] == "custom"
    assert not (first.right & ~clean.right[:21]).any()
    broken = sum(first.details["broken_by"].values())
    assert first.top1 + broken == clean.right[:21].sum()
    again = measure(folder, {"first": FIRST, "clean": {}})
    np.testing.assert_array_equal(again["first"].right, first.right)
    assert again["first"].details == first.details
    # What is not said and what is the default are one question.
    spelled = {"attack": {**FIRST["attack"], "norm": "linf", "queries": 5000}}
    measure(folder, {"first": spelled})
    assert (len(passes), len(calls)) == (1, 1)
    fewer = measure(folder, {"first": {"attack": {**ATTACK, "images": 9}}})["first"]
    np.testing.assert_array_equal(fewer.right, first.right[:9])
    measure(folder, {"first": FIRST}, seed=1)
    assert (len(passes), len(calls)) == (1, 3)


def test_an_interrupted_call_goes_on(folder, tmp_path, monkeypatch):
    whole = measure(shutil.copytree(folder, tmp_path / "whole"), {"first": FIRST})["first"]
    runs, original = [], many.run

    def interrupted(*args, **kwargs):
        runs.append(1)
        if len(runs) == 2:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(many, "run", interrupted)
    notes = folder / outcomes.FOLDER
    notes.mkdir(exist_ok=True)
    with pytest.raises(KeyboardInterrupt):
        measure(folder, {"first": FIRST})
    (note,) = notes.glob("*.npz")
    parts = note.name.split(".")
    stale = note.with_name(".".join([*parts[:2], "00000000", *parts[3:]]))  # of another checkpoint
    stale.touch()
    found = measure(folder, {"first": FIRST})["first"]
    assert len(runs) == 3  # the first attack is not made again
    np.testing.assert_array_equal(found.right, whole.right)
    assert found.details["broken_by"] == whole.details["broken_by"]
    assert not list(notes.glob("*.npz"))


@pytest.mark.slow
def test_a_real_config_reports_it_in_full_and_does_not_measure_it_again(
    tmp_path, calls, quickly_compiled
):
    catalog_data.write("fashion_mnist", tmp_path / "data")
    config = importlib.import_module("configs.fashion_mnist").get_config()
    config.dataset.data_dir = str(tmp_path / "data")
    config.epochs, config.steps, config.seeds = None, 2, (0,)
    config.runs = {"std": {}}
    config.evaluation.batch_size = 16
    config.evaluation.attacks = {
        "pgd": {"name": "pgd", "epsilon": 0.1, "steps": 1},
        "autoattack": {
            "name": "autoattack",
            "epsilon": 0.1,
            "attacks": ("apgd-ce",),
            "steps": 3,
            "images": 10,
        },
    }
    results = study.run(config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == results
    (entry,) = results
    by_name = {attack["name"]: attack for attack in entry["attacks"]}
    stated = by_name["autoattack"]
    told = {"norm": "linf", "epsilon": 0.1, "n": 10, "seed": 0, "version": "custom", "steps": 3}
    told |= {"attacks": ["apgd-ce"], "queries": 5000, "images": 10, "warnings": []}
    assert {name: stated[name] for name in told} == told
    assert list(stated["broken_by"]) == ["apgd-ce"]
    robust = stated["clean_accuracy"] - 10.0 * stated["broken_by"]["apgd-ce"]
    assert stated["robust_accuracy"] == pytest.approx(robust)
    assert set(stated["seconds"]) == {"clean", "apgd-ce"}
    assert (by_name["pgd"]["n"], by_name["pgd"]["seed"]) == (26, 0)
    assert "queries" not in by_name["pgd"]
    words = "autoattack linf 0.1: custom (apgd-ce), steps 3, first 10 images, seed 0"
    assert words in study.table(results)
    assert study.run(config, tmp_path / "run") == results
    assert len(calls) == 1
