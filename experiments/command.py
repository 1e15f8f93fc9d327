"""What every experiment's command has: its arguments, its record, its errors, its last line.

An experiment says what it adds to the arguments and what it finds:

    def examine(arguments) -> tuple[dict[str, Any], list[Path]]:
        for title, pairs in trained.by_architecture(arguments.workdirs).items():
            ...  # draws to arguments.out, prints its table
        return architectures, written

    def main(argv=None):
        command.run(_NAME, argv, document=__doc__, examine=examine)
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxrobust import __version__
from jaxrobust.core import runtime
from jaxrobust.core.files import write_json, write_text
from jaxrobust.core.logs import Progress


class Steps(Progress):
    """A progress line that counts its steps itself."""

    done = 0

    def step(self) -> None:
        """One more step is complete."""
        self.done += 1
        self.mark(self.done)
        if self.due():
            self.show(self.done)


def run(
    name: str,
    argv: Sequence[str] | None,
    *,
    document: str | None,
    examine: Callable[[argparse.Namespace], tuple[dict[str, Any], list[Path]]],
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None,
    workdirs: str | None = "runs/quickstart",
) -> None:
    """Parse, examine, write `<out>/<name>.json`, say what was written.

    Args:
      name: of the experiment: its module and its files.
      argv: None is the command line's.
      document: the module's, shown as help.
      examine: draws figures and prints tables; returns {architecture: what the record holds of
        it} and the paths that it wrote. ValueError and OSError end the command with their
        sentence, and no record is written.
      add_arguments: adds the experiment's own to those of all.
      workdirs: which trainings it examines when none are named; None is for an experiment without
        trainings, whose `examine` returns {data set: …}.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m experiments.{name}",
        description=document,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_common_arguments(parser, workdirs=workdirs)
    if add_arguments is not None:
        add_arguments(parser)
    arguments = parser.parse_args(argv)
    path = arguments.out / f"{name}.json"
    runtime.prepare()
    try:
        found, written = examine(arguments)
        record = {
            "settings": _plain(vars(arguments)),
            "versions": {"jaxrobust": __version__, "jax": jax.__version__},
            "device": jax.devices()[0].device_kind,
            "files": [path.name for path in written],
            "architectures" if workdirs is not None else "datasets": found,
        }
        write_json(path, record)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{error}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"\nInterrupted; {path} was not written.\n")
    print("\nWrote " + ", ".join(map(str, [*written, path])))


def add_common_arguments(
    parser: argparse.ArgumentParser, *, workdirs: str | None = "runs/quickstart"
) -> None:
    """The arguments of every experiment: which trainings, if any, and where its figures go."""
    if workdirs is not None:
        parser.add_argument(
            "--workdirs",
            nargs="+",
            type=Path,
            default=[Path(workdirs)],
            metavar="FOLDER",
            help=f"workdirs of trainings, or folders of single ones (default: {workdirs})",
        )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/figures"),
        metavar="FOLDER",
        help="folder of the figures (default: %(default)s)",
    )


def write_markdown(path: Path, heading: str, parts: Iterable[str]) -> Path:
    """Write a page: its heading, then its parts."""
    write_text(path, "\n\n".join([f"# {heading}", *parts]) + "\n")
    return path


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
