"""Gradients by a warp's matrix products, run on NumPy: against the oracle, by name and drawn; planted faults."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import splat_numba as splat
from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.plans.backward import KEYS, QUERIES
from splat_numba.gen.targets.gpu.gradient_kernels import ROUNDED, WHOLE
from splat_numba.gen.targets.sm80.backward import tile_shapes
from splat_numba.gen.targets.sm80.backward.shape import atoms_of
from splat_numba.gen.targets.sm80.backward.traits import GradientTraits
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
from tests.gpu.device_views import forced_gradients
from tests.profiles import draws

TYPES = ("float16", "bfloat16")
KINDS = ((1, 3), (33, 17))

PROBLEMS = {
    "grouped heads": Problem(66, 40, WINDOW, "float16", 1, 2, 1, head_dim=8, value_dim=12),
    "large values": Problem(30, 30, WINDOW, "float16", 1, 1, head_dim=8, value_dim=136),
    "key lengths": Problem(70, 90, splat.causal(), "bfloat16", 2, 1, head_dim=8, kv_lengths=(0, 33)),
    "negative scale": Problem(70, 70, splat.causal(), "bfloat16", 1, 1, head_dim=8, scale=-0.3),
    "several passes, lengths": Problem(
        100, 100, splat.sparse_transformer_strided(13), "bfloat16", 1, 1, head_dim=8, kv_lengths=(55,)
    ),
    "a mask a head": Problem(40, 40, MASKS[:2], "bfloat16", 1, 2, 1, head_dim=8),
    "a mask a head, 16 bits": Problem(40, 40, MASKS, "bfloat16", 1, 4, 1, head_dim=12, layout="bshd"),
    "queries and keys of nobody": Problem(70, 50, HOLED, "bfloat16", 1, 1, head_dim=12),
    "no keys": Problem(70, 0, splat.full(), "bfloat16", 1, 1, head_dim=8),
    "no queries": Problem(0, 70, splat.full(), "float16", 1, 1, head_dim=8),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_gradients_agree_with_the_oracle(name):
    check_gradients(PROBLEMS[name], backend="emulate", target="sm80")


# Groups, columns, stages, head_dim: the wider one has sixteen rows a warp, the other one 32 where there are two groups.
SHAPES = ((1, 16, 1, 24), (1, 16, 2, 24), (1, 32, 2, 24), (1, 64, 2, 24), (2, 32, 2, 24), (2, 64, 2, 24),
          (2, 32, 2, 136), (2, 64, 2, 136))  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_tile_shape(shape, monkeypatch):
    """Groups skip tiles that the other one wants, and have masks of their own."""
    groups, columns, stages, head_dim = shape
    boxes = Traits(head_dim, 24, "float16", groups, columns, stages, 1)
    for of in (QUERIES, KEYS):
        one = GradientTraits(boxes, of, WHOLE[of][0], ROUNDED, ragged=False)
        assert atoms_of(one) == (groups if head_dim == 24 else 1)
    problem = Problem(140, 135, splat.window(9), "float16", 1, 1, head_dim=boxes.head_dim, kv_lengths=(130,))
    of_queries = forced_gradients(monkeypatch, QUERIES, boxes, shapes=tile_shapes)
    with of_queries, forced_gradients(monkeypatch, KEYS, boxes, shapes=tile_shapes):
        check_gradients(replace(problem, value_dim=boxes.value_dim), backend="emulate", target="sm80")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "x".join(map(str, kind)))
@settings(max_examples=draws(2), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_problem_through_the_runtime(kind, monkeypatch, data):
    mask = data.draw(st.sampled_from([masks, patterns]))
    problem = data.draw(problems(dtypes=TYPES, max_length=50, mask=mask))
    frozen = data.draw(st.sampled_from([(), (), ("q",), ("k", "v"), ("v",), ("q", "k")]))
    problem = replace(problem, head_dim=kind[0], value_dim=kind[1])
    with monkeypatch.context() as patch:
        emulated(patch)
        check_gradients(problem, backend="cuda", target="sm80", frozen=frozen)
    forget_emulated()


def test_rows_that_keep_nothing_give_zeros_whatever_their_gradients_are():
    check_rows_that_keep_nothing(PROBLEMS["queries and keys of nobody"], "sm80")


def test_keys_beyond_their_length_never_reach_anything():
    check_keys_beyond_their_length(PROBLEMS["key lengths"], "sm80")


FAULTY = Problem(70, 60, WINDOW, "float16", 1, 2, 1, head_dim=12, value_dim=28, spread=2.0, kv_lengths=(50,))
FAULTS = {
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
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(monkeypatch, fault):
    check_found(monkeypatch, lambda: check_gradients(FAULTY, backend="cuda", target="sm80"), *FAULTS[fault])
