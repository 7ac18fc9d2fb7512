"""Pictures of masks as text: braille dots, or ASCII where those are missing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from splat_numba.cli.console import break_label, is_plain
from splat_numba.pictures.picture import Picture

# The bit of every dot of a braille sign: 4 rows by 2 columns, from U+2800 on.
BRAILLE_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
ASCII_SIGNS = np.array([" ", "'", ".", ":"])  # nothing, upper dot, lower dot, both


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


def side_by_side(console: Console, pictures: Sequence[tuple[str, Picture]]) -> RenderableType:
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
