"""flurka_numba's targets beside each other and beside torch.compile of the same formula, forward and gradients.

    python benchmarks/flurka_targets.py --seconds 90 --json flurka_targets.json

bfloat16, one process, milliseconds: medians of replayed CUDA graphs. Kernels are compiled by several processes first.
Gradients are the way back alone, from dout to those of every array. torch's formulas come last, as far as the seconds
reach, since compiling them takes most of the time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
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

SHAPES = ((1, 65536), (4, 8192))
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


def jobs_of(size: Size, method: str, gpu: Gpu) -> Iterator[Job]:
    """Every kernel of a problem by every target that takes it."""
    problem = problem_of(size, "flurka" if method == "favor" else method)
    for target in TARGETS:
        try:
            recordings = _recordings(problem, gpu, target)
        except (SplatError, TypeError):  # a target without stages for it: the table says so
            continue
        for recording in recordings:
            for step in recording.schedule.launches:
                yield step.text.name, step.text.render(), step.text.entry


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


def compile_all(jobs: Iterator[Job], processes: int) -> str:
    """Compile what is not on disk yet."""
    begin, every = time.perf_counter(), {job[1:]: job for job in jobs}
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        cached = pool.map(compile_one, every.values(), chunksize=1)
    return f"{len(every)} kernels, {sum(cached)} on disk, {time.perf_counter() - begin:.0f} s"


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
    """Forward and the way back."""
    forward, with_vjp = FUNCTIONS[method]
    q, k, v = workload.tokens[0]
    arrays = (q, k, v) if method == "kernel" else (q, k, v, workload.proj_k, workload.proj_v)
    options: dict[str, Any] = {"target": target}
    if method == "favor":
        options |= {"feature_map": "favor", "omega": workload.omega}
    found: dict[str, Any] = {"forward": measure(lambda: forward(*arrays, **options))}
    try:
        _, pull = with_vjp(*arrays, **options)
    except SplatError as error:
        return found | {"gradients": describe(error)[:60]}
    return found | {"gradients": measure(lambda: pull(v)[0])}


def torchs(workload: Workload, method: str) -> dict[str, Any]:
    """The formula by torch.compile; its way back by autograd, which keeps what forward left."""
    names = workload.tokens[0]
    if method == "favor":
        return {}

    def formula(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if method == "low_rank":
            return scaled_dot_product_attention(q, slots(workload.proj_k, k), slots(workload.proj_v, v))
        return attend(method, q, k, v, workload)

    function = compiled(formula)
    found: dict[str, Any] = {"forward": measure(lambda: function(*names))}
    leaves = [one.detach().clone().requires_grad_() for one in names]
    try:
        with torch.enable_grad():
            out = function(*leaves)
        return found | {"gradients": measure(lambda: torch.autograd.grad(out, leaves, names[2], retain_graph=True)[0])}
    except Exception as error:  # noqa: BLE001 - as above
        return found | {"gradients": describe(error)[:60]}


def shown(number: float | str | None) -> str:
    """A cell of the table."""
    return "" if number is None else f"{number:.3f}" if isinstance(number, float) else "-"


def main() -> None:
    """Compile, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0, help="after which no contender begins")
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--processes", type=int, default=12)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    begin, torch_rows = time.perf_counter(), []
    torch.set_grad_enabled(False)
    gpu = gpu_of(torch.cuda.get_device_capability(), torch.cuda.get_device_properties(0).multi_processor_count)
    sizes = [(method, size_of(*shape, method, args.heads)) for shape in SHAPES for method in METHODS]
    print(
        compile_all((job for method, size in sizes for job in jobs_of(size, method, gpu)), args.processes), flush=True
    )
    rows: list[dict[str, Any]] = []
    for method, size in sizes:
        workload = Workload.draw(size, "cuda", size.seq, layer=False)
        row: dict[str, Any] = {"shape": str(size), "method": method}
        for target in TARGETS:
            if time.perf_counter() - begin < args.seconds:
                row[target] = ours(workload, method, target)
        rows.append(row)
        torch_rows.append((row, method, size))
    for row, method, size in torch_rows:
        if time.perf_counter() - begin < args.seconds:
            torch._dynamo.reset()  # noqa: SLF001 - no problem meets another's recompilations
            row["torch"] = torchs(Workload.draw(size, "cuda", size.seq, layer=False), method)
    who = (*TARGETS, "torch")
    print("| shape | method | pass | " + " | ".join(who) + " |")
    for row in rows:
        for which in ("forward", "gradients"):
            cells = [shown(row.get(one, {}).get(which)) for one in who]
            print(f"| {row['shape']} | {row['method']} | {which} | " + " | ".join(cells) + " |")
    if args.json:
        name = torch.cuda.get_device_name()
        args.json.write_text(json.dumps({"gpu": name, "heads": args.heads, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
