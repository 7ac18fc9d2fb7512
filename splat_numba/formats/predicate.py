"""Masks from a function of indices, as users of FlexAttention write them: every pair is asked, a block at a time."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.formats import convert
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.pattern_checks import integer
from splat_numba.formats.patterns import Pattern
from splat_numba.formats.recognise import recognise
from splat_numba.memory import check_memory
from splat_numba.plain import kind, shown
from splat_numba.signatures import strict

__all__ = ["from_predicate"]

Predicate: TypeAlias = "Callable[[NDArray[np.int64], NDArray[np.int64]], Any]"

BLOCK_PAIRS = 1 << 20  # asked at a time: a few int64 arrays of the predicate's own, 8 MiB each, stay near the caches
ROW_BYTES = 32  # of a row without pairs: its pointer, and what lists and counts rows
MOST_PAIRS = 1 << 44  # at 1 ns a pair five hours

OF_TENSORS = "Of a function of PyTorch's tensors write lambda q, kv: f(torch.from_numpy(q), torch.from_numpy(kv))."


@strict()
def from_predicate(f: Predicate, seq_q: int, seq_kv: int) -> Pattern | ACSR:
    """The mask that keeps (i, j) where ``f(i, j)`` is True, in the most compact form that is proved to be the same.

    Parameters
    ----------
    f : function (q_idx, kv_idx) -> bool array
        Called with int64 arrays (rows, 1) and (1, cols) of indices from 0, as a FlexAttention mask_mod without batch
        and head (one that looks up in tensors, with torch.from_numpy of both); gives bool of a shape that broadcasts to
        (rows, cols). It is asked about every pair once, at most 2**20 at a time: time in proportion to seq_q * seq_kv,
        memory to the runs that are found. It must answer alike for equal indices.
    seq_q, seq_kv : int
        The lengths, in tokens.

    Returns
    -------
    Pattern or ACSR
        A Pattern if one of those that are tried keeps just these pairs at these lengths: windows, causal, strided and
        dilated masks, blocks, documents and what these have in common, with sinks, a prefix or global tokens. Otherwise
        an ACSR, which is as exact. At other lengths the Pattern goes on as its name says, whatever f would say there.

    Raises
    ------
    ArgumentTypeError
        Unless f is a function of two arguments that gives bool.
    ArgumentError
        For a result of another shape, from what f raises, too, and for a function of scalars (``and``, ``or``, ``if``).
    PatternError
        For lengths that are none.
    """
    _check_function(f)
    shape = integer("seq_q", seq_q, 0), integer("seq_kv", seq_kv, 0)
    if shape[0] * shape[1] > MOST_PAIRS:
        raise ArgumentError(
            f"seq_q and seq_kv wanted with at most 2**44 pairs, each of which f is asked about, got {shape[0]} x "
            f"{shape[1]}. Write the mask as a pattern, which costs nothing at any length."
        )
    check_memory(f"seq_q of {shape[0]}", ROW_BYTES * shape[0], "Use shorter sequences.", ArgumentError)
    runs = convert.from_blocks(shape, lambda rows, cols: _answers(f, rows, cols), BLOCK_PAIRS)
    pattern = recognise(runs)
    return ACSR(runs) if pattern is None else pattern


def _check_function(f: object) -> None:
    """Raise ArgumentTypeError unless ``f`` can be called with two arguments, as far as it says."""
    if not callable(f):
        raise ArgumentTypeError(
            f"f wanted as a function (q_idx, kv_idx) -> bool, got {shown(f)} of type {kind(f)}. Write, for example, "
            "lambda q, kv: q >= kv; an array goes to from_dense."
        )
    try:
        signature = inspect.signature(f)
    except (TypeError, ValueError):
        return  # NumPy's functions have none
    try:
        signature.bind(0, 0)
    except TypeError as error:
        raise ArgumentTypeError(
            f"f wanted as a function of two arguments, q_idx and kv_idx, got one with {signature}. Of FlexAttention's "
            "mask_mod write lambda q, kv: mask_mod(0, 0, q, kv), once for every batch entry and head that differs."
        ) from error


def _answers(f: Predicate, rows: range, cols: range) -> NDArray[np.bool_]:
    """What ``f`` says about the pairs, (rows, cols) bool. Fresh indices each time: f may write to them."""
    q_idx, kv_idx = (np.arange(part.start, part.stop, dtype=np.int64) for part in (rows, cols))
    try:
        answer = f(q_idx[:, None], kv_idx[None, :])
    except Exception as error:
        raise ArgumentError(f"f {_failure(error)}") from error
    found = convert.array("f's result", answer)
    if found.dtype != np.bool_:
        raise ArgumentTypeError(
            f"f wanted as a function that gives bool, True to attend, got {kind(answer)} of dtype {found.dtype}. "
            f"{OF_TENSORS if kind(answer) == 'Tensor' else 'Compare, as in q - kv < 512.'}"
        )
    try:
        return np.broadcast_to(found, (len(rows), len(cols)))
    except ValueError as error:
        raise ArgumentError(
            f"f wanted to give an array that broadcasts to {(len(rows), len(cols))}, for q_idx of shape "
            f"{(len(rows), 1)} and kv_idx of shape {(1, len(cols))}, got shape {found.shape}. Compute elementwise."
        ) from error


def _failure(error: Exception) -> str:
    """What went wrong within f, and what to do."""
    if any(words in str(error) for words in ("truth value", "Boolean value")):  # NumPy's words, and PyTorch's
        return (
            "wanted as a function of integer arrays, got one that asks whether a whole array is true. Write & for and, "
            "| for or, ~ for not, numpy.where(...) for if; or give numpy.vectorize(f), which is slow."
        )
    trial = "Try it on numpy.arange(8)[:, None] and numpy.arange(8)[None, :]."
    return (
        f"wanted as a function of integer arrays (rows, 1) and (1, cols), got {kind(error)} from it: "
        f"{str(error).partition(chr(10))[0]}. "
        f"{OF_TENSORS if 'Tensor' in str(error) else trial}"
    )
