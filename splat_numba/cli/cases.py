"""The masks that demo and bench run: a label for people and the pattern."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

from splat_numba.cli.options import pattern_errors, read_pattern, shortened
from splat_numba.formats import patterns
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import Pattern

OPTION = "--pattern"
DEFAULT_PATTERNS = (
    "window(128)",
    "causal()",
    "dilated(128, 4)",
    "strided(16)",
    "longformer(256, 64)",
    "bigbird(64)",
    "sparse_transformer_strided(128)",
)
# Uneven lengths of a packed batch, 200 to 1500 tokens; repeated as often as the sequence needs.
DOCUMENT_LENGTHS = (611, 203, 1500, 347, 938, 274, 1210, 489)


@dataclass(frozen=True, slots=True)
class Case:
    """label: the pattern as typed, shortened; pattern: what it means."""

    label: str
    pattern: Pattern


def chosen_cases(texts: Sequence[str] | None, seq: int) -> tuple[Case, ...]:
    """The patterns that were asked for, or the usual handful. Raises CommandError for text that is no pattern."""
    if texts:
        return tuple(Case(shortened(text), read_pattern(text, OPTION)) for text in texts)
    usual = tuple(Case(text, read_pattern(text)) for text in DEFAULT_PATTERNS)
    return (*usual, _uneven_documents(seq))


def masks_of(cases: Sequence[Case], seq: int) -> list[ACSR]:
    """Their masks for seq queries and keys. Raises CommandError for a pattern that does not fit that length."""
    masks = []
    for case in cases:
        with pattern_errors(case.label, OPTION):
            masks.append(ACSR.from_pattern(case.pattern, seq, seq))
    return masks


def _uneven_documents(seq: int) -> Case:
    lengths: list[int] = []
    left = seq
    for length in cycle(DOCUMENT_LENGTHS):
        lengths.append(min(length, left))
        left -= lengths[-1]
        if left == 0:
            break
    return Case(f"documents({len(lengths)} uneven)", patterns.documents(tuple(lengths)))
