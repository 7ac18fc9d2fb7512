"""FLuRKA and its constituents beside compositions of NumPy's and torch's operators, in one process, interleaved.

    python benchmarks/flurka.py                   # writes benchmarks/results/flurka_cpu.{json,md}

Batch 1, heads 8, head_dim 64, float32, feature map elu, all cores. Every round visits each contender of each size, so
that a slow spell of the machine hits all of them, waits until the last one's idle threads have stopped spinning, calls
it once untimed and then three times; medians over all are reported, and ratios of medians of one run. First calls,
which compile, are not timed. `--backend cuda` runs benchmarks/flurka_gpu.py instead, with the other arguments.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from cpu_attention import hardware
from flurka_peers import Arrays, Call, by_numpy, by_torch, ours
from results_files import options, save
from rich.console import Console
from rich.table import Table
from tables import markdown_table
from turns import CALLS, in_turns

import flurka_numba as flurka

HEADS, HEAD_DIM = 8, 64
SEQS = (1024, 4096, 16384)
RANKS = (128, 256)
LARGEST_DENSE = (
    4096  # scores of 16,384 tokens would be 8 GiB in NumPy; torch's SDPA has no such limit, but takes seconds
)
METHODS = ("flurka", "low_rank", "kernel", "dense")

Key = tuple[int, int, str, str, str]  # seq, rank, "core" or "layer", method, contender


def contenders(seq: int, rank: int) -> Iterator[tuple[Key, Call]]:
    """All calls of one size."""
    arrays = Arrays.draw(HEADS, seq, HEAD_DIM, rank)
    for method in METHODS:
        if method in ("kernel", "dense") and rank != RANKS[0]:
            continue  # the rank is nothing to them
        calls: dict[str, Call | None] = {}
        if method != "dense":
            calls = {"ours": ours(method, arrays, train=False), "ours, training": ours(method, arrays, train=True)}
        if method != "dense" or seq <= LARGEST_DENSE:
            calls |= {"NumPy": by_numpy(method, arrays)}
        calls |= {
            "torch": by_torch(method, arrays, train=False),
            "torch, training": by_torch(method, arrays, train=True)
            if seq <= LARGEST_DENSE or method != "dense"
            else None,
        }
        yield from (((seq, rank, "core", method, name), call) for name, call in calls.items() if call)
    yield from (((seq, rank, "layer", "flurka", name), call) for name, call in layer_calls(seq, rank).items())


def layer_calls(seq: int, rank: int) -> dict[str, Call]:
    """FlurkaLayer in its own order (b), and the same layer in order (a)."""
    rng, width = np.random.default_rng(0), HEADS * HEAD_DIM
    x = rng.standard_normal((1, seq, width), dtype=np.float32)
    weights = [rng.standard_normal((width, width), dtype=np.float32) / np.float32(width**0.5) for _ in range(4)]
    proj = [rng.standard_normal((rank, seq), dtype=np.float32) / np.float32(seq**0.5) for _ in range(2)]
    layer = flurka.FlurkaLayer(*weights, *proj, heads=HEADS)

    def split(w: Any) -> Any:
        return (x @ w).reshape(1, seq, HEADS, HEAD_DIM).swapaxes(1, 2)

    def order_a() -> Any:
        out = flurka.attention(*(split(w) for w in weights[:3]), *proj)
        return out.swapaxes(1, 2).reshape(1, seq, width) @ weights[3]

    return {f"ours, order ({layer.order})": lambda: layer(x), "ours, order (a)": order_a}


def measure(seqs: tuple[int, ...], rounds: int) -> list[dict[str, Any]]:
    """A row a contender: its key, the median in seconds, and every time."""
    times: dict[Key, list[float]] = {}
    for seq in seqs:
        calls = dict(pair for rank in RANKS for pair in contenders(seq, rank))
        for call in calls.values():
            call()  # compiles
        times |= in_turns(calls, rounds)
        print("measured", seq, flush=True)
    names = ("seq", "rank", "kind", "method", "contender")
    return [dict(zip(names, key, strict=True)) | {"seconds": median(t), "runs": t} for key, t in times.items()]


def table_rows(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Cells: a row a size and method, forward and training, with ratios to ours."""
    found = {
        tuple(row[name] for name in ("seq", "rank", "kind", "method", "contender")): row["seconds"] for row in rows
    }
    cells = []
    for seq, rank, method in dict.fromkeys((key[0], key[1], key[3]) for key in found if key[2] == "core"):
        for kind, suffix in (("forward", ""), ("training", ", training")):
            times = [found.get((seq, rank, "core", method, name + suffix)) for name in ("ours", "NumPy", "torch")]
            if not any(times):
                continue
            mine = times[0] or found.get((seq, rank, "core", "flurka", f"ours{suffix}"))
            ratios = [f"{t / mine:.2f}" if t and mine else "" for t in times[1:]]
            shown = [f"{t * 1e3:.2f}" if t else "" for t in times]
            cells.append(
                [f"{seq}", f"{rank}" if method in ("flurka", "low_rank") else "", method, kind, *shown, *ratios]
            )
    return cells


HEADERS = ["n", "rank", "method", "", "ours ms", "NumPy ms", "torch ms", "NumPy / ours", "torch / ours"]


def layer_text(rows: list[dict[str, Any]]) -> list[str]:
    """A line a size: the layer in both orders."""
    lines = []
    for seq, rank in dict.fromkeys((row["seq"], row["rank"]) for row in rows):
        times = {
            r["contender"]: r["seconds"] * 1e3 for r in rows if (r["seq"], r["rank"], r["kind"]) == (seq, rank, "layer")
        }
        shown = ", ".join(f"{name.removeprefix('ours, ')} {ms:.2f} ms" for name, ms in times.items())
        lines.append(f"- Layer, n {seq}, rank {rank}, model_dim {HEADS * HEAD_DIM}: {shown}")
    return lines


def report(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        f"# FLuRKA on the CPU\n\n{found['hardware']}. Batch 1, heads {HEADS}, head_dim {HEAD_DIM}, float32, elu; "
        f"medians of {found['rounds']} interleaved rounds of {CALLS} calls. Load average when it "
        f"began: {found['load']:.1f}.",
        f"Made by `python benchmarks/{Path(__file__).name}`. torch's low_rank and dense are its fused SDPA; dense is "
        "set beside our FLuRKA of rank 128.\n",
        markdown_table(HEADERS, table_rows(found["rows"])),
        "",
        *layer_text(found["rows"]),
        "",
    ]
    return "\n".join(lines)


def show(rows: list[dict[str, Any]]) -> None:
    """The table in the terminal."""
    table = Table(*HEADERS, title="FLuRKA on the CPU")
    for cells in table_rows(rows):
        table.add_row(*cells)
    Console().print(table)


def main() -> None:
    """Measure, print and write the results."""
    parser = options(__doc__)
    parser.add_argument("--backend", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--seqs", type=int, nargs="+", default=SEQS)
    args, others = parser.parse_known_args()
    if args.backend == "cuda":
        script = Path(__file__).with_name("flurka_gpu.py")
        raise SystemExit(subprocess.run([sys.executable, script, *others], check=False).returncode)
    if others:
        parser.error(f"unknown arguments: {' '.join(others)}")
    load = os.getloadavg()[0]
    found = {
        "hardware": hardware(),
        "load": load,
        "rounds": args.rounds,
        "rows": measure(tuple(args.seqs), args.rounds),
    }
    show(found["rows"])
    save(args.output, "flurka_cpu", found, report(found))


if __name__ == "__main__":
    main()
