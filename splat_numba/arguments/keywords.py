"""What to write instead of arguments that other attention functions have."""

from __future__ import annotations

from types import MappingProxyType

_MASK = "Give it as mask: a Pattern, an ACSR or a 2-D bool array (True: attend)."
_MODIFIED = "This version adds nothing to scale * q.k, so it cannot be given."
_NO_DROPOUT = "This version has no dropout: leave it out, as in evaluation."
_WINDOW = "Give a mask: splat_numba.from_flash_attention((left, right)), or splat_numba.from_sliding_window(n)."
_SINKS = (
    "Tokens that all attend to are a mask, `| splat_numba.sinks(n)`. For a learned sink ask for return_lse=True, and "
    "multiply out by sigmoid(lse - sink)."
)
_DOCUMENTS = "Give a mask: splat_numba.documents(np.diff(cu_seqlens)), with the sequences one after the other."
_CAUSAL = (
    "Give a mask: splat_numba.causal(), or splat_numba.causal().align_end() where the queries are the last tokens."
)
_SCALE = "Write scale."
_LSE = "Write return_lse=True."
_LENGTHS = "For lengths a batch entry give kv_lengths, integers (batch,); for the rest a mask."

ATTENTION = MappingProxyType({
    "is_causal": _CAUSAL, "causal": _CAUSAL,
    "attn_mask": _MASK, "attention_mask": _MASK, "block_mask": _MASK, "mask_mod": _MASK, "attn_bias": _MODIFIED,
    "bias": _MODIFIED, "score_mod": _MODIFIED, "softcap": _MODIFIED, "logits_soft_cap": _MODIFIED,
    "alibi_slopes": _MODIFIED, "rel_pos_bias": _MODIFIED, "score": _MODIFIED,
    "dropout": _NO_DROPOUT, "dropout_p": _NO_DROPOUT, "p": _NO_DROPOUT, "training": _NO_DROPOUT, "seed": _NO_DROPOUT,
    "enable_gqa": "Leave it out: heads of k and v may be fewer than q's, and must divide them.",
    "window_size": _WINDOW, "sliding_window": _WINDOW, "local_window_size": _WINDOW,
    "sinks": _SINKS, "s_aux": _SINKS, "attention_sinks": _SINKS,
    "cu_seqlens": _DOCUMENTS, "cu_seqlens_q": _DOCUMENTS, "cu_seqlens_k": _DOCUMENTS,
    "kernel_size": "Give a mask: splat_numba.neighborhood(shape, kernel, dilation).",
    "softmax_scale": _SCALE, "sm_scale": _SCALE, "scaling": _SCALE,
    "return_softmax_lse": _LSE, "return_attn_probs": _LSE, "need_weights": _LSE,
    "key_padding_mask": _LENGTHS, "seqused_k": _LENGTHS, "cache_seqlens": _LENGTHS, "actual_seq_lengths": _LENGTHS,
    "deterministic": "Leave it out: results are.",
})  # fmt: skip

_NO_MASK = "This attention has no mask: use splat_numba.attention(q, k, v, mask)."
_NO_SCORES = "There are neither scores nor biases that it could change, so it cannot be given."
FLURKA = MappingProxyType({
    **{
        name: _NO_MASK if hint in (_MASK, _WINDOW, _SINKS, _DOCUMENTS) else _NO_SCORES if hint == _MODIFIED else hint
        for name, hint in ATTENTION.items() if name != "causal"
    },
    "mask": _NO_MASK, "is_causal": "Write causal, which is refused with the reason, or use splat_numba.attention.",
    "enable_gqa": "Repeat the heads of k and v, for example with np.repeat(k, n, axis=-3).",
    "layout": "Arrays are (batch, heads, seq, dim): give q.swapaxes(1, 2), a view.",
    "return_lse": "There is none: a row's divisor is not kept.",
})  # fmt: skip
