"""Late fusion at small scale: the five settings of Figure 7 on three tasks, three times.

Command: python -m jaxrobust.main --config=configs/figure7_quick.py
         python -m experiments.figure7_late_fusion --workdirs runs/figure7_quick
Needs:   python -m jaxrobust.main --config=configs/quickstart.py --config.seeds="(11,12,13)"
"""

from jaxrobust import config as configs

# Drawn at 16 px and enlarged as low-resolution data sets are; drawn at the networks' own 32 px;
# and real scans of 8 px.
TASKS = {"low": "textured_shapes/both16", "high": "textured_shapes/both32", "digits": "digits"}
SETTINGS = {
    "std": ("std",),
    "adv": ("adv",),
    "std+std": ("std", "std"),
    "adv+adv": ("adv", "adv"),
    "std+adv": ("std", "adv"),
}


def get_config():
    config = configs.default()
    config.model = {"name": "late_fusion", "dtype": "auto"}
    config.dataset.image_size = 32
    config.batch_size = 128
    config.epochs = 5.0
    config.optimizer.learning_rate = 0.02
    config.schedule.name = "constant"
    config.seeds = (0, 1, 2)
    config.checkpoint.every_epochs = 5.0
    config.evaluation.batch_size = 200
    config.evaluation.attacks = {}
    config.evaluation.cue_conflict = False
    config.evaluation.every_epochs = 1.0
    config.runs = {
        f"{task}_{setting}": {
            "dataset": {"name": dataset},
            # Each fine-tuning starts from other trainings: see jaxrobust/fine_tuning.py.
            "pretrained": {"backbones": tuple(f"runs/quickstart/{run}" for run in backbones)},
        }
        for task, dataset in TASKS.items()
        for setting, backbones in SETTINGS.items()
    }
    return config
