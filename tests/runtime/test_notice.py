"""What is told of a compile: a record each, and a line after a while, where somebody looks or it is asked for."""

import io
import logging
import threading
import time

import pytest

from splat_numba.cli.console import output
from splat_numba.errors import ArgumentError, CompileError
from splat_numba.runtime import notice
from splat_numba.runtime.compile import compile_source
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import Settings, current
from tests.runtime.kernel_texts import SIGNATURES, times


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(notice, "PATIENCE", 0.01)


def told(caplog):
    return [(one.levelname, one.kernel, one.why) for one in caplog.records if one.name == "splat_numba"]


def test_a_compile_has_a_record_and_so_has_what_is_read_from_disk(tmp_path, caplog):
    caplog.set_level(logging.DEBUG, "splat_numba")
    for _ in range(2):
        compile_source(times(11), SIGNATURES, Settings(cache_dir=tmp_path / "cache"))
    compile_source(times(11), SIGNATURES, Settings(cache=False))
    name = times(11).name
    assert told(caplog) == [("INFO", name, "cold"), ("DEBUG", name, "cached"), ("INFO", name, "cold")]
    assert [one.getMessage().startswith(f"{name} compiled in ") for one in caplog.records] == [True, False, True]
    assert all(0 < one.seconds < 60 for one in caplog.records)


def test_what_does_not_compile_has_no_record(caplog):
    caplog.set_level(logging.DEBUG, "splat_numba")
    with pytest.raises(CompileError):
        compile_source(KernelSource.of("wrong", "def run(x):\n    return y\n"), SIGNATURES, Settings(cache=False))
    assert told(caplog) == []


@pytest.mark.usefixtures("impatient")
def test_a_line_is_shown_after_a_while_where_it_is_wanted(capsys):
    for wanted, seconds, lines in [(True, 0.3, 1), (True, 0, 0), (False, 0.1, 0), (None, 0.1, 0)]:
        with notice.compiling("attention_x", wanted):
            time.sleep(seconds)
        assert capsys.readouterr().err.count("compiling attention_x\n") == lines
    with notice.quiet(), notice.compiling("attention_x", True):
        time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_a_standard_error_that_is_no_terminal_of_any_kind_is_not_looked_at(monkeypatch):
    """Services put objects there that have write() alone, and close it; a call must not end of it."""

    class Log:
        def write(self, text):
            return len(text)

        def flush(self):
            pass

    closed = io.StringIO()
    closed.close()
    for stream in (Log(), closed, None):
        monkeypatch.setattr("sys.stderr", stream)
        assert not notice.looked_at()
    monkeypatch.setattr("sys.stdout", Log())
    output().print("the command line writes there")


@pytest.mark.usefixtures("impatient")
def test_on_a_terminal_there_is_a_line_for_each_and_none_is_left(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")

    def work(name):
        with notice.compiling(name, True):
            time.sleep(0.5)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shown = capsys.readouterr().err
    assert "compiling one" in shown
    assert "compiling two" in shown
    assert "\x1b[2K" in shown  # the line is wiped
    assert notice._display._progress is None
    assert notice._display._lines == {}


@pytest.mark.parametrize(("value", "meant"), [("", None), ("auto", None), ("1", True), ("off", False)])
def test_the_setting(monkeypatch, value, meant):
    monkeypatch.setenv("SPLAT_PROGRESS", value)
    assert current().progress is meant


def test_a_setting_without_sense_is_refused(monkeypatch):
    monkeypatch.setenv("SPLAT_PROGRESS", "loud")
    message = (
        "SPLAT_PROGRESS wanted as one of 1, true, yes, on, 0, false, no, off, auto, got 'loud'. Set it, or unset it."
    )
    with pytest.raises(ArgumentError) as caught:
        current()
    assert str(caught.value) == message
