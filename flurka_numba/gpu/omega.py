"""Random rows omega as the stages read them: float32 (rows, head_dim), contiguous, on the device.

Nothing made from omega outlives a call: stages read it anew, since one on a GPU may have changed in place, in a
captured graph as well. One of the host is uploaded where its numbers are new.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from splat_numba.errors import ArgumentTypeError
from splat_numba.gen.language.halves import widen
from splat_numba.runtime.arrays import import_array, on_gpu
from splat_numba.runtime.cuda.arrays import GpuArray, check_same_device, contiguous_strides
from splat_numba.runtime.cuda.copies import move
from splat_numba.runtime.cuda.device import Device
from splat_numba.runtime.cuda.frameworks import Framework, describe
from splat_numba.runtime.cuda.launch import is_capturing
from splat_numba.runtime.cuda.tables import pool_for
from splat_numba.settings import Settings

TYPES = {"float32": "<f4", "float64": "<f8", "float16": "<f2"}  # that a copy on the device can convert


def place_omega(
    omega: Any, target: Device, framework: Framework, like: Any, stream: int, settings: Settings
) -> tuple[int, Any]:
    """The address, and what keeps it there. Raises ArgumentTypeError, BackendError."""
    if not on_gpu(omega):
        return _place_host(omega, target, stream), None
    found = describe("omega", omega, framework)
    check_same_device({"q": GpuArray(0, (), (), "", target.ordinal, ""), "omega": found})
    if found.dtype not in TYPES:
        raise ArgumentTypeError(
            f"omega wanted as one of {', '.join(TYPES)} on a GPU, got {found.dtype}. Convert it to float32."
        )
    rows, head_dim = found.shape
    steps = contiguous_strides((rows, head_dim), 4)
    if found.dtype == "float32" and found.strides == steps:
        return found.pointer, omega
    fresh = framework.empty((rows, head_dim), "float32", like)
    place = framework.address(fresh)
    with target.current():
        types = (TYPES["float32"], TYPES[found.dtype])
        move(place, (0, 0, *steps), found.pointer, (0, 0, *found.strides), (1, 1, rows, head_dim), stream, types,
             settings.cuda_compiler)  # fmt: skip
    return place, fresh


def _place_host(omega: Any, target: Device, stream: int) -> int:
    given = import_array("omega", omega)
    numbers = np.ascontiguousarray(widen(given.bits, given.dtype), np.float32)
    slots = pool_for(target, numbers.nbytes)
    with target.current():
        return slots.get(("omega", numbers.tobytes()), lambda: numbers, lambda: is_capturing(stream))
