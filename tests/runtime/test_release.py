"""Kernels that nobody has any more are let go of, and those that somebody has go on working."""

import gc
import linecache
import sys
import weakref

import pytest

from splat_numba.errors import CompileError
from splat_numba.runtime.compile import compile_source
from splat_numba.runtime.recent import Recent
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import Settings
from tests.runtime.kernel_texts import SIGNATURES, times


@pytest.mark.parametrize("kind", ["compiled", "loaded", "without a cache"])
def test_nothing_of_a_kernel_stays_that_can_be_let_go_of(tmp_path, kind):
    settings = Settings(cache=kind != "without a cache", cache_dir=tmp_path / "cache")
    if kind == "loaded":
        compile_source(times(3), SIGNATURES, settings)
    found = compile_source(times(3), SIGNATURES, settings)
    name = f"splat_kernel_{found.source.name}"
    function = found.functions["run"]
    kept = weakref.ref(function)
    assert sys.modules[name].run is function
    del found
    gc.collect()
    assert name not in sys.modules
    assert f"<splat {times(3).name}>" not in linecache.cache
    assert function(5) == 15  # it works as long as somebody has it
    del function
    gc.collect()
    assert kept() is None


def test_a_second_kernel_of_one_text_keeps_its_module(tmp_path):
    first, second = (compile_source(times(3), SIGNATURES, Settings(cache_dir=tmp_path / "cache")) for _ in range(2))
    del first
    gc.collect()
    assert sys.modules[f"splat_kernel_{second.source.name}"].run is second.functions["run"]
    assert second.functions["run"](5) == 15


def test_what_a_kernel_imported_serves_others_after_it():
    def halved(number):
        text = times(number).text.replace(
            "\nfrom numba", "\nfrom splat_numba.runtime.halves import to_bfloat16\nfrom numba"
        )
        return KernelSource.of("halved", text.replace(f"x * {number}", f"to_bfloat16(np.float32(x * {number}))")
                               .replace("\nfrom numba", "\nimport numpy as np\nfrom numba"))  # fmt: skip

    for number in (3, 4):
        found = compile_source(halved(number), SIGNATURES, Settings(cache=False))
        assert found.functions["run"](1) == {3: 0x4040, 4: 0x4080}[number]
        del found
        gc.collect()


def test_the_last_used_are_kept():
    recent, made = Recent(2), []

    def get(key):
        return recent.get(key, lambda: made.append(key) or key.upper())

    assert [get(key) for key in "abacb"] == list("ABACB")
    assert made == ["a", "b", "c", "b"]  # b was used before a, so c pushed it out


@pytest.mark.parametrize("text", ["x = 1\n", "raise ValueError('no')\n"])
def test_a_text_at_fault_is_named_by_the_file_that_was_edited(tmp_path, text):
    path = tmp_path / "edited.py"
    path.write_text(text)
    source = KernelSource.from_file(path)
    for settings in (Settings(cache_dir=tmp_path / "cache"), Settings(cache=False)):
        with pytest.raises(CompileError) as caught:
            compile_source(source, SIGNATURES, settings)
        assert str(caught.value).startswith(f"path {path} does not compile: ")
