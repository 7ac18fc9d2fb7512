"""`attention` on a GPU against the oracle: fuzzed over everything it takes, and every tile shape by name.

A test a pair of head dimensions, so that processes share the compiling: every new combination of traits takes seconds.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import splat_numba as splat
from splat_numba import reference
from splat_numba.formats.acsr import ACSR
from splat_numba.gen.plans import problem as gen_problem
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.targets.sm90.tile_shapes import candidates
from splat_numba.testing import Problem, assert_close, check_attention, lengths, masks, patterns, problems, tolerance
from tests.gpu.device_views import DeviceView, back, forced
from tests.ops.attention_cases import CATALOGUE, MIXED, dense
from tests.profiles import draws

pytestmark = pytest.mark.gpu
EXAMPLES = draws(20)
LONGEST = 400
TYPES = ("float16", "bfloat16")
# (head_dim, value_dim, dtype)
KINDS = (
    (1, 1, "float16"),
    (20, 20, "bfloat16"),
    (32, 64, "float16"),
    (64, 64, "bfloat16"),
    (64, 64, "float16"),
    (80, 72, "bfloat16"),
    (96, 96, "float16"),
    (128, 128, "bfloat16"),
    (128, 128, "float16"),
    (128, 40, "bfloat16"),
    (192, 128, "float16"),
    (256, 256, "bfloat16"),
    (8, 256, "float16"),
    (256, 33, "bfloat16"),
)
fuzzed = settings(
    max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "x".join(map(str, kind)))


def of_kind(problem, kind):
    head_dim, value_dim, dtype = kind
    return replace(problem, head_dim=head_dim, value_dim=value_dim, dtype=dtype)


def check(problem):
    return check_attention(problem, backend="cuda")


@every_kind
@fuzzed
@given(data=st.data())
def test_any_pattern(kind, data):
    check(of_kind(data.draw(problems(dtypes=TYPES, max_length=LONGEST, mask=patterns)), kind))


def stored_masks(seq_q, seq_kv):
    return masks(seq_q, seq_kv).map(
        lambda mask: mask if isinstance(mask, ACSR | np.ndarray) else ACSR.from_pattern(mask, seq_q, seq_kv)
    )


@every_kind
@fuzzed
@given(data=st.data())
def test_any_stored_mask(kind, data):
    check(of_kind(data.draw(problems(dtypes=TYPES, max_length=LONGEST, mask=stored_masks)), kind))


@every_kind
@fuzzed
@given(data=st.data())
def test_any_key_lengths(kind, data):
    problem = data.draw(problems(dtypes=TYPES, max_length=LONGEST))
    batch = data.draw(st.sampled_from([1, 2, 5]))
    near = st.sampled_from([0, 1, 63, 64, 65, 79, 80, 81, 127, 128, 129, 255, 256, 257]).filter(
        lambda n: n <= problem.seq_kv
    )
    one = st.one_of(near, st.just(problem.seq_kv), st.integers(0, problem.seq_kv))
    kv_lengths = tuple(data.draw(st.lists(one, min_size=batch, max_size=batch)))
    heads = problem.heads_q or 1
    check(of_kind(replace(problem, batch=batch, heads_q=heads, kv_lengths=kv_lengths), kind))


def shapes():
    """Every tile shape that the planner may choose for a few pairs of head dimensions."""
    for head_dim, value_dim, dtype in (
        (64, 64, "float16"),
        (64, 64, "bfloat16"),
        (80, 72, "bfloat16"),
        (128, 128, "bfloat16"),
        (128, 128, "float16"),
        (192, 192, "bfloat16"),
        (256, 256, "float16"),
    ):
        for one in candidates(gen_problem.Problem(64, 64, head_dim, value_dim, dtype), Gpu()):
            yield pytest.param(one, id=f"{head_dim}x{value_dim}-{dtype}-{one.groups}x{one.tile_kv}")


@pytest.mark.parametrize("traits", list(shapes()))
def test_every_tile_shape_with_every_order_of_rows(traits, monkeypatch):
    rows, keys = traits.tile_q, traits.tile_kv
    kind = (traits.head_dim, traits.value_dim, traits.dtype)
    whole, split = splat.full(), splat.sparse_transformer_strided(13)
    cases = [
        ("order", whole, 2 * rows, 3 * keys, {}),  # no mask at all
        ("order", whole, rows + 1, keys - 1, {}),
        ("order", splat.window(40, 3) | splat.sinks(2), 2 * rows + 1, 2 * rows + 1, {}),
        ("order", splat.causal(), 3 * rows - 1, 3 * rows - 1, {"scale": -0.4}),
        ("order", splat.causal(), 333, 2 * keys + 1, {"kv_lengths": (2 * keys + 1, 0, keys + 1)}),
        ("order", splat.blocked(192, 1), 3 * rows, 3 * rows, {}),  # groups skip tiles, no masks
        ("residue", splat.dilated(20, 5), 401, 401, {}),
        ("residue", splat.strided(7), 401, 399, {"kv_lengths": (399, 21, 0)}),
        (", then ", split, 389, 389, {}),
        (", then ", split, 389, 389, {"kv_lengths": (389, 30, 200)}),
        ("grid", splat.neighborhood((20, 32), 7), 640, 640, {}),
    ]
    for order, mask, seq_q, seq_kv, options in cases:
        batch = 3 if "kv_lengths" in options else 2
        problem = Problem(seq_q, seq_kv, mask, batch=batch, heads_q=4, heads_kv=2, **options)
        with forced(monkeypatch, traits, order):
            check(of_kind(problem, kind))


def views():
    """Ways to hold an array (batch, heads, seq, dim) in memory: functions to (contiguous root, view of it)."""

    def plain(x):
        return x, x

    def tokens_first(x):
        root = np.ascontiguousarray(x.transpose(0, 2, 1, 3))
        return root, root.transpose(0, 2, 1, 3)

    def sequence_first(x):
        root = np.ascontiguousarray(x.transpose(2, 0, 1, 3))
        return root, root.transpose(1, 2, 0, 3)

    def framed(before, after):
        def make(x):
            batch, heads, seq, dim = x.shape
            root = np.full((batch, heads + 2, seq + 20, before + dim + after), np.nan, x.dtype)
            view = root[:, 1:-1, 10:-10, before : before + dim]
            view[...] = x
            return root, view

        return make

    def every_third_row(x):
        root = np.full((*x.shape[:2], 3 * x.shape[2], x.shape[3]), np.nan, x.dtype)
        root[:, :, ::3] = x
        return root, root[:, :, ::3]

    def backwards(x):
        root = np.ascontiguousarray(x[:, :, ::-1])
        return root, root[:, :, ::-1]

    def dims_apart(x):
        root = np.full((*x.shape, 2), np.nan, x.dtype)
        root[..., 0] = x
        return root, root[..., 0]

    def dims_first(x):
        root = np.ascontiguousarray(x.transpose(0, 1, 3, 2))
        return root, root.transpose(0, 1, 3, 2)

    return {
        "plain": plain,
        "tokens first": tokens_first,
        "sequence first": sequence_first,
        "framed in place": framed(8, 16),
        "framed, misaligned": framed(3, 7),
        "every third row": every_third_row,
        "backwards": backwards,
        "dims apart": dims_apart,
        "dims first": dims_first,
    }


VIEWS = views()


def on_device(array, name):
    return DeviceView(*VIEWS[name](array))


@pytest.mark.parametrize("dims", [(64, 64), (40, 24), (33, 17), (128, 64)], ids=str)
@settings(fuzzed, max_examples=3 * EXAMPLES)
@given(data=st.data())
def test_any_strides(dims, data):
    seq_q, seq_kv = (data.draw(lengths(300)) for _ in range(2))
    heads_kv, group = (data.draw(st.integers(1, 2)) for _ in range(2))
    assume(group == 1 or (heads_kv * group, seq_q) != (seq_kv, heads_kv))  # refused: axes seem to be swapped
    batch = data.draw(st.integers(1, 3))
    problem = Problem(
        seq_q, seq_kv, MIXED, "float16", batch, heads_kv * group, heads_kv, *dims, seed=data.draw(st.integers(0, 99))
    )
    ways = [data.draw(st.sampled_from(sorted(VIEWS)), label=name) for name in ("q", "k", "v")]
    lines = data.draw(st.sampled_from([None, 4, 1]), label="out in steps of")

    def attend(q, k, v, mask, **options):
        arrays = [on_device(x, way) for x, way in zip((q, k, v), ways, strict=True)]
        if lines is None:
            out, lse = splat.attention(*arrays, mask, **options)
            return back(out), back(lse)
        root = np.full((batch, heads_kv * group + 2, seq_q + 9, lines * dims[1] + 5), 7, np.float16)
        view = root[:, 1:-1, 4:-5, 2 : 2 + lines * dims[1] : lines]
        view[...] = np.nan
        out = DeviceView(root, view)
        given_back, lse = splat.attention(*arrays, mask, out=out, **options)
        assert given_back is out
        after = out.root_back()
        result = after[:, 1:-1, 4:-5, 2 : 2 + lines * dims[1] : lines].copy()
        after[:, 1:-1, 4:-5, 2 : 2 + lines * dims[1] : lines] = 7
        assert (after == 7).all(), "numbers beside out were written"
        return result, back(lse)

    check_attention(problem, attention=attend)


def test_broadcast_axes():
    q, k, v = Problem(130, 200, MIXED, "float16", batch=2, heads_q=4, head_dim=64).arrays()
    one = [np.ascontiguousarray(x[:1, :1]) for x in (k, v)]
    wanted = splat.attention(q, *(np.repeat(np.repeat(x, 2, 0), 4, 1) for x in one), MIXED, backend="cuda")
    wide = [DeviceView(x, np.broadcast_to(x, (2, 4, 200, 64))) for x in one]
    assert_array_equal(back(splat.attention(DeviceView(q, q), *wide, MIXED)), wanted)
    row = np.ascontiguousarray(q[:, :, :1])
    wanted = splat.attention(np.repeat(row, 130, 2), k, v, MIXED, backend="cuda")
    flat = DeviceView(row, np.broadcast_to(row, q.shape))
    assert_array_equal(back(splat.attention(flat, DeviceView(k, k), DeviceView(v, v), MIXED)), wanted)


@pytest.mark.parametrize("mask", [MIXED, splat.blocked(64, 0), splat.sparse_transformer_strided(16)], ids=repr)
@pytest.mark.parametrize("value_dim", [64, 8, 34, 17])
def test_out_is_written_everywhere_and_nothing_beside_it(mask, value_dim):
    """Blocks of 64 leave rows without keys; the mask of two passes reads out after it wrote it."""
    q, k, v = Problem(300, 128, mask, "float16", batch=2, heads_q=2, head_dim=64, value_dim=value_dim).arrays()
    wanted, wanted_lse = splat.attention(q, k, v, mask, backend="cuda", return_lse=True)
    for bad in (np.nan, np.inf):
        root = np.full((2, 4, 310, value_dim + 6), 7, np.float16)
        place = (slice(None), slice(1, 3), slice(5, -5), slice(2, -4))
        root[place] = bad
        out = DeviceView(root, root[place])
        arrays = [DeviceView(x, x) for x in (q, k, v)]
        _, lse = splat.attention(*arrays, mask, out=out, return_lse=True)
        after = out.root_back()
        assert_array_equal(after[place], wanted)
        assert_array_equal(back(lse), wanted_lse)
        after[place] = 7
        assert (after == 7).all()


def cuda(q, k, v, mask, **options):
    return splat.attention(q, k, v, mask, backend="cuda", **options)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", ["full", "causal", "dilated", "longformer", "mixed", "sparse transformer"])
def test_results_repeat_bit_for_bit(name, dtype):
    q, k, v = Problem(777, 777, CATALOGUE[name], dtype, batch=3, heads_q=6, head_dim=64).arrays()
    first, first_lse = cuda(q, k, v, CATALOGUE[name], return_lse=True)
    for _ in range(5):
        out, lse = cuda(q, k, v, CATALOGUE[name], return_lse=True)
        assert_array_equal(out.view(np.uint16), first.view(np.uint16))
        assert_array_equal(lse, first_lse)


def poisoned(x, places, bad):
    x = x.copy()
    x[..., places, :] = bad
    return x


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["full", "causal", "dilated", "longformer", "mixed", "sparse transformer"])
def test_a_non_finite_query_makes_its_own_row_nan_and_no_other(name, bad):
    mask = CATALOGUE[name]
    q, k, v = Problem(333, 333, mask, "float16", heads_q=2, head_dim=64).arrays()
    rows = [0, 17, 63, 64, 128, 332]
    clean, clean_lse = cuda(q, k, v, mask, return_lse=True)
    out, lse = cuda(poisoned(q, rows, bad), k, v, mask, return_lse=True)
    others = np.setdiff1d(np.arange(333), rows)
    assert np.isnan(out[:, rows]).all()
    assert np.isnan(lse[:, rows]).all()
    assert_array_equal(out[:, others], clean[:, others])
    assert_array_equal(lse[:, others], clean_lse[:, others])


def test_a_non_finite_query_of_an_empty_row_gives_zero_and_minus_infinity():
    mask = dense(MIXED, 333, 333)
    mask[[3, 64, 200]] = False
    q, k, v = Problem(333, 333, mask, "float16", head_dim=64).arrays()
    out, lse = cuda(poisoned(q, [3, 64, 200], np.nan), k, v, mask, return_lse=True)
    assert_array_equal(out[[3, 64, 200]], 0)
    assert_array_equal(lse[[3, 64, 200]], -np.inf)
    assert np.isfinite(np.delete(out, [3, 64, 200], axis=0)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    "name",
    ["causal", "window", "dilated", "strided", "blocked", "longformer", "bigbird", "mixed", "sparse transformer"],
)
def test_a_non_finite_key_never_reaches_rows_that_do_not_keep_it(name, bad):
    mask = CATALOGUE[name]
    q, k, v = Problem(333, 333, mask, "bfloat16", heads_q=2, head_dim=64).arrays()
    keys = [40, 64, 100, 300]
    clean = cuda(q, k, v, mask)
    out = cuda(q, poisoned(k, keys, bad), v, mask)
    free = ~dense(mask, 333, 333)[:, keys].any(axis=1)
    assert free.any()
    assert_array_equal(out[:, free].view(np.uint16), clean[:, free].view(np.uint16))
    if np.isnan(bad):
        assert np.isnan(out[:, ~free].astype(np.float32)).all()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", ["full", "causal", "longformer", "mixed", "dilated", "strided", "sparse transformer"])
def test_keys_and_values_beyond_kv_lengths_never_reach_anything(name, dtype):
    mask = CATALOGUE[name]
    q, k, v = Problem(333, 333, mask, dtype, batch=4, heads_q=2, head_dim=64).arrays()
    kv_lengths = np.array([0, 63, 100, 332])
    clean, clean_lse = cuda(q, k, v, mask, kv_lengths=kv_lengths, return_lse=True)
    for b, length in enumerate(kv_lengths):
        k[b, :, length:] = v[b, :, length:] = np.nan
    out, lse = cuda(q, k, v, mask, kv_lengths=kv_lengths, return_lse=True)
    assert_array_equal(out.view(np.uint16), clean.view(np.uint16))
    assert_array_equal(lse, clean_lse)
    assert_array_equal(out[0].astype(np.float32), 0)
    assert_array_equal(lse[0], -np.inf)


@pytest.mark.parametrize("mask", [splat.full(), MIXED], ids=repr)
def test_a_non_finite_value_reaches_the_rows_that_keep_it(mask):
    q, k, v = Problem(333, 333, mask, "float16", heads_q=2, head_dim=64).arrays()
    out = cuda(q, k, poisoned(v, [50], np.nan), mask)
    assert np.isnan(out[:, dense(mask, 333, 333)[:, 50]]).all()


def test_large_scores_do_not_overflow():
    for mask in (splat.full(), splat.causal()):
        q, k, v = Problem(200, 200, mask, "bfloat16", head_dim=64).arrays()
        large = q * q.dtype.type(1e4)
        out, lse = cuda(large, k * k.dtype.type(1e4), v, mask, return_lse=True)
        assert np.isfinite(out.astype(np.float32)).all()
        assert np.isfinite(lse).all()
        assert np.abs(out).max() <= np.abs(v).max()


def test_one_mask_per_query_head_in_any_mixture_of_forms(rng):
    forms = [splat.causal(), ACSR.from_pattern(MIXED, 133, 265), rng.random((133, 265)) < 0.3, splat.causal()]
    for layout in ("bhsd", "bshd"):
        check(Problem(133, 265, forms, "float16", batch=2, heads_q=4, heads_kv=2, head_dim=64, layout=layout))


def check_sampled_rows(mask, length, head_dim, dtype, *, count, heads_q=4, heads_kv=2, kv_lengths=None):
    """Some rows of a long sequence against the oracle, with the tolerance of whole problems."""
    problem = Problem(length, length, mask, dtype, 1, heads_q, heads_kv, head_dim, kv_lengths=kv_lengths)
    q, k, v = problem.arrays()
    options = problem.options()
    out, lse = cuda(q, k, v, mask, return_lse=True, **options)
    stored = ACSR.from_pattern(mask, length, length)
    edges = [0, 1, 63, 64, 127, 128, 191, 192, length // 2, length - 65, length - 64, length - 1]
    rows = np.union1d(edges, np.random.default_rng(1).integers(0, length, count))
    kept = np.zeros((len(rows), length), np.bool_)
    for place, row in enumerate(rows):
        kept[place, stored.row_columns(int(row))] = True
    head = heads_q - 1  # and the key head that it uses
    few = q[:, [0, head]][:, :, rows], k[:, [0, -1]], v[:, [0, -1]]
    wanted, wanted_lse = reference.attention(*few, kept, return_lse=True, **options)
    allowed, allowed_lse = tolerance(*few, kept, **options)
    assert_close(out[:, [0, head]][:, :, rows], wanted, allowed)
    assert_close(lse[:, [0, head]][:, :, rows], wanted_lse, allowed_lse, name="lse")


@pytest.mark.parametrize("dtype", TYPES)
def test_a_subset_of_rows_of_a_long_sequence(dtype):
    check_sampled_rows(splat.window(300, 20) | splat.sinks(4), 20_011, 64, dtype, count=60)


def long_masks():
    n = 8192
    cuts = np.random.default_rng(0).integers(200, 1500, 5)
    return {
        "full": splat.full(),
        "causal": splat.causal(),
        "window512": splat.window(512),
        "causal_window1024": splat.window(1024, 0),
        "dilated512x4": splat.dilated(512, 4),
        "dilated128x16": splat.dilated(128, 16),
        "strided16": splat.strided(16),
        "blocked256": splat.blocked(256, 1),
        "documents": splat.documents((*map(int, cuts), n - int(cuts.sum()))),
        "longformer": splat.longformer(256, 64),
        "bigbird": splat.bigbird(64),
        "sparse_transformer_strided": splat.sparse_transformer_strided(128),
        "sparse_transformer_fixed": splat.sparse_transformer_fixed(128, 8),
        "neighborhood2d": splat.neighborhood((64, 128), 13),
    }


LONG = long_masks()


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize(("head_dim", "dtype"), [(128, "bfloat16"), (64, "float16"), (80, "float16")])
def test_the_masks_of_the_benchmarks_at_their_length(name, head_dim, dtype):
    check_sampled_rows(LONG[name], 8192, head_dim, dtype, count=40)


@pytest.mark.parametrize("name", ["causal", "window512", "sparse_transformer_strided"])
def test_key_lengths_of_a_long_sequence(name):
    check_sampled_rows(LONG[name], 8192, 128, "bfloat16", count=40, kv_lengths=(5001,))
