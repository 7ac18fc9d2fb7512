"""Gradients of targets that read by address, `simt` and `sm80`, run on NumPy: against the oracle, by name and drawn;
faults planted in a text.
"""

from dataclasses import replace
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import splat_numba as splat
from splat_numba.testing import Problem, check_gradients, masks, patterns, problems
from tests.emulator.by_target import TYPES, both, of_targets
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

KINDS = ((1, 3), (33, 17))
ONE = {"batch": 1, "heads_q": 1}
PROBLEMS = {
    "grouped heads": both(
        Problem(66, 40, WINDOW, batch=1, heads_q=2, heads_kv=1, head_dim=8, value_dim=12), "float16", "float64"
    ),
    "large values": both(Problem(30, 30, WINDOW, **ONE, head_dim=8, value_dim=136), "float16", "float64"),
    "key lengths": both(
        Problem(70, 90, splat.causal(), batch=2, heads_q=1, head_dim=8, kv_lengths=(0, 33)), "bfloat16"
    ),
    "negative scale": both(Problem(70, 70, splat.causal(), **ONE, head_dim=8, scale=-0.3), "bfloat16"),
    "several passes, lengths": both(
        Problem(100, 100, splat.sparse_transformer_strided(13), **ONE, head_dim=8, kv_lengths=(55,)), "bfloat16"
    ),
    "a mask a head": both(Problem(40, 40, MASKS[:2], batch=1, heads_q=2, heads_kv=1, head_dim=8), "bfloat16"),
    "a mask a head, 16 bits": both(
        Problem(40, 40, MASKS, batch=1, heads_q=4, heads_kv=1, head_dim=12, layout="bshd"), "bfloat16", "bfloat16"
    ),
    "queries and keys of nobody": both(Problem(70, 50, HOLED, **ONE, head_dim=12), "bfloat16"),
    "no keys": both(Problem(70, 0, splat.full(), **ONE, head_dim=8), "bfloat16"),
    "no queries": both(Problem(0, 70, splat.full(), **ONE, head_dim=8), "float16", "float64"),
}


@pytest.mark.parametrize(("target", "problem"), of_targets(PROBLEMS))
def test_gradients_agree_with_the_oracle(target, problem):
    check_gradients(problem, backend="emulate", target=target)


@pytest.mark.parametrize("target", TYPES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "x".join(map(str, kind)))
@settings(max_examples=draws(3), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_problem_through_the_runtime(kind, target, monkeypatch, data):
    mask = data.draw(st.sampled_from([masks, patterns]))
    problem = data.draw(problems(dtypes=TYPES[target], max_length=50, mask=mask))
    frozen = data.draw(st.sampled_from([(), (), ("q",), ("k", "v"), ("v",), ("q", "k")]))
    problem = replace(problem, head_dim=kind[0], value_dim=kind[1])
    with monkeypatch.context() as patch:
        emulated(patch)
        check_gradients(problem, backend="cuda", target=target, frozen=frozen)
    forget_emulated()


@pytest.mark.parametrize("target", TYPES)
def test_rows_that_keep_nothing_give_zeros_whatever_their_gradients_are(target):
    check_rows_that_keep_nothing(PROBLEMS["queries and keys of nobody"][target], target)


@pytest.mark.parametrize("target", TYPES)
def test_keys_beyond_their_length_never_reach_anything(target):
    check_keys_beyond_their_length(PROBLEMS["key lengths"][target], target)


FAULTY = Problem(70, 60, WINDOW, batch=1, heads_q=2, heads_kv=1, head_dim=8, spread=2.0, kv_lengths=(50,))
FAULTY_OF = {
    "simt": replace(FAULTY, value_dim=12),
    "sm80": replace(FAULTY, dtype="float16", head_dim=12, value_dim=28),
}
FAULTS = {
    "simt": {
        "tile bound": (r"while place < end:", "while place < end - u32(1):"),
        "heads of a group": (r"while first < end:", "while first < end - u32(1):"),
        "predicate": (r"u32\(mask_0 >> u32\(16\)\)", "u32(mask_0 >> u32(17))"),
        "tiles that are not there yet": (r"ptx\.block_barrier\(\)  # the tiles are there", "pass"),
        "delta": (r"delta = total if", "delta = real(0.5) * total if"),
        "levels of a column": (r"token_of\(u32\(column \+ u32\(16 \* j\)\)", "token_of(column"),
        "scale": (r"store_dk\((\d), dk_total, scale,", r"store_dk(\1, dk_total, real(1.0),"),
        "keys beyond a length": (r"counts = token < end", "counts = token < seq_left"),
    },
    "sm80": {
        "tiles of a block": (r"left = ptx\.load_word\(block_at \+ u64\(20\)\)", r"\g<0> - u32(1)"),
        "heads of a group": (r"while first < end:", "while first < end - u32(1):"),
        "predicate": (r">> column\)", ">> u32(column + u32(1)))"),
        "lengths of keys": (r"(?<!def )limit_scores\(score_\d, valid, column\)", "pass"),
        "a tile that is not there yet": (r" {12}wait_for_copies\(\)\n", ""),
        "a tile that others copied": (r"ptx\.block_barrier\(\)  # the tile is", "pass  # the tile is"),
        "tiles of the head before": (r"ptx\.block_barrier\(\)  # nobody reads the tiles of", "pass  # nobody"),
        "stage": (r"stage = u32\(STAGE_BYTES - stage\)", "pass"),
        "which half of the columns": (r"load_matrices_transposed", "load_matrices"),
        "delta": (r"delta = total if", "delta = f32(0.5) * total if"),
        "levels of a column": (r"u32\(8 \* j \+ 1\)", "u32(8 * j)"),
        "levels of a row": (r"levels \+ u32\(128\)", "levels"),
        "slopes": (r"slope\[4 \* j \+ 2\] = ", "slope[4 * j + 3] = "),
        "scale": (r"share = scale if", "share = f32(1.0) if"),
        "keys beyond a length": (r"share = scale if token < end", "share = scale if token < seq_left"),
        "numbers beyond a row's": (r"u32\(0\), u32\(0\), mine", "word_2, word_3, mine"),
    },
}  # fmt: skip


@pytest.mark.parametrize(("target", "fault"), [(target, fault) for target, of in FAULTS.items() for fault in of])
def test_a_planted_fault_is_found(monkeypatch, target, fault):
    check = partial(check_gradients, FAULTY_OF[target], backend="cuda", target=target)
    check_found(monkeypatch, check, *FAULTS[target][fault])
