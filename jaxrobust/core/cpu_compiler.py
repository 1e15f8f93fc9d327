"""Which libraries XLA hands convolutions and matrix products to on CPU.

By itself jaxlib (0.10 to 0.12, at least) takes YNNPACK, which takes up to 16 times as long for
weight gradients as XLA's own kernels. From 0.11 on jaxlib also contains oneDNN, which PyTorch
computes with, and does not use it unless asked to. Here it is asked to, for every program of the
process that is compiled for CPU. No environment variable is set, so programs that this one starts
and other libraries that read `XLA_FLAGS` are left alone; what the user's own `XLA_FLAGS` or
`compiler_options` say of an option is what counts.

Two things are different with oneDNN: a program that calls it cannot be kept in JAX's persistent
compilation cache, and a ReLU right after a convolution and its bias turns NaN into 0.
`XLA_FLAGS=--xla_cpu_experimental_onednn_custom_call=false` does without.
"""

import contextlib
import functools
import os
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

try:
    from jax._src import compiler as _compiler
except ImportError:  # A jax without these internals is slower on CPU, and as correct.
    _compiler = None  # type: ignore[assignment]

_WANTED = {
    "xla_cpu_experimental_ynn_fusion_type": "",
    "xla_cpu_experimental_onednn_custom_call": True,
}

# Of one thread: others may compile while this one finds out which options there are.
_plain = ContextVar("plain", default=False)


@contextlib.contextmanager
def plain_options() -> Iterator[None]:
    """Within it, programs are compiled for CPU as JAX compiles them by itself."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def _known(options: dict[str, Any]) -> bool:
    """Whether this jaxlib compiles with these options: of unknown ones it says so."""
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def _asked() -> str:
    """What the user's XLA_FLAGS say, or the file that they name."""
    flags = os.environ.get("XLA_FLAGS", "").strip()
    if flags and not flags.startswith("-") and Path(flags).is_file():
        return Path(flags).read_text()
    return flags


@functools.cache
def options() -> dict[str, Any]:
    """The compiler options for CPU, by XLA's names: those that this jaxlib knows.

    Raises:
        RuntimeError: When JAX has no CPU to compile for.
    """
    free = {name: value for name, value in _WANTED.items() if name not in _asked()}
    with plain_options(), jax.default_device(jax.local_devices(backend="cpu")[0]):
        return {name: value for name, value in free.items() if _known({name: value})}


def has_onednn() -> bool:
    """Whether convolutions and matrix products for CPU are compiled to calls of oneDNN."""
    try:
        return _calls_onednn(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # Programs can be lowered for a CPU that this process cannot use.
        return False


@functools.cache
def _calls_onednn(cpu: jax.Device) -> bool:
    side = jax.ShapeDtypeStruct((1024, 1024), jnp.float32)
    with jax.default_device(cpu):
        product = jax.jit(jnp.dot, compiler_options=options()).lower(side, side).compile()
    return "__onednn$matmul" in (product.as_text() or "")


def install() -> None:
    """Compile with `options()` from now on; does nothing where this jax does not let it."""
    if _compiler is None or hasattr(_compiler.get_compile_options, "for_cpu"):
        return
    plain = _compiler.get_compile_options

    @functools.wraps(plain)
    def get_compile_options(*args: Any, **kwargs: Any) -> Any:
        if getattr(kwargs.get("backend"), "platform", None) != "cpu" or _plain.get():
            return plain(*args, **kwargs)
        own = kwargs.get("env_options_overrides") or {}
        return plain(*args, **kwargs | {"env_options_overrides": options() | dict(own)})

    get_compile_options.for_cpu = True  # type: ignore[attr-defined]
    _compiler.get_compile_options = get_compile_options
    ignore_cache_warnings()


def ignore_cache_warnings() -> None:
    """Do not repeat, for each program that calls oneDNN, that it cannot be kept in the cache."""
    warnings.filterwarnings(
        "ignore", "Error writing persistent compilation cache entry .*MemoryError"
    )
