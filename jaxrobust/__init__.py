"""What do adversarially robust models look at? Train, attack and look inside, in JAX."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from jaxrobust.classifier import Classifier, as_classifier
from jaxrobust.core import cpu_lowering
from jaxrobust.version import __version__

cpu_lowering.install()

# Imported at first use: attacking a model of one's own must not wait for the data libraries. The
# rooms beside their doors: users say `jaxrobust.checkpoints`, in whichever room it is kept.
_ROOMS = {
    "attacks": "jaxrobust",
    "checkpoints": "jaxrobust.training",
    "config": "jaxrobust.training",
    "data": "jaxrobust",
    "evaluate": "jaxrobust.evaluation",
    "feature_visualization": "jaxrobust",
    "filters": "jaxrobust",
    "guided": "jaxrobust",
    "map_metrics": "jaxrobust",
    "models": "jaxrobust",
    "norms": "jaxrobust.attacks",
    "plots": "jaxrobust",
    "runtime": "jaxrobust.core",
    "saliency": "jaxrobust",
    "study": "jaxrobust.training",
    "stylization": "jaxrobust",
    "torch_weights": "jaxrobust",
    "train": "jaxrobust.training",
}

if TYPE_CHECKING:  # for editors, which do not run `__getattr__`
    from jaxrobust import attacks as attacks
    from jaxrobust import data as data
    from jaxrobust import feature_visualization as feature_visualization
    from jaxrobust import filters as filters
    from jaxrobust import guided as guided
    from jaxrobust import map_metrics as map_metrics
    from jaxrobust import models as models
    from jaxrobust import plots as plots
    from jaxrobust import saliency as saliency
    from jaxrobust import stylization as stylization
    from jaxrobust import torch_weights as torch_weights
    from jaxrobust.attacks import norms as norms
    from jaxrobust.core import runtime as runtime
    from jaxrobust.evaluation import evaluate as evaluate
    from jaxrobust.training import checkpoints as checkpoints
    from jaxrobust.training import config as config
    from jaxrobust.training import study as study
    from jaxrobust.training import train as train

__all__ = ["Classifier", "__version__", "as_classifier", *_ROOMS]


def __getattr__(name: str) -> ModuleType:
    if name in _ROOMS:
        return importlib.import_module(f"{_ROOMS[name]}.{name}")
    raise AttributeError(f"module 'jaxrobust' has no attribute {name!r}")
