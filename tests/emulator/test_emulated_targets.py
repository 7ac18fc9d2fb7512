"""The texts of targets that read by address, `simt` and `sm80`, run on NumPy: results against the oracle, by name and
drawn; faults planted in a text.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import splat_numba as splat
from splat_numba.testing import Problem, check_attention, masks, patterns, problems
from tests.emulator.by_target import TYPES, both, of_targets
from tests.emulator.emulated_gpu import emulated, forget_emulated
from tests.emulator.planted_faults import check_found
from tests.profiles import draws

KINDS = ((1, 3), (20, 20), (16, 72), (33, 17))
PROBLEMS = {
    "no mask": both(Problem(70, 100, splat.full(), batch=1, heads_q=2, heads_kv=1, head_dim=24), "float16"),
    "another layout": {
        "simt": Problem(90, 90, splat.causal(), "float64", 2, 1, head_dim=16, layout="bshd"),
        "sm80": Problem(90, 90, splat.causal(), "bfloat16", 1, 1, head_dim=64, layout="bshd"),
    },
    "wide values": both(Problem(40, 70, splat.causal(), batch=1, heads_q=1, head_dim=8, value_dim=136), "bfloat16"),
    "four rows a thread": {"simt": Problem(40, 40, splat.causal(), "float64", 1, 1, head_dim=8, value_dim=136)},
    "residue classes": both(Problem(260, 260, splat.dilated(10, 4), batch=1, heads_q=1, head_dim=8), "float16"),
    "a grid": both(Problem(384, 384, splat.neighborhood((16, 24), 5), batch=1, heads_q=1, head_dim=8), "float16"),
    "a mask a head": both(
        Problem(70, 70, [splat.causal(), splat.window(9)], batch=2, heads_q=2, head_dim=12), "float16"
    ),
    "key lengths": both(
        Problem(70, 90, splat.causal(), batch=3, heads_q=1, head_dim=12, kv_lengths=(0, 33, 90)), "bfloat16"
    ),
    "negative scale": both(
        Problem(70, 70, splat.window(30), batch=1, heads_q=1, head_dim=12, scale=-0.3), "float16", "float64"
    ),
    "no scale": both(Problem(70, 70, splat.window(30), batch=1, heads_q=1, head_dim=12, scale=0.0), "float16"),
    "no keys": both(Problem(64, 0, splat.full(), batch=1, heads_q=2, head_dim=16), "float16"),
    "16 bits": {"simt": Problem(70, 90, splat.causal().align_end(), "bfloat16", 1, 2, head_dim=20, kv_lengths=(77,))},
}


@pytest.mark.parametrize(("target", "problem"), of_targets(PROBLEMS))
def test_results_agree_with_the_oracle(target, problem):
    check_attention(problem, backend="emulate", target=target)


@pytest.mark.parametrize("target", TYPES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "x".join(map(str, kind)))
@settings(max_examples=draws(6), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_problem_through_the_runtime(kind, target, monkeypatch, data):
    """Strides, copies and packed parameters as on a GPU."""
    mask = data.draw(st.sampled_from([masks, patterns]))
    problem = data.draw(problems(dtypes=TYPES[target], max_length=80, mask=mask))
    with monkeypatch.context() as patch:
        emulated(patch)
        check_attention(replace(problem, head_dim=kind[0], value_dim=kind[1]), backend="cuda", target=target)
    forget_emulated()


@pytest.mark.parametrize("target", TYPES)
def test_keys_and_values_beyond_a_length_never_reach_anything(target):
    q, k, v = Problem(70, 150, splat.full(), "float16", batch=2, heads_q=1, head_dim=20).arrays()
    options = {"kv_lengths": np.array([3, 77]), "backend": "emulate", "target": target, "return_lse": True}
    clean = splat.attention(q, k, v, splat.full(), **options)
    for b, length in enumerate((3, 77)):
        k[b, :, length:] = v[b, :, length:] = np.nan
    for one, other in zip(splat.attention(q, k, v, splat.full(), **options), clean, strict=True):
        assert_array_equal(one, other)


FAULTY = {
    "simt": Problem(135, 150, splat.causal(), "float32", 2, 2, 1, head_dim=12, kv_lengths=(150, 77)),
    "sm80": Problem(135, 150, splat.causal(), "float16", 2, 2, 1, head_dim=12, scale=3.0, kv_lengths=(150, 77)),
}
FAULTS = {
    "simt": {
        "tile bound": (r"while place < end:", "while place < end - u32(1):"),
        "tiles of a piece": (r"corner = u32\(corner \+ u32\(\d+\) \* inner_step\)", "pass"),
        "predicate": (r"u32\(mask_0 >> u32\(16\)\)", "u32(mask_0 >> u32(17))"),
        "lengths of keys": (r"(?<!def )limit_scores\(score, column[^\n]*", "pass"),
        "values beyond a length": (r"inside = u32\(1\) if token < limit else u32\(0\)", "inside = u32(1)"),
        "keys that are not there yet": (r"ptx\.block_barrier\(\)  # the keys are there", "pass"),
        "values that are not there yet": (r"ptx\.block_barrier\(\)  # values and weights are there", "pass"),
        "keys overwritten": (r"ptx\.block_barrier\(\)  # nobody reads the keys any more", "pass"),
        "sum of a row": (r"row_sum = sum_of_row\(added\[i\]\)", "row_sum = added[i]"),
        "new peak": (r"total\[(\d) \* i \+ n\] \*= rescale", "pass"),
        "key heads": (r"k_head\n", "k_head + k_row\n"),
    },
    "sm80": {
        "tiles of a block": (r"left = ptx\.load_word\(block_at \+ u64\(20\)\)", r"\g<0> - u32(1)"),
        "tiles of a piece": (r"corner = u32\(corner \+ u32\(\d+\) \* inner_step\)", "pass"),
        "predicate": (r">> column\)", ">> u32(column + u32(1)))"),
        "lengths of keys": (r"(?<!def )limit_scores\(score_\d, valid, column\)", "pass"),
        "values beyond a length": (r"inside = u32\(1\) if token < limit else u32\(0\)", "inside = u32(1)"),
        "numbers beyond a row's": (r"u32\(0\), u32\(0\), mine", "word_2, word_3, mine"),
        "a tile that is not there yet": (r" {12}wait_for_copies\(\)\n", ""),
        "a tile that others copied": (r"ptx\.block_barrier\(\)  # the tile", "pass  # the tile"),
        "stage": (r"stage = u32\(STAGE_BYTES - stage\)", "pass"),
        "which half of the keys": (r"load_matrices_transposed", "load_matrices"),
        "sum of a row": (r"row_sum \+= ptx\.shuffle_xor\(row_sum, u32\(2\)\)", "pass"),
        "new peak": (r"total\[4 \* j \+ 2\] \*= rescale\[1\]", "pass"),
        "key heads": (r"k_head\n", "k_head + k_row\n"),
    },
}  # fmt: skip


@pytest.mark.parametrize(("target", "fault"), [(target, fault) for target, of in FAULTS.items() for fault in of])
def test_a_planted_fault_is_found(monkeypatch, target, fault):
    check = partial(check_attention, FAULTY[target], backend="cuda", target=target)
    check_found(monkeypatch, check, *FAULTS[target][fault])
