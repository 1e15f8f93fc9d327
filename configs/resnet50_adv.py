"""ResNet-50 on ImageNet, adversarial training with the paper's settings.

Command: python -m jaxrobust.main --config=configs/resnet50_adv.py
Needs:   python -m jaxrobust.data.prepare imagenet2012 (once)
Cost:    90 epochs; a step costs about 5 forward passes (attack and update). Not yet timed by us.
Expect:  top-1 71.5, top-5 90.0, defended 81.3 at 0.005 and 60.8 at 0.01 (paper, Table 1)
"""

from jaxrobust import config as configs


def get_config():
    config = configs.default()
    config.model.name = "resnet50"
    config.dataset.image_size = 224
    config.runs = {"adv": {"attack": {"name": "fgsm", "epsilon": 0.005}}}
    return config
