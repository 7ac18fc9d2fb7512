"""What launches of GPU targets are given: items, tables, strides, scales; and which arrays they take in place."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from splat_numba.gen.boxes.passes import BoxPass
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.plans.backward import GRADIENTS
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.schedules.schedule import InPlace, Place, ScheduleBuilder
from splat_numba.gen.schedules.tensor import Tensor, as_word
from splat_numba.gen.targets.gpu.addresses import STEPS
from splat_numba.gen.targets.gpu.items import item_counts, view_steps
from splat_numba.gen.targets.gradients import OPERANDS
from splat_numba.gen.targets.target import AttentionCall, HeadsPass, with_shared_heads

CHUNK = 16  # bytes: what the widest loads and stores move
SMALLEST_SCALE = 2.0**-126  # a scale of 0 as the kernel can have it: scores of +-1e30 still round to weights of 1


def arch_of(gpu: Gpu) -> str:
    """The architecture that texts for a GPU are compiled for."""
    return gpu.arch


def boxes_of(planned: object) -> BoxPass:
    """A pass of this target's. Raises TypeError for another's."""
    if isinstance(planned, BoxPass):
        return planned
    raise TypeError(planned)


def tables_of(planned: BoxPass) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.int32 | np.uint32]]]:
    """The pass's tables, by the names of a text's parameters."""
    table = planned.table
    return {
        "rows": table.rows, "block": table.block, "piece": table.piece, "bits": table.bits, "views": view_steps(table),
    }  # fmt: skip


def pass_tables(builder: ScheduleBuilder, number: int, one: HeadsPass) -> dict[str, Place | Tensor | None]:
    """The tables of a call's pass of this number, and its heads, by parameter."""
    tables = {**tables_of(boxes_of(one.planned)), "heads": np.array(one.heads, np.int32)}
    return {name: builder.table(f"{name}_{number}", data) for name, data in tables.items()}


def pass_counts(one: HeadsPass, call: AttentionCall) -> dict[str, int | float]:
    """The items of a pass of attention, and the sizes of the call that every target's text asks for."""
    batch, heads_q, seq_q, _ = call.q.sizes
    group = heads_q // max(call.k.sizes[1], 1) or 1
    items = item_counts(boxes_of(one.planned), len(one.heads), batch, (call.k, call.v), group)
    return {**items, "heads_q": heads_q, "group": group, "seq_q": seq_q}


def record_by_address(
    builder: ScheduleBuilder, number: int, one: HeadsPass, call: AttentionCall, own: Mapping[str, int | float]
) -> None:
    """Add the launch of a call's pass of this number whose text reads rows by address: a block an item.

    own: what such a text has beside, the factor of its scores at least.
    """
    planned, (batch, _, seq_q, _) = boxes_of(one.planned), call.q.sizes
    arrays = {"q": call.q, "k": call.k, "v": call.v, "out": call.out}
    pointers: dict[str, Place | Tensor | None] = {**arrays, "lse": call.lse, "kv_lengths": call.kv_lengths}
    pointers |= rest_of(one, call) | pass_tables(builder, number, one)
    counts = {
        **strides_of(arrays), **pass_counts(one, call), "seq_kv": call.k.sizes[2], "box_shift": planned.kv_box.shift,
        **own,
    }  # fmt: skip
    items = len(planned.table.block) * len(one.heads) * batch
    builder.launch(one.text, items if seq_q else 0, counts, pointers)


def rest_bytes(one: HeadsPass, call: AttentionCall) -> int:
    """Of what rounding takes off the results of a pass, for a later one; 0 where none goes on from there."""
    traits, (batch, heads, seq, _) = boxes_of(one.planned).traits, call.out.sizes
    return batch * heads * seq * traits.rest_row * traits.hands_on


def rest_of(one: HeadsPass, call: AttentionCall) -> dict[str, Place | None]:
    """The parameter for that, of texts that have it."""
    return {"rest": call.rest} if boxes_of(one.planned).traits.keeps_rest else {}


def strides_of(arrays: Mapping[str, Tensor | None]) -> dict[str, int]:
    """In bytes of rows, heads and batch entries, by parameter; negative ones wrap around."""
    found = {}
    for name, one in arrays.items():
        to_batch, to_head, to_row = (0, 0, 0) if one is None else one.strides[:3]
        for step, size in zip(STEPS, (to_row, to_head, to_batch), strict=True):
            found[f"{name}_{step}"] = as_word(size)
    return found


def in_chunks(tensor: Tensor) -> bool:
    """Whether the texts can read or write an array in place: rows of whole chunks, none of which reaches beyond it."""
    size = ITEMSIZE[tensor.dtype]
    *steps, unit = tensor.strides
    whole = tensor.sizes[3] * size % CHUNK == 0 and (unit == size or tensor.sizes[3] == 1)
    return whole and not any(
        step % CHUNK for step, places in zip(steps, tensor.sizes[:3], strict=True) if places > 1
    )  # fmt: skip


def scale_log2(scale: float) -> float:
    """The factor of scores in base 2; its sign is the plan's."""
    return abs(scale) * math.log2(math.e) or SMALLEST_SCALE


def chunks_in_place(tensors: Mapping[str, Tensor]) -> dict[str, InPlace]:
    """Which of a call's q, k, v and out the texts read and write where they are."""
    seen = with_shared_heads(tensors)
    return {name: InPlace(in_chunks(seen[name]), CHUNK) for name in ("q", "k", "v", "out")}


def gradients_in_place(tensors: Mapping[str, Tensor]) -> dict[str, InPlace]:
    """The same of a backward pass's operands and gradients; a gradient that nobody wants is of no matter."""
    rules = {name: InPlace(in_chunks(tensors[name]), CHUNK) for name in OPERANDS}
    for name in GRADIENTS:
        one = tensors.get(name)
        rules[name] = InPlace(True, 1) if one is None else InPlace(in_chunks(one), CHUNK)
    return rules
