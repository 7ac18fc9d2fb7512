"""sddmm, softmax and spmm on a GPU beside torch.sparse, CuPy and dense products with a mask, in turns.

    python benchmarks/gpu_operators.py                                   # prints a table
    python benchmarks/gpu_operators.py --masks window --seq 1024 --output operators.json

12 heads x 64, the patterns of SPLAT's evaluation (windowed, blocked, strided, causal) and a graph. Times are as in
gpu_timing.py: by CUDA events, the cache overwritten before each call, and by graph replay; the smaller is reported.
torch.sparse: sampled_addmm and CSR @ dense, a matrix a head, made beforehand; CuPy: CSR @ dense through cuSPARSE.
Neither has a softmax of CSR rows. What a contender cannot do, or does wrongly, is reported as its error.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_timing import Budget, describe, measure_all

import splat_numba as splat

HEADS, DIM, SCALE = 12, 64, 0.125
TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 6e-2, "float64": 1e-9}  # of the largest number of a result
OURS = "splat"
MASKS: dict[str, Callable[[int], splat.ACSR]] = {
    "window": lambda n: splat.ACSR.from_pattern(splat.window(n // 8), n, n),
    "blocked": lambda n: splat.ACSR.from_pattern(splat.blocked(n // 8), n, n),
    "strided": lambda n: splat.ACSR.from_pattern(splat.strided(4), n, n),
    "causal": lambda n: splat.ACSR.from_pattern(splat.causal(), n, n),
    "graph": lambda n: random_graph(n),  # noqa: PLW0108 - it stands below
}


def random_graph(n: int) -> splat.ACSR:
    """Every node keeps 16 others, or fewer where two are the same."""
    rng = np.random.default_rng(0)
    pairs = np.unique(np.repeat(np.arange(n), 16) * n + rng.integers(0, n, 16 * n))
    return splat.from_csr(np.searchsorted(pairs, np.arange(n + 1) * n), pairs % n, (n, n))


@dataclass(frozen=True, slots=True)
class Setting:
    """One mask with arrays (batch, heads, n, dim) and packed values (batch, heads, nnz) in the mask's order."""

    acsr: splat.ACSR
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    values: torch.Tensor

    @classmethod
    def of(cls, acsr: splat.ACSR, batch: int, dtype: str) -> Setting:
        """Random numbers."""
        torch.manual_seed(0)
        kind, n = getattr(torch, dtype), acsr.shape[0]
        q, k, v = (torch.randn(batch, HEADS, n, DIM, device="cuda", dtype=kind) for _ in range(3))
        return cls(acsr, q, k, v, torch.randn(batch, HEADS, acsr.nnz, device="cuda", dtype=kind))

    def csr(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(indptr, indices); the patterns here have their packed values in CSR's order."""
        indptr, indices = self.acsr.to_csr()
        return torch.from_numpy(indptr).cuda(), torch.from_numpy(indices).cuda()

    def dense(self) -> torch.Tensor:
        """The mask."""
        return torch.from_numpy(self.acsr.to_dense()).cuda()


Calls = dict[str, Callable[[int], torch.Tensor]]


def sddmm_calls(one: Setting) -> Calls:
    """By contender."""
    indptr, indices = one.csr()
    flat = [x.flatten(0, 1) for x in (one.q, one.k)]
    zero = torch.zeros(one.acsr.nnz, device="cuda", dtype=one.q.dtype)
    patterns = [torch.sparse_csr_tensor(indptr, indices, zero, one.acsr.shape)] * len(flat[0])

    def sampled(_: int) -> torch.Tensor:
        made = [
            torch.sparse.sampled_addmm(pattern, q, k.mT, alpha=SCALE, beta=0.0).values()
            for pattern, q, k in zip(patterns, *flat, strict=True)
        ]
        return torch.stack(made).view_as(one.values)

    rows, columns = one.dense().nonzero(as_tuple=True)
    return {
        OURS: lambda _: splat.sddmm(one.q, one.k, one.acsr, scale=SCALE),
        "torch.sparse": sampled,
        "dense": lambda _: (SCALE * (one.q @ one.k.mT))[..., rows, columns],
    }


def softmax_calls(one: Setting) -> Calls:
    """By contender; dense takes scores that stand in a dense array already."""
    kept = one.dense()
    rows, columns = kept.nonzero(as_tuple=True)
    scores = torch.full((*one.q.shape[:3], kept.shape[1]), -torch.inf, device="cuda", dtype=one.q.dtype)
    scores[..., rows, columns] = one.values
    return {
        OURS: lambda _: splat.softmax(one.values, one.acsr),
        "dense": lambda _: torch.softmax(scores, dim=-1)[..., rows, columns],
    }


def spmm_calls(one: Setting) -> Calls:
    """By contender."""
    indptr, indices = one.csr()
    values, v = one.values.flatten(0, 1), one.v.flatten(0, 1)
    matrices = [torch.sparse_csr_tensor(indptr, indices, x, one.acsr.shape) for x in values]
    kept = one.dense()
    weights = torch.zeros((*one.q.shape[:3], kept.shape[1]), device="cuda", dtype=one.q.dtype)
    weights[..., *kept.nonzero(as_tuple=True)] = one.values
    calls: Calls = {
        OURS: lambda _: splat.spmm(one.values, one.v, one.acsr),
        "torch.sparse": lambda _: torch.stack([a @ x for a, x in zip(matrices, v, strict=True)]).view_as(one.v),
        "dense": lambda _: weights @ one.v,
    }
    return calls | cupy_calls(one, indptr, indices)


def cupy_calls(one: Setting, indptr: torch.Tensor, indices: torch.Tensor) -> Calls:
    """CuPy's, where it is installed and has the dtype."""
    try:
        import cupy
        from cupyx.scipy import sparse
    except ImportError:
        return {}
    if one.q.dtype not in (torch.float32, torch.float64):
        return {}
    where = cupy.from_dlpack(indices.int()), cupy.from_dlpack(indptr.int())
    pairs = [
        (sparse.csr_matrix((cupy.from_dlpack(x), *where), one.acsr.shape), cupy.from_dlpack(dense))
        for x, dense in zip(one.values.flatten(0, 1), one.v.flatten(0, 1), strict=True)
    ]

    def product(_: int) -> torch.Tensor:
        with cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):
            return torch.stack([torch.from_dlpack(a @ x) for a, x in pairs]).view_as(one.v)

    return {"cupy": product}


OPERATORS = {"sddmm": sddmm_calls, "softmax": softmax_calls, "spmm": spmm_calls}


def checked(calls: Calls, dtype: str) -> tuple[Calls, dict[str, dict[str, Any]]]:
    """Contenders whose result is the dense one's, and the errors of the others."""
    wanted = calls["dense"](0).double()
    largest, good, errors = float(wanted.abs().max()), {}, {}
    for name, call in calls.items():
        try:
            off = float((call(0).double() - wanted).abs().max()) / largest
        except Exception as error:  # noqa: BLE001 - whatever a contender raises is its result
            errors[name] = {"error": describe(error)}
            continue
        if off <= TOLERANCE[dtype]:
            good[name] = call
        else:
            errors[name] = {"error": f"wanted within {TOLERANCE[dtype]} of the largest number, got {off:.2g}"}
    return good, errors


def measured(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each operator, mask, length and dtype."""
    for dtype in args.dtypes:
        for seq in args.seq:
            for name in args.masks:
                one = Setting.of(MASKS[name](seq), args.batch, dtype)
                share = one.acsr.nnz / seq**2
                for operator, prepare in OPERATORS.items():
                    good, errors = checked(prepare(one), dtype)
                    times = measure_all(good, 1, Budget(rep=args.rep)) | errors
                    about = {"operator": operator, "mask": name, "seq": seq, "dtype": dtype, "kept": share}
                    yield {**about, "times": times}


def shown(row: dict[str, Any]) -> str:
    """A line: our time, and how many times as long the others take."""
    times = {name: one["ms"] for name, one in row["times"].items() if "ms" in one}
    ours = times.get(OURS, float("nan"))
    others = ", ".join(f"{name} {ms / ours:.2f}x" for name, ms in times.items() if name != OURS)
    missing = ", ".join(f"{name}: {one['error'][:80]}" for name, one in row["times"].items() if "error" in one)
    head = f"{row['operator']:8} {row['mask']:8} n {row['seq']:5} {row['dtype']:8} {row['kept']:6.1%}"
    return f"{head} {ours:8.4f} ms; {others}{'; ' * bool(missing)}{missing}"


def main() -> None:
    """Measure and print; --output keeps all numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", nargs="+", choices=MASKS, default=list(MASKS))
    parser.add_argument("--seq", nargs="+", type=int, default=[1024, 2048, 4096])
    parser.add_argument("--dtypes", nargs="+", choices=TOLERANCE, default=["float32", "float16"])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rep", type=int, default=60, help="milliseconds of measuring for a median")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    found = []
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, batch {args.batch}, {HEADS} heads x {DIM}")
    for row in measured(args):
        found.append(row)
        print(shown(row), flush=True)
    if args.output:
        args.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
