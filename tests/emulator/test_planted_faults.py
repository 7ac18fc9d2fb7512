"""Faults planted in a kernel's text: each must be found without a GPU, by a wrong number or by the emulator itself."""

from dataclasses import replace

import pytest

import splat_numba as splat
from splat_numba.emulator import machine
from splat_numba.gen.targets.sm90.shape import keys_descriptor
from splat_numba.testing import Problem, check_attention
from tests.emulator.planted_faults import check_found, run
from tests.emulator.planted_fences import WithoutFences

PROBLEM = Problem(200, 300, splat.window(70), "float16", batch=1, heads_q=2, head_dim=64, spread=4.0)
WRONG_STRIDE = keys_descriptor() - ((1024 >> 4) << 32) + ((512 >> 4) << 32)
NO_SWIZZLE = keys_descriptor() & ~(1 << 62)

FAULTS = {
    "tile bound": (r"place < end_of_pieces", "place < end_of_pieces - u32(1)"),
    "tile step": (r"left = u32\(number - wave", "left = u32(number + u32(1) - wave"),
    "predicate": (r"\(8 \* \(j & 3\) \+ x\)", "(8 * (j & 3) + x ^ 1)"),
    "mask of the row before": (r"mask_base = base", "mask_base = u32(4) + base"),
    "rows of a swizzled tile": (str(keys_descriptor()), str(WRONG_STRIDE)),
    "no swizzle": (str(keys_descriptor()), str(NO_SWIZZLE)),
    "wait for keys": (r"ptx\.mbarrier_wait\(base \+ K_FULL [^\n]*", "pass"),
    "wait for queries": (r"ptx\.mbarrier_wait\(base \+ Q_FULL [^\n]*", "pass"),
    "wait for products": (r"ptx\.wgmma_wait_but_one\(\)", "pass"),
    "phase of a round": (r"return u32\(0\), u32\(phase \^ u32\(1\)\)", "return u32(0), phase"),
    "lanes of the epilogue": (r"u64\(ptx\.thread_index\(\) & u32\(3\)\)", "u64(ptx.thread_index() & u32(1))"),
    "swap in the epilogue": (r"upper = ptx\.thread_index\(\) & u32\(2\)", "upper = ptx.thread_index() & u32(1)"),
    "values given back before they are read": (
        r"(ptx\.wgmma_wait_all\(\))\n( +)(ptx\.mbarrier_arrive\(base \+ V_EMPTY [^\n]*)",
        r"\3\n\2\1",
    ),
    "mask given back before it is read": (
        r"(mask_scores\(score, status, [^\n]*)\n( +)(give_keys_back[^\n]*)",
        r"\3\n\2\1",
    ),
    "keys never given back": (r"ptx\.mbarrier_arrive\(base \+ K_EMPTY [^\n]*", "pass"),
    "bytes of a copy": (r"ptx\.mbarrier_expect\(full, V_BYTES", "ptx.mbarrier_expect(full, V_BYTES * u32(10)"),
    "rescaling": (r"total\[4 \* j \+ 0 \+ x\] \*= rescale\[0\]", "pass"),
    "row sums": (r"row_sum \+= ptx\.shuffle_xor\(row_sum, u32\(2\)\)", "pass"),
    "peak": (r"now = top if top - before > f32\(8\.0\) else before", "now = before"),
    "counter": (r"ptx\.store_word\(counter, u32\(0\), last_block\)", "pass"),
}  # fmt: skip


def check():
    check_attention(PROBLEM, backend="cuda")


@pytest.mark.parametrize("late", [False, True])
def test_the_text_as_it_is_passes(monkeypatch, late):
    run(monkeypatch, check, lambda text: text, late)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(monkeypatch, fault):
    check_found(monkeypatch, check, *FAULTS[fault])


@pytest.mark.parametrize("lengths", [None, (230,)], ids=["whole", "ragged"])
def test_every_fence_is_needed(monkeypatch, lengths):
    planted = WithoutFences()
    monkeypatch.setattr(machine, "launch", planted)
    check_attention(replace(PROBLEM, heads_q=1, kv_lengths=lengths), backend="emulate")
    assert planted.survivors == []
    assert planted.entries == {"attention"}
