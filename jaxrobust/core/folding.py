"""Whether a BatchNorm may become part of the convolution before it: where weights stand still."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_folding = ContextVar("folding", default=False)


@contextlib.contextmanager
def folded_batch_norm() -> Iterator[None]:
    """Within it, `models.layers.convolve_and_normalize` is one convolution outside of training.

    Weights that stand still, as under an attack, are multiplied once instead of every output. Not
    for whoever looks at the convolutions' own outputs. To be entered inside of what is traced:
    a compiled function does not notice it.
    """
    token = _folding.set(True)
    try:
        yield
    finally:
        _folding.reset(token)


def asked_for() -> bool:
    """Whether this code runs within `folded_batch_norm`."""
    return _folding.get()
