"""From text to cubin without a GPU: the disk cache, what cannot be compiled, and what the compiler reports.

The texts here do next to nothing, so that they compile in a moment; test_sm90_build compiles the real ones.
"""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import splat_numba
from splat_numba.errors import BackendError, CompileError
from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.targets.sm90.attention import PARAMETERS, attention_entry
from splat_numba.runtime import cache
from splat_numba.runtime.cuda import build as cuda_build
from splat_numba.runtime.cuda.build import Report, build, ptx, read_report
from splat_numba.runtime.cuda.compilers.compiler import COMPILERS, chosen, described
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import Settings

ENTRY = attention_entry(Traits(64, 64, "float16", 1, 64, 2, 1))


IMPORTS = """from splat_numba.gen.language.instructions import Instruction
from splat_numba.runtime.cuda.dialect import ptx
"""


def text(body="ptx.store_word(out, blocks, seq_q)", head=""):
    return f"{IMPORTS}{head}\n\n\ndef attention({', '.join(name for name, _ in PARAMETERS)}):\n    {body}\n"


def source(*parts):
    return KernelSource.of("tiny", text(*parts))


def built(folder, *parts):
    return build(source(*parts), ENTRY, Settings(cache_dir=folder))


def stored(found):
    (file,) = found.path.parent.glob(f"{found.path.stem}-*.code")
    return cache.CacheEntry(file)


@pytest.mark.usefixtures("cuda_compiler")
class TestDiskCache:
    def test_the_second_build_is_read_from_disk(self, tmp_path):
        first = built(tmp_path / "cache")
        again = built(tmp_path / "cache")
        assert (first.cached, again.cached) == (False, True)
        assert (again.code, again.report, again.path) == (first.code, first.report, first.path)
        assert first.path.read_text() == text()
        assert first.code.startswith(b"\x7fELF")

    def test_another_text_is_another_entry(self, tmp_path):
        first = built(tmp_path / "cache")
        other = built(tmp_path / "cache", "ptx.store_word(out, batch, seq_q)")
        assert not other.cached
        assert other.path != first.path
        assert built(tmp_path / "cache").code == first.code

    @pytest.mark.parametrize("damage", ["empty", "cut short", "one bit", "noise", "another", "gone"])
    def test_a_damaged_entry_is_a_miss_and_is_mended(self, tmp_path, damage):
        first = built(tmp_path / "cache")
        file = stored(first).path
        content = file.read_bytes()
        if damage == "gone":
            file.unlink()
        else:
            changed = {
                "empty": b"",
                "cut short": content[:-20],
                "one bit": content[:99] + bytes([content[99] ^ 1]) + content[100:],
                "noise": b"\x80\x05noise" * 9,
                "another": content[:64] + content[65:],
            }
            file.write_bytes(changed[damage])
        again = built(tmp_path / "cache")
        assert again.code.startswith(b"\x7fELF")
        assert again.report.symbol.encode() in again.code  # the name has a number that counts compilations
        assert not again.cached
        mended = built(tmp_path / "cache")
        assert mended.cached
        assert (mended.code, mended.report) == (again.code, again.report)

    @pytest.mark.parametrize("content", [b"[]", b"null", b"3", b"{}", b'{"warnings": 3}', b'"text"', b"\xff", b""])
    def test_a_report_of_another_form_is_a_miss(self, tmp_path, content):
        assert stored(built(tmp_path / "cache")).write(content + b"\n\x7fELF")
        assert not built(tmp_path / "cache").cached

    @pytest.mark.parametrize("change", ["missing", "unknown"])
    def test_a_report_of_another_version_is_a_miss(self, tmp_path, change):
        entry = stored(built(tmp_path / "cache"))
        line, _, code = entry.read().partition(b"\n")
        values = json.loads(line)
        if change == "missing":
            del values["registers"]
        else:
            values["surprise"] = 1
        assert entry.write(json.dumps(values).encode() + b"\n" + code)
        assert not built(tmp_path / "cache").cached

    def test_another_toolchain_has_its_own_entries(self, tmp_path, monkeypatch):
        first = built(tmp_path / "cache")
        with monkeypatch.context() as patch:
            patch.setattr(cuda_build, "_toolchain", lambda _: "another")
            other = built(tmp_path / "cache")
            assert not other.cached
            assert built(tmp_path / "cache").cached
        assert built(tmp_path / "cache").cached
        assert other.path == first.path
        assert len(list(first.path.parent.glob("tiny*.code"))) == 2

    @pytest.mark.parametrize(("compiler", "package"), [(one, package) for one in COMPILERS for package in one.packages])
    def test_the_toolchain_is_told_by_its_versions(self, monkeypatch, compiler, package):
        before = cuda_build._toolchain.__wrapped__(compiler)
        assert before == cuda_build._toolchain.__wrapped__(compiler)
        versions = {one: cache.version_of(one) for one in compiler.packages}
        monkeypatch.setattr(cache, "version_of", (versions | {package: "0.0.0"}).__getitem__)
        assert cuda_build._toolchain.__wrapped__(compiler) != before

    def test_every_compiler_has_its_own_entries(self):
        assert len({cuda_build._toolchain(one) for one in COMPILERS}) == len(COMPILERS)

    def test_the_toolchain_has_options(self, monkeypatch):
        before = cuda_build._toolchain.__wrapped__(chosen(None))
        monkeypatch.setattr(cuda_build, "LINKING", {"no_cache": True})
        assert cuda_build._toolchain.__wrapped__(chosen(None)) != before

    def test_one_text_for_another_architecture_is_another_entry(self, tmp_path):
        first = built(tmp_path / "cache")
        other = build(source(), replace(ENTRY, arch="sm_80"), Settings(cache_dir=tmp_path / "cache"))
        assert (first.cached, other.cached) == (False, False)
        assert first.code != other.code

    def test_without_a_cache_nothing_is_written(self, tmp_path):
        found = build(source(), ENTRY, Settings(cache=False, cache_dir=tmp_path / "cache"))
        assert (found.path, found.cached) == (None, False)
        assert list(tmp_path.iterdir()) == []

    def test_one_text_with_other_launch_bounds_is_another_entry(self, tmp_path):
        first = built(tmp_path / "cache")
        other = build(source(), replace(ENTRY, blocks=ENTRY.blocks + 1), Settings(cache_dir=tmp_path / "cache"))
        assert (first.cached, other.cached) == (False, False)

    def test_nothing_is_left_beside_the_entry(self, tmp_path):
        first = built(tmp_path / "cache")
        kinds = sorted(path.suffix for path in first.path.parent.iterdir() if path.suffix != ".lock")
        assert kinds == [".code", ".py"]


CHILD = """
import os, sys, time
from pathlib import Path
from splat_numba.runtime.cuda.build import build
from splat_numba.settings import Settings
from tests.runtime.test_cuda_build import ENTRY, source

open(sys.argv[1], "w").close()  # ready; both children begin together
while not os.path.exists(sys.argv[2]):
    time.sleep(0.005)
found = build(source(), ENTRY, Settings(cache_dir=Path(sys.argv[3])))
assert found.code.startswith(b"\\x7fELF")
print(found.cached)
"""
ROOT = Path(splat_numba.__file__).parents[1]


def child(code, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process):
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return out.strip()


@pytest.mark.usefixtures("cuda_compiler")
def test_two_processes_fill_one_cache_and_a_third_compiles_nothing(tmp_path):
    go, folder = tmp_path / "go", tmp_path / "cache"
    ready = [tmp_path / name for name in ("first", "second")]
    children = [child(CHILD, one, go, folder) for one in ready]
    deadline = time.monotonic() + 60
    while not all(one.exists() for one in ready) and time.monotonic() < deadline:
        time.sleep(0.01)
    go.touch()
    assert sorted(finish(one) for one in children) == ["False", "True"]  # one compiled, the other waited
    assert finish(child(CHILD, tmp_path / "third", go, folder)) == "True"


WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None  # as if it were not installed
import splat_numba as splat
try:
    splat.compile(splat.causal(), seq_q=64, seq_kv=64, head_dim=64, dtype="float16", backend="cuda")
    print("no error")
except splat.BackendError as error:
    print(error)
splat.plan(splat.causal(), seq_q=64, seq_kv=64, head_dim=64, dtype="float16", backend="cuda")
"""


class TestChoice:
    """Which compiler serves, by what is installed and what is asked for."""

    @pytest.mark.parametrize(
        ("installed", "asked", "wanted"),
        [
            (["numba-cuda", "numba-cuda-mlir"], None, "numba-cuda"),
            (["numba-cuda-mlir"], None, "mlir"),
            ([], None, "numba-cuda"),
            (["numba-cuda", "numba-cuda-mlir"], "mlir", "mlir"),
            (["numba-cuda-mlir"], "numba-cuda", "numba-cuda"),
            ([], "mlir", "mlir"),
        ],
    )
    def test_the_one_asked_for_or_the_first_installed(self, monkeypatch, installed, asked, wanted):
        monkeypatch.setattr(cache, "version_of", lambda package: "1.0" if package in installed else "unknown")
        assert chosen(asked).name == wanted

    @pytest.mark.parametrize("version", ["0.5.4", "0.7.0", "1.0"])
    def test_a_version_of_mlir_that_was_not_tried_is_refused(self, monkeypatch, version):
        monkeypatch.setattr(cache, "version_of", lambda _: version)
        with pytest.raises(BackendError, match=rf"^SPLAT_CUDA_COMPILER .*0\.6\.\*, got {version}\. Run: "):
            chosen("mlir").check()

    def test_mlir_that_is_not_installed_is_named_with_its_extra(self, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "numba_cuda_mlir", None)
        monkeypatch.delitem(sys.modules, "splat_numba.runtime.cuda.compilers.mlir_ptx", raising=False)
        with pytest.raises(BackendError, match=r"'mlir' is missing \(.*\[cuda-mlir\]\"\.$"):
            build(source(), ENTRY, Settings(cache_dir=tmp_path / "cache", cuda_compiler="mlir"))

    def test_a_text_that_nobody_reads_has_no_names(self):
        with pytest.raises(ImportError, match=r"^ptx is of the compiler that reads a text, and none does"):
            source().load(None)


@pytest.mark.parametrize("package", ["numba_cuda", "cuda.core", "numba.cuda"])
def test_without_the_extra_the_message_names_it(package, tmp_path, monkeypatch):
    monkeypatch.setenv("SPLAT_CACHE_DIR", str(tmp_path / "cache"))  # an empty one: a cubin from disk needs no compiler
    monkeypatch.setenv("SPLAT_CUDA_COMPILER", "numba-cuda")
    found = finish(child(WITHOUT, package))
    assert found.startswith("backend 'cuda' wanted, but its compiler is missing (")
    assert found.endswith('). Install the extra: python -m pip install "splat-numba[cuda]".')


WARM = """
import sys
import splat_numba as splat
kernel = splat.compile(splat.window(30), seq_q=200, seq_kv=200, head_dim=64, dtype="float16", backend="cuda")
heavy = ("numba", "numba_cuda", "llvmlite", "cuda.core", "filelock")
print(kernel.resources["cached"], [name for name in heavy if name in sys.modules])
"""


@pytest.mark.usefixtures("cuda_compiler")
def test_a_cubin_from_disk_loads_no_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("SPLAT_CACHE_DIR", str(tmp_path / "cache"))
    assert finish(child(WARM)).startswith("[False]")
    assert finish(child(WARM)) == "[True] []"


BROKEN = {
    "syntax": ("return (", "", "was never closed"),
    "unknown instruction": ("ptx.nothing(out)", "", "has no attribute 'nothing'"),
    "operands too many": ("ptx.store_word(out, blocks, seq_q, 3)", "", "positional argument"),
    "unknown name": ("ptx.store_word(out, nobody, seq_q)", "", "nobody"),
    "wrong type": ("ptx.store_word(out, 'text', seq_q)", "", ""),
}


@pytest.mark.usefixtures("cuda_compiler")
class TestBrokenTexts:
    @pytest.mark.parametrize("name", BROKEN)
    def test_a_text_that_does_not_compile(self, tmp_path, name):
        body, head, wanted = BROKEN[name]
        with pytest.raises(CompileError) as caught:
            built(tmp_path / "cache", body, head)
        message = str(caught.value)
        assert message.startswith(f"source {tmp_path}")
        assert "does not compile: " in message
        assert wanted in message
        assert message.endswith("If it was edited by hand, mend it; if not, please report the file.")
        assert list(tmp_path.rglob("*.code")) == []

    def test_a_text_without_the_entry(self):
        with pytest.raises(CompileError, match="has no attribute 'attention'"):
            build(KernelSource.of("tiny", "x = 1\n"), ENTRY, Settings(cache=False))

    def test_assembly_that_the_assembler_refuses(self, tmp_path):
        with pytest.raises(CompileError, match=r"does not link: (.|\n)*nonsense(.|\n)*Please report the file\."):
            built(tmp_path / "cache", "bad()", "bad = ptx.MAKER.scalar(Instruction('bad', '', '', 'nonsense;'))")

    def test_after_a_broken_text_the_cache_still_works(self, tmp_path):
        with pytest.raises(CompileError):
            built(tmp_path / "cache", "ptx.nothing(out)")
        assert not built(tmp_path / "cache").cached
        assert built(tmp_path / "cache").cached


@pytest.mark.usefixtures("cuda_compiler")
def test_numbas_simulator_is_refused_by_name(monkeypatch):
    from numba.core import config

    monkeypatch.setattr(config, "ENABLE_CUDASIM", 1)
    with pytest.raises(BackendError, match=r"^NUMBA_ENABLE_CUDASIM wanted unset for backend 'cuda', got 1: "):
        build(source(), ENTRY, Settings(cache=False))


@pytest.mark.usefixtures("cuda_compiler")
def test_ptx_is_text_with_the_entry_and_its_launch_bounds():
    found = ptx(source(), ENTRY, chosen(None))
    assert ".target sm_90a" in found
    assert ".visible .entry " in found
    assert ".maxntid 256" in found
    assert ".minnctapersm 1" in found


@pytest.mark.usefixtures("cuda_compiler")
def test_the_report_of_a_real_kernel(tmp_path):
    report = built(tmp_path / "cache").report
    assert 0 < report.registers <= 255
    assert (report.spill_bytes, report.warnings, report.shared_bytes) == (0, (), ENTRY.shared_bytes)
    assert "attention" in report.symbol
    assert report.symbol.encode() in built(tmp_path / "cache").code


LOG = """INFO: NVVM70 LTOIR Container created (2620 bytes)
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN5tiny9attentionB2v1' for 'sm_90a'
ptxas info    : Function properties for _ZN5tiny9attentionB2v1
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 168 registers, used 2 barriers
ptxas info    : Compile time = 1.858 ms
"""
C7512 = "ptxas warning : (C7512) Potential Performance Loss: wgmma.mma_async instructions are serialized due to ..."
C7504 = "ptxas info    : (C7504) Potential Performance Loss: 'setmaxnreg' ignored to maintain minimum requirements."


class TestReport:
    def test_a_clean_log(self):
        assert read_report(LOG, ENTRY.shared_bytes) == Report(
            "_ZN5tiny9attentionB2v1", 168, 0, ENTRY.shared_bytes, (), LOG
        )

    def test_spills_are_stores_and_loads(self):
        log = LOG.replace("0 bytes spill stores, 0 bytes spill loads", "12 bytes spill stores, 16 bytes spill loads")
        assert read_report(log, 0).spill_bytes == 28

    @pytest.mark.parametrize("line", [C7512, C7504, "ptxas warning : something else"])
    def test_warnings_are_kept_word_by_word(self, line):
        assert read_report(f"{LOG}  {line}  \n", 0).warnings == (line,)

    def test_a_log_without_an_entry_is_refused(self):
        with pytest.raises(CompileError, match="log wanted with an entry function, got 'nothing'"):
            read_report("nothing", 0)

    def test_the_log_ends_with_text(self):
        """The linker's ends with a zero byte, which no terminal should get."""
        assert not read_report(f"{LOG}\0", 0).log.endswith("\0")


@pytest.mark.usefixtures("cuda_compiler")
def test_the_cubin_is_a_kernel_of_the_public_interface(tmp_path, monkeypatch):
    monkeypatch.setenv("SPLAT_CACHE_DIR", str(tmp_path / "cache"))
    kernel = splat_numba.compile(
        splat_numba.full(), seq_q=128, seq_kv=128, head_dim=16, dtype="float16", backend="cuda"
    )
    assert kernel.cubin.startswith(b"\x7fELF")
    assert kernel.path.read_text() == kernel.source
    assert kernel.resources["shared_bytes"] > 0
    assert kernel.resources["compiler"] == described(chosen(None))
    with pytest.raises(BackendError):
        splat_numba.compile(splat_numba.full(), seq_q=9, seq_kv=9, head_dim=16, dtype="float32", backend="cpu").ptx()


LOOPS = """total = seq_q
    for row in range(seq_q):
        step = row - blocks if row % 3 else blocks
        while step > 7 and total < 100:
            step, total = step // 2, total + step
        total = max(total, step)
    ptx.store_word(out, blocks, total)"""


@pytest.mark.usefixtures("cuda_compiler")
def test_the_short_way_gives_numba_cuda_s_own_code(monkeypatch):
    from numba import cuda
    from numba.cuda import compiler

    from splat_numba.runtime.cuda.compilers import numba_cuda_passes

    taken, compile_for_cuda = [], cuda.compile

    def noted(*given, **options):
        taken.append(compiler.CUDACompiler)
        return compile_for_cuda(*given, **options)

    monkeypatch.setattr(cuda, "compile", noted)
    own = compiler.CUDACompiler

    def code():  # numba-cuda numbers the functions of a process
        return re.sub(r"B\d+v\d+B", "", ptx(source(LOOPS), ENTRY, chosen("numba-cuda")))

    short = code()
    monkeypatch.setattr(numba_cuda_passes, "in_place", None)
    assert code() == short
    assert taken == [numba_cuda_passes._Compiler, own]
