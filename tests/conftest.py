"""Set before JAX starts: eight virtual CPU devices, and a compilation cache for all processes."""

import os
import tempfile

# Programs run once or twice here, so LLVM's first level halves the time of a test. What users get,
# its highest, .ci/run's own trainings are compiled with.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=1"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Most of the time goes into compiling. Workers and the programs that tests start inherit the
# folder; it lasts as long as the test run, unless the caller names one that is to stay.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="jaxrobust-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax
import pytest

collect_ignore = ["fixtures"]  # scripts that make fixtures, some with PyTorch


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory, worker_id):
    """A folder in which embedded data sets are prepared once for all tests of all workers."""
    root = tmp_path_factory.getbasetemp()
    folder = (root if worker_id == "master" else root.parent) / "data"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def quickly_compiled():
    """For programs that run once, on few pictures: most time would go into optimising them."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
