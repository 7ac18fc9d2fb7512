"""CPU texts run as ordinary Python on checked memory, forward and back: right answers, and nothing outside the arrays.

Nothing is compiled, so every method, feature map and dtype can be tried. Of a call only the machine code is replaced.
"""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flurka_numba.cpu import executor, intrinsics
from flurka_numba.emulated.cpu_text import INTRINSICS, emulate
from flurka_numba.targets.cpu.text import cpu_text
from splat_numba.emulator.cpu_memory import Pointer
from splat_numba.errors import EmulationError
from splat_numba.gen.plans.machine import Machine
from tests.flurka.agreement import check_gradients
from tests.flurka.strategies import DTYPES, EVERY_KIND, Case, cases
from tests.profiles import EXPLORING, draws


@dataclass(frozen=True)
class Emulated:
    """In place of machine code."""

    functions: dict[str, Callable[..., Any]]


@cache
def functions_of(plan):
    return Emulated(emulate(cpu_text(plan)))


@contextmanager
def emulated(edit=None):
    """Texts are emulated, on a machine of small registers and one core. edit: what becomes of a text first."""

    def edited(plan):
        text = cpu_text(plan)
        return Emulated(emulate(replace(text, source=edit(text.source))))

    made = functions_of if edit is None else edited
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executor, "compiled_for", lambda plan, _settings: made(plan))
        patch.setattr(executor, "machine", lambda _threads: Machine(16, 16, 1))
        patch.setattr(executor, "cores", lambda: 1)
        for one in (executor.forward_for, executor.gradients_for):  # which remember what is compiled
            patch.setattr(executor, one.__name__, one.__wrapped__)
        yield


def agrees(case, edit=None):
    with emulated(edit):
        return check_gradients(case, backend="cpu")


ODD = {"seq_q": 9, "seq_kv": 11, "rank": 5, "head_dim": 6, "value_dim": 3, "rows": 5}


@pytest.mark.parametrize(("method", "phi"), EVERY_KIND)
def test_every_kind_at_sizes_that_fill_no_vector(method, phi):
    agrees(Case(method=method, feature_map=phi, **ODD))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["flurka", "low_rank", "kernel"])
def test_dtypes_strides_and_key_lengths(method, dtype):
    agrees(Case(method=method, **ODD, dtype=dtype, batch=3, kv_lengths=(0, 7, 11), heads=1, strided=True))


def test_several_tiles_of_rows_and_of_tokens():
    agrees(Case(seq_q=70, seq_kv=140, rank=40, head_dim=9, value_dim=9, heads=1, batch=None))


def small(case):
    """The emulator does a few thousand operations a second."""
    batch = case.batch and min(case.batch, 2)
    lengths = None if case.kv_lengths is None else case.kv_lengths[:batch]
    return case.but(rank=min(case.rank, 9), rows=min(case.rows, 9), batch=batch, kv_lengths=lengths)


@settings(max_examples=draws(25), suppress_health_check=[HealthCheck.too_slow])
@given(cases(lengths=st.integers(0, 60 if EXPLORING else 15), max_dim=20 if EXPLORING else 9).map(small))
@example(Case(seq_q=0, seq_kv=0, rank=0))
@example(Case(method="kernel", seq_kv=0))
@example(Case(method="low_rank", rank=0))
@example(Case(feature_map="favor", method="kernel", batch=2, kv_lengths=(0, 1)))
def test_any_case(case):
    agrees(case)


FAULTS = {
    "a token beyond the key lengths": ("stop = min(stop, lengths[batch])", "stop = min(stop, lengths[batch] + 1)"),
    "features of pads that are not cleared": ("for place in range(kept, part):", "for place in range(part, part):"),
    "a result too many": ("store_float32(result, value_dims, count,", "store_float32(result, value_dims, count + 1,"),
    "a row of a register tile": ("multiply(phi, features, 1, count,", "multiply(phi, features, 1, count - 1,"),
    "the sums' part of the features' gradient": ("* element(slope, row)", "* real(0.0)"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_seen(fault):
    right, wrong = FAULTS[fault]
    planted = []

    def edit(source):
        planted.append(right in source)
        return source.replace(right, wrong)

    case = Case(method="kernel", feature_map="favor", **ODD, batch=2, kv_lengths=(4, 11))
    agrees(case)
    with pytest.raises((AssertionError, EmulationError)):
        agrees(case, edit)
    assert any(planted)


def test_what_texts_import_has_a_meaning_each():
    ours = {name for name, one in vars(intrinsics).items() if getattr(one, "__module__", "") == intrinsics.__name__}
    assert ours == set(vars(INTRINSICS))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exponents_and_square_roots(dtype):
    facts = np.finfo(dtype)
    x = np.array([facts.tiny, 0.75, 1.0, 1.5, 2.0, facts.max], dtype)
    np.testing.assert_array_equal(INTRINSICS.exponent(x), np.frexp(x)[1] - 1)
    assert INTRINSICS.exponent(x).dtype == dtype
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(INTRINSICS.square_root(np.array([4, 0, -1], dtype)), np.array([2, 0, np.nan]))


def test_a_register_tile_is_read_from_within_its_array():
    rows, like = np.arange(24, dtype=np.float32), (np.zeros(4, np.float32),) * 4
    tile = INTRINSICS.load_tile(like, Pointer(rows, 0), 12)
    np.testing.assert_array_equal(np.stack(tile), [rows[0:4], rows[4:8], rows[12:16], rows[16:20]])
    with pytest.raises(EmulationError, match="wanted of an array of 24"):
        INTRINSICS.load_tile(like, Pointer(rows, 8), 12)
