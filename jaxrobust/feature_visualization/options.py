"""How activation maximisation runs: the settings of the paper, the regularised ones, checks."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.core.checks import check_count, check_number, check_that, check_type, is_concrete
from jaxrobust.core.named import check_choice, check_options
from jaxrobust.feature_visualization import parameterizations
from jaxrobust.feature_visualization.parameterizations import Fourier, Pixel
from jaxrobust.feature_visualization.transformations import check as check_transformations
from jaxrobust.feature_visualization.transformations import standard_transformations

# "paper" is the protocol of the paper's Figures 3 and 15 to 19, "regularized" that of Olah et al.
# 2017 with lucid's settings.
STYLES: Mapping[str, Mapping[str, Any]] = {
    "paper": {
        "steps": 30,
        "learning_rate": 0.1,
        "weight_decay": 1e-6,
        "objective": "sum",
        "parameterization": Pixel(),
        "transformations": (),
    },
    "regularized": {
        "steps": 512,
        "learning_rate": 0.05,
        "weight_decay": 0.0,
        "objective": "mean",
        "parameterization": Fourier(),
        "transformations": standard_transformations,
    },
}


def _center(activation: jax.Array) -> jax.Array:
    return activation[tuple(size // 2 for size in activation.shape)]


OBJECTIVES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "sum": jnp.sum,
    "mean": jnp.mean,
    "neuron": _center,
}


def complete_options(
    image_shape: Sequence[int], *, style: str = "paper", **options: Any
) -> dict[str, Any]:
    """All options that `maximize` runs with, the style's filled in where they are None.

    Args:
      image_shape: (h, w, c); the regularised style's shifts are in proportion to it.
      style: "paper" or "regularized".
      **options: steps, learning_rate, weight_decay, objective, parameterization, transformations.

    Raises:
      TypeError, ValueError: for an unknown style or option, or one out of its range.

    Example:
      >>> complete_options((32, 32, 3), steps=10)["steps"], complete_options((32, 32, 3))["steps"]
      (10, 30)
    """
    shape = check_image_shape(image_shape)
    check_choice("style", style, STYLES)
    complete = dict(STYLES[style])
    check_options("maximize", options, complete)
    complete |= {name: value for name, value in options.items() if value is not None}
    if complete["transformations"] is standard_transformations:
        complete["transformations"] = standard_transformations(shape)
    complete["transformations"] = check_transformations(complete["transformations"])
    complete["parameterization"] = parameterizations.get(complete["parameterization"])
    objective = complete["objective"]
    exists = callable(objective) or objective in OBJECTIVES
    rule = f"be a function or one of {', '.join(OBJECTIVES)}"
    check_that(exists, "objective", rule, repr(objective))
    if is_concrete(complete["steps"]):
        check_count("steps", complete["steps"])
    for name in ("learning_rate", "weight_decay"):
        check_number(name, complete[name])
    for name in ("objective", "parameterization", "transformations"):
        check_type(name, complete[name], Hashable, "be hashable")
    return complete


def check_image_shape(image_shape: Any) -> tuple[int, int, int]:
    """(h, w, c) as plain integers; ValueError when it is no such thing."""
    sizes = tuple(image_shape) if isinstance(image_shape, Sequence | np.ndarray) else (image_shape,)
    whole = all(isinstance(size, int | np.integer) and not isinstance(size, bool) for size in sizes)
    rule = "be (height, width, channels), whole numbers of at least 1"
    check_that(len(sizes) == 3 and whole and min(sizes) > 0, "image_shape", rule, repr(image_shape))
    height, width, channels = map(int, sizes)
    return height, width, channels
