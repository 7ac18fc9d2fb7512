"""Gradients on FMA units, run on NumPy: against the oracle, by name and drawn; faults planted in a text."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import splat_numba as splat
from splat_numba.testing import Problem, check_gradients, masks, patterns, problems
from tests.emulator.emulated_gpu import emulated, forget_emulated
from tests.emulator.gradient_checks import (
    HOLED,
    MASKS,
    WINDOW,
    check_keys_beyond_their_length,
    check_rows_that_keep_nothing,
)
from tests.emulator.planted_faults import check_found
from tests.profiles import draws

TYPES = ("float32", "float64", "float16")
KINDS = ((1, 3), (33, 17))

PROBLEMS = {
    "grouped heads": Problem(66, 40, WINDOW, "float64", 1, 2, 1, head_dim=8, value_dim=12),
    "large values": Problem(30, 30, WINDOW, "float64", 1, 1, head_dim=8, value_dim=136),
    "key lengths": Problem(70, 90, splat.causal(), "float32", 2, 1, head_dim=8, kv_lengths=(0, 33)),
    "negative scale": Problem(70, 70, splat.causal(), "float32", 1, 1, head_dim=8, scale=-0.3),
    "several passes, lengths": Problem(
        100, 100, splat.sparse_transformer_strided(13), "float32", 1, 1, head_dim=8, kv_lengths=(55,)
    ),
    "a mask a head": Problem(40, 40, MASKS[:2], "float32", 1, 2, 1, head_dim=8),
    "a mask a head, 16 bits": Problem(40, 40, MASKS, "bfloat16", 1, 4, 1, head_dim=12, layout="bshd"),
    "queries and keys of nobody": Problem(70, 50, HOLED, "float32", 1, 1, head_dim=12),
    "no keys": Problem(70, 0, splat.full(), "float32", 1, 1, head_dim=8),
    "no queries": Problem(0, 70, splat.full(), "float64", 1, 1, head_dim=8),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_gradients_agree_with_the_oracle(name):
    check_gradients(PROBLEMS[name], backend="emulate", target="simt")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "x".join(map(str, kind)))
@settings(max_examples=draws(3), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_problem_through_the_runtime(kind, monkeypatch, data):
    mask = data.draw(st.sampled_from([masks, patterns]))
    problem = data.draw(problems(dtypes=TYPES, max_length=50, mask=mask))
    frozen = data.draw(st.sampled_from([(), (), ("q",), ("k", "v"), ("v",), ("q", "k")]))
    problem = replace(problem, head_dim=kind[0], value_dim=kind[1])
    with monkeypatch.context() as patch:
        emulated(patch)
        check_gradients(problem, backend="cuda", target="simt", frozen=frozen)
    forget_emulated()


def test_rows_that_keep_nothing_give_zeros_whatever_their_gradients_are():
    check_rows_that_keep_nothing(PROBLEMS["queries and keys of nobody"], "simt")


def test_keys_beyond_their_length_never_reach_anything():
    check_keys_beyond_their_length(PROBLEMS["key lengths"], "simt")


FAULTY = Problem(70, 60, WINDOW, "float32", 1, 2, 1, head_dim=8, value_dim=12, spread=2.0, kv_lengths=(50,))
FAULTS = {
    "tile bound": (r"while place < end:", "while place < end - u32(1):"),
    "heads of a group": (r"while first < end:", "while first < end - u32(1):"),
    "predicate": (r"u32\(mask_0 >> u32\(16\)\)", "u32(mask_0 >> u32(17))"),
    "tiles that are not there yet": (r"ptx\.block_barrier\(\)  # the tiles are there", "pass"),
    "delta": (r"delta = total if", "delta = real(0.5) * total if"),
    "levels of a column": (r"token_of\(u32\(column \+ u32\(16 \* j\)\)", "token_of(column"),
    "scale": (r"store_dk\((\d), dk_total, scale,", r"store_dk(\1, dk_total, real(1.0),"),
    "keys beyond a length": (r"counts = token < end", "counts = token < seq_left"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(monkeypatch, fault):
    check_found(monkeypatch, lambda: check_gradients(FAULTY, backend="cuda", target="simt"), *FAULTS[fault])
