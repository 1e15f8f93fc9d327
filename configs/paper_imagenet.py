"""The whole paper: AlexNet, ResNet-50 and ResNet-101 on ImageNet, late fusion on ten data sets.

Command: python -m jaxrobust.experiments.paper --config=configs/paper_imagenet.py \
             --out=report_imagenet
Needs:   python -m jaxrobust.data.prepare … for each data set
         (python -m jaxrobust.experiments.table3_datasets says which are there)
Cost:    14 trainings of 90 epochs on ImageNet, then 300 fine-tunings. Not yet timed by us.
Expect:  the figures of the paper's Tables 1 and 2
"""

from jaxrobust.data import catalog
from jaxrobust.experiments.plan import Experiment, Plan, Study, backbones

# resnet101: one seed; Figures 8 to 12 show it.
BOTH = ("table1",)
ALL = ("table1", "resnet101_std", "resnet101_adv")
DAY = 24 * 60.0


def get_plan():
    return Plan(
        title="What do adversarially robust models look at?",
        summary="The experiments of Itazuri et al. (2019) on ImageNet: networks trained the "
        "standard way (STD) and adversarially (ADV).",
        studies=[
            Study("table1", "configs/table1.py", minutes=12 * DAY),
            Study("resnet101_std", "configs/resnet101_std.py", minutes=2 * DAY),
            Study("resnet101_adv", "configs/resnet101_adv.py", minutes=3 * DAY),
            # Figure 7's backbones are the trainings of Table 1 here.
            Study(
                "figure7",
                "configs/figure7.py",
                backbones(
                    [f"resnet50_{name}" for name in catalog.PAPER], "{runs}/table1/resnet50_*"
                )
                | backbones(
                    [f"alexnet_{name}" for name in catalog.PAPER], "{runs}/table1/alexnet_*"
                ),
                starts_from=["table1"],
                minutes=10 * DAY,
            ),
        ],
        experiments=[
            Experiment("table1_robustness", BOTH, minutes=DAY),
            Experiment("figure2_sensitivity_maps", BOTH, "--tiles", minutes=90),
            Experiment("figure3_layer_visualization", BOTH, "--tiles", minutes=60),
            Experiment("figure4_first_layer", ALL, minutes=5),
            Experiment("figure6_smoothing", BOTH, "--tiles", minutes=240),
            Experiment("table2_variants", BOTH, minutes=60),
            Experiment("figure20_variants", BOTH, minutes=5),
            Experiment("figure7_late_fusion", ("figure7",), minutes=240),
            Experiment("figure8_sanity_checks", ALL, minutes=120),
            Experiment("table3_datasets", minutes=10),
        ],
        notes=[
            "No stylised copy of ImageNet is among these stages: make one with "
            "python -m jaxrobust.stylization copy and give table2_variants and figure20_variants "
            "--stylized in this plan.",
        ],
    )
