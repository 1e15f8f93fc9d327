"""By default a study is evaluated at the radii that it trains against."""

import pytest

from jaxrobust.training import config as configs
from jaxrobust.training import run
from jaxrobust.training.own_radius import evaluation_attacks
from tests import tiny

ADVERSARIES = {
    "linf": {"name": "pgd", "epsilon": 4 / 255, "steps": 2},
    "l2": {"name": "fgsm", "epsilon": 0.5, "norm": "l2"},
    "known": {"name": "pgd", "epsilon": 0.005, "steps": 2},
}


def asked(config, run="std"):
    """{name: (norm, epsilon, steps, restarts)} of what is evaluated."""
    runs = configs.check(config)
    return {
        name: (attack.get("norm", "linf"), attack["epsilon"], attack["steps"], attack["restarts"])
        for name, attack in evaluation_attacks(runs[run], runs.values()).items()
    }


def default(*adversaries):
    config = configs.default()
    config.runs = {"std": {}} | {name: {"attack": ADVERSARIES[name]} for name in adversaries}
    return config


KNOWN = {"pgd_0_005": ("linf", 0.005, 10, 10), "pgd_0_01": ("linf", 0.01, 10, 10)}
OWN = {"pgd_linf_0_0156863": ("linf", 4 / 255, 10, 10)}


def test_every_run_is_evaluated_at_the_radii_of_all():
    assert asked(default()) == asked(default("known")) == KNOWN
    for run_name in ("std", "linf"):
        assert asked(default("linf"), run_name) == KNOWN | OWN
    both = KNOWN | OWN | {"pgd_l2_0_5": ("l2", 0.5, 10, 10)}
    assert asked(default("linf", "l2")) == both
    config = default("linf")
    config.evaluation.attacks.pgd_0_005.restarts = 1
    assert asked(config)["pgd_linf_0_0156863"] == ("linf", 4 / 255, 10, 1)


def test_what_has_the_radius_or_none_adds_nothing():
    config = default("linf")
    mine = {"name": "pgd", "epsilon": 0.01568627450980, "steps": 50, "restarts": 2}
    config.evaluation.attacks.mine = mine
    assert set(asked(config)) == {*KNOWN, "mine"}
    config = configs.default()
    config.runs = {"std": {}, "near": {"attack": {"name": "fab"}}}
    assert asked(config) == KNOWN


@pytest.mark.parametrize("chosen", [{}, {"pgd_0_005": {"name": "fgsm", "epsilon": 0.005}}])
def test_a_config_that_names_its_attacks_gets_what_it_names(chosen):
    config = default("linf")
    config.evaluation.attacks = chosen
    runs = configs.check(config)
    assert evaluation_attacks(runs["std"], runs.values()) == chosen


def test_what_is_said_of_a_training_does_not_change(data_dir, tmp_path):
    config = tiny.config(data_dir)
    config.evaluation.attacks = configs.default().evaluation.attacks
    config.runs = {"std": {}, "adv": {"attack": ADVERSARIES["linf"]}}
    for one in run.resolve(config, tmp_path):
        assert list(one.evaluation.attacks) == [*KNOWN, *OWN]
        assert list(one.description["config"]["evaluation"]["attacks"]) == list(KNOWN)


def test_a_norm_of_ones_own_adds_nothing(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_attack.py").write_text(
        "from jaxrobust.core.batching import per_image\n"
        "@per_image(static=('norm',))\n"
        "def attack(classifier, images, labels, *, epsilon, norm, batch_size=None):\n"
        "    return images\n"
    )
    settings = configs.default()
    settings.attack = {"name": "own_attack:attack", "epsilon": 5, "norm": "l0"}
    assert list(evaluation_attacks(settings, [settings])) == ["pgd_0_005", "pgd_0_01"]
