"""Integers that know which numbers of a pattern they were made of, so that texts can print those by name.

One text then serves every window: it says ``row - left`` where the plan of ``window(128)`` says 128. Decisions are
taken on the value, as of any integer: what compares, divides or takes remainders gets a plain one, which texts print.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Namer = Callable[[str, int], int]
"""(name, number of a pattern) -> the same number, which may know the name."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """A number of a pattern by a name that no other number of the pattern has."""

    name: str
    value: int


class Named(int):
    """``rest`` plus the symbols times their factors. Sums, differences and multiples by plain integers stay named;
    all else gives a plain integer. Equal to, hashed and shown as the plain one of its value.
    """

    parts: tuple[tuple[Symbol, int], ...]
    rest: int

    def __new__(cls, parts: tuple[tuple[Symbol, int], ...], rest: int = 0) -> Named:  # noqa: PYI034 - of no subclass
        """The number that these make."""
        made = super().__new__(cls, rest + sum(factor * symbol.value for symbol, factor in parts))
        made.parts, made.rest = parts, rest
        return made

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        return Named, (self.parts, self.rest)

    def __add__(self, other: int) -> int:
        return _sum(self, other, 1, 1) if isinstance(other, int) else NotImplemented

    def __radd__(self, other: int) -> int:
        return _sum(other, self, 1, 1) if isinstance(other, int) else NotImplemented

    def __sub__(self, other: int) -> int:
        return _sum(self, other, 1, -1) if isinstance(other, int) else NotImplemented

    def __rsub__(self, other: int) -> int:
        return _sum(other, self, 1, -1) if isinstance(other, int) else NotImplemented

    def __neg__(self) -> int:
        return _sum(self, 0, -1, 1)

    def __mul__(self, other: int) -> int:
        if isinstance(other, int) and not isinstance(other, Named):
            return _sum(self, 0, other, 1)
        return super().__mul__(other)

    __rmul__ = __mul__


def is_named(number: int) -> bool:
    """Whether a text prints it by name."""
    return isinstance(number, Named)


def parts_of(number: int) -> tuple[tuple[tuple[Symbol, int], ...], int]:
    """(symbols with their factors, the rest) of any integer."""
    return (number.parts, number.rest) if isinstance(number, Named) else ((), int(number))


def _sum(one: int, other: int, times: int, times_other: int) -> int:
    (parts, rest), (more, further) = parts_of(one), parts_of(other)
    factors: Counter[Symbol] = Counter()
    for symbol, factor in parts:
        factors[symbol] += factor * times
    for symbol, factor in more:
        factors[symbol] += factor * times_other
    left = tuple((symbol, factor) for symbol, factor in factors.items() if factor)
    total = rest * times + further * times_other
    return Named(left, total) if left else total


def symbols_in(numbers: Iterable[int]) -> dict[str, int]:
    """The symbols that these numbers were made of, by name, in the order in which they first occur."""
    found = dict.fromkeys(symbol for number in numbers for symbol, _ in parts_of(number)[0])
    by_name = {symbol.name: symbol.value for symbol in found}
    if len(by_name) < len(found):
        raise ValueError(f"one name for several numbers: {list(found)}")
    return by_name


def unnamed(_name: str, value: int) -> int:
    """A namer that names nothing."""
    return value


def namer() -> Namer:
    """A namer for one pattern: a name that was given before gets a number, ``left`` and then ``left_2``."""
    given: Counter[str] = Counter()

    def name(wanted: str, value: int) -> int:
        given[wanted] += 1
        found = wanted if given[wanted] == 1 else f"{wanted}_{given[wanted]}"
        return Named(((Symbol(found, int(value)), 1),))

    return name
