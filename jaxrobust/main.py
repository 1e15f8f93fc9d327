"""Train (or resume) and evaluate every run of a config: python -m jaxrobust.main --config=…"""

import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/.")
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
    """Parse the flags; a wrong one ends with one sentence."""
    for argument in argv[1:]:
        name, _, value = argument.lstrip("-").partition("=")
        path = value.partition(":")[0]  # what follows the colon is get_config's argument
        if name == "config" and not Path(path).is_file():
            sys.exit(f"--config must be a file of configs, got {path!r}, which does not exist.")
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        last = str(error).strip().splitlines()[-1]
        # A ValueError of the config's own is meant for its user; of another, the traceback helps.
        sys.exit(last if last.startswith("ValueError: ") else f"{error}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        sys.exit(f"A --config.… flag names no key of the config, or has the wrong type: {lines[0]}")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse)
