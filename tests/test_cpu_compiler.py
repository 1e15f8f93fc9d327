"""The compiler options for CPU: used, only where known, and never against the user's own."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import pytest

from jaxrobust.core import cpu_compiler

YNNPACK = "xla_cpu_experimental_ynn_fusion_type"
ONEDNN = "xla_cpu_experimental_onednn_custom_call"
pytestmark = [
    pytest.mark.skipif(jax.default_backend() != "cpu", reason="options for CPU"),
    pytest.mark.skipif(
        YNNPACK in os.environ.get("XLA_FLAGS", ""), reason="XLA_FLAGS say it otherwise"
    ),
]
PROGRAM = """
import jax, jax.numpy as jnp
if {late}:
    jax.devices()
from jaxrobust.core import cpu_compiler
print(sorted(cpu_compiler.options()), cpu_compiler.has_onednn())
images, kernel = jnp.ones((8, 16, 16, 32)), jnp.ones((3, 3, 32, 32))
options = dict(window_strides=(1, 1), padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
convolve = jax.jit(lambda images, kernel: jax.lax.conv_general_dilated(images, kernel, **options))
text = convolve.lower(images, kernel).compile().as_text()
print("ynn_fusion" in text, "__onednn$convolution" in text)
"""


def _run(flags="", late=False):
    """What the program prints: names of the options, has_onednn; YNNPACK and oneDNN in use."""
    environment = os.environ | {"XLA_FLAGS": flags}
    command = [sys.executable, "-c", PROGRAM.format(late=late)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    (options, has_onednn), (ynnpack, onednn) = (
        line.rsplit(" ", 1) for line in done.stdout.strip().splitlines()
    )
    assert has_onednn == onednn
    return options, ynnpack == "True", onednn == "True"


def test_products_are_not_left_to_the_slow_library():
    options, ynnpack, onednn = _run()
    assert YNNPACK in options
    assert not ynnpack
    assert _run(late=True) == (options, ynnpack, onednn)


def test_what_the_user_asks_for_in_xla_flags_counts():
    options, _, onednn = _run(f"--{ONEDNN}=false")
    assert ONEDNN not in options
    assert not onednn
    kinds = "LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
    options, ynnpack, _ = _run(f"--{YNNPACK}={kinds} --{ONEDNN}=false")
    assert options == "[]"
    assert ynnpack


def test_what_the_user_asks_for_in_a_file_of_flags_counts(tmp_path):
    file = tmp_path / "flags"
    file.write_text(f"--{ONEDNN}=false")
    options, _, onednn = _run(str(file))
    assert ONEDNN not in options
    assert not onednn


def test_threads_that_compile_while_the_options_are_found_out_use_them_too():
    cpu_compiler.options.cache_clear()

    def compiled(size):
        side = jnp.ones((size, size))
        return jax.jit(lambda a: a @ a + size).lower(side).compile().as_text()

    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(compiled, range(300, 308)))
    assert not any("ynn_fusion" in text for text in texts)


def test_lowering_for_a_cpu_that_is_not_there(monkeypatch):
    def none(**_):
        raise RuntimeError("Unknown backend cpu")

    monkeypatch.setattr(jax, "local_devices", none)
    assert cpu_compiler.has_onednn() is False


def test_what_the_user_asks_for_in_jit_counts():
    side = jnp.ones((256, 256))
    kinds = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
    for chosen, expected in (({}, False), ({YNNPACK: kinds, ONEDNN: False}, True)):
        product = jax.jit(jnp.dot, compiler_options=chosen).lower(side, side)
        assert ("ynn_fusion" in product.compile().as_text()) == expected


def test_options_that_this_jaxlib_does_not_know_are_left_out(monkeypatch):
    monkeypatch.setitem(cpu_compiler._WANTED, "xla_cpu_of_another_version", True)
    cpu_compiler.options.cache_clear()
    try:
        assert "xla_cpu_of_another_version" not in cpu_compiler.options()
        assert jax.jit(lambda x: x + 41)(1) == 42
    finally:
        cpu_compiler.options.cache_clear()


def test_the_environment_stays_as_it_is():
    code = "import os, jax, jaxrobust; jax.jit(lambda x: x + 1)(1); print(os.environ['XLA_FLAGS'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"XLA_FLAGS": "--xla_cpu_max_isa=AVX2"},
    )
    assert done.stdout.strip() == "--xla_cpu_max_isa=AVX2"
