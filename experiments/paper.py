"""The whole paper in one command: trainings, experiments, and one page with all of it.

    python -m jaxrobust.experiments.paper --config=configs/paper_quick.py --out=report

trains what the config names (or reuses what is there), runs every experiment in a process of its
own, and writes `<out>/index.html`: the paper's claims with the verdicts of this run, then every
table and figure beside the paper's. It is one file that needs nothing else; its pictures and
records also lie in `<out>/figures`, the claims in `<out>/claims.md` and `claims.json`, what the
stages have printed in `<out>/logs`.

It can be interrupted at any moment, in any way: the same command goes on. A stage is done again
when what it depends on has changed: of an experiment its arguments, its trainings and the code, but
for comments. A training whose own settings, or those of what it starts from, have changed is
refused, and says which folder to remove. What fails is named in the report; the rest is not lost.
"""

import argparse
import dataclasses
import importlib
import shlex
from collections.abc import Sequence
from pathlib import Path

from jaxrobust.core.files import alone, write_json, write_text
from jaxrobust.core.interrupts import terminable
from jaxrobust.experiments import claims, page, plan, render, runner
from jaxrobust.experiments.experiment import Experiment


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stages, and write the page after each of them."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxrobust.experiments.paper",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config",
        type=Path,
        required=True,
        metavar="FILE",
        help="configs/paper_quick.py, configs/paper_gpu.py, …",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report"),
        metavar="FOLDER",
        help="folder of the report (default: %(default)s)",
    )
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        metavar="FOLDER",
        help="folder of the trainings' workdirs (default: %(default)s)",
    )
    parser.add_argument(
        "--only",
        nargs="*",
        metavar="STAGE",
        help="run these only; without any, run nothing and write the page anew",
    )
    arguments = parser.parse_args(argv)
    try:
        chosen = plan.load(arguments.config)
        names = [stage.name for stage in chosen.stages]
        unknown = [name for name in arguments.only or () if name not in names]
        if unknown:
            raise ValueError(f"--only must name some of {', '.join(names)}, got {unknown[0]}.")
        only = names if arguments.only is None else arguments.only
        lock = arguments.out / runner.STATE / "lock"
        with terminable(), alone(lock, f"works in {arguments.out}"):
            not_done = make(chosen, arguments, only)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "\nInterrupted; the same command goes on.\n")
    if not_done:
        parser.exit(1, f"Not done: {', '.join(not_done)}; the report says why.\n")


def make(chosen: plan.Plan, arguments: argparse.Namespace, only: Sequence[str]) -> list[str]:
    """Run the stages, write the page; the names of those of `only` that are not done at the end."""
    out = arguments.out
    made_by = [
        "python",
        "-m",
        "jaxrobust.experiments.paper",
        f"--config={arguments.config}",
        f"--out={out}",
    ]
    if arguments.runs != Path("runs"):
        made_by.append(f"--runs={arguments.runs}")
    stages = runner.Runner(chosen, out=out, runs=arguments.runs)
    experiments, failures = _imported(chosen)

    def write() -> tuple[list[runner.Outcome], list[claims.Decided]]:
        outcomes = [
            dataclasses.replace(outcome, status="failed", reason=failures[outcome.name])
            if outcome.name in failures and outcome.status != "failed"
            else outcome
            for outcome in stages.outcomes()
        ]
        records = {
            outcome.name: stages.record(outcome.name)
            for outcome in outcomes
            if outcome.name in experiments and outcome.status == "done"
        }
        decided = claims.gather(experiments, records)
        write_json(out / "claims.json", {"claims": decided})
        write_text(out / "claims.md", render.text("claims.md", plan=chosen, claims=decided))
        text = page.as_html(
            chosen,
            experiments,
            decided,
            records,
            outcomes,
            figures=out / runner.FIGURES,
            command=shlex.join(made_by),
        )
        write_text(out / "index.html", text)
        return outcomes, decided

    outcomes, decided = write()
    for _ in stages.run(only):
        outcomes, decided = write()
    for claim in decided:
        print(f"claim {claim['number']:3} {claim['verdict']:14} {claim['sentence']}")
    print(f"\nWrote {out / 'index.html'}")
    return [each.name for each in outcomes if each.name in only and each.status != "done"]


def _imported(chosen: plan.Plan) -> tuple[dict[str, Experiment], dict[str, str]]:
    """The experiments of a plan by name; of those that cannot be imported, why."""
    experiments, failures = {}, {}
    for stage in chosen.experiments:
        try:
            module = importlib.import_module(f"jaxrobust.experiments.{stage.name}")
            experiments[stage.name] = module.EXPERIMENT
        except (Exception, SystemExit) as error:  # whatever a module does: the others are not lost
            failures[stage.name] = f"{type(error).__name__}: {error}"
    return experiments, failures


if __name__ == "__main__":
    main()
