"""A call in float32 on a GPU's FMA units, forward and back: the oracle's steps as launches, a chunk of rows at a time.

Beside S stands z as a last column, made by a column of ones beside V; so one product gives numerators and denominator,
and one gives the gradients of both. What forward leaves for the way back are slots and states: rows are made anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flurka_numba.gpu.composed.features import Features
from flurka_numba.gpu.composed.launches import Launches, Machine
from flurka_numba.gpu.composed.matrix import NO_LIMIT, Extent, Limit, Matrix
from flurka_numba.gpu.composed.plan import Chunk, ComposedPlan
from flurka_numba.gpu.composed.softmax import attend_by_softmax, pull_softmax
from flurka_numba.problem import Problem
from flurka_numba.targets.simt.divide import DividePullTraits, DivideTraits


@dataclass(frozen=True, slots=True)
class Given:
    """arrays: q, k, v, proj_k, proj_v (one for both, if shared). lengths: address of int32 key lengths, 0 for none."""

    arrays: Mapping[str, Matrix]
    lengths: int
    omega: Matrix | None


class Composed:
    """One call. What it is given must stay where it is until pull() was last called, but for lengths and omega."""

    def __init__(self, plan: ComposedPlan, problem: Problem, given: Given, machine: Machine) -> None:
        self._plan, self._problem, self._machine = plan, problem, machine
        self._arrays = given.arrays
        self._kept = Launches(machine)  # its scratch memory is read on the way back
        self._sides = problem.batch, problem.heads
        self._slots = Extent(*self._sides, problem.slots)

    def forward(self, given: Given, out: Matrix) -> None:
        """Write out, and keep slots and states."""
        problem, q = self._problem, self._arrays["q"]
        self._k, self._v = self._compress(given)
        if problem.method == "low_rank":
            launches = Launches(self._machine)
            attend_by_softmax(problem, self._plan, launches, (q, self._k, self._v), out)
            return
        self._make_state(given)
        self._apply(given, out)

    def pull(self, given: Given, dout: Matrix, frozen: frozenset[str]) -> dict[str, Any]:
        """The gradients of what is not frozen, by name, each as rows() of the machine gave it."""
        launches, problem = Launches(self._machine), self._problem
        found: dict[str, Any] = {}
        wanted = {name: name not in frozen for name in ("q", "k", "v")}
        shared = problem.shared_proj
        if problem.method != "kernel":
            for name, proj in (("k", "proj_k"), ("v", "proj_k" if shared else "proj_v")):
                wanted[name] = wanted[name] or proj not in frozen
        dq = dk = dv = None
        dims = {"q": (problem.seq_q, problem.head_dim), "k": (problem.seq_kv, problem.head_dim),
                "v": (problem.seq_kv, problem.value_dim)}  # fmt: skip
        if wanted["q"]:
            found["q"], dq = self._machine.rows("q", (*self._sides, *dims["q"]))
        if problem.method == "kernel":
            if wanted["k"]:
                found["k"], dk = self._machine.rows("k", (*self._sides, *dims["k"]))
            if wanted["v"]:
                found["v"], dv = self._machine.rows("v", (*self._sides, *dims["v"]))
        else:
            dk = launches.scratch(self._slots, problem.head_dim) if wanted["k"] else None
            dv = launches.scratch(self._slots, problem.value_dim) if wanted["v"] else None
        if problem.method == "low_rank":
            matrices = self._arrays["q"], self._k, self._v
            pull_softmax(problem, self._plan, launches, matrices, dout, (dq, dk, dv))
        else:
            keys_wanted = wanted["k"] or wanted["v"]
            dstate = launches.scratch(Extent(*self._sides, problem.features), problem.value_dim + 1)
            self._pull_queries(given, dout, dq, dstate, keys_wanted=keys_wanted)
            if keys_wanted:
                self._pull_keys(given, dstate, dk, dv)
        if problem.method != "kernel":
            self._through_projections(given, launches, {"k": dk, "v": dv}, frozen, found)
        return found

    # The slots and their way back.

    def _compress(self, given: Given) -> tuple[Matrix, Matrix]:
        """E k and F v; without projections the tokens themselves."""
        problem, arrays = self._problem, self._arrays
        if problem.method == "kernel":
            return arrays["k"], arrays["v"]
        slots = {}
        for name, dim in (("k", problem.head_dim), ("v", problem.value_dim)):
            slots[name] = self._kept.scratch(self._slots, dim)
            sizes = (problem.rank, problem.seq_kv, dim)
            launches = Launches(self._machine)
            launches.product(
                arrays[f"proj_{name}"], arrays[name], slots[name], self._sides, sizes, limited="depth",
                limit=Limit(given.lengths),
            )  # fmt: skip
        return slots["k"], slots["v"]

    def _through_projections(
        self, given: Given, launches: Launches, slots: Mapping[str, Matrix | None], frozen: frozenset[str],
        found: dict[str, Any],
    ) -> None:  # fmt: skip
        """Gradients of tokens and projections from those of the slots."""
        problem, arrays, limit = self._problem, self._arrays, Limit(given.lengths)
        earlier: Matrix | None = None  # of a shared projection: what the keys' side gave
        for name, dim in (("k", problem.head_dim), ("v", problem.value_dim)):
            gradient, proj = slots[name], "proj_k" if problem.shared_proj else f"proj_{name}"
            if gradient is None:
                continue
            if name not in frozen:
                found[name], result = self._machine.rows(name, (*self._sides, problem.seq_kv, dim))
                sizes = (problem.seq_kv, problem.rank, dim)
                turned = arrays[f"proj_{name}"].turned
                launches.product(turned, gradient, result, self._sides, sizes, limited="rows", limit=limit)
            if proj not in frozen:
                heads = problem.heads if problem.per_head_proj else 1
                outer = (problem.batch, 1 if problem.per_head_proj else problem.heads)
                earlier = self._pull_projection(
                    launches, gradient, arrays[name], (heads, outer, dim), proj, earlier, limit, found,
                    first=problem.shared_proj and name == "k",
                )  # fmt: skip

    def _pull_projection(
        self, launches: Launches, slots: Matrix, tokens: Matrix, sides: tuple[int, tuple[int, int], int], proj: str,
        earlier: Matrix | None, limit: Limit, found: dict[str, Any], *, first: bool,
    ) -> Matrix | None:  # fmt: skip
        """The sum of dk' k^T, onto an earlier one. first: another follows for this projection, so it stays float32."""
        (heads, outer, dim), problem = sides, self._problem
        if first:
            result = launches.scratch(Extent(1, heads, problem.rank), problem.seq_kv)
        else:
            found[proj], result = self._machine.rows(proj, (1, heads, problem.rank, problem.seq_kv))
        launches.product(
            slots, tokens.turned, result, (1, heads), (problem.rank, dim, problem.seq_kv), outer=outer,
            addend=earlier, limited="columns", limit=limit,
        )  # fmt: skip
        return result if first else None

    # Attention by features.

    def _key_limit(self, given: Given, chunk: Chunk) -> Limit:
        """Tokens have lengths; of slots all take part."""
        if self._problem.method != "kernel" or not given.lengths:
            return NO_LIMIT
        return Limit(given.lengths + 4 * chunk.entry, chunk.row)

    def _extent(self, chunk: Chunk) -> Extent:
        return Extent(chunk.entries, self._problem.heads, chunk.rows)

    def _make_state(self, given: Given) -> None:
        """S with z beside it, of every head; before it favor's largest exponents."""
        problem, launches = self._problem, Launches(self._machine)
        self._state = self._kept.scratch(Extent(*self._sides, problem.features), problem.value_dim + 1)
        features = Features(problem, launches, given.omega, self._plan.keys.largest)
        self._tops = 0
        if problem.feature_map == "favor":
            self._tops = self._kept.numbers(problem.batch * problem.heads)
            for chunk in self._plan.keys:
                features.largest(
                    self._k.part(chunk.entry, chunk.row), self._extent(chunk), self._key_limit(given, chunk),
                    self._tops_of(chunk), adding=chunk.row > 0,
                )  # fmt: skip
        for chunk in self._plan.keys:
            extent, limit = self._extent(chunk), self._key_limit(given, chunk)
            phi = features.make(self._k.part(chunk.entry, chunk.row), extent, limit, self._tops_of(chunk))
            state = self._state.part(chunk.entry, 0)
            launches.product(
                phi.turned, self._v.part(chunk.entry, chunk.row), state, (chunk.entries, problem.heads),
                (problem.features, chunk.rows, problem.value_dim + 1), addend=state if chunk.row else None,
                limited="depth", limit=limit, b_ones=True,
            )  # fmt: skip

    def _tops_of(self, chunk: Chunk) -> int:
        return self._tops and self._tops + 4 * chunk.entry * self._problem.heads

    def _apply(self, given: Given, out: Matrix) -> None:
        problem, launches = self._problem, Launches(self._machine)
        features = Features(problem, launches, given.omega, self._plan.queries.largest)
        nd = launches.scratch(self._plan.queries.largest, problem.value_dim + 1)
        text = DivideTraits(problem.denominator, problem.eps, out.dtype)
        for chunk in self._plan.queries:
            extent = self._extent(chunk)
            self._numerators(launches, features, chunk, nd)
            results = {"nd": nd, "result": out.part(chunk.entry, chunk.row)}
            launches.of_rows(text, extent, {}, results, columns=problem.value_dim)

    def _numerators(self, launches: Launches, features: Features, chunk: Chunk, nd: Matrix) -> Matrix:
        """phi of a chunk of queries, and its products with S and z."""
        phi = features.make(self._arrays["q"].part(chunk.entry, chunk.row), self._extent(chunk), NO_LIMIT, 0)
        sizes = (chunk.rows, self._problem.features, self._problem.value_dim + 1)
        launches.product(phi, self._state.part(chunk.entry, 0), nd, (chunk.entries, self._problem.heads), sizes)
        return phi

    def _pull_queries(
        self, given: Given, dout: Matrix, dq: Matrix | None, all_dstates: Matrix, *, keys_wanted: bool
    ) -> None:
        """Gradients of the queries, and of S and z."""
        problem, largest, launches = self._problem, self._plan.queries.largest, Launches(self._machine)
        features = Features(problem, launches, given.omega, largest)
        features.prepare_pull()
        nd, g = (launches.scratch(largest, problem.value_dim + 1) for _ in range(2))
        text = DividePullTraits(problem.denominator, problem.eps, dout.dtype)
        for chunk in self._plan.queries:
            extent, grid = self._extent(chunk), (chunk.entries, problem.heads)
            phi = self._numerators(launches, features, chunk, nd)
            given_out = {"dout": dout.part(chunk.entry, chunk.row)}
            launches.of_rows(text, extent, given_out, {"nd": nd, "g": g}, columns=problem.value_dim)
            if keys_wanted:
                dstate = all_dstates.part(chunk.entry, 0)
                sizes = (problem.features, chunk.rows, problem.value_dim + 1)
                launches.product(phi.turned, g, dstate, grid, sizes, addend=dstate if chunk.row else None)
            if dq is not None:
                sizes = (chunk.rows, problem.value_dim + 1, problem.features)
                launches.product(g, self._state.part(chunk.entry, 0).turned, features.gradient, grid, sizes)
                q = self._arrays["q"].part(chunk.entry, chunk.row)
                features.pull(q, extent, NO_LIMIT, dq.part(chunk.entry, chunk.row))

    def _pull_keys(self, given: Given, all_dstates: Matrix, dk: Matrix | None, dv: Matrix | None) -> None:
        """Gradients of keys and values, or of the slots."""
        problem, launches = self._problem, Launches(self._machine)
        features = Features(problem, launches, given.omega, self._plan.keys.largest)
        features.prepare_pull()
        for chunk in self._plan.keys:
            extent, grid, limit = self._extent(chunk), (chunk.entries, problem.heads), self._key_limit(given, chunk)
            k = self._k.part(chunk.entry, chunk.row)
            dstate = all_dstates.part(chunk.entry, 0)
            phi = features.make(k, extent, limit, self._tops_of(chunk))
            if dv is not None:
                sizes = (chunk.rows, problem.features, problem.value_dim)
                result = dv.part(chunk.entry, chunk.row)
                launches.product(phi, dstate, result, grid, sizes, limited="rows", limit=limit)
            if dk is not None:
                v = self._v.part(chunk.entry, chunk.row)
                sizes = (chunk.rows, problem.value_dim + 1, problem.features)
                launches.product(
                    v, dstate.turned, features.gradient, grid, sizes, limited="rows", limit=limit, a_ones=True
                )
                features.pull(k, extent, limit, dk.part(chunk.entry, chunk.row))
