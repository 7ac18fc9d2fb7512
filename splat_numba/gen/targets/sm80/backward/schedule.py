"""Launches of a backward pass by a warp's matrix products: the traits of each, its arrays and numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

from splat_numba.gen.plans.backward import QUERIES
from splat_numba.gen.schedules.schedule import ScheduleBuilder
from splat_numba.gen.targets.gpu.gradient_launches import GradientLaunch
from splat_numba.gen.targets.gpu.gradient_schedule import GradientTexts, LaunchArrays, counts_of, record_half_levels
from splat_numba.gen.targets.gpu.launches import arch_of, strides_of
from splat_numba.gen.targets.gradients import GradientCall
from splat_numba.gen.targets.sm80.backward.text import gradients_text
from splat_numba.gen.targets.sm80.backward.tile_shapes import candidates
from splat_numba.gen.targets.sm80.backward.traits import GradientTraits


def _record_launch(builder: ScheduleBuilder, one: GradientLaunch, call: GradientCall, arrays: LaunchArrays) -> None:
    planned, of_plan = one.planned, one.of_plan.planned
    batch, heads_q, seq_q, _ = call.q.sizes
    queries, keys = (call.q, arrays.levels.dout), (call.k, call.v)
    left, right = (queries, keys) if one.of == QUERIES else (keys, queries)
    traits = GradientTraits(planned.traits, one.of, one.makes, one.stored, of_plan.conditions.ragged)
    text = gradients_text(traits, arch_of(of_plan.gpu))
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
    items = len(planned.table.block) * len(one.owners.heads) * batch
    builder.launch(text, items, counts, pointers)


TEXTS = GradientTexts(arch_of, candidates, partial(record_half_levels, arch_of), _record_launch, finishes=True)
TEXTS_OF_REALS = replace(TEXTS, finishes=False)  # they are added up where they are stored
