"""What JAX lowers for NVIDIA GPUs, run without one: XLA's call frames into the handler, whose driver is emulated.

Bits are compared with backend "emulate", which runs the same texts by another machine.
"""

import re

import numpy as np
import pytest

import splat_numba as splat
from splat_numba.errors import BackendError
from splat_numba.executors.choice import choose_executor
from splat_numba.executors.given import Given
from splat_numba.gen.boxes import search as box_search
from splat_numba.runtime.xla import register
from tests.emulator.emulated_gpu import emulated, forget_emulated
from tests.runtime.fake_xla_gpu import install, run_program

jax = pytest.importorskip("jax", reason="JAX is not installed")
jnp = pytest.importorskip("jax.numpy")
from splat_numba.executors.jax import calls as jax_calls  # noqa: E402 - which needs JAX
from splat_numba.executors.jax import programs as jax_programs  # noqa: E402 - which needs JAX

MASK = splat.window(9, 0) | splat.sinks(2)
DTYPES = {"f32": np.float32, "bf16": jnp.bfloat16, "f16": np.float16, "ui8": np.uint8, "i32": np.int32}
CALL = re.compile(r"custom_call @(splat_\w+)\(.*?\{.*?\} : \((.*?)\) -> (.*)\n")


@pytest.fixture
def native(monkeypatch):
    monkeypatch.setattr(register, "_registered", {})
    yield install(monkeypatch, emulated(monkeypatch))
    jax_programs._gpu_target.cache_clear()
    register._registered.clear()  # so that tables are freed while there is a driver
    forget_emulated()


def lowered(function, *arrays, platform="cuda"):
    return jax.jit(function).trace(*arrays).lower(lowering_platforms=(platform,)).as_text()


def kinds_in(text):
    """Shapes and dtypes in the text of a type."""
    for one in re.findall(r"tensor<(\S+)>", text):
        *sizes, kind = one.split("x")
        yield tuple(map(int, sizes)), DTYPES[kind]


def run(native, function, *arrays):
    """The results of the one foreign call that the function is lowered to, on the emulated GPU."""
    ((name, _, made),) = CALL.findall(lowered(function, *arrays))
    return run_program(native, register._registered[name], arrays, list(kinds_in(made)))


def problem(dtype, batch=1, heads=2, heads_kv=1, seq=40, dim=16):
    rng = np.random.default_rng(0)
    shapes = (batch, heads, seq, dim), (batch, heads_kv, seq, dim), (batch, heads_kv, seq, dim)
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


@pytest.mark.parametrize(
    ("dtype", "mask", "options"),
    [
        ("float32", MASK, {}),
        ("float16", MASK, {"layout": "bshd"}),
        ("bfloat16", [MASK, splat.causal()], {"scale": -0.2}),
    ],
)
def test_forward(native, dtype, mask, options):
    arrays = problem(dtype, heads_kv=2 if isinstance(mask, list) else 1)
    if "layout" in options:
        arrays = [one.swapaxes(1, 2) for one in arrays]
    out, lse, *_ = run(native, lambda *x: splat.attention(*x, mask, return_lse=True, **options), *arrays)
    wanted = splat.attention(*map(np.asarray, arrays), mask, return_lse=True, backend="emulate", **options)
    np.testing.assert_array_equal(out, wanted[0])
    np.testing.assert_array_equal(lse, wanted[1])


def test_several_passes(native, monkeypatch):
    """What rounding takes off the first pass's results is handed on in XLA's scratch memory."""
    schemes = box_search.schemes
    monkeypatch.setattr(
        box_search, "schemes",
        lambda *given, **options: {a: b for a, b in schemes(*given, **options).items() if ", then " in a},
    )  # fmt: skip
    mask = (splat.window(7, 0) | splat.strided(8)) & splat.causal()
    arrays = problem("float16", heads=1, seq=150)
    out, _, scratch = run(native, lambda *x: splat.attention(*x, mask), *arrays)
    np.testing.assert_array_equal(out, splat.attention(*map(np.asarray, arrays), mask, backend="emulate"))
    assert scratch.any()
    assert len(native.overlaps) == 2


def gradients(mask):
    """The one call of the gradients, as a function of its arrays."""
    recipe = Given(mask, choose_executor("cpu", None), "bhsd", None)
    return lambda *arrays: jax_calls._run(recipe, "auto", jax_calls.BACKWARD, *arrays)


@pytest.mark.parametrize(("dtype", "ragged"), [("float32", False), ("float16", True)])
def test_gradients(native, dtype, ragged):
    arrays = problem(dtype, batch=2 if ragged else 1)
    options = {"kv_lengths": np.array([40, 17])} if ragged else {}
    host = list(map(np.asarray, arrays))
    out, lse = splat.attention(*host, MASK, return_lse=True, backend="emulate", **options)
    dout, dlse = np.ones_like(out), np.zeros_like(lse)
    lengths = [np.array([40, 17], np.int32)] if ragged else []
    found = run(native, gradients(MASK), *arrays, *lengths, out, lse, dout, dlse)
    wanted = splat.attention_backward(dout, *host, out, lse, MASK, dlse=dlse, backend="emulate", **options)
    for one, other in zip(found, wanted, strict=False):
        np.testing.assert_array_equal(one, other)


def test_rows_that_kernels_take_in_no_other_way_are_copied_within_the_call(native):
    arrays = problem("float16", dim=13)
    function = lambda *x: splat.attention(*x, MASK)  # noqa: E731 - JAX remembers by its identity
    assert not re.search(r"stablehlo\.(pad|slice)", lowered(function, *arrays))
    out, *_ = run(native, function, *arrays)
    wanted = splat.attention(*map(np.asarray, arrays), MASK, backend="emulate")
    np.testing.assert_array_equal(out, wanted)
    assert len(native.overlaps) == 5  # three operands, attention, its result


def test_key_lengths_are_an_array_of_the_call(native):
    arrays, lengths = problem("float32", batch=2), np.array([40, 3], np.int32)
    function = lambda q, k, v, n: splat.attention(q, k, v, MASK, kv_lengths=n)  # noqa: E731 - by its identity
    out, *_ = run(native, function, *arrays, lengths)
    assert not re.search(r"stablehlo\.(clamp|min|max)", lowered(function, *arrays, lengths))
    wanted = splat.attention(*map(np.asarray, arrays), MASK, kv_lengths=lengths, backend="emulate")
    np.testing.assert_array_equal(out, wanted)


def test_key_lengths_out_of_range_become_the_nearest_within(native, monkeypatch):
    """Kernels read no key beyond the last one, whatever a traced length is."""

    def called(name, kinds, arrays):
        types = [jax.ShapeDtypeStruct(*kind) for kind in kinds]
        loaded = register._registered[name]
        return jax.pure_callback(lambda *given: run_program(native, loaded, given, kinds), types, *arrays)

    monkeypatch.setattr(jax_programs, "called", called)
    monkeypatch.setattr(jax_calls, "by_platform", lambda run, _kinds, arrays: tuple(run.cuda(*arrays)))
    jax_calls._operator.cache_clear()
    arrays = problem("float32", batch=3)

    def slope(lengths):
        return jax.jit(jax.value_and_grad(lambda q: splat.attention(q, *arrays[1:], MASK, kv_lengths=lengths).sum()))

    wanted = slope(np.array([40, 0, 7]))(arrays[0])
    found = jax.jit(lambda n, q: slope(n)(q))(jnp.array([41, -1, 7], jnp.int32), arrays[0])
    far = jax.jit(lambda n, q: slope(n)(q))(jnp.array([2**31 - 1, -(2**31), 7], jnp.int32), arrays[0])
    jax_calls._operator.cache_clear()
    for one in (*found, *far):
        assert np.isfinite(one).all()
    for several in (found, far):
        for one, other in zip(several, wanted, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("native")
def test_one_function_is_lowered_for_either_platform():
    arrays = problem("float32")
    function = lambda *x: splat.attention(*x, MASK)  # noqa: E731 - JAX remembers by its identity
    (gpu,), (cpu,) = (CALL.findall(lowered(function, *arrays, platform=one)) for one in ("cuda", "cpu"))
    assert gpu[0].startswith("splat_numba_cuda_attention_")
    assert cpu[0].startswith("splat_numba_cpu_attention_")


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize(("asked", "platform"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_another_backend_than_the_platforms_is_refused(asked, platform):
    arrays = problem("float32")
    with pytest.raises(BackendError, match=f"got backend '{asked}'"):
        lowered(lambda *x: splat.attention(*x, MASK, backend=asked), *arrays, platform=platform)
    with pytest.raises(BackendError, match="got target 'simt'"):
        lowered(lambda *x: splat.attention(*x, MASK, target="simt"), *arrays, platform="cpu")


def test_a_target_that_was_asked_for_is_taken(native):
    arrays = problem("float16")
    out, *_ = run(native, lambda *x: splat.attention(*x, MASK, target="simt"), *arrays)
    wanted = splat.attention(*map(np.asarray, arrays), MASK, backend="emulate", target="simt")
    np.testing.assert_array_equal(out, wanted)
