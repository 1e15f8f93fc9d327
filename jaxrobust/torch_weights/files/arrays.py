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
    steps = [step * dtype.itemsize for step in _sizes(strides)]
    # NumPy checks that the elements lie within the storage.
    array = np.ndarray(
        _sizes(shape), dtype, storage.view(np.uint8), offset=offset * dtype.itemsize, strides=steps
    )
    if further and any((further[0] or {}).values()):
        raise ProblemError("holds a tensor conjugated or negated lazily, which is not supported")
    array.flags.writeable = False
    return array


def _sizes(values: Any) -> tuple[int, ...]:
    """A shape or strides: few, and none so large that a product of them takes long."""
    if not isinstance(values, tuple | list) or len(values) > 64:
        raise ValueError("a shape or strides that are not a few numbers")
    if not all(isinstance(value, int) and abs(value) < 1 << 63 for value in values):
        raise ValueError("a shape or strides that are not whole numbers of at most 64 bits")
    return tuple(values)


def cast(data: np.ndarray, dtype: np.dtype, *_: Any) -> np.ndarray:
    """Of `_rebuild_device_tensor_from_numpy`: PyTorch wrote numbers of at least that size."""
    if not isinstance(dtype, np.dtype) or dtype.itemsize > data.dtype.itemsize:
        raise ValueError(f"an array of {data.dtype} for a tensor of another dtype")
    return data.astype(dtype)


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
    if order not in ("=", "|", "<", ">"):
        raise ValueError("a dtype of another byte order")
    return np.dtype(code) if order == "|" else np.dtype(code).newbyteorder(order)


def numpy_scalar(dtype: Placeholder, content: Any) -> Any:
    if numpy_dtype(dtype).kind == "O":
        return content
    return np.frombuffer(raw_bytes(content), numpy_dtype(dtype), count=1)[0]


def restore_numpy(array: Any, state: tuple) -> None:
    _, shape, described, fortran, content = state
    shape, dtype = _sizes(shape), numpy_dtype(described)
    unit = 1 if dtype.kind == "O" else dtype.itemsize
    content = list(content) if dtype.kind == "O" else raw_bytes(content)
    # NumPy would trust these figures.
    if min(shape, default=0) < 0 or len(content) != math.prod(shape) * unit:
        raise ValueError(f"an array of shape {shape} does not fit its contents")
    array.__setstate__((1, shape, dtype, bool(fortran), content))
    array.flags.writeable = False


def numpy_frombuffer(content: Any, dtype: Placeholder, shape: Any, order: Any) -> np.ndarray:
    flat = np.frombuffer(raw_bytes(content), numpy_dtype(dtype))
    return flat.reshape(_sizes(shape), order=order)


def raw_bytes(content: Any) -> bytes:
    """Python 2 wrote bytes as a string."""
    if not isinstance(content, str | bytes | bytearray):
        raise TypeError(f"a {type(content).__name__} for bytes")
    return content.encode("latin1") if isinstance(content, str) else bytes(content)
