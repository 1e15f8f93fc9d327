"""The paper on real pictures: Fashion-MNIST, and what of it is the stride, what the training.

Command: python -m jaxrobust.experiments.paper --config=configs/paper_real.py --out=report_real
Data:    python -m jaxrobust.data.prepare fashion_mnist (once)
Cost:    not yet timed by us
Expect:  not yet measured by us; one channel has no colours to reverse, and late fusion is no part
"""

from jaxrobust.experiments.plan import Experiment, Plan, Study

RUNS = ("fashion_mnist",)


def get_plan():
    return Plan(
        title="What do adversarially robust models look at? Real pictures",
        summary="Experiments of Itazuri et al. (2019) on Fashion-MNIST, 28 px in one channel: the "
        "same network trained the standard way (STD) and adversarially (ADV), and whether a grid "
        "in its maps is its stride or its training.",
        studies=[
            Study("fashion_mnist", "configs/fashion_mnist.py", minutes=60),
            Study("fashion_mnist_stems", "configs/fashion_mnist_stems.py", minutes=60),
        ],
        experiments=[
            Experiment("table1_robustness", RUNS, "--restarts 3", minutes=10),
            Experiment("figure2_sensitivity_maps", RUNS, "--tiles", minutes=3),
            Experiment("stride_or_training", ("fashion_mnist_stems",), minutes=1),
            Experiment("figure3_layer_visualization", RUNS, "--tiles", minutes=3),
            Experiment("figure4_first_layer", RUNS, minutes=0.3),
            Experiment("figure6_smoothing", RUNS, "--tiles", minutes=2),
            Experiment("figure8_sanity_checks", RUNS, minutes=4),
        ],
        notes=[
            "Seeds 0 to 10 served to choose the settings; those shown are 11 to 15.",
        ],
    )
