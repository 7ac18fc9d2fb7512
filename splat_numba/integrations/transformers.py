"""splat_numba in Hugging Face's transformers: register(), then attn_implementation="splat". It imports transformers.

docs/transformers.md has what works and what is refused.
"""

from __future__ import annotations

from typing import Any

try:
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface
except ModuleNotFoundError as error:
    if error.name not in {"torch", "transformers"}:
        raise
    needed = "splat_numba.integrations.transformers needs transformers and PyTorch"
    raise ImportError(f"{needed}: python -m pip install transformers torch") from error

from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.formats import patterns
from splat_numba.integrations.transformers_masks import parts_of_tensor, splat_mask
from splat_numba.integrations.transformers_parts import Part, SplatMask, attend_parts
from splat_numba.plain import kind, shown

# What models hand on to every attention and what says nothing about which keys are kept or how they are weighed.
_HARMLESS = {
    "position_ids", "cache_position", "use_cache", "sliding_window", "num_items_in_batch", "output_hidden_states",
    "output_router_logits", "return_dict", "deterministic", "logits_to_keep", "token_type_ids",
}  # fmt: skip
_ADVICE = {
    "softcap": "This version has no soft cap: set the config's attn_logit_softcapping to None, or load another "
    "attn_implementation.",
    "position_bias": "This version adds nothing to the scores: load the model with attn_implementation='sdpa'.",
    "output_attentions": "Weights are never stored: leave it out, or load the model with attn_implementation='eager'.",
    "cu_seq_lens_q": "Give position_ids that begin anew at each document instead.",
}


def register(name: str = "splat") -> None:
    """Make ``name`` an attn_implementation of transformers: attention by splat_numba, masks recognised or evaluated.

    The same name is registered in AttentionInterface and in AttentionMaskInterface; again is fine. Afterwards
    ``AutoModel.from_pretrained(..., attn_implementation=name)``, ``from_config`` and ``model.set_attn_implementation``
    take it.

    Parameters
    ----------
    name : str
        What models are to be asked for.

    Raises
    ------
    ArgumentTypeError
        For a name that is no text.
    ArgumentError
        For one that is empty or is another's.
    """
    if not isinstance(name, str):
        raise ArgumentTypeError(f"name wanted as text, got {shown(name)} of type {kind(name)}. Write 'splat'.")
    taken = AttentionInterface()
    if not name or (name == "eager") or (name in taken and taken[name] is not splat_attention):
        raise ArgumentError(f"name wanted as a new one, got {name!r}, which means another attention. Write 'splat'.")
    AttentionInterface.register(name, splat_attention)
    AttentionMaskInterface.register(name, splat_mask)


def splat_attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    s_aux: Any = None,
    **others: Any,
) -> tuple[Any, None]:
    """Attention as modules of transformers call it: (out, None), out (batch, seq_q, heads, value_dim).

    query: (batch, heads, seq_q, head_dim); key, value: (batch, heads_kv, seq_kv, dim). attention_mask: what the mask
    interface of the same name made, or a bool tensor (batch, 1 or heads, seq_q, seq_kv). s_aux: sinks, (heads,).
    Raises ArgumentError, naming the argument, for what it would have to leave out, and what attention() raises.
    """
    if dropout:
        raise ArgumentError(
            f"dropout wanted as 0.0, got {dropout}. This version has none: set the config's attention_dropout to 0.0, "
            "or call model.eval()."
        )
    for name, given in others.items():
        if name not in _HARMLESS and given is not None and given is not False:
            advice = _ADVICE.get(
                name, "Its meaning is not known here: load the model with another attn_implementation."
            )
            raise ArgumentError(f"{name} wanted left out of attention, got {kind(given)}. {advice}")
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    window = others.get("sliding_window")
    parts = _parts(attention_mask, query, key, causal=bool(causal), window=window)
    return attend_parts(parts, query, key, value, scaling, s_aux), None


splat_attention._torchdynamo_disable = True  # type: ignore[attr-defined]  # noqa: SLF001 - as runtime.graphs marks its own


def _parts(mask: Any, query: Any, key: Any, *, causal: bool, window: int | None) -> tuple[Part, ...]:
    batch, seq_q, seq_kv = query.shape[0], query.shape[2], key.shape[2]
    if mask is None:
        return _without_mask(batch, seq_q, seq_kv, causal=causal, window=window)
    if not isinstance(mask, torch.Tensor) or (mask.dtype != torch.bool or mask.ndim != 4):
        raise ArgumentTypeError(
            f"attention_mask wanted as made by the model, or as a bool tensor (batch, 1, seq_q, seq_kv), got "
            f"{kind(mask)}{_shown(mask)}. Numbers that are added to scores have no counterpart: give a bool mask."
        )
    if (mask.shape[0], mask.shape[2], mask.shape[3]) != (batch, seq_q, seq_kv):
        raise ArgumentError(
            f"attention_mask wanted as {(batch, 1, seq_q, seq_kv)} like queries and keys, got {tuple(mask.shape)}. "
            "Give the mask of these lengths."
        )
    return mask.parts if isinstance(mask, SplatMask) else parts_of_tensor(mask)


def _shown(mask: Any) -> str:
    return f" of {mask.dtype}, {tuple(mask.shape)}" if isinstance(mask, torch.Tensor) else ""


def _without_mask(batch: int, seq_q: int, seq_kv: int, *, causal: bool, window: int | None) -> tuple[Part, ...]:
    """For modules that are called without a mask: all keys, or those up to each query."""
    if causal and (window is not None or seq_q != seq_kv):
        raise ArgumentError(
            f"attention_mask wanted for causal attention of {seq_q} queries to {seq_kv} keys, got None. This model "
            "makes its masks by itself: load it with another attn_implementation."
        )
    pattern = patterns.causal().align_end() if causal else patterns.full()
    return (Part((0, batch), (0, seq_q), (0, seq_kv), pattern),)


__all__ = ["register"]
