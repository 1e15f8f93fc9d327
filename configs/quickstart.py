"""Standard against adversarial training in minutes, on a data set that the project draws itself.

Command: python -m jaxrobust.main --config=configs/quickstart.py
Cost:    two to three minutes on two CPU cores
Expect:  per cent; defended at 8/255; cue conflict by shape / by texture; seeds 11, 12, 13
         std  99.8 ± 0.2 clean   1.3 ± 1.5 defended  10.4 ± 1.1 / 72.8 ± 3.3
         adv  90.3 ± 2.7 clean  87.6 ± 2.6 defended  78.7 ± 4.2 /  4.1 ± 1.5
"""

from jaxrobust import config as configs


def get_config():
    config = configs.default()
    config.dataset.name = "textured_shapes"
    # Seeds 0 to 10 served to choose: the parameters of the data set's generator, and what is below.
    config.seeds = (11,)
    # Strides of the convolutions themselves would paint their grid into the maps (downsampling.py).
    config.model = {
        "name": "resnet8_small",
        "stem_stride": 2,
        "downsampling": "average_pool",
        "dtype": "auto",
    }
    config.batch_size = 128
    config.epochs = None
    config.steps = 550
    # So small that STD goes by the texture, which it finds first; at 0.1 it learns shapes as well.
    config.optimizer.learning_rate = 0.004
    config.schedule.name = "constant"
    config.schedule.warmup = 0.05
    config.checkpoint.every_epochs = 2.0
    config.evaluation.batch_size = 200
    config.evaluation.attacks = {
        "pgd_8": {"name": "pgd", "epsilon": 8 / 255, "step_size": 2 / 255, "steps": 20}
    }
    config.runs = {
        "std": {},
        # Two steps: at this radius FGSM alone is unstable, some seeds learn its perturbations.
        "adv": {
            "attack": {"name": "pgd", "epsilon": 24 / 255, "step_size": 15 / 255, "steps": 2},
            "batch_size": 64,
            "steps": 1500,
            "optimizer": {"learning_rate": 0.1},
            "schedule": {"name": "cosine"},
        },
    }
    return config
