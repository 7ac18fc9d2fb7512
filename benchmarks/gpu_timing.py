"""Times on a GPU: CUDA events, CUDA-graph replays, the host's share, and the machine's two ceilings."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from statistics import median
from typing import Any

import torch
from results_files import options

Call = Callable[[int], torch.Tensor]  # number of the set of inputs -> the result

GRAPH_MS = 3.0  # of work in one captured graph: replaying it then costs next to nothing
LAUNCHES = 256  # in one captured graph at most
HOST_CALLS = 100  # without waiting: far below the 1024 launches that the driver queues


@dataclass(frozen=True, slots=True)
class Budget:
    """Milliseconds of warm-up and of measuring for one median, and how often everybody takes turns."""

    warmup: int = 25
    rep: int = 100
    rounds: int = 2

    @classmethod
    def of(cls, args: argparse.Namespace) -> Budget:
        """As the options of timed_options() say."""
        return cls(args.warmup, args.reps, args.rounds)


def timed_options(doc: str | None, usual: Budget) -> argparse.ArgumentParser:
    """The budget, where results go, and their date. doc: of the script."""
    parser = options(doc, usual.rounds)
    parser.add_argument("--reps", type=int, default=usual.rep, metavar="MS", help="of measuring for one median")
    parser.add_argument("--warmup", type=int, default=usual.warmup, metavar="MS")
    parser.add_argument("--date", default="", help="written into the results")
    return parser


def measure_all(calls: Mapping[str, Call], sets: int, budget: Budget) -> dict[str, dict[str, Any]]:
    """For each name event_ms, graph_ms (medians over the rounds), ms (the smaller), or errors. All take turns."""
    found: dict[str, dict[str, Any]] = {name: {"event_ms": [], "graph_ms": []} for name in calls}
    for _ in range(budget.rounds):
        for name, call in calls.items():
            _measure_once(found[name], call, sets, budget)
    return {name: _summary(row) for name, row in found.items()}


def _measure_once(row: dict[str, Any], call: Call, sets: int, budget: Budget) -> None:
    if "error" in row:
        return
    try:
        row["event_ms"].append(event_ms(call, sets, budget))
    except Exception as error:  # noqa: BLE001 - whatever a contender raises is its result
        row["error"] = describe(error)
        return
    if "graph_error" in row:
        return
    try:
        row["graph_ms"].append(graph_ms(call, sets, row["event_ms"][-1], budget))
    except Exception as error:  # noqa: BLE001 - as above; its time by events remains
        row["graph_error"] = describe(error)


def _summary(row: dict[str, Any]) -> dict[str, Any]:
    runs = {name: row[name] for name in ("event_ms", "graph_ms") if row[name]}
    medians = {name: median(times) for name, times in runs.items()}
    errors = {name: row[name] for name in ("error", "graph_error") if name in row}
    smallest = {} if "error" in row or not medians else {"ms": min(medians.values())}
    return {**smallest, **medians, "runs": runs, **errors}


def event_ms(call: Call, sets: int, budget: Budget) -> float:
    """Median by CUDA events, one call at a time, the L2 cache overwritten before each."""
    from triton.testing import do_bench

    number = count()
    return float(
        do_bench(lambda: call(next(number) % sets), warmup=budget.warmup, rep=budget.rep, return_mode="median")
    )


def graph_ms(call: Call, sets: int, estimate: float, budget: Budget) -> float:
    """Median time of a call in a replayed CUDA graph, the input sets in turn."""
    launches = max(sets, min(LAUNCHES, math.ceil(GRAPH_MS / max(estimate, 1e-3))))
    graph = capture(call, sets, launches)
    replays = max(5, min(50, round(budget.rep / max(estimate * launches, 1e-3))))
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(2 * replays)]
    for _ in range(2):
        graph.replay()
    for begin, end in zip(marks[::2], marks[1::2], strict=True):
        begin.record()
        graph.replay()
        end.record()
    torch.cuda.synchronize()
    return median(begin.elapsed_time(end) for begin, end in zip(marks[::2], marks[1::2], strict=True)) / launches


def capture(call: Call, sets: int, launches: int) -> torch.cuda.CUDAGraph:
    """A graph of launches. RuntimeError where a replay does not write the result: work that went elsewhere."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for index in range(sets):
            call(index)
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for launch in range(launches):
            result = call(launch % sets)
    result.fill_(math.nan)
    graph.replay()
    torch.cuda.synchronize()
    if bool(torch.isnan(result).any()):
        raise RuntimeError("graph: wanted the result written by a replay, got NaN left in it. Was the stream captured?")
    return graph


def host_us(call: Call, sets: int = 1, batches: int = 15) -> dict[str, float]:
    """Microseconds of a call: host_us until it returns, wall_us until its work is done too. Medians over batches."""
    returned, done = [], []
    for batch in range(batches + 2):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for index in range(HOST_CALLS):
            call(index % sets)
        middle = time.perf_counter()
        torch.cuda.synchronize()
        if batch >= 2:  # the first two warm up
            returned.append((middle - begin) / HOST_CALLS * 1e6)
            done.append((time.perf_counter() - begin) / HOST_CALLS * 1e6)
    return {"host_us": median(returned), "wall_us": median(done)}


def seconds(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns and its seconds, the GPU's work included."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    result = call()
    torch.cuda.synchronize()
    return result, time.perf_counter() - begin


def ceilings(budget: Budget) -> dict[str, float]:
    """tflops: of an 8192^3 product in bf16; gbs: of a copy on the device, bytes read and written."""
    return {"tflops": product_tflops(torch.bfloat16, budget), "gbs": copy_gbs(budget)}


def product_tflops(dtype: torch.dtype, budget: Budget) -> float:
    """TFLOP/s of an 8192^3 product; of float32 on the FMA units, unless PyTorch was told otherwise."""
    from triton.testing import do_bench

    a, b = (torch.randn(8192, 8192, device="cuda", dtype=dtype) for _ in range(2))
    product = do_bench(lambda: a @ b, warmup=budget.warmup, rep=2 * budget.rep, return_mode="median")
    return float(2 * 8192**3 / product * 1e-9)


def copy_gbs(budget: Budget) -> float:
    """GB/s of a copy of 1 GiB on the device, bytes read and written."""
    from triton.testing import do_bench

    source = torch.randn(2**28, device="cuda")
    target = torch.empty_like(source)
    copy = do_bench(lambda: target.copy_(source), warmup=budget.warmup, rep=2 * budget.rep, return_mode="median")
    return float(2 * source.nbytes / copy * 1e-6)


def describe(error: BaseException) -> str:
    """An exception on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:600]
