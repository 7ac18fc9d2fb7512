"""The pool of small tables on a device: what is remembered, given away, and kept for graphs."""

import numpy as np
import pytest

from splat_numba.runtime.cuda.slots import SlotPool


class Recorder:
    """Device memory that notes what is done to it."""

    def __init__(self):
        self.written, self.waits, self.allocated = {}, 0, []

    def allocate(self, nbytes):
        self.allocated.append(nbytes)
        return 10_000 * len(self.allocated)

    def write(self, address, data):
        self.written[address] = data.tobytes()

    def wait(self):
        self.waits += 1


def table(number):
    return lambda: np.full(16, number, np.uint64)


def never():
    raise AssertionError("made again")


def put(pool, *numbers, capturing=False):
    return [pool.get(number, table(number), lambda: capturing) for number in numbers]


@pytest.fixture
def store():
    return Recorder()


def test_a_table_is_made_and_written_once(store):
    pool = SlotPool(store, 128)
    (address,) = put(pool, 7)
    assert store.written[address] == table(7)().tobytes()
    assert pool.get(7, never, lambda: False) == address
    assert put(pool, 8) != [address]
    assert store.allocated == [128 * 256]


def test_the_longest_unused_quarter_is_given_away_after_one_wait(store):
    pool = SlotPool(store, 128, largest=8)
    addresses = put(pool, *range(8))
    put(pool, 0)  # used again: 1 and 2 are now the oldest
    put(pool, 8, 9)
    assert store.waits == 1
    assert len(pool) == 8
    assert store.allocated == [128 * 8]
    assert pool.get(0, never, lambda: False) == addresses[0]
    assert {pool.get(n, never, lambda: False) for n in (8, 9)} == set(addresses[1:3])
    put(pool, 1)
    assert store.waits == 2


def test_what_was_found_is_used_and_what_is_given_away_is_not_found_while_the_device_is_waited_for(store, monkeypatch):
    pool, seen = SlotPool(store, 128, largest=8), []
    addresses = put(pool, *range(8))
    assert pool.find(0) == addresses[0]
    monkeypatch.setattr(store, "wait", lambda: seen.extend(pool.find(number) for number in range(8)))
    put(pool, 8)
    assert seen == [addresses[0], None, None, *addresses[3:]]
    assert pool.find(9) is None


def test_what_a_capture_used_is_kept_for_good(store):
    pool = SlotPool(store, 128, largest=4)
    addresses = put(pool, 0, 1)
    put(pool, 0, capturing=True)
    put(pool, *range(10, 30))
    assert pool.get(0, never, lambda: False) == addresses[0]
    assert store.written[addresses[0]] == table(0)().tobytes()
    assert store.waits > 0


def test_a_capture_never_waits_and_makes_the_pool_larger_instead(store):
    pool = SlotPool(store, 128, largest=4)
    addresses = put(pool, *range(12), capturing=True)
    assert store.waits == 0
    assert len(store.allocated) == 3
    assert len(set(addresses)) == 12
    assert put(pool, *range(12)) == addresses
    put(pool, 50)
    assert put(pool, *range(12)) == addresses


def test_a_failed_write_leaves_no_entry(store, monkeypatch):
    pool = SlotPool(store, 128)
    monkeypatch.setattr(store, "write", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        put(pool, 1)
    monkeypatch.undo()
    (address,) = put(pool, 1)
    assert store.written[address] == table(1)().tobytes()
