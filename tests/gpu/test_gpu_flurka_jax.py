"""flurka_numba within JAX's transforms on a GPU, beside calls outside of them: the same bits."""

import numpy as np
import pytest

import flurka_numba
from tests.profiles import by_place

jax = pytest.importorskip("jax")
jnp = pytest.importorskip("jax.numpy")
pytestmark = pytest.mark.gpu
SHAPE, RANK = (2, 4, 512, 64), 64
PROJECTED = ("q", "k", "v", "proj")
CASES = {
    "flurka": (flurka_numba.attention, PROJECTED, {}),
    "low rank": (flurka_numba.low_rank_attention, PROJECTED, {}),
    "kernel": (flurka_numba.kernel_attention, ("q", "k", "v"), {}),
    "lengths": (flurka_numba.attention, PROJECTED, {"kv_lengths": np.array([512, 100])}),
    "random": (
        flurka_numba.kernel_attention, ("q", "k", "v"),
        {"feature_map": "favor", "omega": np.random.default_rng(1).standard_normal((64, 64))},
    ),
}  # fmt: skip
every_case = pytest.mark.parametrize(("case", "dtype"), by_place(CASES, ["bfloat16", "float16", "float32"]))


@pytest.fixture
def gpu():
    try:
        return jax.devices("gpu")[0]
    except RuntimeError:
        pytest.skip("JAX without a GPU")


def given_on(device, names, dtype="bfloat16"):
    rng = np.random.default_rng(0)
    shapes = {**dict.fromkeys(("q", "k", "v"), SHAPE), "proj": (RANK, SHAPE[2])}
    every = {name: rng.standard_normal(shape) / 4 for name, shape in shapes.items()}
    return [jax.device_put(jnp.asarray(every[name], dtype), device) for name in names]


@every_case
def test_jit(gpu, case, dtype):
    function, names, options = CASES[case]
    given = given_on(gpu, names, dtype)
    found = jax.jit(lambda *x: function(*x, **options))(*given)
    np.testing.assert_array_equal(found, function(*given, **options))


@every_case
def test_gradients(gpu, case, dtype):
    """Those of tokens behind a projection end with a product of XLA's, which may be another one outside of jit."""
    function, names, options = CASES[case]
    given = given_on(gpu, names, dtype)

    def loss(*x):
        return function(*x, **options).astype(jnp.float32).sum()

    found = jax.jit(jax.grad(loss, tuple(range(len(given)))))(*given)
    out, vjp = getattr(flurka_numba, f"{function.__name__}_vjp")(*given, **options)
    wanted = [one for one in vjp(jnp.ones_like(out)) if one is not None]
    for one, two in zip(found, wanted, strict=True):
        one, two = (np.asarray(x, np.float32) for x in (one, two))  # noqa: PLW2901 - the same numbers
        np.testing.assert_allclose(one, two, rtol=0, atol=np.abs(two).max() * (1e-5 if dtype == "float32" else 2**-7))


def test_scan_vmap_and_remat(gpu):
    q, k, v, proj = given_on(gpu, PROJECTED)

    def attend(q):
        return flurka_numba.attention(q, k, v, proj)

    found, _ = jax.jit(lambda q: jax.lax.scan(lambda x, _: (attend(x), None), q, length=20))(q)
    wanted = q
    for _ in range(20):
        wanted = attend(wanted)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(jax.vmap(attend)(jnp.stack([q, -q])), jnp.stack([attend(q), attend(-q)]))
    losses = [lambda q, f=f: f(f(q)).astype(jnp.float32).sum() for f in (attend, jax.checkpoint(attend))]
    plain, again = (jax.jit(jax.grad(one))(q) for one in losses)
    np.testing.assert_array_equal(plain, again)


def test_a_training_step_again_and_again(gpu):
    """Captured in a graph after a few runs: its launches overlap outside of one."""
    given = given_on(gpu, PROJECTED)
    step = jax.jit(jax.grad(lambda *x: flurka_numba.attention(*x).astype(jnp.float32).sum(), (0, 1, 2, 3)))
    first = step(*given)
    for _ in range(6):
        for one, two in zip(step(*given), first, strict=True):
            np.testing.assert_array_equal(one, two)


def test_a_layer(gpu):
    rng = np.random.default_rng(0)
    x = jax.device_put(jnp.asarray(rng.standard_normal((2, 512, 256)), jnp.bfloat16), gpu)
    weights = [jax.device_put(jnp.asarray(rng.standard_normal((256, 256)) / 16, jnp.bfloat16), gpu) for _ in range(4)]
    proj = jax.device_put(jnp.asarray(rng.standard_normal((RANK, 512)) / 16, jnp.bfloat16), gpu)

    def layer(x, proj, *weights):
        q, k, v = ((x @ w).reshape(2, 512, 4, 64).swapaxes(1, 2) for w in weights[:3])
        return flurka_numba.attention(q, k, v, proj).swapaxes(1, 2).reshape(x.shape) @ weights[3]

    found = jax.jit(layer)(x, proj, *weights)
    np.testing.assert_allclose(
        np.asarray(found, np.float32), np.asarray(layer(x, proj, *weights), np.float32), rtol=0.1, atol=0.1
    )


def test_rows_that_are_copied(gpu):
    """Of 13 numbers, and of 507 in the projections."""
    given = [one[..., :507, :13] if one.ndim == 4 else one[:, :507] for one in given_on(gpu, PROJECTED)]
    np.testing.assert_array_equal(jax.jit(flurka_numba.attention)(*given), flurka_numba.attention(*given))

    def loss(*x):
        return flurka_numba.attention(*x).astype(jnp.float32).sum()

    found = jax.jit(jax.grad(loss, (0, 1, 2, 3)))(*given)
    out, vjp = flurka_numba.attention_vjp(*given)
    wanted = [one for one in vjp(jnp.ones_like(out)) if one is not None]
    for one, two in zip(found, wanted, strict=True):
        one, two = (np.asarray(x, np.float32) for x in (one, two))  # noqa: PLW2901 - the same numbers
        np.testing.assert_allclose(one, two, rtol=0, atol=np.abs(two).max() * 2**-7)
