"""Small pictures of masks: braille dots, or ASCII where those are missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from splat_numba.cli.console import break_label, is_plain
from splat_numba.formats.acsr import ACSR

# The bit of every dot of a braille sign: 4 rows by 2 columns, from U+2800 on.
BRAILLE_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
ASCII_SIGNS = np.array([" ", "'", ".", ":"])  # nothing, upper dot, lower dot, both


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """kept: (rows, cols) share of the kept pairs under every dot; rows and cols: the part of the mask that is shown, as
    half-open ranges; whole: whether that is all of it.
    """

    kept: NDArray[np.float64]
    rows: tuple[int, int]
    cols: tuple[int, int]
    whole: bool

    @property
    def dots(self) -> NDArray[np.bool_]:
        """(rows, cols), True where any pair under the dot is kept."""
        return self.kept > 0

    @property
    def caption(self) -> str:
        """What is shown."""
        heights, widths = self.rows[1] - self.rows[0], self.cols[1] - self.cols[0]
        return f"{heights} x {widths}" if self.whole else f"zoom {heights} x {widths}"


def draw(mask: ACSR, dots: int = 32) -> Picture:
    """A picture of at most dots x dots: of the whole mask, or of a corner where the whole would show a blur.

    A blur is a picture most of whose kept pairs are under dots that keep less than 60%: a dilated window looks like a
    wide one then. The corner is the first one, or the last where seq_q and seq_kv differ, which align_end() is about.
    """
    seq_q, seq_kv = mask.shape
    whole = _pool(mask, (0, seq_q), (0, seq_kv), dots)
    if not mask.nnz or not _is_blur(whole):
        return whole
    size = dots
    while 2 * size < max(seq_q, seq_kv):
        size *= 2
    while size >= dots:
        rows, cols = _corner(seq_q, size, last=seq_q != seq_kv), _corner(seq_kv, size, last=seq_q != seq_kv)
        zoomed = _pool(mask, rows, cols, dots)
        if zoomed.dots.any() and not _is_blur(zoomed):
            return zoomed
        size //= 2
    return whole


def _corner(length: int, size: int, *, last: bool) -> tuple[int, int]:
    size = min(size, length)
    return (length - size, length) if last else (0, size)


def _is_blur(picture: Picture) -> bool:
    return bool(picture.kept[picture.kept < 0.6].sum() > 0.5 * picture.kept.sum())


def _pool(mask: ACSR, rows: tuple[int, int], cols: tuple[int, int], dots: int) -> Picture:
    """Counts kept pairs under every dot from the runs; nothing of the mask's own size is made."""
    row_edge, col_edge = _edges(rows, dots), _edges(cols, dots)
    counts = np.zeros((row_edge.size - 1, col_edge.size - 1))
    for dot in range(row_edge.size - 1):
        first, last = int(mask.run_ptr[row_edge[dot]]), int(mask.run_ptr[row_edge[dot + 1]])
        start, step, count = (a[first:last].astype(np.int64) for a in (mask.run_start, mask.run_step, mask.run_count))
        below = np.clip(-((start - col_edge[:, None]) // step), 0, count)  # a run's columns left of every edge
        counts[dot] = np.diff(below.sum(axis=1))
    area = np.diff(row_edge)[:, None] * np.diff(col_edge)
    return Picture(counts / area, rows, cols, (rows, cols) == ((0, mask.shape[0]), (0, mask.shape[1])))


def _edges(span: tuple[int, int], dots: int) -> NDArray[np.int64]:
    length = span[1] - span[0]
    parts = min(dots, length)
    return span[0] + np.arange(parts + 1, dtype=np.int64) * length // max(parts, 1)


def to_lines(dots: NDArray[np.bool_], *, ascii_only: bool = False) -> list[str]:
    """Text lines for a (rows, cols) bool array: braille has 4 x 2 dots a sign, ASCII 2 x 1."""
    high, wide = (2, 1) if ascii_only else (4, 2)
    rows, cols = -(-dots.shape[0] // high), -(-dots.shape[1] // wide)
    padded = np.zeros((rows * high, cols * wide), np.bool_)
    padded[: dots.shape[0], : dots.shape[1]] = dots
    cells = padded.reshape(rows, high, cols, wide)
    if ascii_only:
        signs = ASCII_SIGNS[cells[:, 0, :, 0] + 2 * cells[:, 1, :, 0]]
        return ["".join(line) for line in signs]
    codes = 0x2800 + np.einsum("rhcw,hw->rc", cells, BRAILLE_BITS)
    return ["".join(map(chr, line)) for line in codes.tolist()]


def gallery(console: Console, pictures: Sequence[tuple[str, Picture]]) -> RenderableType:
    """Framed pictures with their labels, as many side by side as the console is wide."""
    framed = [_framed(label, picture, ascii_only=is_plain(console)) for label, picture in pictures]
    width = max((each for _, each in framed), default=1)
    across = max(1, min(len(framed), (console.width + 1) // (width + 1)))
    grid = Table.grid(padding=(0, 1, 0, 0))
    for _ in range(across):
        grid.add_column(width=width)
    for first in range(0, len(framed), across):
        grid.add_row(*(part for part, _ in framed[first : first + across]))
    return grid


def _framed(label: str, picture: Picture, *, ascii_only: bool) -> tuple[RenderableType, int]:
    lines = to_lines(picture.dots, ascii_only=ascii_only)
    width = max(max(map(len, lines), default=0), 14) + 2
    shown = Text("\n".join(lines), no_wrap=True, style="cyan")
    frame = Panel(shown, box=box.ASCII if ascii_only else box.SQUARE, width=width, padding=0)
    return Group(frame, Text(break_label(label, width), style="bold"), Text(picture.caption, style="dim")), width
