"""sddmm, softmax and spmm on a GPU, and attention made of them, beside sparse libraries, dense products and Triton.

    python benchmarks/gpu_operators.py                # SPLAT's setting: writes JSON, Markdown, a figure
    python benchmarks/gpu_operators.py --seq 1024 --kept 0.5 --dtypes float16 --output /tmp/operators
    python benchmarks/gpu_operators.py --short --seconds 160    # every mask, share and length, but not of each all

SPLAT's setting: batch 32, 12 heads x 64, 1024 to 4096 tokens, windowed, blocked, strided and causal masks that keep 10
to 50 % of the pairs; a graph besides. Where memory would not hold a dense array of scores six times over, the batch is
smaller, which every row says. Times are as in gpu_timing.py, everybody in turns: by CUDA events, the cache overwritten
before each call, and by graph replay; the smaller is reported. Every result is compared with float64 in the same run.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from gpu_operators_masks import DIM, HEADS, MASKS, SHORT, Case, Setting, acsr_of
from gpu_operators_peers import OPERATORS, Contender, Prepared, wanted
from gpu_operators_report import plot, report, shown
from gpu_timing import Budget, Call, copy_gbs, describe, measure_all, product_tflops
from results_files import RESULTS as FOLDER
from results_files import save

TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 6e-2}  # of the largest number of a result
SHARE_OF_MEMORY = 0.7  # of the GPU's, for the dense arrays below
DENSE_ARRAYS = 6  # of scores that are there at once: dense weights, blocks of both sizes, columns of CSR, a result
RESULTS = FOLDER / "gpu_operators"


def checked(prepared: Iterator[Prepared], one: Setting, right: torch.Tensor, most: float) -> tuple[Any, ...]:
    """(calls of contenders whose result is right, the errors of the others, the largest error of each)."""
    calls: dict[str, Call] = {}
    failed: dict[str, dict[str, Any]] = {}
    errors: dict[str, float] = {}
    for name, prepare in prepared:
        try:
            errors[name] = error = _error(prepared_call := prepare(), one, right)
        except Exception as found:  # noqa: BLE001 - whatever a contender raises is its result
            failed[name] = {"error": describe(found)}
            continue
        if error <= most:
            calls[name] = prepared_call.call
        else:
            failed[name] = {"error": f"result wanted within {most} of the largest number, got {error:.2g}"}
    return calls, failed, errors


def _error(contender: Contender, one: Setting, right: torch.Tensor) -> float:
    """Of the heads that are checked, the largest difference, in units of the largest number; NaN counts as inf."""
    got = contender.picked(contender.call(0), one.checked).double()
    off = float((got - right).abs().max() / right.abs().max())
    return off if off == off else float("inf")  # noqa: PLR0124 - NaN


def work(operator: str, acsr: Any, heads: int, itemsize: int) -> tuple[int, int]:
    """(bytes, operations) that the operator cannot do without: every array once, every kept pair's product."""
    pairs, tokens = acsr.nnz * heads, acsr.shape[0] * heads * DIM
    numbers = {
        "sddmm": pairs + 2 * tokens, "softmax": 2 * pairs, "spmm": pairs + 2 * tokens, "attention": 4 * tokens,
    }[operator]  # fmt: skip
    products = {"sddmm": 1, "softmax": 0, "spmm": 1, "attention": 2}[operator]
    return numbers * itemsize, 2 * products * pairs * DIM


def fitting_batch(n: int, dtype: str, batch: int) -> int:
    """The largest power of two, at most ``batch``, whose dense arrays memory holds."""
    memory = torch.cuda.get_device_properties(0).total_memory * SHARE_OF_MEMORY
    itemsize = getattr(torch, dtype).itemsize
    while batch > 1 and batch * HEADS * n * n * itemsize * DENSE_ARRAYS > memory:
        batch //= 2
    return batch


def cases_of(args: argparse.Namespace) -> list[Case]:
    """By dtype, length, mask and share; of a graph one share; or the short list, most telling first."""
    if args.short:
        return [case for case in SHORT if case.dtype in args.dtypes and case.mask in args.masks]
    return [
        Case(name, n, dtype, kept, fitting_batch(n, dtype, args.batch))
        for dtype in args.dtypes for n in args.seq for name in args.masks
        for kept in (args.kept if name != "graph" else args.kept[:1])
    ]  # fmt: skip


def measured(args: argparse.Namespace, ceilings: Mapping[str, float], left_out: list[str]) -> Iterator[dict[str, Any]]:
    """A row for each case and operator; into left_out the cases that began after ``seconds``, which have none."""
    end = time.monotonic() + args.seconds
    for case in cases_of(args):
        if time.monotonic() > end:
            left_out.append(str(case))
            continue
        one = Setting.of(acsr_of(case.mask, case.seq, case.kept), case.batch, case.dtype)
        about = {
            "mask": case.mask, "seq": case.seq, "dtype": case.dtype, "batch": case.batch, "wanted_kept": case.kept,
            "kept": one.acsr.nnz / case.seq**2,
        }  # fmt: skip
        for operator in args.operators:
            budget = Budget(args.warmup, args.rep, args.rounds)
            yield about | _measured(operator, one, case.dtype, ceilings, budget, args.skip)
        del one


def _measured(
    operator: str, one: Setting, dtype: str, ceilings: Mapping[str, float], budget: Budget, skipped: list[str]
) -> dict[str, Any]:  # fmt: skip
    """One row: times, errors, and the least time that bytes and operations allow."""
    asked = ((name, prepare) for name, prepare in OPERATORS[operator](one) if name not in skipped)
    calls, failed, errors = checked(asked, one, wanted(operator, one), TOLERANCE[dtype])
    moved, operations = work(operator, one.acsr, one.heads, one.q.itemsize)
    floor = max(moved / ceilings["gbs"] * 1e-6, operations / ceilings[dtype] * 1e-9)
    times = measure_all(calls, 1, budget) | failed
    del calls
    gc.collect()
    torch.cuda.empty_cache()
    return {
        "operator": operator, "floor_ms": floor, "bytes": moved, "operations": operations, "times": times,
        "checked_error": errors,
    }  # fmt: skip


def measured_ceilings(args: argparse.Namespace) -> dict[str, float]:
    """gbs of a copy; TFLOP/s of a large product of each dtype."""
    budget = Budget(args.warmup, args.rep, 1)
    return {"gbs": copy_gbs(budget)} | {dtype: product_tflops(getattr(torch, dtype), budget) for dtype in args.dtypes}


def parsed(argv: list[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", nargs="+", choices=MASKS, default=list(MASKS))
    parser.add_argument("--kept", nargs="+", type=float, default=[0.1, 0.25, 0.5], help="shares of pairs")
    parser.add_argument("--seq", nargs="+", type=int, default=[1024, 2048, 4096])
    parser.add_argument("--dtypes", nargs="+", choices=TOLERANCE, default=["float32", "float16"])
    parser.add_argument("--operators", nargs="+", choices=OPERATORS, default=list(OPERATORS))
    parser.add_argument("--batch", type=int, default=32, help="at most; smaller where memory ends")
    parser.add_argument("--short", action="store_true", help="a list of cases in place of all of seq, kept and batch")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="after which no case is begun")
    parser.add_argument("--skip", nargs="+", default=[], metavar="NAME", help="contenders that are not asked")
    parser.add_argument("--warmup", type=int, default=10, help="milliseconds before measuring")
    parser.add_argument("--rep", type=int, default=40, help="milliseconds of measuring for a median")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS, help="path of .json, .md and .png, without the ending")
    return parser.parse_args(argv)


def write(found: dict[str, Any], output: Path) -> None:
    """All numbers, the tables, the figure."""
    save(output.parent, output.name, found, report(found))
    plot(found, output.with_suffix(".png"))


def main() -> None:
    """Measure, print, and write; after every row, so that a run that is cut off leaves what it has."""
    args = parsed(sys.argv[1:])
    torch.backends.cuda.matmul.allow_tf32 = False
    ceilings = measured_ceilings(args)
    found: dict[str, Any] = {
        "hardware": f"{torch.cuda.get_device_name()}; torch {torch.__version__}", "ceilings": ceilings,
        "date": datetime.now(UTC).date().isoformat(), "arguments": " ".join(sys.argv[1:]), "rows": [],
        "left_out": [],
    }  # fmt: skip
    print(found["hardware"], {name: round(value, 1) for name, value in ceilings.items()}, flush=True)
    every: list[dict[str, Any]] = found["rows"]
    keep: Callable[[], Any] = lambda: args.output.with_suffix(".json").write_text(json.dumps(found) + "\n")  # noqa: E731
    args.output.parent.mkdir(parents=True, exist_ok=True)
    for row in measured(args, ceilings, found["left_out"]):
        every.append(row)
        print(shown(row), flush=True)
        keep()
    write(found, args.output)


if __name__ == "__main__":
    main()
