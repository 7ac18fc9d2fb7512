"""Forward and backward attention on a Hopper GPU beside FlexAttention, SDPA, FlashAttention-4 and cuDNN Frontend.

    python benchmarks/gpu_gradients.py --check --date 2026-11-30
    python benchmarks/gpu_gradients.py --cases window512 strided16 --dims 128

bf16, fresh random data, everybody in one process, in turns. A call is the forward pass and the gradients of q, k and v
for one gradient of out. Times are as in gpu_attention.py: medians by CUDA events, the cache overwritten before each
call, and by CUDA-graph replay; the smaller is reported. Ours is deterministic; the others run as they come, and
FlashAttention-4 with ``--deterministic`` as ours, too. Peak memory is what a call allocates beyond its inputs.
``--check``: gradients beside float32 attention of two heads first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import torch
from gpu_attention import hardware
from gpu_cases import Case, Target, main_cases
from gpu_ours import OURS, compiled
from gpu_peers import FA4, FLEX, PEERS, Contender, Prepare, find_peers, prepare_fa4
from gpu_report import compare
from gpu_timing import Budget, describe, measure_all, timed_options
from gpu_workload import ROW_CHUNK, Shape, Workload
from results_files import save
from tables import markdown_table, number

import splat_numba as splat

SHAPE = {"batch": 2, "heads": 16, "seq": 8192}
DETERMINISTIC = f"{FA4}, deterministic"  # never the best peer: it is the same kernels with an order to keep
HEAD = ("case", "dim", "ours ms", "Flex ms", "best peer", "best / ours", "asked", "Flex / ours", "ours MiB",
        "best's MiB")  # fmt: skip
TOLERANCE = 2e-2  # relative Frobenius error of a gradient in bf16
TARGETS = {
    "full": Target(0.95, "best"), "causal": Target(0.95, "best"), "window512": Target(1.1), "window128": Target(1.3),
    "causal_window1024": Target(1.1), "documents": Target(1.1), "blocked256": Target(1.1),
    "dilated512x4": Target(2.5), "dilated128x16": Target(5.0), "strided16": Target(8.0), "longformer": Target(1.4),
    "bigbird": Target(1.4), "neighborhood2d": Target(1.4), "sparse_transformer_strided": Target(4.0),
}  # fmt: skip
GEOMEAN_TARGET = 2.2


@dataclass(frozen=True, slots=True)
class TrainingWorkload(Workload):
    """Sets whose tensors record gradients, and a gradient of out for each, in both layouts."""

    douts: list[torch.Tensor] = field(default_factory=list, repr=False)
    turned: list[tuple[torch.Tensor, ...]] = field(default_factory=list, repr=False)

    def bshd(self) -> list[tuple[torch.Tensor, ...]]:
        """The same sets, (batch, seq, heads, dim): leaves of their own."""
        if not self.turned:
            self.turned.extend(
                tuple(x.detach().transpose(1, 2).contiguous().requires_grad_() for x in one) for one in self.sets
            )
        return self.turned


def draw(shape: Shape, seed: int) -> TrainingWorkload:
    """Fresh inputs."""
    plain = Workload.draw(shape, seed)
    generator = torch.Generator("cuda").manual_seed(seed + 1)
    douts = [torch.randn(q.shape, generator=generator, device="cuda", dtype=q.dtype) for q, _, _ in plain.sets]
    return TrainingWorkload(shape, [tuple(x.requires_grad_() for x in one) for one in plain.sets], douts)


def trained(contender: Contender, workload: TrainingWorkload) -> Contender:
    """A peer's forward pass and its gradients by autograd."""
    sets = workload.bshd() if contender.bshd else workload.sets
    douts = [x.transpose(1, 2).contiguous() for x in workload.douts] if contender.bshd else workload.douts

    def gradients(index: int) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(contender.call(index), sets[index], douts[index])

    return _called(gradients, contender.bshd)


def ours(case: Case, workload: TrainingWorkload) -> Contender:
    """The kernel that compile() makes, and attention_backward(), on plain tensors."""
    kernel = compiled(case.pattern, workload.shape)
    sets = [tuple(x.detach() for x in one) for one in workload.sets]

    def gradients(index: int) -> tuple[torch.Tensor, ...]:
        out, lse = kernel(*sets[index], return_lse=True)
        return splat.attention_backward(workload.douts[index], *sets[index], out, lse, case.pattern)

    return _called(gradients, bshd=False)


def _called(gradients: Callable[[int], tuple[torch.Tensor, ...]], bshd: bool) -> Contender:
    """A contender that has run once; its first gradient stands for all of them, and its peak memory is known."""
    gradients(0)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    found = gradients(0)
    torch.cuda.synchronize()
    facts = {"peak_bytes": torch.cuda.max_memory_allocated() - before, "gradients": gradients}
    del found
    return Contender(lambda index: gradients(index)[0], bshd, facts)


def check(case: Case, workload: TrainingWorkload, contender: Contender) -> dict[str, Any]:
    """Relative errors of dq, dk and dv of the first and the last head beside float32 attention, in chunks of rows."""
    found = contender.facts["gradients"](0)
    found = [x.transpose(1, 2) if contender.bshd else x for x in found]
    errors = {}
    for name, one, wanted in zip("qkv", found, _reference(case, workload), strict=True):
        got = torch.stack([one[0, 0], one[-1, -1]]).float()
        errors[name] = float(((got - wanted).norm() / wanted.norm()).item())
    return {"errors": errors, "correct": all(error <= TOLERANCE for error in errors.values())}


def _reference(case: Case, workload: TrainingWorkload) -> list[torch.Tensor]:
    q, k, v = (torch.stack([x[0, 0], x[-1, -1]]).detach().float() for x in workload.sets[0])
    dout = torch.stack([workload.douts[0][0, 0], workload.douts[0][-1, -1]]).float()
    seq, scale = workload.shape.seq, workload.shape.dim**-0.5
    dq, dk, dv = (torch.zeros_like(x) for x in (q, k, v))
    for first in range(0, seq, ROW_CHUNK):
        rows = slice(first, min(first + ROW_CHUNK, seq))
        mask = case.rows(rows.start, rows.stop, seq, "cuda")
        weights = (q[:, rows] @ k.mT * scale).masked_fill(~mask, -torch.inf).softmax(-1).nan_to_num(0.0)
        dp = dout[:, rows] @ v.mT
        slopes = weights * (dp - (weights * dp).sum(-1, keepdim=True)) * scale
        dq[:, rows] = slopes @ k
        dk += slopes.mT @ q[:, rows]
        dv += weights.mT @ dout[:, rows]
    return [dq, dk, dv]


def rows_of(args: argparse.Namespace, peers: dict[str, Prepare]) -> Iterator[dict[str, Any]]:
    """One row a case and head dimension."""
    budget = Budget.of(args)
    for dim in args.dims:
        shape = Shape(dim=dim, **SHAPE)
        for name, case in main_cases(shape.seq).items():
            if args.cases and name not in args.cases:
                continue
            yield _row(case, draw(shape, seed=dim + len(name)), peers, budget, checked=args.check)
            torch.cuda.empty_cache()


def _row(
    case: Case, workload: TrainingWorkload, peers: dict[str, Prepare], budget: Budget, *, checked: bool
) -> dict[str, Any]:
    row: dict[str, Any] = {"case": case.name, "dim": workload.shape.dim, "dense": case.dense, "errors": {}}
    contenders: dict[str, Contender] = {}
    for name, prepare in {OURS: ours, **peers}.items():
        try:
            made = prepare(case, workload)
            if made is not None:
                contenders[name] = made if name == OURS else trained(made, workload)
        except Exception as error:  # noqa: BLE001 - whatever a peer raises is its result
            row["errors"][name] = describe(error)
    if checked:
        row["checks"] = {name: check(case, workload, one) for name, one in contenders.items()}
        contenders = {name: one for name, one in contenders.items() if row["checks"][name]["correct"]}
    row["times"] = measure_all({name: one.call for name, one in contenders.items()}, len(workload.sets), budget)
    row["peak_bytes"] = {name: one.facts["peak_bytes"] for name, one in contenders.items()}
    return {**row, **compare(row, TARGETS[case.name], None)}


def report(found: dict[str, Any]) -> str:
    """The tables in Markdown."""
    lines = [
        "# Forward and backward attention on a Hopper GPU", "", f"{found['hardware']}. {found['date']}.", "",
        "bf16, batch 2, heads 16, n 8192; ms of the forward pass and all three gradients, the smaller of CUDA-event "
        "median and CUDA-graph time, everybody in one process, in turns. Ours is deterministic, the others run as they "
        "come. MiB: peak memory of a call beyond its inputs.", "",
        f"Made by `python benchmarks/gpu_gradients.py {found['arguments']}`.", "",
        markdown_table(HEAD, map(_cells, found["rows"])),
    ]  # fmt: skip
    for dim, ratio in found["geomeans"].items():
        met = "met" if ratio >= GEOMEAN_TARGET else "MISSED"
        lines += ["", f"Geometric mean, sparse masks, head_dim {dim}: {ratio:.2f} of the best peer "
                  f"(asked {GEOMEAN_TARGET}, {met})."]  # fmt: skip
    errors = [f"- {row['case']} {row['dim']}: {who}: {text}" for row in found["rows"]
              for who, text in (*row["errors"].items(), *_wrong(row))]  # fmt: skip
    remarks = [text for remark in found.get("remarks", ()) for text in ("", remark)]
    return "\n".join([*lines, *(["", "Not measured:", "", *errors] if errors else []), *remarks, ""])


def _wrong(row: dict[str, Any]) -> list[tuple[str, str]]:
    checks = row.get("checks", {})
    return [(who, f"wrong gradients, {one['errors']}") for who, one in checks.items() if not one["correct"]]


def _cells(row: dict[str, Any]) -> list[str]:
    times, peaks = row["times"], row["peak_bytes"]
    cells = [row["case"] + "*" * ("run" in row), str(row["dim"])]
    cells += [number(times.get(one, {}).get("ms")) for one in (OURS, FLEX)]
    best = row.get("best")
    cells += [f"{best['ms']:.3f} {best['name']}" if best else "", f"{row['best_ratio']:.2f}" if best else ""]
    target = row.get("target")
    cells.append(f"{target['wanted']} {'met' if target['met'] else 'MISSED'}" if target else "")
    cells.append(f"{row['flex_ratio']:.2f}" if "flex_ratio" in row else "")
    return [*cells, *(number(peaks.get(one), 0, 2**20) for one in (OURS, best["name"] if best else None))]


def write(found: dict[str, Any], folder: Path) -> None:
    """gpu_gradients.json and gpu_gradients.md."""
    ratios: dict[int, list[float]] = {}
    for row in found["rows"]:
        if not row["dense"] and "best_ratio" in row:
            ratios.setdefault(row["dim"], []).append(row["best_ratio"])
    found["geomeans"] = {dim: geometric_mean(some) for dim, some in ratios.items()}
    save(folder, "gpu_gradients", found, report(found))


def main() -> None:
    """Measure, writing the results after every row."""
    parser = timed_options(__doc__, Budget(15, 60))
    parser.add_argument("--cases", nargs="+", metavar="NAME", help="these masks only")
    parser.add_argument("--dims", nargs="+", type=int, choices=(64, 128), default=[128, 64], help="head_dim")
    parser.add_argument("--peers", nargs="*", choices=PEERS, help="these peers only")
    parser.add_argument("--check", action="store_true", help="compare gradients with float32 first; time what is right")
    parser.add_argument("--deterministic", action="store_true", help="FA4's deterministic gradients, too")
    args = parser.parse_args()
    peers, notes = find_peers(args.peers)
    if args.deterministic and FA4 in peers:
        peers[DETERMINISTIC] = partial(prepare_fa4, deterministic=True)
    found: dict[str, Any] = {
        "hardware": hardware(), "date": args.date, "arguments": " ".join(sys.argv[1:]), "notes": notes, "rows": [],
    }  # fmt: skip
    for row in rows_of(args, peers):
        found["rows"].append(row)
        write(found, args.output)
        print(row["case"], row["dim"], {k: round(v.get("ms", 0), 3) for k, v in row["times"].items()}, flush=True)
    print(report(found))


if __name__ == "__main__":
    main()
