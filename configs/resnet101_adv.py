"""ResNet-101 on ImageNet, adversarial training with the paper's settings.

Command: python -m jaxrobust.main --config=configs/resnet101_adv.py
Needs:   python -m jaxrobust.data.prepare imagenet2012 (once)
Cost:    90 epochs; a step costs about 5 forward passes (attack and update). Not yet timed by us.
Expect:  the paper shows its maps (Figures 8-12, 18, 19) but states no accuracy
"""

from jaxrobust import config as configs


def get_config():
    config = configs.default()
    config.model.name = "resnet101"
    config.dataset.image_size = 224
    config.runs = {"adv": {"attack": {"name": "fgsm", "epsilon": 0.005}}}
    return config
