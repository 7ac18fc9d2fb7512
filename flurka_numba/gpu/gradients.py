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
from flurka_numba.gpu.gradient_plan import gradient_plan, has_token_stage, over_slots, projection_stage, token_stage
from flurka_numba.gpu.stages import Stage
from flurka_numba.problem import Problem
from flurka_numba.targets.sm90.shape import CHUNK, chunks
from splat_numba.gen.boxes import Box, View
from splat_numba.runtime.cuda.copies import padded, padded_strides
from splat_numba.runtime.cuda.tensor_map import Layout, TensorMapArguments, tensor_map_arguments

Gradients = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Area:
    """A part of fresh memory, which it holds: its address, and its shape and strides in bytes if it is an array."""

    memory: Any
    address: int
    shape: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()

    def rows(self, shape: tuple[int, int, int, int]) -> Area:
        """It as an array of 16-bit numbers, (batch, heads, rows, dim), with rows padded to 16 bytes."""
        return Area(self.memory, self.address, shape, padded_strides(shape))


class Runner(Protocol):
    """Arrays, always with four axes (batch, heads, seq, dim), and launches in the order of one stream."""

    multiprocessors: int

    def rows(self, shape: tuple[int, int, int, int]) -> Any:
        """A fresh array of the problem's dtype that every stage can read and write in place."""

    def side_by_side(self, shape: tuple[int, int, int, int]) -> Any:
        """The same, stored as (batch, rows, heads, dim) where the framework has views of it."""

    def areas(self, *sizes: int) -> list[Area]:
        """Fresh memory of so many bytes each."""

    def readable(self, array: Any) -> Any:
        """The array, or a copy that every stage can read."""

    def launch(self, stage: Stage, arrays: Mapping[str, Any], boxes: Mapping[str, int] | None = None) -> None:
        """Run a stage. arrays: its pointers and strides by the names of its parameters; boxes: rows that one copy
        fetches of those that it has a tensor map of.
        """

    def slots(self) -> tuple[Any, Any]:
        """E k and F v, (batch, heads, rank, dim)."""

    def cut(self, array: Any, columns: int) -> Any:
        """The first columns of an array that stages have written."""

    def product(self, a: Any, b: Any) -> Any:
        """a @ b, rounded once to the problem's dtype."""


def box_arguments(pointer: int, layout: Layout, rows: int, spare: int) -> TensorMapArguments:
    """The tensor map of an array for copies of so many rows of one head. spare: a valid device address."""
    seq = layout.sizes[2]
    return tensor_map_arguments(View(0, 1, seq, max(seq, 1), 1), Box(rows), pointer, layout, spare)


def attend_with_gradients(
    problem: Problem, arrays: Mapping[str, Any], lengths: Any, runner: Runner, frozen: frozenset[str]
) -> tuple[Any, Callable[[Any], Gradients]]:
    """(out, the function from dout to gradients by name). arrays: q, k, v, proj_k, proj_v with four axes each."""
    if problem.method == "kernel":
        return _of_kernel(problem, arrays["q"], arrays["k"], arrays["v"], lengths, runner, frozen)
    k, v = runner.slots()
    inner = over_slots(problem)
    kept = {"q"} if "q" in frozen else set()
    kept |= {name for name, proj in (("k", "proj_k"), ("v", "proj_v")) if _needless(problem, frozen, name, proj)}
    out, pull = _of_kernel(inner, arrays["q"], k, v, lengths, runner, frozenset(kept), spread=has_token_stage(problem))

    def vjp(dout: Any) -> Gradients:
        found = pull(dout)
        return _through_projections(problem, arrays, found, runner, frozen)

    return out, vjp


def _needless(problem: Problem, frozen: frozenset[str], name: str, proj: str) -> bool:
    """Whether neither the tokens nor the projection want the slots' gradient."""
    return name in frozen and ("proj_k" if problem.shared_proj else proj) in frozen


def _of_kernel(
    problem: Problem, q: Any, k: Any, v: Any, lengths: Any, runner: Runner, frozen: frozenset[str], *,
    spread: bool = False,
) -> tuple[Any, Callable[[Any], Gradients]]:  # fmt: skip
    plan = gradient_plan(problem, runner.multiprocessors, spread=spread)
    q, k, v = (runner.readable(one) for one in (q, k, v))
    shares, states, turned = runner.areas(plan.key_shares, plan.states, plan.turned)
    runner.launch(plan.keys, {"k": k, "v": v, "kv_lengths": lengths, "shares": shares})
    runner.launch(plan.images_of_keys, {"shares": shares, "states": states, "turned": turned})
    out = runner.rows((problem.batch, problem.heads, problem.seq_q, problem.value_dim))
    internal = _internal(problem) if plan.spread else {}
    runner.launch(plan.apply, {"q": q, "states": states, "out": out})

    def vjp(dout: Any) -> Gradients:
        dout = runner.readable(dout)
        dq = runner.side_by_side((problem.batch, problem.heads, problem.seq_q, problem.head_dim))
        sizes = [2 * math.prod(shape[:3]) * padded(shape[3]) for shape in internal.values()]
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
            made = {name: area.rows(shape) for (name, shape), area in zip(internal.items(), rest, strict=True)}
            for name, dim in (("dk", problem.head_dim), ("dv", problem.value_dim)):
                if name not in made:
                    made[name] = runner.side_by_side((problem.batch, problem.heads, problem.seq_kv, dim))
            given = {"k": k, "v": v, "states": dstates, "turned": dturned, "kv_lengths": lengths, **made}
            runner.launch(plan.of_slots, given)
            found |= {"k": made.pop("dk"), "v": made.pop("dv"), **made}
        return {name: gradient for name, gradient in found.items() if name not in frozen}

    return out, vjp


def _internal(problem: Problem) -> dict[str, tuple[int, int, int, int]]:
    """Gradients of slots that stages alone read: as they are, and spread."""
    dims = {"k": problem.head_dim, "v": problem.value_dim}
    columns = {f"d{name}": dim for name, dim in dims.items()}
    columns |= {f"d{name}_spread": CHUNK * chunks(dim) for name, dim in dims.items()}
    return {name: (problem.batch, problem.heads, problem.seq_kv, dim) for name, dim in columns.items()}


def _through_projections(
    problem: Problem, arrays: Mapping[str, Any], found: Gradients, runner: Runner, frozen: frozenset[str]
) -> Gradients:
    """Gradients of tokens and projections from those of the slots."""
    wanted = {"q": found["q"]} if "q" in found else {}
    projections = dict.fromkeys(("k", "v"), "proj_k") if problem.shared_proj else {"k": "proj_k", "v": "proj_v"}
    matrices = {name: arrays[proj] for name, proj in projections.items()}
    of = frozenset(name for name in projections if name in found and name not in frozen)
    wanted |= _of_tokens(problem, matrices, found, of, runner) if of else {}
    of = frozenset(name for name, proj in projections.items() if name in found and proj not in frozen)
    return wanted | (_of_projections(problem, arrays, found, of, runner) if of else {})


def _of_tokens(
    problem: Problem, matrices: Mapping[str, Any], found: Gradients, of: frozenset[str], runner: Runner
) -> Gradients:
    """E^T dk' and F^T dv', by a stage where there is one. matrices: the projection of either."""
    planned = token_stage(problem, of, runner.multiprocessors)
    if planned is None:
        return {name: _by_product(problem, matrices[name], found[name], runner) for name in of}
    dims = {"k": problem.head_dim, "v": problem.value_dim}
    made = {name: runner.side_by_side((problem.batch, problem.heads, problem.seq_kv, dims[name])) for name in of}
    given = {f"d{name}": array for name, array in made.items()}
    given |= {f"proj_{name}": runner.readable(matrices[name]) for name in of}
    given |= {f"d{name}_spread": found[f"d{name}_spread"] for name in of}
    runner.launch(planned[0], given, planned[1])
    return made


def _by_product(problem: Problem, proj: Any, slots: Any, runner: Runner) -> Any:
    """E^T dk' as one product of all heads, or one a head."""
    batch, heads, rank, dim = slots.shape
    if problem.per_head_proj:
        folded = slots.swapaxes(0, 1).swapaxes(1, 2).reshape(heads, rank, batch * dim)
        product = runner.product(proj[0].swapaxes(-1, -2), folded)
        return product.reshape(heads, problem.seq_kv, batch, dim).swapaxes(1, 2).swapaxes(0, 1)
    folded = slots.swapaxes(1, 2).reshape(batch, rank, heads * dim)
    product = runner.product(proj[0].swapaxes(-1, -2), folded)
    return product.reshape(batch, problem.seq_kv, heads, dim).swapaxes(1, 2)


def _of_projections(
    problem: Problem, arrays: Mapping[str, Any], found: Gradients, of: frozenset[str], runner: Runner
) -> Gradients:
    """dE and dF. Rows end at a multiple of 16 bytes while they are written."""
    stage, boxes = projection_stage(problem, of, runner.multiprocessors)
    given = {name: runner.readable(arrays[name]) for name in of}
    given |= {f"d{name}_slots": found[name] for name in of}
    heads = problem.heads if problem.per_head_proj else 1
    names = ["proj_k"] if problem.shared_proj else [f"proj_{name}" for name in sorted(of)]
    wide = {name: runner.rows((1, heads, problem.rank, padded(problem.seq_kv))) for name in names}
    runner.launch(stage, given | {f"d{name}": array for name, array in wide.items()}, boxes)
    return {name: runner.cut(array, problem.seq_kv) for name, array in wide.items()}


def in_order(found: Gradients, axes: Mapping[str, int]) -> tuple[Any, ...]:
    """Gradients of q, k, v, proj_k, proj_v with the axes that their arguments had; None for the others."""
    trimmed = {}
    for name, gradient in found.items():
        missing = len(gradient.shape) - axes[name]
        trimmed[name] = gradient[(0,) * missing] if missing > 0 else gradient
    return tuple(trimmed.get(name) for name in ARRAYS)
