"""The CUDA driver: asked for when first needed, its errors as ours."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, NoReturn

from splat_numba.errors import BackendError

INSTALL = 'python -m pip install "splat-numba[cuda]"'


@cache
def driver() -> Any:
    """cuda.bindings.driver, initialised. Raises BackendError without the package, the driver or a GPU."""
    try:
        module = import_module("cuda.bindings.driver")
    except ImportError as error:
        raise BackendError(
            f"backend 'cuda' wanted the packages of the extra 'cuda', got {error}. Run: {INSTALL}"
        ) from error
    try:
        status = module.cuInit(0)[0]
        count = 0 if int(status) else int(module.cuDeviceGetCount()[1])
    except RuntimeError as error:  # what cuda.pathfinder raises where there is no libcuda
        raise BackendError(_no_gpu("no NVIDIA driver (libcuda)")) from error
    if int(status):
        raise BackendError(_no_gpu(f"{status.name} from the driver"))
    if not count:
        raise BackendError(_no_gpu("a driver without any device"))
    return module


def addresses(*names: str) -> list[int]:
    """Where functions of the driver stand in memory, for code that is no Python. Raises BackendError as driver()."""
    driver()
    library = ctypes.CDLL("libcuda.so.1")
    return [ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in names]


def _no_gpu(found: str) -> str:
    return f"backend 'cuda' wanted an NVIDIA GPU, got {found}. Run it where one is, or give backend='cpu'."


def ask(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a driver function. Raises BackendError, naming the function and the driver's code."""
    status, *results = function(*arguments)
    if status:
        refuse(function.__name__, status)
    return results[0] if len(results) == 1 else results


def refuse(name: str, status: Any) -> NoReturn:
    """Raise BackendError for a driver function's code."""
    raise BackendError(
        f"{name} wanted to succeed, got {status.name} from the CUDA driver. An earlier kernel may have failed: "
        "run with CUDA_LAUNCH_BLOCKING=1 to see which, or give backend='cpu'."
    )
