"""The quickstart with a small AlexNet: standard against adversarial training.

Command: python -m jaxrobust.main --config=configs/quickstart_alexnet.py
Cost:    six minutes of CPU time: about three on two idle CPU cores
Expect:  per cent; defended at 8/255; cue conflict by shape / by texture; seed 1
         std  100.0 clean  21.2 defended   9.3 / 83.3
         adv   91.8 clean  90.0 defended  44.8 / 32.8
"""

from jaxrobust import config as configs


def get_config():
    config = configs.default()
    config.dataset.name = "textured_shapes"
    # Seeds 0 to 10 served to choose: here seed 1 the learning rate and the numbers of steps.
    config.seeds = (11,)
    config.model = {"name": "alexnet_small", "dtype": "auto"}
    config.batch_size = 128
    config.epochs = None
    config.steps = 200
    config.optimizer.learning_rate = 0.03
    config.schedule.name = "cosine"
    config.schedule.warmup = 0.05
    config.checkpoint.every_epochs = 2.0
    config.evaluation.batch_size = 200
    config.evaluation.attacks = {
        "pgd_8": {"name": "pgd", "epsilon": 8 / 255, "step_size": 2 / 255, "steps": 20}
    }
    config.runs = {
        "std": {},
        "adv": {
            "attack": {"name": "pgd", "epsilon": 14 / 255, "step_size": 10 / 255, "steps": 2},
            "steps": 800,
        },
    }
    return config
