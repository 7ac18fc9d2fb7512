"""FLuRKA on a Hopper GPU beside dense, low-rank and kernel attention, and beside torch.compile of its own formula.

    python benchmarks/flurka_gpu.py --section core layer sweep host --check --date 2026-11-21
    python benchmarks/flurka_gpu.py --section core --only flurka_numba "low-rank (cuDNN)" --shapes 1x65536
    python benchmarks/flurka_gpu.py --tiny --backend emulate --section core layer --check --out /tmp/flurka   # no GPU

bf16, fresh random data. Sections: core, given q, k, v, and beside it forward + backward where the backend has
gradients; layer, from x and its weights; sweep over lengths, ranks and feature maps; host, the time of a call that the
GPU does not notice. Our kernels are compiled by several processes first. Results are written after every row.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flurka_gpu_peers as peers
import flurka_gpu_report as reports
import torch
from flurka_gpu_build import compile_all
from flurka_gpu_peers import Contender, Prepare
from flurka_gpu_workload import Size, Workload, check
from gpu_timing import Budget, Call, ceilings, describe, host_us, measure_all, timed_options
from results_files import save
from tables import errors_of

from splat_numba.errors import BackendError

SHAPES = (Size(1, 8192), Size(4, 8192), Size(1, 65536))
TINY_SHAPES = (Size(1, 128, 64, heads=2), Size(2, 96, 64, heads=2))
LENGTHS, RANKS = (1024, 2048, 4096, 8192, 16384, 32768, 65536), (128, 256, 512)
RANDOM = (("favor", 64), ("favor", 128), ("favor", 256), ("rfa", 64), ("rfa", 128))  # and rows of omega

Row = dict[str, Any]


def read_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = timed_options(__doc__, Budget(15, 60))
    parser.add_argument("--section", nargs="+", choices=SECTIONS, default=["core", "layer", "sweep"])
    parser.add_argument("--shapes", nargs="+", metavar="BATCHxSEQ", help="of core and layer, these only")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these contenders only")
    parser.add_argument("--check", action="store_true", help="compare with float32 first; time what is right")
    parser.add_argument("--processes", type=int, default=9, help="that compile our kernels; 0: nothing beforehand")
    parser.add_argument("--backend", default="cuda", help="of flurka_numba")
    parser.add_argument(
        "--tiny", action="store_true", help="a dry run of small sizes on the CPU; its times mean nothing"
    )
    return parser.parse_args(words)


class Bench:
    """What the command line chose, and how it is measured."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.notes: list[str] = []
        self.device = "cpu" if args.tiny else "cuda"
        self.budget = Budget.of(args)
        self.ceilings = {"tflops": 1.0, "gbs": 1.0} if args.tiny else ceilings(self.budget)

    @property
    def shapes(self) -> list[Size]:
        """Of the sections core and layer."""
        every = TINY_SHAPES if self.args.tiny else SHAPES
        return [size for size in every if self.args.shapes is None or str(size) in self.args.shapes]

    @property
    def sweep_sizes(self) -> list[Size]:
        """Lengths by ranks with elu, lengths with relu, and with random features some."""
        if self.args.tiny:
            maps = (("elu", 0), ("relu", 0), ("favor", 8))
            return [Size(1, 64, 64, phi, heads=2, features=rows) for phi, rows in maps]
        found = [Size(1, seq, rank) for seq in LENGTHS for rank in RANKS]
        found += [Size(1, seq, 256, "relu") for seq in LENGTHS]
        return found + [Size(1, seq, 256, phi, features=rows) for phi, rows in RANDOM for seq in LENGTHS[::3]]

    def times(self, calls: dict[str, Call], sets: int, budget: Budget | None = None) -> dict[str, dict[str, Any]]:
        """Of each contender; all take turns."""
        if not self.args.tiny:
            return measure_all(calls, sets, budget or self.budget)
        return {name: _dry_time(call) for name, call in calls.items()}

    def contest(self, workload: Workload, prepares: dict[str, Prepare], *, budget: Budget | None = None) -> Row:
        """One problem: everybody prepared, checked if asked for, timed. What goes wrong becomes part of the row."""
        size = workload.size
        row: Row = {"shape": str(size), "rank": size.rank, "feature_map": size.phi, "nbytes": size.nbytes,
                    "input_sets": workload.sets, "times": {}, "check": {}, "errors": {}}  # fmt: skip
        ready: dict[str, Call] = {}
        for name, prepare in prepares.items():
            if self.args.only is None or name in self.args.only:
                try:
                    contender = prepare(workload, self.args.backend)
                    if contender is not None and self._works(row, name, contender, workload):
                        ready[name] = contender.call
                except Exception as error:  # noqa: BLE001 - whatever a contender raises is its result
                    row["errors"][name] = describe(error)
        row["times"] = self.times(ready, workload.sets, budget)
        return row

    def _works(self, row: Row, name: str, contender: Contender, workload: Workload) -> bool:
        begin = time.perf_counter()
        result = contender.call(0)
        if self.device == "cuda":
            torch.cuda.synchronize()
        row.setdefault("first_call_s", {})[name] = time.perf_counter() - begin
        if not self.args.check or contender.method is None:
            return True
        row["check"][name] = found = check(contender.method, workload, result)
        if not found["correct"]:
            row["errors"][name] = f"wrong result: error {found['error']:.2e}, worst row {found['worst_row']:.2e}"
        return bool(found["correct"])

    def draw(self, size: Size, *, layer: bool = False) -> Workload:
        """Fresh inputs; those of the problem before are gone, and what torch compiled for it."""
        torch._dynamo.reset()  # noqa: SLF001 - no problem meets another's recompilations, and their limit
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
        return Workload.draw(size, self.device, seed=size.seq + size.rank, layer=layer)


def _dry_time(call: Call) -> dict[str, Any]:
    begin = time.perf_counter()
    call(1)
    return {"ms": (time.perf_counter() - begin) * 1e3}


def core(bench: Bench) -> Iterator[Row]:
    """Given q, k and v."""
    for size in bench.shapes:
        row = bench.contest(bench.draw(size), _available(peers.CORE))
        yield {**row, "floor_ms": size.core_floor_ms(bench.ceilings)}


def _available(prepares: dict[str, Prepare]) -> dict[str, Prepare]:
    """Without flash-linear-attention, where it is not installed."""
    try:
        import fla  # noqa: F401
    except ImportError:
        return {name: prepare for name, prepare in prepares.items() if name != peers.FLA}
    return prepares


def gradients(bench: Bench) -> Iterator[Row]:
    """Forward and backward; nothing where our backend has no gradients."""
    small = bench.draw(Size(1, 128, 64, heads=2))
    try:
        peers.our_gradients(small, bench.args.backend).call(0)
    except BackendError as error:
        bench.notes.append(f"forward + backward is left out: {error}")
        return
    for size in bench.shapes:
        workload = bench.draw(size)
        torch_peers = dict(peers.autograd_contenders(workload))
        prepares: dict[str, Prepare] = {peers.OURS: peers.our_gradients}
        prepares |= {name: (lambda _, __, one=one: one) for name, one in torch_peers.items()}
        yield {**bench.contest(workload, prepares), "floor_ms": size.core_floor_ms(bench.ceilings)}


def layer(bench: Bench) -> Iterator[Row]:
    """From x and its weights."""
    for size in bench.shapes:
        row = bench.contest(bench.draw(size, layer=True), peers.LAYER)
        yield {**row, "floor_ms": size.layer_floor_ms(bench.ceilings)}


def sweep(bench: Bench) -> Iterator[Row]:
    """Lengths, ranks and feature maps: one round, and nothing that torch.compile has to build."""
    budget = Budget(min(bench.args.warmup, 5), min(bench.args.reps, 25), 1)
    for size in bench.sweep_sizes:
        dense = (peers.DENSE,) if (size.rank, size.feature_map) == (256, "elu") else ()
        prepares = {name: peers.CORE[name] for name in (*peers.SWEEP, *dense)}
        row = bench.contest(bench.draw(size), prepares, budget=budget)
        yield {**row, "floor_ms": size.core_floor_ms(bench.ceilings)}


def host(bench: Bench) -> Iterator[Row]:
    """Microseconds of one call when the GPU has next to nothing to do."""
    size = bench.shapes[0] if bench.args.tiny else Size(1, 512, 64, heads=4)
    tokens, xs = bench.draw(size), bench.draw(size, layer=True)
    core_names = (peers.OURS, peers.OURS_KERNEL, peers.OURS_LOW_RANK, peers.FLURKA, peers.FLURKA_EAGER)
    calls: dict[str, tuple[Prepare, Workload]] = {name: (peers.CORE[name], tokens) for name in core_names}
    calls |= {f"{name}, layer": (peers.LAYER[name], xs) for name in (peers.OURS, peers.LAYER_B)}
    for name, (prepare, workload) in calls.items():
        row: Row = {"call": name}
        try:
            contender = prepare(workload, bench.args.backend)
            if contender is not None:
                contender.call(0)
                row |= {"host_us": 0.0, "wall_us": 0.0} if bench.args.tiny else host_us(contender.call)
        except Exception as error:  # noqa: BLE001 - the row says so, the others follow
            row["error"] = describe(error)
        yield row


SECTIONS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "core": core,
    "gradients": gradients,
    "layer": layer,
    "sweep": sweep,
    "host": host,
}


def write(found: dict[str, Any], folder: Path) -> None:
    """flurka_gpu.json and flurka_gpu.md."""
    found["bars"], found["claims"] = reports.verdicts(found["sections"]), reports.claims(found["sections"])
    save(folder, "flurka_gpu", found, reports.report(found))


def run(args: argparse.Namespace) -> None:
    """Measure what was asked for, writing the results after every row."""
    bench = Bench(args)
    notes = bench.notes
    sections = [*args.section, *(["gradients"] if "core" in args.section and "gradients" not in args.section else [])]
    if args.processes and not args.tiny:
        sizes = [*bench.shapes, *(bench.sweep_sizes if "sweep" in sections else [])]
        notes.append(compile_all(sizes, torch.cuda.get_device_properties(0).multi_processor_count, args.processes))
        print(notes[0], flush=True)
    found: dict[str, Any] = {
        "hardware": _hardware(args.tiny), "date": args.date, "arguments": " ".join(sys.argv[1:]), "notes": notes,
        "ceilings": bench.ceilings, "sections": {},
    }  # fmt: skip
    for section in sections:
        rows = found["sections"].setdefault(section, [])
        begin = time.perf_counter()
        try:
            for row in SECTIONS[section](bench):
                rows.append(row)
                write(found, args.output)
                errors = "; ".join(f"{who}: {text}" for who, text in errors_of(row))
                print(f"{section} {len(rows)}: {row.get('shape', row.get('call'))}", errors[:400], flush=True)
                if not args.tiny:
                    torch.cuda.synchronize()  # raises here if a kernel broke the device: the rest means nothing then
        except Exception as error:  # noqa: BLE001 - other sections may still run
            notes.append(f"section {section} ended early: {describe(error)}")
        print(f"{section}: {time.perf_counter() - begin:.0f} s", flush=True)
    write(found, args.output)
    print(reports.tables(found))


def _hardware(tiny: bool) -> str:
    if tiny:
        return "A dry run on a CPU, whose times mean nothing"
    from gpu_attention import hardware

    return hardware()


def main() -> None:
    """Measure."""
    args = read_arguments()
    if not args.tiny and not torch.cuda.is_available():
        sys.exit(
            "flurka_gpu wanted an NVIDIA GPU that torch can use, got none. Try --tiny --backend cpu, for the logic."
        )
    torch.set_grad_enabled(False)
    run(args)


if __name__ == "__main__":
    main()
