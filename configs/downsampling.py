"""Five ways of halving the resolution, STD and ADV: which leaves no grid in the maps?

Command: python -m jaxrobust.main --config=configs/downsampling.py:textured_shapes \
             --workdir=runs/downsampling_textured_shapes
         python -m jaxrobust.main --config=configs/downsampling.py:fashion_mnist \
             --workdir=runs/downsampling_fashion_mnist
         python -m jaxrobust.experiments.figure2_sensitivity_maps --methods vanilla_gradient \
             --workdirs runs/downsampling_textured_shapes runs/downsampling_fashion_mnist
Data:    python -m jaxrobust.data.prepare fashion_mnist
Cost:    25 and 20 minutes on one CPU core
Expect:  the energy of vanilla maps in a phase of 2 x 2 pixels, how far from an equal share at most,
         points; at random weights, of STD, of ADV; and ADV's centroid in cycles/pixel
                        textured_shapes            fashion_mnist
         stride         20.1  23.2  46.4   0.238   15.3  18.1  42.5   0.319
         average_pool    0.6   0.6   1.2   0.184    1.0   2.8   0.5   0.266
         max_pool        0.6   0.4   0.8   0.198    0.2   2.5   1.4   0.319
         blur_pool       0.4   0.3   0.5   0.230    0.5   1.0   2.8   0.255
         max_blur_pool   4.6   0.6   1.1   0.261    2.8   1.4   2.4   0.321
         The strided ADV does not learn textured_shapes against this adversary: 10 per cent.
"""

from jaxrobust import config as configs

DOWNSAMPLINGS = ("stride", "average_pool", "max_pool", "blur_pool", "max_blur_pool")
DATASETS = ("textured_shapes", "fashion_mnist")


def get_config(dataset: str = "textured_shapes"):
    if dataset not in DATASETS:
        raise ValueError(f"After the colon stands one of {', '.join(DATASETS)}, got {dataset!r}.")
    config = configs.default()
    config.dataset.name = dataset
    # One of the seeds that serve to choose: the networks of the other configs rest on this.
    config.seeds = (2,)
    network = {"name": "resnet8_small", "stem_stride": 2, "dtype": "auto"}
    config.model = network
    config.batch_size = 128
    config.epochs = None
    config.schedule.name = "cosine"
    config.schedule.warmup = 0.05
    config.checkpoint.every_epochs = 2.0
    config.evaluation.batch_size = 200
    std = {"steps": 400}
    if dataset == "textured_shapes":
        epsilon, evaluated, steps, batch_size = 24 / 255, 8 / 255, 1500, 64
        std |= {
            "optimizer": {"learning_rate": 0.004},
            "schedule": {"name": "constant"},
            "steps": 550,
        }
    else:
        # Pictures of the training set serve to choose.
        config.dataset.train_split = "train[:50000]"
        config.dataset.evaluation_split = "train[50000:52000]"
        epsilon, evaluated, steps, batch_size = 0.1, 0.1, 800, 128
    config.evaluation.attacks = {
        "pgd": {"name": "pgd", "epsilon": evaluated, "step_size": evaluated / 4, "steps": 20}
    }
    attack = {"name": "pgd", "epsilon": epsilon, "step_size": 0.7 * epsilon, "steps": 2}
    adv = {"attack": attack, "steps": steps, "batch_size": batch_size}
    config.runs = {
        f"{run}_{how}": {"model": network | {"downsampling": how}, **settings}
        for how in DOWNSAMPLINGS
        for run, settings in (("std", std), ("adv", adv))
    }
    return config
