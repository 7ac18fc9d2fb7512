"""Key lengths on a GPU are read by kernels alone: beyond the keys they count as all, and no other memory is read."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import splat_numba as splat
from splat_numba.executors import host_gradients
from splat_numba.executors.emulated import executor as emulated

KEYS = 70
BEYOND = {0: 0, 33: 33, KEYS: KEYS, -1: KEYS, 71: KEYS, 2**31 - 1: KEYS}  # the last one has no other rows behind it


@pytest.mark.parametrize(("target", "dtype"), [("simt", "float32"), ("sm80", "float16"), ("sm80", "float32")])
def test_lengths_beyond_the_keys_are_all_keys(target, dtype, monkeypatch):
    rng = np.random.default_rng(7)
    q, k, v, dout = (rng.standard_normal((len(BEYOND), 1, KEYS, 8)).astype(dtype) for _ in range(4))
    given = {"target": target, "backend": "emulate"}

    def results():
        out, vjp = splat.attention_vjp(q, k, v, splat.full(), kv_lengths=[*BEYOND.values()], **given)
        return out, *vjp(dout)

    wanted = results()
    for module in (emulated, host_gradients):
        monkeypatch.setattr(module, "check_kv_lengths", lambda *_: np.array([*BEYOND], np.int64), raising=True)
    for found, right in zip(results(), wanted, strict=True):
        assert_array_equal(found, right)
