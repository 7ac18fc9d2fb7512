"""Attention on the CPU as one kernel and by the packed operators, in one process, in turns; and what the plan takes.

    python benchmarks/cpu_fused.py            # writes benchmarks/results/cpu_fused.{json,md}

Batch 1, heads 8, head_dim 64, float32, lse asked for. Of each way the least time counts, as in cpu_packed.py. Before
anything is timed the two results are compared.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import numpy as np
from cpu_attention import HEAD_DIM, HEADS, SEQ, hardware
from cpu_packed import random_graph
from results_files import made_by, options, save
from tables import markdown_table
from turns import CALLS, in_turns

import splat_numba as splat

WAYS = {"fused": True, "unfused": False}


def graph(nodes: int, neighbours: int) -> splat.ACSR:
    """Every node keeps some others, drawn."""
    rng = np.random.default_rng(0)
    columns = rng.integers(0, nodes, nodes * neighbours)
    pairs = np.unique(np.repeat(np.arange(nodes), neighbours) * nodes + columns)
    return splat.from_csr(np.searchsorted(pairs, np.arange(nodes + 1) * nodes), pairs % nodes, (nodes, nodes))


def masks() -> dict[str, splat.ACSR]:
    """Graphs of several densities, and patterns that have tables on a CPU."""
    patterns = {
        "bigbird(16), n 4096": splat.bigbird(16),
        "bigbird(64), n 4096": splat.bigbird(64),
        "neighborhood((64, 64), 13)": splat.neighborhood((64, 64), 13),
        "documents(200-1500 tokens)": splat.documents((700, 1500, 200, 900, 796)),
    }
    return {
        "a graph of 20,000 nodes, 17 pairs a row": random_graph(),
        **{f"a graph of 4,096 nodes, {count} pairs a row": graph(SEQ, count) for count in (16, 64, 256, 512, 1024)},
        "the same of 16 and window(32)": graph(SEQ, 16) | splat.window(32),
        **{name: splat.ACSR.from_pattern(one, SEQ, SEQ) for name, one in patterns.items()},
    }


def measure(rounds: int) -> list[dict[str, Any]]:
    """A row a mask: seconds of both ways, and the plan's choice."""
    rows: list[dict[str, Any]] = []
    calls: dict[tuple[str, str], partial[Any]] = {}
    for name, acsr in masks().items():
        seq = acsr.shape[0]
        rng = np.random.default_rng(0)
        q, k, v = (rng.standard_normal((1, HEADS, seq, HEAD_DIM), dtype=np.float32) for _ in range(3))

        def call(way: str, q: Any = q, k: Any = k, v: Any = v, acsr: splat.ACSR = acsr) -> Any:
            return splat.attention(q, k, v, acsr, fused=WAYS[way], return_lse=True)

        for one, other in zip(*map(call, WAYS), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        plan = splat.plan(acsr, seq_q=seq, seq_kv=seq, head_dim=HEAD_DIM, heads_q=HEADS, dtype="float32")
        calls |= {(name, way): partial(call, way) for way in WAYS}
        rows.append(
            {"mask": name, "nnz": acsr.nnz, "fill": plan.cost.fill, "plan": "fused" if plan.fused else "unfused"}
        )
        print("prepared", name, flush=True)
    times = in_turns(calls, rounds)
    return [{**row, **{way: min(times[row["mask"], way]) for way in WAYS}} for row in rows]


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    head = ("mask", "pairs", "fill of the tiles", "fused ms", "unfused ms", "fused / unfused", "the plan takes")
    lines = [
        [
            row["mask"], f"{row['nnz']:,}", f"{row['fill']:.1%}", *(f"{row[way] * 1e3:.1f}" for way in WAYS),
            f"{row['fused'] / row['unfused']:.2f}", row["plan"],
        ]
        for row in rows
    ]  # fmt: skip
    return markdown_table(head, lines)


def main() -> None:
    """Measure, print and write the results."""
    args = options(__doc__).parse_args()
    load = os.getloadavg()[0]
    found = {"load": load, "hardware": hardware(), "rows": measure(args.rounds)}
    text = "\n".join([
        f"# Attention on the CPU, fused and unfused\n\n{found['hardware']}. Batch 1, heads {HEADS}, head_dim "
        f"{HEAD_DIM}, float32; the least of {args.rounds} interleaved rounds of {CALLS} calls, one process (the "
        f"machine's load average before it: {load:.1f}).",
        made_by(__file__),
        f"{table(found['rows'])}\n",
    ])  # fmt: skip
    save(args.output, "cpu_fused", found, text)
    print(text)


if __name__ == "__main__":
    main()
