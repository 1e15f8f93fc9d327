"""Full-size networks on textured_shapes at 224 px: STD and ADV of one architecture.

Command: python -m jaxrobust.main --config=configs/textured_shapes_224.py:resnet50
         python -m jaxrobust.main --config=configs/textured_shapes_224.py:alexnet
Cost:    for an accelerator. Not yet timed by us.
Expect:  not yet measured by us; at 32 px, STD decides by texture and ADV by shape
"""

from jaxrobust import config as configs

LEARNING_RATES = {"resnet50": 0.1, "alexnet": 0.03}
# Of 255 levels, and the step: as at 32 px, where AlexNet finds the texture under the smaller one.
ADVERSARIES = {"resnet50": (14, 10), "alexnet": (20, 14)}


def get_config(architecture: str = "resnet50"):
    if architecture not in LEARNING_RATES:
        raise ValueError(
            f"After the colon stands one of {', '.join(LEARNING_RATES)}, got {architecture!r}."
        )
    epsilon, step_size = (value / 255 for value in ADVERSARIES[architecture])
    config = configs.default()
    config.dataset.name = "textured_shapes/shape224"
    # Seeds 0 to 10 served to choose the parameters of the data set's generator.
    config.seeds = (11, 12, 13)
    config.model = {"name": architecture, "dtype": "auto"}
    config.batch_size = 128
    config.epochs = 10.0
    config.optimizer.learning_rate = LEARNING_RATES[architecture]
    config.schedule.name = "cosine"
    config.schedule.warmup = 0.05
    config.checkpoint.every_epochs = 5.0
    config.evaluation.attacks = {
        "pgd_8": {"name": "pgd", "epsilon": 8 / 255, "step_size": 2 / 255, "steps": 20}
    }
    config.runs = {
        "std": {},
        "adv": {
            "attack": {"name": "pgd", "epsilon": epsilon, "step_size": step_size, "steps": 2},
            "epochs": 20.0,
        },
    }
    return config
