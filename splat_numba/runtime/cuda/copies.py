"""Copies that no schedule of a call has: rows padded on the host, and small arrays that come in another form than
kernels read them in, such as key lengths.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.gen.schedules.tensor import Tensor, padded
from splat_numba.gen.targets.target import copy_schedule
from splat_numba.runtime.cuda.arrays import GpuArray, contiguous_strides
from splat_numba.runtime.cuda.device import Device
from splat_numba.runtime.cuda.frameworks import Framework
from splat_numba.runtime.cuda.launch import is_capturing
from splat_numba.runtime.cuda.ready import ReadySchedule
from splat_numba.runtime.cuda.tables import pool_for
from splat_numba.settings import Settings


def padded_rows(bits: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """A copy on the host whose rows are padded so, with zeros."""
    dim = bits.shape[-1]
    rows = np.zeros((*bits.shape[:-1], padded(dim)), np.uint16)
    rows[..., :dim] = bits
    return rows


def place_host(what: str, numbers: NDArray[Any], target: Device, stream: int) -> int:
    """The address of small contiguous numbers of the host, uploaded where none like them are there. what: they are."""
    slots = pool_for(target, numbers.nbytes)
    with target.current():
        return slots.get((what, numbers.tobytes()), lambda: numbers, lambda: is_capturing(stream))


def place_as(
    given: GpuArray, dtype: str, array: Any, target: Device, framework: Framework, like: Any, stream: int,
    settings: Settings,
) -> tuple[int, Any]:  # fmt: skip
    """The address of an array of one or two axes as contiguous numbers of this dtype, and what keeps it there: the
    array itself where it is so, else a copy made in the order of the stream. Raises PlanError for dtypes that no text
    converts.
    """
    steps = contiguous_strides(given.shape, np.dtype(dtype).itemsize)
    moved = any(one != step for one, step, size in zip(given.strides, steps, given.shape, strict=True) if size > 1)
    if given.dtype == dtype and not moved:
        return given.pointer, array
    fresh = framework.empty(given.shape, dtype, like)
    place = framework.address(fresh)
    ready = _ready(given.shape, given.strides, given.dtype, dtype, target, settings)
    ready.run((given.pointer, place), stream, framework, like)  # it wants no scratch memory
    return place, fresh


@lru_cache(maxsize=512)
def _ready(
    shape: tuple[int, ...], strides: tuple[int, ...], dtype: str, wanted: str, target: Device, settings: Settings
) -> ReadySchedule:  # fmt: skip
    def tensor(name: str, kind: str, steps: tuple[int, ...]) -> Tensor:
        rows, columns = (1, *shape)[-2:]
        to_row, to_column = (0, *steps)[-2:]
        return Tensor((1, 1, rows, columns), (0, 0, to_row, to_column), kind, name)

    made = tensor("target", wanted, contiguous_strides(shape, np.dtype(wanted).itemsize))
    schedule = copy_schedule(tensor("source", dtype, strides), made, target.as_planned)
    with target.current():
        return ReadySchedule(schedule, target, settings)
