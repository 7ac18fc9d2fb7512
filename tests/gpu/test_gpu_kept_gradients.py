"""Gradients on a GPU that keep slopes between their passes, by the targets that do: against the oracle, both sizes of
row blocks, bits that repeat.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import splat_numba as splat
from splat_numba import attention_backward
from splat_numba.gen.targets.sm80.backward import planning
from splat_numba.testing import Problem, problems
from tests.gpu.device_views import forget
from tests.gpu.targets import TARGETS, Kind, fuzzed
from tests.gradient_cases import CASES, KEPT, WINDOW, keep_slopes

pytestmark = pytest.mark.gpu
KEEPING = {one.name: one for one in TARGETS if one.name != "simt"}
every_keeping = pytest.mark.parametrize("target", KEEPING.values(), ids=KEEPING)


@pytest.fixture
def kept(monkeypatch):
    """Slopes are kept wherever they can be, and heads take turns."""
    keep_slopes(monkeypatch)
    forget()
    yield
    forget()


@every_keeping
@pytest.mark.parametrize("name", KEPT)
@pytest.mark.usefixtures("kept")
def test_every_case_that_keeps_slopes(name, target):
    target.check_gradients(CASES[name], frozen=KEPT[name])


@pytest.mark.parametrize(
    "kind", [Kind(64, 64, "float16", False, False, ()), Kind(128, 128, "bfloat16", False, True, ())],
    ids=["64x64xfloat16", "128x128xbfloat16, negative scale"],
)  # fmt: skip
@pytest.mark.usefixtures("kept")
@fuzzed
@given(data=st.data())
def test_any_problem_that_keeps_slopes(kind, data):
    problem = data.draw(problems(dtypes=("float16",), max_length=700))
    KEEPING["sm_90a"].check_gradients(replace(kind.of(problem, data), kv_lengths=None))


LONG = {
    "causal": Problem(1100, 1100, splat.causal(), "bfloat16", 1, 2, head_dim=64),
    "full": Problem(700, 900, splat.full(), "float16", 1, 2, head_dim=128),
    "window, grouped": Problem(1500, 1500, splat.window(200), "bfloat16", 2, 4, 2, head_dim=128),
}


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("name", LONG)
@pytest.mark.usefixtures("kept")
def test_many_tiles_with_both_row_blocks_of_queries(name, groups, monkeypatch):
    """More tiles than stages, in turns of the stages' ring."""

    readers = planning.KEEPING.readers

    def of_groups(problem, gpu):
        return tuple(one for one in readers(problem, gpu) if one.groups == groups)

    monkeypatch.setattr(planning, "KEEPING", replace(planning.KEEPING, readers=of_groups))
    KEEPING["sm80"].check_gradients(LONG[name])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.usefixtures("kept")
def test_bits_repeat(dtype):
    problem = Problem(700, 650, WINDOW, dtype, 2, 4, 2, head_dim=64)
    arrays, (dout, dlse) = problem.arrays(), problem.gradients()
    found = [KEEPING["sm80"].vjp(*arrays, WINDOW)[1](dout, dlse) for _ in range(3)]
    for others in found[1:]:
        for one, two in zip(found[0], others, strict=True):
            assert_array_equal(one, two)
            assert np.isfinite(one).all()


def test_bits_repeat_where_hopper_keeps_slopes_by_itself():
    torch = pytest.importorskip("torch")
    mask = splat.window(512)
    assert splat.plan(
        mask, seq_q=4096, seq_kv=4096, heads_q=8, head_dim=128, dtype="bfloat16", backend="cuda", batch=4, backward=True
    ).backward.keys_first
    q, k, v, dout = (torch.randn(4, 8, 4096, 128, device="cuda", dtype=torch.bfloat16) for _ in range(4))
    out, lse = splat.attention(q, k, v, mask, return_lse=True)
    wanted = attention_backward(dout, q, k, v, out, lse, mask)
    for _ in range(5):
        for one, two in zip(attention_backward(dout, q, k, v, out, lse, mask), wanted, strict=True):
            assert torch.equal(one, two)
