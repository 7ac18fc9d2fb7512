"""The exact text of the likeliest user errors: each names the argument, what was wanted, what came, and the next step.

All are found before anything is compiled.
"""

import numpy as np
import pytest
import scipy.sparse

import splat_numba as splat
from splat_numba.arguments.heads import check_layouts_agree
from splat_numba.arguments.layouts import bhsd_axes

Q = np.zeros((1, 2, 8, 4), np.float32)


def attend(q=Q, k=Q, v=Q, mask=None, **options):
    return splat.attention(q, k, v, splat.causal() if mask is None else mask, **options)


class BlockMask:
    """By its name what FlexAttention has."""


def read_only():
    out = np.zeros_like(Q)
    out.flags.writeable = False
    return out


SWAPPED = np.zeros((1, 8, 2, 4), np.float32)
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
    "additive mask": (
        lambda: attend(mask=np.where(np.tri(8, dtype=bool), 0.0, -np.inf)),
        "FormatTypeError: mask must be a 2-D bool array (True = attend), got dtype float64; of an additive mask, 0 for "
        "the pairs that are kept, pass `mask == 0`.",
    ),
    "masked array as a mask": (
        lambda: attend(mask=np.ma.masked_array(np.ones((8, 8), bool))),
        "FormatTypeError: mask must be a plain bool array, got a masked one, whose own mask would be lost; pass "
        "mask.filled(False).",
    ),
    "a function as a mask": (
        lambda: attend(mask=lambda b, h, q_idx, kv_idx: q_idx >= kv_idx),  # noqa: ARG005
        "ArgumentTypeError: mask wanted as a Pattern, an ACSR or a 2-D bool array, got function. Write what it keeps "
        "as a Pattern, or ask it about all pairs: of a mask_mod give mask(0, 0, np.arange(seq_q)[:, None], "
        "np.arange(seq_kv)), a bool array.",
    ),
    "a constructor that was not called": (
        lambda: attend(mask=splat.causal),
        "ArgumentTypeError: mask wanted as a Pattern, an ACSR or a 2-D bool array, got function. Call it: "
        "splat.causal(...).",
    ),
    "a SciPy matrix": (
        lambda: attend(mask=scipy.sparse.eye_array(8, format="csr")),
        "ArgumentTypeError: mask wanted as a Pattern, an ACSR or a 2-D bool array, got csr_array. Give "
        "splat.ACSR.from_scipy(mask).",
    ),
    "a BlockMask": (
        lambda: attend(mask=BlockMask()),
        "ArgumentTypeError: mask wanted as a Pattern, an ACSR or a 2-D bool array, got BlockMask. Write what it keeps "
        "as a Pattern, or give its pairs: create_mask(mask.mask_mod, None, None, seq_q, seq_kv, device='cpu')[0, 0].",
    ),
    "text beside a pattern": (
        lambda: splat.causal() | "sinks(4)",
        "PatternTypeError: pattern: wanted a Pattern or an ACSR beside |, got 'sinks(4)' of type str. Write "
        "splat.parse('sinks(4)').",
    ),
    "running sums of lengths": (
        lambda: splat.documents([0, 4, 9]),
        "PatternError: lengths: wanted the length of every document, got (0, 4, 9), which are running sums "
        "(cu_seqlens). Write documents(np.diff(cu_seqlens)).",
    ),
    "an even number of blocks": (
        lambda: splat.bigbird(64, n_window=4),
        "PatternError: n_window: wanted an odd number, a query's own block and as many before it as after it, got 4. "
        "Write 5 or 3.",
    ),
    "heads and seq swapped": (
        lambda: attend(q=SWAPPED, mask=splat.full()),
        "ArgumentError: q wanted as (batch, heads, seq, dim), the order of k, (1, 2, 8, 4), got (1, 8, 2, 4): heads "
        "and seq seem to be swapped in one of them. Give q.swapaxes(1, 2), a view, or layout='bshd' for all three. If "
        "heads are grouped so, repeat those of k and v.",
    ),
    "is_causal": (
        lambda: attend(is_causal=True),
        "ArgumentTypeError: is_causal wanted left out, because attention has no such argument. Give a mask: "
        "splat_numba.causal(), or splat_numba.causal().align_end() where the queries are the last tokens.",
    ),
    "dropout": (
        lambda: attend(dropout_p=0.1),
        "ArgumentTypeError: dropout_p wanted left out, because attention has no such argument. This version has no "
        "dropout: leave it out, as in evaluation.",
    ),
    "softcap": (
        lambda: attend(softcap=30.0),
        "ArgumentTypeError: softcap wanted left out, because attention has no such argument. This version adds nothing "
        "to scale * q.k, so it cannot be given.",
    ),
    "a keyword misspelt": (
        lambda: attend(kv_length=[8]),
        "ArgumentTypeError: kv_length wanted left out, because attention has no such argument. Did you mean "
        "kv_lengths?",
    ),
    "no mask": (
        lambda: splat.attention(Q, Q, Q),
        "ArgumentTypeError: mask wanted by attention, got nothing. Give it: help(attention) says what it is.",
    ),
    "scale by place": (
        lambda: splat.attention(Q, Q, Q, splat.causal(), 0.5),
        "ArgumentTypeError: scale wanted by name in attention, got 5 arguments by place. Write scale=...",
    ),
    "too many heads": (
        lambda: splat.plan(splat.causal(), seq_q=8, seq_kv=8, head_dim=4, dtype="float32", heads_q=10**30),
        "ArgumentError: heads_q wanted <= 1048576, got 1000000000000000000000000000000. Give at most 1048576.",
    ),
    "a length of 2.5": (
        lambda: splat.plan(splat.causal(), seq_q=2.5, seq_kv=8, head_dim=4, dtype="float32"),
        "ArgumentTypeError: seq_q wanted as an integer, got float. Give a whole number.",
    ),
    "layout in a list": (
        lambda: attend(layout=["bhsd"]),
        "ArgumentError: layout wanted as 'bhsd' or 'bshd', got ['bhsd']. Choose the order of your arrays' axes.",
    ),
    "scale in an array": (
        lambda: attend(scale=np.ones(1)),
        "ArgumentTypeError: scale wanted as a number, got ndarray. Give a Python float, or leave it out for "
        "1/sqrt(head_dim).",
    ),
    "kv_lengths as floats": (
        lambda: attend(kv_lengths=[8.0]),
        "ArgumentTypeError: kv_lengths wanted as integers, got float64. Convert them with .astype(np.int64).",
    ),
    "return_lse as a number": (
        lambda: attend(return_lse=1),
        "ArgumentTypeError: return_lse wanted as True or False, got 1 of type int. Give a bool.",
    ),
    "text for the oracle": (
        lambda: splat.reference.attention("q", Q, Q, np.ones((8, 8), bool)),
        "ArgumentTypeError: q: wanted an array of real numbers, got str; make a plain NumPy array of it",
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
    "masks for heads that stand on another axis": (
        lambda: attend(*[Q.swapaxes(1, 2)] * 3, mask=[splat.causal()] * 2),
        "ArgumentError: mask wanted as 8 masks, one a query head, got 2. Give 8, or one mask for all. If q is (batch, "
        "seq, heads, dim), give layout='bshd'.",
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
    "float32 on tensor cores": (
        lambda: attend(backend="cuda", target="sm_90a"),
        "ArgumentTypeError: q wanted as float16 or bfloat16 for target 'sm_90a', got float32. Leave target out, or "
        "convert it.",
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

    monkeypatch.setattr("splat_numba.runtime.cpu.code.compile_source", refuse)
    call, message = MESSAGES[name]
    with pytest.raises(splat.SplatError) as caught:
        call()
    assert f"{type(caught.value).__name__}: {caught.value}" == message


def test_every_error_of_a_user_is_a_splat_error_and_an_ordinary_one_too():
    for name in ("ArgumentError", "PatternError", "FormatError"):
        assert issubclass(getattr(splat, name), ValueError)
        assert issubclass(getattr(splat.errors, name.replace("Error", "TypeError")), TypeError)


@pytest.mark.parametrize(
    ("q", "k"),
    [
        ((1, 8, 1, 4), (1, 2, 9, 4)),  # decoding
        ((1, 8, 2, 4), (1, 2, 9, 4)),  # as many queries as key heads
        ((1, 8, 4, 4), (1, 2, 8, 4)),  # as many keys as query heads
        ((1, 8, 8, 4), (1, 8, 8, 4)),
        ((2, 8, 4), (2, 8, 4)),
    ],
)
def test_grouped_heads_are_not_taken_for_swapped_ones(q, k):
    check_layouts_agree(bhsd_axes(q, "bhsd", 1), bhsd_axes(k, "bhsd", 1))


def test_the_file_of_an_edited_kernel_must_be_there(tmp_path):
    kernel = splat.compile(splat.causal(), seq_q=8, seq_kv=8, head_dim=4, dtype="float32")
    for path in (tmp_path / "missing.py", tmp_path, None, 3.5, "a\0b"):
        with pytest.raises(splat.ArgumentError, match=r"^path wanted as a file('s name| that can be read), got "):
            kernel.with_source(path)
