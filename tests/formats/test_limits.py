"""Patterns of hundreds of parts work without recursion; what no memory or no list holds is refused by name."""

import pickle
from functools import reduce
from operator import or_

import numpy as np
import pytest

from splat_numba import memory
from splat_numba.api import plan
from splat_numba.errors import FormatError, PatternError, PatternTypeError
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.closed_form import closed_form
from splat_numba.formats.combinations import MOST_LEAVES
from splat_numba.formats.geometry import Geometry, geometry
from splat_numba.formats.parse import parse
from splat_numba.formats.patterns import (
    causal,
    columns,
    documents,
    full,
    global_tokens,
    neighborhood,
    random_blocks,
    sinks,
    sparse_transformer_fixed,
    window,
)
from splat_numba.formats.sweep import expand


def alternating(parts, start):
    """((start & window | sinks) & window | ...), and its predicate."""
    pattern, i, j = start, np.arange(40)[:, None], np.arange(40)
    kept = ACSR.from_pattern(start, 40, 40).to_dense()
    for n in range(1, parts):
        pattern = pattern | sinks(n) if n % 2 else pattern & window(n + 1, n)
        kept = kept | (j < n) if n % 2 else kept & (i - n - 1 <= j) & (j <= i + n)
    return pattern, kept


@pytest.mark.parametrize("start", [causal(), random_blocks(4, 2, 0)], ids=["closed", "open"])
def test_hundreds_of_alternating_parts(start):
    pattern, kept = alternating(300, start)
    twin, _ = alternating(300, start)
    assert pattern is not twin
    assert pattern == twin
    assert hash(pattern) == hash(twin)
    assert pattern != alternating(299, start)[0]
    assert pattern != pattern.align_end()
    assert pickle.loads(pickle.dumps(pattern)) == pattern  # noqa: S301  # our own bytes
    assert repr(pattern).endswith(" | sinks(299)")
    assert np.array_equal(geometry(pattern, 40, 40).to_dense(), kept)
    assert np.array_equal(ACSR.from_pattern(pattern.align_end(), 40, 40).to_dense(), kept)
    assert (closed_form(pattern) is not None) == (start == causal())
    with pytest.raises(PatternError, match="parentheses"):
        parse(repr(pattern))
    shallow, _ = alternating(190, start)
    assert parse(repr(shallow)) == shallow


def test_hundreds_of_alternating_parts_are_planned():
    for start in (causal(), random_blocks(4, 2, 0)):
        pattern, kept = alternating(300, start)
        decided = plan(pattern, seq_q=40, seq_kv=40, head_dim=16, dtype="float32")
        assert decided.cost.kept == kept.sum()
        assert len(repr(decided)) < 250


def test_a_flat_union_of_hundreds_is_read_and_evaluated():
    parts = [columns(2000, 3 * n) for n in range(MOST_LEAVES)]
    pattern = reduce(or_, parts)
    assert parse(repr(pattern)) == pattern
    assert ACSR.from_pattern(pattern, 2, 100).row_columns(1).tolist() == list(range(0, 100, 3))
    with pytest.raises(PatternError, match=rf"^pattern: wanted at most {MOST_LEAVES} constructors combined, got 501"):
        pattern | causal()
    doubled = pattern.align_end()
    with pytest.raises(PatternError, match="got 1000"):
        doubled & doubled


@pytest.mark.parametrize(
    "call",
    [
        lambda n: ACSR.from_pattern(causal(), n, n),
        lambda n: ACSR.from_pattern(causal() | random_blocks(64, 3, 0), n, n),
        lambda n: ACSR.from_pattern(random_blocks(64, 3, 0), n, n),
        lambda n: ACSR.from_pattern(random_blocks(1, n, 0), 10**6, n),
        lambda n: ACSR.from_pattern(documents((n,)), n, n),
        lambda n: ACSR.from_pattern(columns(100, 0, 50), n, n),
        lambda n: ACSR.from_pattern(neighborhood((n, 2), 3), 2 * n, 2 * n),
        lambda n: ACSR.from_pattern(neighborhood((10**5, 10**5), n - 1), 10**10, 10**10),
        lambda n: ACSR.from_pattern(global_tokens(range(0, 40, 3)), n, n),
        lambda n: ACSR.from_pattern(full(), 3, n).to_dense(),
        lambda n: geometry(full(), 3, n).to_dense(),
        lambda n: ACSR.from_pattern(full(), 3, n).to_csr(),
        lambda n: ACSR.from_pattern(full(), 3, n).columns(),
        lambda n: ACSR.from_pattern(full(), 3, n).to_scipy(),
    ],
)
def test_sizes_beyond_memory_are_refused_at_once(call, monkeypatch):
    monkeypatch.setattr(memory, "installed", lambda: 2**30)
    with pytest.raises(FormatError, match=r"would need .* GiB, and this machine has 1\."):
        call(10**10)


def test_the_message_says_what_and_how_much(monkeypatch):
    monkeypatch.setattr(memory, "installed", lambda: 2**30)
    with pytest.raises(FormatError) as caught:
        ACSR.from_pattern(causal(), 2**30, 2**30)
    assert str(caught.value) == (
        "shape (1073741824, 1073741824) with 1073741824 runs would need 64 GiB, and this machine has 1. Use shorter "
        "sequences, or a part of the rows."
    )
    monkeypatch.setattr(memory, "installed", lambda: None)  # a system that does not say
    memory.check_memory("anything", 2**80, "")


@pytest.mark.parametrize("numbers", [range(10**12), range(10**30)])
def test_endless_lists_are_refused(numbers):
    with pytest.raises(PatternError, match=r"^indices: wanted at most 16777216 numbers, got more"):
        global_tokens(numbers)


class Tensor:
    """What other frameworks' arrays have in common: __index__ on every one, whatever it holds."""

    def __init__(self, numbers):
        self._numbers = np.array(numbers)
        self.shape = self._numbers.shape

    def __array__(self, dtype=None, copy=None):
        raise TypeError("it is on another device")

    def __index__(self):
        return self._numbers.__index__()

    def __len__(self):
        return len(self._numbers)

    def __iter__(self):
        return iter(self._numbers)

    def tolist(self):
        return self._numbers.tolist()


def test_integers_of_other_frameworks_are_taken():
    assert global_tokens(Tensor([3, 1])) == global_tokens((1, 3))
    assert global_tokens(Tensor([3])) == global_tokens((3,))
    assert global_tokens(Tensor(3)) == global_tokens(3)
    assert documents(Tensor([3, 4])) == documents((3, 4))
    assert window(Tensor(3)) == window(3)
    assert neighborhood(Tensor([3, 4]), Tensor([1, 3])) == neighborhood((3, 4), (1, 3))


@pytest.mark.parametrize("numbers", [[3.0, 1.0], [[3]], [True], 3.5, True])
def test_other_numbers_of_other_frameworks_are_refused(numbers):
    with pytest.raises(PatternTypeError):
        global_tokens(Tensor(numbers))
    with pytest.raises(PatternTypeError):
        window(Tensor(numbers))


def test_places_that_no_memory_lists_are_refused():
    with pytest.raises(FormatError, match=r"^mask with 62,500,000,000 places to be listed one by one would need "):
        expand(np.zeros(1000, np.int64), np.ones(1000, np.int64), np.full(1000, 62_500_000))


@pytest.mark.parametrize("pattern", [sparse_transformer_fixed(128, 16), columns(64, 3, 20) | window(8)])
def test_lattices_that_no_memory_holds_are_refused_before_a_table_of_them_is_made(pattern, monkeypatch):
    monkeypatch.setattr(memory, "installed", lambda: 2**34)
    monkeypatch.setattr(Geometry, "table", property(lambda _: pytest.fail("made")))
    with pytest.raises(FormatError, match=r"^mask with more than [0-9,]+ places to be listed one by one would need"):
        plan(pattern, seq_q=10**6, seq_kv=10**6, head_dim=64, dtype="float32", backend="cpu")


def test_lattices_within_others_intervals_are_not_refused(monkeypatch):
    monkeypatch.setattr(memory, "installed", lambda: 2**22)  # 9 million places would need 288 MB, 120,000 do 3.8
    geometry(columns(16, 2, 12) & window(40), 3000, 3000).check_listed()
