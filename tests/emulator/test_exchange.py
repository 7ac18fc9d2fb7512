"""Blocks that read what others have stored: a fence, an atomic that tells of it, one that hears of it, and a fence."""

import numpy as np
import pytest

from splat_numba.runtime.cuda.tensor_map import TensorMapArguments
from tests.emulator.fidelity import Case, emulate

# Three blocks of two warps; the last one answers what it has read of the first.
SHARED = "ptx.load_shared_word(base)"
STEPS = {
    "store": "ptx.store_word(stored + u64(256) * u64(block) + u64(4) * u64(thread), thread, u32(1))",
    "fence": "ptx.fence_device()",
    "meet": "ptx.block_barrier()",
    "count": "ptx.fetch_add(target, u32(1), first)",
    "read": "found = ptx.load_word(stored + u64(4) * u64(u32(63) - thread))",
    "store_again": "ptx.store_word(stored, u32(7), first if block == u32(0) else u32(0))",
    "fence_of_warp_0": "if thread < u32(32): ptx.fence_device()",
    "count_but_last": "ptx.fetch_add(target, u32(1), first if block < u32(2) else u32(0))",
    "count_but_first": "ptx.fetch_add(target + u64(4), u32(1), first if block > u32(0) else u32(0))",
    "count_elsewhere": "ptx.fetch_add(target + u64(4) * u64(block), u32(1), first)",
    "read_mine": "found = ptx.load_word(stored + u64(256) * u64(block) + u64(4) * u64(u32(63) - thread))",
    "read_count": "found = ptx.load_word(target)",
    "copy_own": f"ptx.async_copy(base, stored, leader); ptx.async_commit(); wait_all(); found = {SHARED}",
    "copy_bytes": "ptx.bulk_copy(base, stored, u32(128), barrier, first); ptx.mbarrier_wait(barrier, z); "
    f"found = {SHARED}",
    "copy_box": "ptx.tensor_copy(base, maps, barrier, z, z, z, z, z, first); ptx.mbarrier_wait(barrier, z); "
    f"found = {SHARED}",
}
RIGHT = {
    "all fence after the barrier": "store fence meet count meet fence read",
    "who counts fences before the barrier": "store fence meet count fence_of_warp_0 meet read",
    "by way of the block between": "store fence meet count_but_last fence count_but_first meet fence read",
    "what is a block's own": "store meet read_mine",
}
WRONG = {
    "no fence": ("store meet count meet fence read", range(64)),
    "a fence of the other warp": ("store fence_of_warp_0 meet count meet fence read", range(32)),
    "no barrier after the fence": ("store fence count meet fence read", range(32)),
    "a fence after the atomic": ("store meet count fence meet fence read", range(64)),
    "stores after the fence": ("store fence store_again meet count meet fence read", [63]),
    "no second fence": ("store fence meet count meet read", range(64)),
    "no barrier after the second fence": ("store fence meet count fence_of_warp_0 read", range(32, 64)),
    "no atomic by who reads": ("store fence meet count_but_last meet fence read", range(64)),
    "an atomic of each block's own": ("store fence meet count_elsewhere meet fence read", range(64)),
    "no fence by the block between": (
        "store fence meet count_but_last count_but_first meet fence read", range(64),
    ),
    "a warp's own copies": ("store copy_own", range(64)),
    "a copy of bytes": ("store copy_bytes", range(64)),
    "a copy of a box": ("store copy_box", range(64)),
    "a counter that nobody fences": ("count_but_last read_count", range(64)),
}  # fmt: skip


def run(steps):
    start = """
    first = u32(1) if thread == u32(0) else u32(0)
    block, stored, barrier, z = ptx.block_index(), source, u32(base + u32(2048)), u32(0)
    if thread < u32(32):
        ptx.mbarrier_init(barrier, u32(1))
        ptx.fence_mbarrier_init()
        ptx.mbarrier_expect(barrier, u32(128), first)
    ptx.fence_tensor_map(maps)
    ptx.block_barrier()
    """
    lines = [STEPS[step] for step in steps.split()]
    answer = "ptx.store_word(target + u64(64) + u64(4) * u64(thread), found, u32(1) if block == u32(2) else u32(0))"
    text, head = start + "\n    ".join([*lines, answer]), "wait_all = ptx.async_wait(0)\n"
    case = Case("text", (), text, np.zeros(192, np.uint32), 80, threads=64, grid=3, shared=2304, head=head, maps=maps)
    return emulate(case)[16:]


def maps(address):
    return [TensorMapArguments("float16", address, (64, 1, 1, 1, 1), (16,) * 4, (64, 1, 1, 1, 1))]


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_ordered_is_read(name):
    assert run(RIGHT[name]).tolist() == list(range(64))[::-1]


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_ordered_is_hidden(name):
    steps, hidden = WRONG[name]
    assert np.flatnonzero(run(steps) == 2**32 - 1).tolist() == list(hidden)
