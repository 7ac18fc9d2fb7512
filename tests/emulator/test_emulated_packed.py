"""The packed operators' texts for GPUs, run on NumPy: against the oracle, by name and drawn; faults planted in them."""

import gc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import splat_numba as splat
from splat_numba.errors import ArgumentError, ArgumentTypeError, BackendError
from splat_numba.executors.emulated import packed as emulated_packed
from splat_numba.executors.gpu import packed as gpu_packed
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import Pattern
from splat_numba.gen.packed import parts as packed_parts
from splat_numba.gen.targets.simt.packed import schedule as packed_rows
from splat_numba.gen.targets.simt.packed.traits import HELD as HELD_KINDS
from splat_numba.runtime.cuda.device import device
from splat_numba.runtime.cuda.memory import DeviceArray
from splat_numba.testing import masks
from tests.emulator.emulated_gpu import emulated, forget_emulated
from tests.emulator.planted_faults import check_found
from tests.ops import test_packed as products
from tests.ops import test_packed_gradients as gradients
from tests.ops.packed_cases import MIXED, Case
from tests.profiles import draws
from tests.runtime.fake_cuda import GpuMemory

EMULATED, ON_GPU = {"backend": "emulate"}, {"backend": "cuda"}
RNG = np.random.default_rng(5)
# Rows of none, and of single columns.
SCATTERED = ACSR.from_dense((RNG.random((19, 23)) < 0.2) & (np.arange(19) % 4 > 0)[:, None])
WINDOW = ACSR.from_pattern(splat.window(20, 17), 21, 45)  # rows of more than a warp's 32 pairs
ODD = ACSR.from_pattern(splat.window(2), 7, 7)
assert ODD.nnz % 2
UNEVEN = ACSR.from_pattern(MIXED, 13, 40)


def check(case, scale=1.0, **options):
    products.check_sddmm(case, scale, **options)
    products.check_softmax(case, **options)
    products.check_spmm(case, **options)
    products.check_transposed(case, **options)


def check_gradients(case, scale=1.0, **options):
    gradients.check_sddmm(case, scale, **options)
    gradients.check_softmax(case, **options)
    gradients.check_spmm(case, **options)


@st.composite
def small_cases(draw):
    seq_q, seq_kv = draw(st.integers(0, 12)), draw(st.integers(0, 40))
    mask = draw(masks(seq_q, seq_kv))
    acsr = mask if isinstance(mask, ACSR) else None
    if acsr is None:
        acsr = ACSR.from_pattern(mask, seq_q, seq_kv) if isinstance(mask, Pattern) else ACSR.from_dense(mask)
    heads_kv, group = draw(st.sampled_from([(1, 1), (1, 3), (2, 1)]))
    dtype = draw(st.sampled_from(["float32", "float64", "float16"]))
    dims = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    return Case(acsr, dtype, draw(st.sampled_from([None, 1, 2, 0])), heads_kv * group, heads_kv, *dims)


@settings(max_examples=draws(12), suppress_health_check=[HealthCheck.too_slow])
@given(small_cases(), st.sampled_from([1.0, -0.3, 0.0]), st.booleans())
def test_any_case_agrees_with_the_oracle(case, scale, backwards):
    (check_gradients if backwards else check)(case, scale, **EMULATED)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("acsr", [WINDOW, SCATTERED], ids=["runs", "a list of columns"])
def test_every_dtype(acsr, dtype):
    """Of odd numbers of pairs, so that words of 16-bit values belong to two rows and two heads."""
    check(Case(acsr, dtype, 1, 2, 1, 20, 12), **EMULATED)


@pytest.mark.parametrize(
    ("head_dim", "value_dim", "dtype"), [(1, 1, "float16"), (33, 130, "float32"), (256, 255, "float64")]
)
def test_any_head_dim_and_value_dim(head_dim, value_dim, dtype):
    """One lane a row of v and all of a warp's; more than a chunk a lane."""
    check(Case(UNEVEN, dtype, None, 1, 1, head_dim, value_dim), **EMULATED)


def test_sixteen_bits_of_odd_rows():
    """Words of packed values belong to two rows, two heads and two batch entries."""
    case = Case(ODD, "float16", 3, 1, 1, 8, 8)
    products.check_sddmm(case, **EMULATED)
    products.check_softmax(case, **EMULATED)


HUBS = ACSR.from_dense((RNG.random((17, 90)) < 0.05) | np.isin(np.arange(17), (3, 9))[:, None])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_long_rows_in_parts(monkeypatch, dtype):
    """By a list of columns and by runs; the transposed mask too, whose rows find their values by places."""
    monkeypatch.setattr(packed_parts, "PART_PAIRS", 8)
    monkeypatch.setattr(packed_parts, "LONGEST", 16)
    for acsr in (HUBS, ACSR.from_pattern(MIXED | splat.window(20, 14), 13, 60)):
        case = Case(acsr, dtype, 2, 2, 1, 20, 12)
        products.check_sddmm(case, 0.5, **EMULATED)
        products.check_spmm(case, **EMULATED)
        products.check_transposed(case, **EMULATED)


def test_gradients_with_grouped_heads():
    check_gradients(Case(UNEVEN, "float32", 1, 4, 2, 8, 20), 0.3, **EMULATED)


def test_frozen_gradients_are_not_computed():
    q, k, v, values = Case(SCATTERED, batch=1, heads=1, heads_kv=1).arrays()
    dq, dk = splat.sddmm_vjp(q, k, SCATTERED, frozen=("k",), **EMULATED)[1](values)
    dvalues, dv = splat.spmm_vjp(values, v, SCATTERED, frozen=("v",), **EMULATED)[1](q)
    assert (dk, dv) == (None, None)
    assert (dq.shape, dvalues.shape) == (q.shape, values.shape)


def test_numbers_that_are_none_reach_their_own_rows_only():
    """As the oracle's, and a row of -inf alone weighs nothing. Column 5 of v, inf, reaches who keeps it."""
    case = Case(WINDOW, "float32", None, 1, 1, 8, 8)
    _, _, v, values = case.arrays()
    rows = products.pairs(WINDOW)[0]
    for row, number in ((2, np.nan), (3, np.inf)):
        values[0, np.flatnonzero(rows == row)[7]] = number
    values[0, rows == 4] = -np.inf
    weights = splat.softmax(values, WINDOW, **EMULATED)
    assert np.isnan(weights[0, (rows == 2) | (rows == 3)]).all()
    assert (weights[0, rows == 4] == 0).all()
    assert np.isfinite(weights[0, rows > 4]).all()
    v[0, 5] = np.inf
    out = splat.spmm(np.ones_like(values), v, WINDOW, **EMULATED)
    assert_array_equal(np.isinf(out[0]).all(axis=-1), WINDOW.to_dense()[:, 5])
    assert_array_equal(np.isinf(out[0]).any(axis=-1), WINDOW.to_dense()[:, 5])


def test_far_values_do_not_overflow():
    values = np.float32([[3e38, -3e38, 3e38] * 100])[:, : UNEVEN.nnz]
    got, mask = splat.softmax(values, UNEVEN, **EMULATED), UNEVEN.to_dense()
    wanted = products.reference.softmax(products.unpack(values, UNEVEN), mask)
    assert_allclose(got, products.pack(wanted, UNEVEN), rtol=1e-6)


@pytest.fixture
def gpu(monkeypatch):
    yield emulated(monkeypatch)
    gc.collect()  # arrays that errors hold want the driver
    forget_emulated()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_through_the_runtime(gpu, dtype):  # noqa: ARG001 - asked for by name
    """Uploads, packed parameters, copies of rows that are no whole chunks."""
    case = Case(SCATTERED, dtype, 1, 2, 1, 9, 7)
    check(case, 0.5, **ON_GPU)
    check_gradients(case, **ON_GPU)


def test_a_repeated_call_is_a_look_up(gpu, monkeypatch):  # noqa: ARG001
    q, k, _, values = Case(UNEVEN, batch=1, heads=1, heads_kv=1, head_dim=4).arrays()
    first = splat.sddmm(q, k, UNEVEN, **ON_GPU)
    monkeypatch.setattr(gpu_packed, "packed_schedule", None)
    assert_array_equal(splat.sddmm(q, k, UNEVEN, **ON_GPU), first)
    assert np.isfinite(values).all()


def on_device(array):
    """A copy on the emulated GPU."""
    found = DeviceArray(device(0), array.shape, array.dtype.name)
    found.fill(np.ascontiguousarray(array))
    return found


def from_device(array):
    host = np.empty(array.shape, array.dtype)
    array.read(host)
    return host


def test_sixteen_bits_are_refused_on_turing(gpu, monkeypatch):  # noqa: ARG001
    monkeypatch.setattr(gpu_packed, "FIRST_WITH_HALVES", (9, 1))
    values = Case(UNEVEN, "float16", 1, 1, 1).arrays()[3]
    with pytest.raises(ArgumentTypeError, match=r"^values wanted as float32 or float64 on compute capability 9\.0, "):
        splat.softmax(values, UNEVEN, **ON_GPU)


@pytest.mark.parametrize("heads", [None, 2])
def test_arrays_on_a_gpu_give_arrays_there(gpu, heads):  # noqa: ARG001
    """Of the caller's axes, the bits of what is copied there and back."""
    q, k, v, values = arrays = Case(UNEVEN, "float32", None, heads, 1, 12, 12).arrays()
    a, b, c, d = map(on_device, arrays)
    found, wanted = splat.sddmm_vjp(a, b, UNEVEN), splat.sddmm_vjp(q, k, UNEVEN, **ON_GPU)
    pairs = [(found[0], wanted[0]), *zip(found[1](d), wanted[1](values), strict=True)]
    found, wanted = splat.softmax_vjp(d, UNEVEN), splat.softmax_vjp(values, UNEVEN, **ON_GPU)
    pairs += [(found[0], wanted[0]), (found[1](d), wanted[1](values))]
    found, wanted = splat.spmm_vjp(d, c, UNEVEN), splat.spmm_vjp(values, v, UNEVEN, **ON_GPU)
    pairs += [(found[0], wanted[0]), *zip(found[1](a), wanted[1](q), strict=True)]
    pairs.append((splat.spmm(d, a, UNEVEN, transpose=True), splat.spmm(values, q, UNEVEN, transpose=True, **ON_GPU)))
    for got, right in pairs:
        assert isinstance(got, DeviceArray)
        assert_array_equal(from_device(got), right)


def test_arrays_of_two_places_are_refused(gpu):  # noqa: ARG001
    q, k, v, values = Case(UNEVEN, "float32", 1, 1, 1).arrays()
    on_gpu = {name: on_device(x) for name, x in (("q", q), ("k", k), ("values", values))}
    elsewhere = GpuMemory(v.shape)
    refused = {
        "k wanted in GPU memory": lambda: splat.sddmm(on_gpu["q"], k, UNEVEN),
        "k wanted in CPU memory for backend 'cuda' over such arrays, got a GPU array": lambda: splat.sddmm(
            q, on_gpu["k"], UNEVEN, **ON_GPU
        ),
        "v wanted as an array of the framework of values": lambda: splat.spmm(on_gpu["values"], elsewhere, UNEVEN),
    }
    for message, call in refused.items():
        with pytest.raises((ArgumentTypeError, BackendError), match=f"^{message}"):
            call()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_softmax_of_rows_that_begin_in_the_middle_of_a_chunk(dtype):
    """Where the results begin elsewhere in a chunk, they are stored one by one. Lanes add up other numbers then."""
    values = Case(WINDOW, dtype, 1, 2, 1).arrays()[3]
    wide = np.full((*values.shape[:-1], values.shape[-1] + 3), np.nan, values.dtype)
    wide[..., 1:-2] = values
    apart = np.repeat(values, 2, axis=-1)[..., ::2]
    wanted = splat.softmax(values, WINDOW, **EMULATED)
    for one in (wide[..., 1:-2], apart):
        found = splat.softmax(one, WINDOW, **EMULATED)
        assert_allclose(found, wanted, rtol=2e-3 if dtype == "float16" else 2e-6)


def test_strides_are_read_as_they_are():
    q, k, v, values = Case(UNEVEN, "float16", 1, 1, 1, 12, 12).arrays()
    turned = [np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2) for x in (q, k, v)]
    wide = np.repeat(values, 2, axis=-1)[..., ::2]
    assert_array_equal(splat.sddmm(*turned[:2], UNEVEN, **EMULATED), splat.sddmm(q, k, UNEVEN, **EMULATED))
    found, wanted = splat.softmax(wide, UNEVEN, **EMULATED), splat.softmax(values, UNEVEN, **EMULATED)
    assert_allclose(found.astype(np.float32), wanted.astype(np.float32), rtol=2e-3)
    assert_array_equal(splat.spmm(wide, turned[2], UNEVEN, **EMULATED), splat.spmm(values, v, UNEVEN, **EMULATED))


def test_what_does_not_fit_is_refused_by_name(monkeypatch):
    q, _, v, values = Case(UNEVEN, batch=1, heads=2, heads_kv=1).arrays()
    with pytest.raises(ArgumentError, match=r"^v wanted with the values' 2 heads for transpose=True, got 1\."):
        splat.spmm(values, q[:, :1], UNEVEN, transpose=True, **EMULATED)
    with pytest.raises(ArgumentTypeError, match=r"^transpose wanted as True or False, got 1 "):
        splat.spmm(values, v, UNEVEN, transpose=1)
    monkeypatch.setattr(gpu_packed, "MOST_PAIRS", UNEVEN.nnz)
    with pytest.raises(ArgumentError, match=r"^acsr wanted with fewer than 2\*\*31 pairs on a GPU, got "):
        splat.softmax(values, UNEVEN, **EMULATED)


FAULTY = Case(WINDOW, "float32", 1, 2, 2, 12, 12)
# Rows of odd and even numbers of values, odd in all, that begin anywhere in a chunk: held in registers, by fewer lanes
# or by more, or too long.
HELD = Case(ACSR.from_pattern(splat.window(400), 6, 802), "float16", 1, 3, 1, 12, 12)
SHARED = [
    Case(ACSR.from_pattern(splat.window(reach), 7, columns), "float16", 1, 2, 1, 12, 12)
    for reach, columns in ((40, 802), (120, 802), (900, 802), (1500, 1403), (1400, 2802))
]
LONG = Case(ACSR.from_pattern(splat.window(4500), 6, 4602), "float16", 1, 3, 1, 12, 12)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_softmax_of_rows_that_registers_hold_and_do_not(dtype):
    for case in (*SHARED, HELD, LONG):
        products.check_softmax(replace(case, dtype=dtype), **EMULATED)


CAUSAL = Case(ACSR.from_pattern(splat.causal(), 450, 450), "float16", 1, 1, 1, 12, 12)


def test_softmax_of_many_rows_goes_by_their_length(monkeypatch):
    """Each by the lanes that hold it; a launch for few rows would cost more than it gains."""
    seen = []
    record = gpu_packed.packed_schedule

    def kept(*given):
        seen.append(record(*given))
        return seen[-1]

    monkeypatch.setattr(emulated_packed, "packed_schedule", kept)
    products.check_softmax(CAUSAL, **EMULATED)
    monkeypatch.setattr(packed_rows, "ROWS_BY_THEMSELVES", 1)
    products.check_softmax(CAUSAL, **EMULATED)
    kinds = [[step.text.name.rsplit("_", 1)[-1] for step in one.steps] for one in seen]
    assert kinds == [["held16x5"], ["held8x5", "held16x5"]]  # 121 rows are fewer than 132


def test_rows_by_length():
    """Each goes where it is held, unless so few of them do that they go with others."""
    rows = np.zeros((1000, 4), np.uint32)
    rows[:, 2] = np.arange(1000)[::-1] * 5
    for least, kinds in ((1, HELD_KINDS), (70, HELD_KINDS[2:]), (700, HELD_KINDS[-1:]), (5000, HELD_KINDS[-1:])):
        found = packed_rows.by_length(rows, 8, least)
        assert tuple(kind for kind, _ in found) == kinds
        for (sharing, held), some in found[:-1]:
            assert (some[:, 2].max() + 14) // 8 <= sharing * held
        assert sorted(np.concatenate([some[:, 2] for _, some in found]).tolist()) == (np.arange(1000) * 5).tolist()
    assert [kind for kind, _ in packed_rows.by_length(rows[-20:], 8, 10)] == [(8, 2)]


FAULTS = {
    "rows of a block": (r"\* u32\(4\) \+ u32\(thread", "* u32(3) + u32(thread"),
    "pairs beyond a run": (r"there = u32\(1\) if mine < size else u32\(0\)", "there = u32(1)"),
    "rows of v beyond a run": (r"there = u32\(1\) if u32\(begin \+ whose\) < size else u32\(0\)", "there = u32(1)"),
    "whose key": (r"u32\(4 \* number\) \+", "u32(3 * number) +"),
    "keys that are left": (r"if u32\(begin \+ u32\(16\)\) < size", "if u32(begin + u32(20)) < size"),
    "parts of a key": (r"else high, high if upper else low", "else high, low"),
    "a lane's own peak": (r"added \* power\(peak - safe\)\)", "added)"),
    "numbers of the rows beside": (r"mine = part if place < count else u32\(0\)", "mine = part"),
    "chunks that rows share": (r"x, when if place < count else u32\(0\)", "x, when"),
    "held numbers of the rows beside": (r"(x_7 = ptx\.select_real\(x_7), NONE_KEPT, there", r"\1, x_7, there"),
    "a row's first number in a word": (r"ptx\.store_half\(row_at, u32[^\n]*", "pass"),
    "a row's last number in a word": (r"ptx\.store_half\(row_at \+ u64\(2\) \* u64\(u32\(count[^\n]*", "pass"),
    "words of a row's last chunk": (r"ptx\.store_word\(row_at[^\n]*, c, kept\)", "pass"),
    "a held row's second piece": (r"if [^\n]*chunks > u32\(16\)[^\n]*\n( +)peak", r"if chunks > u32(640):\n\1peak"),
    "whose row": (r"rank \+ u32\(lane // u32\(16\)\)", "rank"),
    "a row's own peak": (r"top = top_of_row\(hold", "top = (hold"),
    "rows of a warp in turn": (r"word_of_lane\((slot|count), u32\(16 \* i\)\)", r"word_of_lane(\1, u32(0))"),
    "rows of v side by side": (r"total\[n\] = sum_over_rows\(total\[n\]\)", "pass"),
    "places of values": (r"at = ptx\.load_word\(places[^\n]*", "pass"),
    "parts of a row": (r"while part < count", "while part < u32(1)"),
    "sum of a row's changes": (r"total = sum_of_warp\(added\)", "total = added"),
}  # fmt: skip


IN_TURN = ("a lane's own peak", "numbers of the rows beside")  # of rows that registers do not hold
OF_SOFTMAX = (
    *IN_TURN, "chunks that rows share", "held numbers of the rows beside",
    "a row's first number in a word", "a row's last number in a word", "words of a row's last chunk",
    "a held row's second piece", "whose row", "a row's own peak", "rows of a warp in turn",
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(monkeypatch, fault):
    pattern, replacement = FAULTS[fault]
    checks = {
        **dict.fromkeys(OF_SOFTMAX, products.check_softmax),
        "rows of v side by side": products.check_spmm,
        "rows of v beyond a run": products.check_spmm,
        "places of values": products.check_transposed,
        "parts of a row": products.check_spmm,
        "sum of a row's changes": gradients.check_softmax,
    }
    call, case = (
        checks.get(fault, products.check_sddmm),
        LONG if fault in IN_TURN else HELD if fault in OF_SOFTMAX else FAULTY,
    )
    if fault == "parts of a row":
        monkeypatch.setattr(packed_parts, "PART_PAIRS", 8)
        monkeypatch.setattr(packed_parts, "LONGEST", 16)
        case = Case(HUBS, "float32", 1, 2, 2, 12, 12)
    check_found(monkeypatch, lambda: call(case, **ON_GPU), pattern, replacement)
