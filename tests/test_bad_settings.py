"""Values that no training survives are told before it begins."""

import jax
import numpy as np
import pytest

from jaxrobust import models
from jaxrobust.data import pipeline
from jaxrobust.data.dataset_config import DatasetConfig
from jaxrobust.training import run
from tests import tiny

INFINITE, NUMBERS = float("inf"), "must be finite numbers above 0, one a channel"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": INFINITE, "steps": None}, "epochs must be a finite number above 0, got inf"),
        (
            {"optimizer__learning_rate": INFINITE},
            "learning_rate must be a finite number .* got inf",
        ),
        ({"schedule__factor": INFINITE}, "factor must be a finite number above 0, got inf"),
        ({"checkpoint__every_epochs": INFINITE}, "every_epochs must be a finite number .* got inf"),
        ({"evaluation__every_epochs": INFINITE}, "every_epochs must be a finite number .* got inf"),
        ({"dataset__train_split": "train[:0]"}, r"'train\[:0\]' of digits must hold at least one"),
        ({"dataset__evaluation_split": "test[4:4]"}, r"'test\[4:4\]' of digits must hold at least"),
        (
            {"evaluation__cue_conflict": True},
            "evaluation.cue_conflict must be False or None for digits, which has the splits train, "
            "test alone, got True",
        ),
        ({"model__std": (0.0, 0.0, 0.0)}, rf"std {NUMBERS}, got .0.0, 0.0, 0.0"),
        ({"model__std": (0.1, 0.1, float("nan"))}, rf"std {NUMBERS}, got .*nan"),
        ({"model__mean": (0.1, 0.1, INFINITE)}, "mean must be finite numbers, one a channel, got"),
    ],
)
def test_before_a_training(data_dir, tmp_path, change, message):
    config = tiny.config(data_dir)
    with config.unlocked():
        for key, value in change.items():
            *places, name = key.split("__")
            part = config
            for place in places:
                part = part[place]
            part[name] = value
    with pytest.raises(ValueError, match=message) as raised:
        run.resolve(config, tmp_path)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_an_empty_split(data_dir):
    config = DatasetConfig(name="digits", data_dir=str(data_dir), evaluation_split="test[:0]")
    with pytest.raises(
        ValueError, match=r"The split 'test\[:0\]' of digits must hold at least one"
    ):
        pipeline.describe(config)


def test_a_standard_deviation_of_zero():
    with pytest.raises(ValueError, match=f"std {NUMBERS}"):
        models.create("resnet8_small", num_classes=3, std=(0.0, 0.0, 0.0))
    network = tiny.TinyResNet(num_classes=3, std=(0.2, 0.0, 0.2))
    with pytest.raises(ValueError, match=f"std {NUMBERS}"):
        network.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
