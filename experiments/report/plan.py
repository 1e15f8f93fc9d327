"""What a report consists of: trainings and experiments, as a config of `experiments.paper` has it.

A file `configs/paper_*.py` defines `get_plan()`, which returns a `Plan`. In overrides and arguments
the text "{runs}" stands for the folder of the trainings.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.fine_tunings import SETTINGS


@dataclass(frozen=True)
class Study:
    """Trainings of one config: `python -m jaxrobust.main`.

    Attributes:
      name: of its workdir in the folder of trainings.
      config: file of the training's config, perhaps with a colon and an argument.
      overrides: {key of the config: value}.
      minutes: what it is expected to take.
    """

    name: str
    config: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    minutes: float = 1.0

    @property
    def title(self) -> str:
        """For progress lines."""
        return f"training {self.name}"


@dataclass(frozen=True)
class Experiment:
    """One table or figure: `python -m experiments.<module>`.

    Attributes:
      module: of `experiments`; also the name of its record.
      studies: names of those whose trainings it examines; none for an experiment without trainings.
      arguments: of its command, as in a shell, besides where trainings are and figures go.
      minutes: what it is expected to take.
    """

    module: str
    studies: Sequence[str] = ()
    arguments: str = ""
    minutes: float = 1.0

    @property
    def name(self) -> str:
        """Of the stage."""
        return self.module

    @property
    def title(self) -> str:
        """For progress lines."""
        return self.module.replace("_", " ")


@dataclass(frozen=True)
class Plan:
    """All of a report.

    Attributes:
      title: of the page.
      summary: what this report is, in a sentence or two.
      studies: in the order of training; one may start from those before it.
      experiments: in the order of running.
      notes: sentences on where the evidence comes from, besides what the page itself can say.
    """

    title: str
    summary: str
    studies: Sequence[Study]
    experiments: Sequence[Experiment]
    notes: Sequence[str] = ()

    def check(self) -> None:
        """That names are told apart and refer to something.

        Raises:
          ValueError: else.
        """
        names = [stage.name for stage in (*self.studies, *self.experiments)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"stages must have names of their own, got {name!r} twice.")
        for experiment in self.experiments:
            for study in experiment.studies:
                if study not in names[: len(self.studies)]:
                    raise ValueError(
                        f"{experiment.module} must examine studies of the plan, "
                        f"{', '.join(names[: len(self.studies)])}, got {study!r}."
                    )


def backbones(task: str, folders: str) -> dict[str, tuple[str, ...]]:
    """Overrides of a config of late fusion: where the backbones of a task's five settings are.

    Args:
      task: what the names of its runs begin with.
      folders: of the backbones' trainings; "*" stands for std or adv.

    Example:
      >>> backbones("digits", "{runs}/quick/*")["runs.digits_std+adv.pretrained.backbones"]
      ('{runs}/quick/std', '{runs}/quick/adv')
    """
    return {
        f"runs.{task}_{setting}.pretrained.backbones": tuple(
            folders.replace("*", run) for run in setting.split("+")
        )
        for setting in map(str.lower, SETTINGS)
    }


def load(path: str | Path) -> Plan:
    """The plan that a config defines.

    Raises:
      FileNotFoundError: when there is no such file.
      ValueError: when it defines no plan, or one that contradicts itself.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"--config must be a file of configs, got {path}, which is none.")
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
