import itertools
import json
import logging
import sys
import types

import jax
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import Mesh
from PIL import Image

from jaxrobust import models, plots
from jaxrobust.core.settings import to_plain
from jaxrobust.data import pipeline
from jaxrobust.experiments import accuracies, fine_tunings, late_fusion_claim, trained
from jaxrobust.experiments import figure7_late_fusion as figure7
from jaxrobust.experiments.accuracies import Accuracy
from jaxrobust.training import checkpoints
from jaxrobust.training import config as configs
from tests import tiny
from tests.test_figure2_sensitivity_maps import read

SETTINGS = fine_tunings.SETTINGS
IMAGES = 400
EXAMPLES, BATCH = 640, 64  # 10 steps an epoch
ATTACK = {"name": "fgsm", "epsilon": 0.05}


def backbone(kind, seed=0, name="resnet50", **fields):
    """As config.json describes one; its run says nothing of how it was trained."""
    return {
        "folder": f"runs/{kind.lower()}/seed{seed}",
        "run": "pretrained",
        "seed": seed,
        "step": 100,
        "adversarial": kind == "ADV",
        "model": {"name": name, "num_classes": 1000, **fields},
        "image_shape": [32, 32, 3],
    }


def backbones_of(setting, seed=0, **options):
    return [backbone(kind, seed + k, **options) for k, kind in enumerate(setting.split("+"))]


def write(workdir, run, seed, backbones, *, at_step=30, curve=None, **changes):
    """The folder of a fine-tuning of three epochs, without its weights."""
    fixed = {"model__name": "late_fusion", "epochs": 3.0, "steps": None, "batch_size": BATCH}
    config = tiny.config("nowhere", runs={run: {}}, **(fixed | changes))
    description = {
        "run": run,
        "seed": seed,
        "model": {"name": "late_fusion", "num_classes": 10},
        "image_shape": [32, 32, 3],
        "steps": 3 * EXAMPLES // BATCH,
        "config": to_plain(configs.for_run(config, run)),
        "backbones": backbones,
    }
    folder = workdir / run / f"seed{seed}"
    checkpoints.write_config(folder, description)
    (folder / "checkpoints" / str(at_step)).mkdir(parents=True)
    lines = [{"step": 1, "loss": 2.5}]
    for step, top1 in (curve or {10: 40.0, 20: 60.0, 30: 70.0 + seed}).items():
        lines += [{"step": step, "evaluation_top1": top1}, {"step": step, "loss": 1.0}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def write_study(workdir, datasets=("cifar10", "stl10"), *, seeds=(0, 1, 2), name="resnet50"):
    """All settings on some data sets, at 64 px."""
    for dataset, setting, seed in itertools.product(datasets, SETTINGS, seeds):
        write(
            workdir,
            f"{name}_{dataset.replace('/', '_')}_{SETTINGS.index(setting)}",
            seed,
            backbones_of(setting, seed, name=name),
            dataset__name=dataset,
            dataset__image_size=64,
        )
    return workdir


@pytest.fixture
def no_data(monkeypatch):
    """Data sets need not be there: all have so many training images."""
    info = types.SimpleNamespace(train_examples=EXAMPLES)
    monkeypatch.setattr(pipeline, "describe", lambda dataset: info)


def accuracy(right_of, seed=0):
    """So many per cent of 400 images right, always the first ones."""
    right = np.where(np.arange(IMAGES) < round(right_of / 100 * IMAGES), 100.0, 0.0)
    return Accuracy(right.mean(), None, None, right)


def made_runs(seeds=(0, 1, 2), **shares):
    """Accuracies by setting, "std_adv" for STD+ADV; a point more with every seed."""
    return {
        name.upper().replace("_", "+"): {seed: accuracy(share + seed) for seed in seeds}
        for name, share in shares.items()
    }


@pytest.fixture
def measured(monkeypatch):
    """Final accuracies by setting, whatever the weights are; a point more with every seed."""
    shares = dict(zip(SETTINGS, (70, 60, 75, 65, 80), strict=True))

    def measure(one, variants, **options):
        described = checkpoints.read_config(one.folder)["backbones"]
        return {"clean": accuracy(shares[fine_tunings._setting(described)] + one.seed)}

    monkeypatch.setattr(accuracies, "measure", measure)
    return shares


def test_fine_tunings_are_grouped_by_what_they_are(tmp_path, no_data):
    write_study(tmp_path / "a", ("stl10", "textured_shapes/both64", "digits", "cifar10"))
    write_study(tmp_path / "b", ("cifar10",), name="alexnet", seeds=(4,))
    found = fine_tunings.find([tmp_path / "a", tmp_path / "b"])
    assert {title: [task.title for task in tasks] for title, tasks in found.items()} == {
        "AlexNet": ["CIFAR-10"],
        # Low first, each in the order of the catalogue.
        "ResNet-50": ["CIFAR-10", "Digits", "STL-10", "Textured shapes (both, 64 px)"],
    }
    assert [task.resolution for task in found["ResNet-50"]] == ["low", "low", "high", "high"]
    for task in found["ResNet-50"]:
        assert task.steps_per_epoch == 10
        assert task.missing == []
        assert list(task.by_setting) == list(SETTINGS)
        for setting, seeds in task.by_setting.items():
            assert list(seeds) == [0, 1, 2]
            for tuned in seeds.values():
                kinds = ["ADV" if each["adversarial"] else "STD" for each in tuned.backbones]
                assert "+".join(kinds) == setting
    assert list(found["AlexNet"][0].by_setting["STD"]) == [4]


def test_the_order_of_backbones_is_of_no_importance(tmp_path, no_data):
    write(tmp_path, "a", 0, backbones_of("ADV+STD"), dataset__name="cifar10")
    ((task,),) = fine_tunings.find(tmp_path).values()
    assert list(task.by_setting) == ["STD+ADV"]


@pytest.mark.parametrize(
    ("name", "size", "resolution"),
    [
        ("svhn_cropped", 32, "low"),
        ("tiny_imagenet", 32, "low"),
        ("stl10", 224, "high"),
        ("food101", 32, "high"),
        ("digits", 16, "low"),
        ("digits", 8, "high"),
        ("textured_shapes/both16", 32, "low"),
        ("textured_shapes/both32", 32, "high"),
        ("textured_shapes/both64", 32, "high"),
    ],
)
def test_resolution(tmp_path, no_data, name, size, resolution):
    write(tmp_path, "a", 0, [backbone("STD")], dataset__name=name, dataset__image_size=size)
    ((task,),) = fine_tunings.find(tmp_path).values()
    assert task.resolution == resolution


def test_what_is_no_part_of_the_figure_is_named(tmp_path, no_data, caplog):
    write(tmp_path, "std", 0, [backbone("STD")])
    others = {
        "their backbones frozen": ([backbone("STD")], {"pretrained__frozen": True}),
        "of several architectures": ([backbone("STD"), backbone("STD", name="alexnet")], {}),
        "of other numbers of backbones": (backbones_of("STD+STD+ADV"), {}),
        "with the same training twice": ([backbone("STD"), backbone("STD")], {}),
        "fine-tuned with an attack": ([backbone("STD")], {"attack": ATTACK}),
        "not started from trained networks": ([], {}),
        "not finished": ([backbone("ADV")], {"at_step": 29}),
    }
    folders = {
        reason: write(tmp_path, f"run{number}", 0, backbones, **changes)
        for number, (reason, (backbones, changes)) in enumerate(others.items())
    }
    with caplog.at_level(logging.WARNING):
        ((task,),) = fine_tunings.find(tmp_path).values()
    assert {setting: list(seeds) for setting, seeds in task.by_setting.items()} == {"STD": [0]}
    for reason, folder in folders.items():
        assert f"Left out, {reason}: {folder}." in caplog.text


def test_what_is_missing_is_named(tmp_path, no_data):
    for setting, seeds in {"STD": (0, 1), "ADV": (1,), "STD+ADV": (0, 1)}.items():
        for seed in seeds:
            write(tmp_path, setting, seed, backbones_of(setting, seed))
    ((task,),) = fine_tunings.find(tmp_path).values()
    assert task.missing == ["ADV of seed 0", "STD+STD", "ADV+ADV"]


def test_titles_tell_apart(tmp_path, no_data):
    write(tmp_path, "a", 0, [backbone("STD", name="resnet8_small", width=8)])
    write(tmp_path, "b", 0, [backbone("STD", name="resnet8_small", width=4, dtype="float32")])
    sized = [backbone("STD", name="resnet8_small", width=4)]  # computes in another dtype
    write(tmp_path, "c", 0, sized, dataset__image_size=32)
    found = fine_tunings.find(tmp_path)
    assert {title: [task.title for task in tasks] for title, tasks in found.items()} == {
        "ResNet-8 (small) (width=4)": ["Digits (16 px)", "Digits (32 px)"],
        "ResNet-8 (small) (width=8)": ["Digits"],
    }


def test_architectures_are_compared_as_made(tmp_path, no_data, caplog):
    """A default may stand in config.json, or not; a small network has two names."""
    name = "resnet18_small"
    written = {"name": "resnet18", "small_images": True, "width": 64, "mean": [0.5] * 3}
    pair = [backbone("STD", name=name), backbone("ADV", **written)]
    write(tmp_path, "a", 0, pair)
    write(tmp_path, "b", 0, [backbone("ADV", **written)])
    wide = [backbone("STD", name=name), backbone("ADV", name=name, width=32)]
    write(tmp_path, "c", 0, wide)
    with caplog.at_level(logging.WARNING):
        found = fine_tunings.find(tmp_path)
    assert list(found) == ["ResNet-18 (small)"]
    ((task,),) = found.values()
    assert list(task.by_setting) == ["ADV", "STD+ADV"]
    assert caplog.text.count("of several architectures") == 1
    assert f"of several architectures: {tmp_path / 'c' / 'seed0'}." in caplog.text


def test_networks_of_ones_own_with_one_name(tmp_path, no_data, monkeypatch):
    for package in ("one_package", "another_package"):
        module = types.ModuleType(package)
        module.Net = type("Net", (OwnNetwork,), {"__module__": package})
        monkeypatch.setitem(sys.modules, package, module)
        write(tmp_path, package, 0, [backbone("STD", name=f"{package}:Net")])
    assert list(fine_tunings.find(tmp_path)) == [
        "Net (name=another_package:Net)",
        "Net (name=one_package:Net)",
    ]


def test_seeds_of_the_same_backbones_are_named(tmp_path, no_data, measured, drawn, capsys):
    """Two trainings, counted around: only two single starts, and one pair."""
    for seed in (0, 1, 2):
        for setting in ("STD", "STD+STD", "STD+ADV"):
            kinds = setting.split("+")
            numbers = [(seed + kinds[:k].count(kind)) % 2 for k, kind in enumerate(kinds)]
            chosen = [backbone(kind, number) for kind, number in zip(kinds, numbers, strict=True)]
            write(tmp_path / "work", setting, seed, chosen)
    said = "STD of seeds 0 and 2; STD+STD of seeds 0, 1 and 2; STD+ADV of seeds 0 and 2."
    figure7.EXPERIMENT.main(["--workdirs", str(tmp_path / "work"), "--out", str(tmp_path / "out")])
    start = "Not independent, started from the same trainings"
    assert f"- {start}, on Digits: {said}\n" in capsys.readouterr().out
    found = read(tmp_path / "out" / "figure7_late_fusion.json")["architectures"]["ResNet-50"]
    assert len(found["datasets"]["Digits"]["same_backbones"]) == 3
    write_study(tmp_path / "three", ("digits",))
    ((task,),) = fine_tunings.find(tmp_path / "three").values()
    assert task.repeated == []


def test_fine_tunings_that_cannot_be_compared_are_refused(tmp_path, no_data, capsys):
    one = write(tmp_path / "a", "std", 0, [backbone("STD")])
    write(tmp_path / "a", "std", 1, [backbone("STD", 1)])
    other = write(tmp_path / "b", "other", 0, [backbone("STD")])
    with pytest.raises(ValueError, match=f"{one} and {other} are both STD of seed 0"):
        fine_tunings.find([tmp_path / "a", tmp_path / "b"])
    longer = write(tmp_path / "c", "adv", 0, [backbone("ADV")], epochs=2.0, optimizer__momentum=0.5)
    with pytest.raises(
        ValueError,
        match=rf"{longer} differs .*std/seed\d in epochs: 3.0, now 2.0; optimizer.momentum: 0.9",
    ):
        fine_tunings.find([tmp_path / "a", tmp_path / "c"])


def test_errors_are_one_sentence(tmp_path, no_data, capsys):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "scratch", "std", 0, [])
    for name, sentence in {
        "nowhere": "nowhere is no folder; python -m jaxrobust.main --config=configs/figure7_quick",
        "empty": "holds no training with a checkpoint; python -m jaxrobust.main",
        "scratch": "No finished fine-tuning of late fusion is left",
    }.items():
        with pytest.raises(SystemExit) as stopped:
            figure7.EXPERIMENT.main(
                ["--workdirs", str(tmp_path / name), "--out", str(tmp_path / "out")]
            )
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("shares", "resolution", "verdicts"),
    [
        # STD, ADV, STD+STD, ADV+ADV, STD+ADV: all as the paper has it.
        ((70, 60, 75, 65, 80), "high", ("holds", "holds", "holds")),
        ((60, 70, 65, 75, 80), "low", ("holds", "holds", "holds")),
        # The other order of the two resolutions.
        ((70, 60, 75, 65, 80), "low", ("holds", "holds", "does not hold")),
        ((60, 70, 65, 75, 80), "high", ("holds", "holds", "does not hold")),
        # Between the single models; far below an ensemble.
        ((80, 60, 85, 65, 70), "high", ("does not hold", "does not hold", "holds")),
        ((60, 70, 90, 65, 80), "high", ("holds", "does not hold", "holds")),
        # Equal to the best: within a point of it, but not above; a single model may be the best.
        ((80, 60, 75, 70, 80), "high", ("open", "holds", "holds")),
        ((70, 60, 75, 75, 80), "high", ("holds", "holds", "open")),
    ],
)
def test_claim_7_on_one_data_set(shares, resolution, verdicts):
    names = ("std", "adv", "std_std", "adv_adv", "std_adv")
    found = late_fusion_claim.decide(
        made_runs(**dict(zip(names, shares, strict=True))), resolution=resolution
    )
    assert tuple(found[part]["verdict"] for part in late_fusion_claim.PARTS) == verdicts
    std, adv, std_std, adv_adv, ours = shares
    assert {best["setting"] for best in found["above_single"]["best_by_seed"].values()} == {
        "STD" if std > adv else "ADV"
    }
    assert found["above_single"]["mean"] == pytest.approx(ours - max(std, adv))
    assert found["near_best"]["mean"] == pytest.approx(ours - max(std, adv, std_std, adv_adv))
    assert found["by_resolution"]["mean"] == pytest.approx(adv_adv - std_std)
    assert {other: change["mean"] for other, change in found["against_each"].items()} == {
        other: pytest.approx(ours - share)
        for other, share in zip(SETTINGS[:4], shares[:4], strict=True)
    }


@pytest.mark.parametrize(
    ("worse", "verdict"), [(0, "holds"), (2, "holds"), (4, "open"), (8, "does not hold")]
)
def test_within_a_point_of_the_best(worse, verdict):
    """So many of 400 images of three seeds are worse than the best: 0, 0.5, 1 and 2 points."""
    runs = made_runs(std=50, adv=50, adv_adv=50, std_std=70, std_adv=70)
    for seed in runs["STD+ADV"]:
        right = runs["STD+STD"][seed].right.copy()
        right[:worse] = 0.0
        runs["STD+ADV"][seed] = Accuracy(right.mean(), None, None, right)
    found = late_fusion_claim.decide(runs, resolution="high")["near_best"]
    assert found["best_by_seed"][0] == {"setting": "STD+STD", "top1": 70.0}
    assert found["mean"] == pytest.approx(-worse / 4)
    if worse == 2:  # the interval decides, not the mean
        assert -1.0 < found["low"] < -0.5
    assert found["verdict"] == verdict


def test_only_seeds_that_both_have_are_compared():
    runs = made_runs(std=50, std_adv=60)
    del runs["STD"][1]
    runs["STD+ADV"][7] = accuracy(0)
    change = late_fusion_claim.compare(runs, "STD", "STD+ADV")
    assert (change["seeds"], change["mean"]) == (2, pytest.approx(10.0))
    for seed in (0, 2):
        del runs["STD"][seed]
    assert late_fusion_claim.compare(runs, "STD", "STD+ADV", "positive") == {
        "mean": None,
        "low": None,
        "high": None,
        "verdict": "open",
    }


def test_the_best_is_chosen_for_each_seed():
    """Above the mean of either single setting, and yet below STD where STD is best."""
    shares = {"STD": (95, 70, 70), "ADV": (80, 80, 80), "STD+ADV": (86, 86, 86)}
    shares |= {"STD+STD": (60, 60, 90), "ADV+ADV": (60, 60, 60)}
    runs = {
        setting: {seed: accuracy(share) for seed, share in enumerate(of_seeds)}
        for setting, of_seeds in shares.items()
    }
    found = late_fusion_claim.decide(runs, resolution="high")
    single, best = found["above_single"], found["near_best"]
    assert [one["setting"] for one in single["best_by_seed"].values()] == ["STD", "ADV", "ADV"]
    assert [one["top1"] for one in single["best_by_seed"].values()] == [95.0, 80.0, 80.0]
    assert single["mean"] == pytest.approx((86 - 95 + 86 - 80 + 86 - 80) / 3)
    assert single["low"] < -5
    assert single["verdict"] == "open"
    assert [one["setting"] for one in best["best_by_seed"].values()] == ["STD", "ADV", "STD+STD"]
    assert best["mean"] == pytest.approx((86 - 95 + 86 - 80 + 86 - 90) / 3)
    assert best["verdict"] == "open"
    # Each alone is there too: above ADV in every seed, above STD in some.
    verdicts = {other: change["verdict"] for other, change in found["against_each"].items()}
    assert (verdicts["STD"], verdicts["ADV"]) == ("open", "holds")
    # The images of the chosen networks enter, not only their accuracies.
    turned = Accuracy(95.0, None, None, runs["STD"][0].right[::-1])
    one_seed = {setting: {0: of_seeds[0]} for setting, of_seeds in runs.items()}
    narrow = late_fusion_claim.against_best(one_seed, ["STD", "ADV"], limit=0.0)
    wide = late_fusion_claim.against_best(one_seed | {"STD": {0: turned}}, ["STD"], limit=0.0)
    assert narrow["mean"] == wide["mean"] == pytest.approx(-9.0)
    assert narrow["high"] - narrow["low"] < wide["high"] - wide["low"]


def test_the_best_is_of_the_seeds_that_all_have():
    runs = made_runs(std=50, adv=40, std_adv=60)
    del runs["ADV"][1]
    runs["STD"] = {2: runs["STD"][2], 0: runs["STD"][0], 5: accuracy(99)}
    found = late_fusion_claim.against_best(runs, ["STD", "ADV"], limit=0.0)
    assert list(found["best_by_seed"]) == [0, 2]
    assert (found["seeds"], found["mean"]) == (2, pytest.approx(10.0))
    del runs["ADV"][0], runs["ADV"][2]  # nothing in common is not better
    assert late_fusion_claim.against_best(runs, ["STD", "ADV"], limit=0.0)["verdict"] == "open"


def test_a_missing_setting_leaves_open_what_it_could_change():
    found = late_fusion_claim.decide(made_runs(std=70, std_adv=80), resolution="low")
    assert found["above_single"]["best_by_seed"][2] == {"setting": "STD", "top1": 72.0}
    assert found["above_single"]["low"] > 0
    assert [found[part]["verdict"] for part in late_fusion_claim.PARTS] == ["open"] * 3
    # Whatever ADV would be, STD is better already.
    found = late_fusion_claim.decide(made_runs(std=80, std_adv=70), resolution="low")
    assert found["above_single"]["verdict"] == found["near_best"]["verdict"] == "does not hold"
    found = late_fusion_claim.decide(made_runs(std=80, adv=70), resolution="low")
    assert found["above_single"] == {
        "best_by_seed": {},
        "mean": None,
        "low": None,
        "high": None,
        "verdict": "open",
    }


def test_claim_7_over_data_sets():
    def on(resolution, **verdicts):
        parts = dict.fromkeys(late_fusion_claim.PARTS, "holds") | verdicts
        decided = {part: {"verdict": verdict} for part, verdict in parts.items()}
        return {"resolution": resolution, "decided": decided}

    together = late_fusion_claim.decide_together
    found = together({"a": on("low"), "b": on("high")})
    assert set(found) == {*late_fusion_claim.PARTS, "claim_7"}
    assert set(found.values()) == {"holds"}
    found = together({"a": on("low"), "b": on("high", near_best="does not hold")})
    assert (found["near_best"], found["claim_7"]) == ("does not hold", "does not hold")
    # At one resolution alone, half of the last part was not looked at.
    found = together({"a": on("low"), "b": on("low")})
    assert (found["above_single"], found["by_resolution"], found["claim_7"]) == (
        "holds",
        "open",
        "open",
    )
    found = together({"a": on("low", by_resolution="does not hold")})
    assert found["by_resolution"] == "does not hold"


def test_curves_are_those_of_the_metrics(tmp_path, no_data, caplog):
    one = write(
        tmp_path, "std", 0, [backbone("STD")], curve={10: 40.0, 20: 50.0, 25: 55.0, 30: 60.0}
    )
    with (one / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "evaluation_top1": 99.0, "crc32": "00000000"}\n[]\n')
    write(tmp_path, "std", 1, [backbone("STD", 1)], curve={10: 42.0, 20: 52.0, 30: 62.0})
    write(tmp_path, "adv", 0, [backbone("ADV")], curve={10: 1.0, 20: 2.0, 30: 3.0})
    silent = write(tmp_path, "adv", 1, [backbone("ADV", 1)])
    (silent / "metrics.jsonl").unlink()
    ((task,),) = fine_tunings.find(tmp_path).values()
    assert "metrics.jsonl must hold what was written there" in caplog.text
    assert "2 of its lines are damaged and left out" in caplog.text
    assert figure7.curves_of(task) == {
        "epochs": [1.0, 2.0, 3.0],
        "top1": {
            "STD": {0: [40.0, 50.0, 60.0], 1: [42.0, 52.0, 62.0]},
            "ADV": {0: [1.0, 2.0, 3.0]},
        },
    }
    said = f"Not drawn, without accuracies in metrics.jsonl, on Digits: {silent}."
    assert said in figure7.notes(task)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn."""
    figures = []
    original = plots.curves

    def curves(*arguments, **options):
        figures.append(original(*arguments, **options))
        return figures[-1]

    monkeypatch.setattr(plots, "curves", curves)
    return figures


def test_figure_record_and_table(tmp_path, no_data, measured, drawn, capsys):
    write_study(tmp_path / "work")
    options = ["--workdirs", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    figure7.EXPERIMENT.main(options)
    printed = capsys.readouterr().out
    stem = tmp_path / "out" / "figure7_late_fusion"
    found = read(stem.with_suffix(".json"))["architectures"]["ResNet-50"]
    assert found["claim"] == {
        "above_single": "holds",
        "near_best": "holds",
        "by_resolution": "does not hold",  # CIFAR-10 is of low resolution
        "claim_7": "does not hold",
    }
    cifar = found["datasets"]["CIFAR-10"]
    assert (cifar["resolution"], cifar["native_size"], cifar["image_size"]) == ("low", 32, 64)
    assert cifar["best"] == ["STD+ADV"]
    assert cifar["same_backbones"] == []
    assert cifar["decided"]["near_best"]["best_by_seed"]["1"] == {
        "setting": "STD+STD",
        "top1": 76.0,
    }
    assert cifar["top1"]["STD+STD"] == {
        "mean": 76.0,
        "std": 1.0,
        "by_seed": {"0": 75.0, "1": 76.0, "2": 77.0},
    }
    assert cifar["curves"]["epochs"] == [1.0, 2.0, 3.0]
    assert cifar["curves"]["top1"]["ADV"]["2"] == [40.0, 60.0, 72.0]
    assert cifar["fine_tunings"]["STD+ADV"][1]["backbones"] == ["runs/std/seed1", "runs/adv/seed2"]
    table = stem.with_suffix(".md").read_text()
    assert table.startswith("# Figure 7: late fusion\n\n## ResNet-50\n\nFinal top-1")
    assert (
        "| CIFAR-10 | low, 32 → 64 px | 400 | 71.0 ± 1.0 | 61.0 ± 1.0 | 76.0 ± 1.0 | 66.0 ± 1.0 | "
        "81.0 ± 1.0 | STD+ADV |"
    ) in table
    assert "| STL-10 | high, 96 → 64 px |" in table
    assert "Missing" not in table
    assert "Claim 7. Both kinds of features help: does not hold." in table
    ours = "| CIFAR-10: against the better of STD and ADV | STD+ADV 81.0 ± 1.0 | STD 71.0 ± 1.0 |"
    assert f"{ours} +10.0 [" in table
    resolution = "| CIFAR-10: ADV+ADV against STD+STD, low resolution | ADV+ADV 66.0 ± 1.0 |"
    assert resolution in table
    assert "| CIFAR-10 | +5.0 [" in table  # of the same size
    assert table.partition("\n\n")[2] in printed
    path = stem.with_name("figure7_late_fusion_resnet_50.png")
    assert str(path) in printed
    assert min(Image.open(path).size) > 400
    (figure,) = drawn
    assert [axes.get_title() for axes in figure.axes] == [
        "CIFAR-10\nlow resolution",
        "STL-10\nhigh resolution",
    ]
    assert not figure.axes[0].get_shared_y_axes().joined(*figure.axes)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(texts) == sorted(SETTINGS)
    for axes in figure.axes:
        assert axes.get_xlabel() == "epoch"
        lines = dict(zip(texts, axes.lines, strict=True))
        for setting, line in lines.items():
            assert line.get_linestyle() == ("-" if "+" in setting else "--")
            np.testing.assert_allclose(line.get_xdata(), [1, 2, 3])
            np.testing.assert_allclose(line.get_ydata(), [40, 60, 71])
        colors = {setting: line.get_color() for setting, line in lines.items()}
        assert colors["STD"] == colors["STD+STD"] == plots.STD_COLOR
        assert colors["ADV"] == colors["ADV+ADV"] == plots.ADV_COLOR
        assert colors["STD+ADV"] not in (plots.STD_COLOR, plots.ADV_COLOR)
        assert len(axes.collections) == 5  # a band each
    assert "over 3 seeds" in figure.legends[0].get_title().get_text()


def test_an_incomplete_study_gives_what_it_can(tmp_path, no_data, measured, drawn, capsys):
    write(tmp_path / "work", "a", 0, backbones_of("STD"))
    write(tmp_path / "work", "b", 0, backbones_of("STD+ADV"))
    write(tmp_path / "work", "b", 1, backbones_of("STD+ADV", 1))
    figure7.EXPERIMENT.main(["--workdirs", str(tmp_path / "work"), "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "- Missing, on Digits: STD of seed 1; ADV; STD+STD; ADV+ADV.\n" in printed
    assert "| Digits | low, 8 → 16 px | 400 | 70.0 | – | – | – | 80.5 ± 0.7 | STD+ADV |" in printed
    single = "| Digits: against the better of STD and ADV | STD+ADV 80.5 ± 0.7 | STD 70.0 | +10.0 ["
    assert single in printed
    resolution = "| Digits: ADV+ADV against STD+STD, low resolution | – | – | not defined | open |"
    assert resolution in printed
    assert "**Claim 7. Both kinds of features help: open.**" in printed
    assert "over 1 to 2 seeds" in drawn[0].legends[0].get_title().get_text()


def test_without_curves_there_is_still_a_table(tmp_path, no_data, measured, capsys):
    folder = write(tmp_path / "work", "a", 0, backbones_of("STD"))
    (folder / "metrics.jsonl").unlink()
    figure7.EXPERIMENT.main(["--workdirs", str(tmp_path / "work"), "--out", str(tmp_path / "out")])
    assert "(say nothing of other trainings)" in capsys.readouterr().out
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".json", ".md"]


def test_final_accuracies_are_those_of_the_weights(data_dir, tmp_path):
    """Fused networks as `train` leaves them, on real scans."""
    fields = {"name": "resnet8_small", "num_classes": 10, "width": 4, "stem_stride": 2}
    for setting in ("STD", "STD+ADV"):
        backbones = backbones_of(setting, name="resnet8_small", width=4, stem_stride=2)
        folder = write(
            tmp_path / "work",
            setting,
            0,
            backbones,
            at_step=60,
            dataset__data_dir=str(data_dir),
            dataset__evaluation_split="test[:100]",
        )
        described = {"name": "late_fusion", "num_classes": 10}
        described["backbones"] = [fields] * len(backbones)
        written = checkpoints.read_config(folder) | {"model": described}
        written["image_shape"] = [16, 16, 3]
        checkpoints.write_config(folder, written)
        (folder / "checkpoints" / "60").rmdir()
        store = checkpoints.Checkpoints(folder)
        variables = tiny.drawn_variables(models.create(**described), [16, 16, 3])
        store.save(69, dict(variables), {"step": np.zeros(1)}, {})
        store.close()
    (tasks,) = fine_tunings.find(tmp_path / "work").values()
    # 1,437 images in batches of 64; 68 steps are three epochs.
    assert tasks[0].steps_per_epoch == pytest.approx(1437 / 64)
    runs = figure7.measure(tasks[0], architecture="a", batch_size=None)
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    for one in trained.find(tmp_path / "work"):
        right = []
        with pipeline.evaluation_batches(
            one.config.dataset, "test[:100]", batch_size=104, mesh=mesh
        ) as batches:
            for batch in batches:
                logits = one.load()(np.asarray(batch["image"]) / np.float32(255))
                hit = np.asarray(logits).argmax(-1) == np.asarray(batch["label"])
                right.extend(100.0 * hit[np.asarray(batch["mask"])])
        found = runs[one.run][0]
        np.testing.assert_array_equal(found.right, right)
        assert found.top1 == np.mean(right)


class OwnNetwork(nn.Module):
    """Of one's own, as a backbone."""

    num_classes: int | None = 10
    dtype: str = "bfloat16"

    @nn.compact
    def __call__(self, images, *, train=False):
        features = images.mean((1, 2))
        return features if self.num_classes is None else nn.Dense(self.num_classes)(features)


def test_panels_may_have_values_of_their_own():
    series = {"a": {"STD": [10.0, 20.0]}, "b": {"STD": [80.0, 90.0]}}
    options = dict(x_label="epoch", y_label="%")
    ranges = [axes.get_ylim() for axes in plots.curves([1, 2], series, **options).axes]
    assert ranges[0] == ranges[1]
    figure = plots.curves([1, 2], series, share_y=False, **options)
    (low, high), (other_low, other_high) = (axes.get_ylim() for axes in figure.axes)
    assert 5 < low < 10 < 20 < high < 25
    assert 75 < other_low < 80 < 90 < other_high < 95


def test_colours_can_be_given_and_notes_fit():
    note = "A note that is so long that it needs more than one line under a figure. " * 3
    figure = plots.curves(
        [1, 2],
        {"STD+STD": [1.0, 2.0], "ADV": [2.0, 3.0]},
        dashed={"STD": [[0.0, 1.0], [2.0, 3.0]]},
        colors={"STD+STD": plots.STD_COLOR},
        note=note,
        x_label="epoch",
        y_label="%",
    )
    (axes,) = figure.axes
    assert [line.get_color() for line in axes.lines] == [
        plots.STD_COLOR,
        plots.ADV_COLOR,
        plots.STD_COLOR,
    ]
    assert axes.lines[0].get_marker() != axes.lines[2].get_marker()
    assert len(axes.collections) == 1  # single models of several seeds have a band too
    figure.canvas.draw()
    (legend,) = figure.legends
    assert legend.get_title().get_text().split() == note.split()
    box, inside = legend.get_window_extent(), axes.get_tightbbox()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
    assert box.y1 <= inside.y0
