"""Medians by events on a faked clock: all take turns, a slow first call does not count, nor does an outlier."""

import pytest

from splat_numba.runtime.cuda import timing
from splat_numba.runtime.cuda.device import device
from splat_numba.runtime.cuda.timing import MOST_LAUNCHES, ROUNDS, median_seconds
from tests.runtime.fake_cuda import fake as fake  # noqa: PLC0414 - a fixture


@pytest.fixture(autouse=True)
def _small_blanket(monkeypatch):
    monkeypatch.setattr(timing, "BLANKET_BYTES", 1024)


class Work:
    """A call that takes so long on the fake GPU; ``first``: its first one."""

    def __init__(self, fake, seconds, log, first=None):
        self.fake, self.seconds, self.log, self.first = fake, seconds, log, first
        self.numbers = []

    def __call__(self, number):
        first = self.first if self.first is not None and not self.numbers else self.seconds
        self.fake.clock += first() if callable(first) else first
        self.numbers.append(number)
        self.log.append(self)


def test_medians_come_in_the_order_of_the_calls(fake):
    log = []
    works = [Work(fake, seconds, log, first=5.0) for seconds in (3e-4, 1e-5, 0.02)]
    found = median_seconds(works, device(0))
    assert found == pytest.approx([3e-4, 1e-5, 0.02], rel=0.02)  # the events' microsecond is shared by a batch


def test_small_calls_come_in_batches_and_are_numbered(fake):
    log = []
    small, large = works = [Work(fake, 1e-6, log), Work(fake, 0.02, log)]
    median_seconds(works, device(0))
    assert small.numbers == [0, 0] + list(range(MOST_LAUNCHES)) * ROUNDS
    assert large.numbers == [0, 0] + [0] * ROUNDS
    assert log[:4] == [small, large, small, large]
    assert log[4:] == ([small] * MOST_LAUNCHES + [large]) * ROUNDS


def test_a_disturbed_round_does_not_count(fake):
    times = iter([1e-3] * 4 + [9.0] + [1e-3] * 99)
    found = median_seconds([Work(fake, lambda: next(times), [])], device(0))
    assert found == pytest.approx([1e-3], rel=0.02)


def test_nothing_is_left_behind(fake):
    median_seconds([Work(fake, 1e-3, [])], device(0))
    assert set(fake.events) == {None}
    assert len(fake.freed) == 1
    assert (fake.contexts, fake.mode) == ([0], 0)
