"""Hopper's launches of a backward pass: the traits of each, its numbers, and the tensor maps of its tiles."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from splat_numba.gen.plans.backward import QUERIES
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.schedules.schedule import ScheduleBuilder
from splat_numba.gen.targets.gpu.gradient_kernels import WRITTEN
from splat_numba.gen.targets.gpu.gradient_launches import GradientLaunch
from splat_numba.gen.targets.gpu.gradient_schedule import (
    GradientTexts,
    LaunchArrays,
    counts_of,
    record_half_levels,
)
from splat_numba.gen.targets.gpu.launches import arch_of, scale_log2, strides_of
from splat_numba.gen.targets.gradients import GradientCall
from splat_numba.gen.targets.sm90.backward.text import backward_text
from splat_numba.gen.targets.sm90.backward.tile_shapes import candidates
from splat_numba.gen.targets.sm90.backward.traits import BackwardTraits
from splat_numba.gen.targets.sm90.schedule import COUNTER_WORDS, box_maps


def traits_of(one: GradientLaunch) -> BackwardTraits:
    """What the text of a launch depends on."""
    padded = one.slopes == WRITTEN and bool((one.planned.table.rows < 0).any())
    ragged = one.of_plan.planned.conditions.ragged
    boxes = replace(one.planned.traits, resumes=False, hands_on=False)  # sums are added up in float32 instead
    return BackwardTraits(boxes, one.of, one.makes, one.stored, ragged, one.slopes, padded)


def _arch(gpu: Gpu) -> str:
    """The one architecture that has its instructions, with an "a"."""
    return f"{arch_of(gpu)}a"


def _record_launch(builder: ScheduleBuilder, one: GradientLaunch, call: GradientCall, arrays: LaunchArrays) -> None:
    planned, traits, batch = one.planned, traits_of(one), call.q.sizes[0]
    table, text, levels = planned.table, backward_text(traits), arrays.levels.levels
    queries, keys = (call.q, arrays.levels.dout), (call.k, call.v)
    left, right = (queries, keys) if one.of == QUERIES else (keys, queries)
    results = {**arrays.results, **{f"{name}_sums": sums for name, sums in arrays.sums.items()}}
    pointers = {**arrays.tables(builder, one, text), **results, "counter": builder.counters(COUNTER_WORDS)}
    if traits.ragged:
        pointers["kv_lengths"] = call.kv_lengths
    if not traits.columns_are_queries:
        pointers["levels"] = levels
    numbers: dict[str, int | float] = {
        **strides_of(results), **counts_of(one, right, batch), "scale_log2": scale_log2(call.scale),
        "scale": call.scale, "seq": left[0].sizes[2], "heads_left": left[0].sizes[1],
        "left_views": len(table.q_views), "right_views": len(table.kv_views),
    }  # fmt: skip
    if traits.kept:
        pointers["slopes"] = arrays.slopes
        numbers |= {"images": planned.images, "listed": one.listed}
    lefts = left[: len(traits.left_dims)]
    rights = (*right[: len(traits.right_dims)], *(levels,) * traits.columns_are_queries)
    maps = {"right_maps": box_maps(rights, table.kv_views, planned.kv_box)}
    if lefts:
        maps["left_maps"] = box_maps(lefts, table.q_views, planned.q_box)
    items = len(table.block) * len(one.owners.heads) * batch
    resident = call.multiprocessors * planned.traits.blocks_per_multiprocessor
    builder.launch(text, min(items, resident), numbers, pointers, maps=maps)


TEXTS = GradientTexts(_arch, candidates, partial(record_half_levels, _arch), _record_launch, finishes=True)
