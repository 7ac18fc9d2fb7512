"""Gradients through the emulated GPU, with the runtime as it is: by name, drawn, and with faults planted in texts."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splat_numba import attention_backward, attention_vjp, full, sinks, window
from splat_numba.emulator import machine
from splat_numba.errors import ArgumentError
from splat_numba.gen.targets.sm90.shape import keys_descriptor
from splat_numba.runtime.cuda.device import device
from splat_numba.runtime.cuda.memory import DeviceArray
from splat_numba.testing import Problem, check_gradients, masks, patterns, problems
from tests.emulator.emulated_gpu import emulated, forget_emulated
from tests.emulator.planted_faults import check_found, run
from tests.emulator.planted_fences import WithoutFences
from tests.gradient_cases import CASES, KEPT, WINDOW, keep_slopes
from tests.profiles import draws

TYPES = ("float16", "bfloat16")
KINDS = ((1, 3), (20, 20), (64, 64), (40, 128))  # larger ones are in CASES


@pytest.mark.parametrize("name", CASES)
def test_every_case(name):
    check_gradients(CASES[name], backend="emulate")


@pytest.fixture
def kept(monkeypatch):
    """Slopes are kept wherever they can be, and heads take turns."""
    keep_slopes(monkeypatch)


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.usefixtures("kept")
def test_every_case_that_keeps_slopes(name):
    check_gradients(CASES[name], backend="emulate", frozen=KEPT[name])


@pytest.mark.usefixtures("kept")
@settings(max_examples=draws(12), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_problem_that_keeps_slopes(monkeypatch, data):
    mask = data.draw(st.sampled_from([masks, patterns]))
    problem = data.draw(problems(dtypes=TYPES, max_length=150, mask=mask))
    with monkeypatch.context() as patch:
        emulated(patch, late=data.draw(st.booleans()))
        check_gradients(replace(problem, head_dim=24, value_dim=40, kv_lengths=None), backend="cuda")
    forget_emulated()


@pytest.mark.parametrize("late", [False, True], ids=["copies at once", "copies late"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "x".join(map(str, kind)))
@settings(max_examples=draws(20), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_problem(kind, late, monkeypatch, data):
    mask = data.draw(st.sampled_from([masks, patterns]))
    problem = data.draw(problems(dtypes=TYPES, max_length=100, mask=mask))
    frozen = data.draw(st.sampled_from([(), (), ("q",), ("k", "v"), ("v",)]))
    with monkeypatch.context() as patch:
        emulated(patch, late=late)
        check_gradients(replace(problem, head_dim=kind[0], value_dim=kind[1]), backend="cuda", frozen=frozen)
    forget_emulated()


PROBLEM = Problem(200, 230, WINDOW, "float16", 1, 2, 1, head_dim=64, spread=2.0)
NO_SWIZZLE = keys_descriptor() & ~(1 << 62)
FAULTS = {
    "tile bound": (r"place < end_of_pieces", "place < end_of_pieces - u32(1)"),
    "heads of a group": (r"while place < end:", "while place < end - u32(1):"),
    "predicate": (r"\(8 \* \(j & 3\) \+ x\)", "(8 * (j & 3) + x ^ 1)"),
    "no swizzle": (str(keys_descriptor()), str(NO_SWIZZLE)),
    "wait for tiles": (r"ptx\.mbarrier_wait\(base \+ RIGHT_FULL [^\n]*", "pass"),
    "wait for the left tile": (r"ptx\.mbarrier_wait\(base \+ LEFT_FULL [^\n]*", "pass"),
    "wait for products": (r"ptx\.wgmma_wait_but_one\(\)", "pass"),
    "tile given back before it is read": (
        r"( +)(ptx\.wgmma_wait_all\(\))\n( +)(give_right_back\(base, stage\))", r"\1\4\n\3\2",
    ),
    "tiles never given back": (r"ptx\.mbarrier_arrive\(base \+ RIGHT_EMPTY [^\n]*", "pass"),
    "bytes of a copy": (r"RIGHT_1_BYTES \+ RIGHT_2_BYTES", "RIGHT_1_BYTES"),
    "delta": (r"delta = total if", "delta = f32(0.5) * total if"),
    "levels of a column": (r"\(column \+ u32\(8 \* j \+ x\)\)", "(column + u32(8 * j))"),
    "scale": (r"dk_total, scale,", "dk_total, f32(1.0),"),
    "counter": (r"ptx\.store_word\(counter, u32\(0\), last_block\)", "pass"),
}  # fmt: skip


KEPT_FAULTS = {
    "image of another tile": (r"image = u32\(image \+ u32\(\d\)\)", "pass"),
    "image of another head": (r"\(entry \* listed \+ place\)", "(entry * listed)"),
    "image of another group": (r"u64\(image\) \+ u64\(bits_1\)", "u64(image) + u64(bits_0)"),
    "image that nobody wrote": (r"status >> u32\(2\)\) & u32\(1\)", "status >> u32(0)) & u32(1)"),
    "order of words": (r"transpose_matrix\(words\[2\]\)", "transpose_matrix(words[1])"),
    "wait for images": (r"ptx\.mbarrier_wait\(base \+ RIGHT_FULL [^\n]*", "pass"),
}  # fmt: skip
KEPT_PROBLEM = Problem(300, 230, window(70, 3) | sinks(2), "float16", 1, 2, 1, head_dim=64, spread=20.0)


def check_low_scores():
    """Of a padding key the score is 0: beside scores of -500 its weight is infinite, and infinity x 0 is NaN."""
    q, k, v = Problem(64, 70, full(), "float16", head_dim=16).arrays()
    q, k = np.abs(q) + np.float16(5), -np.abs(k) - np.float16(5)
    _, vjp = attention_vjp(q, k, v, full(), backend="cuda", scale=1.0)
    assert all(np.isfinite(one).all() for one in vjp(np.ones_like(q)))


@pytest.mark.usefixtures("kept")
def test_slopes_of_padding_are_0(monkeypatch):
    run(monkeypatch, check_low_scores, str, late=False)
    check_found(monkeypatch, check_low_scores, r"& keep_1\)", "| u32(0))")


@pytest.mark.parametrize("fault", KEPT_FAULTS)
@pytest.mark.usefixtures("kept")
def test_a_planted_fault_is_found_where_slopes_are_kept(monkeypatch, fault):
    check_found(monkeypatch, lambda: check_gradients(KEPT_PROBLEM, backend="cuda"), *KEPT_FAULTS[fault])


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(monkeypatch, fault):
    check_found(monkeypatch, lambda: check_gradients(PROBLEM, backend="cuda"), *FAULTS[fault])


def test_no_fence_can_be_left_out(monkeypatch):
    planted = WithoutFences()
    monkeypatch.setattr(machine, "launch", planted)
    check_gradients(Problem(100, 90, WINDOW, "bfloat16", 2, 2, 1, head_dim=32, kv_lengths=(90, 33)), backend="emulate")
    assert "attention_gradients" in planted.entries
    assert not planted.survivors


def on_gpu(array):
    """A copy in the emulated GPU's memory."""
    dtype = {2: "float16", 4: "float32"}[array.itemsize]
    copy = DeviceArray(device(0), array.shape, dtype)
    copy.fill(np.ascontiguousarray(array))
    copy._finalizer.detach()  # the driver goes before the last array does
    return copy


def read(array):
    """Back on the host."""
    found = np.empty(array.shape, array.dtype)
    array.read(found)
    array._finalizer.detach()
    return found


@pytest.fixture
def call(monkeypatch):
    """A backward call's arrays on the emulated GPU, by name, and its gradients on the host."""
    emulated(monkeypatch)
    problem = Problem(70, 80, WINDOW, "float16", 2, 2, 1, head_dim=32, value_dim=16)
    q, k, v = problem.arrays()
    dout, dlse = problem.gradients()
    out, lse, vjp = attention_vjp(q, k, v, WINDOW, return_lse=True, backend="cuda")
    arrays = {"dout": dout, "q": q, "k": k, "v": v, "out": out, "lse": lse}
    yield {name: on_gpu(array) for name, array in arrays.items()}, on_gpu(dlse), vjp(dout, dlse)
    forget_emulated()


def test_gradients_of_gpu_arrays_are_written_where_they_are_wanted(call):
    arrays, dlse, wanted = call
    for _ in range(2):  # the second call is a look-up
        targets = tuple(on_gpu(np.full_like(x, np.nan)) for x in wanted)
        found = attention_backward(*arrays.values(), WINDOW, dlse=dlse, out_grads=targets)
        fresh = attention_backward(*arrays.values(), WINDOW, dlse=dlse)
        for one, target, other, right in zip(found, targets, fresh, wanted, strict=True):
            assert one is target
            np.testing.assert_array_equal(read(one), right)
            np.testing.assert_array_equal(read(other), right)


REFUSED = {
    "a gradient of another shape": ("dout", (2, 2, 70, 17), "dout wanted of shape (2, 2, 70, 16), got (2, 2, 70, 17)"),
    "an lse of another shape": ("lse", (2, 70, 2), "lse wanted of shape (2, 2, 70), (batch, heads_q, seq_q), got"),
    "an out of float32": ("out", None, "out wanted as float16 as q is, got float32"),
    "an lse of float16": ("lse", None, "lse wanted as float32, got float16"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_gpu_arrays_that_do_not_fit_are_refused_by_name(call, name):
    arrays, _, _ = call
    argument, shape, message = REFUSED[name]
    old = arrays[argument]
    other = {"float16": np.float32, "float32": np.float16}[old.dtype] if shape is None else old.dtype
    given = {**arrays, argument: on_gpu(np.zeros(shape or old.shape, other))}
    with pytest.raises(ArgumentError) as found:
        attention_backward(*given.values(), WINDOW)
    assert str(found.value).startswith(message)


def test_targets_that_do_not_fit_are_refused_by_name(call):
    arrays, _, _ = call
    dq = on_gpu(np.zeros(arrays["q"].shape, np.float16))
    for out_grads, frozen, message in (
        ((arrays["q"], None, None), (), "out_grads[0] wanted apart from the inputs, got memory that q uses."),
        ((None, dq, None), (), f"out_grads[1] wanted of shape {arrays['k'].shape}, got {dq.shape}."),
        ((dq, None, None), ("q",), "out_grads[0] wanted as None since q is frozen, got an array."),
        ((None, dq, dq), (), "out_grads[2] wanted apart from the inputs, got memory that dk uses."),
    ):
        with pytest.raises(ArgumentError) as found:
            attention_backward(*arrays.values(), WINDOW, out_grads=out_grads, frozen=frozen)
        assert str(found.value).startswith(message)
    frozen = attention_backward(*arrays.values(), WINDOW, frozen=("q", "k", "v"))
    assert frozen == (None, None, None)
