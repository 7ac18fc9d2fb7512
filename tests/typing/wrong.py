"""What a type checker refuses: every line that says so, and no other."""

import numpy as np
from numpy.typing import NDArray

import splat_numba as splat


def calls(q: NDArray[np.float32]) -> None:
    """Calls with a word that no argument takes."""
    mask = splat.window(4)
    splat.attention(q, q, q, mask, layout="bhds")  # refused
    splat.attention(q, q, q, mask, backend="gpu")  # refused
    splat.attention(q, q, q, mask, target="sm_75")  # refused
    splat.attention(q, q, q, mask, causal=True)  # refused
    splat.attention(q, q, q, "causal()")  # refused
    splat.attention_vjp(q, q, q, mask, layout="sbhd")  # refused
    splat.attention_backward(q, q, q, q, q, q, mask, backend="gpu")  # refused
    splat.plan(mask, seq_q=4, seq_kv=4, head_dim=4, dtype="float8")  # refused
    splat.compile(mask, seq_q=4, seq_kv=4, head_dim=4, dtype="float32", backend="gpu")  # refused
    splat.window(2.5)  # refused
    splat.attention(q, q, q, mask, return_lse=True).shape  # refused  # noqa: B018
    splat.from_predicate(lambda i: i > 3, 4, 4)  # refused
    splat.nothing  # refused  # noqa: B018
