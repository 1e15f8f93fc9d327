"""Every part of the report in minutes, too small to show anything: for checks of the whole.

Command: python -m jaxrobust.experiments.paper --config=configs/paper_smoke.py --out=report_smoke
Cost:    at most five minutes on two CPU cores
Expect:  every stage done; what the networks have learnt in some steps decides no claim
"""

from jaxrobust.experiments.plan import Experiment, Plan, Study, backbones

SEEDS = (1, 2)
RUNS = ("smoke",)
# Two methods, of ten pictures.
FEW = "--images 10 --methods vanilla_gradient loss_gradient"


def get_plan():
    return Plan(
        title="A smoke test of the report",
        summary="Networks that have taken some steps only: nothing on this page is evidence.",
        studies=[
            Study(
                "smoke",
                "configs/quickstart.py",
                {
                    "seeds": SEEDS,
                    "batch_size": 32,
                    "steps": 30,
                    "runs.adv.batch_size": 32,
                    "runs.adv.steps": 30,
                    "evaluation.attacks.pgd_8.steps": 1,
                    "dataset.evaluation_split": "test[:100]",
                    "evaluation.cue_conflict": False,
                },
                minutes=0.6,
            ),
            Study(
                "smoke_stems",
                "configs/fashion_mnist_stems.py",
                {
                    "dataset.name": "textured_shapes",  # drawn: nothing is downloaded
                    "dataset.evaluation_split": "test[:100]",
                    "seeds": SEEDS,
                    "batch_size": 32,
                    "epochs": 0.04,
                    "evaluation.attacks.pgd.steps": 1,
                    "evaluation.cue_conflict": False,
                },
                minutes=1.0,
            ),
            Study(
                "smoke_late_fusion",
                "configs/figure7_quick.py:digits",
                {
                    "seeds": (0,),
                    "epochs": 1.0,
                    **backbones(["digits"], "{runs}/smoke/*"),
                },
                starts_from=["smoke"],
                minutes=0.8,
            ),
        ],
        experiments=[
            Experiment("cue_conflict", RUNS, "--pictures 3", 0.2),
            Experiment("table1_robustness", RUNS, "--steps 1 --restarts 1", 0.2),
            Experiment("figure2_sensitivity_maps", RUNS, f"--tiles {FEW}", 0.3),
            Experiment(
                "figure3_layer_visualization",
                RUNS,
                "--tiles --layers 1 7 --filters 2 --measured-filters 2 --steps 2 "
                "--regularized-steps 2",
                0.5,
            ),
            Experiment("figure4_first_layer", RUNS, "", 0.2),
            Experiment("stride_or_training", ("smoke_stems",), FEW, 0.3),
            Experiment("figure6_smoothing", RUNS, "--tiles", 0.5),
            Experiment("table2_variants", RUNS, "", 0.2),
            Experiment("figure20_variants", RUNS, "", 0.2),
            Experiment("figure7_late_fusion", ("smoke_late_fusion",), "", 0.3),
            Experiment(
                "figure8_sanity_checks",
                RUNS,
                "--images 10 --pictures 2 --cascade-images 2 "
                "--methods vanilla_gradient guided_backprop",
                0.6,
            ),
            Experiment("table3_datasets", (), "", 0.2),
        ],
    )
