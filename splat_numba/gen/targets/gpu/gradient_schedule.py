"""A backward pass as steps of a schedule: levels of the queries, the launches of gradients, then what must be rounded:
rows whose gradients were added up in float32, and that no last pass visits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from splat_numba.gen.boxes.kept_slopes import IMAGE_BYTES
from splat_numba.gen.boxes.passes import BoxPass
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.schedules.schedule import Place, ScheduleBuilder, Text
from splat_numba.gen.schedules.tensor import Tensor
from splat_numba.gen.targets.gpu.gradient_kernels import ADDED, FINISHED, LEVEL_BYTES, ROUNDED
from splat_numba.gen.targets.gpu.gradient_launches import Candidates, GradientLaunch, in_order
from splat_numba.gen.targets.gpu.items import item_counts
from splat_numba.gen.targets.gpu.launches import strides_of, tables_of
from splat_numba.gen.targets.gpu.levels import LevelTraits, levels_text
from splat_numba.gen.targets.gpu.rounding import CHUNK, RoundTraits, round_text
from splat_numba.gen.targets.gpu.rounding import THREADS as ROUND_THREADS
from splat_numba.gen.targets.gradients import GradientCall, HeadsPlan


@dataclass(frozen=True, slots=True)
class Levels:
    """What gradients need of every query: levels, (batch, heads, seq_q, 16 bytes); and dout, a copy of it perhaps."""

    levels: Tensor
    dout: Tensor


@dataclass(frozen=True, slots=True)
class LaunchArrays:
    """What a launch works on. clears: whether some query of the call keeps nothing, whose dout may be anything;
    results: where it stores gradients, by name; sums: where it reads what was stored before, where that is another
    array; slopes: those that are kept; number: of the launch; shared: of the first one of the same pass, whose tables
    it has too.
    """

    levels: Levels
    clears: bool
    results: Mapping[str, Tensor]
    sums: Mapping[str, Tensor]
    slopes: Place | None
    number: int
    shared: int

    def tables(self, builder: ScheduleBuilder, one: GradientLaunch, text: Text) -> dict[str, Place | Tensor | None]:
        """Those of the launch's pass and owners that the text asks for, by parameter."""
        wanted = {name for name, _ in text.entry.parameters}
        of_pass, views = tables_of(one.planned), {}
        views["views"] = of_pass.pop("views")
        found: dict[str, Place | Tensor | None] = {}
        for number, tables in ((self.shared, of_pass), (self.number, {**one.owners.tables, **views})):
            found |= {name: builder.table(f"{name}_{number}", data) for name, data in tables.items() if name in wanted}
        return found


@dataclass(frozen=True, slots=True)
class GradientTexts:
    """What differs among targets. arch: that texts for a GPU are compiled for; candidates: its kernels;
    record_levels: adds the launch that makes levels; record_launch: adds that of a kernel; finishes: whether a kernel
    can add to sums and round at once.
    """

    arch: Callable[[Gpu], str]
    candidates: Candidates
    record_levels: Callable[[ScheduleBuilder, Sequence[HeadsPlan], GradientCall], Levels]
    record_launch: Callable[[ScheduleBuilder, GradientLaunch, GradientCall, LaunchArrays], None]
    finishes: bool


def record_backward(
    builder: ScheduleBuilder, plans: Sequence[HeadsPlan], call: GradientCall, texts: GradientTexts
) -> None:
    """Add the launches of a call. The first of a mask's passes writes every row of its heads."""
    levels = texts.record_levels(builder, plans, call)
    launches = in_order(plans, call, texts.candidates)
    if not texts.finishes:
        launches = [replace(one, stored=ADDED) if one.stored == FINISHED else one for one in launches]
    sums = _sums(builder, launches, call)
    kept = max((_kept_bytes(one, call) for one in launches), default=0)
    slopes = builder.scratch(kept) if kept else None
    first: dict[int, int] = {}
    for number, one in enumerate(launches):
        places = call.results if one.stored in {ROUNDED, FINISHED} else sums
        before = sums if one.stored == FINISHED else {}
        shared = first.setdefault(id(one.planned), number)
        arrays = LaunchArrays(levels, clears(plans), _of(one, places), _of(one, before), slopes, number, shared)
        texts.record_launch(builder, one, call, arrays)
    for name, target in sums.items():
        if target is not call.results[name]:
            mine = [one for one in launches if name in one.makes and one.stored != ROUNDED]
            _record_rounding(builder, name, mine, target, call.results[name], texts.arch)


def _of(one: GradientLaunch, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: arrays[name] for name in one.makes if name in arrays}


def _sums(builder: ScheduleBuilder, launches: Sequence[GradientLaunch], call: GradientCall) -> dict[str, Tensor]:
    """Where gradients are added up, by name: in float32 those that are rounded to 16 bits, others in their places."""
    found: dict[str, Tensor] = {}
    for name in dict.fromkeys(name for one in launches if one.stored != ROUNDED for name in one.makes):
        result = call.results[name]
        if ITEMSIZE[result.dtype] > 2:
            found[name] = result
            continue
        batch, heads, seq, dim = result.sizes
        found[name] = builder.tensor((batch, heads, seq, -(-dim // CHUNK) * CHUNK), "float32")
    return found


def _kept_bytes(one: GradientLaunch, call: GradientCall) -> int:
    return call.q.sizes[0] * one.listed * one.planned.images * IMAGE_BYTES if one.slopes else 0


def _unrounded(launches: Sequence[GradientLaunch]) -> list[tuple[tuple[int, ...], tuple[BoxPass, ...]]]:
    """Heads whose gradients are added up in float32, with the passes that round rows of theirs themselves."""
    finished: dict[int, dict[int, BoxPass]] = {}
    for one in launches:
        for head in one.owners.heads:
            mine = finished.setdefault(head, {})
            if one.stored == FINISHED:
                mine[id(one.planned)] = one.planned
    heads: dict[tuple[int, ...], list[int]] = {}
    for head, passes in sorted(finished.items()):
        heads.setdefault(tuple(passes), []).append(head)
    return [(tuple(some), tuple(finished[some[0]].values())) for some in heads.values()]


def _record_rounding(
    builder: ScheduleBuilder, name: str, launches: Sequence[GradientLaunch], sums: Tensor, result: Tensor,
    arch: Callable[[Gpu], str],
) -> None:  # fmt: skip
    """Of the gradient that these launches add up, the rows that none has rounded."""
    text = round_text(RoundTraits(result.sizes[3], result.dtype), arch(launches[0].of_plan.planned.gpu))
    for number, (heads, finished) in enumerate(_unrounded(launches)):
        left = np.ones(result.sizes[2], np.bool_)
        for one in finished:
            rows = one.table.rows
            left[rows[rows >= 0]] = False
        listed = np.flatnonzero(left).astype(np.int32)
        rows_at = builder.table(f"rounded_{name}_{number}", listed)
        pairs = [(sums, result)]
        if len(heads) < result.sizes[1]:
            pairs = [(sums.head(head), result.head(head)) for head in heads]
        for source, target in pairs:
            batch, count, _, dim = target.sizes
            chunks = batch * count * listed.size * -(-dim // CHUNK)
            arrays = {"sums": source, "result": target}
            numbers = {"heads": count, "listed": listed.size, "chunks": chunks, **strides_of(arrays)}
            builder.launch(text, -(-chunks // ROUND_THREADS), numbers, {**arrays, "rows": rows_at})


def clears(plans: Sequence[HeadsPlan]) -> bool:
    """Whether some query keeps nothing, whose dout may be anything."""
    return any(one.planned.empty_rows or one.planned.conditions.ragged for one in plans)


def record_levels(
    builder: ScheduleBuilder, call: GradientCall, text: Text, rows: int, levels: Tensor, cleared: Tensor | None = None
) -> Levels:
    """Add the launch that makes levels, of so many rows a block; cleared: where it copies dout to, if it does."""
    batch, heads, seq, _ = call.dout.sizes
    arrays = {"out": call.out, "dout": call.dout, "lse": call.lse, "dlse": call.dlse}
    if cleared is not None:
        arrays["cleared"] = cleared
    count = batch * heads * seq
    numbers = {"heads": heads, "seq": seq, "rows": count, **strides_of(arrays)}
    builder.launch(text, -(-count // rows), numbers, {**arrays, "levels": levels})
    return Levels(levels, call.dout if cleared is None else cleared)


def record_half_levels(
    arch: Callable[[Gpu], str], builder: ScheduleBuilder, plans: Sequence[HeadsPlan], call: GradientCall
) -> Levels:
    """Levels in float32, of arrays of 16 bits or float32; dout is copied where some of its rows keep nothing."""
    batch, heads, seq, dim = call.dout.sizes
    levels = builder.tensor((batch, heads, seq, LEVEL_BYTES // ITEMSIZE["float32"]), "float32")
    traits = LevelTraits(dim, call.dout.dtype, clears(plans))
    cleared = builder.tensor(call.dout.sizes, call.dout.dtype) if traits.clears else None
    return record_levels(builder, call, levels_text(traits, arch(plans[0].planned.gpu)), traits.rows, levels, cleared)


def counts_of(one: GradientLaunch, right: tuple[Tensor, Tensor], batch: int) -> dict[str, int | float]:
    """Numbers of a launch's items and their order. right: the arrays whose tiles pass by."""
    return item_counts(one.planned, len(one.owners.heads), batch, right, 1)
