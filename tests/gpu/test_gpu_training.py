"""Modules on a GPU: a compiled and a captured training step, autocast, and a model of transformers."""

import copy

import pytest

import splat_numba as splat

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]  # of PyTorch, of parts of itself
MASK = splat.window(100, 0) | splat.sinks(4)
BATCH, SEQ, WIDTH, HEADS, GROUPS = 2, 300, 256, 4, 2  # heads of 64, as in test_gpu_torch.py


@pytest.fixture
def layer():
    if not torch.cuda.is_available():
        pytest.skip("torch without a GPU")
    from splat_numba.integrations.torch import SparseSelfAttention

    torch.manual_seed(0)
    return SparseSelfAttention(WIDTH, HEADS, MASK, num_kv_heads=GROUPS).cuda()


def tokens(dtype=torch.bfloat16):
    return torch.randn(BATCH, SEQ, WIDTH, device="cuda", dtype=dtype)


def loss_of(layer, x):
    return (layer(x) - x).float().square().mean()


def train(layer, optimizer, x, run=None):
    optimizer.zero_grad(set_to_none=True)
    (run or loss_of)(layer, x).backward()
    optimizer.step()


def sgd(layer):
    return torch.optim.SGD(layer.parameters(), lr=0.1)


def assert_close(layer, twin):
    for one, two in zip(layer.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("options", [{"backend": "aot_eager"}, {"mode": "reduce-overhead"}], ids=["traced", "captured"])
def test_a_compiled_training_step(layer, options):
    torch._dynamo.reset()
    layer = layer.bfloat16()
    twin = copy.deepcopy(layer)
    run = torch.compile(loss_of, fullgraph=True, **options)
    for _ in range(4):  # captured at the third
        x = tokens()
        train(layer, sgd(layer), x, run)
        train(twin, sgd(twin), x)
    assert_close(layer, twin)


def test_a_captured_training_step(layer):
    layer = layer.bfloat16()
    optimizer, x = sgd(layer), tokens()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # as PyTorch asks for: compile and allocate before the capture
        for _ in range(3):
            train(layer, optimizer, x)
    torch.cuda.current_stream().wait_stream(side)
    optimizer.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss_of(layer, x).backward()
        optimizer.step()
    twin = copy.deepcopy(layer)
    before = copy.deepcopy(layer)
    for _ in range(3):
        given = tokens()
        x.copy_(given)
        graph.replay()
        train(twin, sgd(twin), given)
    torch.cuda.synchronize()
    assert_close(layer, twin)
    assert not torch.equal(layer.q_proj.weight, before.q_proj.weight)


def test_autocast_of_a_training_step(layer):
    x = tokens(torch.float32)
    keys, rows = torch.arange(SEQ, device="cuda"), torch.arange(SEQ, device="cuda")[:, None]
    kept = ((keys <= rows) & (keys >= rows - 100)) | (keys < 4)

    def dense(x):
        q, k, v = (
            project(x).unflatten(-1, (-1, WIDTH // HEADS)).transpose(1, 2)
            for project in (layer.q_proj, layer.k_proj, layer.v_proj)
        )
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=kept, enable_gqa=True)
        return layer.out_proj(out.transpose(1, 2).flatten(-2))

    # Keys' biases move all scores of a row alike, so that their gradient is nothing but rounding.
    parameters = [one for name, one in layer.named_parameters() if name != "k_proj.bias"]
    found = []
    for run in (layer, dense):
        with torch.autocast("cuda", torch.bfloat16):
            out = run(x)
        found.append((out, *torch.autograd.grad(out.float().square().sum(), parameters)))
    assert found[0][0].dtype == torch.bfloat16
    assert {one.dtype for one in found[0][1:]} == {torch.float32}
    for one, two in zip(*found, strict=True):
        assert (one - two).float().norm() <= 0.02 * two.float().norm() + 1e-3  # 2**-8 is one rounding of bfloat16


@pytest.mark.parametrize("chunked", [False, True], ids=["use_reentrant=False", "use_reentrant=True"])
def test_checkpoints(layer, chunked):
    layer, x = layer.bfloat16(), tokens().requires_grad_()
    parameters = [x, *layer.parameters()]
    wanted = torch.autograd.grad(loss_of(layer, x), parameters)
    for one in parameters:
        one.grad = None
    torch.utils.checkpoint.checkpoint(loss_of, layer, x, use_reentrant=chunked).backward()
    torch.testing.assert_close([one.grad for one in parameters], list(wanted))


def models(window=100):
    """A random Mistral on the GPU in bfloat16, by splat and by sdpa, and its weights in float32 on the CPU."""
    transformers = pytest.importorskip("transformers")
    ours = pytest.importorskip("splat_numba.integrations.transformers")
    if not torch.cuda.is_available():
        pytest.skip("torch without a GPU")
    ours.register()
    config = transformers.MistralConfig(
        vocab_size=97, hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=2, num_attention_heads=HEADS,
        num_key_value_heads=GROUPS, sliding_window=window, pad_token_id=0, bos_token_id=1, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    made = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval().bfloat16()
    exact = copy.deepcopy(made).float()
    made = made.cuda()
    here = transformers.AutoModelForCausalLM.from_config(copy.deepcopy(config), attn_implementation="splat")
    here = here.eval().bfloat16().cuda()
    here.load_state_dict(made.state_dict())
    return here, made, exact


def outcome(model, ids, mask, device):
    """Logits of tokens, and the gradient of their squares by the first layer's queries, on the CPU."""
    logits = model(ids.to(device), attention_mask=mask.to(device), use_cache=False).logits[mask.bool().to(device)]
    weight = model.model.layers[0].self_attn.q_proj.weight
    (slope,) = torch.autograd.grad(logits.float().square().sum(), weight)
    return [one.detach().float().cpu() for one in (logits, slope)]


def test_a_model_of_transformers_errs_no_more_than_with_sdpa():
    here, theirs, exact = models()
    ids = torch.randint(2, 97, (BATCH, SEQ), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 250:] = 0
    wanted = outcome(exact, ids, mask, "cpu")
    found, peer = outcome(here, ids, mask, "cuda"), outcome(theirs, ids, mask, "cuda")
    for one, two, right in zip(found, peer, wanted, strict=True):
        assert (one - right).norm() <= 1.5 * (two - right).norm()
    exact.config.sliding_window = 20  # the bound notices another mask
    other = outcome(exact, ids, mask, "cpu")
    assert (other[0] - wanted[0]).norm() > 1.5 * (peer[0] - wanted[0]).norm()


def test_a_model_of_transformers_generates():
    here, _, _ = models()
    ids = torch.randint(2, 97, (BATCH, 40), generator=torch.Generator().manual_seed(1)).cuda()
    options = {"max_new_tokens": 8, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    made = here.generate(ids, **options)
    with torch.no_grad():
        logits = here(made).logits[:, 39:-1].float()
    chosen = logits.gather(-1, made[:, 40:, None])[..., 0]
    assert made.shape == (BATCH, 48)
    assert (chosen >= logits.amax(-1) - 0.02 * logits.abs().amax()).all()  # ties may fall another way, token by token
