"""Table 1 of the paper: AlexNet and ResNet-50, standard and adversarial, three times from scratch.

Command: python -m jaxrobust.main --config=configs/table1.py
Needs:   python -m jaxrobust.data.prepare imagenet2012 (once)
Cost:    twelve trainings of 90 epochs. Not yet timed by us.
Expect:  the four rows of Table 1, with mean and standard deviation over the seeds:
         alexnet_std  58.28 / 80.60, defended  2.48 at 0.005 and  0.22 at 0.01
         alexnet_adv  50.59 / 73.73, defended 71.55 at 0.005 and 46.49 at 0.01
         resnet50_std 75.84 / 92.74, defended  0.78 at 0.005 and  0.17 at 0.01
         resnet50_adv 71.52 / 90.02, defended 81.25 at 0.005 and 60.75 at 0.01
"""

from jaxrobust import config as configs


def get_config():
    config = configs.default()
    config.dataset.image_size = 224
    config.seeds = (0, 1, 2)
    config.runs = {
        f"{name}_{kind}": {"model": {"name": name}, "attack": attack}
        for name in ("alexnet", "resnet50")
        for kind, attack in (("std", None), ("adv", {"name": "fgsm", "epsilon": 0.005}))
    }
    return config
