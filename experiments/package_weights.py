"""Put trained networks into the package, where `models.pretrained` finds them.

    python -m jaxrobust.experiments.package_weights --workdir=runs/quickstart

writes `quickstart_std` and `quickstart_adv`, with what they are and what `results.json` says of
them, into `jaxrobust/models/weights/`. Cost: seconds.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxrobust.core.checks import check_that
from jaxrobust.core.settings import to_plain
from jaxrobust.data import pipeline
from jaxrobust.experiments import trained
from jaxrobust.models import weight_files
from jaxrobust.training import checkpoints
from jaxrobust.training import config as configs


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxrobust.experiments.package_weights",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--workdir", type=Path, required=True, help="of a study of one seed, with results.json")
    add("--name", default="quickstart", help="networks are <name>_<run> (default: %(default)s)")
    arguments = parser.parse_args(argv)
    for path in package(arguments.workdir, arguments.name):
        print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")


def package(workdir: str | Path, name: str) -> list[Path]:
    """Write a file for each run of a study; returns their paths.

    Raises:
      FileNotFoundError: when the workdir holds no training, or no results.
      ValueError: when it holds several seeds, or a training has gone on since it was evaluated.
    """
    trainings = trained.find(workdir)
    seeds = sorted({training.seed for training in trainings})
    check_that(len(seeds) == 1, str(workdir), "hold one seed", ", ".join(map(str, seeds)))
    # All are described before the first is written.
    described = [(training, describe(training)) for training in trainings]
    return [
        weight_files.write(f"{name}_{training.run}", description, training.load().variables)
        for training, description in described
    ]


def describe(training: trained.Trained) -> dict[str, Any]:
    """What the file says of its network; where the data lay is no part of it."""
    results = json.loads((training.workdir / "results.json").read_text())
    steps = checkpoints.readable_step(training.folder)
    identity = {"run": training.run, "seed": training.seed, "step": steps}
    measured = [entry for entry in results if identity.items() <= entry.items()]
    rule = f"hold the results of {training.run} at its newest checkpoint, step {steps}"
    got = ", ".join(f"{entry['run']} at step {entry['step']}" for entry in results)
    check_that(measured, str(training.workdir / "results.json"), rule, got)
    written = checkpoints.read_config(training.folder)
    assert written is not None  # `trained` has read it
    kept = ("model", "image_shape", "run", "seed", "steps", "jaxrobust")
    return {
        **{key: written[key] for key in kept},
        "classes": list(pipeline.describe(training.config.dataset).class_names),
        "training": configs.training_part(to_plain(training.config)),
        "results": {key: measured[0][key] for key in measured[0] if key not in identity},
    }


if __name__ == "__main__":
    main()
