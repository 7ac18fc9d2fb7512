"""One mask object over NumPy's, PyTorch's and JAX's arrays on the CPU: the same bits, forward and back."""

import numpy as np
import pytest

import splat_numba as splat
from tests.integrations.same_bits import MASKS, gradients_of, numbers


def by_torch(plain, mask):
    """(out, lse, dq, dk, dv) by autograd."""
    torch = pytest.importorskip("torch")
    *given, dout = map(torch.from_numpy, plain)
    leaves = [one.requires_grad_() for one in given]
    out, lse = splat.attention(*leaves, mask, return_lse=True)
    return [one.detach().numpy() for one in (out, lse, *torch.autograd.grad(out, leaves, dout))]


def by_jax(plain, mask):
    """(out, lse, dq, dk, dv) by vjp, jitted."""
    jax = pytest.importorskip("jax")

    @jax.jit
    def run(q, k, v, dout):
        (out, lse), pull = jax.vjp(lambda q, k, v: splat.attention(q, k, v, mask, return_lse=True), q, k, v)
        return (out, lse, *pull((dout, jax.numpy.zeros_like(lse))))

    return map(np.asarray, run(*plain))


@pytest.mark.parametrize("mask", MASKS, ids=repr)
@pytest.mark.parametrize("run", [by_torch, by_jax])
def test_bits_are_those_of_numpy_s_arrays(run, mask):
    plain = numbers(np.float32, 16)
    wanted = [*splat.attention(*plain[:3], mask, return_lse=True), *gradients_of(plain, mask)]
    for one, two in zip(run(plain, mask), wanted, strict=True):
        np.testing.assert_array_equal(one, two)
