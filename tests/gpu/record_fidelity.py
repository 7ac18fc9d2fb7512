"""Writes what a Hopper GPU answers to every case, for machines without one to compare the emulator with.

Run `python -m tests.gpu.record_fidelity [file]` from the root of the repository. Each case has a process of its own, so
that one that fails or hangs takes no other with it. Exit status 1 if one did: what answered is written all the same.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from splat_numba.runtime.cuda.device import device
from splat_numba.runtime.cuda.driver import ask, driver
from tests.emulator.fidelity_cases import CASES, RECORDED, save
from tests.gpu.fidelity_run import on_gpu

PROCESSES = 12
SECONDS = 60
PACKAGES = ("numba", "numba-cuda", "cuda-core", "cuda-bindings", "nvidia-nvjitlink")


def about():
    """The GPU, its driver, and the versions of what compiled the cases."""
    cuda = ask(driver().cuDriverGetVersion)
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        found = "unknown"
    return {
        "gpu": device(0).name,
        "driver": f"{found}, CUDA {cuda // 1000}.{cuda % 1000 // 10}",
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def answer(case, folder):
    """One case in a process of its own; None if it gave no answer."""
    path = Path(folder) / f"{CASES.index(case)}.npy"
    command = [sys.executable, "-m", __spec__.name, "--case", case.name, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
        said = done.stderr.strip()[-2000:]
    except subprocess.TimeoutExpired:
        said = f"no answer in {SECONDS} s"
    if path.exists():
        return np.load(path)
    print(f"{case.name}: {said}", file=sys.stderr)  # noqa: T201
    return None


def main(arguments):
    if arguments[:1] == ["--case"]:
        case = next(one for one in CASES if one.name == arguments[1])
        np.save(arguments[2], on_gpu(case))
        return 0
    target = Path(arguments[0]) if arguments else RECORDED
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(PROCESSES) as pool:
        found = dict(zip((one.name for one in CASES), pool.map(lambda one: answer(one, folder), CASES), strict=True))
    answers = {name: words for name, words in found.items() if words is not None}
    target.parent.mkdir(exist_ok=True)
    save(target, answers, about())
    print(f"{len(answers)} of {len(CASES)} answers in {target}, {target.stat().st_size} bytes")  # noqa: T201
    return int(len(answers) < len(CASES))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
