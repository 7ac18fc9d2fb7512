"""From generated text to a cubin: Numba gives LTO-IR, nvJitLink machine code and the compiler's report; no GPU needed.

Through LTO-IR, never PTX: given PTX, nvJitLink compiles a relocatable unit in which setmaxnreg is ignored and matrix
products are serialised (warnings C7504, C7512: 235 instead of 628 TFLOP/s).
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from functools import cache as remember
from importlib import import_module
from pathlib import Path
from typing import Any

from splat_numba.errors import BackendError, CompileError
from splat_numba.gen.entry import Entry
from splat_numba.runtime import cache, fork
from splat_numba.runtime.cuda.driver import INSTALL
from splat_numba.runtime.source import KernelSource, unload
from splat_numba.settings import Settings

# The last two may be the CUDA toolkit's own: then their versions are not known.
COMPILERS = ("numba", "llvmlite", "numba-cuda", "cuda-core", "nvidia-nvvm", "nvidia-nvjitlink")
MADE_BY = "import splat_numba.runtime.cuda.pipeline"
# The linker's own cache would leave the report empty; ours keeps both.
LINKING = {"link_time_optimization": True, "verbose": True, "no_cache": True}


@dataclass(frozen=True, slots=True)
class Report:
    """What the compiler says of a kernel. symbol: the entry's name in the machine code; registers: a thread at launch;
    spill_bytes: stores and loads; shared_bytes: a block; warnings: lines with a code of ptxas'; log: all it said.
    """

    symbol: str
    registers: int
    spill_bytes: int
    shared_bytes: int
    warnings: tuple[str, ...]
    log: str


@dataclass(frozen=True, slots=True)
class Cubin:
    """Machine code of one kernel. path: of its text, None if no file could be written; cached: read from disk."""

    source: KernelSource
    entry: Entry
    path: Path | None
    code: bytes
    report: Report
    cached: bool


def build(source: KernelSource, entry: Entry, settings: Settings) -> Cubin:
    """Compile and link, or load from the disk cache. Safe under concurrent processes: one compiles, the others wait.

    Raises BackendError where the CUDA compiler is not installed, CompileError where the text does not compile.
    """
    folder = cache.folder(settings)
    path = source.write(folder) if folder else None
    # The entry gives the bounds that registers keep to, and the architecture.
    facts, limit = f"{_toolchain()} {entry}", settings.cache_size
    stored = cache.Entry.of(folder, source.name, source.text, facts, limit, MADE_BY) if folder else None

    def make() -> tuple[tuple[bytes, Report], bytes]:
        made = _compile(source, entry, path)
        return made, _packed(*made)

    if stored is None:
        return Cubin(source, entry, path, *make()[0], cached=False)
    (code, report), cached = stored.load_or(_unpacked, make)
    return Cubin(source, entry, path, code, report, cached)


@remember
def _toolchain() -> str:
    """Changes with every version of the compilers, and with their options. Imports none of them: to
    do so takes 400 ms, and a cubin from disk needs no compiler.
    """
    versions = [cache.version_of(name) for name in COMPILERS]
    return f"{versions} {LINKING}"


def _check_compiler() -> None:
    """Raise BackendError where some part of the compiler is not installed, or Numba stands in for it."""
    try:
        for name in ("numba_cuda", "cuda.core", "splat_numba.runtime.cuda.intrinsics"):
            import_module(name)
        from numba.core import config
    except ImportError as error:
        raise BackendError(
            f"backend 'cuda' wanted, but its compiler is missing ({error}). Install the extra: {INSTALL}."
        ) from error
    if config.ENABLE_CUDASIM:
        raise BackendError(
            "NUMBA_ENABLE_CUDASIM wanted unset for backend 'cuda', got 1: Numba's simulator compiles nothing. "
            "Unset it, or use backend='emulate'."
        )


def _packed(code: bytes, report: Report) -> bytes:
    """A line with the report, then the cubin."""
    return json.dumps(asdict(report)).encode() + b"\n" + code


def _unpacked(content: bytes) -> tuple[bytes, Report] | None:
    """A cubin and its report, None where another version wrote another report."""
    line, _, code = content.partition(b"\n")
    try:
        stored = json.loads(line)
        return code, Report(**{**stored, "warnings": tuple(stored["warnings"])})
    except (ValueError, KeyError, TypeError):
        return None


def _numba_compile(source: KernelSource, entry: Entry, path: Path | None, output: str) -> Any:
    """The entry function through Numba's front end and NVVM: LTO-IR or PTX."""
    _check_compiler()
    from numba import cuda, types

    from splat_numba.runtime.cuda.capability import compiling_for

    kinds = {"r": types.uint32, "l": types.uint64, "f": types.float32}
    signature = tuple(kinds[kind] for kind in entry.kinds)
    bounds = (entry.threads, entry.blocks)

    def compiled() -> Any:
        module = source.load(path)
        function = getattr(module, entry.name)
        options = {"device": False, "cc": entry.capability, "abi": "numba", "launch_bounds": bounds, "output": output}
        with compiling_for(entry.capability):
            code, _ = cuda.compile(function, signature, **options)
        unload(module)
        return code

    try:
        try:
            from splat_numba.runtime.cuda import pipeline

            with pipeline.in_place():
                code = compiled()
        except Exception:  # noqa: BLE001 - numba-cuda's own way says what is wrong, if anything is
            code = compiled()
    except Exception as error:
        raise CompileError(
            f"{source.named(path)} does not compile: {error}. "
            "If it was edited by hand, mend it; if not, please report the file."
        ) from error
    return code


def _compile(source: KernelSource, entry: Entry, path: Path | None) -> tuple[bytes, Report]:
    fork.prepare()
    fork.check_compiler()
    intermediate = _numba_compile(source, entry, path, "ltoir")
    from cuda.core import Linker, LinkerOptions, ObjectCode

    linker = Linker(ObjectCode.from_ltoir(intermediate), options=LinkerOptions(arch=entry.arch, **LINKING))
    try:
        linked = linker.link("cubin")
    except Exception as error:
        raise CompileError(f"{source.named(path)} does not link: {error}. Please report the file.") from error
    return bytes(linked.code), read_report(linker.get_info_log() + (linker.get_error_log() or ""), entry.shared_bytes)


def ptx(source: KernelSource, entry: Entry) -> str:
    """The kernel as PTX, for reading: what runs is linked from LTO-IR instead."""
    code = _numba_compile(source, entry, None, "ptx")
    return code if isinstance(code, str) else code.decode()


def read_report(log: str, shared_bytes: int) -> Report:
    """The report in nvJitLink's log, whose parts end with zero bytes, which no terminal should get."""
    log = log.replace("\0", "")
    entry = re.search(r"entry function '(\w+)'", log)
    if entry is None:
        raise CompileError(f"the linker's log wanted with an entry function, got {log!r}. Please report it.")
    used = re.search(r"Used (\d+) registers", log)
    spills = sum(int(count) for count in re.findall(r"(\d+) bytes spill", log))
    warnings = tuple(line.strip() for line in log.splitlines() if re.search(r"\bC7\d{3}\b|warning", line))
    return Report(entry[1], int(used[1]) if used else 0, spills, shared_bytes, warnings, log)
