"""Which pattern a mask function of Hugging Face's transformers stands for, read from what it was made of.

transformers composes closures: and_masks() of causal_mask_function, sliding_window_overlay(n) and others. They are
known by the names of what made them, in version 5.24. What is found here is a guess that `transformers_masks` verifies;
an unknown name is no guess, and the function is evaluated there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats import patterns
from splat_numba.formats.patterns import Pattern

_MODULE = "transformers.masking_utils"


@dataclass(frozen=True, slots=True)
class Terms:
    """A conjunction: what a mask function keeps, in positions counted from the first token ever seen.

    left, right: reach of a window in tokens, None for unlimited. chunk: size of chunks, counted from origins[entry], or
    0. documents: (batch, seq), equal numbers for tokens of one document, or None. restarted: positions begin anew at
    each document.
    """

    causal: bool = False
    left: int | None = None
    right: int | None = None
    chunk: int = 0
    origins: Any = None
    documents: Any = None
    restarted: bool = False

    def pattern(self) -> Pattern | None:
        """What holds for all entries, documents aside. None for a window whose sides no mask of transformers has."""
        kept = []
        if self.left is not None:
            right = 0 if self.causal else self.right
            if right is None:
                return None
            kept.append(patterns.window(self.left, right))
        elif self.causal:
            kept.append(patterns.causal())
        if self.chunk:
            kept.append(patterns.blocked(self.chunk))
        if not kept:
            return patterns.full()
        return kept[0] if len(kept) == 1 else kept[0] & kept[1]

    def lengths(self, entry: int) -> tuple[int, ...] | None:
        """The documents' lengths of a batch entry; None if one stands in several pieces."""
        numbers: NDArray[np.int64] = self.documents[entry].cpu().numpy()
        starts = np.flatnonzero(np.diff(numbers, prepend=numbers[:1] - 1))
        if len(np.unique(numbers)) != len(starts):
            return None
        return tuple(np.diff(starts, append=len(numbers)).tolist())


def terms_of(function: Callable[..., Any]) -> Terms | None:
    """The terms that a mask function is made of; None if it has a part that is not known."""
    found = Terms()
    for leaf in _leaves(function):
        joined = _joined(found, leaf)
        if joined is None:
            return None
        found = joined
    return None if found.restarted and found.documents is None else found


def _maker(function: Any) -> str:
    """What made a function of transformers' own, "" for another's."""
    if getattr(function, "__module__", None) != _MODULE:
        return ""
    return str(function.__qualname__).partition(".<locals>")[0]


def _held(function: Any) -> dict[str, Any]:
    """The variables that a closure holds."""
    cells = function.__closure__ or ()
    return dict(zip(function.__code__.co_freevars, (cell.cell_contents for cell in cells), strict=True))


def _leaves(function: Any) -> Iterator[Any]:
    """The functions that are joined by "and"."""
    if _maker(function) != "and_masks":
        yield function
        return
    for one in _held(function).get("mask_functions", (None,)):
        yield from _leaves(one)


def _joined(terms: Terms, leaf: Any) -> Terms | None:
    """The terms with one more; None for a leaf that is not known, or that limits what is limited already."""
    held = _held(leaf) if hasattr(leaf, "__code__") else {}
    match _maker(leaf), held:
        case "causal_mask_function", _:
            return replace(terms, causal=True)
        case "bidirectional_mask_function", _:
            return terms
        case "sliding_window_overlay", {"sliding_window": int(size)} if terms.left is None and size > 0:
            return replace(terms, left=size - 1)
        case "sliding_window_bidirectional_overlay", {"sliding_window": int(reach)} if terms.left is None:
            return replace(terms, left=reach, right=reach)
        case "chunked_overlay", {"chunk_size": int(size), "left_padding": origins} if not terms.chunk:
            return replace(terms, chunk=size, origins=origins)
        case "packed_sequence_mask_function", {"packed_sequence_mask": documents} if terms.documents is None:
            return replace(terms, documents=documents)
        case "remap_positions_for_packed_sequence", {"mask_function": inner}:
            return _within_documents(terms, inner)
    return None


def _within_documents(terms: Terms, inner: Any) -> Terms | None:
    """Terms of positions within a document. Differences of positions are those of tokens there; chunks begin anew."""
    found = terms_of(inner)
    if found is None or found.chunk or found.documents is not None or terms.causal or terms.left is not None:
        return None
    return replace(terms, causal=found.causal, left=found.left, right=found.right, restarted=True)
