"""flurka_numba under JAX for NVIDIA GPUs, run without one: foreign calls into the handler, whose driver is emulated."""

import numpy as np
import pytest

import flurka_numba
from splat_numba.errors import ArgumentTypeError
from splat_numba.runtime.xla import register
from tests.emulator.emulated_gpu import emulated, forget_emulated
from tests.runtime.fake_xla_gpu import install, run_program

jax = pytest.importorskip("jax", reason="JAX is not installed")
jnp = pytest.importorskip("jax.numpy")
from flurka_numba.bridges import jax as bridge  # noqa: E402 - which needs JAX
from flurka_numba.bridges import jax_gpu  # noqa: E402 - likewise

SEQ, DIM, RANK = 24, 16, 8
FEWEST_BITS = {"float16": 2**-9, "float32": 2**-20}  # of products that XLA's CPU does in place of a GPU's


@pytest.fixture
def native(monkeypatch):
    """Operations are those for GPUs wherever JAX compiles, and their foreign calls run on the emulated one."""
    monkeypatch.setattr(register, "_registered", {})
    found = install(monkeypatch, emulated(monkeypatch))

    def called(name, kinds, arrays):
        types = [jax.ShapeDtypeStruct(*kind) for kind in kinds]
        loaded = register._registered[name]
        return jax.pure_callback(lambda *given: run_program(found, loaded, given, kinds), types, *arrays)

    monkeypatch.setattr(jax_gpu, "called", called)
    monkeypatch.setattr(bridge, "by_platform", lambda run, _kinds, arrays: tuple(run.cuda(*arrays)))
    caches = (bridge._operator, jax_gpu._forward, jax_gpu._gradients)
    for one in caches:
        one.cache_clear()
    yield found
    for one in caches:
        one.cache_clear()
    register._registered.clear()
    forget_emulated()


def arrays_of(dtype, **sizes):
    rng = np.random.default_rng(0)
    shapes = {"q": (1, 2, SEQ, DIM), "k": (1, 2, SEQ, DIM), "v": (1, 2, SEQ, DIM), "proj": (RANK, SEQ)} | sizes
    return {name: jnp.asarray(rng.standard_normal(shape) / 2, dtype) for name, shape in shapes.items()}


PROJECTED = ("q", "k", "v", "proj")
CASES = {
    "flurka": (flurka_numba.attention, PROJECTED, "float16", {}),
    "float32": (flurka_numba.attention, PROJECTED, "float32", {}),
    "low rank": (flurka_numba.low_rank_attention, PROJECTED, "float16", {}),
    "kernel": (flurka_numba.kernel_attention, ("q", "k", "v"), "float16", {}),
    "lengths": (flurka_numba.attention, PROJECTED, "float16", {"kv_lengths": np.array([17])}),
    "random": (
        flurka_numba.kernel_attention, ("q", "k", "v"), "float16",
        {"feature_map": "favor", "omega": np.random.default_rng(1).standard_normal((8, DIM))},
    ),
}  # fmt: skip


ODD = {"q": (1, 2, SEQ, 12), "k": (1, 2, 23, 12), "v": (1, 2, 23, 13), "proj": (RANK, 23)}
SIZES = {"lengths": ODD, "low rank": ODD}  # of those cases whose arrays are copied to padded rows


@pytest.mark.parametrize("case", CASES)
def test_bits_are_those_of_a_call_outside_of_transforms(native, case):
    function, names, dtype, options = CASES[case]
    given = [arrays_of(dtype, **SIZES.get(case, {}))[name] for name in names]
    found, pull = jax.vjp(lambda *x: function(*x, **options), *given)
    dout = jnp.ones_like(found)
    vjp_of = getattr(flurka_numba, f"{function.__name__}_vjp")
    _, vjp = vjp_of(*map(np.asarray, given), **options, backend="emulate")
    np.testing.assert_array_equal(found, function(*map(np.asarray, given), **options, backend="emulate"))
    slopes = [one for one in vjp(np.asarray(dout)) if one is not None]
    for one, other in zip(pull(dout), slopes, strict=True):
        bound = FEWEST_BITS[dtype] * np.abs(np.asarray(other, np.float32)).max()
        np.testing.assert_allclose(np.asarray(one, np.float32), np.asarray(other, np.float32), rtol=0, atol=bound)
    assert len(native.overlaps) > 2


@pytest.mark.usefixtures("native")
def test_a_dtype_that_no_target_takes_is_refused():
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        wide = arrays_of("float64")
        with pytest.raises(ArgumentTypeError, match="float64"):
            jax.jit(flurka_numba.attention)(*wide.values())


@pytest.mark.usefixtures("native")
def test_key_lengths_out_of_range_become_the_nearest_within():
    given = [arrays_of("float32")[name] for name in PROJECTED]
    step = jax.jit(lambda n, *x: jax.vjp(lambda *y: flurka_numba.attention(*y, kv_lengths=n), *x)[1](x[0]))
    for asked, taken in ((SEQ + 1, SEQ), (-1, 0)):
        for one, other in zip(step(jnp.array([asked]), *given), step(jnp.array([taken]), *given), strict=True):
            np.testing.assert_array_equal(one, other)
