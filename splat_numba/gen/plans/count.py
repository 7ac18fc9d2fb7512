"""Counted work of a pass, whatever kind it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Count:
    """Work of one (batch, head): pairs kept and computed, row blocks, tiles, and tiles that need no mask; staged: keys
    of tiles that have not all keys, whose values are copied first.

    exact: False where it was estimated from some of the blocks.
    """

    kept: int = 0
    area: int = 0
    blocks: int = 0
    tiles: int = 0
    full: int = 0
    exact: bool = True
    staged: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(
            self.kept + other.kept,
            self.area + other.area,
            self.blocks + other.blocks,
            self.tiles + other.tiles,
            self.full + other.full,
            self.exact and other.exact,
            self.staged + other.staged,
        )
