"""What gradients of every target whose texts read by address are tested with: masks, and what reaches nothing."""

import numpy as np
from numpy.testing import assert_array_equal

import splat_numba as splat
from splat_numba import attention_vjp

WINDOW = splat.window(20, 3) | splat.sinks(2)
MASKS = [splat.window(9), splat.causal(), splat.strided(3), splat.window(9)]
HOLED = np.random.default_rng(3).random((70, 50)) < 0.2
HOLED[3:9] = HOLED[:, 20:31] = False


def check_rows_that_keep_nothing(problem, target):
    """Zeros, whatever the gradients of their results are. problem: of HOLED."""
    q, k, v = problem.arrays()
    dout, dlse = problem.gradients()
    given = {"backend": "emulate", "target": target}
    wanted = attention_vjp(q, k, v, problem.mask, **given)[1](dout, dlse)
    dout[..., 3:9, :], dlse[..., 3:9] = np.nan, np.inf
    found = attention_vjp(q, k, v, problem.mask, **given)[1](dout, dlse)
    for one, two in zip(found, wanted, strict=True):
        assert_array_equal(one, two)
    assert_array_equal(found[0][..., 3:9, :], 0)


def check_keys_beyond_their_length(problem, target):
    """They never reach anything."""
    q, k, v = problem.arrays()
    dout, _ = problem.gradients()
    given = {"backend": "emulate", "target": target, "kv_lengths": problem.kv_lengths}
    wanted = attention_vjp(q, k, v, problem.mask, **given)[1](dout)
    for entry, length in enumerate(problem.kv_lengths):
        k[entry, :, length:] = v[entry, :, length:] = np.nan
    found = attention_vjp(q, k, v, problem.mask, **given)[1](dout)
    for one, two in zip(found, wanted, strict=True):
        assert_array_equal(one, two)
