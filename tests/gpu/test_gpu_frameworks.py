"""One mask object over the arrays of every framework on a GPU: the same bits."""

import numpy as np
import pytest

import splat_numba as splat
from tests.integrations.same_bits import MASKS, gradients_of, numbers

pytestmark = pytest.mark.gpu


def by_torch(plain):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch without a GPU")
    return [torch.from_numpy(one).cuda() for one in plain], lambda one: one.cpu().numpy()


def by_cupy(plain):
    cupy = pytest.importorskip("cupy")
    return [cupy.asarray(one) for one in plain], cupy.asnumpy


def by_jax(plain):
    jax = pytest.importorskip("jax")
    try:
        gpu = jax.devices("gpu")[0]
    except RuntimeError:
        pytest.skip("JAX without a GPU")
    return [jax.device_put(one, gpu) for one in plain], np.asarray


@pytest.mark.parametrize("mask", MASKS, ids=repr)
@pytest.mark.parametrize("make", [by_torch, by_cupy, by_jax])
def test_bits_are_those_of_numpy_s_arrays(make, mask):
    plain = numbers(np.float16, 64)
    there, back = make(plain)
    wanted = splat.attention(*plain[:3], mask, return_lse=True, backend="cuda")
    found = splat.attention(*there[:3], mask, return_lse=True)
    pairs = [
        *zip(found, wanted, strict=True),
        *zip(gradients_of(there, mask), gradients_of(plain, mask, backend="cuda"), strict=True),
    ]
    for one, two in pairs:
        np.testing.assert_array_equal(back(one), two)
