"""From generated text to a cubin: a compiler gives LTO-IR, nvJitLink machine code and the report; no GPU needed.

Through LTO-IR, never PTX: given PTX, nvJitLink compiles a relocatable unit in which setmaxnreg is ignored and matrix
products are serialised (warnings C7504, C7512: 235 instead of 628 TFLOP/s).
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from functools import cache as remember
from pathlib import Path

from splat_numba.errors import CompileError
from splat_numba.gen.language.entry import Entry
from splat_numba.runtime import cache, fork, notice
from splat_numba.runtime.cuda.compilers.compiler import Compiler, chosen
from splat_numba.runtime.cuda.dialect import reading
from splat_numba.runtime.interrupts import uninterrupted
from splat_numba.runtime.source import KernelSource, unload
from splat_numba.settings import Settings

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
    """Machine code of one kernel. path: of its text, None if no file could be written; cached: read from disk;
    compiler: that made it.
    """

    source: KernelSource
    entry: Entry
    path: Path | None
    code: bytes
    report: Report
    cached: bool
    compiler: Compiler


def build(source: KernelSource, entry: Entry, settings: Settings) -> Cubin:
    """Compile and link, or load from the disk cache. Safe under concurrent processes: one compiles, the others wait.

    Raises BackendError where the CUDA compiler is not installed, CompileError where the text does not compile.
    """
    compiler = chosen(settings.cuda_compiler)
    folder = cache.folder(settings)
    path = source.write(folder) if folder else None
    # The entry gives the bounds that registers keep to, and the architecture.
    facts, limit = f"{_toolchain(compiler)} {entry}", settings.cache_size
    stored = cache.CacheEntry.of(folder, source.name, source.text, facts, limit, compiler.made_by) if folder else None

    def make() -> tuple[tuple[bytes, Report], bytes]:
        made = _compile(source, entry, path, compiler)
        return made, _packed(*made)

    with notice.compiling(source.name, settings.progress) as tell:
        if stored is None:
            return Cubin(source, entry, path, *make()[0], cached=False, compiler=compiler)
        (code, report), cached = stored.load_or(_unpacked, make)
        tell(cached)
    return Cubin(source, entry, path, code, report, cached, compiler)


@remember
def _toolchain(compiler: Compiler) -> str:
    """Changes with the compiler, every version of its parts, and the linker's options. Imports none of them: to
    do so takes 400 ms, and a cubin from disk needs no compiler.
    """
    versions = [cache.version_of(name) for name in compiler.packages]
    return f"{compiler.name} {versions} {LINKING}"


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


def _intermediate(source: KernelSource, entry: Entry, path: Path | None, compiler: Compiler, output: str) -> bytes:
    """The entry function as the compiler gives it: "ltoir" or "ptx"."""
    with uninterrupted():
        compiler.check()
        dialect = compiler.dialect()
    try:
        with reading(dialect):
            module = source.load(path)
            code = compiler.intermediate(getattr(module, entry.name), entry, output)
            unload(module)
    except Exception as error:
        raise CompileError(
            f"{source.named(path)} does not compile: {error}. "
            "If it was edited by hand, mend it; if not, please report the file."
        ) from error
    return code


def _compile(source: KernelSource, entry: Entry, path: Path | None, compiler: Compiler) -> tuple[bytes, Report]:
    fork.prepare()
    fork.check_compiler()
    intermediate = _intermediate(source, entry, path, compiler, "ltoir")
    from cuda.core import Linker, LinkerOptions, ObjectCode

    linker = Linker(ObjectCode.from_ltoir(intermediate), options=LinkerOptions(arch=entry.arch, **LINKING))
    try:
        linked = linker.link("cubin")
    except Exception as error:
        raise CompileError(f"{source.named(path)} does not link: {error}. Please report the file.") from error
    return bytes(linked.code), read_report(linker.get_info_log() + (linker.get_error_log() or ""), entry.shared_bytes)


def ptx(source: KernelSource, entry: Entry, compiler: Compiler) -> str:
    """The kernel as PTX, for reading: what runs is linked from LTO-IR instead."""
    return _intermediate(source, entry, None, compiler, "ptx").decode()


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
