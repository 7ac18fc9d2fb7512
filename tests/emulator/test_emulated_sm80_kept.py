"""Gradients of target sm80 that keep dS, run on NumPy: against the oracle, with every option; planted faults."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import splat_numba as splat
from splat_numba import attention_vjp
from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.targets.gpu.gradient_kernels import READ, WRITTEN
from splat_numba.gen.targets.sm80.backward import kept, planning, schedule
from splat_numba.gen.targets.sm80.backward.shape import columns_at_once
from splat_numba.testing import Problem, check_gradients, masks, patterns, problems
from tests.emulator.emulated_gpu import emulated, forget_emulated
from tests.emulator.gradient_checks import MASKS, WINDOW, check_rows_that_keep_nothing
from tests.emulator.planted_faults import check_found, run
from tests.gpu.device_views import forget
from tests.gradient_cases import keep_slopes
from tests.profiles import draws

BANDED = abs(np.arange(70)[:, None] - np.arange(50)) < 20
BANDED[3:9] = False

PROBLEMS = {
    "grouped heads, padding": (Problem(66, 70, WINDOW, "float16", 1, 2, 1, head_dim=8, value_dim=12), ()),
    "negative scale": (Problem(70, 70, splat.causal(), "bfloat16", 2, 1, head_dim=8, scale=-0.3), ("k", "v")),
    "residue classes": (Problem(140, 140, splat.dilated(9, 5), "float16", 1, 1, head_dim=8), ()),
    "a mask a head": (Problem(70, 70, MASKS[:2], "bfloat16", 1, 2, 1, head_dim=12), ("k",)),
    "no keys": (Problem(70, 0, splat.full(), "bfloat16", 1, 1, head_dim=8), ()),
}
# Groups of 64 rows of the kernel that keeps slopes, whether it has a tile's columns in two halves; groups and stages of
# the kernel that reads; head_dim and value_dim. With two groups a warp has 32 rows, or of large heads sixteen.
SHAPES = ((1, True, 2, 3, 8, 8), (1, False, 1, 3, 8, 12), (2, False, 1, 2, 8, 8), (2, True, 2, 4, 24, 40))


@pytest.fixture(autouse=True)
def _kept(monkeypatch):
    """Slopes are kept wherever they can be, and heads take turns."""
    keep_slopes(monkeypatch)
    forget()
    yield
    forget()


@pytest.fixture
def used(monkeypatch):
    """Traits of the kernels that a call records."""
    found = set()
    traits_of = schedule.traits_of
    monkeypatch.setattr(schedule, "traits_of", lambda one: found.add(traits_of(one)) or traits_of(one))
    return found


@pytest.mark.parametrize("name", PROBLEMS)
def test_gradients_agree_with_the_oracle(name, used):
    problem, frozen = PROBLEMS[name]
    check_gradients(problem, backend="emulate", target="sm80", frozen=frozen)
    assert {one.kept for one in used} == {READ, WRITTEN}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_kind_of_tile(shape, used, monkeypatch):
    """Groups skip tiles that the other one wants; tiles are more than stages."""
    groups, halves, readers, stages, head_dim, value_dim = shape
    keeper = Traits(head_dim, value_dim, "float16", groups, 64, 2, 1)
    reader = Traits(head_dim, value_dim, "float16", readers, 64, stages, 1, partial=False)
    monkeypatch.setattr(kept, "keeping_traits", lambda *_: (keeper,))
    monkeypatch.setattr(planning, "KEEPING", replace(planning.KEEPING, readers=lambda *_: (reader,)))
    problem = Problem(140, 330, splat.window(70, 2), "float16", 1, 1, head_dim=head_dim, value_dim=value_dim)
    check_gradients(problem, backend="emulate", target="sm80")
    assert {(one.kept, one.boxes.groups, one.boxes.stages) for one in used} == {
        (WRITTEN, groups, 2), (READ, readers, stages),
    }  # fmt: skip
    assert {columns_at_once(one) for one in used if one.kept == WRITTEN} == {32 if halves else 64}


def test_rows_that_keep_nothing_give_zeros_whatever_their_gradients_are(used):
    problem = Problem(70, 50, BANDED, "bfloat16", 1, 1, head_dim=12)
    check_gradients(problem, backend="emulate", target="sm80")
    check_rows_that_keep_nothing(problem, "sm80")
    assert {one.kept for one in used} == {READ, WRITTEN}


def check_low_scores():
    """Of a padding key the score is 0: beside scores of -500 its weight is infinite, and infinity x 0 is NaN."""
    q, k, v = Problem(64, 70, splat.full(), "float16", head_dim=16).arrays()
    q, k = np.abs(q) + np.float16(5), -np.abs(k) - np.float16(5)
    _, vjp = attention_vjp(q, k, v, splat.full(), backend="cuda", target="sm80", scale=1.0)
    assert all(np.isfinite(one).all() for one in vjp(np.ones_like(q)))


def test_slopes_of_padding_are_0(monkeypatch):
    run(monkeypatch, check_low_scores, str, late=False)
    check_found(monkeypatch, check_low_scores, r"& keep\)", "| u32(0))")


FAULTY = Problem(130, 140, splat.window(40, 3) | splat.sinks(2), "float16", 1, 2, 1, head_dim=12, spread=20.0)
FAULTS = {
    "image of another tile": (r"to_next_images\(u32\(base[^\n]*", "pass"),
    "image of another head": (r"\(entry \* listed \+ first\)", "(entry * listed)"),
    "image of another row block": (r"u64\(images\) \+ first_image", "u64(images)"),
    "image of another group": (r"u64\(image_1\)", "u64(image_0)"),
    "image that nobody wrote": (r"any_lane\(u32\(status & u32\(1\)\)\)", "any_lane(u32(1))"),
    "order of words": (r"lane \^ u32\(lane >> u32\(3\)\)", "lane"),
    "order of queries": (r"row = u32\(u32\(8\) \* u32\(row >> u32\(1\)\)", "row = u32(u32(4) * u32(row >> u32(1))"),
    "a tile that is not there yet": (r"async_wait\(0\)(?=\n\n# Of shared)", "async_wait(1)"),
    "a tile that others copied": (r"ptx\.block_barrier\(\)  # the tile is there, and nobody reads the one", "pass  #"),
}  # fmt: skip


PAIR_FAULTS = {
    "weights that are not there yet": (r"ptx\.block_barrier\(\)  # what the other", "pass  #"),
    "weights of other rows": (r"give_half\(score_1, [^\n]*", "give_half(score_1, given)"),
    "columns of the other product": (r"(?<=RIGHT_2 \* )other", "second"),
    "columns of its own half": (r"(?<=u32\(1536\) \* )other", "second"),
}


@pytest.mark.parametrize("fault", PAIR_FAULTS)
def test_a_fault_of_paired_warps_is_found(monkeypatch, fault):
    keeper = Traits(12, 12, "float16", 1, 64, 2, 1)
    monkeypatch.setattr(kept, "keeping_traits", lambda *_: (keeper,))
    problem = Problem(70, 60, splat.window(40), "float16", 1, 1, head_dim=12)
    check_found(monkeypatch, lambda: check_gradients(problem, backend="cuda", target="sm80"), *PAIR_FAULTS[fault])


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(monkeypatch, fault):
    check_found(monkeypatch, lambda: check_gradients(FAULTY, backend="cuda", target="sm80"), *FAULTS[fault])


@settings(max_examples=draws(2), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_problem_that_keeps_slopes(monkeypatch, data):
    mask = data.draw(st.sampled_from([masks, patterns]))
    problem = data.draw(problems(dtypes=("float16", "bfloat16"), max_length=150, mask=mask))
    frozen = data.draw(st.sampled_from([(), (), ("q",), ("k", "v"), ("v",), ("q", "k")]))
    with monkeypatch.context() as patch:
        emulated(patch, late=data.draw(st.booleans()))
        value_dim = data.draw(st.sampled_from([4, 9]))  # of 9 warps are paired
        one = replace(problem, head_dim=9, value_dim=value_dim, kv_lengths=None)
        check_gradients(one, backend="cuda", target="sm80", frozen=frozen)
    forget_emulated()
