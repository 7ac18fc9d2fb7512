"""A backward pass as steps of a schedule: levels of the queries, then dq, then dk and dv.

A gradient is stored by the first launch that makes some of it, and others add to it, one after the other: the passes of
a mask, or the masks of heads that share their keys. 16-bit gradients of several launches are float32 until the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from splat_numba.gen.backward import KEYS, QUERIES, BackwardPlan
from splat_numba.gen.boxes import BoxPass
from splat_numba.gen.schedule import Place, ScheduleBuilder
from splat_numba.gen.targets.gpu.items import heads_per_wave
from splat_numba.gen.targets.gpu.launches import arch_of, boxes_of, strides_of, tables_of
from splat_numba.gen.targets.gpu.owners import Owners, owners_of
from splat_numba.gen.targets.gradients import GradientCall, HeadsPlan
from splat_numba.gen.targets.simt.backward.levels import ROWS as LEVEL_ROWS
from splat_numba.gen.targets.simt.backward.levels import LevelTraits, levels_text
from splat_numba.gen.targets.simt.backward.rounding import THREADS as ROUND_THREADS
from splat_numba.gen.targets.simt.backward.rounding import RoundTraits, round_text
from splat_numba.gen.targets.simt.backward.text import gradients_text
from splat_numba.gen.targets.simt.backward.tile_shapes import candidates
from splat_numba.gen.targets.simt.backward.traits import LEVEL_BYTES, GradientTraits
from splat_numba.gen.targets.simt.schedule import scale_of
from splat_numba.gen.targets.simt.shape import Numbers
from splat_numba.gen.tensor import Tensor


@dataclass(frozen=True, slots=True)
class GradientLaunch:
    """One launch: its pass, who owns its gradients, which it makes, and whether they are added to earlier ones."""

    planned: BoxPass
    owners: Owners
    wanted: tuple[str, ...]
    added: bool
    plan: BackwardPlan


def record_backward(builder: ScheduleBuilder, plans: Sequence[HeadsPlan], call: GradientCall) -> None:
    """Add the launches of a call. The first of a mask's passes writes every row of its heads."""
    levels = _record_levels(builder, plans, call)
    clears = any(one.planned.empty_rows or one.planned.conditions.ragged for one in plans)
    for of in (QUERIES, KEYS):
        launches = list(_launches(plans, of, call))
        results = dict(call.results)
        for name in {name for one in launches if one.added for name in one.wanted}:
            if Numbers(call.q.dtype).loaded == 8:
                results[name] = builder.tensor(results[name].sizes, "float32")
        for number, one in enumerate(launches):
            boxes = replace(one.planned.traits, negate=False, skips=False, ragged=False, resumes=False, hands_on=False)
            traits = GradientTraits(
                boxes, of, one.wanted, results[one.wanted[0]].dtype, one.added, one.plan.conditions.ragged, clears
            )
            _record_launch(builder, f"{of}_{number}", one, traits, call, levels, results)
        for name, sums in results.items():
            if sums is not call.results[name]:
                _record_rounding(builder, sums, call.results[name], one.plan)


def _launches(plans: Sequence[HeadsPlan], of: str, call: GradientCall) -> Iterator[GradientLaunch]:
    """In the order in which they add up; of kernels that make one gradient each, one after the other."""
    begun: set[int] = set()
    for one in plans:
        mine = owners_of(one.heads, call.group, of_queries=of == QUERIES)
        for number, planned in enumerate(map(boxes_of, one.planned.queries if of == QUERIES else one.planned.keys)):
            fresh = [number == 0 and head not in begun for head in mine.heads]
            for added, kept in ((False, fresh), (True, [not x for x in fresh])):
                some = mine.only(kept)
                if some.heads:
                    for wanted in _kernels(one.planned, of, call.wanted.names):
                        yield GradientLaunch(planned, some, wanted, added, one.planned)
        begun.update(mine.heads)


def _kernels(plan: BackwardPlan, of: str, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Which gradients each kernel makes, of those that are wanted."""
    problem = plan.problem if of == QUERIES else plan.problem.transposed()
    _, kernels = candidates(problem, of, plan.gpu)
    found = [tuple(name for name in kernel if name in names) for kernel in kernels]
    return [kernel for kernel in found if kernel]


def _record_levels(builder: ScheduleBuilder, plans: Sequence[HeadsPlan], call: GradientCall) -> Tensor:
    """Where the levels are: (batch, heads, seq_q, 16 bytes)."""
    batch, heads, seq, dim = call.dout.sizes
    numbers = Numbers(call.dout.dtype)
    levels = builder.tensor((batch, heads, seq, LEVEL_BYTES // numbers.size), numbers.computed)
    arrays = {"out": call.out, "dout": call.dout, "lse": call.lse, "dlse": call.dlse}
    rows = batch * heads * seq
    counts = {"heads": heads, "seq": seq, "rows": rows, **strides_of(arrays)}
    text = levels_text(LevelTraits(dim, call.dout.dtype), arch_of(plans[0].planned.gpu))
    builder.launch(text, -(-rows // LEVEL_ROWS), counts, {**arrays, "levels": levels})
    return levels


def _record_launch(
    builder: ScheduleBuilder, name: str, one: GradientLaunch, traits: GradientTraits, call: GradientCall,
    levels: Tensor, results: Mapping[str, Tensor],
) -> None:  # fmt: skip
    planned, numbers = one.planned, Numbers(call.q.dtype)
    batch, heads_q, seq_q, _ = call.q.sizes
    queries, keys = (call.q, call.dout), (call.k, call.v)
    left, right = (queries, keys) if traits.of == QUERIES else (keys, queries)
    arrays = {"left_1": left[0], "left_2": left[1], "right_1": right[0], "right_2": right[1]}
    arrays |= {result: results[result] for result in traits.dims}
    tables = {**tables_of(planned), **one.owners.tables}
    pointers: dict[str, Place | Tensor | None] = {**arrays, "levels": levels, "kv_lengths": call.kv_lengths}
    pointers |= {of: builder.table(f"{of}_{name}", data) for of, data in tables.items()}
    pairs = len(one.owners.heads) * batch
    counts: dict[str, int | float] = {
        **strides_of(arrays), **scale_of(numbers, "scale_log2", call.scale * math.log2(math.e)),
        **scale_of(numbers, "scale", call.scale), "blocks": len(planned.table.block),
        "heads_count": len(one.owners.heads), "batch": batch,
        "heads_per_wave": heads_per_wave(planned, right, 1, pairs),
        "heads_levels": heads_q, "seq_left": left[0].sizes[2], "seq_right": right[0].sizes[2], "seq_q": seq_q,
        "box_shift": planned.kv_box.inner.bit_length() - 1, "first_steps": numbers.chunks(traits.boxes.head_dim),
        "second_steps": numbers.chunks(traits.boxes.value_dim), "pair_steps": numbers.chunks(traits.boxes.tile_kv),
    }  # fmt: skip
    text = gradients_text(traits, arch_of(one.plan.gpu))
    builder.launch(text, len(planned.table.block) * pairs, counts, pointers)


def _record_rounding(builder: ScheduleBuilder, sums: Tensor, result: Tensor, plan: BackwardPlan) -> None:
    batch, heads, seq, dim = result.sizes
    traits = RoundTraits(dim, result.dtype)
    chunks = batch * heads * seq * traits.chunks
    counts = {"heads": heads, "seq": seq, "chunks": chunks, **strides_of({"sums": sums, "result": result})}
    text = round_text(traits, arch_of(plan.gpu))
    builder.launch(text, -(-chunks // ROUND_THREADS), counts, {"sums": sums, "result": result})
