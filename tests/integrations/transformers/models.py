"""Small models with random weights, and how far rounding may move what they give."""

import copy
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from splat_numba.testing import tolerance

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
ours = pytest.importorskip("splat_numba.integrations.transformers")
masks = pytest.importorskip("splat_numba.integrations.transformers_masks")
checks = pytest.importorskip("splat_numba.integrations.transformers_checks")

SEQ, VOCABULARY = 24, 97
SMALL = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 128,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None,
}  # fmt: skip
GROUPED = {**SMALL, "num_key_value_heads": 2}
SIDES = {"head_dim": 8, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}


@dataclass(frozen=True, slots=True)
class Case:
    """A model: its configuration, what it is compared with, and whether it predicts the next token."""

    config: Any
    against: str = "sdpa"
    causal: bool = True


CASES = {
    "llama": Case(lambda: transformers.LlamaConfig(**GROUPED)),
    "mistral": Case(lambda: transformers.MistralConfig(**GROUPED, sliding_window=8)),
    "gemma2": Case(lambda: transformers.Gemma2Config(**GROUPED, **SIDES, attn_logit_softcapping=None), "eager"),
    "gemma3": Case(lambda: transformers.Gemma3TextConfig(**GROUPED, **SIDES)),
    "gpt_neox": Case(lambda: transformers.GPTNeoXConfig(**SMALL)),
    # Its sinks are more than sdpa has.
    "gpt_oss": Case(
        lambda: transformers.GptOssConfig(**GROUPED, **SIDES, num_local_experts=4, num_experts_per_tok=2), "eager"
    ),
    "llama4": Case(
        lambda: transformers.Llama4TextConfig(
            **GROUPED, head_dim=8, attention_chunk_size=8, num_local_experts=2, intermediate_size_mlp=48,
            layer_types=["chunked_attention", "full_attention"],
        )
    ),
    "modernbert": Case(
        lambda: transformers.ModernBertConfig(**SMALL, local_attention=8, global_attn_every_n_layers=2), causal=False
    ),
}  # fmt: skip


def model_of(case, attention):
    kind = transformers.AutoModelForCausalLM if case.causal else transformers.AutoModelForMaskedLM
    torch.manual_seed(0)
    return kind.from_config(copy.deepcopy(case.config()), attn_implementation=attention).eval()


def pair(case):
    """The model as transformers runs it, and by splat, with the same weights."""
    ours.register()
    theirs, here = model_of(case, case.against), model_of(case, "splat")
    here.load_state_dict(theirs.state_dict())
    return theirs, here


def tokens(batch=3, seq=SEQ):
    return torch.randint(2, VOCABULARY, (batch, seq), generator=torch.Generator().manual_seed(1))


def padding(*ranges, seq=SEQ):
    """Ones from start to stop for each pair."""
    mask = torch.zeros(len(ranges), seq, dtype=torch.int64)
    for row, (start, stop) in zip(mask, ranges, strict=True):
        row[start:stop] = 1
    return mask


def results(model, ids, attention_mask=None, **options):
    """Logits of tokens, and the gradient of their squares by every parameter."""
    logits = model(ids, attention_mask=attention_mask, use_cache=False, **options).logits
    if attention_mask is not None:
        logits = logits[attention_mask.bool()]
    parameters = [one for one in model.parameters() if one.requires_grad]
    gradients = torch.autograd.grad(logits.square().sum(), parameters, allow_unused=True)
    return [logits.detach(), *(one for one in gradients if one is not None)]


@contextmanager
def shaken(name, generator):
    """While it lasts, every attention of an implementation errs by as much as ``tolerance`` allows, up or down."""
    interface = transformers.AttentionInterface()
    plain = eager_of if name == "eager" else interface[name]

    def erring(module, query, key, value, attention_mask, **options):
        out, weights = plain(module, query, key, value, attention_mask, **options)
        kept = kept_by(attention_mask, module, query, key)
        bounds = [
            tolerance(q, k, v, mask, scale=options.get("scaling"))[0]
            for q, k, v, mask in zip(*(one.detach().numpy() for one in (query, key, value)), kept, strict=True)
        ]
        allowed = torch.from_numpy(np.swapaxes(np.stack(bounds), 1, 2)).to(out.dtype)
        signs = torch.randint(0, 2, out.shape, generator=generator) * 2 - 1
        return out + allowed * signs, weights

    transformers.AttentionInterface.register("shaken", erring)
    transformers.AttentionMaskInterface.register("shaken", transformers.AttentionMaskInterface()[name])
    try:
        yield "shaken"
    finally:
        transformers.AttentionInterface._global_mapping.pop("shaken")
        transformers.AttentionMaskInterface._global_mapping.pop("shaken")


def kept_by(mask, module, query, key):
    """Which pairs a mask of transformers keeps, (batch, seq_q, seq_kv); None is causal's or that of all pairs."""
    shape = len(query), query.shape[2], key.shape[2]
    if mask is None:
        kept = torch.ones(shape, dtype=torch.bool)
        return (kept.tril() if module.is_causal else kept).numpy()
    kept = mask if mask.dtype == torch.bool else mask == 0
    return kept[:, 0].expand(shape).numpy()


def eager_of(module, *given, **options):
    """What a model's own module calls where the implementation is eager."""
    return sys.modules[type(module).__module__].eager_attention_forward(module, *given, **options)


def allowed(model, against, found, *given, **options):
    """The largest error allowed in each result: four times what errors of attention by its own rule make of them.

    Four, since two draws of signs stand for all, and backward passes err as well as forward ones.
    """
    most = [0.0] * len(found)
    generator = torch.Generator().manual_seed(2)
    with shaken(against, generator) as name:
        model.set_attn_implementation(name)
        for _ in range(2):
            moved = results(model, *given, **options)
            most = [max(one, (a - b).abs().max().item()) for one, a, b in zip(most, moved, found, strict=True)]
    model.set_attn_implementation(against)
    return [4 * one for one in most]
