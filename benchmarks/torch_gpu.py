"""Attention inside PyTorch on a GPU: what each way in costs the host, and steps of one layer beside peers.

    python benchmarks/torch_gpu.py            # writes benchmarks/results/torch_gpu.{json,md}

Host: one head, 256 tokens, head_dim 64, bfloat16, window(64), so that the GPU is never waited for; the least and the
median of rounds in which all ways take turns. Steps: window(512, 0) over n 8192, batch 1, 16 heads, bfloat16, forward
and the gradients of q, k and v; so many calls are given to the GPU one after the other and waited for once; medians of
rounds in turns. FlexAttention and ours compiled by torch.compile; SDPA has the mask as a bool array. "As a graph" is
mode="reduce-overhead", CUDA graphs. "Elsewhere" has an input at an address that no call had before. "On one thread" is
within torch.autograd.set_multithreading_enabled(False): else the backward pass of a GPU runs on a thread of autograd's.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch
from gpu_attention import hardware
from results_files import options, save
from tables import host_table, steps_table
from torch_floor import Bare, nothing

import splat_numba as splat

TINY, LONG = splat.window(64), splat.window(512, 0)
HEADS, SEQ, DIMS = 16, 8192, (64, 128)
CALLS = 20  # given to the GPU at once
PARTS = ("host", "steps")
Calls = Mapping[str, Callable[[], Any]]
SDPA = torch.nn.functional.scaled_dot_product_attention


def drawn(*shape: int) -> list[torch.Tensor]:
    """q, k, v and a gradient of out."""
    return [torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(4)]


def slopes(run: Callable[..., Any], leaves: list[torch.Tensor], dout: torch.Tensor) -> Callable[[], Any]:
    """A call with the gradients of the leaves."""
    return lambda: torch.autograd.grad(run(*leaves), leaves, dout)


def on_one_thread(call: Callable[[], Any]) -> Callable[[], Any]:
    """The call with its backward pass on the thread that asks for it."""

    def run() -> Any:
        with torch.autograd.set_multithreading_enabled(False):
            return call()

    return run


def as_graph(mask: Any) -> Callable[..., Any]:
    """Attention compiled into a CUDA graph."""
    run = torch.compile(lambda q, k, v: splat.attention(q, k, v, mask), fullgraph=True, mode="reduce-overhead")

    def call(q: Any, k: Any, v: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        return run(q, k, v)

    return call


def elsewhere(k: Any, v: Any) -> Callable[[], Any]:
    """A forward call whose q is another part of a large array each time."""
    room = torch.randn(1 << 26, device="cuda", dtype=torch.bfloat16)
    starts = itertools.count(0, 64)

    def call() -> Any:
        start = next(starts)
        return splat.attention(room[start : start + k.numel()].view(k.shape), k, v, TINY)

    return call


def host_calls() -> tuple[Calls, Calls]:
    """The ways of a forward call, and those of forward and backward, by name."""
    *plain, dout = drawn(1, 1, 256, 64)
    leaves = [one.clone().requires_grad_() for one in plain]
    compiled = torch.compile(lambda q, k, v: splat.attention(q, k, v, TINY), fullgraph=True)

    def ours(q: Any, k: Any, v: Any) -> Any:
        return splat.attention(q, k, v, TINY)

    def without_autograd() -> Any:
        out, lse = splat.attention(*plain, TINY, return_lse=True)
        return splat.attention_backward(dout, *plain, out, lse, TINY)

    def replayed(call: Callable[[], Any]) -> Callable[[], Any]:
        call()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        return graph.replay

    ways = {
        "attention": ours, "attention, compiled": compiled, "attention, compiled as a graph": as_graph(TINY),
        "an operator that does nothing, compiled": torch.compile(nothing, fullgraph=True),
        "q + k + v, compiled": torch.compile(lambda q, k, v: q + k + v, fullgraph=True), "SDPA": SDPA,
    }  # fmt: skip
    forward = {name: lambda run=run: run(*plain) for name, run in ways.items()}
    forward |= {"attention, recorded": lambda: ours(*leaves), "attention, elsewhere": elsewhere(*plain[1:])}
    both = {name: slopes(run, leaves, dout) for name, run in ways.items()}
    both |= {"a Function that does nothing": slopes(Bare.apply, leaves, dout)}
    graph = "attention, compiled as a graph"  # which PyTorch ties to the threads that it was made on
    both |= {f"{name}, on one thread": on_one_thread(call) for name, call in both.items() if name != graph}
    both |= {
        "without autograd": without_autograd,
        "without autograd, captured": replayed(without_autograd),
    }
    return forward, both


def step_calls(dim: int) -> Calls:
    """Training steps by name."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    *given, dout = drawn(1, HEADS, SEQ, dim)
    leaves = [one.requires_grad_() for one in given]
    blocks = create_block_mask(lambda _b, _h, i, j: (i >= j) & (i - j <= 512), None, None, SEQ, SEQ, device="cuda")
    flex = torch.compile(flex_attention)
    dense = torch.from_numpy(splat.ACSR.from_pattern(LONG, SEQ, SEQ).to_dense()).cuda()
    compiled = torch.compile(lambda q, k, v: splat.attention(q, k, v, LONG), fullgraph=True)
    ways = {
        "attention": lambda q, k, v: splat.attention(q, k, v, LONG),
        "attention, compiled": compiled,
        "attention, compiled as a graph": as_graph(LONG),
        "FlexAttention, compiled": lambda q, k, v: flex(q, k, v, block_mask=blocks),
        "SDPA, dense mask": lambda q, k, v: SDPA(q, k, v, attn_mask=dense),
    }
    return {name: slopes(run, leaves, dout) for name, run in ways.items()}


def in_turns(calls: Calls, rounds: int, times: int, *, waited: bool) -> dict[str, list[float]]:
    """Microseconds of a call, [least, median] of rounds. waited: for the GPU, too."""
    for call in calls.values():
        for _ in range(10):
            call()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            torch.cuda.synchronize()
            begin = time.perf_counter()
            for _ in range(times):
                call()
            if waited:
                torch.cuda.synchronize()
            found[name].append((time.perf_counter() - begin) / times * 1e6)
    return {name: [min(all_), median(all_)] for name, all_ in found.items()}


def report(facts: dict[str, Any]) -> str:
    """The measured numbers as a page."""
    return "\n\n".join([
        "# PyTorch on a GPU: host time and training steps",
        f"{facts['hardware']}.",
        "By benchmarks/torch_gpu.py, which says what is measured. "
        f"Host microseconds, least (median), {facts['dates']['host']}:",
        host_table({"forward": facts["forward"], "forward + backward": facts["both"]}),
        f"window(512, 0), n {SEQ}, {HEADS} heads, bfloat16, milliseconds of a training step, median, "
        f"{facts['dates']['steps']}:",
        f"{steps_table(facts['steps'], 3)}\n",
    ])  # fmt: skip


def main() -> None:
    """Measure and write."""
    parser = options(__doc__, rounds=9)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="to measure; others stay as they are")
    parser.add_argument("--date", default="", help="written into the results")
    args = parser.parse_args()
    facts = {} if set(args.parts) == set(PARTS) else json.loads((args.output / "torch_gpu.json").read_text("utf-8"))
    facts |= {"hardware": hardware(), "dates": facts.get("dates", {}) | dict.fromkeys(args.parts, args.date)}
    if "host" in args.parts:
        forward, both = (in_turns(calls, args.rounds, 100, waited=False) for calls in host_calls())
        facts |= {"forward": forward, "both": both}
    if "steps" in args.parts:
        facts["steps"] = {str(dim): in_turns(step_calls(dim), args.rounds, CALLS, waited=True) for dim in DIMS}
    save(args.output, "torch_gpu", facts, report(facts))
    print(report(facts))


if __name__ == "__main__":
    main()
