"""Key lengths as the kernels want them: int32 on the device, one a batch entry."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.runtime.cuda.arrays import GpuArray, check_same_device
from splat_numba.runtime.cuda.copies import place_as
from splat_numba.runtime.cuda.device import Device
from splat_numba.runtime.cuda.frameworks import Framework
from splat_numba.runtime.cuda.launch import is_capturing
from splat_numba.runtime.cuda.tables import pool_for
from splat_numba.settings import Settings


def place_host_lengths(lengths: NDArray[Any], target: Device, stream: int) -> int:
    """The address of checked key lengths that came from the host."""
    words = lengths.astype(np.int32)
    slots = pool_for(target, words.nbytes)
    with target.current():
        return slots.get(("lengths", words.tobytes()), lambda: words, lambda: is_capturing(stream))


def place_device_lengths(
    kv_lengths: Any, target: Device, framework: Framework, like: Any, stream: int, settings: Settings
) -> tuple[int, Any]:
    """The address of key lengths that are on the device, int32 or int64 (batch,), and what keeps them there."""
    found = framework.describe("kv_lengths", kv_lengths)
    check_same_device({"q": GpuArray(0, (), (), "", target.ordinal, ""), "kv_lengths": found})
    return place_as(found, "int32", kv_lengths, target, framework, like, stream, settings)
