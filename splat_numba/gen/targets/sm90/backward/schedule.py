"""A backward pass as steps of a schedule: levels of the queries, the launches of gradients, then what must be rounded:
rows whose gradients were added up in float32, and that no last pass visits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.gen.backward import QUERIES
from splat_numba.gen.boxes import BoxPass
from splat_numba.gen.schedule import Place, ScheduleBuilder
from splat_numba.gen.targets.gpu.items import heads_per_wave, view_steps
from splat_numba.gen.targets.gpu.launches import scale_log2
from splat_numba.gen.targets.gradients import GradientCall, HeadsPlan
from splat_numba.gen.targets.sm90.backward.launches import GradientLaunch, in_order
from splat_numba.gen.targets.sm90.backward.levels import LevelTraits, levels_text
from splat_numba.gen.targets.sm90.backward.rounding import CHUNK, RoundTraits, round_text
from splat_numba.gen.targets.sm90.backward.rounding import THREADS as ROUND_THREADS
from splat_numba.gen.targets.sm90.backward.text import backward_text
from splat_numba.gen.targets.sm90.backward.traits import FINISHED, IMAGE_BYTES, ROUNDED, STEPS
from splat_numba.gen.targets.sm90.schedule import COUNTER_WORDS
from splat_numba.gen.tensor import Tensor
from splat_numba.gen.tensor_map import BoxMap


def record_backward(builder: ScheduleBuilder, plans: Sequence[HeadsPlan], call: GradientCall) -> None:
    """Add the launches of a call. The first of a mask's passes writes every row of its heads."""
    levels, dout = _record_levels(builder, plans, call)
    launches = in_order(plans, call)
    sums: dict[str, Tensor] = {}
    for one in launches:
        for name in one.traits.wanted:
            if one.traits.result != ROUNDED and name not in sums:
                sums[name] = _sums(builder, call.results[name])
    kept = max((_kept_bytes(one, call) for one in launches), default=0)
    slopes = builder.scratch(kept) if kept else None
    shared: dict[int, int] = {}
    for number, one in enumerate(launches):
        first = shared.setdefault(id(one.planned), number)
        _record_launch(builder, number, first, one, call, levels, dout, slopes, sums)
    for name, target in sums.items():
        mine = [one for one in launches if name in one.traits.wanted and one.traits.result != ROUNDED]
        for number, (heads, finished) in enumerate(_unrounded(mine)):
            _record_rounding(builder, f"{name}_{number}", target, call.results[name], heads, finished)


def _kept_bytes(one: GradientLaunch, call: GradientCall) -> int:
    return call.q.sizes[0] * one.listed * one.planned.images * IMAGE_BYTES if one.traits.kept else 0


def _unrounded(launches: Sequence[GradientLaunch]) -> list[tuple[tuple[int, ...], tuple[BoxPass, ...]]]:
    """Heads whose gradients are added up in float32, with the passes that round rows of theirs themselves."""
    finished: dict[int, dict[int, BoxPass]] = {}
    for one in launches:
        for head in one.owners.heads:
            mine = finished.setdefault(head, {})
            if one.traits.result == FINISHED:
                mine[id(one.planned)] = one.planned
    heads: dict[tuple[int, ...], list[int]] = {}
    for head, passes in sorted(finished.items()):
        heads.setdefault(tuple(passes), []).append(head)
    return [(tuple(some), tuple(finished[some[0]].values())) for some in heads.values()]


def _sums(builder: ScheduleBuilder, result: Tensor) -> Tensor:
    batch, heads, seq, dim = result.sizes
    return builder.tensor((batch, heads, seq, -(-dim // CHUNK) * CHUNK), "float32")


def _record_levels(builder: ScheduleBuilder, plans: Sequence[HeadsPlan], call: GradientCall) -> tuple[Tensor, Tensor]:
    """Where the levels are, (batch, heads, seq_q, 4) float32, and dout, where needed without rows that keep nothing."""
    batch, heads, seq, dim = call.dout.sizes
    levels = builder.tensor((batch, heads, seq, 4), "float32")
    clears = any(one.planned.empty_rows or one.planned.conditions.ragged for one in plans)
    traits = LevelTraits(dim, call.dout.dtype, clears)
    arrays = {"out": call.out, "dout": call.dout, "lse": call.lse, "dlse": call.dlse}
    dout = call.dout
    if clears:
        dout = arrays["cleared"] = builder.tensor(call.dout.sizes, call.dout.dtype)
    rows = batch * heads * seq
    numbers = {"heads": heads, "seq": seq, "rows": rows}
    for name, one in arrays.items():
        numbers |= _strides(name, one)
    pointers = {**arrays, "levels": levels}
    builder.launch(levels_text(traits), -(-rows // traits.rows), numbers, pointers)
    return levels, dout


def _strides(name: str, one: Tensor | None) -> dict[str, int]:
    """In bytes of rows, heads and batch entries, by parameter; negative ones wrap around."""
    to_batch, to_head, to_row = (0, 0, 0) if one is None else one.strides[:3]
    found = dict(zip(STEPS, (to_row, to_head, to_batch), strict=True))
    return {f"{name}_{step}": size % 2**64 for step, size in found.items()}


def _record_launch(
    builder: ScheduleBuilder, number: int, shared: int, one: GradientLaunch, call: GradientCall, levels: Tensor,
    dout: Tensor, slopes: Place | None, sums: dict[str, Tensor],
) -> None:  # fmt: skip
    """number: of the launch; shared: of the first one of the same pass, whose tables it has too."""
    planned, traits = one.planned, one.traits
    table, batch = planned.table, call.q.sizes[0]
    left, right = ((call.q, dout), (call.k, call.v)) if traits.of == QUERIES else ((call.k, call.v), (call.q, dout))
    tables: dict[str, NDArray[Any]] = {"rows": table.rows, "block": table.block, "piece": table.piece}
    if traits.scores:
        tables["bits"] = table.bits
    pointers: dict[str, Place | Tensor | None] = {
        name: builder.table(f"{name}_{shared}", data) for name, data in tables.items()
    }
    tables = {**one.owners.tables, **({"views": view_steps(table)} if traits.clears else {})}
    pointers |= {name: builder.table(f"{name}_{number}", data) for name, data in tables.items()}
    pointers["counter"] = builder.counters(COUNTER_WORDS)
    if traits.ragged:
        pointers["kv_lengths"] = call.kv_lengths
    if not traits.columns_are_queries:
        pointers["levels"] = levels
    numbers: dict[str, int | float] = {}
    for result in traits.wanted:
        arrays = {result: call.results[result] if traits.result in {ROUNDED, FINISHED} else sums[result]}
        if traits.result == FINISHED:
            arrays[f"{result}_sums"] = sums[result]
        pointers |= arrays
        for array, target in arrays.items():
            numbers |= _strides(array, target)
    items = len(table.block) * len(one.owners.heads) * batch
    wave = heads_per_wave(planned, right, 1, len(one.owners.heads) * batch)
    numbers |= {
        "scale_log2": scale_log2(call.scale), "scale": call.scale, "blocks": len(table.block),
        "heads_count": len(one.owners.heads), "batch": batch, "heads_per_wave": wave,
        "seq": left[0].sizes[2], "heads_left": left[0].sizes[1], "left_views": len(table.q_views),
        "right_views": len(table.kv_views),
    }  # fmt: skip
    if traits.kept:
        pointers["slopes"] = slopes
        numbers |= {"images": planned.images, "listed": one.listed}
    lefts = left[: len(traits.left_dims)]
    rights = (*right[: len(traits.right_dims)], *(levels,) * traits.columns_are_queries)
    maps = {"right_maps": [BoxMap(of, view, planned.kv_box) for view in table.kv_views for of in rights]}
    if lefts:
        maps["left_maps"] = [BoxMap(of, view, planned.q_box) for view in table.q_views for of in lefts]
    resident = call.multiprocessors * planned.traits.blocks_per_multiprocessor
    builder.launch(backward_text(traits), min(items, resident), numbers, pointers, maps=maps)


def _record_rounding(
    builder: ScheduleBuilder, name: str, sums: Tensor, result: Tensor, heads: tuple[int, ...],
    finished: Sequence[BoxPass],
) -> None:  # fmt: skip
    """Of these heads, the rows that no launch has rounded."""
    left = np.ones(result.sizes[2], np.bool_)
    for one in finished:
        rows = one.table.rows
        left[rows[rows >= 0]] = False
    listed = np.flatnonzero(left).astype(np.int32)
    rows_at = builder.table(f"rounded_{name}", listed)
    text = round_text(RoundTraits(result.sizes[3], result.dtype))
    pairs = [(sums, result)]
    if len(heads) < result.sizes[1]:
        pairs = [(sums.head(head), result.head(head)) for head in heads]
    for source, target in pairs:
        batch, count, _, dim = target.sizes
        chunks = batch * count * listed.size * -(-dim // CHUNK)
        numbers = {
            "heads": count, "listed": listed.size, "chunks": chunks, **_strides("sums", source),
            **_strides("result", target),
        }  # fmt: skip
        pointers: dict[str, Place | Tensor | None] = {"sums": source, "result": target, "rows": rows_at}
        builder.launch(text, -(-chunks // ROUND_THREADS), numbers, pointers)
