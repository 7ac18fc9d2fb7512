"""Gradients of sparse attention on the CPU beside torch's SDPA with autograd, in one process, interleaved.

    python benchmarks/cpu_gradients.py            # writes benchmarks/results/cpu_gradients.{json,md}

Batch 1, heads 8, n 4096, head_dim 64, float32, all cores, torch 2.13.0; the cases of cpu_attention.py. Forward and
backward together: ours by attention_vjp(), SDPA's by backward() of its result, with the mask as a bool array, and with
is_causal for causal(). Rounds, pauses and medians as in cpu_attention.py. Cold and warm first gradients, and the long
sequence, are whole processes.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from cpu_attention import CASES, HEAD_DIM, HEADS, SEQ, hardware, processes
from results_files import made_by, options, save
from tables import markdown_table
from turns import CALLS, in_turns

import splat_numba as splat
from splat_numba.runtime.device import cores
from splat_numba.testing.problem import Problem

FORWARD, BOTH, MASKED, CAUSAL = "forward", "forward + backward", "SDPA, masked", "SDPA, is_causal"
FIRST_GRADIENT = """
import time; begin = time.perf_counter()
import numpy as np
import splat_numba as splat
rng = np.random.default_rng(0)
q, k, v, dout = (rng.standard_normal((1, 8, 4096, 64), dtype=np.float32) for _ in range(4))
splat.attention_vjp(q, k, v, splat.window(128))[1](dout)
print(time.perf_counter() - begin)
"""
LONG = """
import resource, time
import numpy as np
import splat_numba as splat
rng = np.random.default_rng(0)
arrays = [rng.standard_normal((1, 8, 65536, 64), dtype=np.float32) for _ in range(4)]
q, k, v, dout = (x[:, :, :512] for x in arrays)
splat.attention_vjp(q, k, v, splat.window(256))[1](dout)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
q, k, v, dout = arrays
begin = time.perf_counter(); splat.attention_vjp(q, k, v, splat.window(256))[1](dout)
print(time.perf_counter() - begin, before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def contenders(name: str) -> dict[str, Any]:
    """What is timed for a case, by name."""
    import torch

    pattern, _ = CASES[name]
    problem = Problem(SEQ, SEQ, pattern, "float32", 1, HEADS, head_dim=HEAD_DIM)
    q, k, v = problem.arrays()
    dout, _ = problem.gradients()
    tensors = [torch.from_numpy(x).requires_grad_() for x in (q, k, v)]
    dense = torch.from_numpy(splat.ACSR.from_pattern(pattern, SEQ, SEQ).to_dense())
    wanted = torch.from_numpy(dout)

    def sdpa(**how: Any) -> None:
        for tensor in tensors:
            tensor.grad = None
        torch.nn.functional.scaled_dot_product_attention(*tensors, **how).backward(wanted)

    found = {
        FORWARD: lambda: splat.attention(q, k, v, pattern),
        BOTH: lambda: splat.attention_vjp(q, k, v, pattern)[1](dout),
        MASKED: lambda: sdpa(attn_mask=dense),
    }
    return {**found, CAUSAL: lambda: sdpa(is_causal=True)} if name == "causal" else found


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """Medians in seconds, by case and contender."""
    import torch

    torch.set_num_threads(cores())
    calls = {(name, one): call for name in CASES for one, call in contenders(name).items()}
    for call in calls.values():
        call()
    found: dict[str, dict[str, float]] = {name: {} for name in CASES}
    for (name, one), seconds in in_turns(calls, rounds).items():
        found[name][one] = median(seconds)
    return found


def table(rows: dict[str, dict[str, float]]) -> str:
    """Markdown: times in ms, and ratios."""
    head = ("pattern", "forward ms", "forward + backward ms", "SDPA, masked ms", "both / forward", "SDPA / splat")
    lines = [
        [
            name, *(f"{row[one] * 1e3:.1f}" for one in (FORWARD, BOTH, MASKED)), f"{row[BOTH] / row[FORWARD]:.2f}",
            f"{row[MASKED] / row[BOTH]:.1f}x",
        ]
        for name, row in rows.items()
    ]  # fmt: skip
    causal = rows["causal"]
    return (
        f"{markdown_table(head, lines)}\n\ncausal: SDPA with is_causal=True takes {causal[CAUSAL] * 1e3:.1f} ms, "
        f"{causal[CAUSAL] / causal[BOTH]:.2f} times as long as splat."
    )


def main() -> None:
    """Measure, print and write the results."""
    args = options(__doc__).parse_args()
    found = {"hardware": hardware(), "processes": processes(FIRST_GRADIENT, LONG), "rows": measure(args.rounds)}
    p = found["processes"]
    text = "\n".join([
        f"# Gradients on the CPU\n\n{found['hardware']}. Batch 1, heads {HEADS}, n {SEQ}, head_dim {HEAD_DIM}, "
        f"float32; medians of {args.rounds} interleaved rounds of {CALLS} calls, all in one process.",
        made_by(__file__),
        table(found["rows"]),
        "\nFirst gradient (import, plan, compile both directions, run; processes of their own): "
        f"{p['cold']:.1f} s cold, {p['warm']:.2f} s warm. "
        f"n = 65,536, window(256), 8 heads: {p['long_seconds'] * 1e3:.0f} ms, "
        f"{p['long_extra_mib']:.0f} MiB above the inputs (out, dq, dk and dv are 512).\n",
    ])  # fmt: skip
    save(args.output, "cpu_gradients", found, text)
    print(text)


if __name__ == "__main__":
    main()
