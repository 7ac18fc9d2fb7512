"""What users write and a type checker takes, with the types of what comes back."""

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import splat_numba as splat

Floats = NDArray[np.float32]


def forward(q: Floats, k: Floats, v: Floats, *, with_lse: bool) -> None:
    """Attention, its options and its results."""
    mask = splat.window(128, 0) | splat.sinks(4)
    assert_type(mask, splat.Pattern)
    assert_type(splat.attention(q, k, v, mask), Floats)
    assert_type(splat.attention(q, k, v, mask, layout="bshd", backend="cpu", target=None, scale=0.5), Floats)
    assert_type(splat.attention(q, k, v, mask, return_lse=True), tuple[Floats, Any])
    assert_type(splat.attention(q, k, v, [mask, np.ones((4, 4), bool)], return_lse=with_lse), Any)
    assert_type(splat.attention_vjp(q, k, v, mask), tuple[Floats, Any])
    assert_type(splat.attention_vjp(q, k, v, mask, return_lse=True, frozen=("k",)), tuple[Floats, Any, Any])


def compiled(q: Floats, k: Floats, v: Floats) -> None:
    """Plans and kernels."""
    plan = splat.plan(
        splat.causal(), seq_q=64, seq_kv=64, head_dim=16, dtype="bfloat16", backend="cuda", target="sm_90a"
    )
    assert_type(plan.explain(), str)
    kernel = splat.compile(splat.causal(), seq_q=64, seq_kv=64, head_dim=16, dtype=q.dtype)
    splat.plan(splat.causal(), seq_q=64, seq_kv=64, head_dim=16, dtype=np.float32)
    assert_type(kernel(q, k, v), Floats)
    assert_type(kernel(q, k, v, return_lse=True), tuple[Floats, Any])


def masks() -> None:
    """Masks of every kind."""
    assert_type(splat.from_predicate(lambda i, j: i - j < 4, 64, 64), splat.Pattern | splat.ACSR)
    acsr = splat.ACSR.from_pattern(splat.parse("window(4)"), 64, 64) & splat.causal()
    assert_type(acsr, splat.ACSR)
    assert_type(splat.geometry(acsr).to_dense(), NDArray[np.bool_])
    splat.draw(acsr)
