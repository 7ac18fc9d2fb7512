"""Runs and what can be done with them, in one import; the parts are run_table, run_algebra and their helpers."""

from splat_numba.formats.run_algebra import equal, intersect, union
from splat_numba.formats.run_table import (
    Runs,
    check_runs_fit,
    columns,
    csr_order,
    from_columns,
    from_triples,
    rows_of,
    take_rows,
    to_csr,
)

__all__ = [
    "Runs",
    "check_runs_fit",
    "columns",
    "csr_order",
    "equal",
    "from_columns",
    "from_triples",
    "intersect",
    "rows_of",
    "take_rows",
    "to_csr",
    "union",
]
