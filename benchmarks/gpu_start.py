"""How long a process takes to its first launch: cold (nothing on disk) and warm (the cubin in the disk cache).

    python benchmarks/gpu_start.py [--cold 5] [--warm 5] [--json start.json]

Every run is a fresh process that times its own steps; medians are printed, and the last line is JSON. Without a GPU the
steps end with the cubin. Bytecode of Python modules is there already, as after any earlier start.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

SHAPE = {"seq_q": 8192, "seq_kv": 8192, "head_dim": 128, "batch": 2, "heads_q": 16, "dtype": "bfloat16"}
HEAVY = ("numba", "numba_cuda", "llvmlite", "cuda.core")  # what a warm start should not import
STEPS = {
    "package": "import splat_numba",
    "operators": "first use of splat.compile: its modules",
    "backend": "modules of the GPU's backend",
    "driver": "import cuda.bindings, find the GPU",
    "plan": "window(512), 8192 tokens, head_dim 128",
    "cubin": "Numba and link, or read from disk",
    "first launch": "tables, tensor maps, load, launch, wait",
    "second launch": "launch and wait",
}


def child() -> None:
    """Time the steps of this process and print them as JSON."""
    steps: dict[str, float] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        begin = perf_counter()
        result = call()
        steps[name] = perf_counter() - begin
        return result

    splat = timed("package", lambda: __import__("splat_numba"))
    timed("operators", lambda: splat.compile)
    gpu_kernel = timed("backend", lambda: __import__("splat_numba.executors.gpu.executor").executors.gpu.executor)
    timed("driver", gpu_kernel.gpu)
    timed("plan", lambda: splat.plan(splat.window(512), **SHAPE, backend="cuda"))
    kernel = timed("cubin", lambda: splat.compile(splat.window(512), **SHAPE, backend="cuda"))
    gpu = launch(kernel, timed)
    heavy = [name for name in HEAVY if name in sys.modules]
    print(json.dumps({"steps": steps, "gpu": gpu, "cached": kernel.resources["cached"], "imported": heavy}))


def launch(kernel: Any, timed: Callable[..., Any]) -> str | None:
    """The name of the GPU, after two launches; None where there is none."""
    from splat_numba.errors import BackendError
    from splat_numba.runtime.cuda.device import device

    try:
        target = device(0)
    except BackendError:
        return None
    from splat_numba.runtime.cuda.memory import DeviceArray, memory

    shape = (SHAPE["batch"], SHAPE["heads_q"], SHAPE["seq_q"], SHAPE["head_dim"])
    q, k, v, out = (DeviceArray(target, shape, "bfloat16") for _ in range(4))
    memory(target).wait()
    for name in ("first launch", "second launch"):
        timed(name, lambda: (kernel(q, k, v, out=out), memory(target).wait()))
    return target.name


def run(folder: Path) -> dict[str, Any]:
    """One fresh process with this cache folder."""
    environment = {**os.environ, "SPLAT_CACHE_DIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path[1:])}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, __file__, "--child"], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(cold: int, warm: int) -> dict[str, Any]:
    """Seconds of each step: medians over cold and over warm processes; and the facts they told."""
    with tempfile.TemporaryDirectory(prefix="splat-start-") as base:
        shared = Path(base, "shared")
        run(shared)  # writes bytecode and the entry, and brings files into memory
        runs = {
            "cold": [run(Path(base, f"cold-{number}")) for number in range(cold)],
            "warm": [run(shared) for _ in range(warm)],
        }
    found: dict[str, Any] = {"runs": {kind: len(rows) for kind, rows in runs.items()}, "shape": SHAPE}
    for kind, rows in runs.items():
        found[kind] = {name: median(row["steps"][name] for row in rows) for name in STEPS if name in rows[0]["steps"]}
        found[f"{kind}_imported"] = rows[0]["imported"]
        found["gpu"] = rows[0]["gpu"]
    return found


def table(found: dict[str, Any]) -> str:
    """Milliseconds by step, and the sum of all but the package's import and the second launch."""
    lines = [f"GPU: {found['gpu'] or 'none, so up to the cubin'}", f"{'step':<15}{'cold ms':>10}{'warm ms':>10}"]
    names = [name for name in STEPS if name in found["cold"]]
    lines += [
        f"{name:<15}{found['cold'][name] * 1e3:>10.1f}{found['warm'][name] * 1e3:>10.1f}  {STEPS[name]}"
        for name in names
    ]
    parts = {
        "to the cubin": names[1:6],
        "... but driver": [name for name in names[1:6] if name != "driver"],
        "to the result": names[1:7],
    }
    for title, chosen in parts.items():
        sums = [sum(found[kind][name] for name in chosen) * 1e3 for kind in ("cold", "warm")]
        lines.append(f"{title:<15}{sums[0]:>10.1f}{sums[1]:>10.1f}")
    lines.append(f"imported by warm processes: {', '.join(found['warm_imported']) or 'neither Numba nor a compiler'}")
    return "\n".join(lines)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Time from a fresh process to the first launch.")
    parser.add_argument("--cold", type=int, default=5, help="processes with an empty cache, 5 s each")
    parser.add_argument("--warm", type=int, default=5, help="processes that find the cubin")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        child()
        return
    found = measure(chosen.cold, chosen.warm)
    print(table(found))
    print(json.dumps(found))
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
