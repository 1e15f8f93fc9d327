"""ResNet-50 on ImageNet, standard training with the paper's settings.

Command: python -m jaxrobust.main --config=configs/resnet50_std.py
Needs:   python -m jaxrobust.data.prepare imagenet2012 (once)
Cost:    90 epochs; a step costs about 3 forward passes. Not yet timed by us.
Expect:  top-1 75.8, top-5 92.7, defended 0.8 at 0.005 and 0.2 at 0.01 (paper, Table 1)
"""

from jaxrobust import config as configs


def get_config():
    config = configs.default()
    config.model.name = "resnet50"
    config.dataset.image_size = 224
    config.runs = {"std": {}}
    return config
