"""The exact text of the likeliest user errors: each names the argument, what was wanted, what came, and the next step.

All are found before anything is compiled.
"""

import numpy as np
import pytest

import splat_numba as splat

Q = np.zeros((1, 2, 8, 4), np.float32)


def attend(q=Q, k=Q, v=Q, mask=None, **options):
    return splat.attention(q, k, v, splat.causal() if mask is None else mask, **options)


def read_only():
    out = np.zeros_like(Q)
    out.flags.writeable = False
    return out


NAN_MASK = np.where(np.tri(8, dtype=bool), 0.0, np.nan)
MESSAGES = {
    "wrong rank": (
        lambda: attend(Q[0, 0, 0], Q[0, 0, 0], Q[0, 0, 0]),
        "ArgumentError: q wanted with axes ('batch', 'heads', 'seq', 'dim'), leading ones may be missing, got shape "
        "(4,). Reshape it.",
    ),
    "ranks that differ": (
        lambda: attend(k=Q[0]),
        "ArgumentError: k wanted with 4 axes as q has, got shape (2, 8, 4). Give all the same axes.",
    ),
    "shape mismatch of k": (
        lambda: attend(k=Q[..., :3]),
        "ArgumentError: k wanted as (batch, heads, seq, head_dim) = (1, 2, 8, 4) to fit q, got (1, 2, 8, 3). Check "
        "batch and head_dim.",
    ),
    "shape mismatch of v": (
        lambda: attend(v=Q[:, :, :5]),
        "ArgumentError: v wanted with (batch, heads, seq) = (1, 2, 8) to fit k, got (1, 2, 5, 4). Check its axes.",
    ),
    "heads that do not divide": (
        lambda: attend(k=np.zeros((1, 3, 8, 4), np.float32), v=np.zeros((1, 3, 8, 4), np.float32)),
        "ArgumentError: k wanted with a number of heads that divides q's 2, got 3. Check axes and layout.",
    ),
    "scale beyond float32": (
        lambda: attend(scale=1e39),
        "ArgumentError: scale wanted as 0 or of a magnitude from 1.2e-38 to 2.3e+38 for float32 arrays, got 1e+39. "
        "Multiply q or k by a part of it.",
    ),
    "dtype mismatch": (
        lambda: attend(k=Q.astype(np.float64)),
        "ArgumentTypeError: k wanted as float32 as q is, got float64. Convert one of them.",
    ),
    "integers": (
        lambda: attend(q=Q.astype(np.int32)),
        "ArgumentTypeError: q wanted as float16, bfloat16, float32, float64 in native byte order, got int32. Convert "
        "it, for example with q.astype(np.float32).",
    ),
    "a list": (
        lambda: attend(q=Q.tolist()),
        "ArgumentTypeError: q wanted as an array (NumPy, or anything with DLPack), got list. Convert it, for example "
        "with np.asarray(q, dtype=np.float32).",
    ),
    "non-bool mask": (
        lambda: attend(mask=np.tri(8, dtype=np.int64)),
        "FormatTypeError: mask must be a 2-D bool array (True = attend), got dtype int64; a mask of numbers does not "
        "say what NaN, inf and negative entries mean: pass `mask.astype(bool)` for 0/1 masks, or `mask > 0`.",
    ),
    "NaN mask": (
        lambda: attend(mask=NAN_MASK),
        "FormatTypeError: mask must be a 2-D bool array (True = attend), got dtype float64; a mask of numbers does "
        "not say what NaN, inf and negative entries mean: pass `mask.astype(bool)` for 0/1 masks, or `mask > 0`.",
    ),
    "mask of other shape": (
        lambda: attend(mask=np.ones((8, 9), bool)),
        "ArgumentError: mask wanted of shape (8, 8), got (8, 9): a mask is never broadcast or cut. Build it for these "
        "lengths, or use a Pattern, which fits all.",
    ),
    "mask as text": (
        lambda: attend(mask="causal()"),
        "ArgumentTypeError: mask wanted as a Pattern, an ACSR or a 2-D bool array, got str. Build one, for example "
        'splat.window(128), or splat.parse("window(128)") from text.',
    ),
    "one mask too few": (
        lambda: attend(mask=[splat.causal()]),
        "ArgumentError: mask wanted as 2 masks, one a query head, got 1. Give 2, or one mask for all.",
    ),
    "unknown pattern name": (
        lambda: splat.parse("windo(3)"),
        "PatternError: text: wanted a pattern such as 'window(512) | sinks(4)', got 'windo' at column 1. 'windo' is "
        "not a constructor: did you mean 'window'?",
    ),
    "text that ends early": (
        lambda: splat.parse("window(3"),
        "PatternError: text: wanted an expression such as 'window(512) | sinks(4)', got 'window(3': '(' was never "
        "closed at column 7. Check parentheses and operators.",
    ),
    "negative window": (
        lambda: splat.window(-3),
        "PatternError: left: wanted an integer >= 0, got -3. Give at least 0.",
    ),
    "window of 2.5": (
        lambda: splat.window(2.5),
        "PatternTypeError: left: wanted an integer >= 0, got 2.5 of type float. Round it yourself, for example with "
        "int(...) or //.",
    ),
    "documents total": (
        lambda: attend(mask=splat.documents((3, 4))),
        "PatternError: lengths: wanted documents of 8 tokens for seq_q and 8 for seq_kv, got 7. The total must equal "
        "both lengths: change it, or pad the sequences.",
    ),
    "unsorted CSR": (
        lambda: splat.from_csr([0, 2], [3, 1], (1, 8)),
        "FormatError: row 0: columns must ascend strictly, got 3 then 1; sort each row and drop repeats (SciPy: "
        "`m.sum_duplicates()`).",
    ),
    "read-only out": (
        lambda: attend(out=read_only()),
        "ArgumentError: out wanted writeable, got a read-only array. Give a fresh array, or set out.flags.writeable.",
    ),
    "overlapping out": (
        lambda: attend(out=Q),
        "ArgumentError: out wanted apart from the inputs, got memory that q uses. Give a fresh array.",
    ),
    "out of other shape": (
        lambda: attend(out=np.zeros((1, 2, 8, 5), np.float32)),
        "ArgumentError: out wanted of shape (1, 2, 8, 4), got (1, 2, 8, 5). Give one of this shape.",
    ),
    "kv_lengths too long": (
        lambda: attend(kv_lengths=[9]),
        "ArgumentError: kv_lengths wanted between 0 and seq_kv = 8, got [9]. Correct them.",
    ),
    "float32 on a GPU": (
        lambda: attend(backend="cuda"),
        "ArgumentTypeError: q wanted as float16 or bfloat16 for backend 'cuda', got float32. Convert it, or give "
        "backend='cpu' with arrays there.",
    ),
    "unknown backend": (
        lambda: attend(backend="gpu"),
        "BackendError: backend wanted as one of auto, cpu, cuda, emulate, got 'gpu'. Leave it out to choose for you.",
    ),
    "list of masks for one plan": (
        lambda: splat.plan([splat.causal()], seq_q=8, seq_kv=8, head_dim=4, dtype="float32"),
        "ArgumentTypeError: mask wanted as one mask, got a list. Only attention takes a mask a head.",
    ),
    "unknown dtype": (
        lambda: splat.plan(splat.causal(), seq_q=8, seq_kv=8, head_dim=4, dtype="int8"),
        "ArgumentTypeError: dtype wanted as one of float16, bfloat16, float32, float64, got 'int8'. Convert the "
        "arrays.",
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_message(name, monkeypatch):
    def refuse(*_):
        raise AssertionError("compiled before the arguments were checked")

    monkeypatch.setattr("splat_numba.runtime.launch.compile_plan", refuse)
    call, message = MESSAGES[name]
    with pytest.raises(splat.SplatError) as caught:
        call()
    assert f"{type(caught.value).__name__}: {caught.value}" == message


def test_every_error_of_a_user_is_a_splat_error_and_an_ordinary_one_too():
    for name in ("ArgumentError", "PatternError", "FormatError"):
        assert issubclass(getattr(splat, name), ValueError)
        assert issubclass(getattr(splat.errors, name.replace("Error", "TypeError")), TypeError)
