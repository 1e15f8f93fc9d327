"""What a program sets for its own process, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def _run(code, **environment):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=kept | environment
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        ("", {}, str(Path.home() / ".cache/jaxrobust/xla")),
        ("", {"JAX_COMPILATION_CACHE_DIR": "told"}, "told"),
        ("'asked'", {"JAX_COMPILATION_CACHE_DIR": "told"}, "asked"),
        ("''", {"JAX_COMPILATION_CACHE_DIR": "told"}, "None"),
    ],
)
def test_where_compiled_programs_are_kept(given, environment, expected):
    code = f"""
import jax
from jaxrobust import runtime
runtime.prepare({given})
print(jax.config.jax_compilation_cache_dir)
"""
    assert _run(code, **environment) == expected


@pytest.mark.parametrize(("platforms", "kept"), [("cpu", "True"), ("cuda,cpu", "False")])
def test_memory_is_kept_where_there_is_only_the_cpu(platforms, kept):
    code = """
from jaxrobust import runtime
called = []
runtime.keep_memory = lambda: called.append(True)
runtime.prepare("")
print(bool(called))
"""
    assert _run(code, JAX_PLATFORMS=platforms) == kept


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_freed_memory_is_kept():
    code = """
import ctypes, resource
from jaxrobust import runtime

library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
size = 2**26

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        block = ctypes.c_void_p(library.malloc(ctypes.c_size_t(size)))
        library.memset(block, 1, ctypes.c_size_t(size))
        library.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

handed_back = faults()
runtime.keep_memory()
faults()  # the first is still new to the process
print(handed_back, faults())
"""
    handed_back, kept = map(int, _run(code).split())
    assert kept < handed_back / 10
