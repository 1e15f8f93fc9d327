"""The whole paper in one command: trainings, experiments, and one page with all of it.

    python -m experiments.paper --config=configs/paper_quick.py --out=report

trains what the config names (or reuses what is there), runs every experiment in a process of its
own, and writes `<out>/index.html`: the paper's claims with the verdicts of this run, then every
table and figure beside the paper's. It is one file that needs nothing else; its pictures and
records also lie in `<out>/figures`, the claims in `<out>/claims.md` and `claims.json`, what the
stages have printed in `<out>/logs`.

It can be interrupted at any moment, in any way: the same command goes on. A stage is done again
when what it depends on has changed: of an experiment its arguments, its trainings and the code. A
training whose own settings, or those of what it starts from, have changed is refused, and says
which folder to remove. What fails is named in the report; the rest is not lost.
"""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from experiments import command
from experiments.report import claims, page, plan, stages
from jaxrobust.core.files import write_json, write_text


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the stages and writes the page after each of them."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.paper",
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
        names = [stage.name for stage in (*chosen.studies, *chosen.experiments)]
        unknown = [name for name in arguments.only or () if name not in names]
        if unknown:
            raise ValueError(f"--only must name some of {', '.join(names)}, got {unknown[0]}.")
        failed = make(chosen, arguments, names if arguments.only is None else arguments.only)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "\nInterrupted; the same command goes on.\n")
    if failed:
        parser.exit(1, f"Not done: {', '.join(failed)}; the report says why.\n")


def make(chosen: plan.Plan, arguments: argparse.Namespace, only: Sequence[str]) -> list[str]:
    """Run the stages, write the page; the names of those of `only` that are not done at the end."""
    out = arguments.out
    runner = stages.Runner(chosen, out=out, runs=arguments.runs)
    made_by = ["python", "-m", "experiments.paper", f"--config={arguments.config}", f"--out={out}"]
    if arguments.runs != Path("runs"):
        made_by.append(f"--runs={arguments.runs}")
    with stages.lock(out):

        def write(outcomes: list[stages.Outcome]) -> None:
            records = runner.records(outcomes)
            decided = claims.decide(records)
            write_json(out / "claims.json", {"claims": [claim.as_json() for claim in decided]})
            heading = f"{chosen.title}: the paper's claims"
            command.write_markdown(out / "claims.md", heading, [claims.as_markdown(decided)])
            text = page.render(
                chosen,
                decided,
                records,
                outcomes,
                figures=out / stages.FIGURES,
                command=shlex.join(made_by),
            )
            write_text(out / "index.html", text)

        runner.run(write, only=only)
        outcomes = runner.outcomes()
    for claim in claims.decide(runner.records(outcomes)):
        print(f"claim {claim.number:3} {claim.verdict:14} {claim.sentence}")
    print(f"\nWrote {out / 'index.html'}")
    return [one.name for one in outcomes if one.name in only and one.status != "done"]


if __name__ == "__main__":
    main()
