"""Counts of operations and bytes, and what they say about methods and orders."""

import pytest

from flurka_numba.feature_maps import ELU
from flurka_numba.problem import Problem
from flurka_numba.regime import core_costs, explain_layer, fewest, layer_costs, layer_order


def problem(seq=8192, rank=256, heads=16, dim=64, features=64, phi=ELU, per_head=False, shared=False, batch=1):
    sizes = {"batch": batch, "heads": heads, "seq_q": seq, "seq_kv": seq, "rank": rank}
    return Problem(
        method="flurka", **sizes, head_dim=dim, value_dim=dim, features=features, dtype="bfloat16", feature_map=phi,
        eps=1e-6, per_head_proj=per_head, shared_proj=shared, ragged=False, scale=1.0,
    )  # fmt: skip


def ratios(seq):
    costs = {(cost.method, cost.order): cost.operations for cost in layer_costs(problem(seq))}
    ours = costs["flurka", "b"]
    return [round(costs[other] / ours, 2) for other in (("dense", ""), ("kernel", ""), ("low_rank", "b"))]


def test_layer_counts_are_those_worked_out_by_hand():
    """model_dim 1024, head_dim 64, rank 256, elu: the window in which order (b) beats both."""
    assert ratios(8192) == [7.61, 1.57, 1.17]
    assert ratios(32768) == pytest.approx([26.2, 1.60, 1.17], abs=0.2)


def test_one_product_is_counted_as_two_operations_a_term():
    costs = {cost.method: cost for cost in core_costs(problem(seq=10, rank=3, heads=2, dim=4, features=4))}
    assert costs["dense"].operations == 2 * (2 * 10 * 10 * 8)
    assert costs["kernel"].operations == 2 * (2 * 20 * 4 * 4)
    assert costs["low_rank"].operations == 2 * (2 * 3 * 10 * 8 + 2 * 10 * 3 * 8)
    assert costs["flurka"].operations == 2 * (2 * 3 * 10 * 8 + 2 * 13 * 4 * 4)
    assert costs["dense"].bytes == 2 * 2 * (10 * 8 + 10 * 8)


@pytest.mark.parametrize(("features", "phi"), [(64, ELU), (128, "favor"), (64, "rfa")])
@pytest.mark.parametrize("rank", [8, 16, 64, 128, 256, 512, 4096])
def test_given_q_k_and_v_flurka_never_beats_both_constituents(rank, features, phi):
    costs = {c.method: c.operations for c in core_costs(problem(rank=rank, features=features, phi=phi))}
    assert costs["flurka"] >= min(costs["low_rank"], costs["kernel"])


@pytest.mark.parametrize(("rank", "best"), [(16, "low_rank"), (48, "flurka"), (900, "flurka"), (1300, "kernel")])
def test_the_window_of_ranks(rank, best):
    costs = tuple(cost for cost in layer_costs(problem(seq=65536, rank=rank)) if cost.order != "a")
    assert fewest(costs).method == best


@pytest.mark.parametrize(
    ("options", "order"),
    [({}, "b"), ({"per_head": True}, "a"), ({"seq": 128, "rank": 100}, "b"), ({"seq": 128, "rank": 200}, "a")],
)
def test_the_order_with_fewer_operations(options, order):
    assert layer_order(problem(**options)) == order


def test_a_shared_projection_compresses_x_once():
    apart, shared = (
        next(c for c in layer_costs(problem(shared=shared)) if c.name == "flurka (b)") for shared in (False, True)
    )
    assert apart.operations - shared.operations == 2 * 256 * 8192 * 1024


def test_explain_says_the_order_the_counts_and_the_window():
    text = explain_layer(problem())
    assert "order (b): x compressed, then keys and values of its 256 rows: 45.131 GFLOP, not 78.417." in text
    assert "flurka (b)         45.131     1.00" in text
    assert "fewest operations  <- this layer" in text
    assert "below rank 32 low-rank is the fastest, from there to 1056 FLuRKA" in text


@pytest.mark.parametrize("sizes", [{"seq": 0}, {"rank": 0}, {"batch": 0}])
def test_nothing_to_do_is_explained_too(sizes):
    assert "FLuRKA layer" in explain_layer(problem(**sizes))
