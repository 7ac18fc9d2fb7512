"""What splat cannot honour is refused by name, and a mask is never lost."""

import re

import pytest

from splat_numba.errors import ArgumentError, ArgumentTypeError
from tests.integrations.transformers.models import (
    GROUPED,
    SIDES,
    Case,
    masks,
    model_of,
    ours,
    tokens,
    torch,
    transformers,
)

theirs = pytest.importorskip("transformers.masking_utils")


def attend(mask=None, **options):
    q, k = torch.ones(1, 2, 4, 8), torch.ones(1, 2, 4, 8)
    module = torch.nn.Module()
    module.is_causal = True
    return ours.splat_attention(module, q, k, k, mask, **options)


def made():
    return masks.splat_mask(batch_size=1, q_length=4, kv_length=4, mask_function=theirs.causal_mask_function)


def test_a_soft_cap_is_refused_by_name():
    ours.register()
    config = transformers.Gemma2Config(**GROUPED, **SIDES)
    model = model_of(Case(lambda: config), "splat")
    message = (
        "softcap wanted left out of attention, got float. This version has no soft cap: set the config's "
        "attn_logit_softcapping to None, or load another attn_implementation."
    )
    with pytest.raises(ArgumentError, match=rf"^{re.escape(message)}$"):
        model(tokens())


@pytest.mark.parametrize(
    ("options", "begins"),
    [
        ({"dropout": 0.1}, "dropout wanted as 0.0, got 0.1."),
        ({"output_attentions": True}, "output_attentions wanted left out of attention, got bool."),
        ({"position_bias": torch.ones(1)}, "position_bias wanted left out of attention, got Tensor."),
        ({"cu_seq_lens_q": torch.ones(1)}, "cu_seq_lens_q wanted left out of attention, got Tensor."),
        ({"indices": 3}, "indices wanted left out of attention, got int. Its meaning is not known here"),
    ],
)
def test_what_would_be_left_out(options, begins):
    with pytest.raises(ArgumentError, match=rf"^{re.escape(begins)}"):
        attend(made(), **options)


def test_masks_that_are_none_of_ours():
    with pytest.raises(ArgumentTypeError, match=r"^attention_mask wanted as made .* of torch.float32, \(1, 1, 4, 4\)"):
        attend(torch.zeros(1, 1, 4, 4))
    with pytest.raises(ArgumentTypeError, match=r"^attention_mask wanted as made by the model"):
        attend("causal")
    with pytest.raises(ArgumentError, match=r"^attention_mask wanted as \(1, 1, 4, 4\) like .* got \(1, 1, 4, 5\)"):
        attend(torch.ones(1, 1, 4, 5, dtype=torch.bool))
    with pytest.raises(
        ArgumentError, match=r"^attention_mask wanted for causal attention of 4 queries to 4 keys, got None"
    ):
        attend(None, sliding_window=3)


def test_without_a_mask_a_causal_module_is_causal():
    out, weights = attend(None)
    wanted, _ = attend(made())
    assert weights is None
    assert torch.equal(out, wanted)
    everywhere, _ = attend(None, is_causal=False)
    assert everywhere.shape == wanted.shape


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda mask: mask[:, :, :, :2], "__getitem__"),
        (lambda mask: mask + 1, "add"),
        (lambda mask: mask.to(torch.float32), "to"),
        (lambda mask: mask.any(), "any"),
        (lambda mask: torch.where(mask, 0.0, 1.0), "where"),
        (lambda mask: mask.data, "data"),
    ],
)
def test_a_mask_that_a_model_changes_is_refused(change, name):
    with pytest.raises(ArgumentError, match=rf"^attention_mask wanted handed to attention as it was made, got '{name}"):
        change(made())


def test_a_mask_may_be_asked_for_its_shape_and_handed_on():
    mask = made()
    assert (mask.ndim, mask.dim(), tuple(mask.shape), mask.size(-1)) == (4, 4, (1, 1, 4, 4), 4)
    assert mask.to("cpu") is mask.detach() is mask.contiguous() is mask
    assert repr(mask) == "SplatMask((1, 1, 4, 4), causal().align_end())"


def test_names():
    ours.register()
    ours.register()
    assert "splat" in transformers.AttentionInterface()
    assert "splat" in transformers.AttentionMaskInterface()
    with pytest.raises(ArgumentError, match=r"^name wanted as a new one, got 'sdpa', which means another attention"):
        ours.register("sdpa")
    with pytest.raises(ArgumentError, match=r"^name wanted as a new one, got ''"):
        ours.register("")
    with pytest.raises(ArgumentTypeError, match=r"^name wanted as text, got 3 of type int. Write 'splat'.$"):
        ours.register(3)
