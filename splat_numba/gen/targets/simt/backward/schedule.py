"""Launches of a backward pass on FMA units: the traits of each, its arrays and numbers.

A kernel that adds to sums does not round them: 16-bit gradients of several launches are float32 until the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from splat_numba.gen.plans.backward import QUERIES
from splat_numba.gen.schedules.schedule import ScheduleBuilder
from splat_numba.gen.targets.gpu.gradient_kernels import ADDED, LEVEL_BYTES
from splat_numba.gen.targets.gpu.gradient_launches import GradientLaunch
from splat_numba.gen.targets.gpu.gradient_schedule import (
    GradientTexts,
    LaunchArrays,
    Levels,
    counts_of,
    record_levels,
)
from splat_numba.gen.targets.gpu.launches import arch_of, strides_of
from splat_numba.gen.targets.gradients import GradientCall, HeadsPlan
from splat_numba.gen.targets.simt.backward.levels import ROWS as LEVEL_ROWS
from splat_numba.gen.targets.simt.backward.levels import LevelTraits, levels_text
from splat_numba.gen.targets.simt.backward.text import gradients_text
from splat_numba.gen.targets.simt.backward.tile_shapes import candidates
from splat_numba.gen.targets.simt.backward.traits import GradientTraits
from splat_numba.gen.targets.simt.schedule import scale_of
from splat_numba.gen.targets.simt.shape import Numbers


def _record_levels(builder: ScheduleBuilder, plans: Sequence[HeadsPlan], call: GradientCall) -> Levels:
    """In the dtype that is computed in."""
    batch, heads, seq, dim = call.dout.sizes
    numbers = Numbers(call.dout.dtype)
    levels = builder.tensor((batch, heads, seq, LEVEL_BYTES // numbers.size), numbers.computed)
    text = levels_text(LevelTraits(dim, call.dout.dtype), arch_of(plans[0].planned.gpu))
    return record_levels(builder, call, text, LEVEL_ROWS, levels)


def _record_launch(builder: ScheduleBuilder, one: GradientLaunch, call: GradientCall, arrays: LaunchArrays) -> None:
    planned, numbers = one.planned, Numbers(call.q.dtype)
    batch, heads_q, seq_q, _ = call.q.sizes
    queries, keys = (call.q, call.dout), (call.k, call.v)
    left, right = (queries, keys) if one.of == QUERIES else (keys, queries)
    boxes = replace(planned.traits, negate=False, skips=False, ragged=False, resumes=False, hands_on=False)
    result, ragged = arrays.results[one.makes[0]].dtype, one.of_plan.planned.conditions.ragged
    traits = GradientTraits(boxes, one.of, one.makes, result, one.stored == ADDED, ragged, arrays.clears)
    text = gradients_text(traits, arch_of(one.of_plan.planned.gpu))
    given = {"left_1": left[0], "left_2": left[1], "right_1": right[0], "right_2": right[1], **arrays.results}
    pointers = {
        **arrays.tables(builder, one, text), **given, "levels": arrays.levels.levels, "kv_lengths": call.kv_lengths,
    }  # fmt: skip
    counts: dict[str, int | float] = {
        **strides_of(given), **counts_of(one, right, batch),
        **scale_of(numbers, "scale_log2", call.scale * math.log2(math.e)), **scale_of(numbers, "scale", call.scale),
        "heads_levels": heads_q, "seq_left": left[0].sizes[2], "seq_right": right[0].sizes[2], "seq_q": seq_q,
        "box_shift": planned.kv_box.shift, "first_steps": numbers.chunks(boxes.head_dim),
        "second_steps": numbers.chunks(boxes.value_dim), "pair_steps": numbers.chunks(boxes.tile_kv),
    }  # fmt: skip
    items = len(planned.table.block) * len(one.owners.heads) * batch
    builder.launch(text, items, counts, pointers)


TEXTS = GradientTexts(arch_of, candidates, _record_levels, _record_launch, finishes=False)
