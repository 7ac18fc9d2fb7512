"""The packed operators' generated texts, their plans, and the parts below."""

import gc
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit
from numpy.testing import assert_array_equal

from splat_numba.executors.cpu import packed as cpu_packed
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import Pattern, strided, window
from splat_numba.gen.packed.problem import Operator, PackedProblem, RunTable
from splat_numba.gen.plans.machine import Machine
from splat_numba.gen.targets.cpu import packed_schedule
from splat_numba.gen.targets.cpu.packed import render_packed
from splat_numba.gen.targets.cpu.packed_plan import make_packed_plan, rows_only
from splat_numba.runtime import lanes
from splat_numba.runtime.simd import address
from splat_numba.runtime.vectors import shaped, store
from splat_numba.testing import DTYPES, masks, numpy_dtype
from tests.gen.shape_of_text import unreadable
from tests.ops.packed_cases import (
    DIM,
    MIXED,
    stored,
)


@pytest.mark.parametrize("operator", get_args(Operator))
@pytest.mark.parametrize("vector_bytes", [16, 32, 64])
def test_source_is_deterministic_python_for_every_machine(operator, vector_bytes):
    host = Machine(vector_bytes, 32 if vector_bytes == 64 else 16)
    for dtype in DTYPES:
        table = RunTable.of(ACSR.from_pattern(strided(16), 40, 40))
        problem = PackedProblem(operator, dtype, 1, 1, 0 if rows_only(operator) else DIM)
        plan = make_packed_plan(problem, table, host)
        text = render_packed(plan)
        assert unreadable(text) == []
        compile(text, "generated", "exec")
        assert text == render_packed(plan)
        assert ("16 * row_stride" in text) == (not rows_only(operator))
        assert "for run in" not in text  # a regular mask


def test_the_plan_of_a_mask_with_several_steps_reads_them():
    table = RunTable.of(ACSR.from_pattern(MIXED, 40, 40))
    assert (table.regular, table.one_step) == (False, None)
    text = render_packed(make_packed_plan(PackedProblem("spmm", "float32", 1, 1, DIM), table, Machine()))
    assert "for run in range(run_lo, run_hi)" in text
    assert "element(step, run) * row_stride" in text


@given(masks(max_length=40), st.integers(1, 3), st.integers(1, 9))
def test_ranges_cover_every_item_once_and_are_even_up_to_a_row(mask, heads, parts):
    acsr = ACSR.from_pattern(mask, 23, 31) if isinstance(mask, Pattern) else stored(mask, *mask.shape)
    table = RunTable.of(acsr)
    limits = packed_schedule.balanced_ranges(packed_schedule.items_cost(table, 2), heads, parts)
    assert limits[0] == 0
    assert limits[-1] == heads * acsr.shape[0]
    assert (np.diff(limits) >= 0).all()
    cost = np.concatenate([[0], np.cumsum(np.tile(np.diff(table.slot_ptr) + 2, heads))])
    assert (np.diff(cost[limits]) <= cost[-1] / parts + table.longest + 3).all()


def test_the_run_table_of_a_mask_goes_with_the_mask():
    acsr = ACSR.from_pattern(window(2), 9, 9)
    keys = {(id(acsr), False), (id(acsr), True)}
    assert cpu_packed.state_of(acsr) is cpu_packed.state_of(acsr)
    assert cpu_packed.state_of(acsr, transposed=True) is cpu_packed.state_of(acsr, transposed=True)
    assert keys <= cpu_packed._states.keys()
    del acsr
    gc.collect()
    assert not keys & cpu_packed._states.keys()


@pytest.mark.parametrize("hardware", [True, False])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_16_bit_number_is_read_exactly(dtype, hardware, monkeypatch):
    if hardware and not lanes._converts_float16():
        pytest.skip("this processor converts no float16")
    monkeypatch.setattr(lanes, "_converts_float16", lambda: hardware)
    read = lanes.reader.__wrapped__(dtype, 8, 8, True)

    @njit(error_model="numpy")
    def widen(bits, out):
        for t in range(0, bits.size, 8):
            store(address(out, 0), t, read(address(bits, 0), t, 1))

    bits, out = np.arange(1 << 16, dtype=np.uint16), np.empty(1 << 16, np.float32)
    widen(bits, out)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        assert_array_equal(out, bits.view(numpy_dtype(dtype)).astype(np.float32))


@pytest.mark.parametrize(("dtype", "width"), [("float32", 4), ("float32", 8), ("float32", 16), ("float64", 2)])
def test_sums_across_lanes_are_in_order(dtype, width):
    load = shaped(dtype, width)[0]
    add_lanes, largest_lane, add_each = lanes.reductions(dtype, width)
    real = np.dtype(dtype).type
    names = ", ".join(f"load(p, {lane * width})" for lane in range(width))
    namespace = {"load": load, "store": store, "add_each": add_each, "add_lanes": add_lanes, "address": address}
    namespace["largest_lane"] = largest_lane
    exec(  # noqa: S102 - the number of operands is part of the text
        f"def reduce(x, out):\n    p = address(x, 0)\n    store(address(out, 0), 0, add_each(({names},)))\n"
        "    return add_lanes(load(p, 0)), largest_lane(load(p, 0))",
        namespace,
    )
    x, out = np.arange(width * width, dtype=real) ** 2, np.empty(width, real)
    x[width - 1], x[0] = x[0], x[width - 1]
    first, top = njit(namespace["reduce"])(x, out)
    assert_array_equal(out, x.reshape(width, width).sum(axis=1))
    assert (first, top) == (x[:width].sum(), x[:width].max())
