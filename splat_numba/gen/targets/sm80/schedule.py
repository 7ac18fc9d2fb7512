"""Attention's passes as steps of a schedule: grids, numbers, tables, as those of the FMA units."""

from __future__ import annotations

import numpy as np

from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.schedules.schedule import EmittedText, Place, ScheduleBuilder
from splat_numba.gen.schedules.tensor import Tensor
from splat_numba.gen.targets.gpu.items import heads_per_wave
from splat_numba.gen.targets.gpu.launches import arch_of, boxes_of, rest_of, scale_log2, strides_of, tables_of
from splat_numba.gen.targets.sm80 import attention
from splat_numba.gen.targets.target import AttentionCall, HeadsPass


def attention_text(traits: Traits, gpu: Gpu) -> EmittedText:
    """The text of the kernel with these traits."""
    return attention.attention_text(traits, arch_of(gpu))


def record_pass(builder: ScheduleBuilder, number: int, one: HeadsPass, call: AttentionCall) -> None:
    """Add the launch of a call's pass of this number: a block an item."""
    planned, (batch, heads_q, seq_q, _) = boxes_of(one.planned), call.q.sizes
    arrays = {"q": call.q, "k": call.k, "v": call.v, "out": call.out}
    pointers: dict[str, Place | Tensor | None] = {**arrays, "lse": call.lse, "kv_lengths": call.kv_lengths}
    pointers |= rest_of(one, call)
    pointers |= {
        name: builder.table(f"{name}_{number}", data)
        for name, data in {**tables_of(planned), "heads": np.array(one.heads, np.int32)}.items()
    }
    group, pairs = heads_q // max(call.k.sizes[1], 1) or 1, len(one.heads) * batch
    blocks = len(planned.table.block)
    counts: dict[str, int | float] = {
        **strides_of(arrays), "scale_log2": scale_log2(call.scale), "blocks": blocks, "heads_count": len(one.heads),
        "batch": batch, "heads_per_wave": heads_per_wave(planned, (call.k, call.v), group, pairs), "heads_q": heads_q,
        "group": group, "seq_q": seq_q, "seq_kv": call.k.sizes[2],
        "box_shift": planned.kv_box.inner.bit_length() - 1,
    }  # fmt: skip
    builder.launch(one.text, blocks * pairs if seq_q else 0, counts, pointers)
