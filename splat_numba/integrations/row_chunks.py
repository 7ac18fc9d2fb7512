"""Stored masks from something that answers for rows of a mask, a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats.acsr import ACSR


def stored_by_rows(seq_q: int, seq_kv: int, size: int, kept: Callable[[int], NDArray[np.bool_]]) -> ACSR:
    """The mask of which ``kept(start)`` gives rows start to start + size, (rows, seq_kv) with fewer rows at the end.

    Holds size * seq_kv answers at a time, beside the kept pairs. Raises FormatError as ACSR.from_csr does.
    """
    rows, columns = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for start in range(0, seq_q, size):
        row, column = np.nonzero(kept(start))
        rows.append(row + start)
        columns.append(column)
    counts = np.bincount(np.concatenate(rows), minlength=seq_q)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return ACSR.from_csr(indptr, np.concatenate(columns), (seq_q, seq_kv))
