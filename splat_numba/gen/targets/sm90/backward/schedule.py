"""A backward pass as steps of a schedule: levels of the queries, then dq, then dk and dv, then what must be rounded.

A gradient is stored once where one launch makes all of it. Where several do, the passes of a mask or the masks of heads
that share their keys, the first stores float32 and the others add to it, one after the other. The last pass of a mask
rounds its rows, and a last step those that it does not visit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splat_numba.gen.backward import BackwardPlan, Wanted
from splat_numba.gen.boxes import BoxPass
from splat_numba.gen.schedule import Place, ScheduleBuilder
from splat_numba.gen.targets.gradients import GradientCall, HeadsPlan
from splat_numba.gen.targets.sm90.backward.levels import LevelTraits, levels_text
from splat_numba.gen.targets.sm90.backward.rounding import CHUNK, RoundTraits, round_text
from splat_numba.gen.targets.sm90.backward.rounding import THREADS as ROUND_THREADS
from splat_numba.gen.targets.sm90.backward.text import backward_text
from splat_numba.gen.targets.sm90.backward.tile_shapes import candidates
from splat_numba.gen.targets.sm90.backward.traits import (
    ADDED,
    FINISHED,
    KEYS,
    QUERIES,
    ROUNDED,
    STAGED,
    STEPS,
    BackwardTraits,
)
from splat_numba.gen.targets.sm90.schedule import COUNTER_WORDS, heads_per_wave, scale_log2, view_steps
from splat_numba.gen.tensor import Tensor
from splat_numba.gen.tensor_map import BoxMap


@dataclass(frozen=True, slots=True)
class Owners:
    """Heads whose gradients a launch makes, and of each the heads on the other side, one after the other."""

    heads: tuple[int, ...]
    others: tuple[tuple[int, ...], ...]

    @property
    def tables(self) -> dict[str, NDArray[np.int32]]:
        """owners: (head, first, end, 0) of each; heads: of all of them, (others,)."""
        ends = np.cumsum([len(one) for one in self.others], dtype=np.int64)
        rows = [
            (head, end - len(one), end, 0)
            for head, end, one in zip(self.heads, ends.tolist(), self.others, strict=True)
        ]
        flat = [head for one in self.others for head in one]
        return {"owners": np.array(rows, np.int32).reshape(-1, 4), "heads": np.array(flat, np.int32)}

    def only(self, kept: Sequence[bool]) -> Owners:
        """Some of them."""
        chosen = [number for number, one in enumerate(kept) if one]
        return Owners(tuple(self.heads[i] for i in chosen), tuple(self.others[i] for i in chosen))


@dataclass(frozen=True, slots=True)
class GradientLaunch:
    """One launch: its pass, who owns its gradients, and the text's traits."""

    planned: BoxPass
    owners: Owners
    traits: BackwardTraits


def record_backward(builder: ScheduleBuilder, plans: Sequence[HeadsPlan], call: GradientCall) -> None:
    """Add the launches of a call. The first of a mask's passes writes every row of its heads."""
    levels, dout = _record_levels(builder, plans, call)
    for of in (QUERIES, KEYS):
        launches = _launches(plans, of, call)
        sums: dict[str, Tensor] = {}
        for one in launches:
            for name in one.traits.wanted:
                if one.traits.result != ROUNDED and name not in sums:
                    sums[name] = _sums(builder, call.results[name])
        for number, one in enumerate(launches):
            _record_launch(builder, f"{of}_{number}", one, call, levels, dout, sums)
        for name, target in sums.items():
            mine = [one for one in launches if name in one.traits.wanted]
            _record_rounding(builder, name, target, call.results[name], mine)


def _sums(builder: ScheduleBuilder, result: Tensor) -> Tensor:
    batch, heads, seq, dim = result.sizes
    return builder.tensor((batch, heads, seq, -(-dim // CHUNK) * CHUNK), "float32")


def _launches(plans: Sequence[HeadsPlan], of: str, call: GradientCall) -> list[GradientLaunch]:
    """In the order in which they add up; each of a mask's passes, and of kernels that make one gradient each, one."""
    found: list[GradientLaunch] = []
    wanted = _kernels(plans[0].planned, of, call.wanted)
    begun: set[int] = set()
    owners = [_owners(one, of, call) for one in plans]
    several = len(owners) > 1 and sum(len(one.heads) for one in owners) > len({h for one in owners for h in one.heads})
    for one, mine in zip(plans, owners, strict=True):
        passes = _passes(one.planned, of)
        staged = several or len(passes) > 1
        for number, planned in enumerate(passes):
            fresh = [number == 0 and head not in begun for head in mine.heads]
            last = FINISHED if not several and number == len(passes) - 1 else ADDED
            for result, kept in ((STAGED, fresh), (last, [not x for x in fresh])):
                some = mine.only(kept)
                if not some.heads:
                    continue
                stored = result if staged else ROUNDED
                found += [
                    GradientLaunch(planned, some, _traits(planned, of, names, stored, one.planned)) for names in wanted
                ]
        begun.update(mine.heads)
    return found


def _kernels(plan: BackwardPlan, of: str, wanted: Wanted) -> list[tuple[str, ...]]:
    """Which gradients each kernel makes, of those that are wanted."""
    problem = plan.problem if of == QUERIES else plan.problem.transposed()
    _, kernels = candidates(problem, of, plan.gpu)
    found = [tuple(name for name in names if name in wanted.names) for names in kernels]
    return [names for names in found if names]


def _passes(plan: BackwardPlan, of: str) -> list[BoxPass]:
    return [one for one in (plan.queries if of == QUERIES else plan.keys) if isinstance(one, BoxPass)]


def _traits(planned: BoxPass, of: str, wanted: tuple[str, ...], result: str, plan: BackwardPlan) -> BackwardTraits:
    return BackwardTraits(planned.traits, of, wanted, result, plan.conditions.ragged)


def _owners(one: HeadsPlan, of: str, call: GradientCall) -> Owners:
    """Query heads with their key head each; or key heads with those of their query heads that have this mask."""
    group = call.group
    if of == QUERIES:
        return Owners(one.heads, tuple((head // group,) for head in one.heads))
    mine = tuple(dict.fromkeys(head // group for head in one.heads))
    return Owners(mine, tuple(tuple(head for head in one.heads if head // group == key) for key in mine))


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
    builder: ScheduleBuilder, name: str, one: GradientLaunch, call: GradientCall, levels: Tensor, dout: Tensor,
    sums: dict[str, Tensor],
) -> None:  # fmt: skip
    planned, traits = one.planned, one.traits
    table, batch = planned.table, call.q.sizes[0]
    left, right = ((call.q, dout), (call.k, call.v)) if traits.of == QUERIES else ((call.k, call.v), (call.q, dout))
    tables = {
        "rows": table.rows, "block": table.block, "piece": table.piece, "bits": table.bits, **one.owners.tables,
    }  # fmt: skip
    if traits.clears:
        tables["views"] = view_steps(table)
    pointers: dict[str, Place | Tensor | None] = {
        of: builder.table(f"{of}_{name}", data) for of, data in tables.items()
    }
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
    lefts = left[: len(traits.left_dims)]
    rights = (*right, levels) if traits.columns_are_queries else right
    maps = {
        "left_maps": [BoxMap(of, view, planned.q_box) for view in table.q_views for of in lefts],
        "right_maps": [BoxMap(of, view, planned.kv_box) for view in table.kv_views for of in rights],
    }
    resident = call.multiprocessors * planned.traits.blocks_per_multiprocessor
    builder.launch(backward_text(traits), min(items, resident), numbers, pointers, maps=maps)


def _record_rounding(
    builder: ScheduleBuilder, name: str, sums: Tensor, result: Tensor, launches: Sequence[GradientLaunch]
) -> None:
    """Of the rows that no launch has rounded."""
    batch, heads, seq, dim = result.sizes
    left = np.ones(seq, np.bool_)
    for one in launches:
        if one.traits.result == FINISHED:
            rows = one.planned.table.rows
            left[rows[rows >= 0]] = False
    listed = np.flatnonzero(left).astype(np.int32)
    chunks = batch * heads * listed.size * -(-dim // CHUNK)
    numbers = {"heads": heads, "listed": listed.size, "chunks": chunks, **_strides("sums", sums)}
    pointers: dict[str, Place | Tensor | None] = {
        "sums": sums,
        "result": result,
        "rows": builder.table(f"rounded_{name}", listed),
    }
    text = round_text(RoundTraits(dim, result.dtype))
    builder.launch(text, -(-chunks // ROUND_THREADS), {**numbers, **_strides("result", result)}, pointers)
