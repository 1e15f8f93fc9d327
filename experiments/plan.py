"""What a report consists of: trainings and experiments, as configs of `paper` have it.

A file `configs/paper_*.py` defines `get_plan()`, which returns a `Plan`. In overrides and arguments
the text "{runs}" stands for the folder of the trainings.
"""

import importlib.util
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxrobust.core import config_files
from jaxrobust.experiments.fine_tunings import SETTINGS


@dataclass(frozen=True)
class Study:
    """Trainings of one config: `python -m jaxrobust.main`.

    Attributes:
      name: of its workdir in the folder of trainings.
      config: file of the training's config, perhaps with a colon and an argument.
      overrides: {key of the config: value}.
      starts_from: names of the studies before it whose trainings it reads.
      minutes: what it is expected to take.
    """

    name: str
    config: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    starts_from: Sequence[str] = ()
    minutes: float = 1.0

    @property
    def title(self) -> str:
        """For progress lines."""
        return f"training {self.name}"

    def command(self, runs: Path) -> list[str]:
        """What Python is started with; `runs` is the folder of the trainings."""
        overrides = [
            f"--config{_flag(key)}={_placed(value, runs)}" for key, value in self.overrides.items()
        ]
        workdir = f"--workdir={runs / self.name}"
        return ["-m", "jaxrobust.main", f"--config={self.config}", workdir, *overrides]


@dataclass(frozen=True)
class Experiment:
    """One table or figure: `python -m jaxrobust.experiments.<name>`.

    Attributes:
      name: of its module in `experiments`, and of its record.
      starts_from: names of the studies whose trainings it examines; none for an experiment without
        trainings.
      arguments: of its command, as in a shell, besides where trainings are and figures go.
      minutes: what it is expected to take.
    """

    name: str
    starts_from: Sequence[str] = ()
    arguments: str = ""
    minutes: float = 1.0

    @property
    def title(self) -> str:
        """For progress lines."""
        return self.name.replace("_", " ")

    def command(self, runs: Path, studies: Sequence[str], figures: Path) -> list[str]:
        """What Python is started with.

        Args:
          runs: folder of the trainings.
          studies: names of those to examine.
          figures: folder of the figures.
        """
        workdirs = ["--workdirs", *(str(runs / study) for study in studies)]
        return [
            *["-m", f"jaxrobust.experiments.{self.name}"],
            *(workdirs if self.starts_from else []),
            *["--out", str(figures)],
            *(_placed(argument, runs) for argument in shlex.split(self.arguments)),
        ]


@dataclass(frozen=True)
class Plan:
    """All of a report.

    Attributes:
      title: of the page.
      summary: what this report is, in a sentence or two.
      studies: in the order of training.
      experiments: in the order of running, and of the page.
      notes: sentences on where the evidence comes from, besides what the page itself can say.
    """

    title: str
    summary: str
    studies: Sequence[Study]
    experiments: Sequence[Experiment]
    notes: Sequence[str] = ()

    @property
    def stages(self) -> list[Study | Experiment]:
        """All of it, in order."""
        return [*self.studies, *self.experiments]

    def check(self) -> None:
        """Raises ValueError unless names are told apart and refer to something."""
        names = [stage.name for stage in self.stages]
        for position, stage in enumerate(self.stages):
            if stage.name in names[:position]:
                raise ValueError(f"stages must have names of their own, got {stage.name!r} twice.")
            before = names[: min(position, len(self.studies))]
            for name in stage.starts_from:
                if name not in before:
                    raise ValueError(
                        f"{stage.name} must start from studies of the plan that come before it, "
                        f"{', '.join(before) or 'none here'}, got {name!r}."
                    )


def backbones(tasks: Sequence[str], folders: str) -> dict[str, tuple[str, ...]]:
    """Overrides of a config of late fusion: where the backbones of its tasks' five settings are.

    Args:
      tasks: what the names of its runs begin with.
      folders: of the backbones' trainings; "*" stands for std or adv.

    Example:
      >>> backbones(["digits"], "{runs}/quick/*")["runs.digits_std+adv.pretrained.backbones"]
      ('{runs}/quick/std', '{runs}/quick/adv')
    """
    return {
        f"runs.{task}_{setting}.pretrained.backbones": tuple(
            folders.replace("*", run) for run in setting.split("+")
        )
        for task in tasks
        for setting in map(str.lower, SETTINGS)
    }


def load(path: str | Path) -> Plan:
    """The plan that a config defines.

    Raises:
      FileNotFoundError: when there is no such file.
      ValueError: when it defines no plan, or one that contradicts itself.
    """
    path = config_files.find(path)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"--config must be a Python file, got {path}.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_plan"):
        raise ValueError(
            f"{path} must define get_plan(), as configs/paper_quick.py does; configs of trainings "
            "are for python -m jaxrobust.main."
        )
    plan = module.get_plan()
    plan.check()
    return plan


def _flag(key: str) -> str:
    """A key with dots as flags take it.

    Example:
      >>> _flag("runs.std+adv.seeds")
      ".runs['std+adv'].seeds"
    """
    parts = key.split(".")
    return "".join(f".{part}" if part.isidentifier() else f"[{part!r}]" for part in parts)


def _placed(value: Any, runs: Path) -> Any:
    """A value with the folder of the trainings put in."""
    if isinstance(value, str):
        return value.replace("{runs}", str(runs))
    if isinstance(value, list | tuple):
        return tuple(_placed(part, runs) for part in value)
    return value
