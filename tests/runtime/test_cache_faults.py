"""Whatever is wrong with the disk: the result is computed, one warning says so, and nothing half-written stays."""

import errno
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
from filelock import FileLock

from splat_numba.errors import ArgumentError, CompileError
from splat_numba.runtime import cache
from splat_numba.runtime.cache import entry as entries
from splat_numba.runtime.cache import eviction, lock, place
from splat_numba.runtime.compile import compile_source
from splat_numba.runtime.dump import dump
from splat_numba.settings import DEFAULT_CACHE_SIZE, Settings, current
from tests.import_layers import REPOSITORY
from tests.runtime.kernel_texts import SIGNATURES, times

POSIX = pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")


def compiled(folder, factor=3, **settings):
    return compile_source(times(factor), SIGNATURES, Settings(cache_dir=folder, **settings))


def code_of(found) -> Path:
    (path,) = found.path.parent.glob(f"{found.path.stem}-*.code")
    return path


def temporary(folder):
    return [path for path in folder.rglob("*") if path.suffix in {".tmp", ".holder"}]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG])
@pytest.mark.parametrize("step", ["mkstemp", "replace"])
def test_a_write_that_fails_is_one_warning_and_the_answer_is_right(tmp_path, monkeypatch, number, step):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(*{"mkstemp": (entries.tempfile, "mkstemp"), "replace": (Path, "replace")}[step], fail)
    with pytest.warns(RuntimeWarning, match="cannot be written") as caught:
        found = [compiled(tmp_path / "cache", factor) for factor in (3, 4)]
    assert [str(one.message) for one in caught] == [
        f"cache folder {tmp_path}/cache/numba-{cache.version_of('numba')} cannot be written ({os.strerror(number)}): "
        "kernels that are not there are compiled anew. Make room or mend it, or set SPLAT_CACHE_DIR."
    ]
    assert [one.functions["run"](5) for one in found] == [15, 20]
    assert [one.path for one in found] == [None, None]
    assert temporary(tmp_path) == []


LIMITED = """
import resource, sys, warnings
from pathlib import Path
from splat_numba.runtime.compile import compile_source
from splat_numba.settings import Settings
from tests.runtime.kernel_texts import SIGNATURES, times

resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))  # the text fits, the machine code does not
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    found = compile_source(times(3), SIGNATURES, Settings(cache_dir=Path(sys.argv[1])))
print(found.functions["run"](5), found.path is not None, len(caught), "File too large" in str(caught[0].message))
"""


@POSIX
def test_a_limit_on_the_size_of_files_is_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "cache")], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, cwd=REPOSITORY,
    )  # fmt: skip
    assert done.stdout.split() == ["15", "True", "1", "True"], done.stderr
    assert temporary(tmp_path) == []


@pytest.mark.parametrize("suffix", [".py", ".code"])
@pytest.mark.parametrize("kind", ["folder", "full folder", "dangling link", "loop"])
def test_something_else_in_a_files_place(tmp_path, suffix, kind):
    first = compiled(tmp_path / "cache")
    path = first.path if suffix == ".py" else code_of(first)
    path.unlink()
    if "folder" in kind:
        path.mkdir()
        if kind == "full folder":
            (path / "file").touch()
    else:
        path.symlink_to(tmp_path / "missing" if kind == "dangling link" else path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again = compiled(tmp_path / "cache")
    assert again.functions["run"](5) == 15
    assert len(caught) == ("folder" in kind)  # a link is replaced, a folder cannot be
    assert temporary(tmp_path) == []
    assert not (tmp_path / "missing").exists()


@POSIX
def test_an_entry_of_others_is_not_loaded(tmp_path, monkeypatch):
    code_of(compiled(tmp_path / "cache")).chmod(0o666)
    assert not compiled(tmp_path / "cache").cached
    assert compiled(tmp_path / "cache").cached  # it was replaced
    monkeypatch.setattr(entries, "untrusted", "belongs to {}".format)
    assert not compiled(tmp_path / "cache").cached


def test_the_entry_of_another_kernel_is_damage(tmp_path):
    codes = [code_of(compiled(tmp_path / "cache", factor)) for factor in (3, 4)]
    codes[0].write_bytes(codes[1].read_bytes())
    again = compiled(tmp_path / "cache")
    assert (again.functions["run"](5), again.cached) == (15, False)


def test_what_was_hashed_is_what_is_loaded(tmp_path, monkeypatch):
    """The file is read once: one that changes after the check makes no difference."""
    code = code_of(compiled(tmp_path / "cache"))
    read = entries.CacheEntry.read

    def read_then_change(self):
        payload = read(self)
        code.write_bytes(b"noise")
        return payload

    monkeypatch.setattr(entries.CacheEntry, "read", read_then_change)
    again = compiled(tmp_path / "cache")
    assert (again.functions["run"](5), again.cached) == (15, True)


def test_an_intact_entry_is_read_while_another_process_holds_the_lock(tmp_path):
    code = code_of(compiled(tmp_path / "cache"))
    with FileLock(code.with_suffix(".lock")):
        assert compiled(tmp_path / "cache").cached


def test_a_lock_that_stays_held_is_named_and_gone_past(tmp_path, monkeypatch):
    code = code_of(compiled(tmp_path / "cache"))
    code.unlink()
    monkeypatch.setattr(lock, "PATIENCE", 0.2)
    with FileLock(code.with_suffix(".lock")):
        code.with_suffix(".holder").write_text("4321")
        with pytest.warns(RuntimeWarning, match="process 4321 holds") as caught:
            assert compiled(tmp_path / "cache").functions["run"](5) == 15
    assert str(caught[0].message) == (
        f"cache entry {code} was waited for 0 s: process 4321 holds {code.with_suffix('.lock')}. "
        "It is made here, too. End that process if it hangs."
    )


KILLED = """
import os, signal, sys
from pathlib import Path
from splat_numba.runtime.cache import entry
from splat_numba.runtime.compile import compile_source
from splat_numba.settings import Settings
from tests.runtime.kernel_texts import SIGNATURES, times

entry.Path.replace = lambda self, target: os.kill(os.getpid(), signal.SIGKILL)  # when all is written but the name
source = times(3)
(Path(sys.argv[1]) / f"{source.name}.py").write_text(source.text)
compile_source(source, SIGNATURES, Settings(cache_dir=Path(sys.argv[1]).parent))
"""


@POSIX
def test_a_process_killed_while_it_writes_leaves_nothing_that_is_used_or_waited_for(tmp_path):
    folder = cache.folder(Settings(cache_dir=tmp_path / "cache"))
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder)], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, cwd=REPOSITORY,
    )  # fmt: skip
    assert done.returncode == -9, done.stderr
    (left,) = folder.glob("*.tmp")
    again = compiled(tmp_path / "cache")
    assert (again.functions["run"](5), again.cached) == (15, False)
    assert not list(folder.glob("*.holder"))
    os.utime(left, (0, 0))  # an hour later
    compiled(tmp_path / "cache", 4)
    assert temporary(tmp_path) == []


def read_only(monkeypatch):
    """As for any user but root, whom modes do not stop: nothing can be made, renamed or locked."""

    def fail(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(entries.tempfile, "mkstemp", fail)
    monkeypatch.setattr(Path, "mkdir", fail)
    monkeypatch.setattr(os, "utime", fail)
    monkeypatch.setattr(FileLock, "acquire", fail)


def test_a_prefilled_folder_that_cannot_be_written_is_read(tmp_path, monkeypatch):
    first = compiled(tmp_path / "cache")
    os.utime(code_of(first), (0, 0))
    with monkeypatch.context() as patch:
        read_only(patch)
        again = compiled(tmp_path / "cache")  # no warning: all that is needed is there
        assert (again.functions["run"](5), again.cached, again.path) == (15, True, first.path)
        with pytest.warns(RuntimeWarning, match=r"cannot be written \(Permission denied\)"):
            other = compiled(tmp_path / "cache", 4)
        assert (other.functions["run"](5), other.cached, other.path) == (20, False, None)


@pytest.mark.parametrize("name", ["~nosuchuser-/x", "/" + "x" * 4000, "/" + "/".join(["y" * 200] * 25), "/\udcff"])
def test_a_folder_that_cannot_be_is_warned_of(name):
    with pytest.warns(
        RuntimeWarning, match=r"cannot be used .*: kernels are compiled anew\. Set SPLAT_CACHE_DIR\."
    ) as caught:
        assert compiled(Path(name)).functions["run"](5) == 15
    assert len(str(caught[0].message)) < 700


@pytest.mark.parametrize("home", ["nobody's", "none"])
def test_a_user_without_a_home_is_warned_and_nothing_is_made(tmp_path, monkeypatch, home):
    import platformdirs

    def user_cache_dir(_):
        if home == "none":
            raise RuntimeError("Could not determine home directory.")
        return "~/.cache/splat-numba"

    monkeypatch.setattr(platformdirs, "user_cache_dir", user_cache_dir)
    monkeypatch.chdir(tmp_path)
    place.warn_once.cache_clear()
    with pytest.warns(RuntimeWarning, match=r"cache folder of this user cannot be used \(Could not determine home"):
        assert compile_source(times(3), SIGNATURES, Settings()).functions["run"](5) == 15
    assert list(tmp_path.iterdir()) == []


def test_a_dump_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "dump", Path("~nosuchuser-/dump")):
        with pytest.warns(RuntimeWarning, match="SPLAT_DUMP_DIR wanted as a folder that can be written, got '"):
            dump(times(3), {}, Settings(dump_dir=folder))


def test_without_its_compiler_numba_is_refused_by_name(monkeypatch):
    from numba.core import config

    monkeypatch.setattr(config, "DISABLE_JIT", 1)
    with pytest.raises(CompileError, match=r"^NUMBA_DISABLE_JIT wanted unset, got 1: .* Unset it\.$"):
        compile_source(times(3), SIGNATURES, Settings(cache=False))


def fill(base, count, size=1000):
    folder = base / "numba-1"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number}.code"
        path.write_bytes(bytes(size))
        os.utime(path, (1000 + number, 1000 + number))
    return folder


def test_what_was_used_longest_ago_goes_first(tmp_path):
    folder = fill(tmp_path, 10)
    (tmp_path / "mine.py").write_bytes(bytes(5000))
    (tmp_path / "numba-0").mkdir()
    (tmp_path / "numba-0" / "old.py").write_bytes(bytes(500))
    os.utime(tmp_path / "numba-0" / "old.py", (1, 1))
    eviction.shrink(folder, 11_000)
    assert len(list(folder.iterdir())) == 10  # it fits
    eviction.shrink(folder, 9_000)
    assert sorted(int(path.stem) for path in folder.iterdir()) == [3, 4, 5, 6, 7, 8, 9]  # 0.8 of it and less
    assert not (tmp_path / "numba-0" / "old.py").exists()
    assert (tmp_path / "mine.py").exists()
    eviction.shrink(folder, 0)
    assert len(list(folder.iterdir())) == 7


def test_several_processes_may_remove_at_once(tmp_path):
    folder = fill(tmp_path, 300, 10)
    threads = [threading.Thread(target=eviction.shrink, args=(folder, 1000)) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert {path.stem for path in folder.iterdir()} <= set(map(str, range(220, 300)))
    assert (folder / "299.code").exists()


def test_a_new_entry_makes_room_and_reading_one_counts_as_use(tmp_path):
    first = compiled(tmp_path / "cache")
    code = code_of(first)
    folder = code.parent
    for path in folder.iterdir():
        os.utime(path, (1000, 1000))
    assert compiled(tmp_path / "cache").cached
    assert code.stat().st_mtime > 1000
    (folder / "old.code").write_bytes(bytes(100_000))
    os.utime(folder / "old.code", (2000, 2000))
    compiled(tmp_path / "cache", 4, cache_size=100_000)
    assert not (folder / "old.code").exists()
    assert code.exists()


@pytest.mark.parametrize("name", ["SPLAT_CACHE", "SPLAT_EMULATE"])
def test_words_for_yes_and_no(monkeypatch, name):
    field = name.removeprefix("SPLAT_").lower()
    for value, wanted in [
        ("1", 1),
        ("true", 1),
        (" Yes ", 1),
        ("ON", 1),
        ("0", 0),
        ("False", 0),
        ("no", 0),
        ("off", 0),
    ]:
        monkeypatch.setenv(name, value)
        assert getattr(current(), field) == bool(wanted)
    monkeypatch.setenv(name, "")
    assert getattr(current(), field) == (name == "SPLAT_CACHE")
    monkeypatch.setenv(name, "maybe")
    with pytest.raises(ArgumentError) as caught:
        current()
    assert str(caught.value) == (
        f"{name} wanted as one of 1, true, yes, on, 0, false, no, off, got 'maybe'. Set it, or unset it."
    )


def test_sizes_of_the_cache(monkeypatch):
    for value, wanted in [
        ("", DEFAULT_CACHE_SIZE),
        ("0", 0),
        ("500", 500),
        ("3k", 3072),
        ("2 GiB", 2**31),
        ("1M", 2**20),
    ]:
        monkeypatch.setenv("SPLAT_CACHE_SIZE", value)
        assert current().cache_size == wanted
    for value in ("big", "-1", "1.5G", "2P", "9" * 30):
        monkeypatch.setenv("SPLAT_CACHE_SIZE", value)
        with pytest.raises(ArgumentError, match=r"^SPLAT_CACHE_SIZE wanted as a size such as 500M or 2G, or 0, got '"):
            current()


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "9" * 5000])
def test_numbers_of_threads_that_are_none(monkeypatch, value):
    monkeypatch.setenv("SPLAT_NUM_THREADS", value)
    with pytest.raises(ArgumentError, match=r"^SPLAT_NUM_THREADS wanted as a whole number >= 1, got '"):
        current()
