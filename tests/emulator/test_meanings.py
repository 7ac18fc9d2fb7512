"""No instruction without a meaning, and a few of them by hand; what faults are called."""

from itertools import product

import numpy as np
import pytest

from splat_numba.emulator.block import Block
from splat_numba.emulator.exchange import Exchange
from splat_numba.emulator.meanings import check_complete, meanings
from splat_numba.emulator.memory import GlobalMemory, swizzled
from splat_numba.emulator.vectorise import both, either
from splat_numba.errors import EmulationError
from splat_numba.gen.language.fragments import spread
from splat_numba.gen.language.halves import narrow
from splat_numba.gen.language.instructions import INSTRUCTIONS, Instruction
from splat_numba.gen.language.lane_layout import sum_at
from splat_numba.gen.language.lane_values import narrowed, widen
from splat_numba.gen.targets.sm90.shape import keys_descriptor
from tests.emulator.fidelity import Case, emulate


def block(shared=4096):
    memory = GlobalMemory()
    return Block(memory, [], shared, 0, 1, exchange=Exchange(memory), late=False)


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


def test_every_warpgroup_multiplies_the_same_rows():
    one = f"u64({keys_descriptor()}) | u64(base >> u32(4))"
    body = f"""
    sums = cuda.local.array(4, dtype=np.float32)
    for i in range(2):
        place = u32(16) * (thread + u32(256 * i))
        a, b, c, d = ptx.load_words4(source + u64(place))
        ptx.store_shared_words4(base + place, a, b, c, d, u32(1))
    ptx.fence_shared()
    ptx.block_barrier()
    ptx.wgmma_fence()
    product(sums, {one}, {one}, u32(0))
    ptx.wgmma_commit()
    ptx.wgmma_wait_all()
    ptx.store_reals4(target + u64(16) * u64(thread), sums[0], sums[1], sums[2], sums[3], u32(1))
    """
    head = 'product = ptx.matrix_product(8, "float16", from_registers=False, transposed=False)\n'
    numbers = np.random.default_rng(0).standard_normal(4096).astype(np.float16).view(np.uint32)
    answer = emulate(Case("text", (), body, numbers, 1024, threads=256, shared=8192, head=head)).view(np.float32)
    assert np.array_equal(answer[:512], answer[512:])


def test_texts_find_a_number_where_products_leave_it():
    sums = np.arange(16 * 24, dtype=np.float32).reshape(16, 24)
    registers = spread(sums)
    for lane, eight, row, x in product(range(32), range(3), range(2), range(2)):
        wanted = sums[lane // 4 + 8 * row, 8 * eight + 2 * (lane % 4) + x]
        given = {"own": registers[:, lane], "row": row, "x": x, "j": eight}
        texts = (
            sum_at("own", row, x, eight),
            sum_at("own", "row", "x"),
            sum_at("own", "row", x),
            sum_at("own", row, "x"),
        )
        assert {eval(text, given) for text in texts} == {wanted}  # noqa: S307 - of this test's own text
