import json
import types

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxrobust import attacks
from jaxrobust.data import pipeline
from jaxrobust.evaluation import attack_options
from jaxrobust.experiments import table1_robustness as table1
from jaxrobust.experiments import trained
from jaxrobust.experiments.accuracies import Accuracy
from tests.test_figure2_sensitivity_maps import write_workdir
from tests.test_figure6_smoothing import files_of
from tests.test_table2_variants import made_runs


@pytest.mark.parametrize(
    ("std", "adv", "verdicts"),
    [
        ({"clean": 75, "0.1": 2}, {"clean": 70, "0.1": 50}, ("holds", "holds", "holds")),
        ({"clean": 60, "0.1": 2}, {"clean": 70, "0.1": 50}, ("does not hold", "holds", None)),
        ({"clean": 75, "0.1": 60}, {"clean": 70, "0.1": 50}, ("holds", "does not hold", None)),
        ({"clean": 70, "0.1": 2}, {"clean": 70, "0.1": 50}, ("open", "holds", "open")),
    ],
)
def test_claim_1(std, adv, verdicts):
    found = table1.decide(made_runs(std, adv), "0.1")
    assert (found["clean"]["verdict"], found["robust"]["verdict"]) == verdicts[:2]
    assert found["claim_1"] == (verdicts[2] or "does not hold")
    assert found["clean"]["std_minus_adv"]["mean"] == pytest.approx(std["clean"] - adv["clean"])
    assert found["robust"]["adv_minus_std"]["mean"] == pytest.approx(adv["0.1"] - std["0.1"])


def test_defended_is_of_what_is_right_when_clean():
    runs = made_runs({"clean": 80, "0.1": 20}, {"clean": 50, "0.1": 40}, seeds=1)
    found = table1.describe(runs, ["0.1"])
    assert found["std"]["0.1"]["defense_success_rate"]["mean"] == pytest.approx(25)
    assert found["adv"]["0.1"]["defense_success_rate"]["mean"] == pytest.approx(80)
    assert found["adv"]["0.1"]["robust_accuracy"] == {"mean": 40, "std": None, "by_seed": [40]}


def test_a_column_of_autoattack_is_of_its_own_images():
    runs = made_runs({"clean": 80, "0.1": 20}, {"clean": 50, "0.1": 40}, seeds=1)
    for (one,) in runs.values():
        right = one["clean"].right[:10] * (np.arange(10) % 2)  # 5 of the first 10, all right clean
        one["AutoAttack"] = Accuracy(right.mean(), None, None, right, seconds=12.0)
    found = {"accuracies": table1.describe(runs, ["0.1", "AutoAttack"])}
    adv = found["accuracies"]["adv"]["AutoAttack"]
    assert adv["robust_accuracy"]["by_seed"] == [50]
    assert adv["defense_success_rate"]["by_seed"] == [50]
    one = {"norm": "linf", "epsilon": 0.1, "version": "standard", "n": 10, "seed": 0}
    one["beside_pgd"] = table1.beside_pgd(runs, "0.1")
    pgd = {"norm": "linf", "steps": 10, "restarts": 1}
    found |= {"attacks": {"0.1": pgd, "AutoAttack": one}, "AutoAttack": one, "images": 1000}
    text, table, gap, *_ = table1.tables("Net", found | {"pairs": [0], "dataset_title": "Digits"})
    said = "AutoAttack, linf, ε = 0.1: version standard, the first 10 images alone, seed 0."
    assert text.text.endswith(f"Trained against ε = 0.1. {said}")
    assert table.header[5:] == ["AutoAttack, ε = 0.1, 10 images, robust", "defended"]
    # PGD leaves all of the first 10 that are right.
    assert gap.header[0] == "the same 10 images"
    assert [gap.rows[1][column].values for column in (1, 2, 4)] == [[100], [50], [12]]
    assert gap.rows[1][3].change["mean"] == 50


def test_autoattack_is_asked_for_at_the_radius_of_training():
    attack = {"name": "pgd", "epsilon": 0.1, "steps": 3, "norm": "l2"}
    one = types.SimpleNamespace(config=ConfigDict({"attack": attack}))
    assert table1.autoattack_on(one, 0) == {}
    (chosen,) = table1.autoattack_on(one, 100).values()
    assert (chosen["norm"], chosen["epsilon"], chosen["images"]) == ("l2", 0.1, 100)
    attack_options.check_options(chosen.pop("name"), chosen)


@pytest.mark.slow
def test_figures_are_those_of_the_attack(tmp_path, data_dir):
    work = write_workdir(tmp_path / "work", data_dir, seeds=(0, 1))
    given = ["--workdirs", str(work), "--out", str(tmp_path), "--steps", "2", "--restarts", "1"]
    table1.EXPERIMENT.main(given)
    record = json.loads((tmp_path / "table1_robustness.json").read_text())
    assert record["files"] == ["table1_robustness.png", "table1_robustness.md"]
    (found,) = record["architectures"].values()
    # The radius of training and that of evaluation are the same here.
    (radius,) = found["attacks"]
    options = found["attacks"][radius]
    assert options["epsilon"] == 0.05
    assert options["step_size"] == pytest.approx(1.5 * 0.05 / 2)
    # Counted here, image by image.
    one = trained.find(work)[-1]
    assert (one.adversarial, one.seed) == (True, 1)
    classifier = one.load()
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
    clean = robust = total = 0
    options = {name: value for name, value in options.items() if name != "name"}
    with pipeline.evaluation_batches(one.config.dataset, "test", batch_size=128, mesh=mesh) as all:
        for batch in all:
            images, labels = batch["image"] / np.float32(255), batch["label"]
            keys = jax.vmap(lambda index: jax.random.fold_in(jax.random.key(0), index))(
                batch["index"]
            )
            attacked = attacks.pgd(classifier, images, labels, key=keys, **options)
            right = (classifier(images).argmax(-1) == labels) & batch["mask"]
            clean += int(right.sum())
            robust += int((right & (classifier(attacked).argmax(-1) == labels)).sum())
            total += int(batch["mask"].sum())
    accuracies = found["accuracies"]["adv"]
    assert accuracies["clean"]["top1"]["by_seed"][1] == pytest.approx(100 * clean / total)
    assert accuracies[radius]["robust_accuracy"]["by_seed"][1] == pytest.approx(
        100 * robust / total
    )
    assert 0 < clean < total
    # A second call measures nothing.
    before = files_of(work)
    table1.EXPERIMENT.main(given)
    assert files_of(work) == before
    page = (tmp_path / "table1_robustness.md").read_text()
    assert "Trained against ε = 0.05." in page
    assert "71.52 ± 0.06 | 90.02 ± 0.03 | 81.25 ± 0.09 | 60.75 ± 0.33" in page
