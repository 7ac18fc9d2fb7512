"""Options, markers and settings of the whole test run."""

import ctypes
import os
import shutil
import tempfile
import time

if "PYTEST_XDIST_WORKER" in os.environ:  # else every worker multiplies matrices with as many threads as there are cores
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when NumPy is imported

import numpy as np
import pytest
from hypothesis import settings

# No deadline: the first run of an example may compile a kernel. derandomize: a commit passes or fails on its own
# merits; HYPOTHESIS_PROFILE=explore looks for new failures instead.
settings.register_profile("fixed", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("explore", deadline=None, max_examples=1000, print_blob=True)
# Other cases every night, from a seed that the header prints, and more where a test does not say how many.
settings.register_profile("nightly", deadline=None, derandomize=False, max_examples=300, print_blob=True, database=None)
# tests/mutants.py runs tests by the hundred.
settings.register_profile("mutants", deadline=None, derandomize=True, max_examples=25, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


# JAX takes 75 % of a GPU when it starts, which leaves nothing for the other workers. Child processes inherit it.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write the golden sources instead of comparing with them"
    )


def pytest_configure(config: pytest.Config) -> None:
    # A fresh kernel cache per run: no test reads what an older version left. Worker and child processes inherit it.
    if "SPLAT_CACHE_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="splat-test-cache-")
        os.environ["SPLAT_CACHE_DIR"] = folder

        def remove() -> None:
            del os.environ["SPLAT_CACHE_DIR"]
            shutil.rmtree(folder, ignore_errors=True)

        config.add_cleanup(remove)


def pytest_cmdline_main(config: pytest.Config) -> None:
    """Of the profile nightly: a seed for all workers, which Hypothesis takes from its own option."""
    if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" and config.getoption("--hypothesis-seed") is None:
        config.option.hypothesis_seed = str(time.time_ns() % 2**32)


def pytest_report_header(config: pytest.Config) -> str:
    return f"hypothesis seed: {config.getoption('--hypothesis-seed') or 'derived from the tests'}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = _why_no_gpu()
    if missing:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=missing))


def _why_no_gpu() -> str:
    """Ask the driver itself, so that CPU runs load no CUDA package."""
    if os.environ.get("SPLAT_TEST_EMULATED") == "1":
        return ""  # tests/gpu/conftest.py
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver (libcuda.so.1)"
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return "no NVIDIA GPU"
    return ""


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20250)


@pytest.fixture
def cuda_compiler() -> None:
    """The CUDA compiler, which needs no GPU; without the extra `cuda` a test is skipped."""
    for package in ("numba_cuda", "cuda.core"):
        pytest.importorskip(package, reason="needs the extra cuda")
