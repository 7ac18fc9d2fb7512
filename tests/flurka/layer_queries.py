"""Calls of kernel attention with a layer's input and w_q in place of queries, against the oracle."""

from dataclasses import replace

import numpy as np

from flurka_numba.backends import choose_executor
from flurka_numba.heads import merge, split
from tests.flurka.error_bound import assert_close, tolerance
from tests.flurka.strategies import Case, numpy_dtype
from tests.flurka.targets.sm90.test_forward import OPERAND

USUAL = Case(method="kernel", dtype="bfloat16", batch=None, seq_q=70, seq_kv=40, head_dim=64, value_dim=64)
WAYS = {
    "one tile": {},
    "batch entries that end within a tile": {"batch": 3, "seq_q": 130},
    "more steps than stages": {"heads": 8, "seq_q": 60},
    "tiles of both warpgroups": {"heads": 8, "seq_q": 700, "seq_kv": 8},
    "narrow heads": {"heads": 4, "head_dim": 32, "value_dim": 32, "dtype": "float16"},
    "wide heads": {"heads": 3, "head_dim": 128, "value_dim": 128, "seq_q": 600, "seq_kv": 20},
    "relu": {"feature_map": "relu", "dtype": "float16"},
    "softplus": {"feature_map": "softplus", "batch": 2},
    "no slots": {"seq_kv": 0},
    "no queries": {"seq_q": 0},
}


def inputs(case):
    """x, w_q, k and v as rows with all heads side by side, and the exact call that they amount to."""
    rng, dtype, model_dim = np.random.default_rng(case.seed + 7), numpy_dtype(case.dtype), case.heads * case.head_dim
    leading = () if case.batch is None else (case.batch,)
    x = rng.standard_normal((*leading, case.seq_q, model_dim)).astype(dtype)
    w_q = (rng.standard_normal((model_dim, model_dim)) * model_dim**-0.5).astype(dtype)
    q = split(x.astype(np.float64) @ w_q.astype(np.float64), case.heads)
    arrays = case.arrays() | {"q": q}
    rows = {"q": x, "w_q": w_q, "k": merge(arrays["k"]), "v": merge(arrays["v"])}
    return rows, arrays


def check(case, *, backend, to=np.asarray, back=np.asarray):
    """Raise AssertionError unless the result is right. to, back: from and to NumPy."""
    rows, arrays = inputs(case)
    given = {name: to(array) for name, array in rows.items()}
    out = to(np.full_like(rows["q"], np.nan))
    call = case.call({name: given[name] for name in "qkv"}, backend=backend, out=out)
    call = replace(call, heads=case.heads, w_q=given["w_q"])
    assert choose_executor(call).attend(call) is out
    allowed, _ = tolerance(case.call(arrays), case.dtype, operand=OPERAND[case.dtype])
    assert_close(split(back(out), case.heads), case.wanted_vjp(arrays)[0], allowed)
