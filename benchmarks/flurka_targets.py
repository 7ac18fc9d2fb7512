"""flurka_numba's targets beside each other and beside torch.compile of the same formula, forward and gradients.

    python benchmarks/flurka_targets.py --shapes 1x65536 --seconds 90 --json flurka_targets.json

bfloat16, one process, milliseconds: medians of replayed CUDA graphs. Kernels are compiled by several processes first.
Gradients are the way back alone, from dout to those of every array. torch's formulas come last, as far as the seconds
reach, since compiling them takes most of the time. Errors are relative ones of Frobenius norms beside float32, of the
gradients the largest of those of q, k and v; favor has none here.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from flurka_gpu_build import Job, compile_one, problem_of
from flurka_gpu_peers import compiled
from flurka_gpu_workload import Size, Workload, attend, slots
from gpu_timing import Budget, describe, event_ms, graph_ms
from torch.nn.functional import scaled_dot_product_attention

import flurka_numba
from flurka_numba.gpu.forward import forward_recording
from flurka_numba.gpu.gradient_schedules import Gradients
from flurka_numba.problem import Problem
from splat_numba.errors import SplatError
from splat_numba.gen.plans.machine import Gpu, gpu_of
from splat_numba.gen.schedules.tensor import Tensor, contiguous, side_by_side

HEADS = 2  # that are compared with float32
METHODS = ("kernel", "flurka", "low_rank", "favor")  # favor: FLuRKA by it
TARGETS = ("sm80", "sm_90a", "simt")
ROWS = 64  # of omega
BUDGET = Budget(10, 30, 1)
FUNCTIONS = {
    "kernel": (flurka_numba.kernel_attention, flurka_numba.kernel_attention_vjp),
    "flurka": (flurka_numba.attention, flurka_numba.attention_vjp),
    "low_rank": (flurka_numba.low_rank_attention, flurka_numba.low_rank_attention_vjp),
    "favor": (flurka_numba.attention, flurka_numba.attention_vjp),
}


def size_of(batch: int, seq: int, method: str, heads: int) -> Size:
    """A shape with the method's feature map."""
    random = method == "favor"
    return Size(batch, seq, 256, "favor" if random else "elu", heads, features=ROWS if random else 0)


@cache
def jobs_of(size: Size, method: str, gpu: Gpu, target: str) -> tuple[Job, ...]:
    """Every kernel of a problem by a target, once; none where it does not take it."""
    recordings = _recordings(problem_of(size, "flurka" if method == "favor" else method), gpu, target)
    texts = dict.fromkeys(step.text for recording in recordings for step in recording.schedule.steps)
    return tuple((text.name, text.render(), text.entry) for text in texts)


def _recordings(problem: Problem, gpu: Gpu, target: str) -> list[Any]:
    given = {name: _tensor(problem, name) for name in problem.differentiated}
    found = [forward_recording(problem, gpu, given, frozenset(), {}, target)]
    gradients = Gradients(problem, gpu, given, {}, target, views=True)
    out = _tensor(problem, "q")
    with contextlib.suppress(SplatError, TypeError, ValueError):  # Hopper's stages have not every gradient
        found += [gradients.forward(frozenset()), gradients.backward(out, frozenset(), frozenset())[0]]
    return found


def _tensor(problem: Problem, name: str) -> Tensor:
    if name.startswith("proj"):
        sizes = (1, 1, problem.rank, problem.seq_kv)
        return Tensor(sizes, contiguous(sizes, sizes[3]), problem.dtype, name)
    sizes = (problem.batch, problem.heads, problem.seq_q, problem.head_dim)
    return Tensor(sizes, side_by_side(sizes), problem.dtype, name)


def measure(call: Callable[[], torch.Tensor]) -> float | str:
    """Milliseconds, or what was raised."""
    try:
        estimate = event_ms(lambda _: call(), 1, BUDGET)
        try:
            return min(graph_ms(lambda _: call(), 1, estimate, BUDGET), estimate)
        except RuntimeError:
            return estimate
    except Exception as error:  # noqa: BLE001 - whatever a contender raises is its result
        return describe(error)[:60]


def ours(workload: Workload, method: str, target: str) -> dict[str, Any]:
    """Forward and the way back, and how far both are from float32 formulas of torch."""
    forward, with_vjp = FUNCTIONS[method]
    q, k, v = workload.tokens[0]
    arrays = (q, k, v) if method == "kernel" else (q, k, v, workload.proj_k, workload.proj_v)
    options: dict[str, Any] = {"target": target}
    if method == "favor":
        options |= {"feature_map": "favor", "omega": workload.omega}
    found: dict[str, Any] = {"forward": measure(lambda: forward(*arrays, **options))}
    if method != "favor":
        found["forward error"] = distance([forward(*arrays, **options)], wanted(workload, method)[:1])
    try:
        _, pull = with_vjp(*arrays, **options)
    except SplatError as error:
        return found | {"gradients": describe(error)[:60]}
    found["gradients"] = measure(lambda: pull(v)[0])
    if method != "favor":
        found["gradients error"] = distance(pull(v)[:3], wanted(workload, method)[1:])
    return found


def wanted(workload: Workload, method: str) -> list[torch.Tensor]:
    """The result and gradients of q, k, v of the first HEADS heads, by the formula in float32; v is dout as well."""
    q, k, v = (one[:, :HEADS].float().requires_grad_() for one in workload.tokens[0])
    with torch.enable_grad():
        out = attend(method, q, k, v, workload)
        return [out.detach(), *torch.autograd.grad(out, (q, k, v), v.detach())]


def distance(found: Sequence[torch.Tensor], right: Sequence[torch.Tensor]) -> float:
    """The largest relative error, of Frobenius norms."""
    pairs = zip(found, right, strict=True)
    return max(float((one[:, :HEADS].float() - other).norm() / other.norm()) for one, other in pairs)


def torchs(workload: Workload, method: str) -> dict[str, Any]:
    """The formula by torch.compile; its way back by autograd, which keeps what forward left."""
    if method == "favor":
        return {}

    def formula(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if method == "low_rank":
            return scaled_dot_product_attention(q, slots(workload.proj_k, k), slots(workload.proj_v, v))
        return attend(method, q, k, v, workload)

    function, tokens = compiled(formula), workload.tokens[0]
    found: dict[str, Any] = {"forward": measure(lambda: function(*tokens))}
    leaves = [one.detach().clone().requires_grad_() for one in tokens]
    with torch.enable_grad():
        out = function(*leaves)
    return found | {"gradients": measure(lambda: torch.autograd.grad(out, leaves, tokens[2], retain_graph=True)[0])}


def shown(one: float | str | None) -> str:
    """A number of the table."""
    return f"{one:.3g}" if isinstance(one, float) else one or ""


def main() -> None:
    """Compile, measure, print each as it comes, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="after which no contender begins")
    parser.add_argument("--shapes", nargs="+", default=["1x65536", "4x8192"], metavar="BATCHxSEQ")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--processes", type=int, default=12)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    begin, rows = time.perf_counter(), []
    torch.set_grad_enabled(False)
    torch.backends.cuda.matmul.allow_tf32 = False
    gpu = gpu_of(torch.cuda.get_device_capability(), torch.cuda.get_device_properties(0).multi_processor_count)
    shapes = [tuple(map(int, one.split("x"))) for one in args.shapes]
    sizes = [(method, size_of(*shape, method, args.heads)) for shape in shapes for method in args.methods]
    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        submit = cache(lambda job: pool.apply_async(compile_one, (job,)))  # a text of several calls once
        compiling = [
            (who, method, size, [submit(job) for job in jobs_of(size, method, gpu, who)])
            for who in TARGETS
            for method, size in sizes
        ]
        print("| shape | method | target | forward | error | gradients | error | second |", flush=True)
        compiling += [("torch", *one, []) for one in sizes]
        for who, method, size, jobs in compiling:
            for job in jobs:
                job.get()
            if time.perf_counter() - begin > args.seconds:
                break
            torch._dynamo.reset()  # noqa: SLF001 - no problem meets another's recompilations
            workload = Workload.draw(size, "cuda", size.seq, layer=False)
            try:
                row = torchs(workload, method) if who == "torch" else ours(workload, method, who)
            except Exception as error:  # noqa: BLE001 - whatever a contender raises is its result
                row = {"forward": describe(error)[:60]}
            rows.append({"shape": str(size), "method": method, "target": who, **row})
            names = "shape", "method", "target", "forward", "forward error", "gradients", "gradients error"
            cells = [*(shown(rows[-1].get(name)) for name in names), f"{time.perf_counter() - begin:.0f}"]
            print("| " + " | ".join(cells) + " |", flush=True)
        pool.terminate()
    if args.json:
        name = torch.cuda.get_device_name()
        args.json.write_text(json.dumps({"gpu": name, "heads": args.heads, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
