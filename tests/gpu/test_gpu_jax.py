"""JAX beside a GPU: its arrays there outside of transforms, those of the CPU within, and what is still missing."""

import numpy as np
import pytest

import splat_numba as splat

jax = pytest.importorskip("jax")
jnp = pytest.importorskip("jax.numpy")
pytestmark = pytest.mark.gpu
MASK = splat.window(100, 0) | splat.sinks(4)
SHAPES = (2, 4, 300, 64), (2, 2, 300, 64), (2, 2, 300, 64)
# Within JAX's transforms attention is an operation of the CPU alone (docs/jax.md). Strict: when it works, this goes.
missing = pytest.mark.xfail(strict=True, reason="attention within JAX's transforms runs on CPUs alone in this version")


@pytest.fixture
def gpu():
    try:
        return jax.devices("gpu")[0]
    except RuntimeError:
        pytest.skip("JAX without a GPU")


@pytest.fixture
def given(gpu):
    rng = np.random.default_rng(0)
    return [jax.device_put(rng.standard_normal(shape, np.float32), gpu).astype(jnp.bfloat16) for shape in SHAPES]


def attend(q, k, v):
    return splat.attention(q, k, v, MASK)


def loss(q, k, v):
    return (attend(q, k, v).astype(jnp.float32) ** 2).sum()


def test_arrays_of_the_cpu_are_taken_within_transforms(gpu):
    assert gpu.platform == "gpu"
    cpu, rng = jax.devices("cpu")[0], np.random.default_rng(0)
    plain = [rng.standard_normal(shape, np.float32) for shape in SHAPES]
    there = [jax.device_put(one, cpu) for one in plain]
    np.testing.assert_array_equal(jax.jit(attend)(*there), splat.attention(*plain, MASK))
    out, vjp = splat.attention_vjp(*plain, MASK)
    for found, wanted in zip(jax.jit(jax.grad(loss, (0, 1, 2)))(*there), vjp(2 * out), strict=True):
        np.testing.assert_array_equal(found, wanted)


@missing
def test_jit(given):
    np.testing.assert_array_equal(jax.jit(attend)(*given), attend(*given))


@missing
def test_grad(given):
    found = jax.jit(jax.grad(loss, (0, 1, 2)))(*given)
    out, vjp = splat.attention_vjp(*given, MASK)
    for one, two in zip(found, vjp(2 * out), strict=True):
        np.testing.assert_array_equal(one, two)


@missing
def test_vmap(given):
    q, k, v = given
    found = jax.vmap(attend, in_axes=(0, None, None))(jnp.stack([q, -q]), k, v)
    np.testing.assert_array_equal(found, jnp.stack([attend(q, k, v), attend(-q, k, v)]))


@missing
def test_scan(given):
    q, k, v = given
    found, _ = jax.jit(lambda q: jax.lax.scan(lambda x, _: (attend(x, k, v), None), q, length=20))(q)
    wanted = q
    for _ in range(20):
        wanted = attend(wanted, k, v)
    np.testing.assert_array_equal(found, wanted)


@missing
def test_command_buffers(given):
    """A chain of calls, which XLA captures into a CUDA graph where all of them may be, replayed over other numbers."""
    q, k, v = given

    @jax.jit
    def chain(q):
        for _ in range(8):
            q = attend(q, k, v)
        return q

    for factor in (1, -1, 2):
        wanted = q * factor
        for _ in range(8):
            wanted = attend(wanted, k, v)
        np.testing.assert_array_equal(chain(q * factor), wanted)
