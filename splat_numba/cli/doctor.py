"""`splat-numba doctor`: what is here, what is missing, and the command that installs it."""

from __future__ import annotations

import difflib
import os
import platform
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from cyclopts import App
from rich.text import Text

from splat_numba.cli.console import make_table, output, print_table
from splat_numba.cli.options import in_options
from splat_numba.errors import ArgumentError, BackendError
from splat_numba.gen.language.dtypes import ITEMSIZE as DTYPES
from splat_numba.gen.plans.machine import GPU, Gpu
from splat_numba.gen.plans.problem import Problem
from splat_numba.settings import PREFIX, VARIABLES, Settings, current, given
from splat_numba.version import __version__

EPILOG = "Exit status 1 if something that every call needs is missing or broken.\n\nexample:\n  splat-numba doctor\n"

REQUIRED = ("numpy", "numba", "rich", "platformdirs", "filelock", "cyclopts")
# (distributions, any of which will do; what for; command)
OPTIONAL = (
    (("ml_dtypes",), "bfloat16 arrays of NumPy", "pip install ml_dtypes"),
    (("scipy",), "masks as sparse matrices", "pip install scipy"),
    (("hypothesis",), "selftest, splat_numba.testing", 'pip install "splat-numba[selftest]"'),
    (("matplotlib",), "splat.draw, --plot", 'pip install "splat-numba[plot]"'),
    (("torch",), "torch arrays, bench", 'pip install "splat-numba[torch]"'),
    (("jax",), "JAX arrays", 'pip install "splat-numba[jax]"'),
    (("cupy", "cupy-cuda13x", "cupy-cuda12x"), "CuPy arrays", "pip install cupy-cuda13x"),
)
# What a compiler for GPUs needs beside it; those after the second come with the compiler, or with a CUDA toolkit.
CUDA = ("cuda-core", "cuda-bindings", "nvidia-nvvm", "nvidia-nvjitlink")
OF_TESTS = "SPLAT_TEST_"  # what the tests of this package read
USUAL_DIM = 64  # of heads, for which a GPU's targets are shown
COMPILERS = ("c++", "g++", "clang++", "cl")


@dataclass(frozen=True, slots=True)
class Finding:
    """state: "ok", "missing" (nothing is broken without it), "unknown" (nothing reads it) or "broken"; advice: what to
    do, empty if nothing.
    """

    name: str
    state: str
    found: str
    advice: str = ""


def run() -> int:
    """Print all findings; 1 if any is broken."""
    console = output()
    findings = list(examine())
    table = make_table(console, ("", "state", "found", "what to do"))
    for column in table.columns:
        column.justify = "left"
    table.columns[-1].no_wrap = True  # commands, to be copied
    styles = {"ok": "green", "missing": "yellow", "unknown": "yellow", "broken": "bold red"}
    for one in findings:
        table.add_row(one.name, Text(one.state, style=styles[one.state]), one.found, one.advice)
    print_table(console, table)
    broken = [one.name for one in findings if one.state == "broken"]
    console.print(f"Broken: {', '.join(broken)}." if broken else "All that is needed is here.")
    return 1 if broken else 0


def examine() -> Iterator[Finding]:
    """Look at everything, without importing any optional package but the CUDA driver's."""
    yield _python()
    yield Finding("splat-numba", "ok", f"{__version__}, {_home()}")
    for name in REQUIRED:
        version = installed((name,))
        yield Finding(name, "ok" if version else "broken", version or "-", "" if version else f"pip install {name}")
    settings = [*variables()]
    yield from settings
    if all(one.state != "broken" for one in settings):
        yield _processor(current())
        yield _cache(current())
    for names, purpose, command in OPTIONAL:
        version = installed(names)
        yield Finding(names[0], "ok" if version else "missing", version or f"for {purpose}", "" if version else command)
    yield _cuda_compiler()
    yield _gpu()
    compiler = next((path for name in COMPILERS if (path := shutil.which(os.environ.get("CXX", name)))), None)
    advice = "" if compiler else "install g++ or clang++"
    yield Finding("C++ compiler", "ok" if compiler else "missing", compiler or "for bench: FlexAttention", advice)


def installed(names: Sequence[str]) -> str | None:
    """The version of the first distribution that is installed, from its metadata."""
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _cuda_compiler() -> Finding:
    """The packages that compile for a GPU, which need none themselves, and which compiler is taken."""
    from splat_numba.runtime.cuda.compilers.compiler import COMPILERS, chosen

    try:
        taken = chosen(current().cuda_compiler)
    except ArgumentError:  # the rows of settings have said so
        taken = chosen(None)
    package = taken.packages[0]
    others = [one.packages[0] for one in COMPILERS if one is not taken and installed((one.packages[0],))]
    here = [f"{name} {version}" for name in (package, *CUDA) if (version := installed((name,)))]
    missing = [name for name in (package, *CUDA[:2]) if installed((name,)) is None]
    if missing:
        found = f"for kernels on NVIDIA GPUs: no {', '.join(missing)}"
        return Finding("CUDA compiler", "missing", found, f'pip install "splat-numba[{taken.extra}]"')
    beside = f"; not taken: {', '.join(others)} (SPLAT_CUDA_COMPILER)" if others else ""
    return Finding("CUDA compiler", "ok", ", ".join(here) + beside)


def _gpu() -> Finding:
    """The GPU that arrays from the CPU go to, or why there is none."""
    from splat_numba.runtime.cuda.device import device

    try:
        found = device(0)
    except BackendError as error:
        return Finding("GPU", "missing", in_options(str(error)))
    capability = ".".join(map(str, found.capability))
    facts = f"compute capability {capability}, {found.multiprocessors} multiprocessors"
    facts += f"; targets {_targets(found.as_planned)}"
    return Finding("GPU", "ok", f"{found.name}, {facts}")


def _targets(gpu: Gpu) -> str:
    """Those that a GPU runs, in the order in which they are asked, and the dtypes that each gets."""
    from splat_numba.gen.targets.registry import choose_target, targets_of

    got: dict[str, list[str]] = {
        name: [] for name, one in targets_of(GPU).items() if gpu.capability in one.capabilities
    }
    for dtype in DTYPES:
        with suppress(BackendError):  # 16 bits on Turing
            target, _ = choose_target(None, Problem(1, 1, USUAL_DIM, USUAL_DIM, dtype), gpu)
            got[target.name].append(dtype)
    shown = ", ".join(f"{name} ({', '.join(dtypes) or 'when asked for'})" for name, dtypes in got.items())
    return f"{shown}: the first that takes a call, here with head_dim {USUAL_DIM}"


def _home() -> Path:
    return Path(__file__).parent.parent


def _python() -> Finding:
    version = f"{platform.python_version()}, {sys.executable}"
    if (3, 11) <= sys.version_info[:2] < (3, 14):
        return Finding("Python", "ok", version)
    return Finding("Python", "broken", version, "use Python 3.11, 3.12 or 3.13")


def variables() -> Iterator[Finding]:
    """The variables of the environment that are set, and names that look like ours."""
    known = {one.name: one for one in VARIABLES}
    for name, text in given().items():
        if name in known and text.strip():
            try:
                known[name].of(text)
            except ArgumentError as error:
                yield Finding(name, "broken", str(error))
            else:
                yield Finding(name, "ok", text)
        elif name not in known and not name.startswith(OF_TESTS):
            words = [one.removeprefix(PREFIX) for one in known]  # all of them share the prefix: it makes nothing alike
            close = difflib.get_close_matches(name.removeprefix(PREFIX), words, n=1)
            advice = f"unset it; did you mean {PREFIX}{close[0]}?" if close else "unset it"
            yield Finding(name, "unknown", "no setting has this name", advice)


def _processor(settings: Settings) -> Finding:
    try:
        from splat_numba.runtime.device import machine

        found = machine(settings.threads)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with LLVM is the finding
        return Finding("processor", "broken", f"{type(error).__name__}: {error}", "pip install --force-reinstall numba")
    threads = " (SPLAT_NUM_THREADS)" if settings.threads else ""
    return Finding("processor", "ok", f"{platform.machine()}, {found.cores} cores{threads}, "
                   f"{found.vector_bytes}-byte vectors")  # fmt: skip


def _cache(settings: Settings) -> Finding:
    """Where kernels are kept; the check is the one that every compilation makes."""
    if not settings.cache:
        return Finding("kernel cache", "ok", "off (SPLAT_CACHE=0): every process compiles anew", "unset SPLAT_CACHE")
    try:
        from splat_numba.runtime import cache

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            folder = cache.folder(settings)
    except ImportError as error:
        return Finding(
            "kernel cache", "broken", f"Numba does not import: {error}", "pip install --force-reinstall numba"
        )
    if folder is None:
        reason = str(caught[0].message) if caught else f"{settings.cache_dir} was refused"
        return Finding("kernel cache", "broken", reason, "mend it, or set SPLAT_CACHE_DIR")
    kernels = list(folder.glob("*.py"))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    access = "writable" if os.access(folder, os.W_OK) else "read only"
    return Finding(
        "kernel cache", "ok", f"{folder}: yours alone, {access}, {len(kernels)} kernels, {size / 1e6:.0f} MB"
    )


APP = App(name="doctor", default_command=run, help_epilogue=EPILOG)
