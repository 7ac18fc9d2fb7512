"""A warning for decoding: queries that are the last tokens, under a pattern that takes them for the first ones."""

from __future__ import annotations

import sys
import warnings
from functools import lru_cache

from splat_numba.errors import AlignmentWarning
from splat_numba.formats import pattern_nodes as nodes
from splat_numba.plain import shown


@lru_cache(maxsize=256)
def warn_unaligned(pattern: nodes.Pattern) -> None:
    """Warn, once a pattern, if it looks back from each query. For calls with fewer queries than keys."""
    if looks_back(pattern):
        warnings.warn(
            f"mask {shown(pattern, 80)} has fewer queries than keys, and takes query 0 for token 0. If the queries are "
            "the last tokens, as in decoding, write (mask).align_end(); if not, filter splat_numba.AlignmentWarning.",
            AlignmentWarning,
            stacklevel=_callers_level(),
        )


def looks_back(pattern: nodes.Pattern) -> bool:
    """Whether the pattern, or a part of it, is causal: keeps keys before a query, and none after it.

    Windows to both sides, strides and neighbourhoods make sense of queries and keys that are different things, so they
    do not count; nor does what is aligned at the end.
    """
    match pattern:
        case nodes.Causal() | nodes.Prefix():
            return True
        case nodes.Window():
            return pattern.right == 0 < pattern.left
        case nodes.Blocked():
            return pattern.after == 0 < pattern.before
        case nodes.Union() | nodes.Intersection():
            return any(looks_back(part) for part in pattern.parts)
    return False


def _callers_level() -> int:
    """The stack level, for warn_unaligned, of the first caller outside the package: skip_file_prefixes is of 3.12."""
    level, frame = 1, sys._getframe(1)  # noqa: SLF001 - as the warnings module does
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("splat_numba."):
        level, frame = level + 1, frame.f_back
    return level
