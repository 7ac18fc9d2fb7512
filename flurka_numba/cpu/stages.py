"""The stages of a call on CPU threads: compress, absorb, attend; and their gradients.

Arrays of our own are contiguous, (batch, heads, ...), their last two axes padded with zeros to whole register tiles;
partial sums have an axis of splits before those.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flurka_numba.operands import Operands
from flurka_numba.problem import Problem
from flurka_numba.targets.cpu.plan import SOFTMAX, CpuPlan
from splat_numba.runtime.compile import Compiled
from splat_numba.runtime.threads import parallel_for

# Work items of a sum over a sequence: enough for a few dozen threads, and never depending on how many there are.
ITEMS = 64
LEAST_ROWS = 1024  # of a split: adding splits up is then a small part of the work
LARGEST_SUM = -16  # as a power of two: queries of float32's largest then meet 256 features without overflow
LARGEST_EXPONENT = 100  # of sums that are brought there, so that scales have inverses in float32
GROUP = 4  # heads that use a staged tile of a shared projection: staging it is then a few percent; 8 are as fast


@dataclass(frozen=True, slots=True)
class Kernels:
    """The compiled entry functions of a plan, and how many threads run them."""

    plan: CpuPlan
    compiled: Compiled
    threads: int

    def run(self, name: str, items: int, *arguments: Any) -> None:
        """One entry function over all its work items."""
        function = self.compiled.functions[name]
        parallel_for(items, lambda first, last: function(first, last, *arguments), self.threads)

    def empty(self, *shape: int) -> NDArray[Any]:
        """An array of our own, not filled."""
        return np.empty(shape, self.plan.compute_dtype)

    def zeros(self, *shape: int) -> NDArray[Any]:
        """An array of our own."""
        return np.zeros(shape, self.plan.compute_dtype)

    def fold(self, partial: NDArray[Any]) -> NDArray[Any]:
        """The sum over splits."""
        batch, heads, splits, *block = partial.shape
        if splits == 1:
            return partial[:, :, 0]
        total = self.empty(batch, heads, *block)
        self.run("fold", batch * heads, partial, total)
        return total


@dataclass(frozen=True, slots=True)
class Weights:
    """Of a feature map that begins with u = x w; empty for elementwise maps.

    w: (batch or 1, heads or 1, head_dim, part), its first column repeated beyond the ``kept`` ones. w_t: the transpose,
    zero there. kept: head_dim for elementwise maps. features: of a row, padded; rfa has two parts. In
    low-rank attention w is of slots times powers of two, and w_t of slots times the scale.
    """

    w: NDArray[Any]
    w_t: NDArray[Any]
    kept: int
    features: int


@dataclass(frozen=True, slots=True)
class Absorbed:
    """What the forward pass leaves for gradients.

    keys, values: the rows that were absorbed, tokens or slots; lengths: how many of them. stabs: (batch, heads), of
    favor. state: (batch, heads, features, value_dims); sums: (batch, heads, 1, features); both times their head's
    power of two, scales: (batch, heads), with which the sums are small: else products with long queries would overflow.
    In low-rank attention these two have none, and scales are what q w is multiplied with to be scores.
    """

    keys: NDArray[Any]
    values: NDArray[Any]
    lengths: NDArray[np.int64]
    weights: Weights
    stabs: NDArray[Any]
    state: NDArray[Any]
    sums: NDArray[Any]
    scales: NDArray[Any]


def split_count(units: int, rows: int) -> int:
    """Into how many splits a sum over ``rows`` is cut, where there are ``units`` of such sums."""
    return max(1, min(-(-ITEMS // max(units, 1)), rows // LEAST_ROWS))


def attend(kernels: Kernels, operands: Operands) -> Absorbed:
    """Write ``operands.out``."""
    absorbed = _absorb_softmax(kernels, operands) if kernels.plan.feature_map == SOFTMAX else _absorb(kernels, operands)
    problem, weights = operands.problem, absorbed.weights
    tiles = problem.batch * problem.heads * -(-problem.seq_q // kernels.plan.tile_rows)
    arguments = (operands.q, weights.w, weights.kept, absorbed.state, absorbed.sums, absorbed.scales, operands.out)
    kernels.run("attend", tiles, *arguments)
    if problem.method == "kernel":  # without keys, whatever the queries hold
        operands.out[operands.kv_lengths == 0] = 0
    return absorbed


def _absorb(kernels: Kernels, operands: Operands) -> Absorbed:
    """Keys and values through the feature map."""
    problem = operands.problem
    keys, values, lengths = operands.k, operands.v, operands.kv_lengths
    if problem.method == "flurka":
        keys, values = (slots[:, :, : problem.rank] for slots in _compress(kernels, operands))
        keys, values = keys[..., : problem.head_dim], values[..., : problem.value_dim]
        lengths = np.full(problem.batch, problem.rank, np.int64)
    weights = _weights(kernels, problem, operands.omega)
    batch, heads, rows, _ = keys.shape
    splits = split_count(batch * heads, rows)
    items = batch * heads * splits
    largest = kernels.zeros(batch, heads, splits)
    if kernels.plan.feature_map == "favor":
        kernels.run("largest_key", items, keys, weights.w, lengths, weights.kept, largest)
    stabs = largest.max(axis=2)
    state = kernels.empty(batch, heads, splits, weights.features, kernels.plan.padded(problem.value_dim))
    sums = kernels.empty(batch, heads, splits, 1, weights.features)
    kernels.run("absorb", items, keys, values, weights.w, stabs, lengths, weights.kept, state, sums)
    state, sums = kernels.fold(state), kernels.fold(sums)
    scales = _scales(sums)
    return Absorbed(keys, values, lengths, weights, stabs, state * scales, sums * scales, scales[:, :, 0, 0].copy())


def _scales(sums: NDArray[Any]) -> NDArray[Any]:
    """The power of two for each head, (batch, heads, 1, 1), that brings the largest of its sums to 2^LARGEST_SUM; NaN
    where that has overflown, as the results would be zeros.
    """
    largest = np.abs(sums).max(axis=(2, 3), keepdims=True, initial=0)
    exponents = np.clip(np.frexp(largest)[1], -LARGEST_EXPONENT, LARGEST_EXPONENT)
    scales: NDArray[Any] = np.ldexp(sums.dtype.type(1), LARGEST_SUM - exponents)
    scales[np.isinf(largest)] = np.nan
    return scales


def _absorb_softmax(kernels: Kernels, operands: Operands) -> Absorbed:
    """Low-rank attention: the slots of a head are its feature map, its values the state."""
    problem = operands.problem
    keys, values = _compress(kernels, operands)
    slots = keys[:, :, : problem.rank, : problem.head_dim]
    near, scales = _brought_near(slots, problem.scale)
    largest = np.finfo(slots.dtype).max  # what meets it then is a gradient of 0
    with np.errstate(over="ignore"):
        scaled = np.clip(slots * slots.dtype.type(problem.scale), -largest, largest)
    weights = replace(_transposed(kernels, near, parts=1), w_t=_transposed(kernels, scaled, parts=1).w_t)
    sums = kernels.zeros(problem.batch, problem.heads, 1, weights.features)
    sums[..., : problem.rank] = 1
    lengths = np.full(problem.batch, problem.rank, np.int64)
    return Absorbed(keys, values, lengths, weights, kernels.zeros(0, 0), values, sums, scales)


def _brought_near(slots: NDArray[Any], scale: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Slots times the power of two that brings the largest of their head to 1, and the sign of the scale; and what
    differences of their products with queries are multiplied with, (batch, heads), which unlike scores may be infinite.
    """
    exponents = np.frexp(np.abs(slots).max(axis=(2, 3), keepdims=True, initial=0))[1]
    exponents = np.clip(exponents, -LARGEST_EXPONENT, np.finfo(slots.dtype).maxexp - 2)
    powers = np.ldexp(slots.dtype.type(math.copysign(1, scale)), -exponents)
    with np.errstate(over="ignore"):
        stretch = np.ldexp(np.float64(abs(scale)), exponents[:, :, 0, 0])
    return slots * powers, np.minimum(stretch, np.finfo(slots.dtype).max).astype(slots.dtype)


def _compress(kernels: Kernels, operands: Operands) -> tuple[NDArray[Any], NDArray[Any]]:
    """The slots of keys and values: E k and F v."""
    proj_v = operands.proj_k if operands.proj_v is None else operands.proj_v
    return _slots(kernels, operands.k, operands.proj_k, operands), _slots(kernels, operands.v, proj_v, operands)


def _slots(kernels: Kernels, source: NDArray[Any], proj: Any, operands: Operands) -> NDArray[Any]:
    problem, plan = operands.problem, kernels.plan
    batch, heads, seq, dim = source.shape
    group = 1 if problem.per_head_proj else GROUP
    units = batch * -(-heads // group)
    splits = split_count(units, seq)
    partial = kernels.empty(batch, heads, splits, plan.padded(problem.rank), plan.padded(dim))
    kernels.run("compress", units * splits, source, proj, operands.kv_lengths, partial, group)
    return kernels.fold(partial)


def _weights(kernels: Kernels, problem: Problem, omega: NDArray[Any] | None) -> Weights:
    if omega is None:
        nothing = kernels.zeros(1, 1, 0, 0)
        return Weights(nothing, nothing, problem.head_dim, kernels.plan.padded(problem.head_dim))
    if kernels.plan.feature_map == "favor":
        return _transposed(kernels, (omega * omega.dtype.type(problem.head_dim**-0.25))[None, None], parts=1)
    return _transposed(kernels, omega[None, None], parts=2)


def _transposed(kernels: Kernels, rows: NDArray[Any], parts: int) -> Weights:
    """Weights from their rows, (..., kept, head_dim)."""
    kept, head_dim = rows.shape[2:]
    part = kernels.plan.padded(kept)
    w_t = kernels.zeros(*rows.shape[:2], part, kernels.plan.padded(head_dim))
    w_t[:, :, :kept, :head_dim] = rows
    w = np.ascontiguousarray(w_t[..., :head_dim].swapaxes(2, 3))
    w[..., kept:] = w[..., :1]
    return Weights(w, w_t, kept, parts * part)
