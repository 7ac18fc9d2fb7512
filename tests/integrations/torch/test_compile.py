"""torch.compile(fullgraph=True): one graph, the bits of eager, dynamic lengths, as few traces as there are masks."""

import importlib
import shutil
from functools import singledispatch

import numpy as np
import pytest

import flurka_numba
import splat_numba as splat
from splat_numba.bridges.torch.names import mask_name
from splat_numba.errors import ArgumentError
from splat_numba.gen.schedules.array_schedule import ArrayScheduleBuilder
from splat_numba.runtime.cpu.machine import LoadedSchedule
from tests.integrations.torch.ways import MASK, NEW, assert_same, compiled, eager_gradients, for_new, inputs, torch


class Counting:
    """A backend that counts graphs and runs them as they are."""

    def __init__(self):
        self.graphs = []

    def __call__(self, graph, _):
        self.graphs.append(graph)
        return graph


def test_the_first_call_of_a_process_may_be_a_traced_one():
    from tests.import_layers import python

    code = """
import torch, splat_numba as splat
q = torch.ones(1, 1, 8, 16)
print(torch.compile(lambda q: splat.attention(q, q, q, splat.causal()), fullgraph=True, backend='eager')(q).sum())
"""
    assert python(code) == "tensor(128.)"


@pytest.mark.skipif(not shutil.which("g++"), reason="Inductor needs a C++ compiler")
def test_inductor_fuses_around_the_operator():
    given = [one.requires_grad_() for one in inputs()]
    dout = torch.linspace(-1, 1, 2 * 4 * 24 * 16).reshape(2, 4, 24, 16)

    def whole(q, k, v):
        return splat.attention(q * 2, k, v, MASK).relu()

    found = compiled(whole, backend="inductor")(*given)
    assert torch.equal(found, whole(*given))
    assert_same(torch.autograd.grad(found, given, dout), torch.autograd.grad(whole(*given), given, dout))


def test_lengths_are_dynamic():
    backend = Counting()
    run = compiled(
        lambda q, k, v: splat.attention(q, k, v, MASK, layout="bshd", return_lse=True), backend=backend, dynamic=True
    )
    for length in (24, 31, 64):
        q, k, v = (torch.linspace(-1, 1, 2 * length * h * 16).reshape(2, length, h, 16) for h in (4, 2, 2))
        assert_same(run(q, k, v), splat.attention(q, k, v, MASK, layout="bshd", return_lse=True))
    assert len(backend.graphs) == 1


def test_lengths_are_dynamic_backward():
    run = compiled(lambda q, k, v: splat.attention(q, k, v, MASK), dynamic=True)
    for length in (24, 31):
        given = [torch.linspace(-1, 1, h * length * 16).reshape(1, h, length, 16).requires_grad_() for h in (4, 2, 2)]
        dout = torch.ones(1, 4, length, 16)
        assert_same(torch.autograd.grad(run(*given), given, dout), eager_gradients(*given, dout))


def test_equal_masks_share_a_graph_and_others_do_not():
    backend = Counting()
    run = compiled(splat.attention, backend=backend)
    for left in (5, 5, 6, 7, 6, 5):
        mask = splat.window(left, 0) | splat.sinks(2)
        assert torch.equal(run(*inputs(), mask), splat.attention(*inputs(), mask))
    assert len(backend.graphs) == 3


@for_new
def test_masks_may_be_made_in_a_graph():
    run = compiled(lambda q, k, v: splat.attention(q, k, v, splat.window(5, 0) | splat.sinks(2)))
    assert torch.equal(run(*inputs()), splat.attention(*inputs(), MASK))


OF_A_KIND = [
    (splat.window(3), splat.window(4), splat.window(5, 0)),
    (splat.documents((3, 4, 5)), splat.documents((4, 3, 5))),
    (splat.neighborhood((4, 4), (3, 3)), splat.neighborhood((5, 4), (3, 1)), splat.neighborhood((6, 8), 3, 2)),
    (splat.columns(4, 1), splat.columns(5, 1, 2)),
    (splat.blocked(3), splat.blocked(4, 1), splat.blocked(5, 1, 1)),
    (splat.dilated(3, 2), splat.dilated(4, 3)),
    (splat.global_tokens((3, 5)), splat.global_tokens((4, 9))),
    (splat.random_blocks(64, 2, 1), splat.random_blocks(64, 2, 2)),
    ((splat.window(3) & splat.causal()).align_end(), (splat.window(4) & splat.causal()).align_end()),
]


@pytest.mark.parametrize("masks", OF_A_KIND, ids=lambda masks: repr(masks[0]).partition("(")[0])
def test_a_mask_s_name_in_a_graph_is_its_text(masks):
    run = compiled(lambda x, mask: (x + 1, mask_name(mask)), backend="eager")
    assert [run(torch.ones(1), mask)[1] for mask in masks * 2] == [repr(mask) for mask in masks * 2]


@pytest.mark.parametrize("kind", ["dense", "a tensor", "a list"] if NEW else ["dense", "stored"])
def test_masks_that_no_graph_may_hold_stand_outside(kind):
    """A graph would hold a dense mask's numbers for ever, in silence."""
    acsr = splat.ACSR.from_pattern(MASK, 24, 24)
    dense = acsr.to_dense()
    stored = {"dense": dense, "a tensor": torch.from_numpy(dense), "a list": [dense] * 4, "stored": acsr}[kind]
    run = torch.compile(splat.attention, backend="eager")
    assert torch.equal(run(*inputs(), stored), splat.attention(*inputs(), stored))
    if kind != "stored":
        dense[:, 0] = False
    assert torch.equal(run(*inputs(), stored), splat.attention(*inputs(), stored))
    with pytest.raises(torch._dynamo.exc.Unsupported, match="mask wanted as a Pattern or an ACSR in a graph"):
        compiled(lambda *x: splat.attention(*x, stored))(*inputs())


@for_new
def test_stored_masks_and_kernels_are_constants_of_a_graph():
    stored = splat.ACSR.from_pattern(MASK, 24, 24)
    kernel = splat.compile(stored, seq_q=24, seq_kv=24, head_dim=16, dtype="float32")
    wanted = splat.attention(*inputs(), stored)
    for run in (lambda *x: splat.attention(*x, stored), kernel):
        assert torch.equal(compiled(lambda *x, run=run: run(*x))(*inputs()), wanted)
    heads = [MASK, splat.causal(), stored, MASK]
    assert torch.equal(compiled(lambda *x: splat.attention(*x, heads))(*inputs()), splat.attention(*inputs(), heads))
    run = compiled(splat.attention)
    for mask in (stored, splat.from_dense(stored.to_dense()[::-1]), [stored] * 4):
        assert torch.equal(run(*inputs(), mask), splat.attention(*inputs(), mask))


def test_a_graph_holds_one_call_with_the_mask_as_text():
    backend = Counting()
    compiled(lambda q, k, v: splat.attention(q, k, v, MASK), backend=backend)(*inputs())
    (graph,) = backend.graphs
    assert "whole(l_q_, l_k_, l_v_, 'window(5, 0) | sinks(2)', None, 'bhsd', None, 'auto', None, False)" in graph.code


def test_key_lengths_in_a_graph():
    lengths = torch.tensor([20, 7])
    run = compiled(lambda q, k, v, kv_lengths: splat.attention(q, k, v, MASK, kv_lengths=kv_lengths))
    assert torch.equal(run(*inputs(), lengths), splat.attention(*inputs(), MASK, kv_lengths=[20, 7]))
    assert torch.equal(run(*inputs(), torch.tensor([3, 4])), splat.attention(*inputs(), MASK, kv_lengths=[3, 4]))
    run = compiled(lambda q, k, v: splat.attention(q, k, v, MASK, kv_lengths=[20, 7]))
    assert torch.equal(run(*inputs()), splat.attention(*inputs(), MASK, kv_lengths=lengths))


def test_options_may_be_arguments_of_a_graph():
    run = compiled(
        lambda q, k, v, scale, layout, lse: splat.attention(q, k, v, MASK, scale=scale, layout=layout, return_lse=lse)
    )
    square = [one[:, :2, :2] for one in inputs()]
    for options in (
        (0.5, "bhsd", True),
        (0.25, "bshd", False),
        (1, "bhsd", False),
        (2, "bhsd", False),
        (None, "bhsd", False),
    ):
        scale, layout, lse = options
        found = run(*square, scale, layout, lse)
        wanted = splat.attention(*square, MASK, scale=scale, layout=layout, return_lse=lse)
        assert_same(found if lse else [found], wanted if lse else [wanted])


def test_a_gpu_s_kernel_is_called_from_graphs_and_transforms():
    """On the emulator: what backend, target and dtype say reaches the executor."""
    q = torch.linspace(-2, 2, 2 * 16 * 64).reshape(1, 2, 16, 64).bfloat16()

    def run(q):
        return splat.attention(q, q, q, MASK, return_lse=True, backend="emulate", target="sm_90a")

    wanted = run(q)
    assert_same(compiled(run)(q), wanted)
    assert_same(compiled(torch.func.vmap(run))(q[None]), [one[None] for one in wanted])
    found = run(q.requires_grad_())
    assert_same(found, wanted)
    dout = torch.linspace(-1, 1, q.numel()).reshape(q.shape).bfloat16()
    vjp = splat.attention_vjp(*[q.detach()] * 3, MASK, backend="emulate", target="sm_90a")[1]
    (slope,) = torch.autograd.grad(found[0], q, dout)
    assert torch.equal(slope, sum(vjp(dout)[1:], vjp(dout)[0]))
    assert torch.equal(torch.autograd.grad(compiled(run)(q)[0], q, dout)[0], slope)


def test_wrong_arguments_are_refused_with_the_reason():
    torch._dynamo.reset()
    with pytest.raises(RuntimeError, match=r"layout wanted as 'bhsd' or 'bshd', got 'x'"):
        torch.compile(lambda q, k, v: splat.attention(q, k, v, MASK, layout="x"), backend="aot_eager")(*inputs())
    with pytest.raises(ArgumentError, match=r"^v wanted with \(batch, heads, seq\) = \(2, 2, 24\) to fit k"):
        compiled(lambda q, k, v: splat.attention(q, k, v[:, :1], MASK))(*inputs())


@pytest.mark.parametrize("scale", [np.float32(0.5), torch.tensor(0.5)], ids=["numpy", "tensor"])
def test_a_scale_that_no_trace_knows_is_refused_by_name(scale):
    """Dynamo takes NumPy's numbers for arrays, whose numbers are read when the graph runs."""
    with pytest.raises(RuntimeError, match=r"scale wanted as a Python number in a graph.*scale = float\(scale\)"):
        compiled(lambda q, k, v: splat.attention(q, k, v, MASK, scale=scale))(*inputs())
    with pytest.raises(RuntimeError, match=r"eps wanted as a Python number in a graph.*eps = float\(eps\)"):
        compiled(lambda q, k, v: flurka_numba.kernel_attention(q, k, v, eps=scale))(*inputs())


def test_out_is_written_outside_graphs():
    out = torch.zeros(2, 4, 24, 16)
    torch._dynamo.reset()
    run = torch.compile(lambda q, k, v: splat.attention(q * 1, k, v, MASK, out=out) + 1, backend="eager")
    assert torch.equal(run(*inputs()), splat.attention(*inputs(), MASK) + 1)
    assert torch.equal(out, splat.attention(*inputs(), MASK))


def test_numpy_arrays_are_left_outside_graphs():
    q = inputs()[0].numpy()
    torch._dynamo.reset()
    run = torch.compile(lambda x: splat.attention(x, x, x, MASK), backend="eager")
    np.testing.assert_array_equal(run(q), splat.attention(q, q, q, MASK))


def test_arrays_of_a_call_outside_graphs_are_not_looked_at():
    """Nor by others' functions that it calls: by functools', through which Numba finds the type of an array."""
    importlib.import_module("torch._dynamo")
    splat.attention(*inputs(), MASK)  # by which Dynamo is told
    torch._dynamo.reset()
    frozen = np.arange(6.0)
    frozen.flags.writeable = False
    builder = ArrayScheduleBuilder()
    builder.table("numbers", frozen[1:])
    builder.compute("total", singledispatch(lambda one: float(one.sum())), "numbers")
    loaded = LoadedSchedule(builder.finish("total"), {})
    found = torch.compile(lambda q: (loaded.run({}, 1), q + 1), backend="eager")(torch.ones(2))
    assert found[0] == {"total": 15.0}
    assert torch.equal(found[1], torch.full((2,), 2.0))


@pytest.mark.parametrize(
    "run", [lambda q: splat.attention(q, q, q, MASK), lambda q: flurka_numba.kernel_attention(q, q, q)]
)
def test_a_backward_within_a_compiled_function_is_not_looked_at(run):
    """A warning of Dynamo's, which a run of tests takes for an error, would say what it met there."""
    importlib.import_module("torch._dynamo")
    q = inputs()[0].requires_grad_()
    out = run(q)
    (wanted,) = torch.autograd.grad(out.sum(), q, retain_graph=True)
    torch._dynamo.reset()

    def step(x):
        out.sum().backward()
        return x + 1

    assert torch.equal(torch.compile(step, backend="eager")(torch.ones(2)), torch.full((2,), 2.0))
    assert torch.equal(q.grad, wanted)


def test_what_splat_calls_outside_graphs_is_not_compiled():
    importlib.import_module("torch._dynamo")
    splat.attention(*inputs(), MASK)  # by which Dynamo is told
    backend = Counting()
    torch._dynamo.reset()
    acsr = splat.ACSR.from_pattern(MASK, 24, 24)
    torch.compile(lambda q, k: splat.sddmm(q * 2, k, acsr) + 1, backend=backend)(inputs()[1], inputs()[2])
    assert len(backend.graphs) == 2
