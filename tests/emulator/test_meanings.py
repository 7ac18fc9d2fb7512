"""Every instruction has a meaning, and a few of them by hand."""

import numpy as np
import pytest

from splat_numba.emulator.block import Block
from splat_numba.emulator.meanings import meanings, narrowed, swizzled, widen
from splat_numba.emulator.memory import GlobalMemory
from splat_numba.errors import EmulationError
from splat_numba.gen.instructions import INSTRUCTIONS
from splat_numba.runtime.arrays import narrow


def block(shared=4096):
    return Block(GlobalMemory(), [], shared, 0, 1, late=False)


def test_every_instruction_has_a_meaning():
    given = vars(meanings(block(), 4))
    assert {one.name for one in INSTRUCTIONS} <= set(given)
    assert {"matrix_product", "claim_registers", "release_registers", "shared_address"} <= set(given)


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


def test_memory_refuses_what_is_outside_or_never_written():
    one = block()
    address = one.memory.allocate(64)
    with pytest.raises(EmulationError, match="wanted in an allocated buffer"):
        one.memory.read(address + 60, 8)
    with pytest.raises(EmulationError, match="read before anything was written"):
        one.shared.load(np.arange(4))
    with pytest.raises(EmulationError, match="multiples of 4"):
        one.memory.gather(address + 2, 4)


def test_a_barrier_counts_arrivals_and_bytes():
    one = block()
    ptx = meanings(one, 1)
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

    with pytest.raises(EmulationError, match=r"deadlock: every warp waits, \{0: 'mbarrier 0x40, parity 1'\}"):
        one.run(1, kernel)
