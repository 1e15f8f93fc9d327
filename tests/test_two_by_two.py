import logging

import numpy as np
import pytest
import scipy.stats

from experiments import two_by_two
from tests.test_trained import write

PGD = {"name": "pgd", "epsilon": 0.1, "steps": 5}
FGSM_RS = {"name": "pgd", "epsilon": 0.1, "steps": 1}
STRIDED = {"model__name": "resnet8_small", "model__stem_stride": 2}
POOLED = {**STRIDED, "model__downsampling": "average_pool"}
RUNS = {
    "std_strided": (None, STRIDED),
    "std_pooled": (None, POOLED),
    "pgd_strided": (PGD, STRIDED),
    "pgd_pooled": (PGD, POOLED),
    "fgsm_strided": (FGSM_RS, STRIDED),
    "fgsm_pooled": (FGSM_RS, POOLED),
}


def study(workdir, *, seeds=(0, 1), without=(), runs=RUNS):
    for run, (attack, changes) in runs.items():
        for seed in seeds:
            if (run, seed) not in without:
                write(workdir, run, seed, attack=attack, **changes)
    return workdir


def test_networks_are_crossed_with_attacks(tmp_path):
    (found,) = two_by_two.find([study(tmp_path)])
    assert found.title == "ResNet-8 (small), strided and average-pooled"
    assert found.networks == ("strided", "average-pooled")
    assert found.attacks == ("PGD-5", "FGSM-RS")
    runs = {
        key: [(std.run, adv.run, adv.seed) for std, adv in pairs]
        for key, pairs in found.cells.items()
    }
    assert runs == {
        (network, attack): [(f"std_{one}", f"{other}_{one}", seed) for seed in (0, 1)]
        for network, one in (("strided", "strided"), ("average-pooled", "pooled"))
        for attack, other in (("PGD-5", "pgd"), ("FGSM-RS", "fgsm"))
    }


def test_further_networks_and_attacks_are_crossed_with_the_first(tmp_path):
    stem = {"model__name": "resnet8_small", "model__stem_stride": 1}
    fgsm = {"name": "fgsm", "epsilon": 0.1}
    runs = {
        f"{attack and attack['name']}_{steps}_{stride}": (attack, changes)
        for stride, changes in enumerate((stem, STRIDED, POOLED))
        for steps, attack in enumerate((None, FGSM_RS, fgsm, PGD))
    }
    found = two_by_two.find([study(tmp_path, seeds=(3,), runs=runs)])
    networks = [one.networks for one in found]
    first = "strided, stem stride 2"
    assert networks[:2] == [(first, "strided, stem stride 1")] * 2
    assert networks[2:] == [(first, "average-pooled, stem stride 2")] * 2
    assert [one.attacks for one in found] == [("PGD-5", "FGSM"), ("PGD-5", "FGSM-RS")] * 2


def test_a_seed_that_a_cell_lacks_is_left_out(tmp_path, caplog):
    workdir = study(tmp_path, seeds=(0, 1, 2), without=[("fgsm_pooled", 1)])
    with caplog.at_level(logging.WARNING):
        (found,) = two_by_two.find([workdir])
    assert {tuple(adv.seed for _, adv in pairs) for pairs in found.cells.values()} == {(0, 2)}
    assert "for want of a training in some cell: seeds 1." in caplog.text


@pytest.mark.parametrize(
    ("without", "got"),
    [
        (
            ["fgsm_pooled"],
            "strided against PGD-5 (seeds 0); strided against FGSM-RS (seeds 0); "
            "average-pooled against PGD-5 (seeds 0)",
        ),
        (["std_pooled"], "strided against PGD-5 (seeds 0); strided against FGSM-RS (seeds 0)"),
    ],
)
def test_a_missing_cell_is_one_sentence(tmp_path, without, got):
    study(tmp_path, seeds=(0,), without=[(run, 0) for run in without])
    with pytest.raises(ValueError, match="Two networks that differ in their strides") as error:
        two_by_two.find([tmp_path])
    assert str(error.value).endswith(f"the same two attacks from the same seeds, got {got}.")
    assert "\n" not in str(error.value)


def test_two_trainings_in_one_place_are_one_sentence(tmp_path):
    stronger = {**PGD, "epsilon": 0.2}
    study(tmp_path, seeds=(0,), runs={**RUNS, "pgd_strong": (stronger, STRIDED)})
    with pytest.raises(ValueError, match=r"same network and seed, trained against PGD-5; name"):
        two_by_two.find([tmp_path])


def test_effects_are_those_by_hand():
    rng = np.random.default_rng(0)
    seeds = rng.normal(size=5)  # shared by all cells: pairs take it out
    noise = 0.1 * rng.normal(size=(2, 2, 5))
    stride = np.array([3.0, 0.0])[:, None, None]
    values = stride + np.array([0.0, 2.0])[None, :, None] + 10 * seeds + noise
    found = two_by_two.effects(values)
    a, b, c, d = values.reshape(4, 5)  # strided PGD and FGSM, pooled PGD and FGSM
    by_hand = {
        "network": (a + b - c - d) / 2,
        "attack": (a - b + c - d) / 2,
        "interaction": (a - c) - (b - d),
    }
    for name, differences in by_hand.items():
        np.testing.assert_allclose(found[name]["by_seed"], differences, atol=1e-12)
        assert found[name]["mean"] == pytest.approx(differences.mean())
        interval = scipy.stats.ttest_1samp(differences, 0.0).confidence_interval()
        assert (found[name]["t_low"], found[name]["t_high"]) == pytest.approx(tuple(interval))
    assert [found[name]["verdict"] for name in by_hand] == ["holds", "does not hold", "open"]
    # The stride matters under the first attack alone.
    values[0, 0] += 5.0
    assert two_by_two.effects(values)["interaction"]["verdict"] == "holds"


@pytest.mark.parametrize("seeds", [1, 2])
def test_with_fewer_than_three_seeds_all_is_open(seeds):
    values = np.arange(2.0)[::-1, None, None] + np.zeros((2, 2, seeds))
    found = two_by_two.effects(values)
    assert found["network"]["mean"] == 1.0
    assert {each["verdict"] for each in found.values()} == {"open"}
    three = two_by_two.effects(np.arange(2.0)[::-1, None, None] + np.zeros((2, 2, 3)))
    assert three["network"]["verdict"] == "holds"
