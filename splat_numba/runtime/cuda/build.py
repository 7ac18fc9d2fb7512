"""From generated text to a cubin: Numba gives LTO-IR, nvJitLink machine code and the compiler's report; no GPU needed.

Through LTO-IR, never PTX: given PTX, nvJitLink compiles a relocatable unit in which setmaxnreg is ignored and matrix
products are serialised (warnings C7504, C7512: 235 instead of 628 TFLOP/s).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from functools import cache as remember
from importlib import import_module
from pathlib import Path
from typing import Any

from splat_numba.errors import BackendError, CompileError
from splat_numba.gen import instructions
from splat_numba.gen.entry import Entry
from splat_numba.runtime import cache
from splat_numba.runtime.cuda.driver import INSTALL
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import Settings

ARCH = "sm_90a"
CAPABILITY = (9, 0, "a")
# The last two may be the CUDA toolkit's own: then their versions are not known.
COMPILERS = ("numba-cuda", "cuda-core", "nvidia-nvvm", "nvidia-nvjitlink")


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
    if folder is None:
        code, report = _compile(source, entry, None)
        return Cubin(source, entry, None, code, report, cached=False)
    path = source.write(folder)
    stem = f"{source.name}-{_key(entry)}"
    places = folder / f"{stem}.cubin", folder / f"{stem}.json"
    if (found := _read(*places)) is None:
        from filelock import FileLock  # 10 ms to import

        with FileLock(path.with_suffix(".lock")):
            if (found := _read(*places)) is None:  # nobody else made it meanwhile
                code, report = _compile(source, entry, path)
                _write(*places, code, report)
                return Cubin(source, entry, path, code, report, cached=False)
    return Cubin(source, entry, path, *found, cached=True)


def _key(entry: Entry) -> str:
    """What a text's machine code depends on beside the text: its entry gives the bounds that registers keep to."""
    return hashlib.sha256(f"{_toolchain()} {entry}".encode()).hexdigest()[:12]


@remember
def _toolchain() -> str:
    """Changes with every version of the compilers and of the instructions that texts use. Imports none of them: to
    do so takes 400 ms, and a cubin from disk needs no compiler.
    """
    digest = hashlib.sha256(str([cache.version_of(name) for name in COMPILERS]).encode())
    for file in (Path(instructions.__file__), Path(__file__).with_name("intrinsics.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _check_compiler() -> None:
    """Raise BackendError where some part of the compiler is not installed."""
    try:
        for name in ("numba_cuda", "cuda.core", "splat_numba.runtime.cuda.intrinsics"):
            import_module(name)
    except ImportError as error:
        raise BackendError(
            f"backend 'cuda' wanted, but its compiler is missing ({error}). Install the extra: {INSTALL}."
        ) from error


def _read(code_path: Path, report_path: Path) -> tuple[bytes, Report] | None:
    """A cubin and its report, None unless both are whole."""
    try:
        stored = json.loads(report_path.read_text(encoding="utf-8"))
        code = code_path.read_bytes()
        told = stored.pop("sha256")
        report = Report(**{**stored, "warnings": tuple(stored["warnings"])})
        return (code, report) if told == _digest(code, report) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _digest(code: bytes, report: Report) -> str:
    return hashlib.sha256(code + json.dumps(asdict(report), sort_keys=True).encode()).hexdigest()


def _write(code_path: Path, report_path: Path, code: bytes, report: Report) -> None:
    """Both files by renaming; the report last, since it vouches for the code."""
    values = {**asdict(report), "sha256": _digest(code, report)}
    for path, content in ((code_path, code), (report_path, json.dumps(values).encode())):
        temporary = path.with_suffix(f"{path.suffix}.tmp")
        temporary.write_bytes(content)
        temporary.replace(path)


def _numba_compile(source: KernelSource, entry: Entry, path: Path | None, output: str) -> Any:
    """The entry function through Numba's front end and NVVM: LTO-IR or PTX."""
    _check_compiler()
    from numba import cuda, types

    kinds = {"r": types.uint32, "l": types.uint64, "f": types.float32}
    signature = tuple(kinds[kind] for kind in entry.kinds)
    try:
        function = getattr(source.load(path), entry.name)
        code, _ = cuda.compile(
            function,
            signature,
            device=False,
            cc=CAPABILITY,
            abi="numba",
            launch_bounds=(entry.threads, entry.blocks),
            output=output,
        )
    except Exception as error:
        raise CompileError(
            f"source {path or source.name} does not compile: {error}. "
            "If it was edited by hand, mend it; if not, please report the file."
        ) from error
    return code


def _compile(source: KernelSource, entry: Entry, path: Path | None) -> tuple[bytes, Report]:
    intermediate = _numba_compile(source, entry, path, "ltoir")
    from cuda.core import Linker, LinkerOptions, ObjectCode

    # The linker's own cache would leave the report empty; ours keeps both.
    options = LinkerOptions(arch=ARCH, link_time_optimization=True, verbose=True, no_cache=True)
    linker = Linker(ObjectCode.from_ltoir(intermediate), options=options)
    try:
        linked = linker.link("cubin")
    except Exception as error:
        raise CompileError(f"source {path or source.name} does not link: {error}. Please report the file.") from error
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
