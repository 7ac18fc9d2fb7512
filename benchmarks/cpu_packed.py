"""The packed operators and their gradients on the CPU beside scipy.sparse and NumPy, in one process, interleaved.

    python benchmarks/cpu_packed.py            # writes benchmarks/results/cpu_packed.{json,md}

Batch 1, heads 8, head_dim 64, float32, all cores for us; SciPy has one thread and one matrix a head, made beforehand.
What SciPy has no operation for is NumPy's: products of listed pairs (einsum over gathered rows, at most 65,536 pairs at
a time) and sums over rows (reduceat). Each vjp is timed alone, after its forward call. Rounds and pauses as in
cpu_attention.py, but of each contender the least time counts: what else runs on a shared machine only adds, and more to
us, who have two threads. Before anything is timed both sides' results are compared. Beside ours stands what the same
operators take row by row, as if no plan let rows share loads (splat_numba.gen.packed.groups).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
from cpu_attention import HEAD_DIM, HEADS, SEQ, hardware
from results_files import made_by, options, save
from tables import markdown_table
from turns import CALLS, in_turns

import splat_numba as splat
from splat_numba.gen.packed.problem import RunTable
from splat_numba.gen.targets.cpu import packed_plan

NODES, NEIGHBOURS, SCALE = 20_000, 16, 0.125
PAIRS_AT_A_TIME = 1 << 16
OPERATORS = ("sddmm", "softmax", "spmm")
OURS, SCIPY, OUR_VJP, SCIPY_VJP = "splat", "scipy", "splat vjp", "scipy vjp"
ALONE, ALONE_VJP = "row by row", "row by row, vjp"
CONTENDERS = OURS, ALONE, SCIPY, OUR_VJP, ALONE_VJP, SCIPY_VJP


def random_graph() -> splat.ACSR:
    """Every node keeps itself and up to 16 others."""
    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(NODES), NEIGHBOURS)
    columns = rng.integers(0, NODES, rows.size)
    pairs = np.unique(np.concatenate([rows * NODES + columns, np.arange(NODES) * (NODES + 1)]))
    indptr = np.searchsorted(pairs, np.arange(NODES + 1) * NODES)
    return splat.from_csr(indptr, pairs % NODES, (NODES, NODES))


MASKS: dict[str, Callable[[], splat.ACSR]] = {
    "window(128), n 4096": lambda: splat.ACSR.from_pattern(splat.window(128), SEQ, SEQ),
    "strided(16), n 4096": lambda: splat.ACSR.from_pattern(splat.strided(16), SEQ, SEQ),
    "dilated(128, 4), n 4096": lambda: splat.ACSR.from_pattern(splat.dilated(128, 4), SEQ, SEQ),
    "longformer(256, 64), n 4096": lambda: splat.ACSR.from_pattern(splat.longformer(256, 64), SEQ, SEQ),
    f"a graph of {NODES:,} nodes": random_graph,
}


@dataclass(frozen=True, slots=True)
class Peer:
    """The same in SciPy and NumPy, head by head: values are (heads, nnz) in CSR order, the rest (heads, seq, dim)."""

    indptr: Any
    indices: Any
    shape: tuple[int, int]
    rows: Any

    @classmethod
    def of(cls, acsr: splat.ACSR) -> Peer:
        """Over the pairs of a mask."""
        indptr, indices = acsr.to_csr()
        return cls(indptr, indices, acsr.shape, np.repeat(np.arange(acsr.shape[0]), np.diff(indptr)))

    def matrices(self, values: Any) -> list[Any]:
        """A CSR matrix a head; its numbers are not copied."""
        from scipy.sparse import csr_array

        return [csr_array((one, self.indices, self.indptr), shape=self.shape) for one in values]

    def sddmm(self, q: Any, k: Any, scale: float) -> Any:
        """Products of listed pairs."""
        out = np.empty((q.shape[0], self.indices.size), q.dtype)
        for head in range(q.shape[0]):
            for first in range(0, self.indices.size, PAIRS_AT_A_TIME):
                part = slice(first, first + PAIRS_AT_A_TIME)
                np.einsum("td,td->t", q[head, self.rows[part]], k[head, self.indices[part]], out=out[head, part])
        return out if scale == 1 else scale * out

    def sddmm_vjp(self, dvalues: Any, q: Any, k: Any, scale: float) -> tuple[Any, Any]:
        """(dq, dk)."""
        changes = self.matrices(dvalues)
        dq = np.stack([one @ x for one, x in zip(changes, k, strict=True)])
        dk = np.stack([one.T @ x for one, x in zip(changes, q, strict=True)])
        return scale * dq, scale * dk

    def softmax(self, values: Any) -> Any:
        """Rows have at least one pair in all of the cases."""
        starts, counts = self.indptr[:-1], np.diff(self.indptr)
        powers = np.exp(values - np.repeat(np.maximum.reduceat(values, starts, axis=1), counts, axis=1))
        return powers / np.repeat(np.add.reduceat(powers, starts, axis=1), counts, axis=1)

    def softmax_vjp(self, dweights: Any, weights: Any) -> Any:
        """Dvalues."""
        means = np.add.reduceat(weights * dweights, self.indptr[:-1], axis=1)
        return weights * (dweights - np.repeat(means, np.diff(self.indptr), axis=1))

    def spmm(self, matrices: list[Any], v: Any) -> Any:
        """Out."""
        return np.stack([one @ x for one, x in zip(matrices, v, strict=True)])

    def spmm_vjp(self, dout: Any, matrices: list[Any], v: Any) -> tuple[Any, Any]:
        """(dvalues, dv)."""
        return self.sddmm(dout, v, 1), np.stack([one.T @ x for one, x in zip(matrices, dout, strict=True)])


def contenders(acsr: splat.ACSR) -> dict[tuple[str, str], Callable[[], Any]]:
    """What is timed, by operator and contender; raises AssertionError where the two sides differ."""
    rng = np.random.default_rng(0)
    q, k, v, dout = (rng.standard_normal((HEADS, acsr.shape[0], HEAD_DIM), dtype=np.float32) for _ in range(4))
    change = rng.standard_normal((HEADS, acsr.nnz), dtype=np.float32)
    peer, ordered = Peer.of(acsr), acsr.values_to_csr(change)
    values, back_to_inputs = splat.sddmm_vjp(q, k, acsr, scale=SCALE)
    weights, back_to_values = splat.softmax_vjp(values, acsr)
    _, back_to_weights = splat.spmm_vjp(weights, v, acsr)
    scores, shares = acsr.values_to_csr(values), acsr.values_to_csr(weights)
    matrices = peer.matrices(shares)
    calls: dict[tuple[str, str], Callable[[], Any]] = {
        ("sddmm", OURS): lambda: splat.sddmm(q, k, acsr, scale=SCALE),
        ("sddmm", SCIPY): lambda: peer.sddmm(q, k, SCALE),
        ("sddmm", OUR_VJP): lambda: back_to_inputs(change),
        ("sddmm", SCIPY_VJP): lambda: peer.sddmm_vjp(ordered, q, k, SCALE),
        ("softmax", OURS): lambda: splat.softmax(values, acsr),
        ("softmax", SCIPY): lambda: peer.softmax(scores),
        ("softmax", OUR_VJP): lambda: back_to_values(change),
        ("softmax", SCIPY_VJP): lambda: peer.softmax_vjp(ordered, shares),
        ("spmm", OURS): lambda: splat.spmm(weights, v, acsr),
        ("spmm", SCIPY): lambda: peer.spmm(matrices, v),
        ("spmm", OUR_VJP): lambda: back_to_weights(dout),
        ("spmm", SCIPY_VJP): lambda: peer.spmm_vjp(dout, matrices, v),
    }
    calls |= row_by_row(q, k, v, (change, values, weights, dout), splat.ACSR(acsr.runs))
    for operator in OPERATORS:
        for ours, theirs in ((OURS, SCIPY), (ALONE, SCIPY), (OUR_VJP, SCIPY_VJP), (ALONE_VJP, SCIPY_VJP)):
            compare(calls[operator, ours](), calls[operator, theirs](), acsr)
    return calls


def row_by_row(q: Any, k: Any, v: Any, held: tuple[Any, ...], acsr: splat.ACSR) -> dict[Any, Callable[[], Any]]:
    """Our own calls over a copy of the mask, planned (now, and remembered with it) as if nothing could be shared."""
    change, values, weights, dout = held
    worth, packed_plan.SHARED_WORTH = packed_plan.SHARED_WORTH, 2.0
    _, back_to_inputs = splat.sddmm_vjp(q, k, acsr, scale=SCALE)
    _, back_to_values = splat.softmax_vjp(values, acsr)
    _, back_to_weights = splat.spmm_vjp(weights, v, acsr)
    calls: dict[Any, Callable[[], Any]] = {
        ("sddmm", ALONE): lambda: splat.sddmm(q, k, acsr, scale=SCALE),
        ("sddmm", ALONE_VJP): lambda: back_to_inputs(change),
        ("softmax", ALONE): lambda: splat.softmax(values, acsr),
        ("softmax", ALONE_VJP): lambda: back_to_values(change),
        ("spmm", ALONE): lambda: splat.spmm(weights, v, acsr),
        ("spmm", ALONE_VJP): lambda: back_to_weights(dout),
    }
    for call in calls.values():
        call()
    packed_plan.SHARED_WORTH = worth
    return calls


def compare(ours: Any, theirs: Any, acsr: splat.ACSR) -> None:
    """Raise AssertionError where results differ by more than float32 explains."""
    pairs = zip(ours, theirs, strict=True) if isinstance(ours, tuple) else [(ours, theirs)]
    for one, other in pairs:
        sorted_one = acsr.values_to_csr(one) if one.shape[-1] == acsr.nnz else one
        np.testing.assert_allclose(sorted_one, other, rtol=1e-3, atol=1e-3 * float(np.abs(other).max()))


def measure(rounds: int) -> list[dict[str, Any]]:
    """A row a mask: of every operator the least seconds of each contender."""
    rows, calls = [], {}
    for name, make in MASKS.items():
        acsr = make()
        begin = time.perf_counter()
        RunTable.transposed(acsr)
        rows.append({"mask": name, "nnz": acsr.nnz, "runs": acsr.runs.start.size,
                     "transpose": time.perf_counter() - begin})  # fmt: skip
        calls |= {(name, *key): call for key, call in contenders(acsr).items()}
        print("prepared", name, flush=True)
    times = in_turns(calls, rounds)
    for row in rows:
        for operator in OPERATORS:
            row[operator] = {one: min(times[row["mask"], operator, one]) for one in CONTENDERS}
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: times in ms, and ratios."""
    head = ("mask", "pairs", "operator", *("forward ms", "row by row ms", "SciPy ms"),
            *("vjp ms", "row by row ms", "SciPy ms"), "vjp / forward", "SciPy / splat", "the same, vjp")  # fmt: skip
    lines = []
    for row in rows:
        for operator in OPERATORS:
            found = row[operator]
            lines.append([
                row["mask"], f"{row['nnz']:,}", operator, *(f"{found[one] * 1e3:.1f}" for one in CONTENDERS),
                f"{found[OUR_VJP] / found[OURS]:.2f}", f"{found[SCIPY] / found[OURS]:.1f}x",
                f"{found[SCIPY_VJP] / found[OUR_VJP]:.1f}x",
            ])  # fmt: skip
    return markdown_table(head, lines)


def main() -> None:
    """Measure, print and write the results."""
    args = options(__doc__).parse_args()
    load = os.getloadavg()[0]
    found = {"load": load, "hardware": f"{hardware()}, scipy {metadata.version('scipy')}", "rows": measure(args.rounds)}
    once = ", ".join(f"{row['transpose'] * 1e3:.0f} ms for {row['mask']}" for row in found["rows"])
    text = "\n".join([
        f"# The packed operators on the CPU\n\n{found['hardware']}. Batch 1, heads {HEADS}, head_dim {HEAD_DIM}, "
        f"float32; the least of {args.rounds} interleaved rounds of {CALLS} calls, one process (the machine's load "
        f"average before it: {load:.1f}). SciPy has one thread, we have all cores; what it has no operation for is "
        "NumPy's.",
        made_by(__file__),
        table(found["rows"]),
        f"\nOnce a mask, before its first vjp, its transpose and the places of its pairs (8 bytes each): {once}.\n",
    ])  # fmt: skip
    save(args.output, "cpu_packed", found, text)
    print(text)


if __name__ == "__main__":
    main()
