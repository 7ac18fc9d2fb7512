"""Launches of a backward pass by a warp's matrix products: the traits of each, its arrays and numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np

from splat_numba.gen.boxes.passes import GROUP_ROWS
from splat_numba.gen.plans.backward import QUERIES
from splat_numba.gen.schedules.schedule import ScheduleBuilder
from splat_numba.gen.targets.gpu.gradient_kernels import READ, WRITTEN
from splat_numba.gen.targets.gpu.gradient_launches import GradientLaunch
from splat_numba.gen.targets.gpu.gradient_schedule import GradientTexts, LaunchArrays, counts_of, record_half_levels
from splat_numba.gen.targets.gpu.launches import arch_of, strides_of
from splat_numba.gen.targets.gradients import GradientCall
from splat_numba.gen.targets.sm80.backward.reading import reading_text
from splat_numba.gen.targets.sm80.backward.text import gradients_text
from splat_numba.gen.targets.sm80.backward.tile_shapes import candidates
from splat_numba.gen.targets.sm80.backward.traits import GradientTraits


def traits_of(one: GradientLaunch) -> GradientTraits:
    """What the text of a launch depends on. One with masks always looks whether rows are padding: of 64 keys x 64
    queries of head_dim 128 40 bytes are spilled on 9.0 without, and none so.
    """
    table = one.planned.table
    padded = one.slopes == WRITTEN and (one.planned.traits.partial or bool((table.rows < 0).any()))
    if one.slopes == READ:
        keys = np.array([view.inner for view in table.kv_views], np.int64)
        padded = bool((table.piece[:, 1] + GROUP_ROWS > keys[table.piece[:, 0]]).any())
    ragged = one.of_plan.planned.conditions.ragged
    return GradientTraits(one.planned.traits, one.of, one.makes, one.stored, ragged, one.slopes, padded)


def _record_launch(builder: ScheduleBuilder, one: GradientLaunch, call: GradientCall, arrays: LaunchArrays) -> None:
    if one.slopes == READ:
        _record_reading(builder, one, call, arrays)
        return
    planned, of_plan = one.planned, one.of_plan.planned
    batch, heads_q, seq_q, _ = call.q.sizes
    queries, keys = (call.q, arrays.levels.dout), (call.k, call.v)
    left, right = (queries, keys) if one.of == QUERIES else (keys, queries)
    text = gradients_text(traits_of(one), arch_of(of_plan.gpu))
    given = {"left_1": left[0], "left_2": left[1], "right_1": right[0], "right_2": right[1], **arrays.results}
    given |= {f"{name}_sums": sums for name, sums in arrays.sums.items()}
    pointers = {
        **arrays.tables(builder, one, text), **given, "levels": arrays.levels.levels, "kv_lengths": call.kv_lengths,
    }  # fmt: skip
    counts: dict[str, int | float] = {
        **strides_of(given), **counts_of(one, right, batch), "scale_log2": call.scale * math.log2(math.e),
        "scale": call.scale, "heads_levels": heads_q, "seq_left": left[0].sizes[2], "seq_right": right[0].sizes[2],
        "seq_q": seq_q, "box_shift": planned.kv_box.inner.bit_length() - 1,
    }  # fmt: skip
    if one.slopes:
        pointers["slopes"] = arrays.slopes
        counts |= {"images": planned.images, "listed": one.listed}
    items = len(planned.table.block) * len(one.owners.heads) * batch
    builder.launch(text, items, counts, pointers)


def _record_reading(builder: ScheduleBuilder, one: GradientLaunch, call: GradientCall, arrays: LaunchArrays) -> None:
    batch, heads_q, seq_q, _ = call.q.sizes
    text = reading_text(traits_of(one), arch_of(one.of_plan.planned.gpu))
    given = {"right_1": call.k, **arrays.results}
    pointers = {**arrays.tables(builder, one, text), **given, "levels": arrays.levels.levels, "slopes": arrays.slopes}
    counts: dict[str, int | float] = {
        **strides_of(given), **counts_of(one, (call.k, call.k), batch), "scale": call.scale, "heads_levels": heads_q,
        "seq_left": seq_q, "seq_right": call.k.sizes[2], "seq_q": seq_q, "images": one.planned.images,
        "listed": one.listed,
    }  # fmt: skip
    builder.launch(text, len(one.planned.table.block) * len(one.owners.heads) * batch, counts, pointers)


TEXTS = GradientTexts(arch_of, candidates, partial(record_half_levels, arch_of), _record_launch, finishes=True)
TEXTS_OF_REALS = replace(TEXTS, finishes=False)  # they are added up where they are stored
