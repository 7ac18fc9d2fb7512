"""attention as an operation of JAX: inside jit, grad, vmap, scan, checkpoint and shard_map.

`splat_numba.attention` is the same operation where JAX traces. docs/jax.md has what works and what does not.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from splat_numba.arguments.keywords import ATTENTION
from splat_numba.arguments.layouts import check_layout
from splat_numba.arguments.masks import Mask
from splat_numba.arguments.numbers import check_flag
from splat_numba.arguments.options import scale_number
from splat_numba.errors import ArgumentError
from splat_numba.executors.choice import choose_executor
from splat_numba.executors.given import Given
from splat_numba.signatures import strict

try:
    from splat_numba.executors.jax.calls import attend
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "jax":
        raise
    raise ImportError("splat_numba.integrations.jax needs JAX: python -m pip install jax") from error


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

    Parameters
    ----------
    q : array (batch, seq_q, heads_q, head_dim)
        Of JAX or NumPy, concrete or traced; float16, bfloat16, float32, or float64 where x64 is enabled.
    k : array (batch, seq_kv, heads_kv, head_dim)
        Of q's dtype.
    v : array (batch, seq_kv, heads_kv, value_dim)
        Likewise.
    mask : Pattern, ACSR, bool array (seq_q, seq_kv) of NumPy's, or a list of those, one a query head
        It is known while JAX traces.
    scale : float
        1/sqrt(head_dim) unless given.
    layout : "bshd" or "bhsd"
        With the latter heads stand before seq.
    return_lse : bool
        Whether lse is wanted as well.
    kv_lengths : integers (batch,)
        Traced ones too: those out of range are a JaxRuntimeError of a call on a CPU, and are not checked on a GPU.

    Returns
    -------
    out : array (batch, seq_q, heads_q, value_dim)
        Of q's dtype.
    lse : array (batch, heads_q, seq_q), with return_lse=True
        float32 (float64 for float64). Both are differentiable in q, k and v in reverse mode, once. A mapped axis of
        vmap becomes part of the batch.

    Raises
    ------
    ArgumentError, ArgumentTypeError, PatternError, FormatError, BackendError
        As splat_numba.attention does, while JAX traces; ArgumentError for forward-mode and for second derivatives.
    """
    check_layout(layout)
    if scale is not None:
        scale = scale_number(scale)
    recipe = Given(mask, choose_executor("cpu", None), layout, scale)
    return attend(recipe, q, k, v, kv_lengths, check_flag("return_lse", return_lse))


def attention_fn(mask: Mask, *, scale: float | None = None) -> Callable[..., Any]:
    """The ``attention_fn`` of Flax's MultiHeadDotProductAttention, of linen and of nnx, that keeps what ``mask`` keeps.

    Parameters
    ----------
    mask, scale
        As in attention().

    Returns
    -------
    function
        It takes query, key and value, (batch..., seq, heads, dim), and whatever else Flax passes; types are promoted as
        Flax does. precision has no effect: sums are float32 (float64 for float64).

    Raises
    ------
    ArgumentError
        From the function, naming the argument, for what it would have to leave out: a mask or bias of the call,
        is_causal, dropout that is not switched off, weights to be sown, positions, other products.
    """
    kept = mask  # Flax's argument has the same name

    def splat_attention(
        query: Any,
        key: Any,
        value: Any,
        bias: Any = None,
        mask: Any = None,
        *,
        broadcast_dropout: bool = True,  # noqa: ARG001 - dropout is refused
        dropout_rng: Any = None,  # noqa: ARG001 - as above
        dropout_rate: float = 0.0,
        deterministic: bool = True,
        dtype: Any = None,
        precision: Any = None,  # noqa: ARG001 - see above
        module: Any = None,
        force_fp32_for_softmax: bool = False,  # noqa: ARG001 - it always is
        is_causal: bool = False,
        input_positions: Any = None,
        qk_attn_weights_einsum: Any = None,
        attn_weights_value_einsum: Any = None,
    ) -> Any:
        """Flax's dot_product_attention with a mask of its own."""
        _refuse_others({
            "bias": bias, "mask": mask, "module": module, "is_causal": is_causal or None,
            "dropout_rate": None if deterministic or not dropout_rate else dropout_rate,
            "input_positions": input_positions, "qk_attn_weights_einsum": qk_attn_weights_einsum,
            "attn_weights_value_einsum": attn_weights_value_einsum,
        })  # fmt: skip
        return _attend_as_flax(kept, scale, query, key, value, dtype)

    return splat_attention


_ADVICE = {
    "bias": "This version adds nothing to the scores: leave it out.",
    "mask": "Call the layer without one, and give what it keeps to attention_fn(mask).",
    "module": "Weights are never stored, so none can be sown: leave sow_weights out.",
    "is_causal": "Write it into the mask: attention_fn(splat_numba.causal() & ...).",
    "dropout_rate": "This version has no dropout: make the layer with dropout_rate=0.0, or call it deterministic.",
    "input_positions": "Positions follow from the order of tokens: leave them out.",
    "qk_attn_weights_einsum": "Scores are made in the kernel: leave it out.",
    "attn_weights_value_einsum": "Results are made in the kernel: leave it out.",
}


def _refuse_others(given: dict[str, Any]) -> None:
    """Raise ArgumentError for the first argument that is not None."""
    for name, value in given.items():
        if value is not None:
            raise ArgumentError(
                f"{name} wanted left out of attention_fn's function, got {type(value).__name__}. {_ADVICE[name]}"
            )


def _attend_as_flax(mask: Mask, scale: float | None, query: Any, key: Any, value: Any, dtype: Any) -> Any:
    """attention() with any number of batch axes, and types promoted."""
    import jax.numpy as jnp

    kind = dtype or jnp.result_type(query, key, value)
    arrays = [jnp.asarray(one, kind) for one in (query, key, value)]
    leading = arrays[0].shape[:-3]
    if len(leading) > 1:
        arrays = [one.reshape(prod(one.shape[:-3]), *one.shape[-3:]) for one in arrays]
    q, k, v = arrays
    out = attention(q, k, v, mask, scale=scale)
    return out.reshape(*leading, *out.shape[-3:]) if len(leading) > 1 else out
