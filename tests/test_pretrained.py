"""The trained networks in the package: the files, and the command that makes them."""

import json

import jax
import numpy as np
import pytest

from jaxrobust import Classifier, models
from jaxrobust.core import digests, files
from jaxrobust.data import textured_shapes
from jaxrobust.experiments import package_weights
from jaxrobust.models import weight_files
from jaxrobust.training import checkpoints
from tests import tiny
from tests.test_figure2_sensitivity_maps import write_workdir

MODEL = {"name": "resnet8_small", "num_classes": 5, "width": 4, "mean": [0.1, 0.2, 0.3]}
RESULTS = {"clean": {"top1": 50.0, "top5": 90.0, "n": 360}, "attacks": []}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty one in the place of the package's."""
    monkeypatch.setattr(weight_files, "FOLDER", tmp_path / "weights")
    return tmp_path / "weights"


@pytest.fixture
def network():
    model = models.create(**MODEL)
    return Classifier(model, tiny.drawn_variables(model, (16, 16, 3)))


@pytest.fixture
def workdir(tmp_path, data_dir):
    """STD and ADV, as a study of one seed leaves them."""
    workdir = write_workdir(tmp_path / "study", data_dir, seeds=(3,))
    entries = [{"run": run, "seed": 3, "step": 30, **RESULTS} for run in ("std", "adv")]
    files.write_json(workdir / "results.json", entries)
    return workdir


def test_what_is_written_is_read(folder, network):
    path = weight_files.write("tiny", {"model": MODEL, "run": "std"}, network.variables)
    assert models.pretrained_names() == ("tiny",)
    assert models.pretrained_description("tiny") == {"model": MODEL, "run": "std"}
    read = models.pretrained("tiny")
    assert read.model == network.model
    jax.tree.map(np.testing.assert_array_equal, read.variables, network.variables)
    assert (folder / "SHA256SUMS").read_text() == f"{digests.digest(path)}  {path.name}\n"
    weight_files.write("another", {"model": MODEL}, network.variables)
    weight_files.write("tiny", {"model": MODEL, "run": "adv"}, network.variables)
    assert models.pretrained_names() == ("another", "tiny")
    assert models.pretrained_description("tiny")["run"] == "adv"


def test_it_goes_through_transformations(folder, network):
    weight_files.write("tiny", {"model": MODEL}, network.variables)
    images = np.random.default_rng(0).random((3, 16, 16, 3), np.float32)
    read = models.pretrained("tiny")
    logits = jax.jit(lambda classifier, images: jax.vmap(classifier)(images))(read, images)
    tiny.assert_equal_to_rounding(logits, network(images))
    gradient = jax.jit(jax.grad(lambda image: read(image)[0]))(images[0])
    assert np.abs(gradient).max() > 0


@pytest.mark.parametrize("damage", ["changed", "shorter"])
def test_a_damaged_file_is_refused(folder, network, damage):
    path = weight_files.write("tiny", {"model": MODEL}, network.variables)
    content = path.read_bytes()
    expected, middle = digests.digest(path), len(content) // 2
    flipped = bytes([content[middle] ^ 1])
    tail = flipped + content[middle + 1 :] if damage == "changed" else b""
    path.write_bytes(content[:middle] + tail)
    with pytest.raises(ValueError, match=r"must have the sha256") as raised:
        models.pretrained("tiny")
    for part in (str(path), expected, digests.digest(path)):
        assert part in str(raised.value)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=path.name):
        models.pretrained("tiny")


def test_other_names_are_refused(folder, network):
    weight_files.write("tiny_adv", {"model": MODEL}, network.variables)
    with pytest.raises(ValueError, match=r"one of tiny_adv, got 'tiny/adv' \(did you mean 'tiny_"):
        models.pretrained("tiny/adv")


def test_a_study_is_packaged(folder, workdir, data_dir, capsys):
    package_weights.main([f"--workdir={workdir}", "--name=digits"])
    assert "digits_adv.safetensors: " in capsys.readouterr().out
    assert models.pretrained_names() == ("digits_adv", "digits_std")
    for run in ("std", "adv"):
        training = workdir / run / "seed3"
        packaged = models.pretrained(f"digits_{run}")
        loaded = checkpoints.load(training)
        assert packaged.model == loaded.model
        jax.tree.map(np.testing.assert_array_equal, packaged.variables, loaded.variables)
        description = models.pretrained_description(f"digits_{run}")
        assert description["results"] == RESULTS
        assert description["classes"] == [str(digit) for digit in range(10)]
        assert (description["run"], description["seed"]) == (run, 3)
        assert (description["training"]["attack"] is None) == (run == "std")
        # Nothing of the machine that trained it.
        assert str(data_dir) not in json.dumps(description)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    package_weights.package(workdir, "digits")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_only_weights_that_were_measured_are_packaged(folder, workdir):
    entries = json.loads((workdir / "results.json").read_text())
    entries[1]["step"] = 20
    files.write_json(workdir / "results.json", entries)
    with pytest.raises(ValueError, match=r"newest checkpoint, step 30, got std .* adv at step 20"):
        package_weights.package(workdir, "digits")
    assert not folder.exists()


def test_several_seeds_are_refused(folder, tmp_path, data_dir):
    write_workdir(tmp_path / "study", data_dir, seeds=(3, 4))
    with pytest.raises(ValueError, match="must hold one seed, got 3, 4"):
        package_weights.package(tmp_path / "study", "digits")


@pytest.mark.parametrize("name", ["quickstart_adv", "quickstart_std"])
def test_the_figures_are_those_of_the_weights(name):
    network, description = models.pretrained(name), models.pretrained_description(name)
    for split, stated in (
        ("test", description["results"]["clean"]["top1"]),
        ("cue_conflict", description["results"]["cue_conflict"]["shape"]),
    ):
        pictures = textured_shapes.draw_batch(split, range(1000))
        right = np.asarray(network(pictures.images)).argmax(-1) == pictures.labels
        # Rounding may turn some answers.
        assert 100 * right.mean() == pytest.approx(stated, abs=0.5)


def test_the_files_are_small():
    assert sum(path.stat().st_size for path in weight_files.FOLDER.iterdir()) < 2**20
