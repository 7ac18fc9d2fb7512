"""Attention on the CPU beside torch: SDPA (dense, masked) and FlexAttention, in one process, interleaved.

    python benchmarks/cpu_attention.py            # writes benchmarks/results/cpu_attention.{json,md}

Batch 1, heads 8, n 4096, head_dim 64, float32, all cores, torch 2.13.0 (needs a C++ compiler for FlexAttention). Every
round visits each contender of each pattern, so that a slow spell of the machine hits all of them, waits until the last
one's idle threads have stopped spinning, calls it once untimed and then three times; medians over all are reported, and
ratios of medians of one run. Random data, the same for all. Cold and warm first results and the long sequence are
whole processes.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from results_files import made_by, options, save
from tables import markdown_table
from turns import CALLS, in_turns

import splat_numba as splat
from splat_numba.cli.measure import Timed
from splat_numba.cli.peers import FLEX, MASKED, SDPA, find_peers
from splat_numba.runtime.device import cores
from splat_numba.testing.problem import Problem

HEADS, SEQ, HEAD_DIM = 8, 4096, 64
CAUSAL_SDPA = "SDPA is_causal"  # for causal() alone: what anyone would write there


def uneven_documents(total: int) -> Any:
    """Documents of 200 to 1500 tokens."""
    rng = np.random.default_rng(0)
    lengths: list[int] = []
    while sum(lengths) < total:
        lengths.append(int(min(rng.integers(200, 1501), total - sum(lengths))))
    return splat.documents(lengths)


# name -> (pattern, what issue and README ask of it)
CASES = {
    "full": (splat.full(), "<= 1.1 dense"),
    "causal": (splat.causal(), "<= 0.65 dense"),
    "window(128)": (splat.window(128), "<= 0.10 dense, 3x Flex"),
    "dilated(128, 4)": (splat.dilated(128, 4), "<= 1.3 window"),
    "strided(16)": (splat.strided(16), "<= 1.3 window, 20x Flex"),
    "longformer(256, 64)": (splat.longformer(256, 64), "<= 1.6 density"),
    "bigbird(64)": (splat.bigbird(64), "<= 1.6 density"),
    "sparse_transformer_strided(128)": (splat.sparse_transformer_strided(128), "<= 1.6 density"),
    "documents(200-1500 tokens)": (uneven_documents(SEQ), "<= 1.6 density"),
    "neighborhood((64, 64), 13)": (splat.neighborhood((64, 64), 13), ""),
}


def measure(rounds: int) -> list[dict[str, Any]]:
    """Medians in seconds: a row a case."""
    import torch

    torch.set_num_threads(cores())
    peers, notes = find_peers("float32")
    print(*notes, sep="\n")
    calls: dict[tuple[str, str], Callable[[], Any]] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name, (pattern, wanted) in CASES.items():
        problem = Problem(SEQ, SEQ, pattern, "float32", 1, HEADS, head_dim=HEAD_DIM)
        operands = problem.arrays()
        mask = splat.ACSR.from_pattern(pattern, SEQ, SEQ)
        rows[name] = {"pattern": name, "kept": mask.nnz, "density": mask.density, "wanted": wanted}
        begin = time.perf_counter()
        splat.attention(*operands, pattern)
        rows[name]["first_call"] = time.perf_counter() - begin
        calls[name, "splat"] = lambda operands=operands, pattern=pattern: splat.attention(*operands, pattern)
        for peer in (SDPA, MASKED, FLEX):
            prepared = peers[peer](splat.full() if peer == SDPA else pattern, mask, operands) if peer in peers else None
            if prepared:
                prepared.call()
                calls[name, peer] = prepared.call
                rows[name][f"{peer} compile"] = prepared.seconds
        if name == "causal" and SDPA in peers:
            calls[name, CAUSAL_SDPA] = peers[SDPA](pattern, mask, operands).call  # told by the pattern
        print("prepared", name, flush=True)
    for (name, contender), seconds in in_turns(calls, rounds).items():
        rows[name][contender] = median(seconds)
        rows[name][f"{contender} runs"] = seconds
    return list(rows.values())


FIRST_RESULT = """
import time; begin = time.perf_counter()
import numpy as np
import splat_numba as splat
rng = np.random.default_rng(0)
q, k, v = (rng.standard_normal((1, 8, 4096, 64), dtype=np.float32) for _ in range(3))
splat.attention(q, k, v, splat.window(128))
print(time.perf_counter() - begin)
"""
LONG = """
import resource, time
import numpy as np
import splat_numba as splat
rng = np.random.default_rng(0)
q, k, v = (rng.standard_normal((1, 8, 65536, 64), dtype=np.float32) for _ in range(3))
splat.attention(q[:, :, :512], k[:, :, :512], v[:, :, :512], splat.window(256))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
times = []
for _ in range(3):
    begin = time.perf_counter(); splat.attention(q, k, v, splat.window(256)); times.append(time.perf_counter() - begin)
print(sorted(times)[1], before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def run_process(script: str, cache: str) -> list[float]:
    """The numbers that a fresh process prints."""
    environment = {**os.environ, "SPLAT_CACHE_DIR": cache}
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True)
    return [float(word) for word in done.stdout.split()]


def processes(first: str, long: str) -> dict[str, float]:
    """Cold and warm first results (import, plan, compile, run), and n = 65,536. The scripts print seconds, and the
    second what memory was before and after, in KiB.
    """
    with tempfile.TemporaryDirectory() as cache:
        cold = run_process(first, cache)[0]
        warm = median(run_process(first, cache)[0] for _ in range(3))
        seconds, before, after = run_process(long, cache)
    return {"cold": cold, "warm": warm, "long_seconds": seconds, "long_extra_mib": (after - before) / 1024}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: times in ms, ratios to dense SDPA and FlexAttention."""
    head = ("pattern", "density", "splat ms", "SDPA dense ms", "SDPA masked ms", "Flex ms", "splat / dense",
            "/ density", "Flex / splat", "asked")  # fmt: skip
    lines = []
    for row in rows:
        ratio = row["splat"] / row[SDPA]
        cells = [f"{row[peer] * 1e3:.1f}" if peer in row else "" for peer in ("splat", SDPA, MASKED, FLEX)]
        flex = f"{row[FLEX] / row['splat']:.1f}" if FLEX in row else ""
        lines.append([
            row["pattern"], f"{row['density']:.2%}", *cells, f"{ratio:.3f}", f"{ratio / row['density']:.2f}", flex,
            row["wanted"],
        ])  # fmt: skip
    causal = [
        f"\n{row['pattern']}: {row[CAUSAL_SDPA] * 1e3:.1f} ms by SDPA with is_causal=True; splat / that: "
        f"{row['splat'] / row[CAUSAL_SDPA]:.3f}."
        for row in rows
        if CAUSAL_SDPA in row
    ]
    return "\n".join([markdown_table(head, lines), *causal])


def spread(rows: list[dict[str, Any]]) -> str:
    """How far apart the calls of a cell lie, in words."""
    cells = [row[f"{peer} runs"] for row in rows for peer in ("splat", SDPA, MASKED, FLEX) if f"{peer} runs" in row]
    shares = sorted(Timed.of(runs).spread for runs in cells)
    return (
        f"The middle half of a cell's {len(cells[0])} calls spans {shares[0]:.1%} to {shares[-1]:.1%} of the time, "
        f"{median(shares):.1%} in the median."
    )


def hardware(packages: tuple[str, ...] = ("numpy", "numba", "torch")) -> str:
    """Processor and versions."""
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        words = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("model name")[1]
        model = words.splitlines()[0].strip(" :\t")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    return f"{model}, {cores()} cores; Python {platform.python_version()}, {versions}"


def main() -> None:
    """Measure, print and write the results."""
    args = options(__doc__).parse_args()
    found = {"hardware": hardware(), "processes": processes(FIRST_RESULT, LONG), "rows": measure(args.rounds)}
    p = found["processes"]
    text = "\n".join([
        f"# Attention on the CPU\n\n{found['hardware']}. Batch 1, heads {HEADS}, n {SEQ}, head_dim {HEAD_DIM}, "
        f"float32; medians of {args.rounds} interleaved rounds of {CALLS} calls.",
        made_by(__file__),
        table(found["rows"]),
        f"\n{spread(found['rows'])}",
        f"\nFirst result (import, plan, compile, run): {p['cold']:.1f} s cold, {p['warm']:.2f} s warm. "
        f"n = 65,536, window(256), 8 heads: {p['long_seconds'] * 1e3:.0f} ms, "
        f"{p['long_extra_mib']:.0f} MiB above the inputs (the output is 128 MiB).\n",
    ])  # fmt: skip
    save(args.output, "cpu_attention", found, text)
    print(text)


if __name__ == "__main__":
    main()
