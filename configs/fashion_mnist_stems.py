"""Is it the stride or the training? Strided and pooled networks, trained with PGD and FGSM-RS.

Command: python -m jaxrobust.main --config=configs/fashion_mnist_stems.py
Data:    python -m jaxrobust.data.prepare fashion_mnist
Cost:    70 minutes on one CPU core, the evaluation included
Expect:  per cent, clean / robust under PGD of 20 steps
                  strided                    pooled
         std      91.1 ± 0.4 /  0.0          91.8 ± 0.2 /  0.0
         pgd      83.8 ± 0.2 / 75.5 ± 0.4    84.4 ± 0.4 / 75.3 ± 0.2
         fgsm     84.6 ± 0.6 / 74.9 ± 0.7    84.9 ± 0.1 / 73.5 ± 0.7
"""

from jaxrobust import config as configs

STRIDED = {"name": "resnet8_small", "stem_stride": 2, "dtype": "auto"}
POOLED = {**STRIDED, "downsampling": "average_pool"}
PGD = {"name": "pgd", "epsilon": 0.1, "step_size": 0.05, "steps": 3}
# FGSM from a random start (Wong et al. 2020): one step of 1.25 times the radius, projected back.
FGSM_RS = {"name": "pgd", "epsilon": 0.1, "step_size": 0.125, "steps": 1}


def get_config():
    config = configs.default()
    config.dataset.name = "fashion_mnist"
    # As in fashion_mnist.py, but shorter: the same for both networks.
    config.seeds = (11, 12, 13)
    config.model = STRIDED
    config.batch_size = 64
    config.epochs = 3.0
    config.optimizer.weight_decay = 5e-4
    config.schedule.name = "cosine"
    config.schedule.warmup = 0.05
    config.evaluation.batch_size = 500
    config.evaluation.attacks = {
        "pgd": {"name": "pgd", "epsilon": 0.1, "step_size": 0.02, "steps": 20}
    }
    config.runs = {
        "std_strided": {"model": STRIDED},
        "std_pooled": {"model": POOLED},
        "pgd_strided": {"model": STRIDED, "attack": PGD},
        "pgd_pooled": {"model": POOLED, "attack": PGD},
        "fgsm_strided": {"model": STRIDED, "attack": FGSM_RS},
        "fgsm_pooled": {"model": POOLED, "attack": FGSM_RS},
    }
    return config
