"""`attention` on a GPU against the oracle, by every target: fuzzed over everything it takes, every tile shape by name,
arrays at any strides. What it does with infinite numbers and NaN stands in test_gpu_nonfinite.py, long sequences in
test_gpu_long.py.
"""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import splat_numba as splat
from splat_numba.formats.acsr import ACSR
from splat_numba.testing import Problem, check_attention, masks, patterns, problems
from tests.gpu.device_views import VIEWS, DeviceView, back, on_device
from tests.gpu.targets import TARGETS, every_target, every_tile_shape, every_type, fuzzed, fuzzed_kinds, tile_shapes
from tests.ops.attention_cases import CATALOGUE, MIXED
from tests.profiles import draws

pytestmark = pytest.mark.gpu
LONGEST = 400


def stored_masks(seq_q, seq_kv):
    return masks(seq_q, seq_kv).map(
        lambda mask: mask if isinstance(mask, ACSR | np.ndarray) else ACSR.from_pattern(mask, seq_q, seq_kv)
    )


@fuzzed_kinds(lambda target: target.kinds, tile_shapes)
@fuzzed
@given(data=st.data())
def test_any_problem(target, kind, monkeypatch, data):
    """Patterns, which the planner looks into, and masks of the same rows that are stored."""
    mask = data.draw(st.sampled_from([patterns, stored_masks]))
    problem = data.draw(problems(dtypes=("float16",), max_length=LONGEST, mask=mask))
    with kind.forced(monkeypatch):
        target.check(kind.of(problem, data))


@every_tile_shape(lambda target: target.shapes, tile_shapes)
def test_every_tile_shape_with_every_order_of_rows(tiles, cases, monkeypatch):
    for order, problem in cases:
        with tiles.forced(monkeypatch, order):
            tiles.target.check(problem)


def strides():
    for target in TARGETS:
        for kind in target.strides:
            yield pytest.param(target, *kind, id=f"{target.name}-{'x'.join(map(str, kind))}")


@pytest.mark.parametrize(("target", "head_dim", "value_dim", "dtype"), list(strides()))
@settings(fuzzed, max_examples=draws(40))
@given(data=st.data())
def test_any_strides(target, head_dim, value_dim, dtype, data):
    seq_q, seq_kv = data.draw(st.sampled_from([(170, 130), (1, 300), (257, 64)]))  # a plan each
    heads_kv, group = (data.draw(st.integers(1, 2)) for _ in range(2))
    assume(group == 1 or (heads_kv * group, seq_q) != (seq_kv, heads_kv))  # refused: axes seem to be swapped
    batch, seed = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 99))
    heads = batch, heads_kv * group, heads_kv
    problem = Problem(seq_q, seq_kv, MIXED, dtype, *heads, head_dim=head_dim, value_dim=value_dim, seed=seed)
    ways = [data.draw(st.sampled_from(sorted(VIEWS)), label=name) for name in ("q", "k", "v")]
    lines = data.draw(st.sampled_from([None, 4, 1]), label="out in steps of")

    def attend(q, k, v, mask, **options):
        arrays = [on_device(x, way) for x, way in zip((q, k, v), ways, strict=True)]
        if lines is None:
            out, lse = splat.attention(*arrays, mask, target=target.name, **options)
            return back(out), back(lse)
        root = np.full((batch, heads_kv * group + 2, seq_q + 9, lines * value_dim + 5), 7, dtype)
        place = (slice(None), slice(1, -1), slice(4, -5), slice(2, 2 + lines * value_dim, lines))
        root[place] = np.nan
        out = DeviceView(root, root[place])
        given_back, lse = splat.attention(*arrays, mask, out=out, target=target.name, **options)
        assert given_back is out
        after = out.root_back()
        result = after[place].copy()
        after[place] = 7
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


@every_type
@pytest.mark.parametrize("name", ["full", "causal", "dilated", "longformer", "mixed", "sparse transformer"])
def test_results_repeat_bit_for_bit(name, target, dtype):
    mask = CATALOGUE[name]
    q, k, v = Problem(777, 777, mask, dtype, batch=3, heads_q=6, head_dim=64).arrays()
    first, first_lse = target.attend(q, k, v, mask, return_lse=True)
    for _ in range(5):
        out, lse = target.attend(q, k, v, mask, return_lse=True)
        assert out.tobytes() == first.tobytes()
        assert_array_equal(lse, first_lse)


@every_target
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_one_mask_per_query_head_in_any_mixture_of_forms(rng, layout, target):
    forms = [splat.causal(), ACSR.from_pattern(MIXED, 133, 265), rng.random((133, 265)) < 0.3, splat.causal()]
    target.check(
        Problem(133, 265, forms, target.types[0], batch=2, heads_q=4, heads_kv=2, head_dim=64, layout=layout)
    )  # fmt: skip
