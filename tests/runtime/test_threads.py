"""parallel_for: every item once, exceptions reach the caller, several callers at once, and life after fork."""

import os
import subprocess
import sys
import threading
from collections import Counter

import pytest

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
    assert seen == [threading.get_ident()]


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


FORKING = """
import os, sys, threading
sys.path.insert(0, {root!r})
from splat_numba.runtime.threads import parallel_for

def total():
    parts, lock = [], threading.Lock()
    def run(first, last):
        with lock:
            parts.append(sum(range(first, last)))
    parallel_for(1000, run, 4)
    return sum(parts)

assert total() == 499500  # the pool has threads now, and they do not survive the fork
child = os.fork()
if child == 0:
    os._exit(0 if total() == 499500 else 1)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0
assert total() == 499500
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_it_works_after_a_fork():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120
    subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING.format(root=root)], check=True, timeout=60
    )
