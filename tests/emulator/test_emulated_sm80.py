"""The texts for a warp's matrix products, run on NumPy: results against the oracle, by name, drawn; planted faults."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import splat_numba as splat
from splat_numba.executors.emulated import executor as emulated_kernel
from splat_numba.gen.boxes import search as box_search
from splat_numba.gen.plans.machine import gpu_of
from splat_numba.gen.plans.problem import Problem as Sizes
from splat_numba.gen.targets.sm80 import tile_shapes
from splat_numba.gen.targets.sm80.shape import atoms_of
from splat_numba.gen.targets.sm80.target import SM80
from splat_numba.gen.targets.sm80.tile_shapes import candidates
from splat_numba.testing import Problem, check_attention, masks, patterns, problems
from tests.emulator.emulated_gpu import emulated, forget_emulated
from tests.emulator.planted_faults import check_found
from tests.gpu.device_views import forced
from tests.profiles import draws

TYPES = ("float16", "bfloat16")
KINDS = ((1, 3), (20, 20), (16, 72), (33, 17))
STRIPES = splat.window(3) | splat.strided(16)
PROBLEMS = {
    "no mask": Problem(70, 100, splat.full(), "float16", 1, 2, 1, head_dim=24),
    "another layout": Problem(90, 90, splat.causal(), "bfloat16", 1, 1, head_dim=64, layout="bshd"),
    "wide values": Problem(40, 70, splat.causal(), "bfloat16", 1, 1, head_dim=8, value_dim=136),
    "residue classes": Problem(260, 260, splat.dilated(10, 4), "float16", 1, 1, head_dim=8),
    "a grid": Problem(384, 384, splat.neighborhood((16, 24), 5), "float16", 1, 1, head_dim=8),
    "a mask a head": Problem(70, 70, [splat.causal(), splat.window(9)], "float16", batch=2, heads_q=2, head_dim=12),
    "key lengths": Problem(70, 90, splat.causal(), "bfloat16", 3, 1, head_dim=12, kv_lengths=(0, 33, 90)),
    "negative scale": Problem(70, 70, splat.window(30), "float16", 1, 1, head_dim=12, scale=-0.3),
    "no scale": Problem(70, 70, splat.window(30), "float16", 1, 1, head_dim=12, scale=0.0),
    "no keys": Problem(64, 0, splat.full(), "float16", 1, 2, head_dim=16),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_results_agree_with_the_oracle(name):
    check_attention(PROBLEMS[name], backend="emulate", target="sm80")


def shapes():
    """The tiles of 128 queries, whose warps have two sixteens of rows, or are twice as many."""
    for dims in ((24, 24), (24, 200)):
        found = candidates(Sizes(64, 64, *dims, "float16"), gpu_of((8, 0)))
        for one in [one for one in found if one.groups == 2][:2]:
            yield pytest.param(one, id=f"{dims[1]}-{one.tile_kv}-{atoms_of(one)}")


@pytest.mark.parametrize("traits", list(shapes()))
def test_blocks_of_128_queries(traits, monkeypatch):
    """Groups skip tiles that the other one wants, and have masks of their own."""
    problem = Problem(150, 150, splat.window(20), "float16", 2, 1, head_dim=24, kv_lengths=(150, 70))
    for one in (problem, replace(problem, mask=splat.full(), seq_kv=2 * traits.tile_kv, batch=1, kv_lengths=None)):
        with forced(monkeypatch, traits, shapes=tile_shapes):
            check_attention(replace(one, value_dim=traits.value_dim), backend="emulate", target="sm80")


def test_both_numbers_of_sixteens_are_tried():
    assert {atoms_of(shape.values[0]) for shape in shapes()} == {1, 2}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "x".join(map(str, kind)))
@settings(max_examples=draws(6), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_problem_through_the_runtime(kind, monkeypatch, data):
    """Strides, copies and packed parameters as on a GPU."""
    mask = data.draw(st.sampled_from([masks, patterns]))
    problem = data.draw(problems(dtypes=TYPES, max_length=80, mask=mask))
    with monkeypatch.context() as patch:
        emulated(patch)
        check_attention(replace(problem, head_dim=kind[0], value_dim=kind[1]), backend="cuda", target="sm80")
    forget_emulated()


def in_two_passes(mask, problem, gpu, _request, conditions):
    """The plan that takes the window first and resumes for the stripes, however slow it is predicted to be."""
    found = splat.geometry(mask, problem.seq_q, problem.seq_kv)
    way = next(one for one in SM80.candidates(found, problem, gpu, conditions, 100) if len(one.trials) > 1)
    return SM80.plan_of(way, found, problem, gpu, repr(mask), conditions, ())


@pytest.mark.parametrize("dims", [(12, 12), (16, 40)], ids=str)
def test_passes_that_resume(monkeypatch, dims):
    monkeypatch.setattr(box_search, "WORTH_TRYING", 1e9)
    monkeypatch.setattr(emulated_kernel, "plan_for", in_two_passes)
    head_dim, value_dim = dims
    problem = Problem(130, 130, STRIPES, "bfloat16", 2, 1, head_dim=head_dim, value_dim=value_dim,
                      kv_lengths=(130, 18), minus_inf=0.6)  # fmt: skip
    check_attention(problem, backend="emulate", target="sm80")


def test_keys_and_values_beyond_a_length_never_reach_anything():
    q, k, v = Problem(70, 150, splat.full(), "float16", batch=2, heads_q=1, head_dim=20).arrays()
    options = {"kv_lengths": np.array([3, 77]), "backend": "emulate", "target": "sm80", "return_lse": True}
    clean = splat.attention(q, k, v, splat.full(), **options)
    for b, length in enumerate((3, 77)):
        k[b, :, length:] = v[b, :, length:] = np.nan
    for one, other in zip(splat.attention(q, k, v, splat.full(), **options), clean, strict=True):
        assert_array_equal(one, other)


FAULTY = Problem(135, 150, splat.causal(), "float16", 2, 2, 1, head_dim=12, scale=3.0,
                 kv_lengths=(150, 77))  # fmt: skip
FAULTS = {
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
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(monkeypatch, fault):
    check_found(monkeypatch, lambda: check_attention(FAULTY, backend="cuda", target="sm80"), *FAULTS[fault])
