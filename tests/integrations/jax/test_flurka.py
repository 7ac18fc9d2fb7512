"""flurka_numba's functions under JAX's transforms: the bits of the NumPy calls."""

from functools import partial

import ml_dtypes
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import flurka_numba
from splat_numba.errors import ArgumentError, BackendError

jax = pytest.importorskip("jax", reason="JAX is not installed")
import jax.numpy as jnp  # noqa: E402 - after the skip

BATCH, HEADS, SEQ, DIM, RANK = 3, 2, 12, 8, 4
LENGTHS = np.array([12, 7, 0])
OMEGA = flurka_numba.draw_orthogonal_features(8, DIM, seed=0)
# (function, its gradients, projections, options)
CASES = {
    "flurka": (flurka_numba.attention, flurka_numba.attention_vjp, 2, {}),
    "one projection": (flurka_numba.attention, flurka_numba.attention_vjp, 1, {}),
    "low_rank": (flurka_numba.low_rank_attention, flurka_numba.low_rank_attention_vjp, 2, {"scale": -0.5}),
    "kernel": (flurka_numba.kernel_attention, flurka_numba.kernel_attention_vjp, 0, {}),
    "favor": (
        flurka_numba.kernel_attention, flurka_numba.kernel_attention_vjp, 0, {"feature_map": "favor", "omega": OMEGA},
    ),
}  # fmt: skip


def operands(projections, dtype=np.float32, seq=SEQ):
    """q, k, v and projections, and a gradient of the result."""
    rng = np.random.default_rng(0)
    made = [rng.standard_normal((BATCH, HEADS, seq, DIM)).astype(dtype) for _ in range(4)]
    return [*made[:3], *((rng.standard_normal((RANK, seq)) / 4).astype(dtype) for _ in range(projections))], made[3]


def pulled(run, arrays, dout):
    """(out, gradients) of a jitted function."""

    @jax.jit
    def step(dout, *arrays):
        out, pull = jax.vjp(run, *arrays)
        return out, pull(dout)

    return step(dout, *arrays)


def assert_same(found, wanted):
    for one, two in zip(found, wanted, strict=True):
        assert_array_equal(np.asarray(one), np.asarray(two))


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
@pytest.mark.parametrize("name", CASES)
def test_results_and_gradients(name, lengths):
    run, with_vjp, projections, options = CASES[name]
    arrays, dout = operands(projections)
    options = options | {"kv_lengths": lengths}
    wanted, vjp = with_vjp(*arrays, **options)
    out, slopes = pulled(partial(run, **options), arrays, dout)
    assert_array_equal(out, wanted)
    assert_same(slopes, [one for one in vjp(dout) if one is not None])


def test_16_bits_and_a_projection_a_head():
    arrays, dout = operands(0, ml_dtypes.bfloat16)
    proj = np.random.default_rng(1).standard_normal((HEADS, RANK, SEQ)).astype(ml_dtypes.bfloat16)
    wanted, vjp = flurka_numba.attention_vjp(*arrays, proj)
    out, slopes = pulled(flurka_numba.attention, [*arrays, proj], dout)
    assert_array_equal(out, wanted)
    assert_same(slopes, vjp(dout)[:4])


def test_sums_that_are_cut_into_splits():
    arrays, dout = operands(1, seq=2100)
    wanted, vjp = flurka_numba.attention_vjp(*arrays)
    out, slopes = pulled(flurka_numba.attention, arrays, dout)
    assert_array_equal(out, wanted)
    assert_same(slopes, vjp(dout)[:4])


def test_numbers_that_are_not_finite():
    arrays, dout = operands(2)
    for name in ("flurka", "low_rank"):
        run, with_vjp, *_ = CASES[name]
        for place, bad in ((0, np.nan), (1, np.inf), (1, 1e30), (2, np.nan), (3, np.inf)):
            given = [one.copy() for one in arrays]
            given[place][(1, 1, 3, 2)[-given[place].ndim :]] = bad
            with np.errstate(all="ignore"):
                wanted, vjp = with_vjp(*given)
                gradients = vjp(dout)
            out, slopes = pulled(run, given, dout)
            assert_array_equal(out, wanted)
            assert_same(slopes, gradients)


def test_mapped_axes():
    (q, k, v, proj), _ = operands(1)
    wanted = flurka_numba.attention(q, k, v, proj)
    run = flurka_numba.attention
    assert_array_equal(jax.vmap(run, in_axes=(0, 0, 0, None))(q, k, v, proj), wanted)
    assert_array_equal(jax.vmap(jax.vmap(run, (0, 0, 0, None)), (0, 0, 0, None))(q, k, v, proj), wanted)
    own = np.stack([proj, 2 * proj, proj - 1])
    each = [run(*entry) for entry in zip(q, k, v, own, strict=True)]
    assert_array_equal(jax.jit(jax.vmap(run))(q, k, v, own), np.stack(each))
    lengths = jax.vmap(lambda q, n: run(q, q, q, proj, kv_lengths=n), in_axes=(0, 0))(q[:, None], LENGTHS[:, None])
    assert_array_equal(lengths[:, 0], run(q, q, q, proj, kv_lengths=LENGTHS))


def test_gradients_of_mapped_axes():
    (q, k, v, proj), _ = operands(1)

    def loss(q, k, v, proj):
        return flurka_numba.attention(q, k, v, proj).sum()

    slope = jax.grad(loss, (0, 3))
    each = [slope(*entry, proj) for entry in zip(q, k, v, strict=True)]
    assert_same(jax.vmap(slope, (0, 0, 0, None))(q, k, v, proj), map(np.stack, zip(*each, strict=True)))
    whole = jax.grad(lambda q, k, v, proj: jax.vmap(loss, (0, 0, 0, None))(q, k, v, proj).sum(), (0, 3))
    shared = whole(q, k, v, proj)
    assert_array_equal(shared[0], np.stack([one[0] for one in each]))
    np.testing.assert_allclose(shared[1], np.sum([one[1] for one in each], 0), rtol=1e-5, atol=1e-5)

    def number(q):
        return flurka_numba.kernel_attention(q, q, q).sum()

    assert_array_equal(jax.vmap(jax.grad(number))(q), np.stack([jax.grad(number)(one) for one in q]))


def test_scan_and_checkpoint():
    (q, k, v, proj), _ = operands(1)
    found, _ = jax.jit(lambda q: jax.lax.scan(lambda x, _: (flurka_numba.attention(x, k, v, proj), None), q, length=3))(
        q
    )
    wanted = q
    for _ in range(3):
        wanted = flurka_numba.attention(wanted, k, v, proj)
    assert_array_equal(found, wanted)

    def loss(q):
        return flurka_numba.attention(q, k, v, proj).sum()

    assert_array_equal(jax.jit(jax.grad(jax.checkpoint(loss)))(q), jax.grad(loss)(jnp.asarray(q)))


def test_random_rows_that_jax_has():
    (q, k, v), _ = operands(0)
    favor = partial(flurka_numba.kernel_attention, feature_map="favor")
    omega = jnp.asarray(OMEGA, jnp.float32)
    found = jax.jit(lambda omega: favor(q, k, v, omega=omega))(omega)
    assert_array_equal(found, favor(q, k, v, omega=np.asarray(omega)))


@pytest.mark.parametrize("projections", [{"proj_k": (RANK, SEQ)}, {"proj_k": (HEADS, RANK, SEQ)}], ids=["b", "a"])
def test_a_layer(projections):
    rng = np.random.default_rng(2)
    names = dict.fromkeys(("w_q", "w_k", "w_v", "w_o"), (HEADS * DIM,) * 2) | projections
    weights = {name: (rng.standard_normal(shape) / 4).astype(np.float32) for name, shape in names.items()}
    x, dout = (rng.standard_normal((2, SEQ, HEADS * DIM)).astype(np.float32) for _ in range(2))
    out, vjp = flurka_numba.FlurkaLayer(**weights, heads=HEADS).vjp(x)

    def run(weights, x):
        return flurka_numba.FlurkaLayer(**weights, heads=HEADS)(x)

    found, pull = jax.vjp(jax.jit(run), weights, x)
    np.testing.assert_allclose(found, out, rtol=1e-4, atol=1e-5)  # products with weights are XLA's
    wanted, (slopes, dx) = vjp(dout), pull(dout)
    for name, one in (*slopes.items(), ("x", dx)):
        np.testing.assert_allclose(one, wanted[name], rtol=1e-3, atol=1e-4)


ARRAYS, _ = operands(0)
Q = jnp.asarray(ARRAYS[0])
kernel = flurka_numba.kernel_attention
REFUSED = {
    "forward mode": (
        lambda: jax.jvp(kernel, (Q, Q, Q), (Q, Q, Q)), ArgumentError, "q, k and v wanted without tangents",
    ),
    "twice": (
        lambda: jax.grad(lambda q: jax.grad(lambda q: kernel(q, q, q).sum())(q).sum())(Q),
        ArgumentError, "q, k and v wanted to be differentiated once",
    ),
    "of omega": (
        lambda: jax.grad(lambda w: kernel(Q, Q, Q, feature_map="rfa", omega=w).sum())(jnp.ones((8, DIM))),
        ArgumentError, "omega wanted without a gradient, got one asked for by JAX",
    ),
    "out": (
        lambda: jax.jit(lambda q: kernel(q, q, q, out=np.zeros(Q.shape, np.float32)))(Q),
        ArgumentError, "out wanted left out under JAX's transforms",
    ),
    "another place": (
        lambda: jax.jit(lambda q: kernel(q, q, q, backend="emulate"))(Q),
        BackendError, "backend wanted as 'auto', 'cpu' or 'cuda' under JAX's transforms, got 'emulate'",
    ),
    "gradients as functions": (
        lambda: jax.jit(lambda q: flurka_numba.kernel_attention_vjp(q, q, q)[0])(Q),
        ArgumentError, "q wanted as an array, got JAX's",
    ),
    "shapes": (
        lambda: jax.jit(lambda q: flurka_numba.attention(q, q, q, jnp.ones((RANK, 5))))(Q),
        ArgumentError, "proj_k wanted as (rank, seq_kv)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    run, error, start = REFUSED[name]
    with pytest.raises(error) as caught:
        run()
    assert str(caught.value).startswith(start)


def test_lengths_out_of_range_are_found_when_they_are_read():
    run = jax.jit(lambda n: kernel(Q, Q, Q, kv_lengths=n))
    with pytest.raises(jax.errors.JaxRuntimeError, match="kv_lengths wanted between 0 and seq_kv = 12, got others"):
        run(jnp.array([3, 13, 1]))[0].block_until_ready()
    assert_array_equal(run(jnp.array([3, 12, 1])), kernel(Q, Q, Q, kv_lengths=[3, 12, 1]))
