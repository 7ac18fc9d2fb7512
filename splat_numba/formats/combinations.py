"""Pattern, and the three ways to combine patterns: |, & and align_end(). Nothing here recurses into the parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NoReturn, TypeVar

from splat_numba.errors import PatternError, PatternTypeError
from splat_numba.plain import kind, shown

# Constructors in one pattern: 500 take seconds to bring into closed form, and the time grows with the square.
MOST_LEAVES = 500

_Value = TypeVar("_Value")


class Pattern:
    """Which pairs (query i, key j) an attention mask keeps; immutable, hashable, independent of the lengths.

    `p | q` keeps what either keeps, `p & q` what both keep; `p == q` compares descriptions, not sets of pairs.
    `eval(repr(p)) == p` wherever the constructors of `patterns` are in scope. At most 500 constructors may be combined
    (PatternError); `parse`, as Python itself, reads 199 levels of parentheses.
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

    def __bool__(self) -> NoReturn:
        raise PatternTypeError(
            f"pattern: wanted an operation that a pattern has, got the truth value of {self!r}. "
            "Combine patterns with | and &, not with or, and, not; compare with ==."
        )

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        from splat_numba.formats.patterns import remade  # which checks what the bytes of a pickle say

        return remade, (type(self), *(getattr(self, one.name) for one in fields(self)))  # type: ignore[arg-type]  # leaves are dataclasses

    def __copy__(self) -> Pattern:
        return self  # nothing of it can change

    def __deepcopy__(self, memo: object) -> Pattern:
        return self

    def _repr_html_(self) -> str:
        from splat_numba.formats.drawing import pattern_html  # which is above, and needed in notebooks alone

        return pattern_html(self)

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


def _operands(pattern: Pattern, of: type[Union | Intersection]) -> tuple[Pattern, ...]:
    # flattening makes (a | b) | c equal a | (b | c), and lets repr do without parentheses
    return pattern.parts if isinstance(pattern, of) else (pattern,)


class Combination(Pattern):
    """A pattern made of others, its children. Hash and size are known from the children's when it is made."""

    __slots__ = ("_hash", "leaves")
    _hash: int
    leaves: int

    @property
    def children(self) -> tuple[Pattern, ...]:
        """What was combined."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        children = self.children
        if not (isinstance(children, tuple) and children and all(isinstance(one, Pattern) for one in children)):
            raise PatternTypeError(f"parts: wanted a tuple of Patterns, got {children!r}. Combine them with | and &.")
        leaves = sum(one.leaves if isinstance(one, Combination) else 1 for one in children)
        if leaves > MOST_LEAVES:
            raise PatternError(
                f"pattern: wanted at most {MOST_LEAVES} constructors combined, got {leaves}. Use fewer, or "
                "make the mask with from_csr."
            )
        object.__setattr__(self, "leaves", leaves)
        object.__setattr__(self, "_hash", hash((type(self).__name__, children)))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Combination):
            return NotImplemented
        pairs: list[tuple[Pattern, Pattern]] = [(self, other)]
        while pairs:
            one, two = pairs.pop()
            if one is two:
                continue
            if isinstance(one, Combination) and isinstance(two, Combination):
                ours, theirs = one.children, two.children
                if type(one) is not type(two) or one._hash != two._hash or len(ours) != len(theirs):
                    return False
                pairs.extend(zip(ours, theirs, strict=True))
            elif one != two:
                return False
        return True

    def __repr__(self) -> str:
        return fold(self, _text)

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        steps: list[Pattern | tuple[str, int]] = []
        fold(self, lambda node, _aligned, below: steps.append((type(node).__name__, len(below)) if below else node))
        return _recombined, (tuple(steps),)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Union(Combination):
    """Keeps what any of the parts keeps."""

    parts: tuple[Pattern, ...]

    @property
    def children(self) -> tuple[Pattern, ...]:
        """The parts."""
        return self.parts


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Intersection(Combination):
    """Keeps what all of the parts keep."""

    parts: tuple[Pattern, ...]

    @property
    def children(self) -> tuple[Pattern, ...]:
        """The parts."""
        return self.parts


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class AlignEnd(Combination):
    """Keeps (i, j) where `pattern` keeps (i + seq_kv - seq_q, j)."""

    pattern: Pattern

    @property
    def children(self) -> tuple[Pattern, ...]:
        """The one pattern."""
        return (self.pattern,)

    def align_end(self) -> Pattern:
        """Itself: the queries stand at the end already."""
        return self


def fold(pattern: Pattern, combine: Callable[[Pattern, bool, list[_Value]], _Value]) -> _Value:
    """combine(node, aligned, values of its children) of the whole pattern, children first, from left to right.

    aligned: whether the node lies below an align_end().
    """
    order: list[tuple[Pattern, bool]] = []
    todo = [(pattern, False)]
    while todo:
        node, aligned = todo.pop()
        order.append((node, aligned))
        if isinstance(node, Combination):
            todo.extend((child, aligned or isinstance(node, AlignEnd)) for child in node.children)
    values: list[_Value] = []
    for node, aligned in reversed(order):
        first = len(values) - (len(node.children) if isinstance(node, Combination) else 0)
        values[first:] = [combine(node, aligned, values[first:])]
    return values[0]


def _text(node: Pattern, _aligned: bool, below: list[str]) -> str:
    """What repr() gives."""
    if not isinstance(node, Combination):
        return repr(node)
    texts = [
        f"({text})" if isinstance(child, (Union, Intersection)) else text
        for child, text in zip(node.children, below, strict=True)
    ]
    return f"{texts[0]}.align_end()" if isinstance(node, AlignEnd) else f" {_SIGNS[type(node)]} ".join(texts)


_SIGNS: dict[type[Pattern], str] = {Union: "|", Intersection: "&"}
_KINDS: dict[str, Callable[[tuple[Pattern, ...]], Pattern]] = {
    "Union": Union,
    "Intersection": Intersection,
    "AlignEnd": lambda parts: AlignEnd(*parts),
}


def _recombined(steps: Any) -> Pattern:
    """The pattern of a pickle: leaves, and combinations (kind, number of parts) of the last ones."""
    made: list[Pattern] = []
    try:
        for step in steps:
            if isinstance(step, Pattern):
                made.append(step)
            else:
                name, count = step
                made[len(made) - count :] = [_KINDS[name](tuple(made[len(made) - count :]))]
        (pattern,) = made
    except (TypeError, ValueError, KeyError) as error:
        raise PatternTypeError(
            f"pattern: wanted the steps of a pickled Pattern, got {error}. Pickle it anew."
        ) from error
    return pattern
