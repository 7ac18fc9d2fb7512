"""Gradients on a GPU against the oracle, by every target: every case by name, fuzzed, and every tile shape with every
order of rows. What Hopper's kernels alone do stands in test_gpu_hopper_gradients.py.
"""

from dataclasses import dataclass, replace
from types import ModuleType

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
from splat_numba.gen.targets.simt.backward import tile_shapes as simt_shapes
from splat_numba.gen.targets.sm80.backward import tile_shapes as sm80_shapes
from splat_numba.gen.targets.sm90.backward import tile_shapes as sm90_shapes
from splat_numba.testing import Problem, check_gradients, problems
from tests.gpu.device_views import DeviceView, forced_gradients
from tests.gradient_cases import CASES, WINDOW
from tests.profiles import draws

pytestmark = pytest.mark.gpu
HOPPER = (9, 0)
LEAST_MEMORY = (8, 6)


@dataclass(frozen=True, slots=True)
class Tried:
    """A target with what is tried of it. types: of every case; kinds: (head_dim, value_dim, dtype) of fuzzed problems;
    shapes: (head_dim, value_dim, dtype, chip) whose tile shapes are all run; views: (head_dim, value_dim, how many
    numbers stand on both sides of a row) of gradients written into arrays of the caller's.
    """

    name: str
    tiles: ModuleType
    types: tuple[str, ...]
    kinds: tuple[tuple[int, int, str], ...]
    shapes: tuple[tuple[int, int, str, tuple[int, int]], ...]
    views: tuple[int, int, int]

    def check(self, problem, **options):
        check_gradients(problem, backend="cuda", target=self.name, **options)

    def vjp(self, q, k, v, mask, **options):
        return attention_vjp(q, k, v, mask, backend="cuda", target=self.name, **options)

    def fits(self, problem):
        """simt has no tile for gradients of 256 float64 numbers a row."""
        return problem.dtype != "float64" or problem.head_dim + (problem.value_dim or problem.head_dim) <= 256


TARGETS = (
    Tried(
        "sm_90a", sm90_shapes, ("float16", "bfloat16"),
        (
            (20, 20, "bfloat16"), (64, 64, "bfloat16"), (64, 64, "float16"), (128, 128, "bfloat16"),
            (192, 256, "float16"),
        ),
        ((64, 64, "float16", HOPPER), (128, 128, "bfloat16", HOPPER), (256, 128, "bfloat16", HOPPER)),
        (36, 52, 4),
    ),
    Tried(
        "sm80", sm80_shapes, ("float16", "bfloat16", "float32"),
        (
            (1, 1, "float16"), (20, 20, "bfloat16"), (64, 64, "float16"), (33, 17, "bfloat16"), (80, 72, "float16"),
            (128, 128, "bfloat16"), (192, 128, "float16"), (256, 256, "bfloat16"),
            (33, 17, "float32"), (64, 64, "float32"), (128, 128, "float32"),
        ),
        (
            (64, 64, "float32", HOPPER), (64, 64, "float16", HOPPER), (128, 72, "float16", HOPPER),
            (224, 256, "float16", LEAST_MEMORY), (256, 256, "float16", LEAST_MEMORY),
        ),
        (40, 56, 8),
    ),
    Tried(
        "simt", simt_shapes, ("float32", "float64", "float16"),
        (
            (20, 20, "float64"), (64, 64, "float32"), (64, 64, "float64"), (33, 17, "float32"), (128, 128, "float32"),
            (192, 256, "float32"), (64, 64, "bfloat16"),
        ),
        ((64, 64, "float32", HOPPER), (64, 40, "float64", HOPPER), (128, 128, "float32", HOPPER)),
        (36, 52, 4),
    ),
)  # fmt: skip
every_type = pytest.mark.parametrize(
    ("target", "dtype"), [pytest.param(one, dtype, id=f"{one.name}-{dtype}") for one in TARGETS for dtype in one.types]
)


@every_type
@pytest.mark.parametrize("name", CASES)
def test_every_case(name, target, dtype):
    problem = replace(CASES[name], dtype=dtype)
    if not target.fits(problem):
        pytest.skip("no tile fits")
    target.check(problem)


def kinds():
    for target in TARGETS:
        for kind in target.kinds:
            yield pytest.param(target, kind, id=f"{target.name}-{'x'.join(map(str, kind))}")


@pytest.mark.parametrize(("target", "kind"), list(kinds()))
@settings(max_examples=draws(20), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_problem(target, kind, data):
    head_dim, value_dim, dtype = kind
    problem = data.draw(problems(dtypes=("float16",), max_length=400))
    frozen = data.draw(st.sampled_from([(), (), ("q",), ("k", "v"), ("v",), ("q", "k")]))
    target.check(replace(problem, head_dim=head_dim, value_dim=value_dim, dtype=dtype), frozen=frozen)


def shapes():
    """Every tile shape that a target's planner may choose for a few pairs of head dimensions."""
    for target in TARGETS:
        for head_dim, value_dim, dtype, chip in target.shapes:
            for of in (QUERIES, KEYS):
                problem = gen_problem.Problem(64, 64, head_dim, value_dim, dtype)
                turned = problem.transposed() if of == KEYS else problem
                for one in target.tiles.candidates(turned, of, gpu_of(chip))[0]:
                    name = f"{target.name}-{of}-{head_dim}x{value_dim}-{dtype}-{one.tile_q}x{one.tile_kv}"
                    yield pytest.param(target, of, one, id=name)


@pytest.mark.parametrize(("target", "of", "boxes"), list(shapes()))
def test_every_tile_shape_with_every_order_of_rows(target, of, boxes, monkeypatch):
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
        with forced_gradients(monkeypatch, of, boxes, order, target.tiles):
            target.check(problem)


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
@pytest.mark.parametrize("target", TARGETS, ids=lambda one: one.name)
def test_frozen_arguments_have_none(target, frozen):
    target.check(replace(CASES["causal"], dtype=target.types[0]), frozen=frozen)


@every_type
def test_gradients_of_torch_tensors_and_inside_a_graph(target, dtype):
    torch = pytest.importorskip("torch")
    shape, asked = (2, 4, 300, 64), {"target": target.name}
    q, k, v, dout = (torch.randn(shape, device="cuda", dtype=getattr(torch, dtype)) for _ in range(4))
    leaves = [one.clone().requires_grad_() for one in (q, k, v)]
    recorded = torch.autograd.grad(splat.attention(*leaves, WINDOW, **asked), leaves, dout)
    out, lse = splat.attention(q, k, v, WINDOW, return_lse=True, **asked)
    wanted = attention_backward(dout, q, k, v, out, lse, WINDOW, **asked)
    targets = tuple(torch.empty_like(x) for x in (q, k, v))
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.cuda.graph(graph, stream=stream):
        attention_backward(dout, q, k, v, out, lse, WINDOW, **asked, out_grads=targets)
    for one in targets:
        one.fill_(float("nan"))
    graph.replay()
    torch.cuda.synchronize()
    for one, two, three in zip(targets, wanted, recorded, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(three, two)
