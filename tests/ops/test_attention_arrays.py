"""Which arrays `attention` takes, what it reads and writes of them, and what it refuses."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import causal
from splat_numba.testing import DTYPES, Problem, numpy_dtype
from tests.ops.attention_cases import MIXED, assert_same, run


def views(x):
    """The same numbers in other memory layouts."""
    yield "reversed", x[..., ::-1, :].copy()[..., ::-1, :]
    yield "every second number", np.repeat(x, 2, axis=-1)[..., ::2]
    yield "every third row", np.repeat(x, 3, axis=-2)[..., ::3, :]
    yield "Fortran order", np.asfortranarray(x)
    yield "heads last in memory", np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2)
    yield "part of a larger array", np.pad(x, [(0, 0), (1, 1), (2, 3), (1, 4)])[:, 1:-1, 2:-3, 1:-4]


def test_arrays_of_any_strides_give_the_same_result():
    problem = Problem(40, 70, MIXED, batch=2, heads_q=2)
    q, k, v = problem.arrays()
    wanted = run(q, k, v, MIXED)
    for (name, q1), (_, k1), (_, v1) in zip(views(q), views(k), views(v), strict=True):
        assert_array_equal(q1, q)
        assert_same(run(q1, k1, v1, MIXED), wanted, err_msg=name)
        assert_same(run(q1, k, v1, MIXED), wanted, err_msg=name)


def test_a_head_broadcast_by_stride_zero_and_read_only_inputs():
    q, k, v = Problem(40, 70, MIXED, batch=2, heads_q=2).arrays()
    k1, v1 = (np.broadcast_to(x[:, :1], x.shape) for x in (k, v))
    q.flags.writeable = False
    assert_same(run(q, k1, v1, MIXED), run(q, k[:, :1], v[:, :1], MIXED))


@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_out_is_filled_and_returned(layout):
    problem = Problem(40, 70, MIXED, batch=2, heads_q=4, heads_kv=2, value_dim=9, layout=layout)
    q, k, v = problem.arrays()
    wanted, wanted_lse = run(q, k, v, MIXED, layout=layout, return_lse=True)
    for _, out in views(np.full(wanted.shape, np.nan, np.float32)):
        got, lse = run(q, k, v, MIXED, layout=layout, out=out, return_lse=True)
        assert got is out
        assert_same(out, wanted)
        assert_same(lse, wanted_lse)
    assert run(q, k, v, MIXED, layout=layout, out=out) is out


def test_only_out_itself_is_written():
    q, k, v = Problem(40, 70, MIXED, batch=1, heads_q=2).arrays()
    frame = np.full((1, 4, 44, 20), 7, np.float32)
    out = frame[:, 1:3, 2:-2, 2:-2]
    run(q, k, v, MIXED, out=out)
    frame[:, 1:3, 2:-2, 2:-2] = 7
    assert (frame == 7).all()


def outs_that_do_not_fit():
    memory = np.zeros(4000, np.float32)
    q = memory[:1280].reshape(1, 2, 40, 16)
    read_only = np.zeros(q.shape, np.float32)
    read_only.flags.writeable = False
    yield "shape", q, np.zeros((1, 2, 40, 17), np.float32)
    yield "dtype", q, np.zeros(q.shape, np.float64)
    yield "read-only", q, read_only
    yield "is q", q, q
    yield "overlaps q", q, memory[1000:2280].reshape(q.shape)
    yield "overlaps itself", q, np.lib.stride_tricks.as_strided(memory[1300:], q.shape, (0, 0, 64, 4))
    yield "not an array", q, q.tolist()


@pytest.mark.parametrize(
    ("name", "q", "out"), list(outs_that_do_not_fit()), ids=lambda x: x if isinstance(x, str) else ""
)
def test_an_out_that_does_not_fit_is_refused_and_left_alone(name, q, out):
    _, k, v = Problem(40, 70, MIXED, batch=1, heads_q=2).arrays()
    before = np.array(out)
    with pytest.raises(ArgumentError, match=r"^out"):
        run(q, k, v, MIXED, out=out)
    assert_array_equal(out, before, err_msg=name)


@pytest.mark.parametrize(
    ("change", "start"),
    [
        ({"q": np.zeros(5, np.float32)}, "q"),
        ({"k": np.zeros((2, 2, 6, 4), np.float32)}, "k"),
        ({"k": np.zeros((2, 3, 6, 5), np.float32), "v": np.zeros((2, 3, 6, 7), np.float32)}, "k"),
        ({"v": np.zeros((2, 2, 5, 7), np.float32)}, "v"),
        ({"v": np.zeros((2, 2, 6, 7), np.float64)}, "v"),
        ({"mask": np.ones((6, 3), bool)}, "mask"),
        ({"mask": np.ones((1, 6), bool)}, "mask"),
        ({"mask": np.ones((4, 3, 6), bool)}, "mask"),
        ({"mask": [causal()] * 3}, "mask"),
        ({"mask": ACSR.from_dense(np.ones((3, 5), bool))}, "mask"),
        ({"layout": "sbhd"}, "layout"),
        ({"scale": np.nan}, "scale"),
        ({"kv_lengths": np.array([1])}, "kv_lengths"),
        ({"kv_lengths": np.array([1, 7])}, "kv_lengths"),
        ({"kv_lengths": np.array([1, -1])}, "kv_lengths"),
    ],
)
def test_what_does_not_fit_is_an_argument_error_with_its_name(change, start):
    good = {
        "q": np.zeros((2, 4, 3, 5), np.float32),
        "k": np.zeros((2, 2, 6, 5), np.float32),
        "v": np.zeros((2, 2, 6, 7), np.float32),
        "mask": causal(),
    }
    with pytest.raises(ArgumentError, match=f"^{start}"):
        run(**{**good, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"q": np.zeros((3, 5), np.int32)},
        {"q": np.zeros((3, 5), np.complex64)},
        {"mask": np.ones((3, 6))},
        {"mask": "causal"},
        {"mask": None},
        {"kv_lengths": np.array([1.5, 2.0])},
    ],
)
def test_wrong_types_are_type_errors_too(change):
    good = {"q": np.zeros((2, 1, 3, 5)), "k": np.zeros((2, 1, 6, 5)), "v": np.zeros((2, 1, 6, 7)), "mask": causal()}
    with pytest.raises(TypeError) as caught:
        run(**{**good, **change})
    assert isinstance(caught.value, ArgumentTypeError | ValueError)
    assert str(caught.value).startswith(next(iter(change)))


def test_mixed_dtypes_are_refused_rather_than_converted():
    q, k, v = Problem(8, 8, MIXED).arrays()
    for name in DTYPES:
        other = k.astype(numpy_dtype(name))
        if other.dtype != q.dtype:
            with pytest.raises(ArgumentError, match=r"^k"):
                run(q, other, v, MIXED)
