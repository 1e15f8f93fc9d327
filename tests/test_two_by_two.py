import logging
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from flax import linen as nn

from jaxrobust.experiments import two_by_two
from tests.test_trained import write

PGD = {"name": "pgd", "epsilon": 0.1, "steps": 5}
FGSM_RS = {"name": "pgd", "epsilon": 0.1, "steps": 1}
STRIDED = {"model__name": "resnet8_small", "model__stem_stride": 2}
POOLED = {**STRIDED, "model__downsampling": "average_pool"}


def runs_of(**networks):
    """STD and ADV against each attack, of each network by its name."""
    return {
        f"{kind}_{name}": (attack, fields)
        for kind, attack in (("std", None), ("pgd", PGD), ("fgsm", FGSM_RS))
        for name, fields in networks.items()
    }


RUNS = runs_of(strided=STRIDED, pooled=POOLED)


def study(workdir, *, seeds=(0, 1), without=(), runs=RUNS):
    for run, (attack, changes) in runs.items():
        for seed in seeds:
            if (run, seed) not in without:
                write(workdir, run, seed, attack=attack, **changes)
    return workdir


def test_networks_are_crossed_with_attacks(tmp_path):
    (found,) = two_by_two.find([study(tmp_path)])
    assert found.title == "ResNet-8 (small), strided and average-pooled"
    assert found.strided_and_pooled
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
    # By its title each is one finding: none is lost.
    assert len({one.title for one in found}) == 4
    assert found[3].title.endswith("average-pooled, stem stride 2, PGD-5 and FGSM-RS")


class Own(nn.Module):
    """A network of a user's own, whose stem takes its strides as that says."""

    num_classes: int | None = 10
    stem_stride: int | None = None


@pytest.mark.parametrize(
    ("name", "first", "second", "networks"),
    [
        # What the networks do when nothing is said: the large read every second pixel.
        ("resnet18", {}, {"stem_stride": 1}, ("stride 2", "stride 1")),
        ("resnet18", {"stem_stride": 4}, {}, ("stride 4", "stride 2")),
        ("resnet8_small", {"stem_stride": 2}, {}, ("stride 2", "stride 1")),
        ("tests.tiny:TinyResNet", {"stem_stride": 2}, {}, ("stride 2", "stride 1")),
        ("tests.test_two_by_two:Own", {"stem_stride": 2}, {}, ("stride 2", "stride as usual")),
    ],
)
def test_the_network_of_the_larger_stride_comes_first(tmp_path, name, first, second, networks):
    runs = runs_of(a=prefixed({"name": name, **second}), b=prefixed({"name": name, **first}))
    (found,) = two_by_two.find([study(tmp_path, seeds=(0,), runs=runs)])
    assert found.networks == tuple(f"strided, stem {each}" for each in networks)
    assert [pairs[0][1].run for pairs in found.cells.values()] == [
        "pgd_b",
        "fgsm_b",
        "pgd_a",
        "fgsm_a",
    ]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({}, {"downsampling": "blur_pool"}, True),
        ({"stem_stride": 2}, {"stem_stride": 1}, False),
        ({"downsampling": "average_pool"}, {"downsampling": "max_pool"}, False),
        # The stem of one takes in four times as many pixels.
        ({"stem_stride": 2}, {"downsampling": "max_pool"}, False),
    ],
)
def test_whether_one_strides_where_the_other_pools(tmp_path, first, second, expected):
    small = {"name": "resnet8_small"}
    runs = runs_of(a=prefixed(small | first), b=prefixed(small | second))
    (found,) = two_by_two.find([study(tmp_path, seeds=(0,), runs=runs)])
    assert found.strided_and_pooled is expected


def prefixed(fields):
    return {f"model__{key}": value for key, value in fields.items()}


def test_a_default_that_is_written_makes_no_other_network(tmp_path):
    written = {"model__name": "resnet8_small", "model__stem_stride": 1}
    default = {"model__name": "resnet8_small", "model__downsampling": "average_pool"}
    runs = runs_of(strided=written, pooled=default)
    (found,) = two_by_two.find([study(tmp_path, seeds=(0,), runs=runs)])
    assert found.networks == ("strided", "average-pooled")  # both of stem stride 1


def test_networks_without_such_fields_are_of_one_kind(tmp_path):
    fields = {"model__name": "alexnet_small"}
    runs = {name: (attack, fields) for name, attack in (("s", None), ("p", PGD), ("f", FGSM_RS))}
    with pytest.raises(ValueError, match=r"got strided against PGD-5 \(seeds 0\); strided against"):
        two_by_two.find([study(tmp_path, seeds=(0,), runs=runs)])


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


def test_a_missing_workdir_names_the_config_of_these_trainings(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--config=configs/fashion_mnist_stems\.py trains"):
        two_by_two.find([tmp_path / "nowhere"])
    assert Path(__file__).parents[1].joinpath("configs/fashion_mnist_stems.py").is_file()


def test_two_trainings_in_one_place_are_one_sentence(tmp_path):
    # A default may be written or not: it is the same attack.
    same = {**PGD, "step_size": 1.5 * 0.1 / 5, "norm": "linf"}
    study(tmp_path, seeds=(0,), runs={**RUNS, "pgd_again": (same, STRIDED)})
    with pytest.raises(ValueError, match=r"same network and seed, trained against PGD-5; name"):
        two_by_two.find([tmp_path])


@pytest.mark.parametrize(
    ("option", "value", "shown"),
    [
        ("epsilon", 0.3, "epsilon 0.1, step size 0.03|epsilon 0.3, step size 0.09"),
        ("step_size", 0.04, "step size 0.03|step size 0.04"),
        ("norm", "l2", "norm linf|norm l2"),
        ("restarts", 2, "restarts 1|restarts 2"),
        ("loss", "margin", "loss cross_entropy|loss margin"),
    ],
)
def test_networks_trained_against_different_attacks_are_not_crossed(tmp_path, option, value, shown):
    other = {**PGD, option: value}
    study(tmp_path, seeds=(0,), runs={**RUNS, "pgd_pooled": (other, POOLED)})
    with pytest.raises(ValueError, match="both trained against the same two attacks") as error:
        two_by_two.find([tmp_path])
    for network, attack in zip(("strided", "average-pooled"), shown.split("|"), strict=True):
        assert f"{network} against PGD-5, {attack} (seeds 0)" in str(error.value)


def test_attacks_of_one_title_are_told_apart(tmp_path):
    """And one that a single network was trained against hides nothing."""
    strong = {**PGD, "epsilon": 0.3}
    runs = {name: each for name, each in RUNS.items() if not name.startswith("fgsm")}
    runs |= {"strong_strided": (strong, STRIDED), "strong_pooled": (strong, POOLED)}
    runs |= {"longer": ({**PGD, "steps": 10}, STRIDED)}
    (found,) = two_by_two.find([study(tmp_path, seeds=(0,), runs=runs)])
    assert found.attacks == (
        "PGD-5, epsilon 0.1, step size 0.03",
        "PGD-5, epsilon 0.3, step size 0.09",
    )
    assert [pairs[0][1].run for pairs in found.cells.values()] == [
        "pgd_strided",
        "strong_strided",
        "pgd_pooled",
        "strong_pooled",
    ]


@pytest.mark.parametrize(
    ("changes", "runs", "said"),
    [
        ({"steps": 60}, ("std", "pgd"), "(ADV.steps: 30, now 60; STD.steps: 30, now 60)"),
        ({"steps": 60}, ("std",), "(STD.steps: 30, now 60)"),
        ({"batch_size": 32}, ("pgd",), "(ADV.batch_size: 64, now 32)"),
        (
            {"optimizer__learning_rate": 0.2},
            ("pgd",),
            "(ADV.optimizer.learning_rate: 0.1, now 0.2)",
        ),
        (
            {"objective": {"name": "my_objectives:own"}},
            ("pgd",),
            "(ADV.objective: None, now {'name': 'my_objectives:own'})",
        ),
        ({"model__width": 8}, ("std", "pgd"), "(ADV.model.width: None, now 8; "),
    ],
)
def test_networks_that_were_trained_otherwise_are_not_crossed(tmp_path, changes, runs, said):
    pooled = POOLED | changes
    longer = {f"{name}_pooled": (RUNS[f"{name}_pooled"][0], pooled) for name in runs}
    study(tmp_path, seeds=(0,), runs=RUNS | longer)
    with pytest.raises(ValueError, match="Two networks that differ in their strides") as error:
        two_by_two.find([tmp_path])
    assert f"average-pooled against PGD-5 (seeds 0), trained otherwise {said}" in str(error.value)


def test_an_attack_of_which_not_all_is_known_is_one_sentence(tmp_path):
    imported = {"name": "pgd", "epsilon": 0.1}
    study(tmp_path, seeds=(0,), runs={**RUNS, "pgd_pooled": (imported, POOLED)})
    with pytest.raises(ValueError, match=r"pgd_pooled/seed0: pgd needs steps, got .*epsilon"):
        two_by_two.find([tmp_path])


def test_what_is_written_or_left_to_the_catalogue_is_the_same(tmp_path):
    same = {"dataset__augmentation": "none", "dataset__train_split": "train"}
    runs = RUNS | {"pgd_pooled": (PGD, POOLED | same)}
    assert len(two_by_two.find([study(tmp_path, seeds=(0,), runs=runs)])) == 1


def test_two_that_look_the_same_are_one_sentence(tmp_path):
    study(tmp_path / "short")
    longer = {run: (attack, changes | {"steps": 60}) for run, (attack, changes) in RUNS.items()}
    study(tmp_path / "long", runs=longer)
    with pytest.raises(ValueError, match=r"short/\S+ and \S+long/\S+ are trained otherwise, but"):
        two_by_two.find([tmp_path / "short", tmp_path / "long"])


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
