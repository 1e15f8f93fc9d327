"""What do adversarially robust models look at? Train, attack and look inside, in JAX."""

import importlib

from jaxrobust import cpu_lowering
from jaxrobust.classifier import Classifier, as_classifier
from jaxrobust.version import __version__

cpu_lowering.install()

# Imported at first use: attacking a model of one's own must not wait for the data libraries.
_MODULES = (
    "attacks",
    "checkpoints",
    "config",
    "data",
    "evaluate",
    "feature_visualization",
    "filters",
    "guided",
    "map_metrics",
    "models",
    "norms",
    "plots",
    "runtime",
    "saliency",
    "study",
    "stylization",
    "torch_weights",
    "train",
)

__all__ = ["Classifier", "__version__", "as_classifier", *_MODULES]


def __getattr__(name: str):
    if name in _MODULES:
        return importlib.import_module(f"jaxrobust.{name}")
    raise AttributeError(f"module 'jaxrobust' has no attribute {name!r}")
