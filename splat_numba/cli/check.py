"""A result against the float64 oracle, on a subset of the query rows: never anything of the size seq_q * seq_kv."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba import reference
from splat_numba.formats.acsr import ACSR
from splat_numba.testing.error_bound import assert_close, tolerance
from splat_numba.testing.problem import Operands

ROWS = 32


@dataclass(frozen=True, slots=True)
class Checked:
    """error: the largest error of out; used: the largest error / allowed of out and lse; failure: where a value is
    farther from the oracle than the tolerance rule allows, None if none is.
    """

    error: float
    used: float
    failure: str | None


def sample_rows(seq_q: int, rows: int = ROWS, seed: int = 0) -> NDArray[np.int64]:
    """Query rows to check, ascending: both ends, the middle, and random ones."""
    ends = np.array([0, 1, seq_q // 2, seq_q - 2, seq_q - 1])
    drawn = np.random.default_rng(seed).permutation(seq_q)[: max(rows - ends.size, 0)]
    return np.unique(np.clip(np.concatenate([ends, drawn]), 0, seq_q - 1)).astype(np.int64)


def dense_rows(mask: ACSR, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Some rows of a mask, (rows, seq_kv) bool."""
    dense = np.zeros((rows.size, mask.shape[1]), np.bool_)
    for place, row in enumerate(rows.tolist()):
        dense[place, mask.row_columns(row)] = True
    return dense


def check_rows(operands: Operands, mask: ACSR, out: NDArray[Any], lse: NDArray[Any]) -> Checked:
    """Compare sampled rows of out (1, heads, seq_q, value_dim) and lse (1, heads, seq_q) with the oracle, by heads."""
    rows = sample_rows(operands.q.shape[2])
    dense = dense_rows(mask, rows)
    error, used, failure = 0.0, 0.0, None
    for head in range(operands.q.shape[1]):
        q, k, v = operands.q[0, head, rows], operands.k[0, head], operands.v[0, head]
        wanted, wanted_lse = reference.attention(q, k, v, dense, return_lse=True)
        allowed, allowed_lse = tolerance(q, k, v, dense)
        got, got_lse = out[0, head, rows], lse[0, head, rows]
        with np.errstate(invalid="ignore"):
            error = max(error, float(np.abs(np.asarray(got, np.float64) - wanted).max(initial=0.0)))
        for place, row in enumerate(rows.tolist()):
            try:
                here = slice(place, place + 1)
                share = (
                    assert_close(got[place], wanted[place], allowed[place], name=f"out[0, {head}, {row}]"),
                    assert_close(got_lse[here], wanted_lse[here], allowed_lse[here], name=f"lse[0, {head}, {row}]"),
                )
                used = max(used, *share)
            except AssertionError as difference:
                used = np.inf
                failure = failure or str(difference)
    return Checked(error, used, failure)
