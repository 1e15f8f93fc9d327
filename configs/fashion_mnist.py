"""Standard against adversarial training on real pictures, by a network that pools, not strides.

Command: python -m jaxrobust.main --config=configs/fashion_mnist.py
Data:    python -m jaxrobust.data.prepare fashion_mnist
Cost:    not yet timed by us
Expect:  not yet measured by us; epochs, augmentation and weight decay are not chosen yet
"""

from jaxrobust import config as configs


def get_config():
    config = configs.default()
    config.dataset.name = "fashion_mnist"
    # Seeds 0 to 10 served to choose the settings.
    config.seeds = (11, 12, 13, 14, 15)
    config.model = {
        "name": "resnet8_small",
        "stem_stride": 2,
        "downsampling": "average_pool",
        "dtype": "auto",
    }
    config.batch_size = 128
    config.epochs = 5.0
    config.schedule.name = "cosine"
    config.schedule.warmup = 0.05
    config.evaluation.batch_size = 500
    config.evaluation.attacks = {
        "pgd": {"name": "pgd", "epsilon": 0.1, "step_size": 0.02, "steps": 20}
    }
    config.runs = {
        "std": {},
        "adv": {"attack": {"name": "pgd", "epsilon": 0.1, "step_size": 0.04, "steps": 5}},
    }
    return config
