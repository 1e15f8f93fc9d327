"""The benchmark of minimum-norm attacks: what it compares, and that it needs its peers."""

import json
import sys

import numpy as np
import pytest

from jaxrobust import Classifier
from jaxrobust.experiments.benchmarks import minimum_norm
from jaxrobust.experiments.benchmarks.minimum_norm import OURS, THEIRS
from jaxrobust.models import resnet
from tests import tiny
from tests.test_figure2_sensitivity_maps import write_workdir


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, data_dir):
    return write_workdir(tmp_path_factory.mktemp("work"), data_dir, seeds=(0,))


def test_the_file_holds_every_distance(workdir, tmp_path, monkeypatch, capsys):
    seen = []

    def farther(subject, settings):
        """As if another library's images were twice as far away, and one attack not there."""
        seen.append(subject)
        works, misclassified = minimum_norm.our_attacks(subject, settings)
        moved = np.clip(2 * works["DeepFool l_inf"]() - subject.images, 0, 1)
        return {"DeepFool l_inf": lambda: moved}, misclassified

    monkeypatch.setattr(minimum_norm, "their_attacks", farther)
    out = tmp_path / "record.json"
    minimum_norm.main(
        [
            f"--workdir={workdir}",
            "--run=adv",
            "--pictures=60",
            "--works",
            "DeepFool l_inf",
            "DeepFool l_2",
            f"--out={out}",
        ]
    )
    record = json.loads(out.read_text())
    ((title, found),) = record["results"].items()
    assert "ADV" in title
    (subject,) = seen
    assert found["pictures"] == len(subject.labels) <= 60
    assert np.all(np.asarray(subject.classifier(subject.images)).argmax(-1) == subject.labels)
    both = found["attacks"]["DeepFool l_inf"]
    own, other = (
        np.array([np.inf if value is None else value for value in both[library]["distances"]])
        for library in (OURS, THEIRS)
    )
    assert own.shape == other.shape == subject.labels.shape
    assert both[OURS]["success"] == np.isfinite(own).mean() > 0
    assert both[OURS]["median"] == pytest.approx(np.median(own))
    assert both["ratio"] == pytest.approx(np.median(own) / np.median(other))
    assert 0.4 < both["ratio"] < 0.7
    assert set(found["attacks"]["DeepFool l_2"]) == {OURS}
    shown = capsys.readouterr().out.splitlines()
    assert f"{both['ratio']:.3f}" in shown[2]
    assert shown[3].split()[-1] == "–"


def test_what_is_missing_is_one_sentence(workdir, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "foolbox", None)
    flags = ["--pictures=60", f"--out={tmp_path / 'record.json'}"]
    with pytest.raises(SystemExit, match="PyTorch and foolbox are needed to compare with"):
        minimum_norm.main([f"--workdir={workdir}", *flags])
    with pytest.raises(SystemExit, match="run must be one of std, adv, got 'trades'"):
        minimum_norm.main([f"--workdir={workdir}", "--run=trades", *flags])
    with pytest.raises(SystemExit, match="is no folder"):
        minimum_norm.main([f"--workdir={tmp_path / 'none'}", *flags])


def test_it_explains_itself(capsys):
    with pytest.raises(SystemExit) as ended:
        minimum_norm.main(["--help"])
    assert ended.value.code == 0
    assert "--pictures" in capsys.readouterr().out


@pytest.mark.parametrize("small_images", [True, False])
def test_pytorch_network_that_pools_has_the_same_logits(small_images):
    torch = pytest.importorskip("torch")
    from jaxrobust.experiments.benchmarks import torch_resnet

    model = resnet.ResNet(
        (1, 1),
        small_images=small_images,
        stem_stride=2,
        downsampling="average_pool",
        width=4,
        num_classes=7,
    )
    classifier = Classifier(model, tiny.drawn_variables(model, (22, 30, 3)))
    images = np.random.default_rng(0).random((2, 22, 30, 3), np.float32)
    network = torch_resnet.ResNet(model)
    torch_resnet.load(network, classifier)
    with torch.no_grad():
        logits = network.eval()(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(classifier(images), logits, rtol=1e-3, atol=1e-4)
