"""Calls with numbers far from 1, whose squares and products are beyond float32, against the oracle."""

import numpy as np

from tests.flurka.strategies import Case

SMALL = Case(seq_q=4, seq_kv=6, rank=3, head_dim=8, value_dim=4, heads=1)
# (method, map, how large q and k are). favor has 8 rows, with which 1e-4 / sqrt(rows) is rounded in two ways; at 1e-20
# the right gradient of q is nothing but what float32 rounds away, and so it is with elu.
FAR = [
    ("kernel", "elu", 1e19),
    ("kernel", "elu", 1e30),
    ("kernel", "relu", 1e-20),
    ("flurka", "elu", 1e30),
    ("kernel", "favor", 1e30),
    ("kernel", "rfa", 1e-30),
    ("kernel", "rfa", 1e30),
    ("low_rank", "elu", 1e-15),
    ("low_rank", "elu", 1e30),
]


def check_far(method, phi, size, backend, *, target=None, precision=1.0, **changes):
    """size: of q and k, or for each batch entry; precision: of the numbers, in those of float32. Raise AssertionError
    unless out and gradients are right.
    """
    case = SMALL.but(method=method, feature_map=phi, eps=0.0 if phi == "relu" else None, **changes)
    arrays, dout = case.arrays(), case.dout()
    for name in ("q", "k"):
        signed = arrays[name] if phi in ("favor", "rfa") or method != "kernel" else np.abs(arrays[name])
        far = signed.astype(np.float32) * np.reshape(np.array(size, np.float32), (-1, 1, 1, 1))
        arrays[name] = far.astype(signed.dtype)
    out, vjp = case.run_vjp(arrays, backend=backend, target=target)
    wanted, wanted_vjp = case.wanted_vjp(arrays)
    out = out.astype(np.float32)
    np.testing.assert_allclose(out, wanted, rtol=1e-4 * precision, atol=1e-5 * precision)
    for got, right in zip(vjp(dout), wanted_vjp(dout), strict=True):
        assert (got is None) == (right is None)
        for one, other in zip(got if got is not None else (), right if got is not None else (), strict=True):
            far = 2e-5 * precision * np.abs(other).max()
            np.testing.assert_allclose(one.astype(np.float32), other, rtol=0, atol=far)
