"""What a fault is called: lanes and values, block, warp and line of the text, in the exact words."""

import re
from dataclasses import replace

import numpy as np
import pytest

from splat_numba.emulator.copies import check_map
from splat_numba.errors import EmulationError
from splat_numba.gen.schedules.tensor_map import TensorMapArguments
from splat_numba.gen.targets.sm90.shape import keys_descriptor
from tests.emulator.fidelity import Case, emulate

ONE = f"u64({keys_descriptor()}) | u64(base >> u32(4))"
ADD = f"product(sums, {ONE}, {ONE}, u32(1))"
PRODUCT = f"""
    sums = cuda.local.array(4, dtype=np.float32)
    ptx.store_shared_words4(base + u32(16) * lane, lane, lane, lane, lane, u32(1))
    ptx.fence_shared()
    ptx.wgmma_fence()
    product(sums, {ONE}, {ONE}, u32(0))
    ptx.wgmma_commit()
"""
INIT = """
    ptx.mbarrier_init(base, u32(1))
"""
COPY = "ptx.tensor_copy(base + u32(1024), maps, base, u32(0), u32(0), u32(0), u32(0), u32(0), leader)"
FROM_REGISTERS = f"""
    sums = cuda.local.array(4, dtype=np.float32)
    a, b = lane, lane
    ptx.wgmma_fence()
    words = cuda.local.array(2, dtype=np.uint32)
    words[0], x = a, b
    of_registers(sums, a, b, words[0], u32(0), {ONE})
"""
# The source is 64 words at 0x100000, shared memory 2048 bytes at 0x400 and what its alignment may take.
FAULTS = {
    "global memory, out of bounds": (
        "x = ptx.load_word(source + u64(4) * u64(lane + u32(48)))",
        "lanes 16-31 wanted 4 bytes inside a buffer of global memory, got 0x100100, 0x100104, 0x100108 and 13 more",
        1,
    ),
    "global memory, out of bounds, of one address": (
        "x = ptx.load_words4(source + u64(256))",
        "every lane wanted 16 bytes inside a buffer of global memory, got 0x100100",
        1,
    ),
    "global memory, misaligned": (
        "x = ptx.load_words4(source + u64(lane))",
        "lanes 1-15, 17-31 wanted addresses that are multiples of 16, got 0x100001, 0x100002, 0x100003 and 27 more",
        1,
    ),
    "global memory, predicated": (
        "ptx.store_word(u64(0), lane, u32(1) if lane == u32(5) else u32(0))",
        "lane 5 wanted 4 bytes inside a buffer of global memory, got 0x0",
        1,
    ),
    "shared memory, unwritten": (
        """
        ptx.store_shared_word(base + u32(4) * lane, lane, u32(1) if lane != u32(7) else u32(0))
        x = ptx.load_shared_word(base + u32(4) * lane)
        """,
        "lane 7 read shared memory before anything was written there, at 0x41c",
        2,
    ),
    "shared memory, out of bounds": (
        "x = ptx.load_shared_word(base + u32(2024) + u32(2) * (lane & u32(62)))",
        "lanes 20-31 wanted inside the 0xc10 bytes of shared memory, got 0xc10, 0xc10, 0xc14 and 9 more",
        1,
    ),
    "shared memory, misaligned and predicated": (
        "ptx.store_shared_words4(base + u32(8) * lane, lane, lane, lane, lane, u32(1) if lane < u32(4) else u32(0))",
        "lanes 1, 3 wanted addresses that are multiples of 16, got 0x408, 0x418",
        1,
    ),
    "a product's rows": (
        f"{PRODUCT}    ptx.wgmma_wait_all()",
        "rows 4-15 of a matrix product read shared memory before anything was written there, "
        "at 0x640, 0x642, 0x644 and 189 more: the product of line 24",
        7,
    ),
    "a product that nothing waits for": (
        PRODUCT,
        "warp 0 ended with matrix products of line 24 never waited for",
        None,
    ),
    "no barrier": (
        "ptx.bulk_copy(base, source, u32(32), base, leader)",
        "shared address 0x400 wanted as an mbarrier, got none made there",
        1,
    ),
    "too many arrivals": (
        """
        ptx.mbarrier_init(base, u32(1))
        ptx.mbarrier_expect(base, u32(64), u32(1) if lane < u32(2) else u32(0))
        """,
        "mbarrier 0x400 got more arrivals than the 1 of a phase",
        2,
    ),
    "a barrier for each lane": (
        "ptx.mbarrier_init(base + u32(8) * lane, u32(1))",
        "mbarrier_init's address wanted equal in all lanes, got 0x400, 0x408, 0x410 and 29 more",
        1,
    ),
    "a tensor copy from within 16 bytes": (
        f"{INIT}    ptx.tensor_copy(base, maps, base, u32(4), u32(0), u32(0), u32(0), u32(0), leader)",
        "a copy wanted of boxes 64 numbers wide, from a multiple of 8, got 64 from 4",
        2,
    ),
    "a tensor copy of narrow boxes": (
        f"{INIT}    ptx.tensor_copy(base, maps + u64(128), base, u32(0), u32(0), u32(0), u32(0), u32(0), leader)",
        "a copy wanted of boxes 64 numbers wide, from a multiple of 8, got 32 from 0",
        2,
    ),
    "a tensor copy to where the swizzle does not begin": (
        f"{INIT}    ptx.tensor_copy(base + u32(64), maps, base, u32(0), u32(0), u32(0), u32(0), u32(0), leader)",
        "a swizzled copy wanted at a multiple of 128 bytes, got 0x440",
        2,
    ),
    **{
        f"a copy of bytes, misaligned: {what}": (
            f"{INIT}    ptx.bulk_copy(base + u32({to}), source + u64({start}), u32({nbytes}), base, leader)",
            f"a bulk copy wanted in multiples of 16, got {0x400 + to:#x}, {0x100000 + start:#x}, {nbytes}",
            2,
        )
        for what, to, start, nbytes in (("to", 8, 0, 16), ("from", 16, 8, 16), ("bytes", 16, 0, 24))
    },
    "deadlock": (
        """
        ptx.mbarrier_init(base, u32(1))
        ptx.mbarrier_wait(base, u32(0))
        """,
        "deadlock: every warp waits, {0: 'mbarrier 0x400, parity 0 (line 21)'}",
        2,
    ),
    "a product without a fence for its registers": (
        PRODUCT.replace("ptx.wgmma_fence()", "pass"),
        "a warp's first matrix product wanted after wgmma_fence, got none",
        5,
    ),
    "a product of registers that were written after the fence": (
        f"{PRODUCT}    for i in range(4):\n        sums[i] *= f32(2)\n    {ADD}",
        "a matrix product wanted wgmma_fence between writes to sums and it, got none",
        9,
    ),
    "a product of operands that were written after the fence": (
        FROM_REGISTERS,
        "a matrix product wanted wgmma_fence between writes to words and it, got none",
        6,
    ),
    "a product of stores without a fence": (
        PRODUCT.replace("ptx.fence_shared()", "pass"),
        "rows 0-3 of a matrix product wanted fence_shared by warp 0 between the stores there and the barrier after "
        "them, got none, at 0x400, 0x402, 0x404 and 61 more",
        5,
    ),
    "a copy over stores without a fence": (
        f"""
        ptx.store_shared_word(base + u32(1024) + u32(4) * lane, lane, u32(1))
        ptx.mbarrier_init(base, u32(1))
        ptx.fence_mbarrier_init()
        ptx.fence_tensor_map(maps)
        {COPY}
        """,
        "a copy wanted fence_shared by warp 0 between the stores there and the barrier after them, got none, "
        "at 0x800, 0x801, 0x802 and 125 more",
        5,
    ),
    "a copy to a barrier without a fence": (
        f"{INIT}    ptx.fence_tensor_map(maps)\n    {COPY}",
        "a copy wanted to mbarrier 0x400 with fence_mbarrier_init after it was made, got none",
        3,
    ),
    "a copy by a map without a fence": (
        f"{INIT}    ptx.fence_mbarrier_init()\n    ptx.fence_tensor_map(maps + u64(128))\n    {COPY}",
        "a copy wanted by a tensor map after fence_tensor_map, got none of 0x102200",
        4,
    ),
    "registers": (
        "ptx.claim_registers(100)()",
        "registers wanted as a multiple of 8 from 24 to 256, got 100",
        1,
    ),
}


def case_of(body):
    head = "; ".join(
        f'{name} = ptx.matrix_product(8, "float16", from_registers={where}, transposed=False)'
        for name, where in (("product", False), ("of_registers", True))
    )
    head += "\n"
    boxes = [TensorMapArguments("float16", 1 << 20, (64, 1, 1, 1, 1), (16,) * 4, (n, 1, 1, 1, 1)) for n in (64, 32)]
    return Case("text", (), body, np.zeros(64, np.uint32), 32, shared=2048, head=head, maps=lambda _address: boxes)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_says_where_who_and_what(fault):
    body, message, line = FAULTS[fault]
    case = case_of(body)
    first = body.strip().splitlines()[0]
    at = 0 if line is None else line + case.text.splitlines().index(f"    {first}")
    with pytest.raises(EmulationError) as raised:
        emulate(case)
    assert str(raised.value) == f"{message} (block 0, warp 0, line {at} of text)"


def test_where_a_product_s_right_operand_is_may_be_written_after_the_fence():
    """Only what it takes from registers may not."""
    emulate(
        case_of(f"""
    sums = cuda.local.array(4, dtype=np.float32)
    for i in range(2):
        ptx.store_shared_words4(base + u32(512 * i) + u32(16) * lane, lane, lane, lane, lane, u32(1))
    ptx.fence_shared()
    ptx.wgmma_fence()
    at = {ONE}
    of_registers(sums, lane, lane, lane, lane, at)
    ptx.wgmma_commit()
    ptx.wgmma_wait_all()
    """)
    )


HELPED = """
@cuda.jit(device=True, forceinline=True)
def helped(sums, first):
    before = sums[0]
    sums[0] = first
    first += before
    return first
"""


def test_a_function_takes_values_and_writes_registers_that_are_the_caller_s():
    """An element is passed, read and returned as what it was, whatever is written later; a name never writes to it."""
    body = """
    sums = cuda.local.array(4, dtype=np.float32)
    sums[0], sums[1] = f32(1), f32(2)
    kept = sums[1]
    got = helped(sums, kept)
    ptx.store_real(target, got, leader)
    ptx.store_real(target + u64(4), sums[0], leader)
    ptx.store_real(target + u64(8), kept, leader)
    """
    case = Case("text", (), body, np.zeros(1, np.uint32), 3, head=HELPED)
    assert emulate(case).view(np.float32).tolist() == [3.0, 2.0, 2.0]


def test_a_function_that_calls_a_product_s_registers_something_else_is_refused():
    """Notes of what is written to them are by name."""
    case = case_of(f"{PRODUCT}    x = helped(total, f32(1))")
    message = r"registers of a matrix product wanted under one name in all functions, got total for sums \(line \d+\)"
    with pytest.raises(EmulationError, match=message):
        emulate(replace(case, head=case.head + HELPED))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": (0, 1, 1, 1, 1)}, "sizes of 1 to 2**32, got 0"),
        ({"strides": (16, 8, 16, 16)}, "strides multiples of 16 below 2**40, got 8"),
        ({"box": (64, 1, 257, 1, 1)}, "boxes of 1 to 256, got 257"),
        ({"pointer": 8}, "addresses multiples of 16, got 8"),
        ({"sizes": (64, 1, 1, 2**32 + 1, 1)}, "sizes of 1 to 2**32, got 4294967297"),
        ({"strides": (16, 16, 16, 2**40)}, "strides multiples of 16 below 2**40, got 1099511627776"),
        ({"box": (64, 0, 1, 1, 1)}, "boxes of 1 to 256, got 0"),
    ],
)
def test_a_tensor_map_that_a_driver_refuses(changes, message):
    usual = TensorMapArguments("float16", 1 << 20, (64, 1, 1, 1, 1), (16,) * 4, (64, 1, 1, 1, 1))
    case = Case("text", (), "pass", np.zeros(64, np.uint32), 32, shared=64, maps=lambda _: [replace(usual, **changes)])
    with pytest.raises(EmulationError, match=re.escape(f"a tensor map wanted {message}")):
        emulate(case)


def test_a_tensor_map_as_large_as_can_be():
    check_map(TensorMapArguments("float16", 1 << 20, (2**32, 1, 1, 1, 1), (0, 16, 16, 2**40 - 16), (256, 1, 1, 1, 1)))


def test_a_copy_reads_to_a_buffer_s_end_and_no_further():
    body = f"""{INIT}
    ptx.fence_mbarrier_init()
    ptx.fence_tensor_map(maps)
    ptx.mbarrier_expect(base, u32(128), leader)
    {COPY}
    ptx.mbarrier_wait(base, u32(0))
    """
    at_end, beyond = (
        [TensorMapArguments("float16", (1 << 20) + start, (64, 1, 1, 1, 1), (16,) * 4, (64, 1, 1, 1, 1))]
        for start in (128, 144)
    )
    emulate(replace(case_of(body), maps=lambda _: at_end))
    with pytest.raises(EmulationError, match="bytes 0x100090 to 0x100110 wanted in an allocated buffer"):
        emulate(replace(case_of(body), maps=lambda _: beyond))
