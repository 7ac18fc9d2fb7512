"""No instruction without a meaning, and a few of them by hand; what faults are called."""

import numpy as np
import pytest

from splat_numba.emulator.block import Block
from splat_numba.emulator.meanings import check_complete, meanings
from splat_numba.emulator.memory import GlobalMemory, swizzled
from splat_numba.emulator.text import both, either
from splat_numba.errors import EmulationError
from splat_numba.gen.instructions import INSTRUCTIONS, Instruction
from splat_numba.gen.lane_values import narrowed, widen
from splat_numba.runtime.arrays import narrow


def block(shared=4096):
    return Block(GlobalMemory(), [], shared, 0, 1, late=False)


def test_an_instruction_needs_one_meaning_of_its_operands():
    check_complete(INSTRUCTIONS)
    added = Instruction("double", "f", "f", "add.f32 $0, $1, $1;")
    for meaning in (None, lambda: 0):
        wrong = [*INSTRUCTIONS, Instruction("double", "f", "f", added.assembly, meaning=meaning)]
        with pytest.raises(NotImplementedError, match="instruction double wanted with one meaning"):
            check_complete(wrong)
    with pytest.raises(NotImplementedError, match=r"of instructions only, got \['block_barrier'\]"):
        check_complete([one for one in INSTRUCTIONS if one.name != "block_barrier"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_conversions_round_to_nearest_even_and_keep_what_is_special(dtype):
    rng = np.random.default_rng(0)
    special = [0.0, -0.0, np.inf, -np.inf, 1e30, 1e-30]
    values = np.concatenate([rng.standard_normal(26) * 1e3, special]).astype(np.float32)
    assert np.array_equal(narrowed(values, dtype), narrow(values, dtype))
    back = widen(narrow(values, dtype), dtype)
    assert np.array_equal(narrowed(back, dtype), narrow(values, dtype))


def test_the_swizzle_is_a_permutation_of_each_kilobyte_that_undoes_itself():
    places = np.arange(4096)
    assert np.array_equal(swizzled(swizzled(places)), places)
    assert np.array_equal(np.sort(swizzled(places).reshape(4, 1024)), places.reshape(4, 1024))
    assert swizzled(128) == 128 + 16


def test_a_barrier_counts_arrivals_and_bytes():
    one = block()
    ptx = meanings(one)
    first_lane = np.arange(32) == 0

    def kernel():
        ptx.mbarrier_init(64, 2)
        ptx.mbarrier_expect(64, 32, first_lane)
        ptx.mbarrier_arrive(64, first_lane)
        assert one.barrier(64).phase == 0
        one.landed(64, 32)
        assert one.barrier(64).phase == 1
        ptx.mbarrier_wait(64, 0)
        ptx.mbarrier_wait(64, 1)

    with pytest.raises(
        EmulationError, match=r"deadlock: every warp waits, \{0: 'mbarrier 0x40, parity 1 \(line 0\)'\}"
    ):
        one.run(1, kernel)


def test_and_and_or_take_any_number_of_tests():
    first, second, third = np.arange(4) < 3, np.arange(4) > 0, np.arange(4) != 1
    assert both(first, second, third).tolist() == [False, False, True, False]
    assert either(~first, ~second, ~third).tolist() == [True, True, False, True]
    assert first.tolist() == [True, True, True, False]  # NumPy's own functions write into a third operand
    assert third.tolist() == [True, False, True, True]
