"""Gradients by a warp's matrix products on a GPU against the oracle: every case by name, fuzzed, every tile shape."""

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
from splat_numba.gen.plans.machine import gpu_of
from splat_numba.gen.targets.sm80.backward import tile_shapes
from splat_numba.gen.targets.sm80.backward.tile_shapes import candidates
from splat_numba.testing import Problem, check_gradients, problems
from tests.gpu.device_views import DeviceView, forced_gradients
from tests.gradient_cases import CASES, WINDOW
from tests.profiles import draws

pytestmark = pytest.mark.gpu
TYPES = ("float16", "bfloat16")
KINDS = (
    (1, 1, "float16"),
    (20, 20, "bfloat16"),
    (64, 64, "float16"),
    (33, 17, "bfloat16"),
    (80, 72, "float16"),
    (128, 128, "bfloat16"),
    (192, 128, "float16"),
    (256, 256, "bfloat16"),
    (33, 17, "float32"),
    (64, 64, "float32"),
    (128, 128, "float32"),
)
GIVEN = {"backend": "cuda", "target": "sm80"}


def check(problem, **options):
    check_gradients(problem, **GIVEN, **options)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", CASES)
def test_every_case(name, dtype):
    check(replace(CASES[name], dtype=dtype))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "x".join(map(str, kind)))
@settings(max_examples=draws(20), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_problem(kind, data):
    head_dim, value_dim, dtype = kind
    problem = data.draw(problems(dtypes=("float16",), max_length=300))
    frozen = data.draw(st.sampled_from([(), (), ("q",), ("k", "v"), ("v",), ("q", "k")]))
    check(replace(problem, head_dim=head_dim, value_dim=value_dim, dtype=dtype), frozen=frozen)


def shapes():
    """Every tile shape that the planner may choose for a few pairs of head dimensions, with the least memory too."""
    for dims, capability in (((64, 64), (9, 0)), ((128, 72), (9, 0)), ((224, 256), (8, 6)), ((256, 256), (8, 6))):
        for of in (QUERIES, KEYS):
            problem = gen_problem.Problem(64, 64, *dims, "float16")
            for one in candidates(problem if of == QUERIES else problem.transposed(), of, gpu_of(capability))[0]:
                yield pytest.param(of, one, id=f"{of}-{dims[0]}x{dims[1]}-{one.tile_q}x{one.tile_kv}-{one.stages}")


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
        with forced_gradients(monkeypatch, of, boxes, order, tile_shapes):
            check(problem)


@pytest.mark.parametrize("dtype", TYPES)
def test_bits_repeat_and_nothing_beside_the_gradients_is_written(dtype):
    problem = Problem(300, 290, WINDOW, dtype, 2, 4, 2, head_dim=40, value_dim=56)
    q, k, v = problem.arrays()
    dout, dlse = problem.gradients()
    out, lse, vjp = attention_vjp(q, k, v, WINDOW, return_lse=True, **GIVEN)
    wanted = vjp(dout, dlse)
    given = [DeviceView(x, x) for x in (dout, q, k, v, out, lse)]
    for _ in range(3):
        roots = [np.full((*x.shape[:-1], x.shape[-1] + 16), 7, x.dtype) for x in (q, k, v)]
        targets = [DeviceView(root, root[..., 8:-8]) for root in roots]
        attention_backward(*given, WINDOW, dlse=DeviceView(dlse, dlse), target="sm80", out_grads=tuple(targets))
        for target, right in zip(targets, wanted, strict=True):
            found = target.root_back()
            assert_array_equal(found[..., 8:-8], right)
            assert (found[..., :8] == 7).all()
            assert (found[..., -8:] == 7).all()


@pytest.mark.parametrize("dtype", TYPES)
def test_rows_that_keep_nothing_give_zeros_whatever_their_gradients_are(dtype):
    problem = replace(CASES["queries and keys of nobody"], dtype=dtype)
    q, k, v = problem.arrays()
    dout, dlse = problem.gradients()
    wanted = attention_vjp(q, k, v, problem.mask, **GIVEN)[1](dout, dlse)
    dout[..., 3:9, :], dlse[..., 3:9] = np.nan, np.inf
    found = attention_vjp(q, k, v, problem.mask, **GIVEN)[1](dout, dlse)
    for one, two in zip(found, wanted, strict=True):
        assert_array_equal(one, two)
    assert_array_equal(found[0][..., 3:9, :], 0)


@pytest.mark.parametrize("dtype", TYPES)
def test_keys_beyond_their_length_never_reach_anything(dtype):
    problem = replace(CASES["key lengths"], dtype=dtype)
    q, k, v = problem.arrays()
    dout, _ = problem.gradients()
    lengths = {"kv_lengths": (0, 77, 260), **GIVEN}
    wanted = attention_vjp(q, k, v, problem.mask, **lengths)[1](dout)
    for entry, length in enumerate((0, 77, 260)):
        k[entry, :, length:] = v[entry, :, length:] = np.nan
    found = attention_vjp(q, k, v, problem.mask, **lengths)[1](dout)
    for one, two in zip(found, wanted, strict=True):
        assert_array_equal(one, two)


@pytest.mark.parametrize("dtype", TYPES)
def test_gradients_of_torch_tensors(dtype):
    torch = pytest.importorskip("torch")
    shape = (2, 4, 300, 64)
    q, k, v, dout = (torch.randn(shape, device="cuda", dtype=getattr(torch, dtype)) for _ in range(4))
    leaves = [one.clone().requires_grad_() for one in (q, k, v)]
    recorded = torch.autograd.grad(splat.attention(*leaves, WINDOW, target="sm80"), leaves, dout)
    out, lse = splat.attention(q, k, v, WINDOW, target="sm80", return_lse=True)
    wanted = attention_backward(dout, q, k, v, out, lse, WINDOW, target="sm80")
    for one, two in zip(wanted, recorded, strict=True):
        assert torch.equal(one, two)
