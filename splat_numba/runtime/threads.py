"""A pool of threads that take ranges of work items.

Numba's own threading layers are not used: workqueue aborts when two Python threads launch at once, and OpenMP's dies
after fork(). Kernels release the GIL, so ordinary threads run them side by side.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

# Ranges a thread takes in turn: the last one to finish is late by at most a 16th of its share.
RANGES_PER_THREAD = 16

_lock = threading.Lock()
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}  # by process, because threads do not survive a fork


def _pool(threads: int) -> ThreadPoolExecutor:
    with _lock:
        key = (os.getpid(), threads)
        if key not in _pools:
            _pools[key] = ThreadPoolExecutor(threads, thread_name_prefix="splat")
        return _pools[key]


def parallel_for(items: int, run: Callable[[int, int], object], threads: int) -> None:
    """Call ``run(first, last)`` for ranges that cut range(items), from ``threads`` threads, the caller among them.

    The first exception of any range is raised, after all threads have stopped.
    """
    size = max(1, -(-items // (threads * RANGES_PER_THREAD)))
    if threads <= 1 or items <= size:
        if items:
            run(0, items)
        return
    starts = iter(range(0, items, size))
    take = threading.Lock()

    def work() -> None:
        while True:
            with take:
                first = next(starts, None)
            if first is None:
                return
            run(first, min(first + size, items))

    helpers = [_pool(threads - 1).submit(work) for _ in range(threads - 1)]
    errors: list[BaseException] = []
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - re-raised below, once no helper touches the arrays any more
        errors.append(error)
    failures = [helper.exception() for helper in helpers]  # waits for each
    errors.extend(failure for failure in failures if failure is not None)
    if errors:
        raise errors[0]
