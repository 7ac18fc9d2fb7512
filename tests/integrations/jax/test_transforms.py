"""Every transform of JAX over attention: the bits of the NumPy call, which agrees with the oracle."""

import threading
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import splat_numba as splat
from splat_numba import reference
from splat_numba.runtime import notice
from splat_numba.testing import Problem, assert_close, check_attention, check_gradients, gradient_tolerance, tolerance

jax = pytest.importorskip("jax", reason="JAX is not installed")
import jax.numpy as jnp  # noqa: E402 - after the skip

from splat_numba.integrations.jax import attention  # noqa: E402

MASK = splat.window(5)
PROBLEM = Problem(40, 40, MASK, batch=2, heads_q=2)
Q, K, V = map(jnp.asarray, PROBLEM.arrays())
DOUT, DLSE = map(jnp.asarray, PROBLEM.gradients())

attend = partial(attention, mask=MASK, layout="bhsd")
attend_with_lse = partial(attend, return_lse=True)


def weighted(q, k, v):
    """A number whose gradient needs both results."""
    out, lse = attend_with_lse(q, k, v)
    return (out * DOUT[: len(q)]).sum() + (lse * DLSE[: len(q)]).sum()


def of_entry(q, k, v, dout, dlse):
    """The same of one batch entry, without the axis."""
    out, lse = attend_with_lse(q, k, v)
    return (out * dout).sum() + (lse * dlse).sum()


@pytest.fixture(scope="module")
def wanted():
    """(out, lse) and (dq, dk, dv) of the NumPy call, which agree with the oracle."""
    check_attention(PROBLEM)
    check_gradients(PROBLEM)
    out, lse, vjp = splat.attention_vjp(*PROBLEM.arrays(), MASK, return_lse=True)
    return (out, lse), vjp(*PROBLEM.gradients())


def assert_same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert_array_equal(np.asarray(one), other)


gradients = jax.grad(weighted, (0, 1, 2))
FORWARD = {
    "eager": lambda: attend_with_lse(Q, K, V),
    "jit": lambda: jax.jit(attend_with_lse)(Q, K, V),
    "NumPy arrays": lambda: jax.jit(attend_with_lse)(*map(np.asarray, (Q, K, V))),
    "ahead of time": lambda: jax.jit(attend_with_lse).lower(Q, K, V).compile()(Q, K, V),
    "vmap over entries": lambda: jax.vmap(attend_with_lse)(Q, K, V),
    "vmap of vmap": lambda: jax.vmap(jax.vmap(attend_with_lse))(Q, K, V),
    "jit of vmap of jit": lambda: jax.jit(jax.vmap(jax.jit(attend_with_lse)))(Q, K, V),
    "scan": lambda: jax.lax.scan(lambda carry, x: (carry, attend_with_lse(*x)), 0, (Q, K, V))[1],
    "map": lambda: jax.lax.map(lambda x: attend_with_lse(*x), (Q, K, V)),
    "cond": lambda: jax.jit(chosen)(True),
    "the package's own function": lambda: jax.jit(partial(splat.attention, mask=MASK, return_lse=True))(Q, K, V),
}
BACKWARD = {
    "grad": lambda: gradients(Q, K, V),
    "jit of grad": lambda: jax.jit(gradients)(Q, K, V),
    "vjp": lambda: jax.vjp(attend_with_lse, Q, K, V)[1]((DOUT, DLSE)),
    "checkpoint": lambda: jax.jit(jax.grad(jax.checkpoint(weighted), (0, 1, 2)))(Q, K, V),
    "vmap of grad": lambda: jax.vmap(jax.grad(of_entry, (0, 1, 2)))(Q, K, V, DOUT, DLSE),
    "grad of vmap": lambda: jax.grad(lambda *x: jax.vmap(of_entry)(*x).sum(), (0, 1, 2))(Q, K, V, DOUT, DLSE),
    "grad of vmap of vmap": lambda: jax.grad(lambda *x: jax.vmap(jax.vmap(of_entry))(*x).sum(), (0, 1, 2))(
        Q, K, V, DOUT, DLSE
    ),
    "grad of scan": lambda: jax.jit(jax.grad(scanned, (0, 1, 2)))(Q, K, V, DOUT, DLSE),
    "vmap of value and grad": lambda: jax.vmap(jax.value_and_grad(of_entry, (0, 1, 2)))(Q, K, V, DOUT, DLSE)[1],
    "the package's own function": lambda: jax.vjp(partial(splat.attention, mask=MASK, return_lse=True), Q, K, V)[1](
        (DOUT, DLSE)
    ),
}


def chosen(first):
    return jax.lax.cond(first, lambda: attend_with_lse(Q, K, V), lambda: attend_with_lse(K, Q, V))


def scanned(*arrays):
    return jax.lax.scan(lambda total, x: (total + of_entry(*x), None), 0.0, arrays)[0]


@pytest.mark.parametrize("name", FORWARD)
def test_forward(name, wanted):
    assert_same(FORWARD[name](), wanted[0])


@pytest.mark.parametrize("name", BACKWARD)
def test_backward(name, wanted):
    assert_same(BACKWARD[name](), wanted[1])


def test_an_axis_that_only_some_arrays_have(wanted):
    out, _ = jax.vmap(attend_with_lse, in_axes=(0, None, None))(Q, K[1], V[1])
    assert_array_equal(out[1], wanted[0][0][1])
    dk = jax.grad(lambda k: jax.vmap(attend, in_axes=(0, None, None))(Q, k, V[1]).sum())(K[1])
    each = [splat.attention_vjp(*map(np.asarray, (q, K[1], V[1])), MASK)[1](np.ones_like(q)) for q in Q]
    np.testing.assert_allclose(dk, each[0][1] + each[1][1], rtol=1e-6, atol=1e-6)


def test_axes_that_are_not_the_first(wanted):
    turned = [jnp.moveaxis(x, 0, 2) for x in (Q, K, V)]
    out, lse = jax.vmap(attend_with_lse, in_axes=2, out_axes=(1, 0))(*turned)
    assert_same((jnp.moveaxis(out, 1, 0), lse), wanted[0])


def test_a_donated_argument(wanted):
    out = jax.jit(attend, donate_argnums=0)(Q + 0, K, V)
    assert_array_equal(out, wanted[0][0])


def test_one_function_serves_changing_sizes():
    run = jax.jit(attend)
    for tokens in (7, 24, 40, 0):
        q, k, v = (np.asarray(x[:, :, :tokens]) for x in (Q, K, V))
        assert_array_equal(run(q, k, v), splat.attention(q, k, v, MASK))


@pytest.mark.parametrize("kind", [np.int32, np.uint8])
def test_traced_key_lengths(kind):
    lengths = np.array([40, 11], kind)
    arrays, dout = PROBLEM.arrays(), np.asarray(DOUT)
    out, vjp = splat.attention_vjp(*arrays, MASK, kv_lengths=lengths)
    found, pull = jax.vjp(jax.jit(lambda n, *x: attend(*x, kv_lengths=n)), lengths, Q, K, V)
    assert_array_equal(found, out)
    assert_same(pull(DOUT)[1:], vjp(dout))
    mapped = jax.vmap(lambda n, *x: attend(*x, kv_lengths=n))(lengths[:, None], *(x[:, None] for x in (Q, K, V)))
    assert_array_equal(mapped[:, 0], out)


def test_two_threads_at_once(wanted):
    """A program has nothing of a call's in itself: many calls of one may run side by side."""
    run, found = jax.jit(attend_with_lse), []

    def work():
        found.extend(run(Q, K, V) for _ in range(200))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    for one in found:
        assert_same(one, wanted[0])


def test_a_launch_that_many_threads_share():
    """Long enough for XLA's pool; bits depend on no thread."""
    problem = Problem(512, 512, MASK, batch=4, heads_q=8)
    arrays = problem.arrays()
    dout = problem.gradients()[0]
    out, vjp = splat.attention_vjp(*arrays, MASK)
    found, pull = jax.vjp(jax.jit(attend), *map(jnp.asarray, arrays))
    assert_array_equal(found, out)
    assert_same(pull(jnp.asarray(dout)), vjp(dout))


def test_mixed_arrays_agree_with_the_oracle_through_a_larger_function():
    """Where XLA makes q, k and v itself, they are contiguous whatever was done to them before."""

    def run(x):
        q, k, v = (x.swapaxes(2, 3) * factor for factor in (1.0, 2.0, 3.0))
        return attend(q, k, v)

    x = jnp.swapaxes(Q, 2, 3)
    q, k, v = (np.asarray(Q) * np.float32(factor) for factor in (1, 2, 3))
    dense = PROBLEM.dense_mask()
    assert_close(jax.jit(run)(x), reference.attention(q, k, v, dense), tolerance(q, k, v, dense)[0])
    dq, dk, dv = reference.attention_backward(np.asarray(DOUT), q, k, v, dense)
    bounds = gradient_tolerance(np.asarray(DOUT), q, k, v, dense)
    wanted = (dq + 2 * dk + 3 * dv).swapaxes(2, 3)
    allowed = (bounds[0] + 2 * bounds[1] + 3 * bounds[2] + 1e-6 * np.abs(dq + dk + dv)).swapaxes(2, 3)
    assert_close(jax.vjp(run, x)[1](DOUT)[0], wanted, allowed)


@pytest.mark.usefixtures("wanted")  # which compiles it
def test_windows_of_other_widths_run_the_same_code_forward_and_back():
    """Their numbers are words of the program, not of the text."""
    with notice.heard() as heard:
        for width in (3, 9):
            problem = Problem(40, 40, splat.window(width), batch=2, heads_q=2)
            check_gradients(problem)
            found = jax.jit(partial(attention, mask=problem.mask, layout="bhsd", return_lse=True))(Q, K, V)
            out, lse, vjp = splat.attention_vjp(Q, K, V, problem.mask, return_lse=True)
            assert_same(found, (out, lse))
            step = jax.jit(lambda *given, mask=problem.mask: attention(*given, mask=mask, layout="bhsd"))
            assert_same(jax.vjp(step, Q, K, V)[1](DOUT), vjp(DOUT))
    assert [one for one in heard if "window" in one.kernel] == []
