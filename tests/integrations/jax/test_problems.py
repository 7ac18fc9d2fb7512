"""attention within jax.jit against the oracle and against the NumPy call, for every kind of step that XLA runs.

A new mask, dtype or head_dim is a kernel to compile: cases are few, and each is there for what its name says.
"""

import contextlib

import numpy as np
import pytest

import splat_numba as splat
from splat_numba.formats.patterns import causal, global_tokens, sinks, sparse_transformer_strided, strided, window
from splat_numba.testing import Problem, check_attention, check_gradients
from tests.ops.kind_cases import RAGGED

jax = pytest.importorskip("jax", reason="JAX is not installed")

from splat_numba.integrations.jax import attention  # noqa: E402 - it imports JAX

UNVISITED = causal() & global_tokens((8, 24))
CASES = {
    "lengths, grouped heads, another order of axes": Problem(
        40, 33, window(5), "bfloat16", batch=2, heads_q=4, heads_kv=2, value_dim=8, layout="bshd", kv_lengths=(33, 9)
    ),
    "float32 in place of the sums": Problem(40, 33, window(5), batch=2, heads_q=2),
    "float16 between passes": Problem(65, 49, sparse_transformer_strided(11), "float16", batch=1, heads_q=2),
    "bfloat16 between passes, rows that nobody visits": Problem(64, 64, UNVISITED, "bfloat16", batch=2, heads_q=2),
    "rows that nobody visits": Problem(64, 64, UNVISITED, batch=1, heads_q=1),
    "no bands": Problem(20, 20, sinks(0), batch=1, heads_q=2),
    "tables": Problem(350, 350, RAGGED, batch=1, heads_q=1),
    "a mask a head": Problem(40, 40, [window(5), strided(4), window(5), strided(4)], batch=2, heads_q=4, heads_kv=2),
    "no batch axis": Problem(40, 40, window(5), heads_q=2, layout="bshd", scale=0.5),
    "no heads": Problem(40, 40, window(5), layout="bshd"),
    "float64": Problem(24, 24, window(5), "float64", batch=1, heads_q=2),
    "no queries": Problem(0, 40, window(5), batch=2, heads_q=2),
    "no keys": Problem(40, 0, window(5), batch=2, heads_q=2),
    "no batch entries": Problem(40, 40, window(5), batch=0, heads_q=2),
}


@contextlib.contextmanager
def wide(problem):
    """x64 mode for float64."""
    enable = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
    with enable(problem.dtype == "float64"):
        yield


def traced(mask, scale, layout):
    def run(q, k, v, kv_lengths):
        return attention(q, k, v, mask, scale=scale, layout=layout, kv_lengths=kv_lengths, return_lse=True)

    return run


def jitted(q, k, v, mask, *, return_lse, scale, layout, kv_lengths):
    assert return_lse
    return tuple(map(np.asarray, jax.jit(traced(mask, scale, layout))(q, k, v, kv_lengths)))


def jitted_vjp(q, k, v, mask, *, scale, layout, kv_lengths):
    run = traced(mask, scale, layout)

    def back(q, k, v, lengths, dout, dlse):
        return jax.vjp(lambda *arrays: run(*arrays, lengths), q, k, v)[1]((dout, dlse))

    return None, lambda dout, dlse: tuple(map(np.asarray, jax.jit(back)(q, k, v, kv_lengths, dout, dlse)))


@pytest.mark.parametrize("name", CASES)
def test_a_jitted_call_agrees_with_the_oracle_and_has_the_bits_of_numpys(name):
    problem = CASES[name]
    with wide(problem):
        check_attention(problem, attention=jitted)
        arrays, options = problem.arrays(), problem.options()
        found = jitted(*arrays, problem.mask, return_lse=True, **options)
    wanted = splat.attention(*arrays, problem.mask, return_lse=True, **options)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("name", CASES)
def test_jitted_gradients_agree_with_the_oracle_and_have_the_bits_of_numpys(name):
    problem = CASES[name]
    arrays, options = problem.arrays(), problem.options()
    gradients = problem.gradients()
    with wide(problem):
        check_gradients(problem, attention_vjp=jitted_vjp)
        found = jitted_vjp(*arrays, problem.mask, **options)[1](*gradients)
    wanted = splat.attention_vjp(*arrays, problem.mask, **options)[1](*gradients)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()


@pytest.mark.parametrize(("dtype", "least"), [("float16", 1e-6), ("float32", 1e-40), ("bfloat16", 1e-40)])
@pytest.mark.parametrize("shape", [(1, 40, 2, 16), (4, 1024, 4, 16)], ids=["on one thread", "on several"])
def test_subnormal_numbers_are_numbers(dtype, least, shape):
    """XLA's threads take them for 0, and float16 is read by way of float32's."""
    small = np.full(shape, least).astype(jax.numpy.dtype(dtype))
    ones = np.ones(shape, small.dtype)
    out, pull = jax.vjp(jax.jit(lambda v: attention(ones, ones, v, window(5))), small)
    wanted, vjp = splat.attention_vjp(ones, ones, small, window(5), layout="bshd")
    assert np.asarray(out).tobytes() == wanted.tobytes()
    assert (np.asarray(out, np.float64) > 0.9 * least).all()
    assert np.asarray(pull(small)[0]).tobytes() == vjp(small)[2].tobytes()
