"""warm_up: what it compiles, what it finds, what it refuses. Kernels are small, and few."""

import logging
import sys
from pathlib import Path

import numpy as np
import pytest

import splat_numba as splat
from splat_numba import warm, warm_jobs
from splat_numba.runtime import notice
from splat_numba.runtime.cpu import code

SIZES = {"seq_q": 100, "seq_kv": 100, "head_dim": 8}


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A cache of its own, on disk and in memory."""
    monkeypatch.setenv("SPLAT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(code, "_compiled", type(code._compiled)(8))
    from splat_numba.executors.cpu import executor as cpu

    cpu.compiled_for.cache_clear()
    yield
    cpu.compiled_for.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_two_processes_leave_kernels_that_calls_find(caplog):
    caplog.set_level(logging.DEBUG, "splat_numba")
    masks = [splat.window(9), splat.causal(), splat.window(30), splat.window(2, 5)]
    told = splat.warm_up(masks, **SIZES, dtype="float32", processes=2)
    assert [(one.kernel.rpartition("_")[0], one.cached) for one in told] == [
        ("attention_window_d8_float32", False), ("attention_causal_d8_float32", False),
    ]  # fmt: skip
    assert [one.kernel for one in caplog.records] == [one.kernel for one in told]
    q = np.ones((1, 1, 20, 8), np.float32)
    with notice.heard() as heard:
        for mask in (*masks, splat.window(17, 3)):
            splat.attention(q, q, q, mask)
    assert [(one.kernel, one.cached) for one in heard] == [(one.kernel, True) for one in told]


def test_a_text_is_compiled_once_and_gradients_and_dtypes_count():
    options = {"seq_q": 100, "seq_kv": 100, "backend": "auto", "target": None}
    masks = [splat.window(9), splat.window(30), splat.longformer(9, 2), splat.longformer(30, 5)]

    def distinct(dims, dtypes, backward):
        return warm_jobs.distinct(warm_jobs.make_jobs(masks, dims, dtypes, {**options, "backward": backward}))

    assert [one.work.mask for one in distinct([8], ["float32"], False)] == [masks[0], masks[2]]
    jobs = distinct([8, 16], ["float32", np.float64], True)
    assert [(one.work.mask, one.work.options["head_dim"], one.work.options["dtype"]) for one in jobs] == [
        (mask, dim, dtype) for dim in (8, 16) for dtype in ("float32", "float64") for mask in (masks[0], masks[2])
    ]
    assert all(len(one.names) == 2 for one in jobs)


SCATTERED = splat.from_dense(np.random.default_rng(0).random((100, 100)) < 0.05)


def called():
    """Every packed operator and gradient over SCATTERED, two heads of it."""
    q = np.ones((2, 100, 8), np.float32)
    values, back = splat.sddmm_vjp(q, q, SCATTERED)
    back(values)
    weights, back = splat.softmax_vjp(values, SCATTERED)
    back(weights)
    out, back = splat.spmm_vjp(weights, q, SCATTERED)
    back(out)


@pytest.mark.usefixtures("fresh")
def test_packed_operators_and_their_gradients_are_found_by_calls():
    options = {**SIZES, "dtype": "float32", "backward": True}
    told = splat.warm_up([SCATTERED], **options, operators=["sddmm", "softmax", "spmm"], processes=2)
    found = {one.kernel for one in told}
    assert sorted(name.partition("_float32")[0] for name in found) == [
        "sddmm", "softmax", "softmax_backward", "spmm", "spmm_transposed",
    ]  # fmt: skip
    with notice.heard() as heard:
        called()
    assert ({one.kernel for one in heard}, {one.cached for one in heard}) == (found, {True})


def operators_of(masks, operators, backward=False, backend="auto", dtype="float32", length=100):
    options = {"seq_q": length, "seq_kv": length, "backend": backend, "target": None, "backward": backward}
    jobs = warm_jobs.distinct(warm_jobs.make_jobs(masks, [8], [dtype], options, operators))
    return [name for one in jobs for name in sorted(one.names)]


def test_what_attention_makes_of_packed_operators_is_compiled_with_it():
    nodes = 4000
    graph = splat.from_dense(np.random.default_rng(0).random((nodes, nodes), np.float32) < 0.001)
    assert not splat.plan(graph, seq_q=nodes, seq_kv=nodes, head_dim=8, dtype="float16").fused
    names = operators_of([graph], ["attention"], dtype="float16", length=nodes)
    assert [name.partition("_d8")[0] for name in names] == [
        "attention_table", "sddmm_float32", names[2], "spmm_float32",
    ]  # fmt: skip
    assert names[2].startswith("softmax_lse_float32_")


@pytest.mark.parametrize("name", ["sddmm", "softmax", "spmm"])
def test_packed_operators_of_a_gpu_need_none(name):
    """The texts of a call, of which test_packed_tiles has the schedules; nothing is compiled here."""
    names = operators_of([splat.window(9), SCATTERED], [name], backend="cuda", dtype="float16")
    assert names
    assert all(f"packed_{name}" in one or f"_{name}_" in one for one in names)
    assert len(operators_of([SCATTERED], [name], True, "cuda", "float16")) > 1


def test_packed_operators_share_kernels_and_a_mask_without_pairs_has_none():
    softmax = operators_of([splat.window(9), splat.causal(), SCATTERED], ["softmax"])
    assert len(softmax) == 1
    nothing = [splat.from_dense(np.zeros((100, 100), bool))]
    assert operators_of(nothing, ["sddmm", "spmm"], True) == []
    assert splat.warm_up(nothing, **SIZES, dtype="float32", operators="sddmm") == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": splat.causal()}, "masks wanted as a list of masks, got Causal. Give [mask] for one."),
        ({"masks": []}, "masks wanted as a list of masks, got list. Give [mask] for one."),
        ({"dtype": []}, "dtype wanted as one or a list of some, got none. Give one."),
        ({"processes": 0}, "processes wanted >= 1, got 0. Give at least 1."),
        (
            {"operators": ["sddmm", "spmv"]},
            "operators wanted among attention, sddmm, softmax, spmm, got 'spmv'. Name some of them.",
        ),
        (
            {"operators": np.array(["sddmm"])},
            "operators wanted among attention, sddmm, softmax, spmm, got array(['sddmm'], dtype='<U5'). "
            "Name some of them.",
        ),
        ({"operators": []}, "operators wanted as one or a list of some, got none. Give one."),
    ],
    ids=["one", "none", "no dtype", "no process", "no such operator", "an array", "no operator"],
)
def test_what_makes_no_sense_is_refused_before_anything_is_compiled(change, message):
    with pytest.raises(splat.ArgumentError) as caught:
        splat.warm_up(**{"masks": [splat.causal()], **SIZES, "dtype": "float32", **change})
    assert str(caught.value) == message


def test_processes_need_a_folder_for_what_they_compile(monkeypatch):
    monkeypatch.setenv("SPLAT_CACHE", "0")
    with pytest.raises(
        splat.BackendError, match=r"^processes wanted as 1 without a disk cache, .* Set SPLAT_CACHE_DIR"
    ):
        splat.warm_up([splat.window(9), splat.causal()], **SIZES, dtype="float32", processes=2)


@pytest.mark.usefixtures("fresh")
def test_what_a_process_raises_is_raised_here(monkeypatch):
    monkeypatch.setattr("sys.path", [Path("/nowhere"), b"/nowhere", *sys.path])  # of notebooks; imports skip them
    job = warm_jobs.Job(warm_jobs.Call(splat.window(9), {"head_dim": 8}), frozenset("x"))
    with pytest.raises(splat.ArgumentError, match="compile"):
        warm._in_processes([job, job], 2)
    monkeypatch.setattr(warm, "WORKER", "raise SystemExit(3)")
    with pytest.raises(splat.BackendError, match=r"^processes: one that compiles ended with status 3\. "):
        warm._in_processes([job, job], 2)
