"""`splat-numba cache`: warm, list, export, import and clear, one after the other on one small kernel."""

import re

import pytest

from tests.cli.command_run import run


def test_a_kernel_is_compiled_listed_moved_and_removed(capsys, monkeypatch, tmp_path):
    """It is compiled once: the other folder has it from the file."""
    warm = ("cache", "warm", "window(5)", "window(3, 9)", "--head-dim", "8", "--seq", "64")
    monkeypatch.setenv("SPLAT_CACHE_DIR", str(tmp_path / "one"))
    status, out, err = run(capsys, *warm)
    assert (status, err) == (0, "")
    (name,) = re.findall(r"^(attention_window_d8_float32_[0-9a-f]{12}): compiled in ", out, re.MULTILINE)
    status, out, _ = run(capsys, "cache", "list")
    assert status == 0
    assert re.search(rf"{name} +\d+ +.* ago", out)
    assert re.search(r"^1 kernels, 0\.\d MB in ", out, re.MULTILINE)

    path = tmp_path / "kernels.zip"
    status, out, _ = run(capsys, "cache", "export", str(path))
    assert (status, out.splitlines()[0]) == (0, f"1 kernels written to {path}; on a machine like this one:")
    command = out.splitlines()[1].split()
    assert command[:4] == ["splat-numba", "cache", "import", path.name]
    again = run(capsys, "cache", "export", str(path))
    assert again == (2, "", f"error: FILE wanted as one that is not there, got {path}. Give another, or remove it.\n")

    monkeypatch.setenv("SPLAT_CACHE_DIR", str(tmp_path / "two"))
    status, _, err = run(capsys, "cache", "import", str(path), "--sha256", "0" * 64)
    assert status == 2
    assert err.startswith("error: sha256 wanted as that of ")
    status, out, _ = run(capsys, "cache", "import", str(path), *command[4:])
    assert (status, out[:16]) == (0, "1 kernels are ne")
    assert run(capsys, *warm)[1] == f"{name}: on disk already\n"

    status, out, _ = run(capsys, "cache", "clear")
    assert status == 0
    assert re.match(r"\d files removed, 0\.\d MB, from ", out)
    assert run(capsys, "cache", "list")[1].startswith("0 kernels, 0.0 MB in ")


@pytest.mark.parametrize("command", ["list", "clear"])
def test_without_a_cache_there_is_nothing_to_do(capsys, monkeypatch, command):
    monkeypatch.setenv("SPLAT_CACHE", "0")
    message = "error: SPLAT_CACHE wanted on, got off: there are no kernels on disk. Unset it.\n"
    assert run(capsys, "cache", command) == (2, "", message)


def test_files_that_the_system_refuses_are_named_on_one_line(capsys, tmp_path):
    path = tmp_path / "none" / "none.zip"
    for command, wanted in ((["import", path, "--sha256", "00"], "read"), (["export", path], "written")):
        status, out, err = run(capsys, "cache", *map(str, command))
        assert (status, out) == (2, "")
        fault = f"FILE wanted a file that can be {wanted}, got {path}: No such file or directory"
        assert err == f"error: {fault}. Give another.\n"


def test_a_hash_is_not_optional(capsys, tmp_path):
    status, _, err = run(capsys, "cache", "import", str(tmp_path / "none.zip"))
    assert status == 2
    assert "--sha256" in err
