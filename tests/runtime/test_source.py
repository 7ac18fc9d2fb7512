"""Generated text as a module: addressed by its content, never rewritten, visible to tracebacks and inspect."""

import inspect
import traceback

import pytest

from splat_numba.errors import CompileError
from splat_numba.runtime.compile import compile_source
from splat_numba.runtime.dump import dump
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import Settings
from tests.runtime.kernel_texts import SIGNATURES, times


def test_the_name_is_the_hash_of_the_text():
    assert times(32).name != times(64).name
    assert times(32).name == times(32).name
    assert times(32).name.startswith("times_")
    assert len(times(32).name) == len("times_") + 12


def test_a_file_is_written_once(tmp_path):
    path = times(3).write(tmp_path)
    assert path.read_text() == times(3).text
    before = path.stat()
    assert times(3).write(tmp_path) == path
    after = path.stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]  # no temporary file is left


def test_a_file_that_was_tampered_with_is_replaced(tmp_path):
    path = times(3).write(tmp_path)
    for other in (times(9).text.encode(), b"", b"\xff\xfe not text"):
        path.write_bytes(other)
        times(3).write(tmp_path)
        assert path.read_text() == times(3).text


def test_texts_that_differ_in_one_constant_have_their_own_files_and_answers(tmp_path):
    """Numba's cache knows a function by path, size and time: at one path the old kernel would answer for the new."""
    settings = Settings(cache_dir=tmp_path / "cache")
    for cached in (False, True):
        kernels = [compile_source(times(factor), SIGNATURES, settings) for factor in (32, 64)]
        assert kernels[0].path != kernels[1].path
        assert [kernel.functions["run"](2) for kernel in kernels] == [64, 128]
        assert [kernel.cached for kernel in kernels] == [cached, cached]


def test_a_text_tampered_with_after_it_was_compiled_does_not_answer(tmp_path):
    settings = Settings(cache_dir=tmp_path / "cache")
    path = compile_source(times(32), SIGNATURES, settings).path
    path.write_text(times(64).text)
    assert compile_source(times(32), SIGNATURES, settings).functions["run"](2) == 64


@pytest.mark.parametrize("cache", [True, False])
def test_the_source_is_there_for_inspect(tmp_path, cache):
    compiled = compile_source(times(5), SIGNATURES, Settings(cache=cache, cache_dir=tmp_path / "cache"))
    assert (compiled.path is not None) == cache
    function = compiled.functions["run"].py_func
    assert inspect.getsource(function) == "@njit\ndef run(x):\n    return x * 5\n"


def test_a_traceback_shows_the_line_of_a_text_without_a_file():
    text = "def fail(x):\n    return x / 0  # here\n"
    module = KernelSource.of("failing", text).load(None)
    with pytest.raises(ZeroDivisionError) as caught:
        module.fail(1)
    assert "return x / 0  # here" in "".join(traceback.format_exception(caught.value))


def test_an_edited_file_runs(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(times(7).text.replace("x * 7", "x * 8"))
    source = KernelSource.from_file(path)
    assert source.name.startswith("mine_")
    assert compile_source(source, SIGNATURES, Settings(cache_dir=tmp_path / "cache")).functions["run"](2) == 16


def test_a_text_that_does_not_compile_is_named(tmp_path):
    source = KernelSource.of("broken", times(3).text.replace("x * 3", "x.nothing"))
    for settings in (Settings(cache_dir=tmp_path / "cache"), Settings(cache=False)):
        with pytest.raises(CompileError) as caught:
            compile_source(source, SIGNATURES, settings)
        name = f"{source.name}.py" if settings.cache else source.name
        assert f"{name} does not compile" in str(caught.value)
        assert "return x.nothing" in str(caught.value)  # Numba found the line
        assert caught.value.__cause__ is not None


def test_dump_writes_text_and_plan(tmp_path):
    dump(times(3), {"tiles": [64, 64]}, Settings(dump_dir=tmp_path / "dump"))
    folder = tmp_path / "dump"
    assert (folder / f"{times(3).name}.py").read_text() == times(3).text
    assert '"tiles"' in (folder / f"{times(3).name}.json").read_text()
    dump(times(3), {}, Settings())  # not asked for
