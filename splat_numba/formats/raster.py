"""Pictures of masks from their runs: exact shares of a bounded number of cells; nothing of the mask's size is made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats.canonical import Triples
from splat_numba.formats.sweep import ELEMENT_BUDGET, Ints, distinct
from splat_numba.pictures.picture import Picture

if TYPE_CHECKING:
    from splat_numba.formats.acsr import ACSR

MOST_STEPS = 32

Span = tuple[int, int]
"""A half-open range of rows or columns."""


def mask_picture(mask: ACSR, dots: int = 32) -> Picture:
    """A picture of at most dots x dots: of the whole mask, or of a corner where the whole would show a blur.

    A blur is a picture most of whose kept pairs are under dots that keep less than 60%: a dilated window looks like a
    wide one then. The corner is the first one, or the last where seq_q and seq_kv differ, which align_end() is about.
    """
    seq_q, seq_kv = mask.shape
    whole = part_picture(mask, (0, seq_q), (0, seq_kv), dots)
    if not mask.nnz or not _is_blur(whole):
        return whole
    size = dots
    while 2 * size < max(seq_q, seq_kv):
        size *= 2
    while size >= dots:
        rows, cols = corner(seq_q, size, last=seq_q != seq_kv), corner(seq_kv, size, last=seq_q != seq_kv)
        zoomed = part_picture(mask, rows, cols, dots)
        if zoomed.dots.any() and not _is_blur(zoomed):
            return zoomed
        size //= 2
    return whole


def corner(length: int, size: int, *, last: bool) -> Span:
    """At most ``size`` tokens of so many, the first or the last."""
    size = min(size, length)
    return (length - size, length) if last else (0, size)


def _is_blur(picture: Picture) -> bool:
    return bool(picture.kept[picture.kept < 0.6].sum() > 0.5 * picture.kept.sum())


def part_picture(mask: ACSR, rows: Span, cols: Span, dots: int) -> Picture:
    """The part of these rows and columns, in at most dots x dots cells."""
    first, last = int(mask.run_ptr[rows[0]]), int(mask.run_ptr[rows[1]])
    row = np.repeat(np.arange(*rows, dtype=np.int64), np.diff(mask.run_ptr[rows[0] : rows[1] + 1]))
    start, step, count = (a[first:last].astype(np.int64) for a in (mask.run_start, mask.run_step, mask.run_count))
    shares = cell_shares((row, start, step, count), rows, cols, dots)
    return Picture(shares, rows, cols, (rows, cols) == ((0, mask.shape[0]), (0, mask.shape[1])))


def cell_shares(runs: Triples, rows: Span, cols: Span, dots: int) -> NDArray[np.float64]:
    """Share of the pairs of every cell that the runs keep, (cells down, cells across), each at most dots.

    runs: (row, start, step, count), disjoint, in any order; what lies outside the part is left out.
    """
    row_edge, col_edge = _edges(rows, dots), _edges(cols, dots)
    row, start, step, count = runs
    strip = np.searchsorted(row_edge, row, side="right") - 1
    solid = (step == 1) | (count == 1)
    counts = np.zeros((row_edge.size - 1, col_edge.size - 1))
    if counts.size:
        inside = (strip >= 0) & (strip < counts.shape[0]) & (count > 0)
        ones, many = inside & solid, np.flatnonzero(inside & ~solid)
        counts += _below(strip[ones], start[ones], col_edge, counts.shape[0])
        counts -= _below(strip[ones], (start + count)[ones], col_edge, counts.shape[0])
        for part in _alike(step, many, max(ELEMENT_BUDGET // col_edge.size, 1)):
            _add_strided(counts, strip[part], (start[part], step[part], count[part]), col_edge)
    area: Ints = np.diff(row_edge)[:, None] * np.diff(col_edge)
    return np.asarray(counts / area)


def _edges(span: Span, dots: int) -> Ints:
    length = span[1] - span[0]
    parts = min(dots, length)
    return span[0] + np.arange(parts + 1, dtype=np.int64) * length // max(parts, 1)


def _below(strip: Ints, place: Ints, col_edge: Ints, strips: int) -> NDArray[np.float64]:
    """For every strip and cell the columns of it that lie at or beyond the places, summed over these.

    Linear in the places, as sum(edge - place) over the places left of an edge takes their number and their sum only.
    Sums are exact up to 2**53.
    """
    edges = col_edge.size
    slot = strip * (edges + 1) + np.searchsorted(col_edge, place, side="left")
    number, total = (
        np.bincount(slot, weights, strips * (edges + 1)).reshape(strips, edges + 1)[:, :edges].cumsum(axis=1)
        for weights in (None, place - col_edge[0])
    )
    return np.diff((col_edge - col_edge[0]) * number - total, axis=1)


def _alike(step: Ints, many: Ints, at_once: int) -> Iterator[Ints]:
    """The runs with these numbers in chunks, by their step where there are few: NumPy divides by one number faster."""
    values = distinct(step[many])
    for group in [many] if values.size > MOST_STEPS else [many[step[many] == value] for value in values]:
        for first in range(0, group.size, at_once):
            yield group[first : first + at_once]


def _add_strided(counts: NDArray[np.float64], strip: Ints, runs: tuple[Ints, Ints, Ints], col_edge: Ints) -> None:
    """Add the columns of runs with a step, whose columns left of every edge are counted one edge after the other."""
    start, step, count = runs
    gap = int(step[0]) if (step == step[0]).all() else step
    first, last = int(start.min()), int((start + step * (count - 1)).max())
    reached = np.flatnonzero((col_edge[1:] > first) & (col_edge[:-1] <= last))  # cells that runs of the chunk touch
    if not reached.size:
        return
    before = np.clip(-((start - col_edge[reached[0]]) // gap), 0, count)
    for cell in reached.tolist():
        left = np.clip(-((start - col_edge[cell + 1]) // gap), 0, count)
        counts[:, cell] += np.bincount(strip, left - before, counts.shape[0])
        before = left


__all__ = ["Span", "cell_shares", "corner", "mask_picture", "part_picture"]
