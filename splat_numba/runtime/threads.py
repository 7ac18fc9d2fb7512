"""Threads that take ranges of work items.

Numba's own threading layers are not used: workqueue aborts when two Python threads launch at once, and OpenMP's dies
after fork(). Kernels release the GIL, so ordinary threads run them side by side. Nor is concurrent.futures: its pools
end with the main thread, while atexit functions and other threads still call; and a caller must be able to leave a
helper out that never came, because the system gave no thread or all were busy.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import perf_counter

# Ranges a thread takes in turn: the last one to finish is late by at most a 16th of its share.
RANGES_PER_THREAD = 16
# Ranges of long launches are cut to about this: nobody stops within a range, so an interrupt or error waits for one.
RANGE_SECONDS = 0.03
# A range is at most so many times as long as the one before: in a causal mask later items take longer than the first.
MOST_GROWTH = 16
# Threads of one launch, whatever was asked for; machines with more processors would gain little from more.
MOST_THREADS = 1024


class _Job:
    """One call of parallel_for: what is left of it, and who is at work."""

    __slots__ = ("_active", "_closed", "_idle", "_items", "_lock", "_most", "_next", "_run", "_size", "error")

    def __init__(self, items: int, run: Callable[[int, int], object], most: int) -> None:
        self._items, self._run, self._most = items, run, most
        self._next, self._size = 0, 1  # the first range of a launch says how long an item takes
        self._lock, self._active, self._closed = threading.Lock(), 0, False
        self._idle = threading.Lock()  # released when the last helper leaves
        self._idle.acquire()
        self.error: BaseException | None = None

    def work(self) -> None:
        """Run ranges until none is left or one has failed, whoever runs it."""
        try:
            while self.error is None:
                with self._lock:
                    first = self._next
                    last = self._next = min(first + self._size, self._items)
                if first == last:
                    return
                began = perf_counter()
                self._run(first, last)
                rate = (last - first) / max(perf_counter() - began, 1e-9)
                self._size = min(max(int(rate * RANGE_SECONDS), 1), MOST_GROWTH * (last - first), self._most)
        except BaseException as error:  # noqa: BLE001 - the caller raises it, once nobody touches the arrays any more
            self.error = self.error or error

    def help(self) -> None:
        """Work, unless the caller has left already: a range must not run on arrays that are no longer its own."""
        with self._lock:
            if self._closed:
                return
            self._active += 1
        self.work()
        with self._lock:
            self._active -= 1
            last = self._closed and not self._active
        if last:
            self._idle.release()

    def close(self) -> None:
        """Let nobody come any more, and wait for those who are at work. May be called again after an interrupt."""
        with self._lock:
            self._closed = True
            waiting = self._active > 0
        if waiting:
            self._idle.acquire()
        self._run = _nothing  # a queue may hold the job for longer, but not the arrays


def _nothing(first: int, last: int) -> None:
    """What a closed job runs."""


class _Pool:
    """Helpers that wait for jobs; daemonic, because nothing is lost when a process ends while they wait."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._threads, self._lock = 0, threading.Lock()

    def lend(self, job: _Job, helpers: int) -> None:
        """Offer the job to so many helpers, or to as many as there can be; they come when they are free."""
        if self._threads < helpers:
            self._grow(helpers)
        for _ in range(min(helpers, self._threads)):
            self._jobs.put(job)

    def _grow(self, threads: int) -> None:
        with self._lock:
            while self._threads < threads:
                try:
                    threading.Thread(target=self._serve, name="splat", daemon=True).start()
                except RuntimeError:  # the process may have no more threads, or is about to end: the caller works alone
                    return
                self._threads += 1

    def _serve(self) -> None:
        _keep_subnormals()
        while True:
            self._jobs.get().help()


def _keep_subnormals() -> None:
    """Have this thread compute with the numbers that C starts with: it took over its maker's way, and threads of XLA or
    of torch.set_flush_denormal() take subnormal numbers for 0, which is how kernels would read float16's for good.
    """
    default = ctypes.c_void_p(-1)  # FE_DFL_ENV of glibc and musl
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # without a C library that has it, as it was
            ctypes.CDLL(None).fesetenv(default)


_pool = _Pool()


def _renew() -> None:
    """Threads do not survive a fork, and a lock may have been held."""
    global _pool  # noqa: PLW0603 - one pool a process is what a process can share
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def parallel_for(items: int, run: Callable[[int, int], object], threads: int) -> None:
    """Call ``run(first, last)`` for ranges that cut range(items), from ``threads`` threads, the caller among them.

    Threads beyond the items, or beyond what the system grants, are left out. After the first exception of any range,
    KeyboardInterrupt in the caller too, no range is begun; it is raised once all threads have stopped, so that nothing
    is written afterwards.
    """
    if items <= 1:
        if items:
            run(0, 1)
        return
    threads = min(threads, items, MOST_THREADS)
    most = -(-items // (threads * RANGES_PER_THREAD)) if threads > 1 else items
    job = _Job(items, run, most)
    lent = False
    while True:
        try:
            if threads > 1 and not lent:
                lent = True
                _pool.lend(job, threads - 1)
            job.work()
            job.close()
            break
        except BaseException as error:  # noqa: BLE001 - an interrupt outside the ranges: close, then raise it below
            job.error = job.error or error
    if job.error is not None:
        raise job.error
