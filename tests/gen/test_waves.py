"""How many pairs of batch entry and head take turns in the cache, of a launch whose row blocks come longest first."""

import pytest

import splat_numba as splat
from splat_numba.arguments.masks import store_mask
from splat_numba.formats.geometry import geometry
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.problem import Conditions, Problem
from splat_numba.gen.schedules.tensor import Tensor, contiguous
from splat_numba.gen.targets.gpu.items import heads_per_wave
from splat_numba.gen.targets.sm80.target import SM80

SEQ, DIM = 8192, 128  # 4 MiB of keys and values a pair: six fit


def width(mask, pairs, group=1):
    problem = Problem(SEQ, SEQ, DIM, DIM, "bfloat16", 1, pairs, pairs)
    plan = SM80.plan_backward(
        geometry(store_mask(mask, SEQ, SEQ), SEQ, SEQ), problem, Gpu(), Conditions()
    )  # fmt: skip
    sizes = (1, pairs, SEQ, DIM)
    right = Tensor(sizes, contiguous(sizes, DIM), "bfloat16", "k")
    return heads_per_wave(plan.keys[0], (right, right), group, pairs)


@pytest.mark.parametrize(
    ("mask", "pairs", "group", "wanted"),
    [
        (splat.full(), 8, 1, 6), (splat.full(), 4, 1, 4), (splat.full(), 8, 2, 8), (splat.full(), 32, 2, 12),
        (splat.causal(), 8, 1, 4), (splat.causal(), 32, 1, 4), (splat.causal(), 7, 1, 4), (splat.causal(), 6, 1, 6),
        (splat.causal(), 12, 1, 6), (splat.causal(), 48, 4, 24), (splat.window(512), 32, 1, 32),
    ],
    ids=str,
)  # fmt: skip
def test_the_last_wave_is_full_where_row_blocks_differ(mask, pairs, group, wanted):
    """It would begin with its longest row blocks when there is nothing to do beside them."""
    assert width(mask, pairs, group) == wanted
