"""Whole models: logits, gradients and generated tokens are those of transformers' own attention."""

import pytest

from tests.integrations.transformers.models import (
    CASES,
    SEQ,
    Case,
    allowed,
    masks,
    model_of,
    ours,
    padding,
    pair,
    results,
    tokens,
    torch,
    transformers,
)  # fmt: skip

RIGHT = padding((0, SEQ), (0, SEQ - 7), (0, 5))
LEFT = padding((0, SEQ), (7, SEQ), (3, SEQ))
BOTH = padding((2, SEQ), (2, SEQ - 7), (0, SEQ))
PACKED = torch.tensor([[*range(9), *range(15)], [*range(20), *range(4)], [*range(24)]])


def errors(theirs, case, here, *given, **options):
    """The largest error of every result, over what is allowed."""
    wanted, found = results(theirs, *given, **options), results(here, *given, **options)
    bounds = allowed(theirs, case.against, wanted, *given, **options)
    return [
        (a - b).abs().max().item() / bound if bound else (a - b).abs().max().item()
        for a, b, bound in zip(found, wanted, bounds, strict=True)
    ]


@pytest.fixture
def recognised(monkeypatch):
    """No mask is evaluated as a whole."""

    def refuse(*_):
        raise AssertionError("a mask was not recognised")

    monkeypatch.setattr(masks, "_evaluated", refuse)


@pytest.mark.usefixtures("recognised")
@pytest.mark.parametrize("name", CASES)
def test_logits_and_gradients(name):
    case = CASES[name]
    theirs, here = pair(case)
    for mask in (None, RIGHT, LEFT, BOTH):
        assert max(errors(theirs, case, here, tokens(), mask)) <= 1
    if case.causal and name != "llama4":
        assert max(errors(theirs, case, here, tokens(), position_ids=PACKED)) <= 1


def test_the_bounds_notice_a_window_that_is_one_too_wide():
    case = CASES["mistral"]
    theirs, here = pair(case)
    here.config.sliding_window += 1
    assert max(errors(theirs, case, here, tokens())) > 100


def test_padding_with_holes_and_chunks_of_documents_are_evaluated():
    mask = RIGHT.clone()
    mask[0, 9] = 0
    for name, options in (("mistral", {"attention_mask": mask}), ("llama4", {"position_ids": PACKED})):
        theirs, here = pair(CASES[name])
        assert max(errors(theirs, CASES[name], here, tokens(), **options)) <= 1


def test_a_mask_of_the_user_s_own():
    theirs, here = pair(CASES["llama"])
    mask = (torch.rand(3, 1, SEQ, SEQ, generator=torch.Generator().manual_seed(3)) < 0.3) | torch.eye(SEQ).bool()
    wanted, found = (model(tokens(), attention_mask=mask).logits for model in (theirs, here))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints(reentrant):
    _, here = pair(CASES["mistral"])
    wanted = results(here, tokens(), LEFT)
    here.gradient_checkpointing_enable({"use_reentrant": reentrant})
    here.train()
    if reentrant:
        here.enable_input_require_grads()
    found = here(tokens(), attention_mask=LEFT, use_cache=False).logits[LEFT.bool()]
    found.square().sum().backward()
    parameters = [one.grad for one in here.parameters() if one.grad is not None]
    for a, b in zip([found, *parameters], wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_compiled_models_leave_their_graphs_for_masks_and_attention():
    _, here = pair(CASES["mistral"])
    ids, mask = tokens(), LEFT
    with torch.no_grad():
        wanted = here(ids, attention_mask=mask, use_cache=False).logits
        found = torch.compile(here, backend="eager")(ids, attention_mask=mask, use_cache=False).logits
        assert torch.equal(found, wanted)
    torch.compiler.reset()


def generated(model, cache, mask, new=20):
    torch.manual_seed(0)
    return model.generate(
        tokens(len(mask)), attention_mask=mask, max_new_tokens=new, do_sample=False, cache_implementation=cache,
        return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip


@pytest.mark.usefixtures("recognised")
@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].causal])
def test_generate(name, cache):
    """Past the window and past the chunk; the entries' padding differs."""
    theirs, here = pair(CASES[name])
    wanted, found = (generated(model, cache, LEFT) for model in (theirs, here))
    assert torch.equal(found.sequences, wanted.sequences)
    torch.testing.assert_close(torch.stack(found.logits), torch.stack(wanted.logits), atol=1e-5, rtol=1e-5)


def test_generating_compiles_two_kernels_at_most(monkeypatch, tmp_path):
    monkeypatch.setenv("SPLAT_CACHE_DIR", str(tmp_path))
    ours.register()
    # A head_dim of this test alone, so that nothing is in memory.
    config = transformers.MistralConfig(**{**CASES["mistral"].config().to_dict(), "head_dim": 12})
    model = model_of(Case(lambda: config), "splat")
    generated(model, "dynamic", padding((0, SEQ)), new=64)
    assert 1 <= len(set(tmp_path.rglob("*.py"))) <= 2
