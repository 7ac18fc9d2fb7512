"""Attention on a Hopper GPU beside FlexAttention, SDPA, FlashAttention-4 and cuDNN Frontend, in one process.

    python benchmarks/gpu_attention.py --check --date 2026-11-21 --out benchmarks/results
    python benchmarks/gpu_attention.py --section main small --cases window512 strided16 --dims 128
    python benchmarks/gpu_attention.py --check-masks     # no GPU: every pattern beside its definition, pair by pair

bf16, forward, fresh random data. Times are medians by CUDA events (the cache overwritten before each call) and by
CUDA-graph replay (several sets of inputs in turn where one fits in the cache); the smaller is reported. Peers that are
not installed are scaled from gpu_baseline.json, and said to be. Results are written after every row.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import gpu_cases
import gpu_report
import gpu_sections
import torch
from gpu_ours import read_configs
from gpu_peers import PEERS, find_peers
from gpu_timing import Budget, ceilings, describe, timed_options
from results_files import save
from tables import errors_of

PACKAGES = ("splat-numba", "torch", "triton", "numba-cuda", "cuda-core", "flash-attn-4", "nvidia-cudnn-frontend")
MEASURED = ("main", "splat", "long", "small", "host")


def read_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = timed_options(__doc__, Budget())
    parser.add_argument("--section", nargs="+", choices=MEASURED, default=["main"], help="default: main")
    parser.add_argument("--cases", nargs="+", metavar="NAME", help="these masks only")
    parser.add_argument("--dims", nargs="+", type=int, choices=(64, 128), default=[128, 64], help="head_dim")
    parser.add_argument("--peers", nargs="*", choices=PEERS, help="these peers only")
    parser.add_argument("--check", action="store_true", help="compare with float32 SDPA first; time what is right")
    parser.add_argument("--configs", type=read_configs, default=[], help='traits to force: "groups=2,tile_kv=128;..."')
    parser.add_argument(
        "--check-masks", action="store_true", help="compare patterns with definitions, on the CPU, and stop"
    )
    return parser.parse_args(words)


def hardware() -> str:
    """GPU, driver and versions."""
    driver = "unknown"
    if command := shutil.which("nvidia-smi"):
        asked = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(asked, check=False, capture_output=True, text=True).stdout.split("\n")[0] or driver
    versions = [f"Python {platform.python_version()}", f"CUDA {torch.version.cuda}"]
    if torch.backends.cudnn.is_available():
        versions.append(f"cuDNN {torch.backends.cudnn.version()}")
    for name in PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return f"{torch.cuda.get_device_name()}, driver {driver}; {', '.join(versions)}"


def write(found: dict[str, Any], folder: Path) -> None:
    """gpu_attention.json and gpu_attention.md."""
    found["geomeans"] = gpu_report.geomeans(found["sections"].get("main", []))
    save(folder, "gpu_attention", found, gpu_report.report(found))


def run(args: argparse.Namespace) -> None:
    """Measure what was asked for, writing the results after every row."""
    peers, notes = find_peers(args.peers)
    budget = Budget.of(args)
    setting = gpu_sections.Setting(
        args.cases,
        tuple(args.dims),
        peers,
        budget,
        args.check,
        ceilings(budget),
        gpu_report.load_baseline(),
        args.configs,
    )
    found: dict[str, Any] = {
        "hardware": hardware(), "date": args.date, "arguments": " ".join(sys.argv[1:]), "notes": notes,
        "ceilings": setting.ceilings, "sections": {},
    }  # fmt: skip
    for section in [*args.section, *(["configs"] if args.configs else [])]:
        rows = found["sections"].setdefault(section, [])
        try:
            for row in gpu_sections.SECTIONS[section](setting):
                rows.append(row)
                write(found, args.output)
                errors = "; ".join(f"{who}: {text}" for who, text in errors_of(row))
                print(f"{section} {len(rows)}: {row['case']} {row.get('dim', '')}", errors[:300], flush=True)
                torch.cuda.synchronize()  # raises here if a kernel broke the device: nothing more can be measured
        except Exception as error:  # noqa: BLE001 - other sections may still run
            found["notes"].append(f"section {section} ended early: {describe(error)}")
        if not rows:
            found["notes"].append(f"section {section} has no row: has it the masks {args.cases}?")
    write(found, args.output)
    print(gpu_report.tables(found))


def main() -> None:
    """Check the masks, or measure."""
    args = read_arguments()
    if args.check_masks:
        wrong = gpu_cases.differing_cases()
        print("\n".join(wrong) or "every pattern keeps exactly the pairs of its definition")
        sys.exit(1 if wrong else 0)
    if not torch.cuda.is_available():
        sys.exit(
            "gpu_attention wanted an NVIDIA GPU that torch can use, got none. Try --check-masks, which needs none."
        )
    torch.set_grad_enabled(False)
    run(args)


if __name__ == "__main__":
    main()
