"""attention as an operation of JAX: inside jit, grad, vmap, scan, checkpoint and shard_map, on the CPU.

`splat_numba.attention` is the same operation where JAX traces. docs/jax.md has what works and what does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from splat_numba.api import choose_executor
from splat_numba.arguments.keywords import ATTENTION
from splat_numba.arguments.layouts import check_layout
from splat_numba.arguments.masks import Mask
from splat_numba.arguments.numbers import check_flag
from splat_numba.arguments.options import scale_number
from splat_numba.executors.jax_calls import attend
from splat_numba.kernel import Given
from splat_numba.signatures import strict


@strict(ATTENTION)
def attention(
    q: Any,
    k: Any,
    v: Any,
    mask: Mask,
    *,
    scale: float | None = None,
    layout: str = "bshd",
    return_lse: bool = False,
    kv_lengths: Any = None,
) -> Any:
    """splat_numba.attention for JAX, with the axes of jax.nn.dot_product_attention: layout "bshd" unless given.

    q: (batch, seq_q, heads_q, head_dim); k: (batch, seq_kv, heads_kv, head_dim); v: (batch, seq_kv, heads_kv,
    value_dim); arrays of JAX or NumPy, concrete or traced, of one dtype: float16, bfloat16, float32, or float64 where
    x64 is enabled. With layout "bhsd" heads stand before seq. mask: a Pattern, an ACSR, a (seq_q, seq_kv) bool array of
    NumPy's, or a list of those, one a query head; it is known while JAX traces. scale: 1/sqrt(head_dim) unless given.
    kv_lengths: integers (batch,), traced ones too: those out of range are a JaxRuntimeError of the call.

    Returns out, of q's dtype, (batch, seq_q, heads_q, value_dim), or (out, lse): lse float32 (float64 for float64),
    (batch, heads_q, seq_q). Both are differentiable in q, k and v in reverse mode, once. A mapped axis of vmap becomes
    part of the batch.

    Raises ArgumentError (ArgumentTypeError for types), PatternError, FormatError, BackendError as splat_numba.attention
    does, while JAX traces; ArgumentError for forward-mode and for second derivatives.
    """
    check_layout(layout)
    if scale is not None:
        scale = scale_number(scale)
    recipe = Given(mask, choose_executor("cpu", None), layout, scale)
    return attend(recipe, q, k, v, kv_lengths, check_flag("return_lse", return_lse))
