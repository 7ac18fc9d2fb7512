"""Public functions with good arguments, and values that nobody means as arguments."""

from __future__ import annotations

import decimal
import fractions

import numpy as np

import flurka_numba as flurka
import splat_numba as splat


class Failing:
    """Everything that it is asked fails, in a way that no framework's arrays do."""

    def _fail(self, *_):
        raise RuntimeError("not to be asked")

    __index__ = __len__ = __iter__ = __array__ = __float__ = __bool__ = __repr__ = __str__ = __call__ = _fail


class FailingEvenIfAskedForAnAttribute:
    def __getattr__(self, name):
        raise RuntimeError(f"not to be asked for {name}")


class Index:
    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


class Axes:
    """What draw() asks of axes, without matplotlib."""

    def imshow(self, *_, **__):
        return None

    set_title = set_xticks = set_yticks = tick_params = set_box_aspect = imshow


HOSTILE = [
    None, "", "x", "float32", "cpu", b"q", True, False, np.True_, 0, 1, -1, 3, 1.5, 3.0, float("nan"),
    float("inf"), -1e308,
    10**30, -(10**30), 10**400, 10**5000, 1j, [], [1, 2], [1, "a"], [[1], [2, 3]], [None], {}, {1: 2}, {"q"}, (),
    (1, 2), (0, 4, 9), range(3), range(10**12), slice(None), slice("a"), Ellipsis, object(), object, len, lambda x: x,
    splat.causal, splat.window, splat.causal(), np.array(3), np.array(2.5), np.array([1, 2]), np.array([1.5]),
    np.array("x"), np.array([None, 1], object), np.float32(np.nan), np.int64(-3), np.uint64(2**63), np.zeros(0),
    np.zeros((0, 0), bool), np.zeros((2, 3, 4, 5, 6)), np.ma.masked_array([1, 2], [True, False]),
    np.ma.masked_array(np.ones((8, 8), bool), True), np.ones((8, 8), np.complex64), np.where(np.tri(8), 0, -np.inf),
    np.array([1], "M8[s]"), np.zeros(3, [("a", int)]), np.zeros((1, 2, 8, 4), np.float32), decimal.Decimal(3),
    fractions.Fraction(1, 2), Index(3), Index(-1), Index("no"), Failing(),
    FailingEvenIfAskedForAnAttribute(),
]  # fmt: skip


Q = np.zeros((1, 2, 8, 4), np.float32)
E = np.ones((3, 8), np.float32)
W = np.eye(8, dtype=np.float32)
ACSR = splat.from_dense(np.tri(8, dtype=bool))
VALUES = np.zeros((1, 2, ACSR.nnz), np.float32)
SCORES = np.zeros((8, 8))
SIZES = {"seq_q": 8, "seq_kv": 8, "head_dim": 4, "value_dim": 4, "heads_q": 2, "heads_kv": 2, "batch": 1}
PLACE = {"backend": "auto", "target": None}
OPTIONS = {**PLACE, "kv_lengths": None, "out": None}
MAP = {"feature_map": "elu", "omega": None, "eps": None}
QKV = {"q": Q, "k": Q, "v": Q}
PROJECTED = {**QKV, "proj_k": E, "proj_v": E}
LAYER = {"w_q": W, "w_k": W, "w_v": W, "w_o": W, "proj_k": E, "proj_v": None, "heads": 2, **MAP}


def patterns():
    """Constructors with good arguments."""
    return {
        splat.window: {"left": 3, "right": 0}, splat.dilated: {"window": 2, "step": 3}, splat.strided: {"step": 2},
        splat.columns: {"period": 4, "start": 1, "count": 1}, splat.blocked: {"size": 4, "before": 0, "after": 0},
        splat.documents: {"lengths": (3, 5)}, splat.global_tokens: {"n": 2}, splat.sinks: {"n": 2},
        splat.prefix: {"n": 2}, splat.neighborhood: {"shape": (2, 4), "kernel": 3, "dilation": 1},
        splat.random_blocks: {"size": 2, "per_row": 1, "seed": 0}, splat.longformer: {"width": 2, "n_global": 1},
        splat.bigbird: {"size": 2, "n_window": 3, "n_global": 1, "n_random": 1, "seed": 0},
        splat.sparse_transformer_strided: {"l": 2}, splat.sparse_transformer_fixed: {"l": 4, "c": 1},
        splat.from_flash_attention: {"window_size": (3, 0), "causal": False},
        splat.from_sliding_window: {"n": 3, "causal": True}, splat.parse: {"text": "window(3)"},
    }  # fmt: skip


def masks():
    """What makes and reads stored masks."""
    return {
        splat.ACSR: {"runs": ACSR.runs},
        splat.ACSR.from_pattern: {"pattern": splat.causal(), "seq_q": 8, "seq_kv": 8},
        splat.from_dense: {"mask": np.tri(8, dtype=bool)},
        splat.from_csr: {"indptr": [0, 1, 2], "indices": [0, 1], "shape": (2, 2)},
        splat.ACSR.from_scipy: {"matrix": None},
        splat.from_predicate: {"f": np.greater_equal, "seq_q": 8, "seq_kv": 8},
        splat.draw: {"mask": splat.causal(), "ax": Axes(), "seq_q": 8, "seq_kv": 8},
        splat.geometry: {"mask": splat.causal(), "seq_q": 8, "seq_kv": 8},
        ACSR.rows: {"which": slice(2)}, ACSR.row_columns: {"i": 1}, ACSR.slot: {"i": 1, "j": 1},
        ACSR.values_to_csr: {"values": VALUES},
        ACSR.values_from_csr: {"values": VALUES, "indptr": None, "indices": None},
        ACSR.__or__: {"other": splat.full()}, ACSR.__and__: {"other": ACSR},
        splat.causal().__or__: {"other": splat.full()}, splat.causal().__rand__: {"other": ACSR},
    }  # fmt: skip


def operators():
    """What computes with arrays."""
    attend = {**QKV, "mask": splat.causal(), "scale": None, "return_lse": False, "layout": "bhsd", **OPTIONS}
    returned = {name: one for name, one in attend.items() if name != "out"}
    decided = {"mask": splat.causal(), **SIZES, "dtype": "float32", "layout": "bhsd", **PLACE}
    dense = {**QKV, "mask": np.tri(8, dtype=bool)}
    backend = {"backend": "auto"}
    return {
        splat.attention: {**attend, "autotune": False, "fused": None}, splat.plan: {**decided, "fused": None},
        splat.attention_vjp: {**returned, "autotune": False, "frozen": ()},
        splat.attention_backward: {
            "dout": Q, **QKV, "out": Q, "lse": Q[..., 0], "mask": splat.causal(), "dlse": None, "scale": None,
            "layout": "bhsd", "kv_lengths": None, **PLACE, "frozen": (), "out_grads": None,
        },
        splat.compile: {**decided, "scale": None, "autotune": False},
        splat.warm_up: {
            "masks": [splat.causal()], "seq_q": 8, "seq_kv": 8, "head_dim": 4, "dtype": "float32", "backward": False,
            **PLACE, "processes": 1,
        },
        splat.sddmm: {"q": Q, "k": Q, "mask": ACSR, "scale": 1.0, **backend},
        splat.softmax: {"values": VALUES, "acsr": ACSR, **backend},
        splat.spmm: {"values": VALUES, "v": Q, "acsr": ACSR, "transpose": False, **backend},
        splat.sddmm_vjp: {"q": Q, "k": Q, "mask": ACSR, "scale": 1.0, **backend, "frozen": ()},
        splat.softmax_vjp: {"values": VALUES, "acsr": ACSR, **backend, "frozen": ()},
        splat.spmm_vjp: {"values": VALUES, "v": Q, "acsr": ACSR, **backend, "frozen": ()},
        splat.reference.attention: {**dense, "scale": None, "return_lse": False, "layout": "bhsd", "kv_lengths": None},
        splat.reference.sddmm: {"q": Q, "k": Q, "mask": ACSR, "scale": 1.0},
        splat.reference.softmax: {"scores": SCORES, "mask": ACSR},
        splat.reference.spmm: {"weights": SCORES, "v": Q[0, 0], "mask": None},
        splat.reference.sddmm_backward: {"dvalues": SCORES, "q": Q[0, 0], "k": Q[0, 0], "mask": ACSR, "scale": 1.0},
        splat.reference.softmax_backward: {"dweights": SCORES, "scores": SCORES, "mask": ACSR},
        splat.reference.spmm_backward: {"dout": Q[0, 0], "weights": SCORES, "v": Q[0, 0], "mask": None},
    }  # fmt: skip


def flurka_functions():
    """Of the second package."""
    oracle = flurka.reference
    layer = flurka.FlurkaLayer(**LAYER)
    common = {**OPTIONS, "causal": False}
    return {
        flurka.attention: {**PROJECTED, **MAP, **common},
        flurka.low_rank_attention: {**PROJECTED, "scale": None, **common},
        flurka.kernel_attention: {**QKV, **MAP, **common},
        flurka.attention_vjp: {**PROJECTED, **MAP, **common, "frozen": ()},
        flurka.low_rank_attention_vjp: {**PROJECTED, "scale": None, **common, "frozen": ()},
        flurka.kernel_attention_vjp: {**QKV, **MAP, **common, "frozen": ()},
        oracle.attention: {**PROJECTED, **MAP, "kv_lengths": None},
        oracle.low_rank_attention_vjp: {**PROJECTED, "scale": None, "kv_lengths": None, "frozen": ()},
        oracle.kernel_attention_vjp: {**QKV, **MAP, "kv_lengths": None, "frozen": ()},
        oracle.kernel_attention_vjp(Q, Q, Q)[1]: {"dout": Q},
        flurka.FlurkaLayer: LAYER, layer: {"x": np.zeros((8, 8), np.float32), **PLACE},
        layer.vjp: {"x": np.zeros((8, 8), np.float32), "frozen": (), **PLACE},
        flurka.draw_orthogonal_features: {"num_features": 3, "head_dim": 4, "seed": 0},
        flurka.FeatureMap: {
            "name": "e", "function": np.exp, "source": "exp(x)", "derivative": "y", "eps_inside": False,
        },
    }  # fmt: skip
