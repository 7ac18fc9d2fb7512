"""Seconds of calls that take turns on a CPU, so that a slow spell of the machine hits all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

CALLS = 3  # timed, one after the other
SPIN_SECONDS = 0.25  # OpenMP threads of a peer spin for up to 0.2 s after its last call, on a core that we would need
Key = TypeVar("Key", bound=Hashable)


def in_turns(calls: Mapping[Key, Callable[[], Any]], rounds: int) -> dict[Key, list[float]]:
    """Of every call, CALLS times a round. Each waits until the last one's threads are idle, and runs once untimed."""
    times: dict[Key, list[float]] = {key: [] for key in calls}
    for _ in range(rounds):
        for key, call in calls.items():
            time.sleep(SPIN_SECONDS)
            call()
            for _ in range(CALLS):
                begin = time.perf_counter()
                call()
                times[key].append(time.perf_counter() - begin)
    return times
