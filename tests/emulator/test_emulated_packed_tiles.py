"""sddmm and spmm in tiles, run on NumPy: against the oracle, by name and drawn; faults planted in them."""

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import splat_numba as splat
from splat_numba.errors import ArgumentError
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import Pattern
from splat_numba.gen.packed import tiles as packed_tiles
from splat_numba.gen.packed.lists import PackedLists
from splat_numba.gen.packed.problem import PackedProblem, RunTable
from splat_numba.gen.plans.machine import Gpu, gpu_of
from splat_numba.gen.targets import packed
from splat_numba.gen.targets.packed import PackedPlan
from splat_numba.gen.targets.sm80.packed.traits import TiledTraits
from splat_numba.packed import plan_packed
from splat_numba.testing import masks
from tests.emulator.planted_faults import check_found
from tests.ops import test_packed as products
from tests.ops.packed_cases import Case
from tests.profiles import draws

EMULATED, ON_GPU = {"backend": "emulate"}, {"backend": "cuda"}


@pytest.fixture(autouse=True, scope="module")
def _small_masks_have_tiles():
    """Whatever a tile is predicted to cost."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "least_kept", lambda *_, by_products: 0.05 if by_products else 0.17)
        yield


def in_blocks_of(patch, *sizes):
    """Whatever is predicted to be faster. Of wide heads and of float32 blocks have 64 rows."""
    narrow = lambda self: self.dim <= 64 and self.itemsize == 2  # noqa: E731
    patch.setattr(TiledTraits, "sizes", property(lambda self: sizes if narrow(self) else (64,)))


def acsr_of(mask, seq_q, seq_kv):
    if isinstance(mask, ACSR):
        return mask
    return ACSR.from_pattern(mask, seq_q, seq_kv) if isinstance(mask, Pattern) else ACSR.from_dense(mask)


def plan_of(acsr, dtype="float16", operator="sddmm", dim=64, gpu=None, **options):
    problem = PackedProblem(operator, dtype, 1, 1, dim)
    return PackedPlan.of(problem, PackedLists.of(RunTable.of(acsr)), gpu or Gpu(), **options)


def check(case, scale=1.0, **options):
    assert plan_of(case.acsr, case.dtype).tiles is not None
    products.check_sddmm(case, scale, **options)
    products.check_spmm(case, **options)
    products.check_transposed(case, **options)


RNG = np.random.default_rng(7)
ROWS = np.arange(70)[:, None]
BESIDE = ACSR.from_dense(np.where(ROWS % 3 > 0, abs(ROWS - np.arange(120)) < 20, RNG.random((70, 120)) < 0.05))

NAMED = {
    # Rows of odd and even lengths, so that words of packed values belong to two rows, two tiles and two heads.
    "window": (splat.window(20, 17), 90, 101, {"batch": 2}),
    "more tiles than stages": (splat.window(250, 270), 20, 300, {}),
    "whole tiles": (splat.blocked(64, 1), 130, 130, {}),
    "residue classes": (splat.strided(3), 100, 140, {}),
    "whole chunks of v": (splat.strided(2), 100, 300, {"value_dim": 64}),
    "causal, bfloat16": (splat.causal(), 80, 80, {"dtype": "bfloat16"}),
    "dims of no whole chunk": (splat.window(30), 66, 66, {"head_dim": 33, "value_dim": 9}),
    "a step that no load fills": (splat.window(30), 40, 66, {"head_dim": 24, "value_dim": 40}),
    "wide heads": (splat.full(), 10, 70, {"head_dim": 130, "value_dim": 144}),
    "one number": (splat.full(), 17, 65, {"head_dim": 1, "value_dim": 1}),
    "rows beside tiles": (BESIDE, 70, 120, {}),
    "float32": (splat.window(40, 30), 90, 101, {"dtype": "float32", "batch": 2, "head_dim": 64, "value_dim": 60}),
    "float64": (splat.strided(2), 100, 140, {"dtype": "float64", "head_dim": 33}),
    "float32, wide heads": (splat.full(), 40, 70, {"dtype": "float32", "head_dim": 130, "value_dim": 256}),
    "a batch of none": (splat.full(), 17, 65, {"batch": 0}),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_named_case_agrees_with_the_oracle(monkeypatch, name):
    in_blocks_of(monkeypatch, 128 if "window" in name or "step" in name else 64)
    mask, seq_q, seq_kv, options = NAMED[name]
    given = {"dtype": "float16", "batch": 1, "heads": 2, "heads_kv": 1, "head_dim": 20, "value_dim": 12} | options
    check(Case(acsr_of(mask, seq_q, seq_kv), **given), 0.7, **EMULATED)


@st.composite
def small_cases(draw):
    seq_q, seq_kv = draw(st.integers(1, 70)), draw(st.integers(1, 140))
    acsr = acsr_of(draw(masks(seq_q, seq_kv)), seq_q, seq_kv)
    heads_kv, group = draw(st.sampled_from([(1, 1), (1, 2)]))
    dims = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    return Case(
        acsr, draw(st.sampled_from(["float16", "bfloat16", "float32", "float64"])), 1, heads_kv * group, heads_kv, *dims
    )


@settings(max_examples=draws(12), suppress_health_check=[HealthCheck.too_slow])
@given(small_cases(), st.sampled_from([1.0, -0.3, 0.0]), st.sampled_from([64, 128]))
def test_any_case_agrees_with_the_oracle(case, scale, size):
    """Whatever is one run a row goes through tiles."""
    with pytest.MonkeyPatch.context() as patch:
        in_blocks_of(patch, size)
        patch.setattr(packed_tiles, "LEAST_KEPT", 0.0)
        patch.setattr(packed, "least_kept", lambda *_, **__: 0.0)
        products.check_sddmm(case, scale, **EMULATED)
        products.check_spmm(case, **EMULATED)
        products.check_transposed(case, **EMULATED)


WINDOW = ACSR.from_pattern(splat.window(20, 17), 40, 60)


def test_values_may_begin_in_the_middle_of_a_word():
    case = Case(WINDOW, "float16", 1, 2, 1, 12, 12)
    _, _, v, values = case.arrays()
    wide = np.full((*values.shape[:-1], values.shape[-1] + 3), np.nan, np.float16)
    wide[..., 1:-2] = values
    assert_array_equal(splat.spmm(wide[..., 1:-2], v, WINDOW, **EMULATED), splat.spmm(values, v, WINDOW, **EMULATED))
    apart = np.repeat(values, 2, axis=-1)[..., ::2]  # not side by side: a warp a row
    got, wanted = splat.spmm(apart, v, WINDOW, **EMULATED), splat.spmm(values, v, WINDOW, **EMULATED)
    np.testing.assert_allclose(got.astype(np.float32), wanted.astype(np.float32), atol=0.02)


def test_a_key_that_is_no_number_reaches_its_own_pairs():
    q, k, _, _ = Case(WINDOW, "float16", None, 1, 1, 12, 12).arrays()
    k[0, 5] = np.nan
    values = splat.sddmm(q, k, WINDOW, **EMULATED)
    assert_array_equal(np.isnan(values[0]), WINDOW.columns() == 5)


def test_an_infinite_key_gives_what_float32_gives():
    """Three products of TF32 would give NaN, as an infinite number has no rest."""
    q, k, _, _ = Case(WINDOW, "float32", None, 1, 1, 36, 36).arrays()
    assert plan_of(WINDOW, "float32", dim=36).by_products
    q[0, :, 3], q[0, 9, 2] = 1 + abs(q[0, :, 3]), 0
    k[0, 5, 3], k[0, 7, 2] = np.inf, -np.inf
    values = splat.sddmm(q, k, WINDOW, **EMULATED)[0]
    rows, columns = np.nonzero(WINDOW.to_dense())
    assert (values[columns == 5] == np.inf).all()
    wanted = np.where(rows == 9, np.nan, np.where(q[0, rows, 2] > 0, -np.inf, np.inf))[columns == 7]
    assert_array_equal(values[columns == 7], wanted)
    assert np.isfinite(values[~np.isin(columns, (5, 7))]).all()


def test_a_value_vector_that_is_not_finite_reaches_who_keeps_it():
    """And other rows of its tiles, as 0 x NaN is NaN; not those of other tiles."""
    acsr = ACSR.from_pattern(splat.window(30), 150, 150)
    _, _, v, values = Case(acsr, "float16", None, 1, 1, 8, 8).arrays()
    v[0, 5] = np.nan
    reached = np.isnan(splat.spmm(values, v, acsr, **EMULATED)[0]).all(axis=-1)
    assert reached[acsr.to_dense()[:, 5]].all()
    assert not reached[128:].any()


def test_columns_have_tiles_of_values_in_their_order():
    """Where no heads add up, and where they are not transposed on the way; the values of all heads are copied first."""
    acsr = ACSR.from_pattern(splat.window(20, 17), 90, 101)
    lists = PackedLists.of(RunTable.transposed(acsr))
    plan = PackedPlan.of(PackedProblem("spmm_transposed", "float64", 1, 2, 64), lists, Gpu())
    assert plan.turns
    assert "; packed values are copied to their order first; predicted" in plan.explain()
    shared = PackedPlan.of(PackedProblem("spmm_transposed", "float16", 1, 2, 64, group=2), lists, Gpu())
    assert (shared.tiles, shared.refusal) == (None, "2 heads add up in one, a row at a time")


def test_columns_of_16_bits_have_tiles_of_values_where_they_stand():
    """Unless other rows keep some of a block's columns too, or values do not lie side by side."""
    problem = PackedProblem("spmm_transposed", "float16", 1, 2, 64)
    lists = PackedLists.of(RunTable.transposed(ACSR.from_pattern(splat.dilated(20, 4), 300, 170)))
    plan = PackedPlan.of(problem, lists, Gpu())
    assert re.search(
        r" of 64 x 64, \d+% kept, in \d blocks of columns that share rows; by mma\.sync; packed values are "
        r"transposed there; predicted ", plan.explain(),
    )  # fmt: skip
    assert (plan.turns, len(plan.rows)) == (False, 0)
    assert PackedPlan.of(problem, lists, Gpu(), side_by_side=False).turns
    assert not len(PackedLists.of(RunTable.transposed(BESIDE)).column_tiles(64).blocks)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"operator": "softmax"}, "softmax has no text for them"),
        ({"dtype": "float64", "dim": 256, "gpu": gpu_of((8, 6))}, "99 KiB do not hold one of rows of 256 numbers"),
        ({"acsr": ACSR.from_pattern(splat.strided(9) | splat.window(2), 70, 70)}, "no rows share enough columns"),
    ],
    ids=str,
)
def test_why_a_call_has_no_tiles(options, reason):
    plan = plan_of(**{"acsr": WINDOW, **options})
    assert (plan.tiles, plan.refusal) == (None, reason)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, ""),
        ({"dtype": "float64"}, "mma.sync takes numbers of 16 and 32 bits, not float64"),
        ({"dtype": "float32"}, ""),
        ({"dtype": "float32", "operator": "sddmm"}, ""),
        (
            {"dtype": "float32", "operator": "sddmm", "dim": 8},
            "products of TF32 take rows of 32 to 64 numbers, not 8",
        ),
        (
            {"dtype": "float32", "operator": "sddmm", "gpu": gpu_of((8, 6))},
            "three products of TF32 make 60 operations a cycle, FMA units 179",
        ),
        ({"gpu": gpu_of((7, 5))}, "compute capability 7.5 lacks the instructions"),
        ({"dim": 256, "gpu": gpu_of((8, 6)), "operator": "sddmm"}, None),
        ({"side_by_side": False}, "packed values do not lie side by side"),
    ],
    ids=str,
)
def test_why_tiles_have_no_matrix_products(options, reason):
    plan = plan_of(**{"acsr": ACSR.from_pattern(splat.full(), 64, 64), "operator": "spmm", **options})
    if reason is None:  # neither two tiles of 16 bits fit there, nor one as float32
        assert (plan.tiles, plan.without) == (None, "two tiles of rows of 256 numbers do not fit in 99 KiB")
        return
    assert plan.tiles is not None
    assert (plan.by_products, plan.without) == (not reason, reason)


def test_sums_of_few_pairs_are_made_in_float32():
    """A row of one pair would miss its bound: three products of TF32 are not as exact as one of float32."""
    acsr = ACSR.from_pattern(splat.causal(), 80, 80)
    tiles = plan_of(acsr, "float32", "spmm").tiles
    assert not tiles.covered[:64].any()
    assert tiles.covered[64:].all()
    assert plan_of(acsr, "float32", "sddmm").tiles.covered.all()
    products.check_spmm(Case(acsr, "float32", 1, 1, 1, 32, 32), **EMULATED)
    products.check_transposed(Case(acsr, "float32", 1, 1, 1, 32, 32), **EMULATED)


def test_long_masks_have_blocks_of_more_rows():
    """Which share what is read of keys, where they keep all multiprocessors busy and do not have many more tiles."""
    acsr = ACSR.from_pattern(splat.causal(), 1024, 1024)
    lists = PackedLists.of(RunTable.of(acsr))
    sizes = [
        PackedPlan.of(PackedProblem("spmm", "float16", batch, 12, 64), lists, Gpu()).tiles.size for batch in (1, 32)
    ]
    assert sizes == [64, 128]
    for mask in (splat.strided(16), splat.window(53)):
        short = PackedLists.of(RunTable.of(ACSR.from_pattern(mask, 1024, 1024)))
        assert PackedPlan.of(PackedProblem("spmm", "float16", 32, 12, 64), short, Gpu()).tiles.size == 64


def test_a_plan_says_what_goes_where():
    problem = PackedProblem("sddmm", "float16", 2, 3, 64)
    lists = PackedLists.of(RunTable.of(BESIDE))
    plan = PackedPlan.of(problem, lists, Gpu())
    covered, told = int(plan.tiles.covered.sum()), plan.explain().splitlines()
    assert told[0] == "operator    sddmm, batch 2, heads 3, rows of 64 numbers, float16"
    assert re.fullmatch(
        r"tiles       \d of 64 x 64, \d\d% kept, in 1 block of rows that share columns; by mma\.sync; predicted .*",
        told[3],
    )
    assert told[4].startswith(f"rows        {70 - covered} with a warp each; ")
    told = plan_packed("softmax", BESIDE, dtype="float32").explain()
    assert "tiles       none: softmax has no text for them\nrows        70 with a warp each; " in told


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"operator": "sdmm"}, "operator wanted among sddmm, softmax, softmax_backward, spmm, spmm_transposed, got "),
        ({"dim": 0}, "dim wanted >= 1, got 0"),
        ({"operator": "softmax"}, "dim wanted <= 0, got 64"),
        ({"acsr": splat.causal()}, "acsr wanted as an ACSR, got a Pattern"),
    ],
    ids=str,
)
def test_a_plan_refuses_by_name(changed, message):
    with pytest.raises(ArgumentError, match=f"^{message}"):
        plan_packed(**{"operator": "sddmm", "acsr": WINDOW, "dtype": "float16", "dim": 64, **changed})


# Rows of an odd number of pairs are all odd or all even, of an even one they take turns; the last keep whole tiles, and
# those of one warp a tile less than those of the other.
FAULTY = [
    Case(acsr, "float16", None, 1, 1, 20, 20)
    for acsr in (
        ACSR.from_pattern(splat.window(20, 17), 66, 101),
        ACSR.from_pattern(splat.window(20, 18), 66, 101),
        ACSR.from_dense(np.arange(128) < np.where(ROWS[:40] < 32, 64, 128) - ROWS[:40] % 2),
    )
]
FAULTY_WHOLE = [Case(ACSR.from_pattern(splat.window(70, 39), 66, 101), "float16", None, 1, 1, 64, 64)]
FULLER = ACSR.from_pattern(splat.window(45, 36), 66, 101)  # of which all rows keep 32 pairs and more
FAULTY_REALS = [Case(FULLER, "float32", None, 1, 1, 36, 36)]
FAULTY_FMA = [Case(ACSR.from_pattern(splat.window(70, 39), 66, 151), "float64", None, 1, 1, 20, 20)]
OTHER_CASES = {
    "fma": FAULTY_FMA, "fma weights": FAULTY_FMA, "copied columns": FAULTY_FMA, "wide spmm": FAULTY_WHOLE,
    "reals": FAULTY_REALS, "reals of spmm": FAULTY_REALS,
}  # fmt: skip
FAULTS = {
    "chunks that others end": (r"\(into < count\) and \(last < count\)", "into < count", "sddmm"),
    "chunks at a row's ends": (r"mine = u32\(1\) if \(chunk < chunks\)[^\n]*", "mine = u32(0)", "sddmm"),
    "the chunk that a row ends in": (r"select\(ends, begins, end\)", "select(begins, begins, end)", "sddmm"),
    "a row's end that waits": (r"store_parts\(lane, u32\(2\)[^\n]*", "pass", "sddmm"),
    "tiles of which a warp keeps what waits": (r"reach \+ u32\(79\)", "reach + u32(63)", "sddmm"),
    "a row's first value alone": (r"ptx\.store_half\(row_at, u32[^\n]*", "pass", "sddmm"),
    "a row's last value alone": (r"ptx\.store_half\(row_at \+[^\n]*", "pass", "sddmm"),
    "words that others begin": (r"kept = when if \(u32\(place \+ u32\(6\)\) < count\) and", "kept = when if", "sddmm"),
    "what waits for the next tile": (r"(\n +)keep_waiting\(packed, lane\)", r"\1pass", "sddmm"),
    "what waits at the end": (r"which, chunk = u32\(u32\(16 \* i\)[^\n]*", "which, chunk = u32(0), u32(0)", "sddmm"),
    "the value before a tile": (r"ptx\.store_shared_word\(u32\(at - u32\(4\)\)[^\n]*", "pass", "sddmm"),
    "odd rows": (r"ptx\.select\(b_both, b, odd\)", "b", "sddmm"),
    "the tile is there": (r"wait_for_copies\(\)", "pass", "sddmm"),
    "the other stage": (r"STAGE_BYTES - stage", "stage", "spmm"),
    "places of a tile": (r"corner \+ place_of\(place\)", "place_of(place)", "spmm"),
    "the order of places": (r"corner \+ place_of\(place\)", "corner + place", "spmm"),
    "values that are not kept": (r"weights\[to \+ y\] & u32\(two\)", "weights[to + y]", "spmm"),
    "values before a row's first": (r"& u32\(~[^\n]*", "", "spmm"),
    "tiles that are kept in part": (r"(return u32\(0\)) if \(place < count\)[^\n]*", r"\1", "spmm"),
    "the chunk after a lane's two": (r"some_2\)", "u32(0))", "spmm"),
    "chunks at a head's ends": (r"(\n +)take_end\(words[^\n]*", r"\1pass", "spmm"),
    "a head's last chunk": (r"u32\(16\), u32\(first >> u32\(31\)\)", "u32(0), u32(0)", "spmm"),
    "two words on": (r"shift & u32\(4\)", "u32(0)", "spmm"),
    "a word on": (r"shift & u32\(2\)", "u32(0)", "spmm"),
    "odd rows of values": (r"shift & u32\(1\)", "u32(0)", "spmm"),
    "rows of the lower half": (r"u64\(128 \* i\)", "u64(0)", "spmm"),
    "values in the order of columns": (r"place = ptx\.load_word\(places[^\n]*", "place = number", "copied columns"),
    "a thread's other chunks": (r"u32\(128 \* i\)", "u32(0)", "copied columns"),
    "rows of the next tile of columns": (r"listed \+ u64\(1024\)", "listed", "columns"),
    "rows of v of the next tile": (r"rows_at \+ u64\(1024\)", "rows_at", "columns"),
    "a warp's columns": (r"u32\(32\) \* warp\)", "u32(0))", "columns"),
    "the next rows of a matrix": (r"u32\(8\) \* u32\(lane >> u32\(4\)\)", "u32(0)", "columns"),
    "the tile's rows are there": (r"wait_for_copies\(\)", "pass", "columns"),
    "the other stage of columns": (r"STAGE_BYTES - stage", "stage", "columns"),
    "columns that a row does not keep": (r"weights\[to \+ y\] & u32\(two\)", "weights[to + y]", "columns"),
    "columns beyond the last": (r"if u64\(residue\)[^\n]*", "if limit > u32(0):", "wide spmm"),
    "tiles of which a warp keeps nothing": (r"return ptx\.any_lane\(some_0 \|[^\n]*", "return some_0", "spmm"),
    "ends of rows of float32": (r"when if here < count else u32\(0\)", "u32(0)", "reals"),
    "chunks of float32": (r"u32\(4\) \* chunk\)\n", "u32(8) * chunk)\n", "reals"),
    "what waits of float32": (r"(\n +)keep_waiting\(packed, lane\)", r"\1pass", "reals"),
    "values of float32 that are not kept": (r"ptx\.select\(x_0, u32\(0\), kept\)", "x_0", "reals of spmm"),
    "the other stages of float32": (r"u32\(stage \+ STAGE_BYTES\)", "stage", "reals of spmm"),
    "where a row of float32 begins": (r"u32\(4\) \* shift\[0\]", "u32(0)", "reals of spmm"),
    "the last chunk of float32": (r"some_4\)", "u32(0))", "reals of spmm"),
    "keys of the tile before": (r"ptx\.block_barrier\(\)(\n +multiply_keys)", r"pass\1", "fma"),
    "keys while they are read": (r"ptx\.block_barrier\(\)  # nobody reads the keys", "pass  #", "fma"),
    "products that are kept": (r"there = u32\(1\) if u32\(place - [^\n]*", "there = u32(1)", "fma"),
    "weights that are kept": (r" if u32\(corner \+ here - begin\) < count else ZERO", "", "fma weights"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(monkeypatch, fault):
    pattern, replacement, operator = FAULTS[fault]
    in_blocks_of(monkeypatch, 128)
    call = products.check_sddmm if operator in {"sddmm", "reals", "fma"} else products.check_spmm
    call = products.check_transposed if "columns" in operator else call
    check_found(
        monkeypatch, lambda: [call(one, **ON_GPU) for one in OTHER_CASES.get(operator, FAULTY)], pattern, replacement
    )
