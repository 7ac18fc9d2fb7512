"""A call as the oracle's steps, forward and back, by simt's or sm80's texts: launches over a chunk of rows at a time.

Beside S stands z as a last column, made by a column of ones beside V; so one product gives numerators and denominator,
and one gives the gradients of both. What forward leaves for the way back are slots and states: rows are made anew.
"""

from __future__ import annotations

from dataclasses import replace

from flurka_numba.gpu.composed.features import Features
from flurka_numba.gpu.composed.launches import Launches
from flurka_numba.gpu.composed.matrix import NO_LIMIT, Extent, Fused, Limit
from flurka_numba.gpu.composed.operands import Operands
from flurka_numba.gpu.composed.plan import (
    RowChunk,
    composed_plan,
    divides_in_product,
    rounds_slot_gradients,
    slots_are_keys,
)
from flurka_numba.gpu.composed.projections import make_slots, pull_projections, slot_gradients
from flurka_numba.gpu.composed.slot_attention import SlotAttention
from flurka_numba.gpu.composed.softmax import SoftmaxOperands, attend_by_softmax, pull_softmax
from flurka_numba.gpu.recorder import GpuRecorder
from flurka_numba.targets.simt.divide import DividePullTraits, DivideTraits
from flurka_numba.targets.simt.head_scales import SCALE_BYTES
from flurka_numba.targets.sm80.product_ends import Divide, DividePull
from splat_numba.gen.schedules.schedule import Place
from splat_numba.gen.schedules.tensor import Tensor


class Composed:
    """One call: forward(), then pull() in another recorder, whose arrays are the same."""

    def __init__(self, recorder: GpuRecorder) -> None:
        fuses, keeps = Launches(recorder).fuses, recorder.keeps
        self._plan, self._problem = composed_plan(recorder.problem, fuses=fuses, keeps=keeps), recorder.problem
        self._recorder, self._operands = recorder, Operands(recorder)
        self._sides, self._slots = self._operands.sides, self._operands.slots
        self._scales = recorder.kept(SCALE_BYTES * self._slots.pairs)
        self._attention: SlotAttention | None = None

    def forward(self, out: Tensor) -> None:
        """Write out, and keep slots and states."""
        problem = self._problem
        if slots_are_keys(problem, fuses=Launches(self._recorder).fuses):
            self._attention = SlotAttention(self._operands)
            self._attention.forward(self._operands, out)
            return
        self._k, self._v = make_slots(self._operands)
        if problem.method == "low_rank":
            launches = Launches(self._recorder)
            self._scaled = self._scaled_slots(launches)
            attend_by_softmax(problem, self._plan, launches, self._softmax_operands(), out)
            launches.close()
            return
        self._make_state()
        self._apply(out)

    def pull(self, backward: GpuRecorder, dout: Tensor, frozen: frozenset[str]) -> None:
        """Write the gradients of what is not frozen, results d<name>."""
        self._recorder, self._operands = backward, Operands(backward)
        launches, problem, dout = Launches(backward), self._problem, self._operands.readable(dout)
        if problem.method == "kernel":
            self._k, self._v = make_slots(self._operands)  # what is copied is copied in each recording
        found = self._results(launches, frozen)
        dq, dk, dv = found["q"], found["k"], found["v"]
        if self._attention:
            results = {f"d{name}": one for name, one in found.items() if one is not None}
            self._attention.pull(self._operands, dout, results)
        elif problem.method == "low_rank":
            pull_softmax(problem, self._plan, launches, self._softmax_operands(), dout, (dq, dk, dv))
        else:
            keys_wanted = dk is not None or dv is not None
            heads, columns = Extent(*self._sides, problem.features), problem.value_dim + 1
            dstate = launches.scratch(heads, columns)
            self._pull_queries(dout, dq, dstate, keys_wanted=keys_wanted)
            if keys_wanted:
                launches.scale(dstate, dstate, heads, columns, self._scales)
                self._pull_keys(dstate, dk, dv)
        if problem.method != "kernel":
            pull_projections(self._operands, launches, {"k": dk, "v": dv}, frozen)
        launches.close()

    def _results(self, launches: Launches, frozen: frozenset[str]) -> dict[str, Tensor | None]:
        """Where gradients of q, and of k and v or their slots, are written; None for what nobody wants."""
        problem, recorder = self._problem, self._recorder
        wanted = {name: name not in frozen for name in ("q", "k", "v")}
        if problem.method != "kernel":
            for name, proj in (("k", "proj_k"), ("v", "proj_k" if problem.shared_proj else "proj_v")):
                wanted[name] = wanted[name] or proj not in frozen
        sizes = {"q": (problem.seq_q, problem.head_dim), "k": (problem.slots, problem.head_dim),
                 "v": (problem.slots, problem.value_dim)}  # fmt: skip
        found: dict[str, Tensor | None] = {}
        for name, (rows, dim) in sizes.items():
            shape = (*self._sides, rows, dim)
            if not wanted[name]:
                found[name] = None
            elif name == "q" or problem.method == "kernel":
                found[name] = recorder.result(f"d{name}", shape)
            elif rounds_slot_gradients(problem, fuses=launches.fuses):
                found[name] = slot_gradients(self._operands, dim)
            else:
                found[name] = launches.scratch(self._slots, dim)
        return found

    def _scaled_slots(self, launches: Launches) -> Tensor:
        """For scores, keys that come to 1 in each head."""
        scaled = self._operands.kept(self._slots, self._problem.head_dim)
        launches.scale(self._k, scaled, self._slots, self._problem.head_dim, self._scales, finding=True)
        return scaled

    def _softmax_operands(self) -> SoftmaxOperands:
        return SoftmaxOperands(self._operands.array("q"), self._k, self._v, self._scaled, self._scales)

    # Attention by features.

    def _key_limit(self, chunk: RowChunk) -> Limit:
        """Tokens have lengths; of slots all take part."""
        lengths = self._recorder.lengths
        if self._problem.method != "kernel" or lengths is None:
            return NO_LIMIT
        return Limit(lengths.plus(4 * chunk.entry), chunk.row)

    def _extent(self, chunk: RowChunk) -> Extent:
        return Extent(chunk.entries, self._problem.heads, chunk.rows)

    def _make_state(self) -> None:
        """S with z beside it, of every head, times its power of two; before it favor's largest exponents."""
        problem, launches = self._problem, Launches(self._recorder)
        heads, columns = Extent(*self._sides, problem.features), problem.value_dim + 1
        self._state = self._operands.kept(heads, columns)
        features = Features(problem, launches, self._operands.omega, self._plan.keys.largest)
        self._tops = None
        if problem.feature_map == "favor":
            self._tops = self._recorder.kept(4 * problem.batch * problem.heads)
            for chunk in self._plan.keys:
                features.largest(
                    self._k.part(chunk.entry, chunk.row), self._extent(chunk), self._key_limit(chunk),
                    self._tops_of(chunk), adding=chunk.row > 0,
                )  # fmt: skip
        for chunk in self._plan.keys:
            extent, limit = self._extent(chunk), self._key_limit(chunk)
            k = self._k.part(chunk.entry, chunk.row)
            phi, fused = features.operand(k, extent, limit, self._tops_of(chunk))
            state = self._state.part(chunk.entry, 0)
            launches.product(
                phi.turned, self._v.part(chunk.entry, chunk.row), state, (chunk.entries, problem.heads),
                (problem.features, chunk.rows, problem.value_dim + 1), addend=state if chunk.row else None,
                limited="depth", limit=limit, b_ones=True, fused=fused,
            )  # fmt: skip
        launches.scale(self._state, self._state, heads, columns, self._scales, state=True, finding=True)
        launches.close()

    def _tops_of(self, chunk: RowChunk) -> Place | None:
        return self._tops and self._tops.plus(4 * chunk.entry * self._problem.heads)

    def _scales_of(self, chunk: RowChunk) -> Place:
        return self._scales.plus(SCALE_BYTES * chunk.entry * self._problem.heads)

    def _apply(self, out: Tensor) -> None:
        problem, launches = self._problem, Launches(self._recorder)
        features = Features(problem, launches, self._operands.omega, self._plan.queries.largest)
        if divides_in_product(problem, fuses=launches.fuses):
            end = Divide(problem.denominator, problem.eps, problem.value_dim)
            for chunk in self._plan.queries:
                self._numerators(launches, features, chunk, out.part(chunk.entry, chunk.row), end)
            launches.close()
            return
        nd = launches.scratch(self._plan.queries.largest, problem.value_dim + 1)
        text = DivideTraits(problem.denominator, problem.eps, out.dtype)
        for chunk in self._plan.queries:
            extent = self._extent(chunk)
            self._numerators(launches, features, chunk, nd)
            results = {"nd": nd, "result": out.part(chunk.entry, chunk.row)}
            places = {"scales": self._scales_of(chunk)}
            launches.of_rows(text, extent, {}, results, pointers=places, columns=problem.value_dim)
        launches.close()

    def _numerators(
        self, launches: Launches, features: Features, chunk: RowChunk, result: Tensor,
        end: Divide | DividePull | None = None, matrices: tuple[tuple[str, Tensor], ...] = (),
    ) -> tuple[Tensor, Fused]:  # fmt: skip
        """phi of a chunk of queries as an operand, and its products with S and z, or what an ``end`` makes of them."""
        q = self._operands.array("q").part(chunk.entry, chunk.row)
        phi, fused = features.operand(q, self._extent(chunk), NO_LIMIT, None)
        sizes = (chunk.rows, self._problem.features, self._problem.value_dim + 1)
        divided = replace(fused, end=end, scales=self._scales_of(chunk), matrices=matrices) if end else fused
        state, grid = self._state.part(chunk.entry, 0), (chunk.entries, self._problem.heads)
        launches.product(phi, state, result, grid, sizes, fused=divided)
        return phi, fused

    def _pull_queries(self, dout: Tensor, dq: Tensor | None, all_dstates: Tensor, *, keys_wanted: bool) -> None:
        """Gradients of the queries, and of S and z."""
        problem, largest, launches = self._problem, self._plan.queries.largest, Launches(self._recorder)
        features = Features(problem, launches, self._operands.omega, largest)
        features.prepare_pull()
        g, end = launches.scratch(largest, problem.value_dim + 1), None
        if divides_in_product(problem, fuses=launches.fuses):
            end = DividePull(problem.denominator, problem.eps, problem.value_dim, dout.dtype)
        else:
            nd = launches.scratch(largest, problem.value_dim + 1)
        text = DividePullTraits(problem.denominator, problem.eps, dout.dtype)
        for chunk in self._plan.queries:
            extent, grid = self._extent(chunk), (chunk.entries, problem.heads)
            given_out = {"dout": dout.part(chunk.entry, chunk.row)}
            if end:
                phi, fused = self._numerators(launches, features, chunk, g, end, (*given_out.items(),))
            else:
                phi, fused = self._numerators(launches, features, chunk, nd)
                both, places = {"nd": nd, "g": g}, {"scales": self._scales_of(chunk)}
                launches.of_rows(text, extent, given_out, both, pointers=places, columns=problem.value_dim)
            if keys_wanted:
                dstate = all_dstates.part(chunk.entry, 0)
                sizes = (problem.features, chunk.rows, problem.value_dim + 1)
                addend = dstate if chunk.row else None
                launches.product(phi.turned, g, dstate, grid, sizes, addend=addend, fused=fused)
            if dq is not None:
                turned, q = (
                    self._state.part(chunk.entry, 0).turned,
                    self._operands.array("q").part(chunk.entry, chunk.row),
                )
                features.pull_product(g, turned, q, extent, NO_LIMIT, dq.part(chunk.entry, chunk.row))
        launches.close()

    def _pull_keys(self, all_dstates: Tensor, dk: Tensor | None, dv: Tensor | None) -> None:
        """Gradients of keys and values, or of the slots."""
        problem, launches = self._problem, Launches(self._recorder)
        features = Features(problem, launches, self._operands.omega, self._plan.keys.largest)
        features.prepare_pull()
        for chunk in self._plan.keys:
            extent, grid, limit = self._extent(chunk), (chunk.entries, problem.heads), self._key_limit(chunk)
            k = self._k.part(chunk.entry, chunk.row)
            dstate = all_dstates.part(chunk.entry, 0)
            if dv is not None or not features.in_products:
                phi, fused = features.operand(k, extent, limit, self._tops_of(chunk))
            if dv is not None:
                sizes = (chunk.rows, problem.features, problem.value_dim)
                result = dv.part(chunk.entry, chunk.row)
                launches.product(phi, dstate, result, grid, sizes, limited="rows", limit=limit, fused=fused)
            if dk is not None:
                v = self._v.part(chunk.entry, chunk.row)
                result = dk.part(chunk.entry, chunk.row)
                features.pull_product(v, dstate.turned, k, extent, limit, result, a_ones=True)
        launches.close()
