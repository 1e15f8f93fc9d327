"""AlexNet with batch normalisation on ImageNet, adversarial training with the paper's settings.

Command: python -m jaxrobust.main --config=configs/alexnet_adv.py
Needs:   python -m jaxrobust.data.prepare imagenet2012 (once)
Cost:    90 epochs; a step costs about 5 forward passes (attack and update). Not yet timed by us.
Expect:  top-1 50.6, top-5 73.7, defended 71.6 at 0.005 and 46.5 at 0.01 (paper, Table 1)
"""

from jaxrobust import config as configs


def get_config():
    config = configs.default()
    config.model.name = "alexnet"
    config.dataset.image_size = 224
    config.runs = {"adv": {"attack": {"name": "fgsm", "epsilon": 0.005}}}
    return config
