"""Times of alternatives on a GPU, by the driver's events: all take turns, in several rounds, and medians count."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

from splat_numba.runtime.cuda.device import Device
from splat_numba.runtime.cuda.driver import ask, driver
from splat_numba.runtime.cuda.memory import DeviceArray, undisturbed

Call = Callable[[int], object]  # the number of a launch, by which inputs can take turns -> nothing

ROUNDS = 7
BATCH_SECONDS = 1e-3  # of work between two events, which tell half a microsecond
MOST_LAUNCHES = 8  # between two events: the host gives as many to the GPU while the blanket is written
BLANKET_BYTES = 256 << 20  # twice written before each batch (150 us on an H200); and five times the L2 cache


def median_seconds(calls: Sequence[Call], device: Device) -> list[float]:
    """Seconds of each call on the device's own stream. Every batch begins with what the L2 cache would hold gone, and
    with its launches queued, so that the host's time does not count where the GPU's is shorter.
    """
    blanket = DeviceArray(device, (BLANKET_BYTES,), "uint8")
    with device.current(), undisturbed(), _events(2) as marks:
        for call in calls:  # loaded, its tables and tensor maps written
            call(0)
        launches = [_launches(_seconds(call, 1, blanket, marks)) for call in calls]
        rounds = [
            [_seconds(call, count, blanket, marks) for call, count in zip(calls, launches, strict=True)]
            for _ in range(ROUNDS)
        ]
    return [median(times) for times in zip(*rounds, strict=True)]


def _launches(seconds: float) -> int:
    """How many calls make a batch."""
    return max(1, min(MOST_LAUNCHES, math.ceil(BATCH_SECONDS / max(seconds, 1e-9))))


def _seconds(call: Call, launches: int, blanket: DeviceArray, marks: Sequence[Any]) -> float:
    """Of one call, on average over a batch."""
    cu, stream = driver(), blanket.device.stream
    for _ in range(2):
        ask(cu.cuMemsetD8Async, blanket.pointer, 0, BLANKET_BYTES, stream)
    ask(cu.cuEventRecord, marks[0], stream)
    for number in range(launches):
        call(number)
    ask(cu.cuEventRecord, marks[1], stream)
    ask(cu.cuEventSynchronize, marks[1])
    return float(ask(cu.cuEventElapsedTime, marks[0], marks[1])) * 1e-3 / launches


@contextmanager
def _events(count: int) -> Iterator[list[Any]]:
    cu = driver()
    found = [ask(cu.cuEventCreate, 0) for _ in range(count)]
    try:
        yield found
    finally:
        for one in found:
            ask(cu.cuEventDestroy, one)
