"""Attention's texts, and its passes as launches of them; where results can be stored in place."""

from __future__ import annotations

from collections.abc import Sequence

from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.schedules.schedule import EmittedText, Place, ScheduleBuilder
from splat_numba.gen.schedules.tensor import ROW_ALIGNMENT, Tensor
from splat_numba.gen.schedules.tensor_map import BoxMap
from splat_numba.gen.schedules.views import Box, View
from splat_numba.gen.targets.gpu.launches import (
    boxes_of,
    pass_counts,
    pass_tables,
    rest_of,
    scale_log2,
    strides_of,
)
from splat_numba.gen.targets.gpu.results import QUARTER
from splat_numba.gen.targets.sm90.attention import attention_entry, render_attention
from splat_numba.gen.targets.target import AttentionCall, HeadsPass

WORD_BYTES = 4
COUNTER_WORDS = 2  # items taken, and blocks that have ended


def attention_text(traits: Traits) -> EmittedText:
    """The text of the kernel with these traits, named after shape and type."""
    name = f"attention_sm_90a_d{traits.head_dim}_{traits.dtype}_{traits.tile_q}x{traits.tile_kv}"
    return EmittedText(name, attention_entry(traits), render_attention, (traits,))


def record_pass(builder: ScheduleBuilder, number: int, one: HeadsPass, call: AttentionCall) -> None:
    """Add the launch of a call's pass of this number: as many blocks as are resident, which take items in turn."""
    planned, (batch, _, seq_q, _) = boxes_of(one.planned), call.q.sizes
    table = planned.table
    items = len(table.block) * len(one.heads) * batch
    resident = call.multiprocessors * planned.traits.blocks_per_multiprocessor
    pointers: dict[str, Place | Tensor | None] = {"lse": call.lse, "kv_lengths": call.kv_lengths, "out": call.out}
    pointers |= rest_of(one, call) | pass_tables(builder, number, one)
    pointers["counter"] = builder.counters(COUNTER_WORDS)
    counts = {
        **strides_of({"out": call.out}), **pass_counts(one, call), "scale_log2": scale_log2(call.scale),
        "q_views": len(table.q_views), "kv_views": len(table.kv_views),
    }  # fmt: skip
    maps = {
        "q_maps": box_maps([call.q], table.q_views, planned.q_box),
        "kv_maps": box_maps([call.k, call.v], table.kv_views, planned.kv_box),
    }
    builder.launch(one.text, min(items, resident) if seq_q else 0, counts, pointers, maps=maps)


def box_maps(tensors: Sequence[Tensor], views: Sequence[View], box: Box) -> list[BoxMap]:
    """Of each view one an array."""
    return [BoxMap(of, view, box) for view in views for of in tensors]


def store_bytes(out: Tensor) -> int:
    """The widest of the kernel's stores: of 16 bytes for every quarter of a row's numbers, of a word for the rest."""
    return ROW_ALIGNMENT if out.sizes[3] >= QUARTER else WORD_BYTES


def writable_in_place(pointer: int, out: Tensor) -> bool:
    """Whether the kernel's stores can write there."""
    *steps, unit = out.strides
    whole = out.sizes[3] % 2 == 0 and unit == 2
    return whole and not (pointer | steps[0] | steps[1] | steps[2]) % store_bytes(out)
