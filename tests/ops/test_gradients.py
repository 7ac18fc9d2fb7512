"""`attention_vjp` and `attention_backward` on the CPU against the oracle, and every promise about gradients by name.

Tests share masks and head_dim where they can, because a new pattern, dtype or head_dim is a new kernel to compile.
"""

import pickle
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from numpy.testing import assert_allclose, assert_array_equal

import splat_numba as splat
from splat_numba import attention, attention_backward, attention_vjp, reference
from splat_numba import compile as compile_kernel
from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.executors.cpu import backward as cpu_backward
from splat_numba.executors.cpu import executor as cpu
from splat_numba.formats.patterns import full, window
from splat_numba.testing import DTYPES, Problem, check_gradients, problems
from tests.ops.attention_cases import CATALOGUE, EDGES, MIXED, dense, stored_masks
from tests.profiles import draws


@settings(max_examples=draws(50), suppress_health_check=[HealthCheck.too_slow])
@given(problems(dtypes=["float32"], mask=stored_masks))
def test_any_stored_mask_agrees_with_the_oracle(problem):
    check_gradients(replace(problem, head_dim=16, value_dim=None), backend="cpu")


@settings(max_examples=draws(3), suppress_health_check=[HealthCheck.too_slow])
@given(problems(dtypes=DTYPES))
def test_any_problem_agrees_with_the_oracle(problem):
    check_gradients(problem, backend="cpu")


@pytest.mark.parametrize("name", ["causal", "dilated", "mixed", "blocked"])
def test_one_kernel_of_a_closed_form_serves_every_length(name):
    mask = CATALOGUE[name]
    kernel = compile_kernel(mask, seq_q=128, seq_kv=128, head_dim=16, dtype="float32", heads_q=2, backend="cpu")
    for seq_q, seq_kv in [*zip(EDGES, reversed(EDGES), strict=True), (300, 257), (64, 511)]:
        check_gradients(
            Problem(seq_q, seq_kv, mask, batch=1, heads_q=2, seed=seq_q),
            attention_vjp=lambda q, k, v, _, **given: kernel.vjp(q, k, v, kv_lengths=given["kv_lengths"]),
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_with_grouped_heads_in_both_layouts(dtype):
    for layout, heads_kv in product(("bhsd", "bshd"), (1, 2, 6)):
        problem = Problem(
            70, 90, MIXED, dtype=dtype, batch=2, heads_q=6, heads_kv=heads_kv, value_dim=24, layout=layout,
            kv_lengths=(90, 33),
        )  # fmt: skip
        check_gradients(problem, backend="cpu")


def test_dims_that_differ_and_fill_no_vector():
    problem = Problem(66, 66, dense(MIXED, 66, 66), heads_q=2, head_dim=19, value_dim=33)
    check_gradients(problem, backend="cpu")


@pytest.mark.parametrize("scale", [0.0, 1.0, -0.5])
def test_scale_is_used_as_given(scale):
    check_gradients(Problem(50, 50, MIXED, scale=scale), backend="cpu")


@pytest.mark.parametrize(("batch", "heads"), [(None, None), (None, 3), (2, 3), (0, 3)])
def test_leading_axes_may_be_missing(batch, heads):
    for layout in ("bhsd", "bshd"):
        check_gradients(Problem(40, 50, MIXED, batch=batch, heads_q=heads, layout=layout), backend="cpu")


def test_a_mask_a_head():
    several = [MIXED, window(3), MIXED, window(3)]
    for heads_kv in (1, 2, 4):
        check_gradients(Problem(60, 60, several, heads_q=4, heads_kv=heads_kv), backend="cpu")


@pytest.mark.parametrize("frozen", [("q",), ("v",), ("q", "k"), ("k", "v")], ids=str)
def test_frozen_arguments_have_none(frozen):
    check_gradients(Problem(60, 60, dense(MIXED, 60, 60), heads_q=2), backend="cpu", frozen=frozen)


def test_all_frozen():
    q, k, v = Problem(60, 60, MIXED).arrays()
    _, vjp = attention_vjp(q, k, v, MIXED, frozen=("q", "k", "v"))
    assert vjp(v) == (None, None, None)


def operands(seed=0, seq=60, dtype="float32"):
    problem = Problem(seq, seq, MIXED, dtype=dtype, batch=2, heads_q=2, seed=seed)
    return *problem.arrays(), *problem.gradients()


def test_gradients_are_linear_in_dout_and_dlse():
    q, k, v, dout, dlse = operands()
    _, vjp = attention_vjp(q, k, v, MIXED)
    for one in vjp(0 * dout):
        assert_array_equal(one, 0)
    for both, first, second in zip(vjp(dout, dlse), vjp(dout), vjp(0 * dout, dlse), strict=True):
        assert_allclose(both, first + second, rtol=1e-4, atol=2e-5)


def test_constant_values_give_no_gradient_to_queries_and_keys():
    q, k, v, dout, _ = operands()
    _, vjp = attention_vjp(q, k, np.full_like(v, 0.5), MIXED)
    dq, dk, _ = vjp(dout)
    assert_allclose(dq, 0, atol=2e-6)
    assert_allclose(dk, 0, atol=2e-6)


def test_heads_in_another_order_have_their_gradients_in_that_order():
    q, k, v, dout, _ = operands()
    _, vjp = attention_vjp(q, k, v, MIXED)
    turned = [np.ascontiguousarray(x[:, ::-1]) for x in (q, k, v, dout)]
    _, other = attention_vjp(*turned[:3], MIXED)
    for one, two in zip(vjp(dout), other(turned[3]), strict=True):
        assert_array_equal(one, two[:, ::-1])


def test_a_window_of_all_keys_is_full():
    q, k, v, dout, _ = operands()
    wide, whole = (attention_vjp(q, k, v, mask)[1](dout) for mask in (window(60), full()))
    for one, two in zip(wide, whole, strict=True):
        assert_allclose(one, two, rtol=1e-5, atol=5e-6)


def test_finite_differences():
    q, k, v, dout, dlse = operands(seq=9, dtype="float64")
    _, vjp = attention_vjp(q, k, v, MIXED)
    found = vjp(dout, dlse)

    def loss(*arrays):
        out, lse = attention(*arrays, MIXED, return_lse=True)
        return (out * dout).sum() + (lse * dlse).sum()

    rng = np.random.default_rng(0)
    for number, gradient in enumerate(found):
        step = 1e-6 * rng.standard_normal(gradient.shape)
        ahead, behind = ([x + sign * step if i == number else x for i, x in enumerate((q, k, v))] for sign in (1, -1))
        assert_allclose((loss(*ahead) - loss(*behind)) / 2, (gradient * step).sum(), rtol=1e-6)


def test_rows_that_keep_nothing_give_zeros_whatever_their_gradients_are():
    rng = np.random.default_rng(0)
    mask = rng.random((60, 60)) < 0.3
    mask[5:9] = False
    q, k, v, dout, dlse = operands()
    wanted = attention_vjp(q, k, v, mask)[1](dout, dlse)
    dout[:, :, 5:9], dlse[:, :, 5:9] = np.nan, np.inf
    found = attention_vjp(q, k, v, mask)[1](dout, dlse)
    assert_array_equal(found[0][:, :, 5:9], 0)
    for one, two in zip(found, wanted, strict=True):
        assert_array_equal(one, two)


def test_a_nan_reaches_what_shares_its_tile_alone():
    q, k, v, dout, _ = operands(seq=400)
    for name, array in (("q", q), ("k", k), ("v", v)):
        before = array[0, 0, 10].copy()
        array[0, 0, 10] = np.nan
        for gradient in attention_vjp(q, k, v, window(3))[1](dout):
            assert np.isfinite(gradient[1]).all(), name
            assert np.isfinite(gradient[0, 1]).all(), name
            assert np.isfinite(gradient[0, 0, 300:]).all(), name
        array[0, 0, 10] = before


def test_keys_beyond_their_length_give_zeros():
    q, k, v, dout, _ = operands()
    v[0, :, 33:] = np.nan
    _, dk, dv = attention_vjp(q, k, v, MIXED, kv_lengths=[33, 60])[1](dout)
    assert_array_equal(dk[0, :, 33:], 0)
    assert_array_equal(dv[0, :, 33:], 0)
    assert np.isfinite(dk).all()


@pytest.mark.parametrize("threads", ["1", "3"])
def test_bits_are_the_same_on_any_number_of_threads(threads, monkeypatch):
    q, k, v, dout, _ = operands(seq=300)
    wanted = attention_vjp(q[:1, :1], k[:1, :1], v[:1, :1], MIXED)[1](dout[:1, :1])
    monkeypatch.setenv("SPLAT_NUM_THREADS", threads)
    monkeypatch.setattr(cpu, "FEWEST_SECONDS", 0.0)  # short as it is, on all of them
    found = attention_vjp(q[:1, :1], k[:1, :1], v[:1, :1], MIXED)[1](dout[:1, :1])
    for one, two in zip(found, wanted, strict=True):
        assert_array_equal(one, two)


def test_strided_arrays_are_read_and_written_in_place():
    q, k, v, dout, dlse = operands()
    wanted = attention_vjp(q, k, v, MIXED)[1](dout, dlse)

    def apart(x):
        wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), np.nan, x.dtype)
        wide[..., ::2] = x
        return wide[..., ::2]

    q, k, v, dout, dlse = map(apart, (q, k, v, dout, dlse))
    out, lse = attention(q, k, v, MIXED, return_lse=True)
    targets = [apart(np.zeros_like(x)) for x in (q, k, v)]
    found = attention_backward(dout, q, k, v, apart(out), apart(lse), MIXED, dlse=dlse, out_grads=targets)
    for one, two, target in zip(found, wanted, targets, strict=True):
        assert one is target
        assert np.isnan(one.base[..., 1::2]).all()
        assert_allclose(one, two, rtol=1e-5, atol=5e-6)


Q, K, V, DOUT, DLSE = operands()
OUT, LSE = (np.zeros_like(Q), np.zeros(Q.shape[:3], np.float32))
BAD = {
    "dout of another shape": (ArgumentError, "dout wanted of shape", {"dout": DOUT[:, :, 1:]}),
    "dout of another dtype": (ArgumentTypeError, "dout wanted as float32", {"dout": DOUT.astype(np.float64)}),
    "out of another shape": (ArgumentError, "out wanted of shape", {"out": OUT[..., 1:]}),
    "lse of another shape": (ArgumentError, "lse wanted of shape", {"lse": LSE[0]}),
    "lse of another dtype": (ArgumentTypeError, "lse wanted as float32", {"lse": LSE.astype(np.float64)}),
    "dlse of another shape": (ArgumentError, "dlse wanted of shape", {"dlse": DLSE[..., None]}),
    "frozen, no such name": (ArgumentError, "frozen wanted with names of q, k, v", {"frozen": ("mask",)}),
    "out_grads, one array": (ArgumentTypeError, "out_grads wanted as a tuple of three", {"out_grads": OUT}),
    "out_grads of another shape": (ArgumentError, r"out_grads\[1\] wanted of shape", {"out_grads": (None, LSE, None)}),
    "out_grads on top of an input": (ArgumentError, r"out_grads\[0\] wanted apart", {"out_grads": (Q, None, None)}),
    "out_grads on top of each other": (ArgumentError, r"out_grads\[1\] wanted apart", {"out_grads": (OUT + 1,) * 3}),
    "out_grads of what is frozen": (
        ArgumentError, r"out_grads\[0\] wanted as None", {"out_grads": (OUT + 1, None, None), "frozen": ("q",)},
    ),
    "another target": (
        ArgumentTypeError, "q wanted as float16 or bfloat16 for", {"backend": "emulate", "target": "sm_90a"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("error", "message", "change"), BAD.values(), ids=BAD)
def test_bad_input_is_named(error, message, change):
    given = {"dout": DOUT, "q": Q, "k": K, "v": V, "out": OUT, "lse": LSE, "mask": MIXED, **change}
    with pytest.raises(error, match=f"^{message}"):
        attention_backward(**given)


def test_sums_of_one_head_are_shared_by_work_items_in_a_fixed_order():
    """One head on several cores: dk and dv are sums of the shares' sums."""
    problem = Problem(700, 700, dense(MIXED, 700, 700), heads_q=1)
    check_gradients(problem, backend="cpu")


def test_memory_follows_the_lengths():
    """32,768 tokens: a matrix of scores would be 4 GiB."""
    problem = Problem(32768, 32768, window(16), heads_q=1)
    q, k, v = problem.arrays()
    dout, _ = problem.gradients()
    found = attention_vjp(q, k, v, window(16))[1](dout)
    part = slice(1000, 1100)
    near = slice(984 - 16, 1116 + 16)
    there = [x[:, near] for x in (dout, q, k, v)]
    wanted = reference.attention_backward(*there, dense(window(16), 164, 164))
    for one, two in zip(found, wanted, strict=True):
        assert_allclose(one[:, part], two[:, 32:132], rtol=1e-4, atol=1e-5)


def test_the_example_learns():
    from examples.train_character_model import train

    losses, _ = train(MIXED, steps=25, seq=96, batch=4)
    assert losses[0] > 4
    assert np.mean(losses[-5:]) < 3.6


@pytest.mark.parametrize("backend", ["cpu", "emulate", "cuda"])
def test_gradients_are_planned_and_compiled_beforehand(backend, tmp_path, monkeypatch):
    if backend == "cuda":
        pytest.importorskip("numba_cuda", reason="needs the extra cuda")
    dtype = "float32" if backend == "cpu" else "float16"
    sizes = {"seq_q": 60, "seq_kv": 60, "head_dim": 16, "heads_q": 2, "dtype": dtype}
    assert splat.plan(MIXED, **sizes, backend=backend).backward is None
    planned = splat.plan(MIXED, **sizes, backend=backend, backward=True)
    assert "chosen      gradients: " in planned.explain()
    assert planned.backward.explain() in planned.explain()
    assert planned.as_dict()["backward"]["queries"]
    monkeypatch.setenv("SPLAT_CACHE_DIR", str(tmp_path))
    kernel = compile_kernel(MIXED, **sizes, backend=backend, backward=True)
    assert kernel.plan.backward.explain() == planned.backward.explain()
    for name, text in kernel.backward_sources.items():
        assert "dq" in text or "dk" in text or "levels" in name
        if backend != "emulate":
            assert any(text in path.read_text() for path in tmp_path.rglob(f"{name}*.py"))
    assert pickle.loads(pickle.dumps(kernel)).plan.backward is not None  # noqa: S301 - our own
    with pytest.raises(ArgumentTypeError, match=r"^backward wanted as True or False, got 'yes'"):
        splat.plan(MIXED, **sizes, backend=backend, backward="yes")


def test_gradients_alone_compile_no_forward_text(monkeypatch):
    q, k, v, dout, _ = operands()
    mask = dense(MIXED, 60, 60)
    out, lse = reference.attention(q, k, v, mask, return_lse=True)

    def forward(*_):
        raise AssertionError("the forward text was wanted")

    cpu.compiled_for.cache_clear()
    monkeypatch.setattr(cpu, "compile_plan", forward)
    found = attention_backward(dout, q, k, v, out.astype(q.dtype), lse.astype(q.dtype), MIXED)
    for one, two in zip(found, reference.attention_backward(dout, q, k, v, mask), strict=True):
        assert_allclose(one, two, rtol=1e-4, atol=1e-5)
    with pytest.raises(AssertionError, match="forward text"):  # which this does want
        attention(q, k, v, MIXED)


def test_gradients_of_a_kernel_have_its_own_text_at_other_lengths(monkeypatch):
    """Its tiles are those for 60 tokens, and so is the text that backward_sources shows; those for 300 differ."""
    sizes = {"head_dim": 16, "heads_q": 2, "batch": 2, "dtype": "float32"}
    kernel, other = (compile_kernel(splat.strided(4), seq_q=n, seq_kv=n, **sizes) for n in (60, 300))
    assert kernel.backward_sources != other.backward_sources
    compiled = []
    compiled_backward = cpu_backward.compiled_backward
    monkeypatch.setattr(
        cpu_backward, "compiled_backward", lambda *key: compiled.append(compiled_backward(*key)) or compiled[-1]
    )
    q, k, v, dout, _ = operands(seq=300)
    kernel.vjp(q, k, v)[1](dout)
    assert [one.code.source.text for one in compiled] == [*kernel.backward_sources.values()]


def test_every_text_of_the_gradients_is_there_though_their_kinds_are_alike():
    """Texts of windows aligned and not, or of a mask's first pass and its last, have one readable name."""
    sizes = {"seq_q": 8192, "seq_kv": 8192, "head_dim": 64, "heads_q": 2, "batch": 16}
    kernel = compile_kernel(splat.sparse_transformer_strided(128), **sizes, dtype="float16", backend="emulate")
    found = kernel.backward_sources
    assert [text.startswith('"""dq of') for text in found.values()].count(True) == 2
    sizes = {"seq_q": 60, "seq_kv": 60, "head_dim": 16, "heads_q": 2}
    several = compile_kernel([window(3), window(5).align_end()], **sizes, dtype="float32", backend="cpu")
    assert len(several.backward_sources) == 2
