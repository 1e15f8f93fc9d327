"""Two processes of jax.distributed on this machine against one process with two devices."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrobust.training import checkpoints
from tests import tiny

ROOT = Path(__file__).parents[1]

PROGRAM = """
import sys
import jax
process, count, port, data_dir, folder = sys.argv[1:]
if int(count) > 1:
    jax.distributed.initialize(f"localhost:{port}", int(count), int(process))
from jaxrobust import study
from tests import tiny

attack = {"attack": {"name": "fgsm", "epsilon": 0.05, "random_start": True}}
config = tiny.config(data_dir, steps=4, checkpoint__every_steps=2)
first = {"images": 21, "attacks": ("apgd-ce", "fab-t"), "steps": 3}
config.evaluation.attacks = {
    "fgsm": {"name": "fgsm", "epsilon": 0.05},
    "autoattack": {"name": "autoattack", "epsilon": 0.01, **first},
}
# One from pictures that are streamed, each process its own part, the other from memory.
config.runs = {"std": {"dataset": {"in_memory": False, "workers": 0}}, "adv": attack}
study.run(config, folder)
"""


def start(process, count, port, data_dir, folder):
    environment = tiny.environment(2 // count) | {"PYTHONPATH": str(ROOT)}
    arguments = [str(value) for value in (process, count, port, data_dir, folder)]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(processes):
    for process in processes:
        output = process.communicate(timeout=240)[0]
        assert process.returncode == 0, output


def logged(folder, run):
    lines = (folder / run / "seed0" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.slow
def test_two_processes_train_and_evaluate_as_one(data_dir, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    finish([start(0, 1, 0, data_dir, one)])
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    finish([start(process, 2, port, data_dir, two) for process in range(2)])

    # Standard steps agree to the rounding of sums taken in another order.
    np.testing.assert_allclose(logged(one, "std"), logged(two, "std"), rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        dict(checkpoints.load(one / "std" / "seed0").variables),
        dict(checkpoints.load(two / "std" / "seed0").variables),
    )
    # In adversarial ones rounding flips signs of near-zero gradients besides.
    np.testing.assert_allclose(logged(one, "adv"), logged(two, "adv"), rtol=1e-3)

    results = [json.loads((folder / "results.json").read_text()) for folder in (one, two)]
    for single, joint in zip(*results, strict=True):
        assert single["clean"]["n"] == joint["clean"]["n"] == 360
        # Weights that differ in the last bits may decide a borderline picture differently.
        assert abs(single["clean"]["top1"] - joint["clean"]["top1"]) <= 100 * 2 / 360
        alone, parts = (
            next(attack for attack in entry["attacks"] if attack["name"] == "autoattack")
            for entry in (single, joint)
        )
        assert parts["n"] == alone["n"] == 21
        assert abs(parts["robust_accuracy"] - alone["robust_accuracy"]) <= 100 * 2 / 21
    # The images that two processes have shared out are back at their places.
    for run in ("std", "adv"):
        (path,) = (two / run / "seed0" / "outcomes").glob("*.json")
        kept = json.loads(path.read_text())["outcomes"]
        clean = next(one["right"] for key, one in kept.items() if "attack" not in key)
        robust = next(one["right"] for key, one in kept.items() if "autoattack" in key)
        assert len(robust) == 21
        assert all(before >= after for before, after in zip(clean, robust, strict=False))
