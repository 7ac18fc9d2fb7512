"""One order for the parts of unions, so that `sinks(4) | window(128)` and `window(128) | sinks(4)` are one text.

Names of numbers, labels and descriptions follow it. Terms do not: where neither of two parts is plainly the denser one,
the first stays whole and is cut out of the second. That is left to users, as results' last bits and the work of a row
depend on it: `window(128) | (sinks(3) & causal())` has a whole window, the other way round one with a bound to find.
"""

from __future__ import annotations

import re

from splat_numba.formats import pattern_nodes as nodes
from splat_numba.formats.combinations import AlignEnd, Combination, Intersection, Pattern, Union, fold

_KINDS = (
    nodes.Full, nodes.Causal, nodes.Window, nodes.Dilated, nodes.Blocked, nodes.Prefix, nodes.Documents,
    nodes.Neighborhood, nodes.Strided, nodes.Columns, nodes.Sinks, nodes.GlobalFirst, nodes.GlobalAt,
    nodes.RandomBlocks,
)  # fmt: skip


def ordered(pattern: Pattern) -> Pattern:
    """The pattern with the parts of its unions by the kind of their first leaf, then by form, then by numbers."""

    def combined(node: Pattern, _aligned: bool, below: list[Pattern]) -> Pattern:
        match node:
            case Union():
                return Union(tuple(sorted(below, key=_key)))
            case Intersection():
                return Intersection(tuple(below))
            case AlignEnd():
                return AlignEnd(below[0])
        return node

    return fold(pattern, combined)


def _key(pattern: Pattern) -> tuple[int, bool, str, list[int]]:
    first = pattern
    while isinstance(first, Combination):
        first = first.children[0]
    text = repr(pattern)
    numbers = [int(one) for one in re.findall(r"-?\d+", text)]
    return _KINDS.index(type(first)), isinstance(pattern, Combination), re.sub(r"-?\d+", "", text), numbers
