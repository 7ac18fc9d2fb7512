"""Device functions of a text are compiled for the architecture that the kernel is for: numba-cuda would ask the GPU at
hand, and there may be none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from numba.cuda import dispatcher
from numba.cuda.core.compiler_lock import global_compiler_lock


@contextmanager
def compiling_for(capability: tuple[Any, ...]) -> Iterator[None]:
    """Within, numba-cuda takes this for the capability of the GPU at hand, while nobody else can compile."""
    with global_compiler_lock:
        dispatcher.get_current_device, before = _device_of(capability), dispatcher.get_current_device
        try:
            yield
        finally:
            dispatcher.get_current_device = before


def _device_of(capability: tuple[Any, ...]) -> Any:
    return lambda: SimpleNamespace(compute_capability=capability)
