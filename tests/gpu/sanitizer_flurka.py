"""One small call of every way through flurka_numba on a GPU, for `compute-sanitizer --tool memcheck` (or racecheck).

Run `python -m tests.gpu.sanitizer_flurka [name ...]` from the root of the repository; gradients and layers need CuPy,
whose arrays start faster under the tool than PyTorch's. Exit status 1 on a wrong result.
"""

from __future__ import annotations

import sys
from functools import partial

import numpy as np

from flurka_numba.checks import ARRAYS
from tests.flurka.agreement import check_forward
from tests.flurka.error_bound import assert_close, tolerance
from tests.flurka.layer_queries import USUAL as QUERIES
from tests.flurka.layer_queries import check as check_queries
from tests.flurka.strategies import Case
from tests.flurka.targets.sm90.test_forward import OPERAND
from tests.gpu.sanitizing import report

USUAL = Case(dtype="float16", batch=2, heads=3, seq_q=200, seq_kv=330, rank=130, head_dim=64, value_dim=64)
KERNEL = USUAL.but(method="kernel", kv_lengths=(330, 101))
SIMT = USUAL.but(dtype="float32", heads=2, seq_q=70, seq_kv=90, rank=40, head_dim=33, value_dim=20)
FORWARD = {
    "flurka": USUAL,
    "flurka, bfloat16, odd": USUAL.but(dtype="bfloat16", head_dim=100, value_dim=36, rank=33, kv_lengths=(330, 7)),
    "kernel": KERNEL,
    "low rank": USUAL.but(method="low_rank"),
    "favor": USUAL.but(feature_map="favor", rows=40),
    "rfa, kernel": KERNEL.but(feature_map="rfa", rows=33, head_dim=40, value_dim=40),
    "no keys": USUAL.but(seq_kv=0),
    "float32": SIMT,
    "float32, low rank": SIMT.but(method="low_rank"),
    "float32, favor": SIMT.but(feature_map="favor", rows=20),
}
GRADIENTS = {
    "gradients of flurka": USUAL,
    "gradients of flurka, two passes": USUAL.but(head_dim=100, value_dim=80, heads=1),
    "gradients of kernel": KERNEL,
    "gradients of low rank": USUAL.but(method="low_rank", heads=2),
    "gradients of favor": SIMT.but(feature_map="favor", rows=20, dtype="float16"),
}
LAYERS = {
    "queries of a layer": QUERIES.but(dtype="float16", batch=2, heads=8, seq_q=700, seq_kv=20),
    "queries of a layer, wide heads": QUERIES.but(dtype="float16", heads=2, head_dim=128, value_dim=128, seq_q=300),
}


def gradients(case):
    """With CuPy's arrays: NumPy's take the float32 path."""
    import cupy

    arrays = {name: cupy.asarray(one) for name, one in case.arrays().items()}
    out, vjp = case.run_vjp(arrays)
    right, pull = case.wanted_vjp()
    allowed, allowed_vjp = tolerance(case.call(case.arrays()), case.dtype, operand=OPERAND[case.dtype])
    assert_close(cupy.asnumpy(out), right, allowed)
    dout = case.dout()
    found = zip(ARRAYS, vjp(cupy.asarray(dout)), pull(dout), allowed_vjp(dout), strict=True)
    for name, got, wanted, bound in found:
        if got is not None:
            assert_close(cupy.asnumpy(got), wanted, bound, name=f"d{name}")


def layer(case):
    """With CuPy's arrays."""
    import cupy

    check_queries(case, backend="cuda", to=cupy.asarray, back=cupy.asnumpy)


def forward(case):
    """With NumPy's arrays."""
    check_forward(case, operand=OPERAND.get(case.dtype, 0.0), backend="cuda")


def main(names):
    ways = [(FORWARD, forward), (GRADIENTS, gradients), (LAYERS, layer)]
    return report({name: partial(run, case) for cases, run in ways for name, case in cases.items()}, names)


if __name__ == "__main__":
    np.seterr(all="ignore")
    sys.exit(main(sys.argv[1:]))
