"""Patterns from the mask parameters of other libraries."""

from __future__ import annotations

from typing import SupportsIndex

from splat_numba.errors import PatternTypeError
from splat_numba.formats import patterns
from splat_numba.formats.pattern_checks import MAX_SIZE, integer
from splat_numba.formats.patterns import Pattern
from splat_numba.plain import kind, shown
from splat_numba.signatures import strict

__all__ = ["from_flash_attention", "from_sliding_window"]


@strict(error=PatternTypeError)
def from_flash_attention(window_size: tuple[SupportsIndex, SupportsIndex], causal: bool = False) -> Pattern:
    """The mask of FlashAttention's `window_size` and `causal`, aligned at the end as it is there.

    Parameters
    ----------
    window_size : (left, right)
        In tokens, -1 for unlimited.
    causal : bool
        Replaces right by 0.

    Returns
    -------
    Pattern
        For every length.

    Raises
    ------
    PatternError, PatternTypeError
        For anything else.
    """
    if not isinstance(window_size, (tuple, list)) or len(window_size) != 2:
        raise PatternTypeError(
            f"window_size: wanted a pair (left, right), -1 for unlimited, got {shown(window_size)}. "
            "Write (n, 0) for a causal window over n past tokens."
        )
    _check_flag(causal)
    left, right = (integer(f"window_size[{at}]", side, -1) for at, side in enumerate(window_size))
    return sides(left, 0 if causal else right).align_end()


def sides(left: int, right: int) -> Pattern:
    """i - left <= j <= i + right, -1 for a side without a limit."""
    if left < 0 and right < 0:
        return patterns.full()
    if left < 0:
        return patterns.causal() if right == 0 else patterns.causal() | patterns.window(0, right)
    # no constructor says "everything to the right"; the largest size allowed is beyond every sequence
    return patterns.window(left, MAX_SIZE if right < 0 else right)


@strict(error=PatternTypeError)
def from_sliding_window(n: SupportsIndex, causal: bool = True) -> Pattern:
    """The mask of Hugging Face's `sliding_window=n`: i - n < j <= i; not causal: |i - j| < n.

    It counts positions from the first token, as there in training. In decoding, where the queries are the last of the
    keys' tokens, write `from_sliding_window(n).align_end()`.

    Parameters
    ----------
    n : int
        Tokens of a row's window, its own included; at least 1.
    causal : bool
        Whether later tokens are left out.

    Returns
    -------
    Pattern
        For every length.

    Raises
    ------
    PatternError, PatternTypeError
        For anything else.
    """
    _check_flag(causal)
    reach = integer("n", n, 1) - 1
    return patterns.window(reach, 0) if causal else patterns.window(reach)


def _check_flag(causal: object) -> None:
    if not isinstance(causal, bool):
        raise PatternTypeError(
            f"causal: wanted True or False, got {shown(causal)} of type {kind(causal)}. Pass a bool."
        )
