"""JAX's own arrays in CPU memory: computed as they read, or refused by name with what works instead."""

import re

import numpy as np
import pytest

import flurka_numba
import splat_numba as splat
from splat_numba.errors import ArgumentError, ArgumentTypeError

jax = pytest.importorskip("jax")
SHAPE = (1, 2, 24, 16)
Q = jax.numpy.asarray(np.random.default_rng(0).standard_normal(SHAPE, np.float32))


def attend(q, **options):
    return splat.attention(q, q, q, splat.causal(), **options)


TRANSFORMS = {
    "jit": lambda f: jax.jit(f)(Q),
    "grad": lambda f: jax.grad(lambda q: f(q).sum())(Q),
    "vmap": lambda f: jax.vmap(f)(Q[None]),
    "jvp": lambda f: jax.jvp(f, (Q,), (Q,)),
}


OTHERS = {
    "attention_vjp": lambda q: splat.attention_vjp(q, q, q, splat.causal())[0],
    "attention_backward": lambda q: splat.attention_backward(
        q, Q, Q, Q, Q, np.zeros((1, 2, 24), np.float32), splat.causal()
    ),
    "sddmm": lambda q: splat.sddmm(q, q, splat.causal()),
    "flurka": lambda q: flurka_numba.kernel_attention_vjp(q, q, q)[0],
}


@pytest.mark.parametrize("run", OTHERS)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_of_all_but_attention_are_refused(name, run):
    """tests/integrations/jax has what transforms of attention give."""
    with pytest.raises(ArgumentError) as caught:
        TRANSFORMS[name](OTHERS[run])
    assert re.match(
        r"d?(q|out) wanted as an array, got JAX's \w*Tracer: jit, grad, vmap and other transforms see into "
        r"splat_numba\.attention and flurka_numba's functions without _vjp\. "
        r"Call this outside them, or within jit by jax\.pure_callback; instead of vmap "
        r"give a batch axis\.$",
        str(caught.value),
    )


def test_a_callback_works_within_jit():
    run = jax.jit(lambda q: jax.pure_callback(attend, jax.ShapeDtypeStruct(SHAPE, np.float32), q))
    np.testing.assert_array_equal(run(Q), attend(Q))


def test_deleted_arrays_and_keys_are_refused():
    gone = Q + 1
    gone.delete()
    with pytest.raises(ArgumentError, match=r"^k wanted with its numbers, got a deleted array of JAX"):
        splat.attention(Q, gone, Q, splat.causal())
    with pytest.raises(ArgumentTypeError, match=r"^q wanted as an array of numbers, got JAX's PRNGKeyArray"):
        attend(jax.random.key(0))
    with pytest.raises(ArgumentTypeError, match=r"^q wanted as an array .* got ShapeDtypeStruct"):
        attend(jax.ShapeDtypeStruct(SHAPE, np.float32))


@pytest.mark.skipif(not hasattr(jax, "enable_x64"), reason="an older JAX, whose context has another name")
def test_float64_stays_float64_outside_x64_mode():
    with jax.enable_x64(True):
        wide = jax.numpy.asarray(np.asarray(Q, np.float64))
    out, lse = attend(wide, return_lse=True)
    assert (out.dtype, lse.dtype) == (np.float64, np.float64)
    np.testing.assert_array_equal(out, attend(np.asarray(wide)))
