"""Both CUDA compilers' kernels beside each other on a GPU, by turns: a process for each compiler, one case at a time.

    python benchmarks/gpu_compilers.py [--rounds 3] [--cases PART ...] [--output FILE.json]

Kernels are compiled first, by several processes of each compiler; then each compiler's timing process times a case when
it is told to, as the median of a CUDA graph's replays. A row of the table is printed when its case is done.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

COMPILERS = ("numba-cuda", "mlir")
HELPERS = 6  # processes that compile for each compiler


def masks() -> dict[str, Any]:
    """Of attention, by name."""
    import splat_numba as splat

    return {
        "full": splat.full(), "window512": splat.window(512), "strided16": splat.strided(16),
        "longformer": splat.window(256) | splat.sinks(32),
    }  # fmt: skip


def attention_cases() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Forward and gradients on every target."""
    sizes = {"sm_90a": (2, 16, 8192), "sm80": (2, 16, 8192), "simt": (1, 8, 2048)}
    for target, shape in sizes.items():
        dtype = "float32" if target == "simt" else "bfloat16"
        for name, mask in masks().items() if target == "sm_90a" else [("window512", masks()["window512"])]:
            for dim in (64, 128):
                for backward in (False, True):
                    given = (target, mask, shape, dim, dtype, backward)
                    what = "gradients" if backward else "forward"
                    yield f"{target} {what} {name} {dim}", lambda given=given: attend(*given)


def attend(target: str, mask: Any, shape: tuple[int, ...], dim: int, dtype: str, backward: bool) -> Callable[[], Any]:
    """A call that gives out, or dq."""
    import splat_numba as splat

    q, k, v = (tensor((*shape, dim), dtype) for _ in range(3))
    if not backward:
        return lambda: splat.attention(q, k, v, mask, target=target)
    out, lse = splat.attention(q, k, v, mask, target=target, return_lse=True)
    return lambda: splat.attention_backward(out, q, k, v, out, lse, mask, target=target)[0]


def packed_cases() -> Iterator[tuple[str, Callable[[], Any]]]:
    """SPLAT's operators."""
    for dtype in ("float16", "float32"):
        for operator in ("sddmm", "softmax", "spmm"):
            yield f"{operator} {dtype}", lambda a=(operator, dtype): packed(*a)


def packed(operator: str, dtype: str) -> Callable[[], Any]:
    """An operator's call, window(512), 8 heads x 4096 x 64."""
    import splat_numba as splat

    acsr = splat.ACSR.from_pattern(splat.window(512), 4096, 4096)
    q, k, v = (tensor((1, 8, 4096, 64), dtype) for _ in range(3))
    values = splat.sddmm(q, k, acsr)
    if operator == "sddmm":
        return lambda: splat.sddmm(q, k, acsr)
    weights = splat.softmax(values, acsr)
    return (lambda: splat.softmax(values, acsr)) if operator == "softmax" else (lambda: splat.spmm(weights, v, acsr))


def flurka_cases() -> Iterator[tuple[str, Callable[[], Any]]]:
    """flurka_numba's, 4 x 16 heads x 8192 x 64."""
    for name in ("attention", "kernel_attention", "attention gradients"):
        yield f"flurka {name}", lambda name=name: flurka(name)


def flurka(name: str) -> Callable[[], Any]:
    """A call that gives out, or dq."""
    import flurka_numba

    q, k, v = (tensor((4, 16, 8192, 64), "bfloat16") for _ in range(3))
    proj = tensor((256, 8192), "bfloat16")
    if name == "kernel_attention":
        return lambda: flurka_numba.kernel_attention(q, k, v)
    if name == "attention":
        return lambda: flurka_numba.attention(q, k, v, proj)
    return lambda: flurka_numba.attention_vjp(q, k, v, proj)[1](q)[0]


def tensor(shape: tuple[int, ...], dtype: str) -> Any:
    """Normal numbers."""
    import torch

    return torch.randn(shape, device="cuda", dtype=getattr(torch, dtype))


def cases(parts: list[str]) -> list[tuple[str, Callable[[], Any]]]:
    """Those with a part in their name, all without parts."""
    every = [*attention_cases(), *packed_cases(), *flurka_cases()]
    return [one for one in every if not parts or any(part in one[0] for part in parts)]


def prepare(parts: list[str], share: int) -> None:
    """Compile and call each of a helper's cases."""
    import torch

    for name, make in cases(parts)[share::HELPERS]:
        try:
            make()()
            torch.cuda.synchronize()
        except Exception:  # noqa: BLE001 - the timing process says it
            sys.stderr.write(f"{name}: {traceback.format_exc()}")


def serve(parts: list[str]) -> None:
    """Time the case of every name that comes in, a line of JSON each; calls are made when first asked for."""
    import torch
    from gpu_timing import Budget, event_ms, graph_ms

    made: dict[str, Callable[[], Any]] = {}
    known, budget = dict(cases(parts)), Budget(5, 30, 1)
    for line in sys.stdin:
        name = line.strip()
        try:
            if name not in made:
                made[name] = known[name]()
            call = made[name]
            ms = graph_ms(lambda _, call=call: call(), 1, event_ms(lambda _, call=call: call(), 1, budget), budget)
            answer: dict[str, Any] = {"ms": ms}
        except Exception as error:  # noqa: BLE001 - what fails is the result
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
            torch.cuda.synchronize()
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def started(compiler: str, *arguments: str, **pipes: Any) -> subprocess.Popen[str]:
    """This file again, with another compiler."""
    environment = {**os.environ, "SPLAT_CUDA_COMPILER": compiler, "SPLAT_PROGRESS": "0"}
    return subprocess.Popen([sys.executable, __file__, *arguments], env=environment, text=True, **pipes)


def compare(parts: list[str], rounds: int) -> list[dict[str, Any]]:
    """A row for each case; the first compiler begins in every other round."""
    chosen = ["--cases", *parts] if parts else []
    helpers = [
        started(one, "--prepare", str(share), *chosen) for share in range(HELPERS) for one in COMPILERS
    ]  # fmt: skip
    for helper in helpers:
        helper.wait()
    servers = {
        one: started(one, "--serve", *chosen, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for one in COMPILERS
    }  # fmt: skip
    rows = []
    for name, _ in cases(parts):
        found: dict[str, list[dict[str, Any]]] = {one: [] for one in COMPILERS}
        for number in range(rounds):
            for one in COMPILERS if number % 2 == 0 else COMPILERS[::-1]:
                found[one].append(asked(servers[one], name))
        rows.append(row(name, found))
        sys.stdout.write(line_of(rows[-1]) + "\n")
        sys.stdout.flush()
    for server in servers.values():
        server.communicate()
    return rows


def asked(server: subprocess.Popen[str], name: str) -> dict[str, Any]:
    """A server's answer, or that it has ended."""
    write, read = server.stdin, server.stdout
    if write is None or read is None or server.poll() is not None:
        return {"error": "the process ended"}
    write.write(name + "\n")
    write.flush()
    answer: dict[str, Any] = json.loads(read.readline() or '{"error": "the process ended"}')
    return answer


def row(name: str, found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians, or the first error of each."""
    result: dict[str, Any] = {"case": name}
    for one, answers in found.items():
        errors = [answer["error"] for answer in answers if "error" in answer]
        result[one] = {"error": errors[0]} if errors else median(answer["ms"] for answer in answers)
    return result


def line_of(one: dict[str, Any]) -> str:
    """A row of the table."""
    a, b = (one[compiler] for compiler in COMPILERS)
    shown = [f"{ms:.4f}" if isinstance(ms, float) else str(ms) for ms in (a, b)]
    ratio = f"{b / a:.4f}" if isinstance(a, float) and isinstance(b, float) else ""
    return f"| {one['case']} | {shown[0]} | {shown[1]} | {ratio} |"


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", nargs="+", default=[], metavar="PART")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--prepare", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.cases)
    elif given.prepare is not None:
        prepare(given.cases, given.prepare)
    else:
        head = f"| case | {' ms | '.join(COMPILERS)} ms | {' / '.join(COMPILERS[::-1])} |\n|---|---|---|---|\n"
        sys.stdout.write(head)
        rows = compare(given.cases, given.rounds)
        if given.output:
            given.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
