"""Attention by softmax over slots and the way back, as launches: a chunk of queries at a time."""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.gpu.composed.launches import Launches
from flurka_numba.gpu.composed.matrix import Extent
from flurka_numba.gpu.composed.plan import ComposedPlan, RowChunk
from flurka_numba.problem import Problem
from flurka_numba.targets.simt.head_scales import SCALE_BYTES
from flurka_numba.targets.simt.softmax import SoftmaxPullTraits, SoftmaxTraits
from splat_numba.gen.schedules.schedule import Place
from splat_numba.gen.schedules.tensor import Tensor


@dataclass(frozen=True, slots=True)
class SoftmaxOperands:
    """q and the slots k, v; scaled: k times the powers of two of its heads, which stand at ``scales``."""

    q: Tensor
    k: Tensor
    v: Tensor
    scaled: Tensor
    scales: Place

    def scales_of(self, chunk: RowChunk, problem: Problem) -> Place:
        """Where those of a chunk stand."""
        return self.scales.plus(SCALE_BYTES * chunk.entry * problem.heads)


def attend_by_softmax(
    problem: Problem, plan: ComposedPlan, launches: Launches, operands: SoftmaxOperands, out: Tensor
) -> None:
    """out = softmax(scale q k^T) v."""
    weights = launches.scratch(plan.queries.largest, problem.rank)
    for chunk in plan.queries:
        _make_weights(problem, launches, operands, chunk, weights)
        sizes = (chunk.rows, problem.rank, problem.value_dim)
        v = operands.v.part(chunk.entry, 0)
        launches.product(weights, v, out.part(chunk.entry, chunk.row), (chunk.entries, problem.heads), sizes)


def _make_weights(
    problem: Problem, launches: Launches, operands: SoftmaxOperands, chunk: RowChunk, weights: Tensor
) -> None:
    """The part of the scale that is at most 1, and its sign, come before the exponentials' differences."""
    grid, sizes = (chunk.entries, problem.heads), (chunk.rows, problem.head_dim, problem.rank)
    q, turned = operands.q.part(chunk.entry, chunk.row), operands.scaled.part(chunk.entry, 0).turned
    near = min(max(problem.scale, -1.0), 1.0)
    launches.product(q, turned, weights, grid, sizes, scale=near)
    text, places = SoftmaxTraits(max(abs(problem.scale), 1.0)), {"scales": operands.scales_of(chunk, problem)}
    extent = Extent(*grid, chunk.rows)
    launches.of_rows(text, extent, {}, {"weights": weights}, pointers=places, columns=problem.rank)


def pull_softmax(
    problem: Problem, plan: ComposedPlan, launches: Launches, operands: SoftmaxOperands, dout: Tensor,
    results: tuple[Tensor | None, Tensor | None, Tensor | None],
) -> None:  # fmt: skip
    """Gradients of q and of the slots k, v, where there is a matrix for them."""
    q, k, v = operands.q, operands.k, operands.v
    dq, dk, dv = results
    rank, dim, value_dim = problem.rank, problem.head_dim, problem.value_dim
    weights, dweights = (launches.scratch(plan.queries.largest, rank) for _ in range(2))
    for chunk in plan.queries:
        grid, rows = (chunk.entries, problem.heads), chunk.rows
        _make_weights(problem, launches, operands, chunk, weights)
        dout_rows, q_rows = (one.part(chunk.entry, chunk.row) for one in (dout, q))
        if dv is not None:
            part = dv.part(chunk.entry, 0)
            sizes = (rank, rows, value_dim)
            launches.product(weights.turned, dout_rows, part, grid, sizes, addend=part if chunk.row else None)
        if dq is None and dk is None:
            continue
        launches.product(dout_rows, v.part(chunk.entry, 0).turned, dweights, grid, (rows, value_dim, rank))
        both = {"weights": weights, "dweights": dweights}
        launches.of_rows(SoftmaxPullTraits(problem.scale), Extent(*grid, rows), {}, both, columns=rank)
        if dq is not None:
            result = dq.part(chunk.entry, chunk.row)
            launches.product(dweights, k.part(chunk.entry, 0), result, grid, (rows, rank, dim))
        if dk is not None:
            part = dk.part(chunk.entry, 0)
            launches.product(dweights.turned, q_rows, part, grid, (rank, rows, dim), addend=part if chunk.row else None)
