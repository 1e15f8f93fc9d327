"""What a program of ours, unlike an import of the library, sets for its own process."""

import ctypes
import importlib.util
import json
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

# mallopt's parameters, as glibc's malloc.h numbers them.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def prepare(compilation_cache: str | None = None) -> None:
    """Keep compiled programs on disk for the next process and, on CPU, freed memory at hand.

    To be called first: before JAX starts its threads. Programs that call oneDNN (on CPU, jaxlib
    0.11 and newer) cannot be kept on disk.

    Args:
      compilation_cache: the folder of compiled programs; "" for none, None for what JAX has been
        told (`JAX_COMPILATION_CACHE_DIR`) or else ~/.cache/jaxrobust/xla.

    Example:
      >>> import jax
      >>> from jaxrobust import runtime
      >>> runtime.prepare()
      >>> jax.config.jax_compilation_cache_dir is not None
      True
    """
    if _only_cpu():
        keep_memory()
    if compilation_cache is None:
        told = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
        compilation_cache = told or str(Path.home() / ".cache" / "jaxrobust" / "xla")
    jax.config.update("jax_compilation_cache_dir", compilation_cache or None)


def _only_cpu() -> bool:
    """Whether JAX has nothing but the CPU; asked without starting it."""
    chosen = jax.config.jax_platforms  # type: ignore[attr-defined]
    if chosen:
        return chosen == "cpu"
    return not entry_points(group="jax_plugins") and importlib.util.find_spec("libtpu") is None


def keep_memory() -> None:
    """Keep freed memory for the next allocation instead of handing it back to the system.

    XLA on CPU allocates a program's temporary memory with each call. glibc maps blocks of that size
    anew each time, and every page is filled with zeros first: a sixth of a training step of a small
    network. So the process does not shrink any more. Does nothing where the C library is another.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_TOP_PAD, 2**26)
        mallopt(_ARENA_MAX, 1)


def from_first_process(value: Any) -> Any:
    """What the first process has, as JSON can hold it, in all processes: they must not disagree."""
    if jax.process_count() == 1:
        return value
    content = json.dumps(value).encode()
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    padded = np.frombuffer(content.ljust(size)[:size], np.uint8)
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes())


def from_all_processes(value: Any) -> list[Any]:
    """What each process has, as JSON can hold it, in all of them, in the order of the processes.

    Example:
      >>> from jaxrobust import runtime
      >>> runtime.from_all_processes({"right": 3})
      [{'right': 3}]
    """
    content = np.frombuffer(json.dumps(value).encode(), np.uint8)
    if jax.process_count() == 1:
        return [json.loads(content.tobytes())]
    sizes = multihost_utils.process_allgather(np.int32(len(content)))
    padded = np.pad(content, (0, int(np.max(sizes)) - len(content)))
    gathered = multihost_utils.process_allgather(padded)
    return [
        json.loads(part[:size].tobytes())
        for part, size in zip(np.asarray(gathered), sizes, strict=True)
    ]


def data_mesh() -> Mesh:
    """All devices along one axis, "data"."""
    return jax.make_mesh((jax.device_count(),), ("data",), (jax.sharding.AxisType.Auto,))
