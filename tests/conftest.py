"""Eight virtual CPU devices for every test, set before JAX starts."""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A folder in which embedded data sets are prepared once for all tests."""
    return tmp_path_factory.mktemp("data")
