"""Unions in one order: what texts print of them is the same, whichever part was written first."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given

import splat_numba as splat
from splat_numba.formats import pattern_nodes as nodes
from splat_numba.formats import patterns as p
from splat_numba.formats.order import _KINDS, ordered
from splat_numba.gen.targets.registry import cpu_target
from tests.formats.dense_oracle import dense
from tests.formats.pattern_cases import closed_leaves, combined

SWAPPED = {
    "sinks(4) | window(128)": "window(128) | sinks(4)",
    "global_tokens(2) | sinks(4) | causal()": "causal() | sinks(4) | global_tokens(2)",
    "window(9) | window(8).align_end()": "window(9) | window(8).align_end()",
    "dilated(3, 10) | dilated(3, 9)": "dilated(3, 9) | dilated(3, 10)",
    "(sinks(4) | causal()) & (strided(2) | window(1))": "(causal() | sinks(4)) & (window(1) | strided(2))",
}


@pytest.mark.parametrize("text", SWAPPED)
def test_the_order_is_by_kind_then_form_then_numbers(text):
    assert repr(ordered(splat.parse(text))) == SWAPPED[text]


def test_every_kind_has_its_place():
    leaves = {
        one for one in vars(nodes).values()
        if isinstance(one, type) and issubclass(one, p.Pattern) and one.__module__ == nodes.__name__
    }  # fmt: skip
    assert set(_KINDS) == leaves


@given(combined(closed_leaves))
def test_an_order_changes_no_pair(pattern):
    np.testing.assert_array_equal(dense(ordered(pattern), 9, 11), dense(pattern, 9, 11))


@pytest.mark.parametrize(
    "parts",
    [
        ("window(128)", "sinks(4)"), ("prefix(30)", "sinks(4)"), ("strided(64)", "dilated(9, 3)"),
        ("window(6, 0)", "sinks(4)", "global_tokens(2)"), ("(sinks(4) | window(9))", "columns(64, 2)"),
    ],
    ids=str,
)  # fmt: skip
def test_every_order_is_one_text(parts):
    texts = set()
    for some in permutations(parts):
        mask = splat.parse(" | ".join(some))
        plan = splat.plan(mask, seq_q=300, seq_kv=300, head_dim=16, dtype="float32", backend="cpu")
        texts.add(cpu_target(plan.target).text(plan))
    assert len(texts) == 1
