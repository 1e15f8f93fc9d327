"""Standard against adversarial training in minutes, on a data set that the project draws itself.

Command: python -m jaxrobust.main --config=configs/quickstart.py
Cost:    to be measured
Expect:  to be measured
"""

from jaxrobust import config as configs


def get_config():
    config = configs.default()
    config.dataset.name = "textured_shapes"
    config.dataset.image_size = 32
    config.dataset.augmentation = "none"
    config.model.name = "resnet8_small"
    config.batch_size = 128
    config.epochs = None
    config.steps = 400
    config.optimizer.learning_rate = 0.1
    config.schedule.name = "cosine"
    config.schedule.warmup = 0.05
    config.checkpoint.every_epochs = 2.0
    config.evaluation.batch_size = 200
    config.evaluation.attacks = {
        "pgd_8": {"name": "pgd", "epsilon": 8 / 255, "steps": 10, "restarts": 2}
    }
    config.runs = {
        "std": {},
        "adv": {"attack": {"name": "fgsm", "epsilon": 12 / 255}, "steps": 750},
    }
    return config
