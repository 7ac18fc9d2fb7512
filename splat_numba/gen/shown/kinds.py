"""The kinds of work that a plan has, by name: so that tests can ask for each, and a fuzzer say which it has met."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from splat_numba.formats.closed_form import Edge
from splat_numba.gen.boxes.passes import ALL, NONE, SOME, BoxPass
from splat_numba.gen.plans.machine import CPU, GPU
from splat_numba.gen.plans.plan import Pass, Plan
from splat_numba.gen.rows.passes import ClosedPass, TablePass

CLOSED_KINDS = (
    "closed", "rows by residue", "keys by step", "some rows", "rows counted from the end", "several bands",
    "no bands", "rows that nobody visits", "resumed",
)  # fmt: skip
TABLE_KINDS = ("table", "table by step", "gathered", "whole pieces", "masked pieces", "long pieces", "resumed table")
BOX_KINDS = (
    "boxes in order", "boxes by residue", "boxes on a grid", "several views", "whole tiles", "masked tiles",
    "skipped tiles", "several tiles a piece", "one group", "several groups", "resumed boxes", "key lengths",
    "negative scale",
)  # fmt: skip
KINDS = {CPU: CLOSED_KINDS + TABLE_KINDS, GPU: BOX_KINDS}
"""Of a kind of processor, in words, to be met."""


def kinds(plan: Plan) -> frozenset[str]:
    """Those of KINDS that the plan has."""
    found: set[str] = set()
    if not plan.passes:
        found.add("no bands")
    if not plan.covered:
        found.add("rows that nobody visits")
    for one in plan.passes:
        found.update(name for name, there in _of(one) if there)
    return frozenset(found)


def _of(one: Pass) -> Iterator[tuple[str, bool]]:
    """Kinds that a pass may be of, and whether it is."""
    match one:
        case ClosedPass():
            return _of_closed(one)
        case TablePass():
            return _of_table(one)
        case BoxPass():
            return _of_boxes(one)
    raise TypeError(f"pass wanted as one of this package, got {type(one).__name__}.")


def _of_closed(one: ClosedPass) -> Iterator[tuple[str, bool]]:
    edges = (one.row_lo, one.row_hi)
    yield "closed", True
    yield "rows by residue", one.row_step > 1
    yield "keys by step", any(part.lattice.step > 1 and not part.lattice.diagonal for part in one.segments)
    yield "some rows", edges != (Edge(0), None)
    yield "rows counted from the end", any(edge is not None and edge.aligned for edge in edges)
    yield "several bands", len(one.segments) > 1
    yield "resumed", one.resumes


def _of_table(one: TablePass) -> Iterator[tuple[str, bool]]:
    _, step, count, mask = one.table.piece.T
    yield "table", True
    yield "table by step", bool((step > 1).any())
    yield "gathered", bool((step == 0).any())
    yield "whole pieces", bool((mask < 0).any())
    yield "masked pieces", bool((mask >= 0).any())
    yield "long pieces", bool((count > one.tile_kv).any())
    yield "resumed table", one.resumes


def _of_boxes(one: BoxPass) -> Iterator[tuple[str, bool]]:
    table, traits = one.table, one.traits
    groups = (table.piece[:, 4, None] >> 2 * np.arange(traits.groups)) & 3
    yield "boxes in order", one.order == "in order"
    yield "boxes by residue", one.order.startswith("by residue")
    yield "boxes on a grid", one.order.startswith("on a grid")
    yield "several views", len(table.kv_views) > 1
    yield "whole tiles", bool((groups == ALL).any())
    yield "masked tiles", bool((groups == SOME).any())
    yield "skipped tiles", bool((groups == NONE).any())
    yield "several tiles a piece", bool((table.piece[:, 3] > 1).any())
    yield "one group", traits.groups == 1
    yield "several groups", traits.groups > 1
    yield "resumed boxes", traits.resumes
    yield "key lengths", traits.ragged
    yield "negative scale", traits.negate
