"""The paper with full-size networks on drawn pictures of 224 px, for one accelerator.

Command: python -m jaxrobust.experiments.paper --config=configs/paper_gpu.py --out=report_gpu
Cost:    meant for 30 minutes on a data-centre GPU. Not yet timed by us.
Expect:  not yet measured by us; late fusion is not part of it
"""

from jaxrobust.experiments.plan import Experiment, Plan, Study

BOTH = ("resnet50_shapes_224", "alexnet_shapes_224")


def get_plan():
    return Plan(
        title="What do adversarially robust models look at?",
        summary="The experiments of Itazuri et al. (2019) with ResNet-50 and AlexNet on pictures "
        "of 224 px that are drawn for the purpose.",
        studies=[
            Study(
                f"{name}_shapes_224",
                f"configs/textured_shapes_224.py:{name}",
                minutes=minutes,
            )
            for name, minutes in (("resnet50", 10), ("alexnet", 3))
        ],
        experiments=[
            Experiment("cue_conflict", BOTH, minutes=0.3),
            Experiment("table1_robustness", BOTH, "--restarts 3", minutes=4),
            Experiment("figure2_sensitivity_maps", BOTH, "--tiles", minutes=3),
            Experiment("figure3_layer_visualization", BOTH, "--tiles", minutes=4),
            Experiment("figure4_first_layer", BOTH, minutes=0.5),
            Experiment("figure6_smoothing", BOTH, "--tiles", minutes=1),
            Experiment("table2_variants", BOTH, minutes=0.5),
            Experiment("figure20_variants", BOTH, minutes=0.5),
            Experiment("figure8_sanity_checks", BOTH, minutes=4),
            Experiment("table3_datasets", minutes=0.3),
        ],
        notes=[
            "The generator's parameters were chosen at 32 px, those of the trainings at 224 px not "
            "at all.",
        ],
    )
