"""Pictures as SVG, and what notebooks show: a bounded number of short paths, whatever the mask's size."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from splat_numba.pictures.picture import Layer, Picture

SIDE = 260  # pixels of the longer side
LEAST = 40  # of the shorter one: a single query beside thousands of keys is still seen
SHADES = 8  # of a colour: neighbours of one shade are one rectangle, which is what keeps a text short

Row = tuple[str, str]
"""What a line of a table is about, and what it says; an empty first part goes on with the line before."""


def svg(picture: Picture) -> str:
    """An <svg> of the picture, framed, with the lengths as its title."""
    down, across = picture.kept.shape
    wide, high = size_of(picture)
    paths = "".join(_layer(layer) for layer in picture.layers)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" viewBox="0 0 {max(across, 1)} '
        f'{max(down, 1)}" preserveAspectRatio="none" style="background:#fff;border:1px solid #888" '
        f'shape-rendering="crispEdges"><title>{escape(picture.caption)}</title>{paths}</svg>'
    )


def size_of(picture: Picture) -> tuple[int, int]:
    """Width and height in pixels, in proportion to the part that is shown, but for one that is very flat."""
    (top, bottom), (left, right) = picture.rows, picture.cols
    longest = max(bottom - top, right - left, 1)
    return max(SIDE * (right - left) // longest, LEAST), max(SIDE * (bottom - top) // longest, LEAST)


def _layer(layer: Layer) -> str:
    """A path for every shade, of the stretches of its cells in every row."""
    shade = np.ceil(np.clip(layer.shares, 0, 1) * SHADES).astype(np.int64)
    return "".join(
        f'<path fill="{layer.colour}" fill-opacity="{value / SHADES:g}" d="{_stretches(shade == value)}"/>'
        for value in range(1, SHADES + 1)
        if (shade == value).any()
    )


def _stretches(cells: NDArray[np.bool_]) -> str:
    """One rectangle for every stretch of cells in a row."""
    padded = np.pad(cells, ((0, 0), (1, 1))).astype(np.int8)
    row, first = np.nonzero(np.diff(padded, axis=1) == 1)
    _, end = np.nonzero(np.diff(padded, axis=1) == -1)
    places = np.stack([first, row, end - first], axis=1).tolist()
    return "".join(f"M{x} {y}h{w}v1h-{w}z" for x, y, w in places)


def html(title: str, picture: Picture | None, rows: Sequence[Row]) -> str:
    """What a notebook shows: the title, the picture with its caption and legend, and a table beside it."""
    cells = "".join(
        f'<tr><th style="text-align:left;vertical-align:top;white-space:nowrap">{escape(name)}</th>'
        f'<td style="text-align:left">{escape(text)}</td></tr>'
        for name, text in rows
    )
    table = f"<table>{cells}</table>" if cells else ""
    shown = "" if picture is None else f"<div>{svg(picture)}<br/><small>{_legend(picture)}</small></div>"
    return (
        f'<div><code>{escape(title)}</code><div style="display:flex;flex-wrap:wrap;gap:16px;align-items:flex-start">'
        f"{shown}<div>{table}</div></div></div>"
    )


def _legend(picture: Picture) -> str:
    names = picture.legend.items()
    colours = "".join(f'<br/><span style="color:{colour}">&#9632;</span> {escape(name)}' for name, colour in names)
    return escape(picture.caption) + colours


__all__ = ["Row", "html", "size_of", "svg"]
