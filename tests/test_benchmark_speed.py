"""The speed benchmark: what it measures, what it writes, and that PyTorch computes the same."""

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxrobust import Classifier
from jaxrobust.experiments.benchmarks import speed as benchmark_speed
from jaxrobust.experiments.benchmarks import speed_works
from jaxrobust.experiments.benchmarks.speed_works import OURS, THEIRS, WORKS, Settings
from jaxrobust.models import resnet
from tests import tiny

_TINY = Settings(
    model="tests.tiny:TinyResNet",
    image_size=8,
    num_classes=5,
    batch_size=4,
    rounds=2,
    seconds=0.0,
)


@pytest.fixture(scope="module", autouse=True)
def little_to_compile():
    """The check's precision, so that it compiles nothing anew, and keys that compile fast."""
    with jax.default_matmul_precision("highest"), jax.default_prng_impl("rbg"):
        yield


@pytest.fixture(scope="module")
def record():
    return benchmark_speed.measure(dataclasses.replace(_TINY, torch=False, peak_tflops=0.5))


@pytest.mark.slow
def test_every_work_is_measured_in_every_round(record):
    record = json.loads(json.dumps(record))
    assert set(record) == {"date", "hardware", "versions", "settings", "results"}
    assert {"jax", "jaxlib", "flax", "python"} <= set(record["versions"])
    assert {"backend", "device", "cores"} <= set(record["hardware"])
    assert record["settings"]["batch_size"] == 4
    assert list(record["results"]) == list(WORKS)
    assert set(speed_works.our_works(speed_works.Subject.create(_TINY))) == set(WORKS)
    for both in record["results"].values():
        assert set(both) == {OURS}
        ours = both[OURS]
        assert len(ours["seconds"]) == 2
        assert min(ours["seconds"]) <= 4 / ours["images_per_second"] <= max(ours["seconds"])
        assert ours["utilisation"] == pytest.approx(
            ours["flops"] * ours["images_per_second"] / 4 / 0.5e12
        )


@pytest.mark.slow
def test_operations_are_those_of_the_passes(record):
    flops = {name: both[OURS]["flops"] for name, both in record["results"].items()}
    passes = {name: count / flops["forward"] for name, count in flops.items()}
    # Forward 1, backward to the input 1, backward to the weights 1; at most 10 % of other work.
    for name, expected in {
        "input gradient": 2,
        "FGSM attack": 2,
        "PGD-10 attack": 20,
        "standard training step": 3,
        "FGSM training step": 5,
        "PGD-10 training step": 23,
    }.items():
        assert passes[name] == pytest.approx(expected, rel=0.1), name


def test_the_table_names_the_faster_library_only_when_the_rounds_agree():
    def both(ours, theirs, quartiles):
        ratio = {"median": theirs / ours, "quartiles": quartiles}
        speeds = {OURS: ours, THEIRS: theirs}
        results = {k: {"images_per_second": v, "spread": 0.1} for k, v in speeds.items()}
        return {**results, "ratio": ratio}

    results = {
        "a": both(100.0, 200.0, [1.9, 2.1]),
        "b": both(200.0, 100.0, [0.4, 0.6]),
        "c": both(100.0, 101.0, [0.9, 1.1]),
        "d": {OURS: {"error": "out of memory"}},
    }
    lines = benchmark_speed.table({"settings": {"batch_size": 4}, "results": results}).splitlines()
    assert [line.split()[-2] for line in lines[1:4]] == [THEIRS, OURS, "unclear"]
    assert "2.00" in lines[1]
    assert "failed" in lines[4]


def test_pytorch_computes_the_same_and_a_difference_is_found(monkeypatch):
    torch = pytest.importorskip("torch")
    from jaxrobust.experiments.benchmarks import torch_resnet

    differences = speed_works.check(_TINY)
    assert all(difference <= most for difference, most in differences.values()), differences

    load = torch_resnet.load

    def disturbed(network, classifier):
        load(network, classifier)
        with torch.no_grad():
            network.layer1[0].conv1.weight.mul_(1.1)

    monkeypatch.setattr(torch_resnet, "load", disturbed)
    differences = speed_works.check(_TINY)
    assert differences["logits"][0] > differences["logits"][1]


def test_pytorch_network_of_bottlenecks_has_the_same_logits():
    torch = pytest.importorskip("torch")
    from jaxrobust.experiments.benchmarks import torch_resnet

    model = resnet.ResNet((1, 1), bottleneck=True, width=4, widening=2, num_classes=7)
    classifier = Classifier(model, tiny.drawn_variables(model, (40, 40, 3)))
    images = np.random.default_rng(0).random((2, 40, 40, 3), np.float32)
    network = torch_resnet.ResNet(model)
    torch_resnet.load(network, classifier)
    with torch.no_grad():
        logits = network.eval()(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(classifier(images), logits, rtol=1e-3, atol=1e-4)


def test_an_unknown_model_is_one_sentence():
    command = [sys.executable, "-m", "jaxrobust.experiments.benchmarks.speed", "--model=resnet51"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert (
        ended.stderr.strip()
        .splitlines()[-1]
        .startswith("ValueError: Unknown model 'resnet51' (did you mean")
    )
    assert "Traceback" not in ended.stderr
