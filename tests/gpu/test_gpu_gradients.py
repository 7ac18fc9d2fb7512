"""Gradients on a GPU against the oracle: every case by name, fuzzed, and every tile shape with every order of rows."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import splat_numba as splat
from splat_numba import attention_backward, attention_vjp
from splat_numba.gen.plans import problem as gen_problem
from splat_numba.gen.plans.backward import KEYS, QUERIES
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.targets.sm90.backward.tile_shapes import candidates
from splat_numba.testing import Problem, check_gradients, problems
from tests.gpu.device_views import DeviceView, forced_gradients, forget
from tests.gradient_cases import CASES, KEPT, WINDOW, keep_slopes
from tests.profiles import draws

pytestmark = pytest.mark.gpu
TYPES = ("float16", "bfloat16")
KINDS = ((20, 20, "bfloat16"), (64, 64, "bfloat16"), (64, 64, "float16"), (128, 128, "bfloat16"), (192, 256, "float16"))


@pytest.mark.parametrize("name", CASES)
def test_every_case(name):
    check_gradients(CASES[name], backend="cuda")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "x".join(map(str, kind)))
@settings(max_examples=draws(20), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_problem(kind, data):
    head_dim, value_dim, dtype = kind
    problem = data.draw(problems(dtypes=TYPES, max_length=400))
    check_gradients(replace(problem, head_dim=head_dim, value_dim=value_dim, dtype=dtype), backend="cuda")


@pytest.fixture
def kept(monkeypatch):
    """Slopes are kept wherever they can be."""
    keep_slopes(monkeypatch)
    forget()
    yield
    forget()


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.usefixtures("kept")
def test_every_case_that_keeps_slopes(name):
    check_gradients(CASES[name], backend="cuda", frozen=KEPT[name])


@pytest.mark.parametrize(
    "kind", [(64, 64, "float16"), (128, 128, "bfloat16")], ids=lambda kind: "x".join(map(str, kind))
)
@pytest.mark.usefixtures("kept")
@settings(max_examples=draws(20), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_problem_that_keeps_slopes(kind, data):
    head_dim, value_dim, dtype = kind
    problem = data.draw(problems(dtypes=TYPES, max_length=700))
    one = replace(problem, head_dim=head_dim, value_dim=value_dim, dtype=dtype, kv_lengths=None)
    check_gradients(one, backend="cuda")


def test_bits_repeat_where_slopes_are_kept():
    torch = pytest.importorskip("torch")
    mask = splat.window(512)
    assert splat.plan(
        mask, seq_q=4096, seq_kv=4096, heads_q=8, head_dim=128, dtype="bfloat16", backend="cuda", batch=4, backward=True
    ).backward.keys_first
    q, k, v, dout = (torch.randn(4, 8, 4096, 128, device="cuda", dtype=torch.bfloat16) for _ in range(4))
    out, lse = splat.attention(q, k, v, mask, return_lse=True)
    wanted = attention_backward(dout, q, k, v, out, lse, mask)
    for _ in range(5):
        for one, two in zip(attention_backward(dout, q, k, v, out, lse, mask), wanted, strict=True):
            assert torch.equal(one, two)


def shapes():
    """Every tile shape that the planner may choose for a few pairs of head dimensions."""
    for head_dim, value_dim, dtype in ((64, 64, "float16"), (128, 128, "bfloat16"), (256, 128, "bfloat16")):
        for of in (QUERIES, KEYS):
            for one in candidates(gen_problem.Problem(64, 64, head_dim, value_dim, dtype), of, Gpu())[0]:
                yield pytest.param(of, one, id=f"{of}-{head_dim}x{value_dim}-{one.groups}x{one.tile_kv}")


@pytest.mark.parametrize(("of", "boxes"), list(shapes()))
def test_every_tile_shape_with_every_order_of_rows(of, boxes, monkeypatch):
    rows, columns = boxes.tile_q, boxes.tile_kv
    split = splat.sparse_transformer_strided(13)
    cases = [
        ("order", splat.full(), 2 * rows, 3 * columns, {}),
        ("order", WINDOW, 2 * rows + 1, 2 * rows + 1, {}),
        ("order", splat.causal(), 333, 2 * columns + 1, {"kv_lengths": (2 * columns + 1, 0, columns + 1)}),
        ("residue", splat.dilated(20, 5), 401, 401, {}),
        (", then ", split, 389, 389, {"kv_lengths": (389, 30, 200)}),
        ("grid", splat.neighborhood((20, 32), 7), 640, 640, {}),
    ]
    for order, mask, seq_q, seq_kv, options in cases:
        batch = 3 if "kv_lengths" in options else 1
        problem = Problem(
            seq_q, seq_kv, mask, boxes.dtype, batch, 2, 1, head_dim=boxes.head_dim, value_dim=boxes.value_dim, **options
        )
        with forced_gradients(monkeypatch, of, boxes, order):
            check_gradients(problem, backend="cuda")


def test_bits_repeat_and_nothing_beside_the_gradients_is_written():
    problem = Problem(300, 290, WINDOW, "float16", 2, 4, 2, head_dim=36, value_dim=52)
    q, k, v = problem.arrays()
    dout, dlse = problem.gradients()
    out, lse, vjp = attention_vjp(q, k, v, WINDOW, return_lse=True, backend="cuda")
    wanted = vjp(dout, dlse)
    given = [DeviceView(x, x) for x in (dout, q, k, v, out, lse)]
    for _ in range(3):
        roots = [np.full((*x.shape[:-1], x.shape[-1] + 8), np.nan, x.dtype) for x in (q, k, v)]
        targets = [DeviceView(root, root[..., 4:-4]) for root in roots]
        attention_backward(*given, WINDOW, dlse=DeviceView(dlse, dlse), out_grads=tuple(targets))
        for target, right in zip(targets, wanted, strict=True):
            found = target.root_back()
            assert_array_equal(found[..., 4:-4], right)
            assert np.isnan(found[..., :4]).all()
            assert np.isnan(found[..., -4:]).all()


def test_rows_that_keep_nothing_give_zeros_whatever_their_gradients_are():
    problem = CASES["queries and keys of nobody"]
    q, k, v = problem.arrays()
    dout, dlse = problem.gradients()
    wanted = attention_vjp(q, k, v, problem.mask, backend="cuda")[1](dout, dlse)
    dout[..., 3:9, :], dlse[..., 3:9] = np.nan, np.inf
    found = attention_vjp(q, k, v, problem.mask, backend="cuda")[1](dout, dlse)
    for one, two in zip(found, wanted, strict=True):
        assert_array_equal(one, two)
    assert_array_equal(found[0][..., 3:9, :], 0)


def test_keys_beyond_their_length_never_reach_anything():
    problem = CASES["key lengths"]
    q, k, v = problem.arrays()
    dout, _ = problem.gradients()
    wanted = attention_vjp(q, k, v, problem.mask, kv_lengths=(0, 77, 260), backend="cuda")[1](dout)
    for entry, length in enumerate((0, 77, 260)):
        k[entry, :, length:] = v[entry, :, length:] = np.nan
    found = attention_vjp(q, k, v, problem.mask, kv_lengths=(0, 77, 260), backend="cuda")[1](dout)
    for one, two in zip(found, wanted, strict=True):
        assert_array_equal(one, two)


@pytest.mark.parametrize("frozen", [("q",), ("v",), ("k",), ("q", "k"), ("q", "v")], ids=str)
def test_frozen_arguments_have_none(frozen):
    check_gradients(CASES["causal"], backend="cuda", frozen=frozen)


def test_gradients_inside_a_graph():
    torch = pytest.importorskip("torch")
    shape = (2, 4, 300, 64)
    q, k, v, dout = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(4))
    out, lse = splat.attention(q, k, v, WINDOW, return_lse=True)
    wanted = attention_backward(dout, q, k, v, out, lse, WINDOW)
    targets = tuple(torch.empty_like(x) for x in (q, k, v))
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.cuda.graph(graph, stream=stream):
        attention_backward(dout, q, k, v, out, lse, WINDOW, out_grads=targets)
    for one in targets:
        one.fill_(float("nan"))
    graph.replay()
    torch.cuda.synchronize()
    for one, two in zip(targets, wanted, strict=True):
        assert torch.equal(one, two)
