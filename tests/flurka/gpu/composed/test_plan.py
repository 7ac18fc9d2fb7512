"""Which calls take the float32 path on a GPU, its chunks and its tiles; and that its texts compile without a GPU."""

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flurka_numba.feature_maps import resolve
from flurka_numba.gpu.composed.matrix import Extent
from flurka_numba.gpu.composed.plan import (
    LARGEST_SCRATCH,
    LARGEST_SHARES,
    LEAST_ROWS,
    RowChunk,
    chunks_of,
    composed_plan,
    composes_forward,
    composes_gradients,
    product_plan,
    query_shares,
)
from flurka_numba.targets.simt.add_up import AddUpTraits
from flurka_numba.targets.simt.divide import DividePullTraits, DivideTraits
from flurka_numba.targets.simt.elementwise import ElementwisePullTraits, ElementwiseTraits
from flurka_numba.targets.simt.head_scales import HeadScaleTraits
from flurka_numba.targets.simt.largest import LargestTraits
from flurka_numba.targets.simt.product import ProductTraits
from flurka_numba.targets.simt.product_shape import LARGE, MEDIUM, SMALL
from flurka_numba.targets.simt.random_rows import RandomFinishTraits, RandomPullTraits, RandomTraits
from flurka_numba.targets.simt.softmax import SoftmaxPullTraits, SoftmaxTraits
from splat_numba.gen.plans.machine import Gpu
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import current
from tests.flurka.strategies import MAPS
from tests.flurka.targets.sm90.test_build import problem

GPU = Gpu()
FLOATS = ("float32",) * 3


@pytest.mark.parametrize(
    ("one", "forward", "gradients"),
    [
        (problem(), False, False),
        (problem(dtype="float32"), True, True),
        (problem("kernel", ragged=True, batch=2), False, False),
        (problem(ragged=True, batch=2), False, True),
        (problem("low_rank"), False, True),
        (problem("low_rank", dtype="float32"), True, True),
        (problem(phi="favor"), False, True),
        (problem(phi="favor", rows=300), True, True),
        (problem("kernel", phi="rfa"), False, True),
        (problem(head_dim=256), False, True),
        (problem(head_dim=128, value_dim=128), False, False),
    ],
)
def test_who_takes_this_path(one, forward, gradients):
    assert (composes_forward(one), composes_gradients(one)) == (forward, gradients)


@given(st.integers(0, 5), st.integers(0, 70), st.integers(0, 5000), st.integers(1, 2000), st.integers(1, 1 << 24))
def test_chunks_are_all_rows_once_within_the_bound(batch, heads, rows, columns, largest):
    chunks = chunks_of(Extent(batch, heads, rows), columns, largest)
    seen = {}
    for one in chunks:
        assert one.rows <= chunks.largest.rows
        assert one.entries <= chunks.largest.batch
        for entry in range(one.entry, one.entry + one.entries):
            seen.setdefault(entry, []).append((one.row, one.rows))
    assert sorted(seen) == list(range(batch))
    for parts in seen.values():
        assert sum(count for _, count in parts) == rows
        assert [first for first, _ in parts[1:]] == [first + count for first, count in parts[:-1]]
    if 4 * columns * heads * LEAST_ROWS <= largest:
        assert 4 * columns * chunks.largest.pairs * chunks.largest.rows <= largest
    else:
        assert chunks.largest.rows <= LEAST_ROWS


def test_no_rows_are_one_chunk_so_that_sums_are_0():
    assert list(chunks_of(Extent(2, 3, 0), 8)) == [RowChunk(0, 2, 0, 0)]


def test_long_sequences_stay_within_the_bound():
    for one in (problem("low_rank", dtype="float32", batch=4), problem("kernel", phi="rfa", dtype="float32")):
        plan = composed_plan(one)
        assert plan.queries.largest.rows < one.seq_q
        columns = 2 * 256 if one.method == "low_rank" else 5 * 128
        assert 4 * columns * plan.queries.largest.pairs * plan.queries.largest.rows <= 1.2 * LARGEST_SCRATCH


def test_tiles_and_shares_of_products():
    compress = product_plan(FLOATS, 64, (256, 8192, 64), 1, 132)
    assert (compress.traits.rows, compress.traits.columns) == LARGE[:2]
    assert (compress.row_blocks, compress.column_blocks, compress.shares) == (2, 1, 3)
    few = product_plan(FLOATS, 1, (256, 65536, 64), 1, 132)
    assert few.shares == LARGEST_SHARES
    assert few.shares * few.steps_of_share >= few.steps == 4096
    state = product_plan(FLOATS, 64, (64, 65536, 65), 1, 132)
    assert (state.traits.rows, state.traits.columns, state.column_blocks) == (*MEDIUM[:2], 2)
    narrow = product_plan(FLOATS, 16, (65536, 64, 20), 1, 132)
    assert (narrow.traits.rows, narrow.traits.columns, narrow.shares) == (*SMALL[:2], 1)
    assert product_plan(FLOATS, 1, (8, 0, 8), 1, 132).shares == 1
    assert product_plan(FLOATS, 1, (8, 16, 8), 64, 132).steps == 64


@pytest.mark.parametrize(
    ("sizes", "multiprocessors", "shares"),
    [
        ({"seq_q": 65536}, 132, 4), ({"seq_q": 65536, "batch": 4}, 132, 1), ({"seq_q": 65530}, 132, 2),
        ({"seq_q": 2000}, 132, 1), ({"seq_q": 65536, "heads": 1}, 132, 64), ({"seq_q": 0}, 132, 1),
    ],
    ids=str,
)  # fmt: skip
def test_queries_in_shares_make_one_wave_of_blocks_of_slots(sizes, multiprocessors, shares):
    assert (
        query_shares(problem("low_rank", **{"heads": 16, "batch": 1, "rank": 256, **sizes}), multiprocessors) == shares
    )


def texts():
    """One of each text with each way of reading and writing numbers."""
    found = [SoftmaxTraits(1.0), SoftmaxPullTraits(0.125), LargestTraits()]
    found += [AddUpTraits("float32"), AddUpTraits("float16"), AddUpTraits("bfloat16", "bfloat16")]
    found += [HeadScaleTraits(state=True), HeadScaleTraits(state=False)]
    for tile in (LARGE, MEDIUM, SMALL):
        found += [ProductTraits(*FLOATS, *tile), ProductTraits("bfloat16", "bfloat16", "float32", *tile)]
        found += [ProductTraits("float32", "float16", "float16", *tile)]
    for phi in ("elu", "corners"):
        feature_map = resolve(MAPS[phi], None)[0]
        for dtype in ("float32", "bfloat16"):
            found += [ElementwiseTraits(feature_map, dtype), ElementwisePullTraits(feature_map, dtype, dtype)]
    for phi in ("favor", "rfa"):
        found += [RandomPullTraits(phi, 33, 1e-4)]
        for dtype in ("float32", "float16"):
            found += [RandomTraits(phi, 33, 33, 1e-4, dtype), RandomFinishTraits(phi, 33, dtype, dtype)]
    for denominator in ("plus_eps", "plain", "guarded"):
        found += [DivideTraits(denominator, 1e-3, "float32"), DividePullTraits(denominator, 1e-3, "float32")]
    return [*found, DivideTraits("plain", 0.0, "bfloat16"), DividePullTraits("plain", 0.0, "bfloat16")]


@pytest.mark.parametrize("text", texts(), ids=lambda text: text.name)
def test_every_text_compiles_without_spills_and_warnings(text):
    pytest.importorskip("numba_cuda", reason="needs the extra cuda")
    pytest.importorskip("cuda.core", reason="needs the extra cuda")
    from splat_numba.runtime.cuda.build import build

    report = build(KernelSource.of(text.name, text.render()), text.entry, current()).report
    assert (report.spill_bytes, report.warnings) == (0, ()), report.log
    assert report.shared_bytes <= GPU.shared_bytes
    assert report.registers * text.entry.threads * text.entry.blocks <= GPU.registers


@pytest.mark.parametrize("text", texts(), ids=lambda text: text.name)
def test_texts_are_pure_and_take_the_parameters_of_their_entries(text):
    assert text.render() == text.render()
    function = next(node for node in ast.parse(text.render()).body if isinstance(node, ast.FunctionDef))
    assert function.name == text.entry.name
    assert [one.arg for one in function.args.args] == [name for name, _ in text.entry.parameters]
