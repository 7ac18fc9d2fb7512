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
from splat_numba.runtime.cuda.arrays import check_device
from splat_numba.runtime.cuda.copies import place_as, place_host
from splat_numba.runtime.cuda.device import Device
from splat_numba.runtime.cuda.frameworks import Framework, describe
from splat_numba.settings import Settings

TYPES = ("float32", "float64", "float16")  # that a copy on the device can convert


def place_omega(
    omega: Any, target: Device, framework: Framework, like: Any, stream: int, settings: Settings
) -> tuple[int, Any]:
    """The address, and what keeps it there. Raises ArgumentTypeError, BackendError."""
    if not on_gpu(omega):
        given = import_array("omega", omega)
        numbers = np.ascontiguousarray(widen(given.bits, given.dtype), np.float32)
        return place_host("omega", numbers, target, stream), None
    found = describe("omega", omega, framework)
    check_device("omega", found, target.ordinal)
    if found.dtype not in TYPES:
        raise ArgumentTypeError(
            f"omega wanted as one of {', '.join(TYPES)} on a GPU, got {found.dtype}. Convert it to float32."
        )
    return place_as(found, "float32", omega, target, framework, like, stream, settings)
