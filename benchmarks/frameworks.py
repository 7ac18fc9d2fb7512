"""What PyTorch adds to a call, and a training step of one attention, beside SDPA and FlexAttention.

    python benchmarks/frameworks.py            # writes benchmarks/results/frameworks.{json,md}

Host time: one head, 16 tokens, head_dim 16, float32, one thread, so that the kernel is next to nothing; the least
and the median of rounds in which all ways take turns. Training step: forward and backward of window(512, 0) at n 8192,
heads 2, head_dim 64 and 128, float32, all cores, medians; SDPA with the mask as a bool array. FlexAttention has no
backward on CPUs in PyTorch 2.13, so its column is its compiled forward, and ours beside it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch
from cpu_attention import hardware
from results_files import options, save
from tables import host_table, steps_table

import splat_numba as splat
from splat_numba.bridges.torch.autograd import whole
from splat_numba.executors.cpu.executor import CPU
from splat_numba.executors.executor import BackwardCall
from splat_numba.executors.given import Given

Calls = Mapping[str, Callable[[], Any]]
TINY, LONG = splat.window(4), splat.window(512, 0)


def host_calls() -> tuple[Calls, Calls]:
    """The ways of a forward call, and those of forward and backward, by name."""
    q, k, v, dout = (torch.randn(1, 1, 16, 16) for _ in range(4))
    leaves = [one.clone().requires_grad_() for one in (q, k, v)]
    recipe = Given(TINY, CPU, "bhsd", None)
    options = repr(TINY), None, "bhsd", None, "auto", None, False
    compiled = torch.compile(lambda q, k, v: splat.attention(q, k, v, TINY), fullgraph=True)
    trivial = torch.compile(lambda q, k, v: q + k + v, fullgraph=True)
    sdpa = torch.nn.functional.scaled_dot_product_attention

    def bare() -> Any:
        out, lse = CPU.attend(recipe, q, k, v, None, None, True)
        return CPU.backward(recipe, BackwardCall(dout, q, k, v, out, lse, None, None, frozenset()))

    def slopes(run: Callable[..., Any]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(run(*leaves), leaves, dout)

    forward = {
        "the executor alone": lambda: CPU.attend(recipe, q, k, v, None, None, False),
        "attention": lambda: splat.attention(q, k, v, TINY),
        "torch.ops.splat_numba.attention": lambda: torch.ops.splat_numba.attention(q, k, v, *options),
        "compiled": lambda: compiled(q, k, v),
        "compiled q + k + v": lambda: trivial(q, k, v),
        "SDPA": lambda: sdpa(q, k, v),
    }
    both = {
        "the executor alone": bare,
        "attention": slopes(lambda *given: splat.attention(*given, TINY)),
        "the way of traces": slopes(lambda *given: whole(*given, *options)[0]),
        "compiled": slopes(compiled),
        "compiled q + k + v": slopes(trivial),
        "SDPA": slopes(sdpa),
    }
    return forward, both


def in_turns(calls: Calls, rounds: int, times: int) -> dict[str, list[float]]:
    """Microseconds of a call, [least, median] of rounds."""
    for call in calls.values():
        for _ in range(3):
            call()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            for _ in range(times):
                call()
            found[name].append((time.perf_counter() - begin) / times * 1e6)
    return {name: [min(all_), median(all_)] for name, all_ in found.items()}


def step_calls(head_dim: int, seq: int, heads: int) -> Calls:
    """Training steps, and compiled forwards, by name."""
    from torch.nn.attention.flex_attention import flex_attention

    from splat_numba.integrations.torch import to_block_mask

    given = [torch.randn(1, heads, seq, head_dim, requires_grad=True) for _ in range(3)]
    plain, dout = [one.detach() for one in given], torch.randn(1, heads, seq, head_dim)
    dense = torch.from_numpy(splat.ACSR.from_pattern(LONG, seq, seq).to_dense())
    blocks = to_block_mask(LONG, seq, seq)
    flex = torch.compile(flex_attention)
    compiled = torch.compile(lambda q, k, v: splat.attention(q, k, v, LONG), fullgraph=True)
    sdpa = torch.nn.functional.scaled_dot_product_attention
    return {
        "attention": lambda: torch.autograd.grad(splat.attention(*given, LONG), given, dout),
        "attention, compiled": lambda: torch.autograd.grad(compiled(*given), given, dout),
        "SDPA, dense mask": lambda: torch.autograd.grad(sdpa(*given, attn_mask=dense), given, dout),
        "forward: attention, compiled": lambda: compiled(*plain),
        "forward: FlexAttention, compiled": lambda: flex(*plain, block_mask=blocks),
    }


def report(facts: dict[str, Any]) -> str:
    """The measured numbers as a page."""
    return "\n\n".join([
        "# PyTorch: host time and training steps",
        f"{facts['hardware']}; by benchmarks/frameworks.py, which says what is measured.",
        "Microseconds of the host, least (median):",
        host_table({"forward": facts["forward"], "forward + backward": facts["both"]}),
        f"window(512, 0), n {facts['seq']}, heads {facts['heads']}, milliseconds, median:",
        f"{steps_table(facts['steps'], 1)}\n",
    ])  # fmt: skip


def main() -> None:
    """Measure and write."""
    parser = options(__doc__, rounds=15)
    parser.add_argument("--seq", type=int, default=8192)
    parser.add_argument("--heads", type=int, default=2)
    args = parser.parse_args()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    os.environ["SPLAT_NUM_THREADS"] = "1"
    forward, both = (in_turns(calls, args.rounds, 200) for calls in host_calls())
    torch.set_num_threads(threads)
    del os.environ["SPLAT_NUM_THREADS"]
    steps = {str(dim): in_turns(step_calls(dim, args.seq, args.heads), 5, 1) for dim in (64, 128)}
    facts = {
        "hardware": hardware(), "torch": torch.__version__, "seq": args.seq, "heads": args.heads,
        "forward": forward, "both": both, "steps": steps,
    }  # fmt: skip
    save(args.output, "frameworks", facts, report(facts))
    print(report(facts))


if __name__ == "__main__":
    main()
