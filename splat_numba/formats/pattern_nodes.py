"""The values that describe a pattern: one frozen class per leaf, beside the `combinations` of them.

A node only *describes*; what it keeps is worked out in `closed_form` (symbolically) and `pattern_runs` (for given
lengths). Users build nodes with the constructors of `patterns`, which check every number; nodes trust theirs.

Texts take numbers by operator.index() because torch.compile reads them too: to it a number that it has seen change is a
symbol, which has no text. index() makes it the number again, and has the graph made anew for another.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import index

from splat_numba.formats.combinations import AlignEnd, Intersection, Pattern, Union

__all__ = [
    "AlignEnd",
    "Blocked",
    "Causal",
    "Columns",
    "Dilated",
    "Documents",
    "Full",
    "GlobalAt",
    "GlobalFirst",
    "Intersection",
    "Neighborhood",
    "Pattern",
    "Prefix",
    "RandomBlocks",
    "Sinks",
    "Strided",
    "Union",
    "Window",
]


@dataclass(frozen=True, slots=True, repr=False)
class Full(Pattern):
    """All pairs."""

    def __repr__(self) -> str:
        return "full()"


@dataclass(frozen=True, slots=True, repr=False)
class Causal(Pattern):
    """j <= i."""

    def __repr__(self) -> str:
        return "causal()"


@dataclass(frozen=True, slots=True, repr=False)
class Window(Pattern):
    """i - left <= j <= i + right."""

    left: int
    right: int

    def __repr__(self) -> str:
        return (
            f"window({index(self.left)})"
            if self.left == self.right
            else f"window({index(self.left)}, {index(self.right)})"
        )


@dataclass(frozen=True, slots=True, repr=False)
class Dilated(Pattern):
    """(i - j) % step == 0 and abs(i - j) <= window * step."""

    window: int
    step: int

    def __repr__(self) -> str:
        return f"dilated({index(self.window)}, {index(self.step)})"


@dataclass(frozen=True, slots=True, repr=False)
class Strided(Pattern):
    """(i - j) % step == 0."""

    step: int

    def __repr__(self) -> str:
        return f"strided({index(self.step)})"


@dataclass(frozen=True, slots=True, repr=False)
class Columns(Pattern):
    """start <= j % period < start + count."""

    period: int
    start: int
    count: int

    def __repr__(self) -> str:
        return f"columns({index(self.period)}, {index(self.start)}{_unless(self.count, 1)})"


@dataclass(frozen=True, slots=True, repr=False)
class Blocked(Pattern):
    """chunk(i) - before <= chunk(j) <= chunk(i) + after, where chunk(x) = x // size."""

    size: int
    before: int
    after: int

    def __repr__(self) -> str:
        if self.before == self.after == 0:
            return f"blocked({index(self.size)})"
        return f"blocked({index(self.size)}, {index(self.before)}{_unless(self.after, 0)})"


@dataclass(frozen=True, slots=True, repr=False)
class Documents(Pattern):
    """i and j lie in the same document; `lengths` are the documents' lengths in tokens."""

    lengths: tuple[int, ...]

    def __repr__(self) -> str:
        return f"documents({_each(self.lengths)!r})"


@dataclass(frozen=True, slots=True, repr=False)
class GlobalFirst(Pattern):
    """i < n or j < n."""

    n: int

    def __repr__(self) -> str:
        return f"global_tokens({index(self.n)})"


@dataclass(frozen=True, slots=True, repr=False)
class GlobalAt(Pattern):
    """i or j is one of `indices` (ascending, distinct)."""

    indices: tuple[int, ...]

    def __repr__(self) -> str:
        return f"global_tokens({_each(self.indices)!r})"


@dataclass(frozen=True, slots=True, repr=False)
class Sinks(Pattern):
    """j < n."""

    n: int

    def __repr__(self) -> str:
        return f"sinks({index(self.n)})"


@dataclass(frozen=True, slots=True, repr=False)
class Prefix(Pattern):
    """j < n or j <= i."""

    n: int

    def __repr__(self) -> str:
        return f"prefix({index(self.n)})"


@dataclass(frozen=True, slots=True, repr=False)
class Neighborhood(Pattern):
    """Neighbours on a grid, flattened in C order; `kernel` and `dilation` hold one number per axis of `shape`."""

    shape: tuple[int, ...]
    kernel: tuple[int, ...]
    dilation: tuple[int, ...]

    def __repr__(self) -> str:
        kernel = _one_or_each(self.kernel)
        dilation = "" if set(_each(self.dilation)) == {1} else f", {_one_or_each(self.dilation)}"
        return f"neighborhood({_each(self.shape)!r}, {kernel}{dilation})"


@dataclass(frozen=True, slots=True, repr=False)
class RandomBlocks(Pattern):
    """Each block of `size` queries keeps min(per_row, blocks) blocks of `size` keys, drawn from (seed, block row)."""

    size: int
    per_row: int
    seed: int

    def __repr__(self) -> str:
        return f"random_blocks({index(self.size)}, {index(self.per_row)}, {index(self.seed)})"


def _unless(value: int, default: int) -> str:
    return "" if value == default else f", {index(value)}"


def _one_or_each(values: tuple[int, ...]) -> str:
    known = _each(values)
    return repr(known[0]) if len(set(known)) == 1 else repr(known)


def _each(values: tuple[int, ...]) -> tuple[int, ...]:
    return tuple([index(value) for value in values])
