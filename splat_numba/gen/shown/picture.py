"""A plan as a picture and a table: the tiles of its passes over a corner of the mask, and what explain() says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats.canonical import Triples
from splat_numba.formats.raster import Span, cell_shares, corner
from splat_numba.gen.plans.explain import explain
from splat_numba.gen.shown.tiles import Tile, tiles_of
from splat_numba.pictures.picture import Layer, Picture
from splat_numba.pictures.svg import Row, html

if TYPE_CHECKING:
    from splat_numba.gen.plans.plan import Pass, Plan

CELLS, DOTS = 64, 256  # a side: of a notebook's picture, of a figure's
TILES = 12  # down or across that are shown: more would be too small to see
LEAST, MOST = 128, 1024  # tokens of the corner
WASTED = "#fdae6b"
# Of every pass: kept pairs of full tiles, of the odd ones among them, which sets tiles apart, and of partial ones.
COLOURS = (
    ("#08519c", "#08306b", "#6baed6"),
    ("#54278f", "#3f007d", "#9e9ac8"),
    ("#006d2c", "#00441b", "#74c476"),
    ("#a63603", "#7f2704", "#fd8d3c"),
)


def plan_picture(plan: Plan, dots: int) -> Picture:
    """The first corner of the mask, or the last where the lengths differ, in at most dots x dots cells.

    Its layers are the pairs that are computed and not kept, and for every pass those of partial and of full tiles.
    """
    problem = plan.problem
    side = min(max([LEAST, *(TILES * max(one.tile_q, one.tile_kv) for one in plan.passes)]), MOST)
    last = problem.seq_q != problem.seq_kv
    rows, cols = corner(problem.seq_q, side, last=last), corner(problem.seq_kv, side, last=last)
    kept = np.zeros(cell_shares(_joined([]), rows, cols, dots).shape)
    wasted, layers = np.zeros_like(kept), []
    for number, one in enumerate(plan.passes):
        full, odd, partial, computed = _pass_shares(one, plan, rows, cols, dots)
        name, colours = f"pass {number}", COLOURS[number % len(COLOURS)]
        layers += [
            Layer(f"{name}, partial tiles", colours[2], partial),
            Layer(f"{name}, full tiles", colours[0], full),
            Layer(f"{name}, full tiles", colours[1], odd),
        ]
        kept, wasted = kept + full + odd + partial, wasted + computed - partial
    whole = (rows, cols) == ((0, problem.seq_q), (0, problem.seq_kv))
    layers.insert(0, Layer("computed, not kept", WASTED, wasted))
    seen = tuple(layer for layer in layers if layer.shares.any())
    return Picture(kept, rows, cols, whole, seen)


def _pass_shares(one: Pass, plan: Plan, rows: Span, cols: Span, dots: int) -> list[NDArray[np.float64]]:
    """Shares of the cells: kept in even and odd full tiles and in partial ones, and computed in partial ones."""
    full: list[list[Triples]] = [[], []]
    partial: list[Triples] = []
    computed: list[Triples] = []
    for tile in tiles_of(one, plan.problem, rows, cols):
        if tile.keeps is None:
            full[tile.odd].append(_pairs(tile, np.ones((tile.rows.size, tile.cols.size), np.bool_), rows, cols))
        else:
            partial.append(_pairs(tile, tile.keeps, rows, cols))
            computed.append(_pairs(tile, np.ones_like(tile.keeps), rows, cols))
    return [cell_shares(_joined(part), rows, cols, dots) for part in (*full, partial, computed)]


def _pairs(tile: Tile, keeps: NDArray[np.bool_], rows: Span, cols: Span) -> Triples:
    """The pairs that are kept, each a run of its own, of those within the part."""
    down = np.flatnonzero((tile.rows >= rows[0]) & (tile.rows < rows[1]))
    across = np.flatnonzero((tile.cols >= cols[0]) & (tile.cols < cols[1]))
    at, place = np.nonzero(keeps[np.ix_(down, across)])
    ones = np.ones(at.size, np.int64)
    return tile.rows[down][at].astype(np.int64), tile.cols[across][place].astype(np.int64), ones, ones


def _joined(parts: list[Triples]) -> Triples:
    empty = np.zeros(0, np.int64)
    row, start, step, count = (np.concatenate(c) for c in zip((empty,) * 4, *parts, strict=True))
    return row, start, step, count


def explain_rows(plan: Plan) -> list[Row]:
    """The lines of explain() as a table: what a line is about, and what it says."""
    return [(line[:WORD].strip(), line[WORD:].strip()) for line in explain(plan).splitlines()]


WORD = 12  # characters of the first column of explain()


def plan_html(plan: Plan, title: str | None = None, more: Sequence[Row] = ()) -> str:
    """A plan as notebooks show it. title: its repr unless given; more: lines below those of explain()."""
    return html(title or repr(plan), plan_picture(plan, CELLS), [*explain_rows(plan), *more])


def draw_plan(plan: Plan, ax: Any) -> Any:
    """Draw on matplotlib's axes, those of a new figure for None, and give them."""
    from splat_numba.pictures.axes import show

    return show(plan_picture(plan, DOTS), plan.summary, ax)
