"""What attention does not do inside JAX: an error of ours while JAX traces, a readable one of JAX's while it runs."""

from functools import partial

import numpy as np
import pytest

import splat_numba as splat
from splat_numba.errors import ArgumentError, ArgumentTypeError, BackendError, PatternError

jax = pytest.importorskip("jax", reason="JAX is not installed")
import jax.numpy as jnp  # noqa: E402 - after the skip

from splat_numba.integrations.jax import attention  # noqa: E402

MASK = splat.window(5)
Q = jnp.asarray(np.random.default_rng(0).standard_normal((2, 40, 2, 16), np.float32))
WIDE = np.zeros((2, 40, 2, 16))


def attend(q, mask=MASK, **options):
    return attention(q, q, q, mask, **options)


def number(q):
    return attend(q).sum()


FORWARD_MODE = (
    "q, k and v wanted without tangents: attention has no forward-mode derivative in JAX (jvp, jacfwd, linearize, "
    "hessian). Take first derivatives by grad, vjp or jacrev."
)
SECOND = (
    "q, k and v wanted to be differentiated once, got a derivative of attention's gradient (grad of grad, hessian), "
    "which has none in this version. Take first derivatives by grad, vjp or jacrev."
)
REFUSED = {
    "jvp": (lambda: jax.jvp(attend, (Q,), (Q,)), ArgumentError, FORWARD_MODE),
    "jacfwd": (lambda: jax.jacfwd(attend)(Q), ArgumentError, FORWARD_MODE),
    "hessian": (lambda: jax.hessian(number)(Q), ArgumentError, SECOND),
    "grad of grad": (lambda: jax.grad(lambda q: jax.grad(number)(q).sum())(Q), ArgumentError, SECOND),
    "jit of grad of grad": (
        lambda: jax.jit(jax.grad(lambda q: jax.grad(number)(q).sum()))(Q), ArgumentError, SECOND,
    ),
    "a traced mask": (
        lambda: jax.jit(attend)(Q, jnp.ones((40, 40), bool)), ArgumentError,
        "mask wanted known while JAX traces, got its DynamicJaxprTracer: a kernel is made for the mask. Give a "
        "Pattern, an ACSR or a NumPy array, by a closure or static_argnums.",
    ),
    "a traced mask alone": (
        lambda: jax.jit(partial(attend, Q))(jnp.ones((40, 40), bool)), ArgumentError,
        "mask wanted known while JAX traces, got its DynamicJaxprTracer: a kernel is made for the mask. Give a "
        "Pattern, an ACSR or a NumPy array, by a closure or static_argnums.",
    ),
    "a mask of other lengths": (
        lambda: jax.jit(partial(attend, mask=np.ones((40, 39), bool)))(Q), ArgumentError,
        "mask wanted of shape (40, 40), got (40, 39): a mask is never broadcast or cut. Build it for these lengths, or "
        "use a Pattern, which fits all.",
    ),
    "a pattern of other lengths": (
        lambda: jax.jit(partial(attend, mask=splat.documents([39])))(Q), PatternError, "documents",
    ),
    "integers": (
        lambda: jax.jit(attend)(Q.astype(int)), ArgumentTypeError,
        "q wanted as float16, bfloat16, float32, float64, got int32. "
        "Convert it, for example with q.astype(jax.numpy.float32).",
    ),
    "float64 without x64": (
        lambda: attend(WIDE), ArgumentTypeError,
        "q wanted as a type that JAX keeps, got float64, which it makes float32 of. Convert q to float32, or set "
        "jax_enable_x64.",
    ),
    "a list": (
        lambda: attend([[1.0]]), ArgumentTypeError,
        "q wanted as an array of JAX or NumPy, got list. Convert it with jax.numpy.asarray(q).",
    ),
    "two dtypes": (
        lambda: jax.jit(lambda q: attention(q, q.astype(jnp.bfloat16), q, MASK))(Q), ArgumentTypeError,
        "k wanted as float32 as q is, got bfloat16. Convert one of them.",
    ),
    "other key lengths": (
        lambda: jax.jit(lambda q, n: attend(q, kv_lengths=n))(Q, jnp.zeros(3, int)), ArgumentError,
        "kv_lengths wanted of shape (2,), got (3,). Give one length a batch entry.",
    ),
    "fractions as key lengths": (
        lambda: jax.jit(lambda q, n: attend(q, kv_lengths=n))(Q, jnp.zeros(2)), ArgumentTypeError,
        "kv_lengths wanted as integers, got float32. Convert them with .astype(np.int64).",
    ),
    "known key lengths": (
        lambda: jax.jit(partial(attend, kv_lengths=[40, 41]))(Q), ArgumentError,
        "kv_lengths wanted between 0 and seq_kv = 40, got [40, 41]. Correct them.",
    ),
    "another argument": (
        lambda: attend(Q, is_causal=True), ArgumentTypeError,
        "is_causal wanted left out, because attention has no such argument. Give a mask: splat_numba.causal(), or "
        "splat_numba.causal().align_end() where the queries are the last tokens.",
    ),
    "out": (
        lambda: jax.jit(lambda q: splat.attention(q, q, q, MASK, out=np.empty(q.shape, np.float32)))(Q), ArgumentError,
        "out wanted left out under JAX's transforms, whose arrays cannot be written to. Leave it out.",
    ),
    "the emulator": (
        lambda: jax.jit(lambda q: splat.attention(q, q, q, MASK, backend="emulate"))(Q), BackendError,
        "backend wanted as 'auto', 'cpu' or 'cuda' under JAX's transforms, got 'emulate'. Leave it out, or call it "
        "outside them.",
    ),
    "sizes without a number": (
        lambda: jax.export.export(jax.jit(attend))(
            jax.ShapeDtypeStruct(jax.export.symbolic_shape("batch, 40, 2, 16"), np.float32)
        ), ArgumentError, "q wanted with known sizes, got shape (batch, 40, 2, 16). Export for sizes that are numbers.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name):
    run, kind, message = REFUSED[name]
    with pytest.raises(kind) as caught:
        run()
    assert str(caught.value) == message or (message == "documents" and "39" in str(caught.value))


def test_forward_mode_through_jit_names_itself():
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(jax.jit(attend), (Q,), (Q,))


@pytest.mark.parametrize("lengths", [[41, 0], [0, -1], [2**31, 1]])
def test_lengths_out_of_range_are_an_error_of_jaxs_and_the_next_call_works(lengths):
    run = jax.jit(lambda q, n: attend(q, kv_lengths=n))
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        given = jnp.asarray(lengths, jnp.int64)
        with pytest.raises(
            jax.errors.JaxRuntimeError,
            match=r"^INVALID_ARGUMENT: kv_lengths wanted between 0 and seq_kv = 40, got others\. Correct them\.",
        ):
            run(Q, given).block_until_ready()
        fitting = jnp.asarray([40, 3], jnp.int64)
        wanted = splat.attention(*[np.asarray(Q)] * 3, MASK, layout="bshd", kv_lengths=[40, 3])
        np.testing.assert_array_equal(run(Q, fitting), wanted)
