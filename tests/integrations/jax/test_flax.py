"""Flax's layers with our attention: the example at reduced size, and what the function refuses by name."""

from functools import partial

import numpy as np
import pytest

import splat_numba as splat
from splat_numba import reference
from splat_numba.errors import ArgumentError
from splat_numba.testing import assert_close, tolerance

jax = pytest.importorskip("jax", reason="JAX is not installed")
pytest.importorskip("flax", reason="Flax is not installed")
import jax.numpy as jnp  # noqa: E402 - after the skips
from flax import linen, nnx  # noqa: E402

from splat_numba.integrations.jax import attention_fn  # noqa: E402

MASK = splat.window(5)
Q, K, V = (np.random.default_rng(seed).standard_normal((3, 2, 40, 2, 16)).astype(np.float32) for seed in range(3))


@pytest.mark.parametrize("api", ["linen", "nnx"])
def test_the_example_trains_as_dense_attention_does(api):
    pytest.importorskip("optax", reason="optax is not installed")
    from examples import jax_flax_attention as example

    losses, _ = example.train(api, attention_fn(example.MASK), 12, 64, 4)
    wanted, _ = example.train(api, example.dense, 12, 64, 4)
    np.testing.assert_allclose(losses, wanted, rtol=2e-4)  # rounding, twelve steps on
    assert losses[-1] < losses[0] - 1


def test_the_example_draws_its_losses(tmp_path):
    pytest.importorskip("optax", reason="optax is not installed")
    pytest.importorskip("matplotlib", reason="Matplotlib is not installed")
    from examples import jax_flax_attention as example

    picture = tmp_path / "losses.png"
    example.plot({"nnx dense": ([3.0, 2.0], 0.1), "nnx splat": ([3.0, 2.0], 0.1)}, str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_any_number_of_batch_axes():
    found = attention_fn(MASK)(Q, K, V)
    flat = [x.reshape(6, 40, 2, 16) for x in (Q, K, V)]
    mask = splat.ACSR.from_pattern(MASK, 40, 40).to_dense()
    wanted = reference.attention(*flat, mask, layout="bshd")
    allowed, _ = tolerance(*flat, mask, layout="bshd")
    assert_close(found.reshape(wanted.shape), wanted, allowed)
    np.testing.assert_array_equal(attention_fn(MASK)(Q[0, 0], K[0, 0], V[0, 0]), found[0, 0])


def test_types_are_promoted_as_flax_does():
    half = jnp.asarray(Q, jnp.bfloat16)
    assert attention_fn(MASK)(half, K, V).dtype == jnp.float32
    assert attention_fn(MASK)(half, half, half).dtype == jnp.bfloat16
    assert attention_fn(MASK)(Q, K, V, dtype=jnp.bfloat16).dtype == jnp.bfloat16


def test_a_scale_of_ones_own():
    found = attention_fn(MASK, scale=0.5)(Q[0], K[0], V[0])
    np.testing.assert_array_equal(found, splat.attention(Q[0], K[0], V[0], MASK, layout="bshd", scale=0.5))


X = jnp.ones((1, 40, 32))
ALL = jnp.ones((1, 1, 40, 40), bool)
call = partial(attention_fn(MASK), Q, K, V)


def linen_layer(**options):
    call_options = {name: options.pop(name) for name in ("mask", "deterministic", "sow_weights") if name in options}
    layer = linen.MultiHeadDotProductAttention(num_heads=2, attention_fn=attention_fn(MASK), **options)
    return layer.init_with_output({"params": jax.random.key(0), "dropout": jax.random.key(1)}, X, **call_options)[0]


def nnx_layer(**options):
    mask = options.pop("mask", None)
    layer = nnx.MultiHeadAttention(2, 32, decode=False, attention_fn=attention_fn(MASK), rngs=nnx.Rngs(0), **options)
    return layer(X, mask=mask)


REFUSED = {
    "mask": (
        lambda: call(mask=ALL),
        "Call the layer without one, and give what it keeps to attention_fn(mask).",
    ),
    "bias": (lambda: call(ALL), "This version adds nothing to the scores: leave it out."),
    "is_causal": (
        lambda: call(is_causal=True),
        "Write it into the mask: attention_fn(splat_numba.causal() & ...).",
    ),
    "input_positions": (
        lambda: call(input_positions=jnp.arange(40)),
        "Positions follow from the order of tokens: leave them out.",
    ),
    "dropout_rate": (
        lambda: call(dropout_rate=0.5, deterministic=False),
        "This version has no dropout: make the layer with dropout_rate=0.0, or call it deterministic.",
    ),
    "mask of linen": (lambda: linen_layer(mask=ALL), "Call the layer without one"),
    "mask of nnx": (lambda: nnx_layer(mask=ALL), "Call the layer without one"),
    "dropout_rate of linen": (lambda: linen_layer(dropout_rate=0.5, deterministic=False), "This version has no"),
    "dropout_rate of nnx": (lambda: nnx_layer(dropout_rate=0.5, deterministic=False), "This version has no"),
    "module of linen": (lambda: linen_layer(sow_weights=True), "Weights are never stored"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_would_have_to_leave_out_is_refused(name):
    run, advice = REFUSED[name]
    with pytest.raises(ArgumentError) as caught:
        run()
    assert str(caught.value).startswith(f"{name.partition(' ')[0]} wanted left out of attention_fn's function, got ")
    assert advice in str(caught.value)


def test_dropout_that_is_switched_off_is_welcome():
    assert linen_layer(dropout_rate=0.5, deterministic=True).shape == X.shape
    assert nnx_layer(dropout_rate=0.5, deterministic=True).shape == X.shape
