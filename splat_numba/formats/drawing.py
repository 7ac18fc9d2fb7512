"""Masks as notebooks show them, and on matplotlib's axes: the lengths a pattern is drawn at, and what is said of it."""

from __future__ import annotations

import math
from dataclasses import fields
from textwrap import shorten
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.errors import ArgumentError, ArgumentTypeError, SplatError
from splat_numba.formats import pattern_nodes as nodes
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.combinations import fold
from splat_numba.formats.geometry import Geometry
from splat_numba.formats.pattern_checks import integer
from splat_numba.formats.raster import mask_picture
from splat_numba.pictures.svg import Row, html
from splat_numba.plain import counted, kind, memory_size, shown
from splat_numba.signatures import strict

CELLS = 64  # of a notebook's picture, a side: some kilobytes of text
DOTS = 256  # of a figure's
LEAST, MOST = 64, 8192  # tokens that a pattern without a length of its own is drawn at
MOST_DRAWN = 1 << 21  # tokens: a picture takes time in proportion to the rows, and a notebook asks for it unbidden
LONGEST_TITLE = 160  # characters


@strict()
def draw(
    mask: nodes.Pattern | ACSR | Geometry | NDArray[np.bool_],
    ax: Any = None,
    *,
    seq_q: int | None = None,
    seq_kv: int | None = None,
) -> Any:
    """Draw a mask with matplotlib: queries down, keys across, darker where more pairs of a cell are kept.

    Where all of it would be a blur, as of a stride, its first corner is drawn, or the last where the lengths differ.

    Parameters
    ----------
    mask : Pattern, ACSR, Geometry or bool array (seq_q, seq_kv)
        What is to be drawn.
    ax : axes of matplotlib
        Those of a new figure unless given.
    seq_q, seq_kv : int
        The lengths that a pattern is drawn at, some times the largest of its numbers unless given; one of them is taken
        for both.

    Returns
    -------
    axes of matplotlib
        Those that were drawn on.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        For arguments that do not fit.
    PatternError
        For lengths that do not fit the pattern.
    BackendError
        Where matplotlib is missing.
    """
    from splat_numba.pictures.axes import show

    lengths = _given(seq_q, seq_kv)
    stored = _stored(mask, lengths)
    title = repr(mask) if isinstance(mask, nodes.Pattern) else repr(stored)
    return show(mask_picture(stored, DOTS), shorten(title, LONGEST_TITLE, placeholder=" ..."), ax)


def _given(seq_q: int | None, seq_kv: int | None) -> tuple[int, int] | None:
    if seq_q is None and seq_kv is None:
        return None
    pair = (seq_kv if seq_q is None else seq_q), (seq_q if seq_kv is None else seq_kv)
    return integer("seq_q", pair[0], 0), integer("seq_kv", pair[1], 0)


def _stored(mask: object, lengths: tuple[int, int] | None) -> ACSR:
    """The runs of what is to be drawn."""
    if isinstance(mask, nodes.Pattern):
        return ACSR.from_pattern(mask, *(lengths or natural_lengths(mask)))
    if isinstance(mask, Geometry):
        found = ACSR(mask.runs)
    elif isinstance(mask, np.ndarray):
        found = ACSR.from_dense(mask)
    elif isinstance(mask, ACSR):
        found = mask
    else:
        raise ArgumentTypeError(
            f"mask wanted as a Pattern, an ACSR, a Geometry or a 2-D bool array, got {shown(mask)} of type "
            f"{kind(mask)}. Build one, for example splat.window(128); a plan has draw() of its own."
        )
    if lengths is not None and lengths != found.shape:
        raise ArgumentError(
            f"seq_q and seq_kv wanted left out, or as the mask's {found.shape}, got {lengths}. Leave them out."
        )
    return found


def natural_lengths(pattern: nodes.Pattern) -> tuple[int, int]:
    """Lengths at which a pattern's structure is seen: those that it fixes, or four times the largest of its numbers.

    They are equal, unless it is aligned at the end: then half as many queries, so that this is seen.
    """
    fixed, numbers = [0], [LEAST // 4]

    def look(node: nodes.Pattern, aligned: bool, below: list[bool]) -> bool:
        if isinstance(node, nodes.Documents):
            fixed.append(sum(node.lengths))
        elif isinstance(node, nodes.Neighborhood):
            fixed.append(math.prod(node.shape))
        elif not below:
            numbers.extend(_numbers(node))
        return aligned or any(below)

    aligned = fold(pattern, look)
    if max(fixed):
        return max(fixed), max(fixed)
    length = min(max(LEAST, 1 << (4 * max(numbers) - 1).bit_length()), MOST)
    return (length // 2 if aligned else length), length


def _numbers(leaf: nodes.Pattern) -> list[int]:
    """The sizes of a leaf in tokens, of those that a picture may show."""
    if isinstance(leaf, nodes.GlobalAt):
        return [max(leaf.indices, default=0) // 4 + 1]
    if isinstance(leaf, nodes.RandomBlocks):
        return [4 * leaf.size]
    if isinstance(leaf, nodes.Blocked):
        return [leaf.size * (1 + leaf.before + leaf.after)]
    if isinstance(leaf, nodes.Dilated):
        return [leaf.window * leaf.step]
    values = [getattr(leaf, field.name) for field in fields(leaf)]  # type: ignore[arg-type]  # leaves are dataclasses
    return [value for value in values if isinstance(value, int) and value <= MOST]


def pattern_html(pattern: nodes.Pattern) -> str:
    """A pattern as notebooks show it; without a picture where it fits no length, or only a very long one."""
    lengths = natural_lengths(pattern)
    if max(lengths) > MOST_DRAWN:
        return html(shorten(repr(pattern), LONGEST_TITLE, placeholder=" ..."), None, _not_drawn(lengths))
    try:
        stored = ACSR.from_pattern(pattern, *lengths)
    except SplatError as error:
        return html(repr(pattern), None, [("not drawn", str(error))])
    rows = [("drawn at", f"{lengths[0]:,} x {lengths[1]:,} tokens"), ("density there", f"{stored.density:.3%}")]
    title = shorten(repr(pattern), LONGEST_TITLE, placeholder=" ...")
    return html(title, mask_picture(stored, CELLS), rows)


def acsr_html(mask: ACSR) -> str:
    """A stored mask as notebooks show it."""
    rows = [
        ("shape", f"{mask.shape[0]:,} x {mask.shape[1]:,}"),
        ("kept pairs", f"{mask.nnz:,}, density {mask.density:.3%}"),
        ("runs", f"{mask.run_start.size:,}{', one a row at most' if mask.is_regular else ''}"),
        ("memory", memory_size(mask.nbytes)),
    ]
    if max(mask.shape) > MOST_DRAWN:
        return html(repr(mask), None, [*rows, *_not_drawn(mask.shape)])
    return html(repr(mask), mask_picture(mask, CELLS), rows)


def geometry_html(geometry: Geometry) -> str:
    """A geometry as notebooks show it: its terms in words, and the mask where it has lengths."""
    terms = geometry.terms
    closed = "no: in runs, for these lengths" if terms is None else f"{counted(len(terms), 'term')}, for every length"
    rows = [("closed form", closed)]
    if geometry.shape is None or max(geometry.shape) > MOST_DRAWN:
        return html(repr(geometry), None, rows)
    rows.append(("bands", f"{len(geometry):,}"))
    return html(repr(geometry), mask_picture(ACSR(geometry.runs), CELLS), rows)


def _not_drawn(lengths: tuple[int, int]) -> list[Row]:
    return [("not drawn", f"{lengths[0]:,} x {lengths[1]:,} tokens; splat.draw(mask) draws it all the same")]


__all__ = ["acsr_html", "draw", "geometry_html", "natural_lengths", "pattern_html"]
