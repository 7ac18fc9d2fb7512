"""Attention's passes as steps of a schedule: grids, numbers, tables, tensor maps; which arrays they take in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.gen.boxes.passes import BoxPass, Traits
from splat_numba.gen.schedules.schedule import EmittedText, Place, ScheduleBuilder
from splat_numba.gen.schedules.tensor import ROW_ALIGNMENT, Tensor, as_word
from splat_numba.gen.schedules.tensor_map import BoxMap
from splat_numba.gen.schedules.views import Box, View
from splat_numba.gen.targets.gpu.items import heads_per_wave, view_steps
from splat_numba.gen.targets.gpu.launches import rest_of, scale_log2
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
    """Add the launch of a call's pass of this number."""
    table, traits, (batch, _, seq_q, _) = _boxes(one).table, _boxes(one).traits, call.q.sizes
    items = len(table.block) * len(one.heads) * batch
    tables: dict[str, NDArray[Any]] = {
        "rows": table.rows, "block": table.block, "piece": table.piece, "bits": table.bits,
        "views": view_steps(table), "heads": np.array(one.heads, np.int32),
    }  # fmt: skip
    pointers: dict[str, Place | Tensor | None] = {"lse": call.lse, "kv_lengths": call.kv_lengths, "out": call.out}
    pointers |= rest_of(one, call)
    pointers["counter"] = builder.counters(COUNTER_WORDS)
    pointers |= {name: builder.table(f"{name}_{number}", data) for name, data in tables.items()}
    builder.launch(
        one.text,
        min(items, call.multiprocessors * traits.blocks_per_multiprocessor) if seq_q else 0,
        pass_numbers(one, call),
        pointers,
        maps={
            "q_maps": box_maps([call.q], table.q_views, _boxes(one).q_box),
            "kv_maps": box_maps([call.k, call.v], table.kv_views, _boxes(one).kv_box),
        },
    )


def box_maps(tensors: Sequence[Tensor], views: Sequence[View], box: Box) -> list[BoxMap]:
    """Of each view one an array."""
    return [BoxMap(of, view, box) for view in views for of in tensors]


def _boxes(one: HeadsPass) -> BoxPass:
    if isinstance(one.planned, BoxPass):
        return one.planned
    raise TypeError(one)  # of another target


def pass_numbers(one: HeadsPass, call: AttentionCall) -> dict[str, int | float]:
    """The kernel's parameters that are no addresses, by name."""
    table = _boxes(one).table
    batch, heads_q, seq_q, _ = call.q.sizes
    group = heads_q // max(call.k.sizes[1], 1) or 1
    to_batch, to_head, to_row, _ = map(as_word, call.out.strides)
    return {
        "scale_log2": scale_log2(call.scale), "blocks": len(table.block), "heads_count": len(one.heads),
        "heads_q": heads_q, "group": group, "batch": batch,
        "heads_per_wave": heads_per_wave(_boxes(one), (call.k, call.v), group, len(one.heads) * batch), "seq_q": seq_q,
        "q_views": len(table.q_views), "kv_views": len(table.kv_views), "out_row": to_row,
        "out_head": to_head, "out_batch": to_batch,
    }  # fmt: skip


def store_bytes(out: Tensor) -> int:
    """The widest of the kernel's stores: of 16 bytes for every quarter of a row's numbers, of a word for the rest."""
    return ROW_ALIGNMENT if out.sizes[3] >= QUARTER else WORD_BYTES


def writable_in_place(pointer: int, out: Tensor) -> bool:
    """Whether the kernel's stores can write there."""
    *steps, unit = out.strides
    whole = out.sizes[3] % 2 == 0 and unit == 2
    return whole and not (pointer | steps[0] | steps[1] | steps[2]) % store_bytes(out)
