"""Views and boxes: a sequence axis seen as two, and what one copy fetches of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class View:
    """A sequence axis as two: token(c1, c2) = offset + inner_step * c1 + outer_step * c2, c1 < inner, c2 < outer."""

    offset: int
    inner_step: int
    inner: int
    outer_step: int
    outer: int


@dataclass(frozen=True, slots=True)
class Box:
    """Places that one copy fetches: inner along c1 (fastest), outer along c2."""

    inner: int
    outer: int = 1

    @property
    def size(self) -> int:
        """Tokens in the box."""
        return self.inner * self.outer

    @property
    def shift(self) -> int:
        """log2 of inner, where that is a power of two: how a text divides by it."""
        return self.inner.bit_length() - 1
