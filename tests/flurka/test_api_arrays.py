"""Arrays of other frameworks, strides, missing axes, out=, and which backend a call means."""

import sys
import types

import numpy as np
import pytest

import flurka_numba
from flurka_numba import backends
from flurka_numba.backends import choose_executor
from flurka_numba.problem import Call
from splat_numba.errors import ArgumentError, BackendError
from tests.flurka.agreement import check_forward
from tests.flurka.strategies import DTYPES, METHODS, Case


@pytest.mark.parametrize(
    ("method", "dtype"), [*((method, "float32") for method in METHODS), *(("flurka", dtype) for dtype in DTYPES[1:])]
)
def test_torch_arrays_give_torch_arrays(method, dtype):
    torch = pytest.importorskip("torch")
    case = Case(method=method, dtype=dtype)
    arrays = case.arrays()
    theirs = {name: torch.from_numpy(x.astype(np.float64)).to(getattr(torch, dtype)) for name, x in arrays.items()}
    got, vjp = case.run_vjp(theirs)
    wanted, wanted_vjp = case.run_vjp(arrays)
    assert got.dtype == getattr(torch, dtype)
    np.testing.assert_array_equal(got.double().numpy(), wanted.astype(np.float64))
    dout = torch.from_numpy(case.dout().astype(np.float64)).to(got.dtype)
    for one, two in zip(vjp(dout), wanted_vjp(case.dout()), strict=True):
        assert (one is None) == (two is None)
        if one is not None:
            np.testing.assert_array_equal(one.double().numpy(), two.astype(np.float64))


def test_torch_out_is_written_in_place():
    torch = pytest.importorskip("torch")
    case = Case()
    theirs = {name: torch.from_numpy(x) for name, x in case.arrays().items()}
    out = torch.empty(case.dout().shape)
    assert case.run(theirs, out=out) is out
    np.testing.assert_array_equal(out.numpy(), case.run())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_jax_arrays_give_jax_arrays(dtype):
    jnp = pytest.importorskip("jax.numpy")
    case = Case(dtype=dtype)
    got = case.run({name: jnp.asarray(x) for name, x in case.arrays().items()})
    assert type(got).__module__.startswith("jax")
    np.testing.assert_array_equal(np.asarray(got), case.run())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("batch", "heads"), [(None, None), (None, 3), (2, 3)])
def test_leading_axes_may_be_missing(method, batch, heads):
    case = Case(method=method, batch=batch, heads=heads)
    check_forward(case)
    assert case.run().shape == case.dout().shape


def test_any_strides_are_read_and_written():
    case = Case(strided=True, seq_q=33, seq_kv=47)
    out = np.full((2, 33, 16, 2), np.nan, np.float32)[..., 0][None]
    case.run(out=out)
    np.testing.assert_array_equal(out, case.run())


def test_heads_beside_dims_need_no_copy():
    """(batch, seq, heads, dim) in memory, seen as (batch, heads, seq, dim)."""
    case = Case(batch=2, heads=3)
    arrays = case.arrays()
    beside = {
        name: np.ascontiguousarray(np.moveaxis(x, 1, 2)).swapaxes(1, 2) if x.ndim == 4 else x
        for name, x in arrays.items()
    }
    np.testing.assert_allclose(case.run(beside), case.run(arrays), rtol=1e-6, atol=1e-7)


def test_reversed_and_read_only_inputs_are_read():
    case = Case()
    arrays = {name: x[..., ::-1, :] for name, x in case.arrays().items()}
    plain = {name: np.ascontiguousarray(x) for name, x in arrays.items()}
    for x in arrays.values():
        x.flags.writeable = False
    np.testing.assert_array_equal(case.run(arrays), case.run(plain))


def test_explicit_equal_projections_have_two_gradients():
    case = Case(shared=True)
    arrays = case.arrays()
    both = arrays | {"proj_v": arrays["proj_k"]}
    one, two = case.run_vjp(arrays)[1](case.dout()), case.run_vjp(both)[1](case.dout())
    assert one[4] is None
    np.testing.assert_allclose(two[3] + two[4], one[3], rtol=1e-4, atol=1e-5)


def test_out_must_be_writeable_and_have_a_place_for_every_number():
    case = Case()
    frozen = np.zeros_like(case.dout())
    frozen.flags.writeable = False
    with pytest.raises(ArgumentError, match="out wanted writeable"):
        case.run(out=frozen)
    with pytest.raises(ArgumentError, match="a place for every number"):
        case.run(out=np.lib.stride_tricks.as_strided(np.zeros(16, np.float32), case.dout().shape, (0, 0, 0, 4)))


# Which backend.


class FakeGpuArray:
    is_cuda = True


def call(q=None, **options):
    return Call("flurka", q, None, None, **options)


@pytest.fixture
def gpu_kernel(monkeypatch):
    fake = types.ModuleType("fake")
    fake.CUDA, fake.EMULATED = object(), object()
    for name in ("gpu.executor", "emulated.executor"):
        monkeypatch.setitem(sys.modules, f"flurka_numba.{name}", fake)
    monkeypatch.delenv("SPLAT_EMULATE", raising=False)
    for one in (backends._cuda, backends._emulate):
        one.cache_clear()  # another test may have asked for the true one
    yield fake
    for one in (backends._cuda, backends._emulate):
        one.cache_clear()


def test_auto_runs_where_q_is(gpu_kernel):
    assert choose_executor(call(np.zeros(3))).name == "cpu"
    assert choose_executor(call(FakeGpuArray())) is gpu_kernel.CUDA
    assert choose_executor(call(np.zeros(3), target="sm_90a")) is gpu_kernel.CUDA


def test_named_backends_are_taken(gpu_kernel, monkeypatch):
    assert choose_executor(call(np.zeros(3), backend="cpu")).name == "cpu"
    assert choose_executor(call(np.zeros(3), backend="cuda")) is gpu_kernel.CUDA
    assert choose_executor(call(np.zeros(3), backend="emulate")) is gpu_kernel.EMULATED
    monkeypatch.setenv("SPLAT_EMULATE", "1")
    assert choose_executor(call(np.zeros(3), backend="cuda")) is gpu_kernel.EMULATED
    assert choose_executor(call(FakeGpuArray(), backend="cuda")) is gpu_kernel.CUDA


@pytest.mark.parametrize(
    "options",
    [
        {"backend": "tpu"},
        {"backend": "cpu", "target": "sm_90a"},
        {"backend": "emulate", "target": "cpu"},
        {"target": "avx"},
    ],
    ids=str,
)
def test_unknown_backends_and_targets_are_refused(options):
    with pytest.raises(BackendError):
        choose_executor(call(np.zeros(3), **options))


def test_the_modules_public_names_are_there():
    assert set(flurka_numba.__all__) <= set(dir(flurka_numba))
    for name in flurka_numba.__all__:
        assert getattr(flurka_numba, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        flurka_numba.nothing  # noqa: B018
