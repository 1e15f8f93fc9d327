"""What methods take and give, for type checkers and editors."""

from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import jax
import numpy as np

AnyClassifier = Callable[[jax.Array], jax.Array]  # from one image to logits (k,)
Images = jax.Array | np.ndarray  # or maps: (h, w, c) or (n, h, w, c)
Labels = jax.Array | np.ndarray | np.integer | Sequence[int] | int  # () or (n,)
Number = jax.Array | np.number | float  # a scalar, which may be traced
Pixels = jax.Array | np.ndarray | Sequence[float] | float  # one value for all, or one a channel
Method = Callable[..., jax.Array]  # an attack, a saliency method or a filter, by name

# Of functions that are handed on with their signature.
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
