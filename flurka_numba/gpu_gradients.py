"""Gradients on a GPU, composed: kernel attention's stages, and for FLuRKA products with the projections around them.

FLuRKA is kernel attention over the slots E k and F v, so its gradients are those of the slots, carried on by four
products of matrices: dk = E^T dk', dE = sum over batch and heads of dk' k^T, and the same for values. Those are the
arrays' own ``@``. A Runner knows where the arrays are: on a GPU or in the emulator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from flurka_numba.checks import ARRAYS
from flurka_numba.gpu_gradient_plan import GradientPlan, gradient_plan, over_slots
from flurka_numba.gpu_plan import Stage
from flurka_numba.problem import Problem

Gradients = dict[str, Any]


class Runner(Protocol):
    """Arrays, always with four axes (batch, heads, seq, dim), and launches in the order of one stream."""

    multiprocessors: int

    def rows(self, shape: tuple[int, int, int, int]) -> Any:
        """A fresh array of the problem's dtype that every stage can read and write in place."""

    def words(self, nbytes: int) -> Any:
        """Fresh memory of so many bytes."""

    def readable(self, array: Any) -> Any:
        """The array, or a copy that every stage can read."""

    def launch(self, stage: Stage, arrays: Mapping[str, Any]) -> None:
        """Run a stage. arrays: its pointers and strides by the names of its parameters."""

    def slots(self) -> tuple[Any, Any]:
        """E k and F v, (batch, heads, rank, dim)."""

    def product(self, a: Any, b: Any) -> Any:
        """a @ b, rounded once to the problem's dtype."""

    def sum(self, a: Any, b: Any) -> Any:
        """a + b, likewise."""


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
    out, pull = _of_kernel(inner, arrays["q"], k, v, lengths, runner, frozenset(kept))

    def vjp(dout: Any) -> Gradients:
        found = pull(dout)
        return _through_projections(problem, arrays, found, runner, frozen)

    return out, vjp


def _needless(problem: Problem, frozen: frozenset[str], name: str, proj: str) -> bool:
    """Whether neither the tokens nor the projection want the slots' gradient."""
    return name in frozen and ("proj_k" if problem.shared_proj else proj) in frozen


def _of_kernel(
    problem: Problem, q: Any, k: Any, v: Any, lengths: Any, runner: Runner, frozen: frozenset[str]
) -> tuple[Any, Callable[[Any], Gradients]]:
    plan = gradient_plan(problem, runner.multiprocessors)
    q, k, v = (runner.readable(one) for one in (q, k, v))
    states, turned = _images(plan.keys, plan.images_of_keys, plan.key_shares, plan, {"k": k, "v": v}, lengths, runner)
    out = runner.rows((problem.batch, problem.heads, problem.seq_q, problem.value_dim))
    runner.launch(plan.apply, {"q": q, "states": states, "out": out})

    def vjp(dout: Any) -> Gradients:
        dout = runner.readable(dout)
        pairs = problem.batch * problem.heads
        weights = runner.words(max(8 * pairs * problem.seq_q, 8))
        dq = runner.rows((problem.batch, problem.heads, problem.seq_q, problem.head_dim))
        given = {"q": q, "dout": dout, "dq": dq, "states": states, "turned": turned, "row_weights": weights}
        runner.launch(plan.of_queries, given)
        found = {"q": dq}
        if not {"k", "v"} <= frozen:
            given = {"q": q, "dout": dout, "row_weights": weights}
            stages = plan.queries, plan.images_of_queries, plan.query_shares
            dstates, dturned = _images(*stages, plan, given, None, runner)
            dk = runner.rows((problem.batch, problem.heads, problem.seq_kv, problem.head_dim))
            dv = runner.rows((problem.batch, problem.heads, problem.seq_kv, problem.value_dim))
            given = {"k": k, "v": v, "dk": dk, "dv": dv, "states": dstates, "turned": dturned, "kv_lengths": lengths}
            runner.launch(plan.of_slots, given)
            found |= {"k": dk, "v": dv}
        return {name: gradient for name, gradient in found.items() if name not in frozen}

    return out, vjp


def _images(
    accumulate: Stage, images: Stage, nbytes: int, plan: GradientPlan, given: Mapping[str, Any], lengths: Any,
    runner: Runner,
) -> tuple[Any, Any]:  # fmt: skip
    """A state, or the gradient of one, as its two images."""
    shares, states, turned = (runner.words(size) for size in (nbytes, plan.states, plan.turned))
    runner.launch(accumulate, {**given, "kv_lengths": lengths, "shares": shares})
    runner.launch(images, {"shares": shares, "states": states, "turned": turned})
    return states, turned


def _through_projections(
    problem: Problem, arrays: Mapping[str, Any], found: Gradients, runner: Runner, frozen: frozenset[str]
) -> Gradients:
    """Gradients of tokens and projections from those of the slots."""
    wanted = {"q": found["q"]} if "q" in found else {}
    projections = dict.fromkeys(("k", "v"), "proj_k") if problem.shared_proj else {"k": "proj_k", "v": "proj_v"}
    fold = _fold_head if problem.per_head_proj else _fold
    for name, proj in projections.items():
        if name not in found:
            continue
        slots, tokens = fold(found[name]), arrays[name]
        if name not in frozen:
            folded = runner.product(_matrix(problem, arrays[proj]).swapaxes(-1, -2), slots)
            wanted[name] = _unfold(folded, tokens.shape, problem.per_head_proj)
        if proj not in frozen:
            gradient = runner.product(slots, fold(tokens).swapaxes(-1, -2))
            wanted[proj] = runner.sum(wanted[proj], gradient) if proj in wanted else gradient
    return wanted


def _matrix(problem: Problem, proj: Any) -> Any:
    """(rank, seq) or (heads, rank, seq) of a projection with four axes."""
    return proj[0] if problem.per_head_proj else proj[0, 0]


def _fold(array: Any) -> Any:
    """(batch, heads, rows, dim) as (rows, batch * heads * dim): one product for all of them."""
    batch, heads, rows, dim = array.shape
    return array.swapaxes(1, 2).swapaxes(0, 1).reshape(rows, batch * heads * dim)


def _fold_head(array: Any) -> Any:
    """(batch, heads, rows, dim) as (heads, rows, batch * dim)."""
    batch, heads, rows, dim = array.shape
    return array.swapaxes(0, 1).swapaxes(1, 2).reshape(heads, rows, batch * dim)


def _unfold(array: Any, shape: tuple[int, ...], per_head: bool) -> Any:
    """Back to (batch, heads, rows, dim)."""
    batch, heads, rows, dim = shape
    if per_head:
        return array.reshape(heads, rows, batch, dim).swapaxes(1, 2).swapaxes(0, 1)
    return array.reshape(rows, batch, heads, dim).swapaxes(0, 1).swapaxes(1, 2)


def in_order(found: Gradients, axes: Mapping[str, int]) -> tuple[Any, ...]:
    """Gradients of q, k, v, proj_k, proj_v with the axes that their arguments had; None for the others."""
    trimmed = {}
    for name, gradient in found.items():
        missing = len(gradient.shape) - axes[name]
        trimmed[name] = gradient[(0,) * missing] if missing > 0 else gradient
    return tuple(trimmed.get(name) for name in ARRAYS)
