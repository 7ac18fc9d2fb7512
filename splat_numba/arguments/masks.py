"""The mask argument of every operator, checked and reduced to a Pattern or an ACSR."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from splat_numba.arguments.alignment import warn_unaligned
from splat_numba.arguments.dense_masks import dense_mask
from splat_numba.errors import ArgumentError
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.order import ordered
from splat_numba.formats.patterns import Pattern

OneMask: TypeAlias = Pattern | ACSR | NDArray[np.bool_]
Mask: TypeAlias = OneMask | Sequence[OneMask]
Stored: TypeAlias = Pattern | ACSR


def store_mask(mask: Any, seq_q: int, seq_kv: int, name: str = "mask") -> Stored:
    """A Pattern or an ACSR for one mask, which must fit (seq_q, seq_kv).

    Raises ArgumentError for a mask of another shape, ArgumentTypeError for what is no mask, FormatError for an array
    that is not 2-D bool. Warns, once a pattern, of queries that look like the last ones but stand at the first keys.
    """
    if isinstance(mask, Pattern):
        if seq_q < seq_kv:
            warn_unaligned(mask)
        return mask
    stored = mask if isinstance(mask, ACSR) else ACSR.from_dense(dense_mask(mask, name))
    if stored.shape != (seq_q, seq_kv):
        raise ArgumentError(
            f"{name} wanted of shape {(seq_q, seq_kv)}, got {stored.shape}: a mask is never broadcast or cut. "
            "Build it for these lengths, or use a Pattern, which fits all."
        )
    return stored


def stored_pairs(mask: Stored, seq_q: int, seq_kv: int) -> ACSR:
    """The mask's pairs. Raises PatternError where a Pattern does not fit these lengths."""
    return _pairs_of(mask, seq_q, seq_kv) if isinstance(mask, Pattern) else mask


@lru_cache(maxsize=16)
def _pairs_of(pattern: Pattern, seq_q: int, seq_kv: int) -> ACSR:
    """Remembered: making them can take longer than using them, and what is made of them is kept with them."""
    return ACSR.from_pattern(pattern, seq_q, seq_kv)


def split_heads(mask: Mask, heads_q: int, seq_q: int, seq_kv: int) -> list[tuple[Stored, tuple[int, ...]]]:
    """The distinct masks, each with the query heads that use it."""
    if not isinstance(mask, (list, tuple)):
        return [(store_mask(mask, seq_q, seq_kv), tuple(range(heads_q)))]
    if len(mask) != heads_q:
        swapped = " If q is (batch, seq, heads, dim), give layout='bshd'." if len(mask) == seq_q else ""
        raise ArgumentError(
            f"mask wanted as {heads_q} masks, one a query head, got {len(mask)}. Give {heads_q}, or one mask for all."
            f"{swapped}"
        )
    users: dict[Stored, list[int]] = {}
    for head, one in enumerate(mask):
        users.setdefault(store_mask(one, seq_q, seq_kv, f"mask[{head}]"), []).append(head)
    return [(stored, tuple(heads)) for stored, heads in users.items()]


def fingerprint(mask: Stored) -> str:
    """Text that differs between masks that differ, short enough for a file's name or key."""
    if isinstance(mask, Pattern):
        return repr(mask)
    digest = hashlib.sha256(repr(mask.shape).encode())
    for array in (mask.run_ptr, mask.run_start, mask.run_step, mask.run_count):
        digest.update(str(array.dtype).encode() + array.tobytes())
    return digest.hexdigest()


def planned_mask(mask: Stored) -> str:
    """The mask in words, as a plan has it: unions in one order, which their texts have."""
    return repr(ordered(mask)) if isinstance(mask, Pattern) else describe(mask)


def describe(mask: Stored) -> str:
    """The mask in words."""
    if isinstance(mask, Pattern):
        return repr(mask)
    rows, cols = mask.shape
    return f"a stored mask of {rows} x {cols}, {mask.nnz} pairs kept"
