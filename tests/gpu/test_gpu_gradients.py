"""Gradients on a GPU against the oracle, by every target: every case by name, fuzzed, and every tile shape with every
order of rows. Those that keep slopes between their passes stand in test_gpu_kept_gradients.py.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import splat_numba as splat
from splat_numba import attention_backward
from splat_numba.testing import Problem, problems
from tests.gpu.device_views import DeviceView
from tests.gpu.targets import (
    TARGETS,
    every_target,
    every_tile_shape,
    every_type,
    fuzzed,
    fuzzed_kinds,
    gradient_tile_shapes,
)  # fmt: skip
from tests.gradient_cases import CASES, WINDOW
from tests.profiles import by_place

pytestmark = pytest.mark.gpu


def named():
    """Every case by every target."""
    for target in TARGETS:
        for name, dtype in by_place(CASES, target.types):
            yield pytest.param(name, target, dtype, id=f"{name}-{target.name}-{dtype}")


@pytest.mark.parametrize(("name", "target", "dtype"), list(named()))
def test_every_case(name, target, dtype):
    problem = replace(CASES[name], dtype=dtype)
    if not target.fits(problem):
        pytest.skip("no tile fits")
    target.check_gradients(problem)


@fuzzed_kinds(lambda target: target.gradient_kinds, gradient_tile_shapes)
@fuzzed
@given(data=st.data())
def test_any_problem(target, kind, monkeypatch, data):
    problem = data.draw(problems(dtypes=("float16",), max_length=400))
    with kind.forced(monkeypatch):
        target.check_gradients(kind.of(problem, data), frozen=kind.drawn_frozen(data))


@every_tile_shape(lambda target: target.gradient_shapes, gradient_tile_shapes)
def test_every_tile_shape_with_every_order_of_rows(tiles, cases, monkeypatch):
    for order, problem in cases:
        with tiles.forced(monkeypatch, order):
            tiles.target.check_gradients(problem)


@every_type
def test_bits_repeat_and_nothing_beside_the_gradients_is_written(target, dtype):
    if dtype == "bfloat16":
        pytest.skip("the CUDA array interface has no bfloat16")
    head_dim, value_dim, beside = target.views
    problem = Problem(300, 290, WINDOW, dtype, 2, 4, 2, head_dim=head_dim, value_dim=value_dim)
    q, k, v = problem.arrays()
    dout, dlse = problem.gradients()
    out, lse, vjp = target.vjp(q, k, v, WINDOW, return_lse=True)
    wanted = vjp(dout, dlse)
    given = [DeviceView(x, x) for x in (dout, q, k, v, out, lse)]
    options = {"dlse": DeviceView(dlse, dlse), "target": target.name}
    for _ in range(3):
        roots = [np.full((*x.shape[:-1], x.shape[-1] + 2 * beside), np.nan, x.dtype) for x in (q, k, v)]
        targets = [DeviceView(root, root[..., beside:-beside]) for root in roots]
        attention_backward(*given, WINDOW, **options, out_grads=tuple(targets))
        for one, right in zip(targets, wanted, strict=True):
            found = one.root_back()
            assert_array_equal(found[..., beside:-beside], right)
            assert np.isnan(found[..., :beside]).all()
            assert np.isnan(found[..., -beside:]).all()


@every_type
def test_rows_that_keep_nothing_give_zeros_whatever_their_gradients_are(target, dtype):
    problem = replace(CASES["queries and keys of nobody"], dtype=dtype)
    q, k, v = problem.arrays()
    dout, dlse = problem.gradients()
    wanted = target.vjp(q, k, v, problem.mask)[1](dout, dlse)
    dout[..., 3:9, :], dlse[..., 3:9] = np.nan, np.inf
    found = target.vjp(q, k, v, problem.mask)[1](dout, dlse)
    for one, two in zip(found, wanted, strict=True):
        assert_array_equal(one, two)
    assert_array_equal(found[0][..., 3:9, :], 0)


@every_type
def test_keys_beyond_their_length_never_reach_anything(target, dtype):
    problem = replace(CASES["key lengths"], dtype=dtype)
    q, k, v = problem.arrays()
    dout, _ = problem.gradients()
    lengths = (0, 77, 260)
    wanted = target.vjp(q, k, v, problem.mask, kv_lengths=lengths)[1](dout)
    for entry, length in enumerate(lengths):
        k[entry, :, length:] = v[entry, :, length:] = np.nan
    found = target.vjp(q, k, v, problem.mask, kv_lengths=lengths)[1](dout)
    for one, two in zip(found, wanted, strict=True):
        assert_array_equal(one, two)


@pytest.mark.parametrize("frozen", [("q",), ("v",), ("k",), ("q", "k"), ("q", "v")], ids=str)
@every_target
def test_frozen_arguments_have_none(target, frozen):
    target.check_gradients(replace(CASES["causal"], dtype=target.types[0]), frozen=frozen)


@every_type
def test_torch_tensors_and_their_gradients_inside_a_graph(target, dtype):
    torch = pytest.importorskip("torch")
    shape, asked = (2, 4, 300, 64), {"target": target.name}
    q, k, v, dout = (torch.randn(shape, device="cuda", dtype=getattr(torch, dtype)) for _ in range(4))
    leaves = [one.clone().requires_grad_() for one in (q, k, v)]
    recorded = torch.autograd.grad(splat.attention(*leaves, WINDOW, **asked), leaves, dout)
    out, lse = splat.attention(q, k, v, WINDOW, return_lse=True, **asked)
    wanted = attention_backward(dout, q, k, v, out, lse, WINDOW, **asked)
    targets = tuple(torch.empty_like(x) for x in (q, k, v))
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    again = torch.empty_like(out)
    with torch.cuda.graph(graph, stream=stream):
        splat.attention(q, k, v, WINDOW, out=again, **asked)
        attention_backward(dout, q, k, v, out, lse, WINDOW, **asked, out_grads=targets)
    for one in (again, *targets):
        one.fill_(float("nan"))
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(again, out)
    for one, two, three in zip(targets, wanted, recorded, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(three, two)
