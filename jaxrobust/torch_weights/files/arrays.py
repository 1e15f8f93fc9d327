"""Tensors and arrays from the parts that a file gives of them, checked against each other."""

import math
import re
from typing import Any

import numpy as np

from jaxrobust.torch_weights.files.names import Placeholder, ProblemError, storage_dtype


def tensor(storage, offset, shape, strides, requires_grad=None, hooks=None, *further) -> np.ndarray:
    """Of `_rebuild_tensor`, `_v2` (further: metadata) and `_v3` (further: dtype, metadata)."""
    dtype = storage.dtype
    if further and isinstance(further[0], np.dtype):
        dtype, further = further[0], further[1:]
    steps = [step * dtype.itemsize for step in strides]
    # NumPy checks that the elements lie within the storage.
    array = np.ndarray(
        shape, dtype, storage.view(np.uint8), offset=offset * dtype.itemsize, strides=steps
    )
    if further and any((further[0] or {}).values()):
        raise ProblemError("holds a tensor conjugated or negated lazily, which is not supported")
    array.flags.writeable = False
    return array


def swap_bytes(content: np.ndarray, of: Placeholder) -> np.ndarray:
    """The bytes of a storage of a class as this machine has them, from the other byte order."""
    dtype = storage_dtype(of)
    if "Untyped" in of.name:
        raise ProblemError("was written on a big-endian machine with dtypes that are not supported")
    numbers = dtype.itemsize // (2 if dtype.kind == "c" else 1)
    swapped = content.view(f"u{numbers}").byteswap().view(np.uint8)
    swapped.flags.writeable = False
    return swapped


def numpy_dtype(described: Any) -> np.dtype:
    """Of a Placeholder of numpy.dtype: real dtypes have a state that a file must not set."""
    code = described.arguments[0]
    if not re.fullmatch(r"[biufcSUO]\d*", code):
        raise ProblemError(f"holds a NumPy array of dtype {code!r}, which is not supported")
    order = described.state[1] if described.state else "="
    return np.dtype(code) if order == "|" else np.dtype(code).newbyteorder(order)


def numpy_scalar(dtype: Placeholder, content: Any) -> Any:
    if numpy_dtype(dtype).kind == "O":
        return content
    return np.frombuffer(raw_bytes(content), numpy_dtype(dtype), count=1)[0]


def restore_numpy(array: Any, state: tuple) -> None:
    _, shape, described, fortran, content = state
    dtype = numpy_dtype(described)
    unit = 1 if dtype.kind == "O" else dtype.itemsize
    content = list(content) if dtype.kind == "O" else raw_bytes(content)
    # NumPy would trust these figures.
    if min(shape, default=0) < 0 or len(content) != math.prod(shape) * unit:
        raise ValueError(f"an array of shape {shape} does not fit its contents")
    array.__setstate__((1, tuple(shape), dtype, bool(fortran), content))
    array.flags.writeable = False


def numpy_frombuffer(content: Any, dtype: Placeholder, shape: Any, order: Any) -> np.ndarray:
    return np.frombuffer(raw_bytes(content), numpy_dtype(dtype)).reshape(shape, order=order)


def raw_bytes(content: Any) -> bytes:
    """Python 2 wrote bytes as a string."""
    return content.encode("latin1") if isinstance(content, str) else bytes(memoryview(content))
