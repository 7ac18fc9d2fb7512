"""The values that describe a pattern: one frozen class per leaf, and three ways to combine them.

A node only *describes*; what it keeps is worked out in `closed_form` (symbolically) and `pattern_runs` (for given
lengths). Users build nodes with the constructors of `patterns`, which check every number; nodes trust theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NoReturn

from splat_numba.errors import PatternTypeError
from splat_numba.plain import kind, shown


class Pattern:
    """Which pairs (query i, key j) an attention mask keeps; immutable, hashable, independent of the lengths.

    `p | q` keeps what either keeps, `p & q` what both keep; `p == q` compares descriptions, not sets of pairs.
    `eval(repr(p)) == p` wherever the constructors of `patterns` are in scope.
    """

    __slots__ = ()
    __array_ufunc__ = None  # without it `ndarray | pattern` would build an object array element by element

    def __or__(self, other: object) -> Pattern:
        if not isinstance(other, Pattern):
            _check_joins("|", other)
            return NotImplemented
        return Union(_operands(self, Union) + _operands(other, Union))

    def __and__(self, other: object) -> Pattern:
        if not isinstance(other, Pattern):
            _check_joins("&", other)
            return NotImplemented
        return Intersection(_operands(self, Intersection) + _operands(other, Intersection))

    def __ror__(self, other: object) -> Pattern:
        _check_joins("|", other)
        return NotImplemented

    def __rand__(self, other: object) -> Pattern:
        _check_joins("&", other)
        return NotImplemented

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        from splat_numba.formats.patterns import remade  # which checks what the bytes of a pickle say

        return remade, (type(self), *(getattr(self, one.name) for one in fields(self)))  # type: ignore[arg-type]

    def __copy__(self) -> Pattern:
        return self  # nothing of it can change

    def __deepcopy__(self, memo: object) -> Pattern:
        return self

    def __bool__(self) -> NoReturn:
        raise PatternTypeError(
            f"pattern: wanted an operation that a pattern has, got the truth value of {self!r}. "
            "Combine patterns with | and &, not with or, and, not; compare with ==."
        )

    def align_end(self) -> Pattern:
        """The same pattern with query i at position i + seq_kv - seq_q, so that the last query meets the last key.

        It holds for every leaf below, and once is enough: `p.align_end().align_end() == p.align_end()`.
        """
        return AlignEnd(self)


def _check_joins(operation: str, other: object) -> None:
    """Raise PatternTypeError, with what to write, unless ``other`` is an ACSR, which knows what to do."""
    from splat_numba.formats.acsr import ACSR
    from splat_numba.formats.patterns import constructor_name

    if isinstance(other, ACSR):
        return
    word = constructor_name(other)
    if isinstance(other, str):
        advice = f"Write splat.parse({shown(other)})."
    elif word is not None:
        advice = f"Call it: splat.{word}(...)."
    elif hasattr(type(other), "__array__"):
        advice = "Write splat.ACSR.from_dense(mask)."
    else:
        advice = "Build it with the constructors."
    raise PatternTypeError(
        f"pattern: wanted a Pattern or an ACSR beside {operation}, got {shown(other)} of type {kind(other)}. {advice}"
    )


def _operands(pattern: Pattern, kind: type[Union | Intersection]) -> tuple[Pattern, ...]:
    # flattening makes (a | b) | c equal a | (b | c), and lets repr do without parentheses
    return pattern.parts if isinstance(pattern, kind) else (pattern,)


@dataclass(frozen=True, slots=True, repr=False)
class Union(Pattern):
    """Keeps what any of the parts keeps."""

    parts: tuple[Pattern, ...]

    def __repr__(self) -> str:
        return " | ".join(_parenthesised(part) for part in self.parts)


@dataclass(frozen=True, slots=True, repr=False)
class Intersection(Pattern):
    """Keeps what all of the parts keep."""

    parts: tuple[Pattern, ...]

    def __repr__(self) -> str:
        return " & ".join(_parenthesised(part) for part in self.parts)


@dataclass(frozen=True, slots=True, repr=False)
class AlignEnd(Pattern):
    """Keeps (i, j) where `pattern` keeps (i + seq_kv - seq_q, j)."""

    pattern: Pattern

    def align_end(self) -> Pattern:
        """Itself: the queries stand at the end already."""
        return self

    def __repr__(self) -> str:
        return f"{_parenthesised(self.pattern)}.align_end()"


def _parenthesised(pattern: Pattern) -> str:
    return f"({pattern!r})" if isinstance(pattern, (Union, Intersection)) else repr(pattern)


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
        return f"window({self.left})" if self.left == self.right else f"window({self.left}, {self.right})"


@dataclass(frozen=True, slots=True, repr=False)
class Dilated(Pattern):
    """(i - j) % step == 0 and abs(i - j) <= window * step."""

    window: int
    step: int

    def __repr__(self) -> str:
        return f"dilated({self.window}, {self.step})"


@dataclass(frozen=True, slots=True, repr=False)
class Strided(Pattern):
    """(i - j) % step == 0."""

    step: int

    def __repr__(self) -> str:
        return f"strided({self.step})"


@dataclass(frozen=True, slots=True, repr=False)
class Columns(Pattern):
    """start <= j % period < start + count."""

    period: int
    start: int
    count: int

    def __repr__(self) -> str:
        return f"columns({self.period}, {self.start}{_unless(self.count, 1)})"


@dataclass(frozen=True, slots=True, repr=False)
class Blocked(Pattern):
    """chunk(i) - before <= chunk(j) <= chunk(i) + after, where chunk(x) = x // size."""

    size: int
    before: int
    after: int

    def __repr__(self) -> str:
        if self.before == self.after == 0:
            return f"blocked({self.size})"
        return f"blocked({self.size}, {self.before}{_unless(self.after, 0)})"


@dataclass(frozen=True, slots=True, repr=False)
class Documents(Pattern):
    """i and j lie in the same document; `lengths` are the documents' lengths in tokens."""

    lengths: tuple[int, ...]

    def __repr__(self) -> str:
        return f"documents({self.lengths!r})"


@dataclass(frozen=True, slots=True, repr=False)
class GlobalFirst(Pattern):
    """i < n or j < n."""

    n: int

    def __repr__(self) -> str:
        return f"global_tokens({self.n})"


@dataclass(frozen=True, slots=True, repr=False)
class GlobalAt(Pattern):
    """i or j is one of `indices` (ascending, distinct)."""

    indices: tuple[int, ...]

    def __repr__(self) -> str:
        return f"global_tokens({self.indices!r})"


@dataclass(frozen=True, slots=True, repr=False)
class Sinks(Pattern):
    """j < n."""

    n: int

    def __repr__(self) -> str:
        return f"sinks({self.n})"


@dataclass(frozen=True, slots=True, repr=False)
class Prefix(Pattern):
    """j < n or j <= i."""

    n: int

    def __repr__(self) -> str:
        return f"prefix({self.n})"


@dataclass(frozen=True, slots=True, repr=False)
class Neighborhood(Pattern):
    """Neighbours on a grid, flattened in C order; `kernel` and `dilation` hold one number per axis of `shape`."""

    shape: tuple[int, ...]
    kernel: tuple[int, ...]
    dilation: tuple[int, ...]

    def __repr__(self) -> str:
        kernel = _one_or_each(self.kernel)
        dilation = "" if set(self.dilation) == {1} else f", {_one_or_each(self.dilation)}"
        return f"neighborhood({self.shape!r}, {kernel}{dilation})"


@dataclass(frozen=True, slots=True, repr=False)
class RandomBlocks(Pattern):
    """Each block of `size` queries keeps min(per_row, blocks) blocks of `size` keys, drawn from (seed, block row)."""

    size: int
    per_row: int
    seed: int

    def __repr__(self) -> str:
        return f"random_blocks({self.size}, {self.per_row}, {self.seed})"


def _unless(value: int, default: int) -> str:
    return "" if value == default else f", {value}"


def _one_or_each(values: tuple[int, ...]) -> str:
    return repr(values[0]) if len(set(values)) == 1 else repr(values)
