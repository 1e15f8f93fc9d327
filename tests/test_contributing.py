"""CONTRIBUTING's recipes, walked: each is one new file, and works as it stands there."""

import importlib
import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import Classifier, attacks, saliency
from jaxrobust.training import objectives, study
from tests import tiny
from tests.test_figure2_sensitivity_maps import write_workdir
from tests.workshop import workshop as workshop

CONTRIBUTING = Path(__file__).parents[1] / "CONTRIBUTING.md"


def recipe(heading):
    """The Python block under a heading."""
    section = CONTRIBUTING.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    return block


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes a recipe into a file of a user's own, and imports it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names = []

    def write(heading, name):
        (tmp_path / f"{name}.py").write_text(recipe(heading))
        names.append(name)
        return importlib.import_module(name)

    yield write
    for name in names:
        del sys.modules[name]


def classifier():
    model = tiny.TinyNetwork(num_classes=10)
    return Classifier(model, tiny.drawn_variables(model, (16, 16, 3)))


def images():
    return jnp.asarray(np.random.default_rng(0).uniform(0, 1, (3, 16, 16, 3)), jnp.float32)


@pytest.mark.slow
def test_an_attack_is_one_file(written, data_dir, tmp_path):
    module = written("An attack", "my_attacks")
    options = {"epsilon": 0.05, "steps": 3, "step_size": 0.02}
    labels = jnp.arange(3)
    # Without momentum it is PGD, which knows nothing of it.
    ours = module.momentum(classifier(), images(), labels, decay=0.0, **options)
    theirs = attacks.pgd(classifier(), images(), labels, random_start=False, **options)
    tiny.assert_equal_to_rounding(ours, theirs, share=0.98)
    assert np.any(ours != module.momentum(classifier(), images(), labels, **options))
    attack = {"name": "my_attacks:momentum", "epsilon": 0.05, "steps": 2}
    config = tiny.config(data_dir, steps=1, runs={"adv": {"attack": attack}})
    config.evaluation.attacks = {"momentum": attack}
    (entry,) = study.run(config, tmp_path / "runs")
    assert entry["attacks"][0]["name"] == "my_attacks:momentum"
    config.runs.adv.attack.decay = -1.0
    with pytest.raises(ValueError, match="decay must be a finite number of at least 0"):
        study.run(config, tmp_path / "other")


@pytest.mark.slow
def test_an_objective_is_one_file(written, data_dir, tmp_path):
    module = written("An objective", "my_objectives")
    made = classifier()
    batch = {"image": images(), "label": jnp.arange(3)}
    arguments = (made.model, made.variables, batch, jax.random.key(0))
    loss, _ = module.label_smoothing(*arguments, smoothing=0.0)
    np.testing.assert_allclose(loss, objectives.standard(*arguments)[0], rtol=1e-5)
    own = {"name": "my_objectives:label_smoothing", "smoothing": 0.2}
    config = tiny.config(data_dir, steps=1, runs={"smooth": {"objective": own}})
    config.evaluation.attacks = {}
    (entry,) = study.run(config, tmp_path / "runs")
    assert entry["step"] == 1


def test_a_saliency_method_is_one_file(written):
    from experiments import sensitivity

    module = written("A saliency method", "my_maps")
    labels = jnp.arange(3)
    gradient = saliency.vanilla_gradient(classifier(), images(), labels)
    squared = module.squared_gradient(classifier(), images(), labels)
    np.testing.assert_allclose(squared, gradient**2, rtol=1e-5)
    assert sensitivity._method_name("my_maps:squared_gradient") == "my_maps:squared_gradient"


def test_an_experiment_with_its_claim_is_one_file(workshop, data_dir):
    workshop.write("experiments/figure99_halos.py", recipe("An experiment"))
    module = importlib.import_module("experiments.figure99_halos")
    work = write_workdir(workshop.folder / "work", data_dir)
    module.EXPERIMENT.main(["--workdirs", str(work), "--out", "out"])
    record = json.loads(Path("out/figure99_halos.json").read_text())
    (found,) = record["architectures"].values()
    expected = np.mean(np.subtract(found["adv"], found["std"]))
    assert found["change"]["mean"] == pytest.approx(expected)
    (shown,) = record["shown"]["findings"].values()
    assert shown["claims"]["9"]["verdict"] == found["change"]["verdict"]
    assert "Claim 9. Robust maps have no halo" in Path("out/figure99_halos.md").read_text()
