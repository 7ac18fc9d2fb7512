"""What is drawn: shares of cells of a mask, and of what a plan computes; the one value under every kind of picture."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Shares = NDArray[np.float64]
"""(rows, cols) share of the pairs of every cell, 0 to 1."""


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """Cells of one colour. name: in words, for a legend; colour: as #rrggbb; shares: how much of a cell has it."""

    name: str
    colour: str
    shares: Shares


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """kept: (rows, cols) share of the kept pairs under every dot; rows and cols: the part of the mask that is shown, as
    half-open ranges; whole: whether that is all of it. computed: what a plan computes there, drawn instead of kept.
    """

    kept: Shares
    rows: tuple[int, int]
    cols: tuple[int, int]
    whole: bool
    computed: tuple[Layer, ...] = ()

    @property
    def dots(self) -> NDArray[np.bool_]:
        """(rows, cols), True where any pair under the dot is kept."""
        return self.kept > 0

    @property
    def caption(self) -> str:
        """What is shown."""
        (top, bottom), (left, right) = self.rows, self.cols
        return f"{bottom - top} x {right - left}" if self.whole else f"zoom {bottom - top} x {right - left}"

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All that is drawn, side by side in a cell. A root makes faint dots visible: a stride of 16 keeps 6% of the
        pairs, and a cell of which 6% have any colour has 25% of it.
        """
        layers = self.computed or (Layer("kept", KEPT, self.kept),)
        coloured = np.sqrt(np.maximum(sum(layer.shares for layer in layers), 1e-300))
        return tuple(replace(layer, shares=layer.shares / coloured) for layer in layers)

    @property
    def legend(self) -> dict[str, str]:
        """Colours by name, of a plan's picture."""
        return {layer.name: layer.colour for layer in reversed(self.computed)}


KEPT = "#08519c"
