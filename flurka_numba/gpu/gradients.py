"""Gradients on a GPU, composed: kernel attention's stages, and for FLuRKA products with the projections around them.

FLuRKA is kernel attention over the slots E k and F v, so its gradients are those of the slots, carried on by four
products of matrices: dk = E^T dk', dE = sum over batch and heads of dk' k^T, and the same for values. Those are stages,
too, as tokens have no layout in which each is one product without a copy; the rare ones are the arrays' own ``@``. A
Runner knows where the arrays are: on a GPU or in the emulator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from flurka_numba.checks import ARRAYS
from flurka_numba.gpu.gradient_plan import (
    Shape,
    gradient_plan,
    has_token_stage,
    over_slots,
    projection_stage,
    token_stage,
)
from flurka_numba.gpu.stages import Stage
from flurka_numba.problem import Problem
from splat_numba.runtime.cuda.copies import padded, padded_strides

Gradients = dict[str, Any]  # arrays by name


@dataclass(slots=True)
class Area:
    """Memory as stages see it: its address, and if it is an array its shape, (batch, heads, rows, dim), and strides in
    bytes. memory: what holds it, for operands and results an array, of which leading axes may be missing. readable:
    whether every stage can load from it.

    Nobody changes it; that it is not frozen saves 0.3 us of each of the 30 of a call with its gradients.
    """

    memory: Any
    address: int
    shape: Shape = (0, 0, 0, 0)
    strides: Shape = (0, 0, 0, 0)
    readable: bool = True

    def rows(self, shape: Shape) -> Area:
        """It as an array of 16-bit numbers, (batch, heads, rows, dim), with rows padded to 16 bytes."""
        return Area(self.memory, self.address, shape, padded_strides(shape))


class Runner(Protocol):
    """Memory, and launches in the order of one stream."""

    multiprocessors: int

    def rows(self, shape: Shape, axes: int = 4) -> Area:
        """A fresh array of the problem's dtype, of the last so many axes, that every stage can read and write."""

    def side_by_side(self, shape: Shape) -> Area:
        """The same, stored as (batch, rows, heads, dim) where the framework has views of it."""

    def areas(self, *sizes: int) -> list[Area]:
        """Fresh memory of so many bytes each."""

    def readable(self, area: Area) -> Area:
        """An operand, or a copy that every stage can read."""

    def launch(self, stage: Stage, areas: Mapping[str, Area], boxes: Mapping[str, int] | None = None) -> None:
        """Run a stage. areas: its pointers and strides by the names of its parameters; boxes: rows that one copy
        fetches of those that it has a tensor map of.
        """

    def slots(self) -> tuple[Area, Area]:
        """E k and F v, (batch, heads, rank, dim)."""

    def cut(self, array: Any, columns: int) -> Any:
        """The first columns of an array that stages have written."""

    def product(self, a: Any, b: Any) -> Any:
        """a @ b, rounded once to the problem's dtype."""


def row_bytes(shape: Shape) -> int:
    """Bytes of an array of 16-bit numbers with rows padded to 16 bytes."""
    return 2 * math.prod(shape[:3]) * padded(shape[3])


def attend_with_gradients(
    problem: Problem, operands: Mapping[str, Area], lengths: Area, runner: Runner, frozen: frozenset[str]
) -> tuple[Area, Callable[[Area], Gradients]]:
    """(out, the function from dout to gradients by name). operands: q, k, v, proj_k, proj_v."""
    if problem.method == "kernel":
        out, pull = _of_kernel(problem, operands["q"], operands["k"], operands["v"], lengths, runner, frozen)
        return out, lambda dout: {name: area.memory for name, area in pull(dout).items()}
    k, v = runner.slots()
    inner = over_slots(problem)
    kept = {"q"} if "q" in frozen else set()
    kept |= {name for name, proj in (("k", "proj_k"), ("v", "proj_v")) if _needless(problem, frozen, name, proj)}
    spread = has_token_stage(problem)
    out, pull = _of_kernel(inner, operands["q"], k, v, lengths, runner, frozenset(kept), spread=spread)

    def vjp(dout: Area) -> Gradients:
        return _through_projections(problem, operands, pull(dout), runner, frozen)

    return out, vjp


def _needless(problem: Problem, frozen: frozenset[str], name: str, proj: str) -> bool:
    """Whether neither the tokens nor the projection want the slots' gradient."""
    return name in frozen and ("proj_k" if problem.shared_proj else proj) in frozen


def _of_kernel(
    problem: Problem, q: Area, k: Area, v: Area, lengths: Area, runner: Runner, frozen: frozenset[str], *,
    spread: bool = False,
) -> tuple[Area, Callable[[Area], dict[str, Area]]]:  # fmt: skip
    plan = gradient_plan(problem, runner.multiprocessors, spread=spread)
    q, k, v = (runner.readable(one) for one in (q, k, v))
    shares, states, turned = runner.areas(plan.key_shares, plan.states, plan.turned)
    runner.launch(plan.keys, {"k": k, "v": v, "kv_lengths": lengths, "shares": shares})
    runner.launch(plan.images_of_keys, {"shares": shares, "states": states, "turned": turned})
    out = runner.rows((problem.batch, problem.heads, problem.seq_q, problem.value_dim))
    runner.launch(plan.apply, {"q": q, "states": states, "out": out})

    def vjp(dout: Area) -> dict[str, Area]:
        dout = runner.readable(dout)
        dq = runner.side_by_side((problem.batch, problem.heads, problem.seq_q, problem.head_dim))
        sizes = [row_bytes(shape) for shape in plan.internal.values()]
        areas = runner.areas(plan.query_shares, plan.states, plan.turned, plan.row_weights, *sizes)
        shares, dstates, dturned, weights, *rest = areas
        given = {"q": q, "dout": dout, "dq": dq, "states": states, "turned": turned}
        given |= {"shares": shares, "row_weights": weights}
        found = {"q": dq}
        runner.launch(plan.queries[0], given)
        if not {"k", "v"} <= frozen:
            for stage in plan.queries[1:]:
                runner.launch(stage, given)
            runner.launch(plan.images_of_queries, {"shares": shares, "states": dstates, "turned": dturned})
            made = {name: area.rows(shape) for (name, shape), area in zip(plan.internal.items(), rest, strict=True)}
            for name, dim in (("dk", problem.head_dim), ("dv", problem.value_dim)):
                if name not in made:
                    made[name] = runner.side_by_side((problem.batch, problem.heads, problem.seq_kv, dim))
            given = {"k": k, "v": v, "states": dstates, "turned": dturned, "kv_lengths": lengths, **made}
            runner.launch(plan.of_slots, given)
            found |= {"k": made.pop("dk"), "v": made.pop("dv"), **made}
        return {name: gradient for name, gradient in found.items() if name not in frozen}

    return out, vjp


def _through_projections(
    problem: Problem, operands: Mapping[str, Area], found: dict[str, Area], runner: Runner, frozen: frozenset[str]
) -> Gradients:
    """Gradients of tokens and projections from those of the slots."""
    wanted = {"q": found["q"].memory} if "q" in found else {}
    projections = dict.fromkeys(("k", "v"), "proj_k") if problem.shared_proj else {"k": "proj_k", "v": "proj_v"}
    matrices = {name: operands[proj] for name, proj in projections.items()}
    of = frozenset(name for name in projections if name in found and name not in frozen)
    wanted |= _of_tokens(problem, matrices, found, of, runner) if of else {}
    of = frozenset(name for name, proj in projections.items() if name in found and proj not in frozen)
    return wanted | (_of_projections(problem, operands, found, of, runner) if of else {})


def _of_tokens(
    problem: Problem, matrices: Mapping[str, Area], found: dict[str, Area], of: frozenset[str], runner: Runner
) -> Gradients:
    """E^T dk' and F^T dv', by a stage where there is one. matrices: the projection of either."""
    planned = token_stage(problem, of, runner.multiprocessors)
    if planned is None:
        return {name: _by_product(problem, matrices[name].memory, found[name].memory, runner) for name in of}
    dims = {"k": problem.head_dim, "v": problem.value_dim}
    made = {name: runner.side_by_side((problem.batch, problem.heads, problem.seq_kv, dims[name])) for name in of}
    given = {f"d{name}": area for name, area in made.items()}
    given |= {f"proj_{name}": runner.readable(matrices[name]) for name in of}
    given |= {f"d{name}_spread": found[f"d{name}_spread"] for name in of}
    runner.launch(planned[0], given, planned[1])
    return {name: area.memory for name, area in made.items()}


def _by_product(problem: Problem, proj: Any, slots: Any, runner: Runner) -> Any:
    """E^T dk' as one product of all heads, or one a head. proj: (..., rank, seq_kv); slots: four axes."""
    batch, heads, rank, dim = slots.shape
    if problem.per_head_proj:
        folded = slots.swapaxes(0, 1).swapaxes(1, 2).reshape(heads, rank, batch * dim)
        product = runner.product(proj.swapaxes(-1, -2), folded)
        return product.reshape(heads, problem.seq_kv, batch, dim).swapaxes(1, 2).swapaxes(0, 1)
    folded = slots.swapaxes(1, 2).reshape(batch, rank, heads * dim)
    product = runner.product(proj.swapaxes(-1, -2), folded)
    return product.reshape(batch, problem.seq_kv, heads, dim).swapaxes(1, 2)


def _of_projections(
    problem: Problem, operands: Mapping[str, Area], found: dict[str, Area], of: frozenset[str], runner: Runner
) -> Gradients:
    """dE and dF. Rows end at a multiple of 16 bytes while they are written."""
    stage, boxes = projection_stage(problem, of, runner.multiprocessors)
    given = {name: runner.readable(operands[name]) for name in of}
    given |= {f"d{name}_slots": found[name] for name in of}
    heads, axes = (problem.heads, 3) if problem.per_head_proj else (1, 2)
    names = ["proj_k"] if problem.shared_proj else [f"proj_{name}" for name in sorted(of)]
    wide = {name: runner.rows((1, heads, problem.rank, padded(problem.seq_kv)), axes) for name in names}
    runner.launch(stage, given | {f"d{name}": area for name, area in wide.items()}, boxes)
    return {name: runner.cut(area.memory, problem.seq_kv) for name, area in wide.items()}


def in_order(found: Gradients, axes: Mapping[str, int]) -> tuple[Any, ...]:
    """Gradients of q, k, v, proj_k, proj_v with the axes that their arguments had; None for the others."""
    return tuple(trimmed(found[name], axes[name]) if name in found else None for name in ARRAYS)


def trimmed(array: Any, axes: int) -> Any:
    """The array with so many of its axes: of the leading ones, which are 1, some are missing then."""
    missing = len(array.shape) - axes
    return array[(0,) * missing] if missing > 0 else array
