"""Test any attention function with the project's strategies, oracle and tolerance rule.

python -m pip install hypothesis
python examples/fuzz_your_own.py
"""

from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from numpy.typing import NDArray

import splat_numba as splat
from splat_numba.testing import Problem, check_attention, problems


def my_attention(q: NDArray[Any], k: NDArray[Any], v: NDArray[Any], mask: Any, **options: Any) -> Any:
    """Stand-in for your own: dense, in float64, rounded at the end."""
    masks = mask if isinstance(mask, list) else [mask]
    seq_axis = -3 if options.get("layout") == "bshd" and q.ndim > 2 else -2
    shape = q.shape[seq_axis], k.shape[seq_axis]
    dense = [splat.ACSR.from_pattern(m, *shape) if isinstance(m, splat.Pattern) else m for m in masks]
    out, lse = splat.reference.attention(q, k, v, dense if isinstance(mask, list) else dense[0], **options)
    return out.astype(q.dtype), lse.astype(np.float64 if q.dtype == np.float64 else np.float32)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(problems())
def test_mine(problem: Problem) -> None:
    """Any drawn problem agrees with the oracle."""
    check_attention(problem, attention=my_attention)


if __name__ == "__main__":
    test_mine()
    print("100 problems agree with the oracle")
