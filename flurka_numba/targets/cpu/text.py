"""The whole text of a plan: its entry functions, and before them whatever these call."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from flurka_numba.targets.cpu import attend, compress, divide, elementary, expand, features, gradients, slopes, tiles
from flurka_numba.targets.cpu.entries import entry_of
from flurka_numba.targets.cpu.plan import CpuPlan
from flurka_numba.targets.cpu.prelude import emit_head
from splat_numba.gen.language.cpu_entry import CpuText
from splat_numba.gen.language.writer import SourceWriter

Emit = Callable[[SourceWriter, CpuPlan], None]

# By name, in the order of a text: a function calls only what stands before it.
HELPERS: dict[str, Emit] = {
    **{f"stage_{dtype}": partial(tiles.emit_stage, dtype=dtype) for dtype in tiles.DTYPES},
    **{f"store_{dtype}": partial(tiles.emit_store, dtype=dtype) for dtype in tiles.DTYPES},
    "padded": tiles.emit_padded,
    "clear": tiles.emit_clear,
    "add_rows": tiles.emit_add_rows,
    "spread_row": tiles.emit_spread_row,
    "scale_rows": tiles.emit_scale_rows,
    "multiply": partial(tiles.emit_multiply, onto=False),
    "multiply_onto": partial(tiles.emit_multiply, onto=True),
    "exp": elementary.emit_exp,
    "log": elementary.emit_log,
    "larger": elementary.emit_larger,
    "sine_cosine": elementary.emit_sine_cosine,
    "divide": divide.emit_divide,
    "features_of": partial(features.emit_features, side="query"),
    "query_features": partial(features.emit_features, side="query"),
    "key_features": partial(features.emit_features, side="key"),
    "largest_of": features.emit_largest,
    "slopes_of": slopes.emit_slopes,
    "fall": divide.emit_fall,
}


def entries(plan: CpuPlan) -> dict[str, Emit]:
    """The entry functions of a plan's text, by name, in the order they are run in."""
    if plan.gradients:
        found: dict[str, Emit] = {"query_gradient": gradients.emit_query_gradient, "fold": compress.emit_fold}
        if plan.method != "low_rank":
            found["key_gradient"] = gradients.emit_key_gradient
        if plan.method != "kernel":
            found |= {"expand": expand.emit_expand, "project_gradient": expand.emit_project_gradient}
        return found
    found = {} if plan.method == "kernel" else {"compress": compress.emit_compress}
    found["fold"] = compress.emit_fold
    if plan.feature_map == "favor":
        found["largest_key"] = attend.emit_largest_key
    if plan.method != "low_rank":
        found["absorb"] = attend.emit_absorb
    return found | {"attend": attend.emit_attend}


def cpu_text(plan: CpuPlan) -> CpuText:
    """The text with its entry functions, named after what it is for."""
    return CpuText(plan.traits, render(plan), tuple(entry_of(plan, name) for name in entries(plan)))


def render(plan: CpuPlan) -> str:
    """Python source of the kernels of a plan, forward or of gradients. Pure and deterministic."""
    body = _written(plan, *entries(plan).values())
    for name, emit in reversed(HELPERS.items()):
        if re.search(rf"\b{name}\(", body):
            body = _written(plan, emit) + "\n\n" + body
    return _written(plan, emit_head) + "\n\n" + body


def _written(plan: CpuPlan, *emitters: Emit) -> str:
    out = SourceWriter()
    for emit in emitters:
        emit(out, plan)
    return out.text().lstrip("\n")
