"""PyTorch's own tensors in CPU memory: computed as they read, or refused by name with what works instead.

What attention makes of tensors that PyTorch records or transforms stands in tests/integrations/torch.
"""

import numpy as np
import pytest

import flurka_numba
import splat_numba as splat
from splat_numba.errors import ArgumentError, ArgumentTypeError, SplatError
from splat_numba.runtime import graphs

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch, about parts of itself
MASK, SHAPE, RANK = splat.causal(), (1, 2, 24, 16), 6
GIVEN = dict(
    zip("qkv", torch.from_numpy(np.random.default_rng(0).standard_normal((3, *SHAPE), np.float32)), strict=True)
)
PROJ = {"proj_k": torch.linspace(-1, 1, RANK * 24).reshape(RANK, 24), "proj_v": torch.ones(RANK, 24) / 24}


def attend(**changes):
    return splat.attention(**(GIVEN | changes), mask=MASK)


def flurka(**changes):
    return flurka_numba.attention(**(GIVEN | PROJ | changes))


def flurka_vjp(**changes):
    """A function that PyTorch does not see into."""
    return flurka_numba.attention_vjp(**(GIVEN | PROJ | changes))[0]


def negated(tensor):
    """The same numbers; those in memory are their negatives."""
    found = torch.complex(tensor * 0, -tensor).conj().imag
    assert found.is_neg()
    assert torch.equal(found, tensor)
    return found


@pytest.mark.parametrize("name", "qkv")
def test_a_negative_bit_is_read(name):
    assert torch.equal(attend(**{name: negated(GIVEN[name])}), attend())


@pytest.mark.parametrize("name", ["q", "k", "v", "proj_k", "proj_v"])
def test_a_negative_bit_is_read_by_flurka(name):
    given = GIVEN | PROJ
    assert torch.equal(flurka(**{name: negated(given[name])}), flurka())


def test_a_negative_bit_is_read_in_omega_and_dout():
    omega = torch.randn(8, 16)
    run = [flurka(feature_map="rfa", omega=one) for one in (omega, negated(omega))]
    assert torch.equal(*run)
    out, vjp = flurka_numba.attention_vjp(**GIVEN, **PROJ)
    for one, two in zip(vjp(out), vjp(negated(out)), strict=True):
        assert torch.equal(one, two)


def test_a_negative_bit_is_read_by_the_packed_operators():
    acsr = splat.ACSR.from_pattern(MASK, 24, 24)
    q, k, v = GIVEN.values()
    values = splat.sddmm(q, k, acsr)
    assert torch.equal(splat.sddmm(negated(q), k, acsr), values)
    assert torch.equal(splat.softmax(negated(values), acsr), splat.softmax(values, acsr))
    assert torch.equal(splat.spmm(values, negated(v), acsr), splat.spmm(values, v, acsr))


@pytest.mark.parametrize("run", [attend, flurka])
def test_an_out_with_a_negative_bit_is_refused(run):
    out = negated(torch.ones(SHAPE))
    with pytest.raises(ArgumentError) as caught:
        run(out=out)
    assert str(caught.value) == (
        "out wanted with its numbers as they are in memory, got a view of their negatives (out.is_neg()). Give "
        "out.resolve_neg(), which copies."
    )
    assert (out == 1).all()


class Subclass(torch.Tensor):
    """Adds nothing."""


class Watching(torch.Tensor):
    """Has operations of its own."""

    @classmethod
    def __torch_function__(cls, function, kinds, arguments=(), named=None):
        return super().__torch_function__(function, kinds, arguments, named or {})


Q = GIVEN["q"]


def freed():
    tensor = Q.clone()
    tensor.untyped_storage().resize_(0)
    return tensor


REFUSED = {
    "meta": (lambda: Q.to("meta"), "q wanted as a tensor of numbers in memory, got one on device 'meta'"),
    "sparse": (Q.to_sparse, "q wanted as a tensor of numbers in memory, got torch.sparse_coo. Give q.to_dense()."),
    "nested": (
        lambda: torch.nested.nested_tensor([Q[0], Q[0]]),
        "q wanted as a tensor of numbers in memory, got a nested one",
    ),
    "jagged": (
        lambda: torch.nested.nested_tensor([Q[0, 0], Q[0, 0]], layout=torch.jagged),
        "q wanted as a tensor of numbers in memory, got a nested one. Give torch.nested.to_padded_tensor(q, 0.0), and",
    ),
    "quantized": (
        lambda: torch.quantize_per_tensor(Q, 0.1, 0, torch.quint8),
        "q wanted as a tensor of numbers in memory, got a quantized one. Give q.dequantize().",
    ),
    "float8": (lambda: Q.to(torch.float8_e4m3fn), "q wanted as float16, bfloat16, float32, float64, got float8_e4m3fn"),
    "complex": (lambda: torch.complex(Q, Q).conj(), "q wanted as float16, bfloat16, float32, float64, got complex64"),
    "zero": (lambda: torch._efficientzerotensor(SHAPE), "q wanted as a tensor of numbers in memory, got one without"),
    "freed": (freed, "q wanted as a tensor of numbers in memory, got one without memory"),
    "storage": (Q.untyped_storage, "q wanted as an array (NumPy, or anything with DLPack), got UntypedStorage"),
}


@pytest.mark.filterwarnings("ignore")  # of PyTorch: nested tensors are a prototype, quantized ones leave
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_tensor_of_numbers_in_memory_is_refused(name):
    make, *starts = REFUSED[name]
    odd = make()
    for run, start in ((flurka, starts[0]), (attend, starts[-1])):
        with pytest.raises(SplatError) as caught:
            run(q=odd)
        assert str(caught.value).startswith(start)


def test_gradients_as_functions_refuse_classes_with_operations_of_their_own():
    with pytest.raises(ArgumentTypeError, match=r"^q wanted as a plain torch.Tensor, got "):
        flurka_vjp(q=Q.as_subclass(Watching))
    assert torch.equal(flurka(q=Q.as_subclass(Watching)).as_subclass(torch.Tensor), flurka())


def test_flurka_sends_to_its_gradients():
    layer = flurka_numba.FlurkaLayer(*[torch.eye(16, requires_grad=True)] * 4, PROJ["proj_k"], heads=2)
    with pytest.raises(ArgumentError) as caught:
        layer(GIVEN["q"][0, 0])
    assert str(caught.value).startswith(
        "q wanted without requires_grad while gradients are recorded, since autograd does not see into this call. Give "
        "q.detach(), or call within torch.no_grad(), as in the forward of a torch.autograd.Function."
    )
    assert "flurka_numba's functions that end in _vjp" in str(caught.value)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("run", [attend, flurka])
def test_parameters_are_taken_where_gradients_are_not_recorded(mode, run):
    parameters = {name: torch.nn.Parameter(one) for name, one in GIVEN.items()}
    with mode():
        assert torch.equal(run(**parameters), run())
        out = torch.nn.Parameter(torch.zeros(SHAPE))
        assert run(**parameters, out=out) is out
    assert torch.equal(out.detach(), run())


@pytest.mark.parametrize("run", [attend, flurka])
def test_autograd_knows_what_is_written_to_out(run):
    out, weights = torch.zeros(SHAPE), torch.ones(SHAPE, requires_grad=True)
    total = (weights * out).sum()
    run(out=out)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def test_autograd_knows_what_is_written_to_out_grads():
    out, lse = splat.attention(**GIVEN, mask=MASK, return_lse=True)
    targets = tuple(torch.zeros(SHAPE) for _ in range(3))
    splat.attention_backward(out, **GIVEN, out=out, lse=lse, mask=MASK, out_grads=targets)
    assert [one._version for one in targets] == [1, 1, 1]


def test_a_function_of_autograds_may_call():
    class Attend(torch.autograd.Function):
        @staticmethod
        def forward(ctx, q, k, v):
            out, ctx.vjp = flurka_numba.kernel_attention_vjp(q, k, v)
            return out

        @staticmethod
        def backward(ctx, dout):
            return ctx.vjp(dout.contiguous())[:3]

    q = GIVEN["q"].clone().requires_grad_()
    Attend.apply(q, GIVEN["k"], GIVEN["v"]).sum().backward()
    wanted = flurka_numba.kernel_attention_vjp(*GIVEN.values())[1](torch.ones(SHAPE))[0]
    assert torch.equal(q.grad, wanted)


def test_subclasses_that_add_nothing_are_tensors():
    found = attend(q=Q.as_subclass(Subclass), k=torch.nn.Buffer(GIVEN["k"]))
    assert type(found) is torch.Tensor
    assert torch.equal(found, attend())


def test_a_tangent_is_refused():
    forward_ad = torch.autograd.forward_ad
    with forward_ad.dual_level():
        assert torch.equal(attend(), attend())  # a level alone changes nothing
        for run in (attend, flurka):
            with pytest.raises(ArgumentError, match=r"^k wanted without a tangent"):
                run(k=forward_ad.make_dual(GIVEN["k"], Q))


TRANSFORMS = {
    "grad": lambda f: torch.func.grad(lambda q: f(q).sum())(Q),
    "vmap": lambda f: torch.func.vmap(f)(Q[None]),
    "jvp": lambda f: torch.func.jvp(f, (Q,), (Q,)),
    "functionalize": lambda f: torch.func.functionalize(f)(Q),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_gradients_as_functions_refuse_transforms(name):
    with pytest.raises(ArgumentError, match=r"^q wanted outside torch.func's transforms, got a tensor of grad, vmap"):
        TRANSFORMS[name](lambda q: flurka_vjp(q=q))


def test_a_tensor_that_a_transform_does_not_see_is_computed():
    seen = []
    torch.func.vmap(lambda x: (seen.append(attend()), x)[1])(torch.ones(3))
    assert torch.equal(seen[0], attend())


@pytest.mark.filterwarnings("ignore")  # of PyTorch: torch.jit.trace is deprecated
@pytest.mark.parametrize("mode", ["trace", "real", "fake"])
def test_traces_are_refused(mode):
    from torch.fx.experimental.proxy_tensor import make_fx

    def traced(q):
        return attend(q=q) if mode == "trace" else flurka_vjp(q=q)

    with pytest.raises(SplatError, match=r"^q wanted (outside traces, got it while torch.jit.trace|as a plain)"):
        torch.jit.trace(traced, (Q,)) if mode == "trace" else make_fx(traced, tracing_mode=mode)(Q)
    with pytest.raises(ArgumentTypeError, match=r"^q wanted as an array .*, got Proxy"):
        torch.fx.symbolic_trace(traced)


def test_fake_tensors_are_refused_and_modes_that_look_on_are_not():
    from torch._subclasses import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    with FakeTensorMode(), pytest.raises(ArgumentError, match=r"^q wanted outside traces"):
        flurka_vjp()
    with FlopCounterMode(display=False), torch.device("meta"):
        found = attend()
    assert torch.equal(found, attend())


def test_key_lengths_that_are_no_numbers_are_refused():
    with pytest.raises(SplatError, match=r"^kv_lengths wanted as a tensor of numbers"):
        attend(kv_lengths=torch.tensor([3], device="meta"))


def compiled_things():
    """Every kind of public function, as one of q."""
    k, v, acsr = GIVEN["k"], GIVEN["v"], splat.ACSR.from_pattern(MASK, 24, 24)
    layer = flurka_numba.FlurkaLayer(*[torch.eye(16)] * 4, PROJ["proj_k"], heads=2)
    return {
        "packed": lambda q: splat.spmm(splat.softmax(splat.sddmm(q, k, acsr), acsr), v, acsr),
        "flurka": lambda q: flurka(q=q),
        "gradients": lambda q: flurka_numba.attention_vjp(q, k, v, **PROJ)[1](v)[0],
        "layer": lambda q: layer(q[0]),
    }


@pytest.mark.filterwarnings("ignore")  # of Dynamo, about PyTorch's own
@pytest.mark.parametrize("name", ["packed", "flurka", "gradients", "layer"])
def test_compiled_functions_call_the_package_outside_their_graphs(name, monkeypatch):
    one, graphs_made = compiled_things()[name], []

    def whole(q):
        return one(q * 2) + 1

    def backend(graph, _):
        graphs_made.append(graph)
        return graph

    rules = pytest.importorskip("torch._dynamo.trace_rules")
    monkeypatch.setattr(graphs, "_left_alone", set())  # as in a process whose first call is this one
    monkeypatch.setattr(rules, "SKIP_DIRS", [*rules.SKIP_DIRS])
    torch._dynamo.reset()
    run = torch.compile(whole, backend=backend)
    assert torch.equal(run(Q), whole(Q))
    known = len(graphs_made)
    assert torch.equal(run(Q + 1), whole(Q + 1))
    assert len(graphs_made) == known  # nothing is compiled again
    torch._dynamo.reset()
    graphs_made.clear()
    assert torch.equal(torch.compile(whole, backend=backend)(Q), whole(Q))
    assert len(graphs_made) <= 3  # what is before and after, and what ``one`` does itself
