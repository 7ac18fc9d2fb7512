"""Targets are values: one that the library does not know is planned, explained, chosen and run."""

import numpy as np
import pytest

import flurka_numba
import splat_numba as splat
from splat_numba.errors import ArgumentTypeError, BackendError
from splat_numba.gen.problem import Problem
from splat_numba.gen.targets.registry import GPU_TARGETS, choose_gpu_target
from splat_numba.testing import Problem as Case
from splat_numba.testing import check_attention
from tests.gen.toy_target import Toy


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    """Before the target that takes everything."""
    simt = GPU_TARGETS["simt"]
    monkeypatch.delitem(GPU_TARGETS, "simt")
    monkeypatch.setitem(GPU_TARGETS, "toy", Toy())
    monkeypatch.setitem(GPU_TARGETS, "simt", simt)


@pytest.mark.parametrize(
    "case",
    [
        Case(34, 40, splat.causal().align_end() | splat.strided(8), "float32", heads_q=4, heads_kv=2, head_dim=8),
        Case(33, 33, [splat.window(5), splat.full()], "float32", batch=2, heads_q=2, kv_lengths=(0, 20)),
        Case(40, 30, splat.bigbird(8, n_window=3), "float32", heads_q=1, head_dim=7, value_dim=5),
    ],
    ids=["grouped heads", "a mask a head, key lengths", "odd dims"],
)
def test_a_target_of_ones_own_runs_on_the_emulator(case):
    check_attention(case, backend="emulate", target="toy")


def test_a_call_gets_the_first_target_that_takes_it_and_the_plan_says_why():
    sizes = {"seq_q": 40, "seq_kv": 40, "head_dim": 8, "backend": "emulate"}
    half = splat.plan(splat.causal(), dtype="float16", **sizes)
    real = splat.plan(splat.causal(), dtype="float32", **sizes)
    assert (half.target, real.target) == ("sm_90a", "toy")
    assert "chosen      target: toy (the first that takes this GPU, dtype and dims)" in real.explain()
    assert "refused   sm_90a: wanted as float16 or bfloat16" in real.explain()
    assert "pass 0      a row a lane" in real.explain()
    assert "target: sm_90a" in half.explain()


def test_the_other_package_has_no_text_for_it():
    with pytest.raises(BackendError, match=r"^target wanted as None or 'sm_90a' in flurka_numba, got 'toy'"):
        flurka_numba.kernel_attention(*(np.zeros((8, 8), np.float16),) * 3, backend="emulate", target="toy")


def test_what_no_target_takes_is_refused_by_name():
    with pytest.raises(ArgumentTypeError, match=r"^dtype wanted as float16 or bfloat16 .*, got float64"):
        splat.plan(splat.causal(), seq_q=8, seq_kv=8, head_dim=8, dtype="float64", backend="emulate", target="sm_90a")
    with pytest.raises(ArgumentTypeError, match=r"^q wanted as float32 for the toy, got float16"):
        splat.attention(*(np.zeros((8, 8), np.float16),) * 3, splat.causal(), backend="emulate", target="toy")
    message = r"^target wanted for a GPU of compute capability 7\.0, got sm_90a, toy, simt\."
    with pytest.raises(BackendError, match=message):
        choose_gpu_target(None, Problem(8, 8, 8, 8, "float32"), (7, 0))


def test_16_bits_have_tensor_cores_on_hopper_and_fma_units_elsewhere():
    half = Problem(8, 8, 8, 8, "float16")
    assert choose_gpu_target(None, half, (9, 0))[0].name == "sm_90a"
    target, why = choose_gpu_target(None, half, (8, 0))
    assert target.name == "simt"
    assert ("sm_90a", "does not run on compute capability 8.0") in why.refused
