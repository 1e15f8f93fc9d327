"""Late fusion on ten data sets, the paper's Figure 7: do robust features help accuracy?

STD, ADV, STD+STD, ADV+ADV and STD+ADV of two architectures, fine-tuned on clean images of each of
the ten data sets of Table 3, three times: 300 trainings.

Command: python -m jaxrobust.main --config=configs/figure7.py
         python -m jaxrobust.main --config=configs/figure7.py:resnet50,cifar10,stl10  (a part of it)
         python -m jaxrobust.experiments.figure7_late_fusion --workdirs runs/figure7
Needs:   python -m jaxrobust.data.prepare … for each data set
         (python -m jaxrobust.experiments.table3_datasets says which are there), and three trainings
         of each kind:
         python -m jaxrobust.main --config=configs/resnet50_std.py --config.seeds="(0,1,2)"
         and so on with resnet50_adv, alexnet_std, alexnet_adv
Cost:    30 epochs of each. Not yet timed by us.
Expect:  STD+ADV above STD and ADV on most data sets, ADV+ADV above STD+STD on those of low
         resolution, below it on the others (paper, §4.2)
"""

from jaxrobust import config as configs
from jaxrobust.data import catalog

ARCHITECTURES = ("resnet50", "alexnet")
SETTINGS = ("std", "adv", "std+std", "adv+adv", "std+adv")


def get_config(selection: str = ""):
    chosen = [name for name in selection.split(",") if name]
    unknown = set(chosen) - {*ARCHITECTURES, *catalog.PAPER}
    if unknown:
        raise ValueError(
            "After the colon stand names of architectures and data sets, some of "
            f"{', '.join((*ARCHITECTURES, *catalog.PAPER))}; got {', '.join(sorted(unknown))}."
        )
    config = configs.default()
    config.model = {"name": "late_fusion", "dtype": "auto"}
    config.dataset.image_size = 224
    config.epochs = 30.0
    config.optimizer.learning_rate = 0.001
    # The rest is as in training, where the rate falls every 30 epochs: here it never does.
    config.schedule.name = "constant"
    config.seeds = (0, 1, 2)
    config.evaluation.attacks = {}
    config.evaluation.cue_conflict = False
    config.evaluation.every_epochs = 1.0
    config.runs = {
        f"{architecture}_{dataset}_{setting}": {
            "dataset": {"name": dataset},
            "pretrained": {
                "backbones": tuple(f"runs/{architecture}_{run}/{run}" for run in setting.split("+"))
            },
        }
        for architecture in ARCHITECTURES
        if architecture in chosen or not set(chosen) & set(ARCHITECTURES)
        for dataset in catalog.PAPER
        if dataset in chosen or not set(chosen) & set(catalog.PAPER)
        for setting in SETTINGS
    }
    return config
