"""parallel_for: every item once, errors and interrupts stop everybody, several callers, no threads, fork, exit."""

import os
import platform
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from itertools import pairwise

import pytest

from splat_numba.runtime import threads as pool
from splat_numba.runtime.device import machine
from splat_numba.runtime.threads import parallel_for


def items_taken(items, threads):
    taken, lock = Counter(), threading.Lock()

    def run(first, last):
        assert first < last
        with lock:
            taken.update(range(first, last))

    parallel_for(items, run, threads)
    return taken


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("items", [0, 1, 2, 15, 16, 17, 127, 1000, 1001])
def test_every_item_is_taken_once(items, threads):
    assert items_taken(items, threads) == Counter(range(items))


def test_one_thread_is_the_caller():
    seen = []
    parallel_for(100, lambda *_: seen.append(threading.get_ident()), 1)
    assert set(seen) == {threading.get_ident()}


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_an_exception_reaches_the_caller_after_all_threads_stopped(threads):
    running, lock = Counter(), threading.Lock()

    def run(first, last):
        with lock:
            running["now"] += 1
        try:
            if first <= 500 < last:
                raise ValueError("item 500")
        finally:
            with lock:
                running["now"] -= 1

    for _ in range(20):
        with pytest.raises(ValueError, match="item 500"):
            parallel_for(1000, run, threads)
        assert running["now"] == 0
    assert items_taken(1000, threads) == Counter(range(1000))


def test_ranges_that_take_long_are_cut_so_that_nobody_waits_for_them():
    ranges = []

    def run(first, last):
        ranges.append((first, last))
        time.sleep(0.02 * (last - first))

    parallel_for(20, run, 1)
    assert [last - first for first, last in ranges] == [1] * 20
    ranges.clear()
    parallel_for(10**6, lambda *one: ranges.append(one), 1)
    assert len(ranges) < 20  # 1, 16, 256, ... items: quick ones are not cut
    sizes = [last - first for first, last in ranges]
    assert all(later <= 16 * size for size, later in pairwise(sizes))  # who was quick first may be slow next


def test_after_an_error_no_range_is_begun():
    begun, failed = [], threading.Event()

    def run(first, _last):
        if failed.is_set():
            begun.append(first)
        elif first >= 3:
            failed.set()
            raise ValueError("stop")
        time.sleep(0.001)

    with pytest.raises(ValueError, match="stop"):
        parallel_for(10**6, run, 3)
    assert len(begun) <= 3  # that had taken their range before


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals go to the process here")
@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="interrupts reach the main thread"
)
def test_interrupts_stop_helpers_before_the_exception_leaves():
    """The second one arrives while the caller waits for a helper that is in the middle of its range."""
    written, main = [0], threading.main_thread().ident
    helper_began, interrupted = threading.Event(), threading.Event()

    def run(_first, _last):
        if threading.get_ident() == main:
            assert helper_began.wait(60)
            signal.raise_signal(signal.SIGINT)
            return
        helper_began.set()
        for _ in range(20):
            time.sleep(0.01)
            written[0] += 1
            if written[0] == 10:
                signal.pthread_kill(main, signal.SIGINT)
                interrupted.set()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            parallel_for(10**6, run, 2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert interrupted.is_set()
    assert written == [20]  # the helper's range, whole, and no other
    time.sleep(0.05)
    assert written == [20]
    assert items_taken(100, 2) == Counter(range(100))


def test_where_no_thread_can_be_started_the_caller_does_all(monkeypatch):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(pool, "_pool", pool._Pool())
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert items_taken(1000, 8) == Counter(range(1000))


def test_a_helper_that_comes_late_finds_nothing_and_the_arrays_are_free(monkeypatch):
    """Helpers that are busy elsewhere are not waited for, and the queue keeps nothing that the job ran on."""
    late = pool._Pool()
    monkeypatch.setattr(late, "_grow", lambda _: setattr(late, "_threads", 3))  # they never come
    monkeypatch.setattr(pool, "_pool", late)

    class Arrays:
        pass

    arrays, seen = Arrays(), []
    held = weakref.ref(arrays)
    parallel_for(10, lambda *one, _held=arrays: seen.append(one), 4)
    ranges = list(seen)
    del arrays
    assert held() is None
    while not late._jobs.empty():
        late._jobs.get().help()
    assert seen == ranges


def test_calls_from_within_ranges_do_not_wait_for_each_other():
    total, lock = Counter(), threading.Lock()

    def outer(first, last):
        for _ in range(first, last):
            inner = items_taken(40, 3)
            with lock:
                total.update(inner)

    parallel_for(12, outer, 3)
    assert total == Counter(dict.fromkeys(range(40), 12))


def test_absurd_numbers_of_threads_are_cut_to_the_items(monkeypatch):
    monkeypatch.setattr(pool, "_pool", pool._Pool())
    assert items_taken(5, 10**30) == Counter(range(5))
    assert pool._pool._threads == 4
    assert machine(10**30).cores == pool.MOST_THREADS


def test_callers_in_different_threads_share_the_pool():
    results = [None] * 6

    def call(place):
        results[place] = items_taken(500 + place, 3)

    callers = [threading.Thread(target=call, args=(place,)) for place in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=60)
    assert results == [Counter(range(500 + place)) for place in range(6)]


LIVES = """
import atexit, os, sys, threading, time
sys.path.insert(0, {root!r})
from splat_numba.runtime.threads import parallel_for

def total():
    parts, lock = [], threading.Lock()
    def run(first, last):
        with lock:
            parts.append(sum(range(first, last)))
    parallel_for(1000, run, 4)
    return sum(parts)

def report(name):
    os.write(1, (name + " " + str(total()) + chr(10)).encode())

report("main")  # the pool has threads now, and they do not survive the fork
child = os.fork()
if child == 0:
    report("child")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
report("parent")

def later():
    threading.main_thread().join()
    report("thread")

threading.Thread(target=later).start()
atexit.register(report, "atexit")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_it_works_after_a_fork_after_the_main_thread_and_at_exit():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", LIVES.format(root=root)]
    done = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
    assert done.stdout.split() == [
        word for name in ("main", "child", "parent", "thread", "atexit") for word in (name, "499500")
    ]
    assert done.stderr == ""


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="the register is x86-64's")
def test_helpers_keep_subnormal_numbers_whoever_asked_for_them_first():
    """As where the first call comes from a callback on a thread of XLA's."""
    code = """
import ctypes, threading, time
import numpy as np
from splat_numba.runtime.threads import parallel_for
libc, small = ctypes.CDLL(None), np.full(8, 1e-40, np.float32)
def flush():
    state = (ctypes.c_ubyte * 32)()
    libc.fegetenv(state)
    state[28], state[29] = state[28] | 0x40, state[29] | 0x80  # of MXCSR: subnormal operands and results are 0
    libc.fesetenv(state)
def kept():
    found = {}
    def run(first, last):
        found.setdefault(threading.get_ident(), bool((small * small.dtype.type(1)).all()))
        time.sleep(0.002)
    parallel_for(64, run, 3)
    own = found.pop(threading.get_ident())
    return own, sorted(found.values())
first = []
one = threading.Thread(target=lambda: (flush(), first.append(kept())))
one.start(), one.join()
print(first[0], kept())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(False, [True, True]) (True, [True, True])"
