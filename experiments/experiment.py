"""An experiment and its command: arguments, record, errors, what the terminal shows.

    EXPERIMENT = Experiment(
        name="figure99_halos",
        title="Figure 99: halos",
        short="Figure 99",
        paper="robust maps have none.",
        claims=(Claim("9", "Robust maps have no halo", "ADV − STD < 0"),),
        run=run,  # (arguments) -> Result
        document=__doc__,
    )

    if __name__ == "__main__":
        EXPERIMENT.main()

That is all: `jaxrobust.experiments.paper` takes it from a plan by its name, its claims enter the
page. What STD has learnt too little of decides nothing, whatever the experiment says.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jaxrobust import __version__
from jaxrobust.core import runtime
from jaxrobust.core.files import write_json, write_text
from jaxrobust.core.interrupts import terminable
from jaxrobust.experiments import render, trained
from jaxrobust.experiments.result import Claim, Finding, Notes, Result, as_json, files, undecided

UNDERTRAINED = "open: undertrained"


@dataclass(frozen=True)
class Experiment:
    """One table or figure.

    Attributes:
      name: of its module and of the files that it writes.
      title: of its section.
      short: for the navigation.
      run: what it does with its arguments (`workdirs`, `out` and its own). ValueError and OSError
        end the command with their sentence, and no record is written.
      document: the module's, shown as help.
      paper: what the paper shows or says; empty where it says nothing.
      claims: that it decides.
      add_arguments: adds its own to those of all.
      workdirs: which trainings it examines when none are named; None is for an experiment without
        trainings.
    """

    name: str
    title: str
    short: str
    run: Callable[[argparse.Namespace], Result]
    document: str | None
    paper: str = ""
    claims: Sequence[Claim] = ()
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None
    workdirs: str | None = "runs/quickstart"

    def main(self, argv: Sequence[str] | None = None) -> None:
        """Parse, run, show, write `<out>/<name>.md` and `<out>/<name>.json`."""
        parser = self._parser()
        arguments = parser.parse_args(argv)
        path = arguments.out / f"{self.name}.json"
        runtime.prepare()
        try:
            with terminable():
                result = self.run(arguments)
            findings = {title: _judged(one) for title, one in result.findings.items()}
            shown = {
                "findings": {
                    title: {"parts": as_json(one.parts), "claims": as_json(one.claims)}
                    for title, one in findings.items()
                },
                "parts": as_json(result.parts),
            }
            text = render.markdown(self, shown)
            write_text(path.with_suffix(".md"), f"# {self.title}\n\n{text}")
            names = [*dict.fromkeys(files(shown)), f"{self.name}.md"]
            numbers = {title: one.numbers for title, one in findings.items()}
            record = {
                "settings": _plain(vars(arguments)),
                "versions": {"jaxrobust": __version__, "jax": jax.__version__},
                "device": jax.devices()[0].device_kind,
                "files": names,
                "architectures" if self.workdirs is not None else "datasets": numbers,
                "shown": shown,
            }
            write_json(path, record)
        except (ValueError, OSError) as error:
            parser.exit(2, f"{error}\n")
        except KeyboardInterrupt:
            parser.exit(130, f"\nInterrupted; {path} was not written.\n")
        print(f"\n{text}")
        written = ", ".join(str(arguments.out / name) for name in names)
        print(f"Wrote {written}, {path}")

    def _parser(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(
            prog=f"python -m jaxrobust.experiments.{self.name}",
            description=self.document,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if self.workdirs is not None:
            parser.add_argument(
                "--workdirs",
                nargs="+",
                type=Path,
                default=[Path(self.workdirs)],
                metavar="FOLDER",
                help=f"workdirs of trainings, or folders of single ones (default: {self.workdirs})",
            )
        parser.add_argument(
            "--out",
            type=Path,
            default=Path("runs/figures"),
            metavar="FOLDER",
            help="folder of the figures (default: %(default)s)",
        )
        if self.add_arguments is not None:
            self.add_arguments(parser)
        return parser


def _judged(finding: Finding) -> Finding:
    """A finding as it may stand: of trainings that have learnt too little, nothing is decided."""
    reason = trained.undertrained(pair["std"] for pair in finding.numbers.get("pairs", ()))
    if not reason:
        return finding
    return Finding(
        {**finding.numbers, "undertrained": reason},
        [*undecided(finding.parts, UNDERTRAINED), Notes([reason])],
        undecided(finding.claims, UNDERTRAINED),
    )


def whole_number(least: int) -> Callable[[str], int]:
    """What argparse calls with a text that is to be a whole number.

    Example:
      >>> whole_number(1)("12")
      12
    """

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"must be a whole number of at least {least}, got {text!r}"
            )
        return int(text)

    return parse


def _plain(value: Any) -> Any:
    """Settings as JSON has them."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value
