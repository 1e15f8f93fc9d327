import json
import logging
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from jaxrobust.core import files
from jaxrobust.data import sources
from jaxrobust.evaluation import outcomes, report
from jaxrobust.experiments.pictures import evaluation_pictures
from jaxrobust.training import checkpoints, study, train
from jaxrobust.training.run import resolve_single
from tests import catalog_data, tiny
from tests.test_checkpoints import truncate

ROOT = Path(__file__).parents[1]
ADVERSARIAL = {"attack": {"name": "pgd", "epsilon": 0.05, "steps": 2}}


def assert_same(first, second):
    jax.tree.map(np.testing.assert_array_equal, dict(first.variables), dict(second.variables))


@pytest.mark.slow
def test_study_of_two_runs(data_dir, tmp_path, capsys):
    config = tiny.config(data_dir, seeds=(0, 1))
    config.runs = {"std": {}, "adv": ADVERSARIAL}
    results = study.run(config, tmp_path)
    assert [(entry["run"], entry["seed"]) for entry in results] == [
        ("std", 0),
        ("adv", 0),
        ("std", 1),
        ("adv", 1),
    ]
    assert json.loads((tmp_path / "results.json").read_text()) == results
    entry = results[0]
    assert entry["step"] == 30
    assert entry["clean"]["n"] == 360
    attack = entry["attacks"][0]
    assert attack["name"] == "pgd"
    assert attack["step_size"] == pytest.approx(1.5 * 0.05 / 2)
    # The two conventions have the same numerator.
    assert attack["robust_accuracy"] * 100 == pytest.approx(
        attack["defense_success_rate"] * entry["clean"]["top1"]
    )
    table = study.table(results)
    assert "std (2 seeds)" in table
    assert "±" in table
    for entry in results:  # what was trained is what is loaded
        folder = tmp_path / entry["run"] / f"seed{entry['seed']}"
        assert_same(
            checkpoints.load(folder),
            train.train(study_run(config, entry["run"]), folder, seed=entry["seed"]),
        )
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert lines[-1]["step"] == 30
        assert list(folder.glob("tensorboard/events*"))

    # A second call trains and evaluates nothing.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert study.run(config, tmp_path) == results
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    changed = {path for path in after if after[path] != before.get(path)}
    # Locks name who holds them.
    assert {path for path in changed if path.suffix != ".lock"} == {tmp_path / "results.json"}

    # Another attack to evaluate: evaluated again, not trained again.
    config.evaluation.attacks.pgd.epsilon = 0.0
    again = study.run(config, tmp_path)
    assert again[0]["attacks"][0]["defense_success_rate"] == 100.0
    assert again[0]["clean"] == results[0]["clean"]


@pytest.mark.slow
def test_a_fresh_study_opens_each_split_once_and_traces_its_step_to_check_and_to_run(
    data_dir, tmp_path, monkeypatch
):
    opened, traced = [], []
    open_split, loss = sources.open_split, optax.softmax_cross_entropy_with_integer_labels

    def counted_open(config, dataset, split):
        opened.append(split)
        return open_split(config, dataset, split)

    def counted_loss(*args, **kwargs):
        traced.append(1)
        return loss(*args, **kwargs)

    monkeypatch.setattr(sources, "open_split", counted_open)
    monkeypatch.setattr(optax, "softmax_cross_entropy_with_integer_labels", counted_loss)
    config = tiny.config(data_dir, steps=2, seeds=(0, 1))
    config.optimizer.learning_rate = 0.0123  # that no other test has traced
    study.run(config, tmp_path)
    assert sorted(opened) == ["test", "train"]
    assert len(traced) == 2


@pytest.mark.slow
@pytest.mark.parametrize("in_memory", ["True", "False"])
def test_study_of_one_channel(tmp_path, in_memory):
    catalog_data.write("fashion_mnist", tmp_path / "data")
    config = tiny.config(
        tmp_path / "data",
        dataset__name="fashion_mnist",
        dataset__image_size=None,
        dataset__in_memory=in_memory,
        batch_size=16,
        steps=2,
    )
    config.evaluation.variants = {"reversed": {"name": "reverse_colors", "mean": [0.5]}}
    (entry,) = study.run(config, tmp_path / "run")
    assert entry["clean"]["n"] == 26
    loaded = checkpoints.load(tmp_path / "run" / "std" / "seed0")
    assert loaded.mean == (0.286,)
    pictures = evaluation_pictures(config, 5).images
    assert pictures.shape == (5, 28, 28, 1)
    assert loaded(pictures).shape == (5, 10)


def study_run(config, run):
    from jaxrobust.training import config as configs

    return configs.for_run(config, run)


def test_another_configs_workdir_is_refused_before_training(data_dir, tmp_path):
    config = tiny.config(data_dir, steps=2)
    train.train(config, tmp_path / "std" / "seed0")
    config.optimizer.learning_rate = 0.2
    with pytest.raises(ValueError, match=r"optimizer.learning_rate: 0.1, now 0.2"):
        study.run(config, tmp_path)


MAIN_CONFIG = """
from tests import tiny

def get_config():
    return tiny.config({data_dir!r}, runs={{"adv": {adversarial!r}}}, steps={steps})
"""


def main(data_dir, folder, *, steps=30, devices=1, extra=()):
    file = folder.parent / "a_config.py"
    file.write_text(
        MAIN_CONFIG.format(data_dir=str(data_dir), adversarial=ADVERSARIAL, steps=steps)
    )
    environment = tiny.environment(devices) | {"PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "jaxrobust.main",
        f"--config={file}",
        f"--workdir={folder}",
        "--compilation_cache=",
        *extra,
    ]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_step(process, folder, step):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "adv" / "seed0" / "checkpoints" / str(step)).exists():
            return
        time.sleep(0.01)
    pytest.fail(f"no checkpoint of step {step}: {process.communicate()[0]}")


@pytest.mark.slow
def test_killed_and_started_again_ends_with_the_same_bits(data_dir, tmp_path):
    whole = main(data_dir, tmp_path / "whole", steps=400)
    killed = main(data_dir, tmp_path / "killed", steps=400)
    wait_for_step(killed, tmp_path / "killed", 30)
    time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed" / "results.json").exists()
    assert whole.wait() == 0, whole.communicate()[0]
    again = main(data_dir, tmp_path / "killed", steps=400)
    output = again.communicate()[0]
    assert again.returncode == 0, output
    one, other = (checkpoints.load(tmp_path / name) for name in ("whole", "killed"))
    assert_same(one, other)
    results = [
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "killed")
    ]
    assert results[0] == results[1]
    steps = [
        json.loads(line)["step"]
        for line in (tmp_path / "killed" / "adv" / "seed0" / "metrics.jsonl")
        .read_text()
        .splitlines()
    ]
    assert steps == sorted(set(steps))  # no step is logged twice


@pytest.mark.slow
def test_sigterm_saves_and_says_how_to_go_on(data_dir, tmp_path):
    process = main(data_dir, tmp_path / "run", steps=100_000)
    wait_for_step(process, tmp_path / "run", 10)
    process.send_signal(signal.SIGTERM)
    output = process.communicate()[0]
    assert process.returncode == 1
    assert "which is saved: the same command goes on from here." in output
    step = int(output.split("Stopped at step ")[1].split(" ")[0])
    assert checkpoints.newest_step(tmp_path / "run" / "adv" / "seed0") == step


def test_a_truncated_checkpoint_costs_only_its_own_steps(data_dir, tmp_path, caplog):
    config = tiny.config(data_dir)
    first = train.train(config, tmp_path)
    truncate(tmp_path, 30)
    with caplog.at_level(logging.WARNING):
        again = train.train(config, tmp_path)
    assert "of step 30 cannot be read" in caplog.text
    assert_same(first, again)


def test_damage_to_a_finished_study_leads_to_the_same_end(data_dir, tmp_path, caplog):
    config = tiny.config(data_dir)
    config.runs = {"std": {}, "other": {}}
    results = [one for one in study.run(config, tmp_path) if one["run"] == "std"]
    folder = tmp_path / "std" / "seed0"
    whole = checkpoints.load(folder)
    del config.runs["other"]
    for damaged in (folder, tmp_path / "other" / "seed0"):
        (damaged / "evaluation.json").write_text("")
    for note in (folder / "outcomes").glob("*.json"):
        note.write_text(note.read_text().replace("0", "1", 5))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("[]\n")
    assert study.run(config, tmp_path) == results
    for name in ("std/seed0/evaluation.json", "other/seed0/evaluation.json", "outcomes/"):
        assert name in caplog.text
    # Its evaluation is there, its weights are not: it is trained again from the checkpoint before.
    truncate(folder, 30)
    assert study.run(config, tmp_path) == results
    assert "of step 30 cannot be read" in caplog.text
    assert_same(whole, checkpoints.load(folder))
    assert [line["step"] for line in files.read_log(folder / "metrics.jsonl")][-1] == 30


def test_one_program_trains_in_a_folder(data_dir, tmp_path, capsys):
    config = tiny.config(data_dir, steps=2)
    other = resolve_single(config, tmp_path).description | {"model": {"name": "resnet18"}}
    with ThreadPoolExecutor(1) as pool:
        with checkpoints.only_training(tmp_path):
            waiting = pool.submit(train.train, config, tmp_path)
            deadline = time.monotonic() + 60
            while "trains in" not in (said := capsys.readouterr().err):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            # What it has waited for was of another config.
            checkpoints.write_config(tmp_path, other)
        with pytest.raises(ValueError, match=r"holds a run of another config \(model"):
            waiting.result()
    assert f"Process {os.getpid()} on " in said
    assert said.endswith(f"trains in {tmp_path}: waiting for it to end.\n")
    assert checkpoints.read_config(tmp_path) == other
    assert not (tmp_path / "checkpoints").exists()


def test_sigterm_ends_an_evaluation_with_a_sentence(data_dir, tmp_path, monkeypatch):
    def terminated(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(outcomes, "measure", terminated)
    monkeypatch.setattr(report, "outcomes", outcomes)
    with pytest.raises(KeyboardInterrupt):  # which the command puts into words
        study.run(tiny.config(data_dir, steps=2), tmp_path)
    assert signal.getsignal(signal.SIGTERM) == before
    assert checkpoints.newest_step(tmp_path / "std" / "seed0") == 2


def test_nan_stops_with_the_step_and_saves_nothing_after_it(data_dir, tmp_path):
    config = tiny.config(data_dir, optimizer__learning_rate=1e15, checkpoint__every_steps=1)
    with pytest.raises(train.NotFinite, match=r"The (loss|weight_norm) of step \d+ is (nan|inf)"):
        train.train(config, tmp_path)
    loaded = checkpoints.load(tmp_path)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(loaded.variables["params"]))


WRONG = {
    "config key": ({"optimizer.learning_rat": 1.0}, "unknown config key optimizer.learning_rat"),
    "top key": ({"optimiser": 1.0}, r"unknown config key optimiser \(did you mean 'optimizer'"),
    "data set": ({"dataset.name": "imagenot"}, "Unknown data set 'imagenot'"),
    "model": ({"model.name": "resnet51"}, "resnet51.*resnet50"),
    "model field": ({"model.name": "resnet18", "model.depth": 3}, "no field depth"),
    "attack": ({"attack": {"name": "pgdd"}}, "attack: attack must be one of"),
    "attack option": ({"attack": {"name": "fgsm", "eps": 1}}, "'eps' is no option of fgsm"),
    "attack that does not train": (
        {"attack": {"name": "autoattack", "epsilon": 0.1}},
        "attack must be one that trains .*pgd.* or your own.*, got autoattack",
    ),
    "images of a batch attack": (
        {"evaluation.attacks": {"a": {"name": "fgsm", "epsilon": 0.1, "images": 5}}},
        "evaluation.attacks.a: 'images' is no option of fgsm",
    ),
    "no images": (
        {"evaluation.attacks": {"a": {"name": "autoattack", "epsilon": 0.1, "images": 0}}},
        "attacks.a: images must be a whole number of at least 1, got 0",
    ),
    "epsilon": ({"attack": {"name": "fgsm", "epsilon": -1}}, "epsilon must be"),
    "evaluation attack": ({"evaluation.attacks": {"a": {"name": "pgd"}}}, "evaluation.attacks.a"),
    "batch": ({"batch_size": 60}, "batch_size must be a multiple of the 8 devices, got 60"),
    "neither steps nor epochs": ({"steps": None}, "epochs or steps must be set"),
    "classes": ({"model.num_classes": 5}, "num_classes must be 10, the classes of digits, got 5"),
    "image too small": ({"model.name": "alexnet"}, "too small for a max-pool"),
    "seeds of a run": ({"runs": {"a": {"seeds": (1,)}}}, "runs.a.seeds cannot differ"),
    "run that is none": ({"runs": {"a": None}}, "runs.a must hold the keys"),
    "attacks": ({"evaluation.attacks": None}, "evaluation.attacks must hold"),
    "negative rate": ({"optimizer.learning_rate": -1.0}, "optimizer.learning_rate must be"),
    "schedule": ({"schedule.name": "linear"}, "schedule.name must be step, cosine or constant"),
    "share": ({"adversarial_share": 0.0}, "adversarial_share must be"),
    "runs": ({"runs": {"a": {"optimizer": {"rate": 1}}}}, "runs.a.optimizer.rate overrides no key"),
    "split": ({"dataset.evaluation_split": "nosplit"}, "nosplit"),
    "variant": (
        {"evaluation.variants": {"a": {"name": "reverse_colors", "mean": [0.5]}}},
        "variants.a.mean must have one number for each channel, 3 in digits",
    ),
    "batch statistics": (
        {"attack": {"name": "fgsm", "epsilon": 0.1}, "attack_batch_statistics": True},
        "needs a model with a field batch_statistics_axis",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_configs_stop_before_training(case, data_dir, tmp_path):
    changes, message = WRONG[case]
    config = tiny.config(data_dir)
    with config.unlocked():
        for key, value in changes.items():
            *parents, last = key.split(".")
            target = config
            for parent in parents:
                target = target[parent]
            target[last] = value
    with pytest.raises((ValueError, TypeError), match=message):
        study.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_table_aligns_and_labels_both_conventions():
    attack = {
        "name": "pgd",
        "norm": "linf",
        "epsilon": 8 / 255,
        "steps": 10,
        "step_size": 0.005,
        "restarts": 1,
        "robust_accuracy": 12.5,
        "defense_success_rate": 25.0,
    }
    entry = {
        "run": "std",
        "seed": 0,
        "clean": {"top1": 50.0, "top5": 100.0, "n": 8},
        "attacks": [attack],
        "cue_conflict": {"shape": 10.0, "texture": 90.0, "n": 8},
    }
    lines = study.table(
        [entry, {**entry, "seed": 1, "clean": {"top1": 52.0, "top5": 100.0, "n": 8}}]
    ).split("\n")
    assert "pgd linf 8/255" in lines[0]
    assert "robust" in lines[1]
    assert "defended" in lines[1]
    assert "51.0 ± 1.4" in lines[3]
    assert lines[1].index("robust") + len("robust") == lines[3].index("12.5") + len("12.5 ± 0.0")
