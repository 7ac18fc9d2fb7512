"""A target in a page: a row a lane, a loop over keys, a bit of the mask at a time. It takes float32."""

import math
from dataclasses import dataclass

import numpy as np

from splat_numba.gen.language.entry import Entry
from splat_numba.gen.plans.machine import GPU
from splat_numba.gen.plans.plan import Cost, Plan
from splat_numba.gen.schedules.schedule import EmittedText, InPlace

STRIDES = tuple(f"{name}_{axis}" for name in ("q", "k", "v", "out") for axis in ("batch", "head", "row"))
POINTERS = ("q", "k", "v", "out", "lse", "kv_lengths", "bits", "heads")
COUNTS = ("heads_q", "heads_count", "group", "seq_q", "seq_kv", "words", "ragged")
PARAMETERS = (*((name, "l") for name in (*POINTERS, *STRIDES)), ("scale", "f"), *((name, "r") for name in COUNTS))


@dataclass(frozen=True, eq=False)
class WholePass:
    """bits: uint32 (seq_q, words), of each row a bit a key."""

    bits: np.ndarray
    tile_q: int = 32
    tile_kv: int = 1
    resumes: bool = False
    closed: bool = False
    shared: bool = True

    def grid(self, seq_q, seq_kv):
        return 1, -(-seq_q // 32)

    def describe(self):
        return "a row a lane"

    def as_dict(self):
        return {"bytes": self.bits.nbytes}


def render(head_dim, value_dim):
    return f"""
import numpy as np
from splat_numba.runtime.cuda.dialect import cuda, ptx
u32, u64, f32 = np.uint32, np.uint64, np.float32

def attention({", ".join(name for name, _ in PARAMETERS)}):
    blocks = u32((seq_q + u32(31)) // u32(32))
    pair = u32(ptx.block_index() // blocks)
    entry = u32(pair // heads_count)
    head = ptx.load_word(heads + u64(4) * u64(pair - entry * heads_count))
    place = u32((ptx.block_index() - pair * blocks) * u32(32) + ptx.thread_index())
    inside = u32(1) if place < seq_q else u32(0)
    row = place if place < seq_q else u32(0)
    end = seq_kv
    if ragged != u32(0):
        end = ptx.load_word(kv_lengths + u64(4) * u64(entry))
    q_at = q + u64(entry) * q_batch + u64(head) * q_head + u64(row) * q_row
    k_at = k + u64(entry) * k_batch + u64(head // group) * k_head
    v_at = v + u64(entry) * v_batch + u64(head // group) * v_head
    sums = cuda.local.array({value_dim}, np.float32)
    for d in range({value_dim}):
        sums[d] = f32(0.0)
    peak, total = f32(-3e38), f32(0.0)
    for key in range(u32(0), end):
        word = ptx.load_word(bits + u64(4) * (u64(row) * u64(words) + u64(u32(key) >> u32(5))))
        kept = u32(word >> (u32(key) & u32(31))) & u32(1)
        score = f32(0.0)
        for d in range({head_dim}):
            other = ptx.load_real_when(k_at + u64(key) * k_row + u64(4 * d), u32(1))
            score = score + ptx.load_real_when(q_at + u64(4 * d), u32(1)) * other
        score = ptx.select_real(score * scale, f32(-3e38), kept)
        top = ptx.maximum(peak, score)
        shrink, weight = ptx.exp2(peak - top), ptx.select_real(ptx.exp2(score - top), f32(0.0), kept)
        total, peak = total * shrink + weight, top
        for d in range({value_dim}):
            value = ptx.load_real_when(v_at + u64(key) * v_row + u64(4 * d), kept)
            sums[d] = sums[d] * shrink + weight * value
    some = u32(1) if total > f32(0.0) else u32(0)
    scaled = ptx.select_real(ptx.reciprocal(total), f32(0.0), some)
    out_at = out + u64(entry) * out_batch + u64(head) * out_head + u64(row) * out_row
    for d in range({value_dim}):
        ptx.store_real(out_at + u64(4 * d), sums[d] * scaled, inside)
    level = ptx.select_real((peak + ptx.log2(total)) * f32({math.log(2)}), f32(-np.inf), some)
    ptx.store_real(lse + u64(4) * u64((entry * heads_q + head) * seq_q + row), level, inside)
"""


class Toy:
    name, kind, generation, capabilities = "toy", GPU, "Toy", frozenset({(9, 0)})

    def runs_on(self, problem):
        return self.capabilities

    def refusal(self, problem):
        return None if problem.dtype == "float32" else f"wanted as float32 for the toy, got {problem.dtype}."

    def gives_way(self, _problem, _gpu):
        return None

    def plan(self, geometry, problem, gpu, mask, conditions):
        kept = np.zeros((problem.seq_q, -(-problem.seq_kv // 32) * 32), np.bool_)
        for band in geometry:
            for row, low, high in zip(band.rows, band.lo, band.hi, strict=True):
                kept[row, band.residue + band.step * low : band.residue + band.step * (high - 1) + 1 : band.step] = True
        bits = np.packbits(kept, axis=1, bitorder="little").view(np.uint32)
        area = problem.seq_q * problem.seq_kv
        cost = Cost(int(kept.sum()), area, -(-problem.seq_q // 32), area, 0, 1.0, 1.0)
        return Plan(problem, self.name, gpu, "toy", mask, len(geometry), (WholePass(bits),), True, cost, (), "float32",
                    conditions)  # fmt: skip

    def candidates(self, geometry, problem, gpu, conditions, most):
        return ()

    def texts(self, plan):
        dims = plan.problem.head_dim, plan.problem.value_dim
        return tuple(EmittedText("toy", Entry("attention", PARAMETERS, 32, 1, 0), render, dims) for _ in plan.passes)

    def in_place(self, tensors):
        return {name: InPlace(one.strides[3] == 4, 4) for name, one in tensors.items()}

    def record(self, builder, passes, call):
        read = {"q": call.q, "k": call.k, "v": call.v, "out": call.out}
        batch, heads_q, seq_q, _ = call.q.sizes
        strides = [step for one in read.values() for step in one.strides[:3]]
        for number, one in enumerate(passes):
            counts = (heads_q, len(one.heads), heads_q // call.k.sizes[1], seq_q, call.k.sizes[2],
                      one.planned.bits.shape[1], 1)  # fmt: skip
            numbers = dict(zip((*STRIDES, *COUNTS), (*strides, *counts), strict=True))
            tables = {"bits": one.planned.bits, "heads": np.array(one.heads, np.int32)}
            pointers = {name: builder.table(f"{name}_{number}", data) for name, data in tables.items()}
            places = {**read, **pointers, "lse": call.lse, "kv_lengths": call.kv_lengths}
            grid = -(-seq_q // 32) * batch * len(one.heads)
            builder.launch(one.text, grid, {**numbers, "scale": call.scale * math.log2(math.e)}, places)
