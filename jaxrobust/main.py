"""The command `jaxrobust`: train (or resume) and evaluate every run of a config.

    jaxrobust --config=quickstart

`python -m jaxrobust` and `python -m jaxrobust.main` are the same.
"""

import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from jaxrobust.core import config_files

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Name of a config below, or a file of your own."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of checkpoints and results; runs/<name of the config> if not given."
)
_MULTIHOST = flags.DEFINE_boolean(
    "multihost", False, "Join the other processes of this job (jax.distributed) before anything."
)
_CACHE = flags.DEFINE_string(
    "compilation_cache",
    None,
    "Folder where compiled programs are kept for the next call (those that call oneDNN cannot be); "
    "~/.cache/jaxrobust/xla if not given, empty for none.",
)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}.")
    import jax

    from jaxrobust.core import runtime

    if _MULTIHOST.value:
        jax.distributed.initialize()
    runtime.prepare(_CACHE.value)
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # what the libraries tell of themselves
    # Only now: these read the devices, which a job of several hosts must join first.
    from jaxrobust.training import study, train

    name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    workdir = Path(_WORKDIR.value or Path("runs") / name)
    try:
        results = study.run(_CONFIG.value, workdir)
    except (ValueError, TypeError, OSError, train.NotFinite) as error:
        if flags.FLAGS.verbosity > 0:
            raise
        notes = " ".join(n for n in getattr(error, "__notes__", ()) if n.startswith("jaxrobust"))
        sys.exit(f"{type(error).__name__}: {error} {notes}\n(--verbosity=1 shows where.)")
    except KeyboardInterrupt:
        sys.exit("Interrupted; the same command goes on from the last checkpoint.")
    except train.TrainingStopped as stopped:
        sys.exit(str(stopped))
    if jax.process_index() == 0:
        print(study.table(results))
        print(f"written to {workdir / 'results.json'}")


def parse(argv: list[str]) -> list[str]:
    """Parse the flags; a wrong one ends with one sentence, none or --help with what there is."""
    if not argv[1:] or any(flag in argv[1:] for flag in ("--help", "-help", "-h", "-?")):
        print(overview())
        sys.exit(0 if argv[1:] else 2)
    try:
        return flags.FLAGS(_with_paths(argv))
    except FileNotFoundError as error:
        sys.exit(str(error))
    except flags.Error as error:
        last = str(error).strip().splitlines()[-1]
        if "--config must have a value" in last:
            last = "ValueError: --config must be given: a config that --help lists, or a file."
        # A ValueError of the config's own is meant for its user; of another, the traceback helps.
        sys.exit(last if last.startswith("ValueError: ") else f"{error}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        sys.exit(f"A --config.… flag names no key of the config, or has the wrong type: {lines[0]}")


def _with_paths(argv: list[str]) -> list[str]:
    """The arguments, with the file of a config in the place of its name."""
    found, is_value = [], False
    for argument in argv:
        flag, equals, value = argument.partition("=")
        if is_value or (flag in ("--config", "-config") and equals):
            config, colon, given = (argument if is_value else value).partition(":")
            path = config_files.find(config)
            if config_files.is_plan(path):
                command = f"python -m jaxrobust.experiments.paper --config={config}"
                sys.exit(f"--config must be of trainings, got the plan of a report: {command}")
            named = f"{path}{colon}{given}"  # for get_config, after the colon
            argument = named if is_value else f"{flag}={named}"
        is_value = argument in ("--config", "-config")
        found.append(argument)
    return found


def overview() -> str:
    """What the command does, its flags, and what can be named in a config."""
    from jaxrobust import attacks, models
    from jaxrobust.data import catalog

    own = [flags.FLAGS[name] for name in ("config", "workdir", "multihost", "compilation_cache")]
    configs = config_files.summaries()
    reports = [name for name in configs if config_files.is_plan(config_files.FOLDER / f"{name}.py")]
    wide = max(map(len, configs))

    def described(names: Iterable[str]) -> list[str]:
        return [f"  {name:{wide}}  {_wrapped(configs[name], wide + 4)}" for name in names]

    return "\n".join(
        [
            "Trains (or resumes) and evaluates every run of a config, and writes a table.",
            "",
            "  jaxrobust --config=quickstart",
            "  jaxrobust --config=fashion_mnist --workdir=runs/mine --config.epochs=8",
            "  jaxrobust --config=my_config.py",
            "",
            "Flags (--helpfull: those of the libraries as well):",
            *(f"  --{flag.name:18} {_wrapped(flag.help, 23)}" for flag in own),
            f"  {'--config.KEY=VALUE':20} Another value for a key of the config.",
            "",
            "Configs:",
            *described(name for name in configs if name not in reports),
            "",
            "Reports, trainings included (python -m jaxrobust.experiments.paper --config=…):",
            *described(reports),
            "",
            f"Networks:  {_listed(models.names())}",
            f"Data sets: {_listed(catalog.names())}",
            f"Attacks:   {_listed((*attacks.ATTACKS, *attacks.DRIVERS))}",
        ]
    )


def _wrapped(text: str, indent: int) -> str:
    return f"\n{' ' * indent}".join(textwrap.wrap(text, 98 - indent))


def _listed(names: Iterable[str]) -> str:
    return _wrapped(", ".join(names), 11)


def command() -> None:
    """Run the command with the arguments of this process."""
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse)


if __name__ == "__main__":
    command()
