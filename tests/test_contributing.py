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
    labels, key = jnp.arange(3), jax.random.key(0)

    def searched(samples):
        return module.random_search(
            classifier(), images(), labels, key=key, epsilon=0.05, samples=samples
        )

    # The same points one by one: sampled in the ball, clipped to the box.
    found, keys = searched(3), jax.random.split(key, 3)
    for image, label, own, worst in zip(images(), labels, keys, found, strict=True):
        starts = [
            attacks.start_in_ball(
                image, key=jax.random.fold_in(own, index), norm="linf", epsilon=0.05
            )
            for index in range(3)
        ]
        points = [image, *(jnp.clip(image + start, 0, 1) for start in starts)]
        margins = [float(attacks.margin(classifier()(point), label)) for point in points]
        tiny.assert_equal_to_rounding(worst, points[int(np.argmax(margins))])
    assert np.any(found != searched(30))
    attack = {"name": "my_attacks:random_search", "epsilon": 0.05, "samples": 2}
    config = tiny.config(data_dir, steps=1, runs={"adv": {"attack": attack}})
    config.evaluation.attacks = {"random": attack}
    (entry,) = study.run(config, tmp_path / "runs")
    assert entry["attacks"][0]["name"] == "my_attacks:random_search"
    config.runs.adv.attack.samples = 0
    with pytest.raises(ValueError, match="samples must be a whole number of at least 1, got 0"):
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
    from jaxrobust.experiments import sensitivity

    module = written("A saliency method", "my_maps")
    labels = jnp.arange(3)
    gradient = saliency.vanilla_gradient(classifier(), images(), labels)
    squared = module.squared_gradient(classifier(), images(), labels)
    np.testing.assert_allclose(squared, gradient**2, rtol=1e-5)
    assert sensitivity._method_name("my_maps:squared_gradient") == "my_maps:squared_gradient"


def test_an_experiment_with_its_claim_is_one_file(workshop, data_dir):
    workshop.write("jaxrobust/experiments/figure99_halos.py", recipe("An experiment"))
    module = importlib.import_module("jaxrobust.experiments.figure99_halos")
    work = write_workdir(workshop.folder / "work", data_dir)
    module.EXPERIMENT.main(["--workdirs", str(work), "--out", "out"])
    record = json.loads(Path("out/figure99_halos.json").read_text())
    (found,) = record["architectures"].values()
    expected = np.mean(np.subtract(found["adv"], found["std"]))
    assert found["change"]["mean"] == pytest.approx(expected)
    (shown,) = record["shown"]["findings"].values()
    assert shown["claims"]["9"]["verdict"] == found["change"]["verdict"]
    assert "Claim 9. Robust maps have no halo" in Path("out/figure99_halos.md").read_text()
