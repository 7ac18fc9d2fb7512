"""Canonical form of run triples: neighbours that continue each other become one run, an affine row becomes one run."""

import numpy as np
from numpy.typing import NDArray

from splat_numba.errors import FormatError
from splat_numba.formats.sweep import Ints, order_of

Triples = tuple[Ints, Ints, Ints, Ints]
"""(row, start, step, count), int64 arrays of one length."""


def canonicalise(shape: tuple[int, int], triples: Triples) -> Triples:
    """Sort, merge and normalise runs that are disjoint as sets; empty runs are dropped.

    The result is sorted by (row, start), counts are >= 1, a count of 1 has step 1, and a row whose columns are one
    arithmetic progression is one run. Raises FormatError for runs outside the shape and for visible overlaps.
    """
    kept = triples[3] > 0
    if not kept.all():
        triples = _select(triples, kept)
    if triples[0].size == 0:
        return triples
    row, start, step, count = triples
    triples = (row, start, np.where(count == 1, 1, step), count)
    check_inside(shape, triples)
    width = shape[1] + 1
    key = triples[0] * width + triples[1]
    if not (key[1:] > key[:-1]).all():
        triples = _select(triples, order_of(triples[0], triples[1]))
    check_disjoint(triples)
    triples = _merge_lattices(width, triples)
    return _merge_affine_rows(_merge_neighbours(triples))


def _select(triples: Triples, where: NDArray[np.int64] | NDArray[np.bool_]) -> Triples:
    row, start, step, count = triples
    return row[where], start[where], step[where], count[where]


def _last(triples: Triples) -> Ints:
    _, start, step, count = triples
    return start + step * (count - 1)


def check_inside(shape: tuple[int, int], triples: Triples) -> None:
    """Raise FormatError, with the row, unless every run has step >= 1, count >= 1 and lies inside the shape."""
    row, start, step, count = triples
    rows, cols = shape
    bad = (row < 0) | (row >= rows) | (start < 0) | (start >= cols) | (step < 1) | (step > max(cols, 1))
    bad |= count < 1
    bad |= (count - 1) > (cols - 1 - start) // np.maximum(step, 1)  # start + step * (count - 1) could overflow here
    if bad.any():
        k = int(np.flatnonzero(bad)[0])
        raise FormatError(
            f"row {row[k]}: the run start={start[k]}, step={step[k]}, count={count[k]} does not lie inside the shape "
            f"{shape}; a run needs step >= 1, count >= 1 and columns in [0, {cols}). Clip it first."
        )


def check_disjoint(triples: Triples) -> None:
    """Raise FormatError, with the row, where the starts of sorted runs show that neighbours overlap."""
    row, start, step, _ = triples
    same = row[1:] == row[:-1]
    overlap = same & (start[1:] == start[:-1])
    overlap |= same & (step[1:] == 1) & (step[:-1] == 1) & (start[1:] <= _last(triples)[:-1])
    if overlap.any():
        k = int(np.flatnonzero(overlap)[0])
        raise FormatError(
            f"row {row[k]}: the runs from columns {start[k]} and {start[k + 1]} overlap; the runs of a row must be "
            "disjoint. Build each part alone and join them with `|`."
        )


def _merge_lattices(width: int, triples: Triples) -> Triples:
    """Join runs of equal step > 1 that continue each other although runs of other lattices start in between."""
    row, start, step, count = triples
    strided = np.flatnonzero(step > 1)
    if strided.size < 2:
        return triples
    key = row[strided] * width + start[strided]
    following = start[strided] + step[strided] * count[strided]
    inside = np.flatnonzero(following < width)
    wanted = (row[strided] * width + following)[inside]
    found = np.minimum(np.searchsorted(key, wanted), key.size - 1)
    joins = (key[found] == wanted) & (step[strided[found]] == step[strided[inside]])
    if not joins.any():
        return triples
    affected = np.zeros(int(row[-1]) + 1, np.bool_)
    affected[row[strided[inside[joins]]]] = True
    chosen = affected[row] & (step > 1)
    part = _select(triples, chosen)
    row, start, step, count = part = _select(part, np.lexsort((part[1], part[1] % part[2], part[2], part[0])))
    joined = (row[1:] == row[:-1]) & (step[1:] == step[:-1]) & (start[1:] == start[:-1] + step[:-1] * count[:-1])
    heads = np.flatnonzero(np.concatenate(([True], ~joined)))
    merged = (row[heads], start[heads], step[heads], np.add.reduceat(count, heads))
    rest = _select(triples, ~chosen)
    both = [np.concatenate(pair) for pair in zip(rest, merged, strict=True)]
    order = order_of(both[0], both[1])
    return both[0][order], both[1][order], both[2][order], both[3][order]


def _merge_neighbours(triples: Triples) -> Triples:
    """Join neighbours that continue each other; singles join a neighbour, or make runs of three and more themselves."""
    row, start, step, count = triples
    if row.size < 2:
        return triples
    link = _links(triples)
    heads = np.flatnonzero(np.concatenate(([True], link == 0)))
    if heads.size == row.size:
        return triples
    head_link = np.concatenate((link, [0]))[heads]
    merged_step = np.where(head_link > 0, head_link, step[heads])
    return row[heads], start[heads], merged_step, np.add.reduceat(count, heads)


def _links(triples: Triples) -> Ints:
    """For every neighbouring pair the step with which the second continues the first, 0 where it does not."""
    row, start, step, count = triples
    gap = start[1:] - _last(triples)[:-1]
    single = count == 1
    fits_left = single[:-1] | (step[:-1] == gap)
    fits_right = single[1:] | (step[1:] == gap)
    link = np.where((row[1:] == row[:-1]) & (gap > 0) & fits_left & fits_right, gap, 0)
    before, after = np.concatenate(([0], link[:-1])), np.concatenate((link[1:], [0]))
    # Two singles alone are linked by any gap: only a third element, or touching, makes that a run.
    lonely = single[:-1] & single[1:] & (link > 1) & (before != link) & (after != link)
    link[lonely] = 0
    # An element between two lattices goes to the finer one, as the longer intervals are the cheaper rows to tile.
    before, after = np.concatenate(([0], link[:-1])), np.concatenate((link[1:], [0]))
    lost = ((before > 0) & (before < link)) | ((after > 0) & (after < link))
    link[lost] = 0
    return link


def _merge_affine_rows(triples: Triples) -> Triples:
    """Make every row whose whole column set is one arithmetic progression a single run.

    A row of n >= 2 distinct columns is affine exactly if step = (max - min) / (n - 1) is an integer and every column
    is congruent to min modulo step: n distinct multiples within n places fill them all. Nothing is expanded.
    """
    row, start, step, count = triples
    heads = np.flatnonzero(np.concatenate(([True], row[1:] != row[:-1])))
    runs = np.diff(np.append(heads, row.size))
    many = runs > 1
    if not many.any():
        return triples
    chosen = np.repeat(many, runs)
    m_row, m_start, m_step, m_count = part = _select(triples, chosen)
    heads = np.flatnonzero(np.concatenate(([True], m_row[1:] != m_row[:-1])))
    runs = np.diff(np.append(heads, m_row.size))
    total = np.add.reduceat(m_count, heads)
    first = m_start[heads]
    span = np.maximum.reduceat(_last(part), heads) - first
    whole = np.maximum(span // (total - 1), 1)
    common = np.repeat(whole, runs)
    congruent = ((m_start - np.repeat(first, runs)) % common == 0) & ((m_count == 1) | (m_step % common == 0))
    affine = (span == whole * (total - 1)) & np.logical_and.reduceat(congruent, heads)
    if not affine.any():
        return triples
    # The row's first run is overwritten by the whole row, its others are dropped.
    where = np.flatnonzero(chosen)[heads[affine]]
    step, count = step.copy(), count.copy()
    step[where], count[where] = whole[affine], total[affine]
    kept = np.ones(row.size, np.bool_)
    kept[np.flatnonzero(chosen)[np.repeat(affine, runs)]] = False
    kept[where] = True
    return _select((row, start, step, count), kept)
