"""What splat_numba is tested with, for users who test too: problems, strategies, and the one tolerance rule.

`patterns`, `masks`, `problems` and `lengths` are Hypothesis strategies and need Hypothesis (`pip install hypothesis`,
or the extra `test`); nothing else here does, so they are imported at first use.
"""

from typing import TYPE_CHECKING, Any

from splat_numba.testing.check import Agreement, check_attention
from splat_numba.testing.check_gradients import check_gradients
from splat_numba.testing.error_bound import DTYPES, assert_close, numpy_dtype, tolerance
from splat_numba.testing.gradient_bound import gradient_tolerance
from splat_numba.testing.problem import Operands, Problem

if TYPE_CHECKING:
    from splat_numba.testing.pattern_strategies import lengths, patterns
    from splat_numba.testing.strategies import masks, problems

__all__ = [
    "DTYPES",
    "Agreement",
    "Operands",
    "Problem",
    "assert_close",
    "check_attention",
    "check_gradients",
    "gradient_tolerance",
    "lengths",
    "masks",
    "numpy_dtype",
    "patterns",
    "problems",
    "tolerance",
]


def __getattr__(name: str) -> Any:
    if name not in {"lengths", "masks", "patterns", "problems"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from splat_numba.testing import strategies  # has the other two as well
    except ModuleNotFoundError as error:
        if error.name != "hypothesis":
            raise
        raise ImportError(f"splat_numba.testing.{name} needs Hypothesis: python -m pip install hypothesis") from error
    return getattr(strategies, name)
