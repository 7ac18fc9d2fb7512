"""Arguments that the packed operators and their gradients refuse, in the words of the message."""

import numpy as np
import pytest

from splat_numba import sddmm, sddmm_vjp, softmax, softmax_vjp, spmm, spmm_vjp
from splat_numba.errors import ArgumentError, ArgumentTypeError, BackendError, SplatError
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import causal, window
from tests.bad_calls import HOSTILE

ACSR_35 = ACSR.from_pattern(window(1), 3, 5)  # 8 pairs
Q, K, V = np.zeros((2, 4, 3, 8), np.float32), np.zeros((2, 2, 5, 8), np.float32), np.zeros((2, 2, 5, 7), np.float32)
VALUES = np.zeros((2, 4, 8), np.float32)

REFUSED = {
    "sddmm with a list": (
        lambda: sddmm(Q, K, [window(1)] * 4),
        ArgumentTypeError,
        "mask wanted as one mask, got a list. Only attention takes a mask a head.",
    ),
    "sddmm with text": (
        lambda: sddmm(Q, K, "window(1)"),
        ArgumentTypeError,
        "mask wanted as a Pattern, an ACSR or a 2-D bool array, got str. "
        'Build one, for example splat.window(128), or splat.parse("window(128)") from text.',
    ),
    "sddmm with a mask of another shape": (
        lambda: sddmm(Q, K, np.ones((3, 4), bool)),
        ArgumentError,
        "mask wanted of shape (3, 5), got (3, 4): a mask is never broadcast or cut. "
        "Build it for these lengths, or use a Pattern, which fits all.",
    ),
    "q of one axis": (
        lambda: sddmm(Q[0, 0, 0], K, ACSR_35),
        ArgumentError,
        "q wanted with axes ('batch', 'heads', 'seq', 'head_dim'), leading ones may be missing, got shape (8,). "
        "Reshape it.",
    ),
    "k with other axes": (
        lambda: sddmm(Q, K[0], ACSR_35),
        ArgumentError,
        "k wanted with 4 axes as q has, got shape (2, 5, 8). Give all the same axes.",
    ),
    "k of another dtype": (
        lambda: sddmm(Q, K.astype(np.float64), ACSR_35),
        ArgumentTypeError,
        "k wanted as float32 as q is, got float64. Convert one of them.",
    ),
    "k of another head_dim": (
        lambda: sddmm(Q, K[..., :7], ACSR_35),
        ArgumentError,
        "k wanted as (batch, heads, seq, head_dim) = (2, 2, 5, 8) to fit q, got (2, 2, 5, 7). "
        "Check batch and head_dim.",
    ),
    "heads that do not divide": (
        lambda: sddmm(Q[:, :3], K, ACSR_35),
        ArgumentError,
        "k wanted with a number of heads that divides q's 3, got 2. Check axes and layout.",
    ),
    "scale of no number": (
        lambda: sddmm(Q, K, ACSR_35, scale=None),
        ArgumentTypeError,
        "scale wanted as a number, got NoneType. Give a Python float, or leave it out for 1.",
    ),
    "scale NaN": (
        lambda: sddmm(Q, K, ACSR_35, scale=float("nan")),
        ArgumentError,
        "scale wanted finite, got nan. Give a Python float, or leave it out for 1.",
    ),
    "scale beyond float32": (
        lambda: sddmm(Q, K, ACSR_35, scale=-1e39),
        ArgumentError,
        "scale wanted as 0 or of a magnitude from 1.2e-38 to 2.3e+38 for float32 arrays, got -1e+39. "
        "Multiply q or k by a part of it.",
    ),
    "softmax with a Pattern": (
        lambda: softmax(VALUES, window(1)),
        ArgumentTypeError,
        "acsr wanted as an ACSR, got a Pattern, which has no size. "
        "Build it with splat.ACSR.from_pattern(pattern, seq_q, seq_kv).",
    ),
    "spmm with a list": (
        lambda: spmm(VALUES, V, [ACSR_35]),
        ArgumentTypeError,
        "acsr wanted as one ACSR, got a list. Only attention takes a mask a head.",
    ),
    "spmm with an array": (
        lambda: spmm(VALUES, V, np.ones((3, 5), bool)),
        ArgumentTypeError,
        "acsr wanted as an ACSR, got ndarray. Build it with splat.from_dense(mask) or splat.from_csr(...).",
    ),
    "values of another mask": (
        lambda: softmax(VALUES[..., :7], ACSR_35),
        ArgumentError,
        "values wanted with a last axis of nnz = 8, one for each pair of acsr, got shape (2, 4, 7). "
        "Give what sddmm gave for this mask.",
    ),
    "values of too many axes": (
        lambda: softmax(VALUES[None], ACSR_35),
        ArgumentError,
        "values wanted with axes ('batch', 'heads', 'nnz'), leading ones may be missing, got shape (1, 2, 4, 8). "
        "Reshape it.",
    ),
    "values of integers": (
        lambda: softmax(VALUES.astype(np.int32), ACSR_35),
        ArgumentTypeError,
        "values wanted as float16, bfloat16, float32, float64 in native byte order, got int32. "
        "Convert it, for example with values.astype(np.float32).",
    ),
    "v with other axes": (
        lambda: spmm(VALUES, V[0], ACSR_35),
        ArgumentError,
        "v wanted with 4 axes, one more than values has, got shape (2, 5, 7). "
        "Leave leading axes out of both or of none.",
    ),
    "v of another dtype": (
        lambda: spmm(VALUES, V.astype(np.float16), ACSR_35),
        ArgumentTypeError,
        "v wanted as float32 as values is, got float16. Convert one of them.",
    ),
    "v of another length": (
        lambda: spmm(VALUES, V[:, :, :4], ACSR_35),
        ArgumentError,
        "v wanted as (batch, heads, seq, value_dim) = (2, 2, 5, 'any') to fit values and acsr, got (2, 2, 4, 7). "
        "Check its axes.",
    ),
    "v with heads that do not divide": (
        lambda: spmm(VALUES[:, :3], V, ACSR_35),
        ArgumentError,
        "v wanted with a number of heads that divides the values' 3, got 2. Check axes and layout.",
    ),
    "a backend of another name": (
        lambda: softmax(VALUES, ACSR_35, backend="gpu"),
        BackendError,
        "backend wanted as one of auto, cpu, cuda, emulate, got 'gpu'. Leave it out to choose for you.",
    ),
}
GRADIENTS_REFUSED = {
    "dvalues of another shape": (
        lambda: sddmm_vjp(Q, K, ACSR_35)[1](VALUES[..., :7]),
        ArgumentError,
        "dvalues wanted of shape (2, 4, 8) as values is, got (2, 4, 7). Give one of this shape.",
    ),
    "dvalues of another dtype": (
        lambda: sddmm_vjp(Q, K, ACSR_35)[1](VALUES.astype(np.float64)),
        ArgumentTypeError,
        "dvalues wanted as float32 as values is, got float64. Convert one of them.",
    ),
    "dweights of another shape": (
        lambda: softmax_vjp(VALUES, ACSR_35)[1](VALUES[0]),
        ArgumentError,
        "dweights wanted of shape (2, 4, 8) as weights is, got (4, 8). Give one of this shape.",
    ),
    "dout of another shape": (
        lambda: spmm_vjp(VALUES, V, ACSR_35)[1](Q),
        ArgumentError,
        "dout wanted of shape (2, 4, 3, 7) as out is, got (2, 4, 3, 8). Give one of this shape.",
    ),
    "dout of text": (
        lambda: spmm_vjp(VALUES, V, ACSR_35)[1]("dout"),
        ArgumentTypeError,
        "dout wanted as an array (NumPy, or anything with DLPack), got str. "
        "Convert it, for example with np.asarray(dout, dtype=np.float32).",
    ),
    "softmax_vjp with a Pattern": (
        lambda: softmax_vjp(VALUES, causal()),
        ArgumentTypeError,
        "acsr wanted as an ACSR, got a Pattern, which has no size. "
        "Build it with splat.ACSR.from_pattern(pattern, seq_q, seq_kv).",
    ),
    "a frozen name of another operator": (
        lambda: spmm_vjp(VALUES, V, ACSR_35, frozen=("q",)),
        ArgumentError,
        "frozen wanted with names of values, v, got 'q'. Leave it out, or correct it.",
    ),
    "frozen as a word": (
        lambda: sddmm_vjp(Q, K, ACSR_35, frozen="k"),
        ArgumentTypeError,
        "frozen wanted as a collection of names, got 'k'. Give for example frozen=('q', 'k').",
    ),
}


@pytest.mark.parametrize(
    ("call", "kind", "message"), [pytest.param(*one, id=name) for name, one in (REFUSED | GRADIENTS_REFUSED).items()]
)
def test_what_does_not_fit_is_refused_with_this_message(call, kind, message):
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == message


def test_a_gradient_of_any_wrong_kind_is_refused_by_name():
    calls = {
        "dvalues": sddmm_vjp(Q, K, ACSR_35)[1],
        "dweights": softmax_vjp(VALUES, ACSR_35)[1],
        "dout": spmm_vjp(VALUES, V, ACSR_35)[1],
    }
    for name, vjp in calls.items():
        for value in HOSTILE:
            with pytest.raises(SplatError, match=f"^{name} "):
                vjp(value)
