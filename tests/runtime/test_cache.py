"""The disk cache: a damaged entry is a miss, a folder open to others is not used, processes share what is there."""

import os
import pickle
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import numba
import pytest

import splat_numba
from splat_numba.runtime import cache
from splat_numba.runtime.cache import versions
from splat_numba.runtime.compile import compile_source
from splat_numba.settings import Settings, current
from tests.runtime.kernel_texts import SIGNATURES, times

POSIX = pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")


def compiled(folder, factor=3):
    return compile_source(times(factor), SIGNATURES, Settings(cache_dir=folder))


def entry_of(found) -> Path:
    (path,) = found.path.parent.glob(f"{found.path.stem}-*.code")
    return path


def test_versions_in_folders_of_every_kind(tmp_path, monkeypatch):
    for name in ("one.two-3.4.dist-info", "Five_six-7.8-py3.12.egg-info", "nine-10.txt", "eleven.dist-info"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "missing"), str(tmp_path)])
    found, complete = versions._metadata_folders.__wrapped__()
    assert (found, complete) == ({"one_two": "3.4", "five_six": "7.8"}, True)
    (tmp_path / "archive.zip").write_bytes(b"")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "archive.zip")])
    assert versions._metadata_folders.__wrapped__() == ({}, False)
    monkeypatch.setattr("sys.path", [tmp_path, bytes(tmp_path)])  # which imports skip
    assert versions._metadata_folders.__wrapped__() == ({}, True)


@pytest.mark.parametrize("package", ["numba", "numpy", "numba-cuda", "cuda-core", "no-such-package"])
def test_versions_are_those_of_the_installed_packages(package):
    try:
        wanted = metadata.version(package)
    except metadata.PackageNotFoundError:
        wanted = "unknown"
    assert cache.version_of(package) == wanted


def test_a_version_that_no_folder_name_tells_is_asked_for(monkeypatch):
    monkeypatch.setattr(versions, "_metadata_folders", lambda: ({}, False))  # as where all comes from an archive
    assert cache.version_of("numba") == metadata.version("numba")


DAMAGE = {
    "empty": lambda file: file.write_bytes(b""),
    "cut short": lambda file: file.write_bytes(file.read_bytes()[:-20]),
    "one bit": lambda file: file.write_bytes(file.read_bytes()[:-9] + bytes([file.read_bytes()[-9] ^ 1]) + b"12345678"),
    "noise": lambda file: file.write_bytes(b"\x80\x05noise" * 9),
    "gone": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_a_miss_and_the_answer_is_right(tmp_path, damage):
    folder = tmp_path / "cache"
    first = compiled(folder)
    assert not first.cached
    DAMAGE[damage](entry_of(first))
    again = compiled(folder)
    assert again.functions["run"](5) == 15
    assert not again.cached
    mended = compiled(folder)
    assert mended.functions["run"](5) == 15
    assert mended.cached


def test_an_entry_that_numba_cannot_read_is_a_miss_although_its_hash_is_right(tmp_path):
    folder = tmp_path / "cache"
    entry = cache.CacheEntry(entry_of(compiled(folder)))
    for content in (b"noise", pickle.dumps({}), pickle.dumps({"run": b"noise"}), pickle.dumps({"run": None})):
        assert entry.write(content)
        again = compiled(folder)
        assert (again.functions["run"](5), again.cached) == (15, False)
        assert compiled(folder).cached


def test_numbas_own_cache_folder_makes_no_difference(tmp_path, monkeypatch):
    """Numba reads its own files unchecked: a truncated one failed at every start."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "numba"))
    first = compiled(tmp_path / "cache")
    assert not (tmp_path / "numba").exists()
    assert [path.name for path in first.path.parent.iterdir() if path.is_dir()] == []
    assert compiled(tmp_path / "cache").cached


@pytest.mark.parametrize("where", ["cache", "version"])
@POSIX
def test_a_folder_that_others_can_write_to_is_refused_and_left_alone(tmp_path, where):
    folder = tmp_path / "cache"
    opened = folder if where == "cache" else folder / f"numba-{numba.__version__}"
    opened.mkdir(parents=True, mode=0o700)
    for mode in (0o770, 0o707):
        opened.chmod(mode)
        with pytest.warns(RuntimeWarning, match="can be written by others") as caught:
            result = compiled(folder)
        assert str(caught[0].message) == (
            f"cache folder {opened} is not used: it can be written by others (mode {mode:o}). "
            "Run `chmod 700` on it, or set SPLAT_CACHE_DIR."
        )
        assert result.functions["run"](5) == 15
        assert result.path is None
        assert [path for path in folder.rglob("*") if path.is_file()] == []


@POSIX
def test_a_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    if os.getuid() == 0:
        os.chown(folder, 4242, 4242)  # root's own folder is anybody's to use
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    with pytest.warns(RuntimeWarning, match="belongs to user"):
        assert cache.folder(Settings(cache_dir=folder)) is None


@POSIX
def test_the_folder_is_made_for_its_owner_alone(tmp_path):
    old = os.umask(0)
    try:
        folder = cache.folder(Settings(cache_dir=tmp_path / "new" / "cache"))
    finally:
        os.umask(old)
    for path in (folder, folder.parent):
        assert path.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made_is_warned_of_and_done_without(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(RuntimeWarning, match=r"cannot be used .*: kernels are compiled anew\. Set SPLAT_CACHE_DIR\."):
        assert compiled(tmp_path / "file" / "cache").functions["run"](5) == 15


def test_without_a_cache_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("SPLAT_CACHE", "0")
    monkeypatch.setenv("SPLAT_CACHE_DIR", str(tmp_path / "cache"))
    result = compile_source(times(3), SIGNATURES, current())
    assert result.functions["run"](5) == 15
    assert (result.path, result.cached) == (None, False)
    assert list(tmp_path.iterdir()) == []


CHILD = """
import os, sys, time
import numpy as np
import splat_numba as splat

mask = splat.window(6, 1)
open(sys.argv[1], "w").close()  # ready; both children begin together
while not os.path.exists(sys.argv[2]):
    time.sleep(0.005)
kernel = splat.compile(mask, seq_q=40, seq_kv=40, head_dim=4, dtype="float32")
x = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
wanted = splat.reference.attention(x, x, x, splat.geometry(mask, 40, 40).to_dense())
assert np.abs(kernel(x, x, x) - wanted).max() < 1e-5
print(*kernel.resources["cached"])
"""


def start(tmp_path, name, start_file):
    environment = {**os.environ, "SPLAT_CACHE_DIR": str(tmp_path / "cache"), "PYTHONWARNINGS": "error"}
    environment["PYTHONPATH"] = str(Path(splat_numba.__file__).parents[1])
    command = [sys.executable, "-c", CHILD, str(tmp_path / name), str(start_file)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return out.strip()


def test_two_processes_fill_one_cache_and_a_third_compiles_nothing(tmp_path):
    go = tmp_path / "go"
    children = [start(tmp_path, name, go) for name in ("first", "second")]
    deadline = time.monotonic() + 60
    while not all((tmp_path / name).exists() for name in ("first", "second")) and time.monotonic() < deadline:
        time.sleep(0.01)
    go.touch()
    assert sorted(finish(child) for child in children) == ["False", "True"]  # one compiled, the other waited
    assert finish(start(tmp_path, "third", go)) == "True"
