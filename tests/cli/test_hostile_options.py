"""Whatever is typed, and whatever becomes of standard output: a message and a status, never a traceback."""

import itertools
import re
import subprocess
import sys

import pytest

from splat_numba.cli import main, memory
from splat_numba.cli.console import make_table, output, print_table
from splat_numba.plain import memory_size
from tests.cli.command_run import SMALL, run

NUMBERS = ["-1", "", "nan", "1e3", "9" * 5000, "2147483648", "\udcff"]
NUMBER_OPTIONS = ["--seq", "--head-dim", "--heads"]
TEXTS = [
    "", "(", "window", "window()", "window(1e400)", f"window({'9' * 400})", "1", "causal() & 3", "lambda: 0", "🙂",
    "window(1) | " * 3000 + "causal()", "(" * 300 + "causal()" + ")" * 300,
    "\0", "\udcff", "documents([])", "documents([-1])", "window(True)", "sinks('4')", "strided(0)",
    "global_tokens([9999999999999999999999])", "neighborhood((9, 9), 3)", "random_blocks(0, 1)",
]  # fmt: skip
FILES = ["", "/", "/nonexistent/file.py", "x" * 5000]


def refused(capsys, *arguments):
    """Assert status 2 with something said on standard error that is no traceback."""
    status, _, err = run(capsys, *arguments)
    assert (status, "Traceback" in err, err.strip() != "") == (2, False, True), (arguments, status, err)


@pytest.mark.parametrize("command", ["explain", "source", "demo", "bench", "selftest"])
def test_numbers_that_are_none_are_refused(capsys, command):
    pattern = ["causal()"] if command in {"explain", "source"} else []
    more = {"selftest": ["--seconds", "--seed"], "explain": [*NUMBER_OPTIONS, "--value-dim", "--batch"]}
    for option, number in itertools.product(more.get(command, NUMBER_OPTIONS), NUMBERS):
        if (option, number) not in {("--seed", "2147483648"), ("--seconds", "1e3")}:  # which are numbers
            refused(capsys, command, *pattern, f"{option}={number}")


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_texts_that_are_no_pattern_are_refused(capsys, text):
    for arguments in (["explain", text], ["demo", f"--pattern={text}"]):
        status, _, err = run(capsys, *arguments, "--seq", "8")
        assert status == 2, arguments
        assert err.startswith(("error: pattern ", "error: --pattern "))
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize("path", FILES, ids=range(len(FILES)))
def test_files_that_cannot_be_written_are_refused(capsys, path):
    refused(capsys, "source", "window(16)", *SMALL, f"--output={path}")
    refused(capsys, "demo", f"--plot={path}")
    refused(capsys, "cache", "export", path)


@pytest.mark.parametrize("arguments", [["--backend", "cuda"], ["--backend", "emulate"], ["--target", "sm_90a"]])
def test_a_gpu_s_text_is_printed_without_a_gpu(capsys, arguments):
    status, out, err = run(capsys, "source", "causal()", "--seq", "200", "--head-dim", "64", *arguments)
    assert (status, err) == (0, "")
    assert out.startswith('"""')
    assert "generated for every mask that tables of boxes describe" in out
    compile(out, "kernel", "exec")


def test_texts_of_several_passes_are_told_apart(capsys, monkeypatch):
    class Source:
        text = "x = 1\n"

    monkeypatch.setattr("splat_numba.cli.explain.sources", lambda *_: (Source(), Source()))
    assert run(capsys, "source", "causal()", *SMALL)[1] == "# Text 1 of 2\nx = 1\n\n\n# Text 2 of 2\nx = 1\n"
    monkeypatch.setattr("splat_numba.cli.explain.sources", lambda *_: ())
    assert run(capsys, "source", "causal()", *SMALL)[2].startswith("error: nothing is launched for these lengths")


def test_demo_on_the_emulator(capsys):
    status, out, err = run(
        capsys, "demo", "--backend", "emulate", "--seq", "64", "--heads", "1", "--pattern", "window(8)"
    )
    assert (status, err) == (0, "")
    assert "Ran on the emulator of sm_90a: 132 multiprocessors" in out


def test_a_long_mask_is_not_drawn_and_the_command_says_so(capsys):
    status, out, err = run(capsys, "explain", "window(64)", "--seq", "300000")
    assert (status, err) == (0, "")
    assert out.startswith("Not drawn: a picture is made for at most 262,144 tokens.\nmask        window(64)\n")


@pytest.mark.parametrize("text", ["causal()", "longformer(256, 64)", "sparse_transformer_strided(128)"])
def test_the_longest_closed_form_is_explained_at_once(capsys, text):
    status, out, err = run(capsys, "explain", text, "--seq", "2147483647")
    assert (status, err) == (0, "")
    assert "2147483647 x 2147483647" in out


def test_demo_tells_a_long_run_before_it(capsys, monkeypatch):
    monkeypatch.setattr("splat_numba.cli.demo.LONG", 0.0)
    status, _, err = run(capsys, "demo", "--pattern", "window(16)", *SMALL)
    assert status == 0
    assert err.startswith("note: full(), beside which the patterns are shown, is predicted to take ")
    assert " us a call, and is called" in err


def test_two_predicted_times_say_what_each_is_for(capsys):
    _, out, _ = run(capsys, "explain", "window(64)", "--seq", "300000")
    assert re.search(r"ms for 8192 x 8192 tokens, the least of \d+\)", out)  # of how many, the machine's vectors say
    _, out, _ = run(capsys, "explain", "window(64)", "--seq", "8192", "--no-picture")
    assert "tokens, the least" not in out


@pytest.mark.parametrize("text", ["window(64)", "bigbird(8)"])
def test_memory_that_runs_out_is_told(capsys, monkeypatch, text):
    def no_memory(*_, **__):
        raise MemoryError

    monkeypatch.setattr("splat_numba.api.plan", no_memory)
    status, out, err = run(capsys, "explain", text, *SMALL)
    assert (status, out) == (2, "")
    assert err == "error: these sizes need more memory than there is. Give a smaller --seq, --heads or --batch.\n"


def test_memory_is_counted_in_short_words():
    assert [memory_size(n) for n in (0, 999, 2**20, 25 * 2**30, 1100 * 2**30)] == [
        "0.0 bytes", "999 bytes", "1.0 MiB", "25 GiB", "1.1 TiB",
    ]  # fmt: skip
    assert memory.available_bytes() is None or memory.available_bytes() > 0


@pytest.mark.parametrize("columns", ["1", "12", "40", "72"])
def test_narrow_terminals_get_rows_whose_words_stay_whole(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    console = output()
    table = make_table(console, ("pattern", "time", "dense time"))
    table.add_row("sparse_\ntransformer_\nstrided(128) |\nsinks(4)", "0.57 ms", "12.3 ms")
    print_table(console, table)
    out = capsys.readouterr().out
    if columns == "40":
        assert (
            out == "sparse_transformer_strided(128) |\nsinks(4)                                \n" or "0.57 ms" in out
        )
    if int(columns) >= 20:
        assert "0.57 ms" in out
        assert "12.3 ms" in out


def test_doctor_is_read_at_40_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["doctor"]) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == ["Python", "  state: ok"]
    assert "platformdirs" in lines  # names stay whole
    assert max(len(line) for line in lines if "what to do" not in line) <= 40


def test_doctor_names_a_setting_that_is_wrong(capsys, monkeypatch):
    monkeypatch.setenv("SPLAT_NUM_THREADS", "many")
    status, out, _ = run(capsys, "doctor")
    assert status == 1
    assert "SPLAT_NUM_THREADS wanted" in " ".join(out.split())
    assert "Broken: SPLAT_NUM_THREADS." in out


def test_ctrl_c_ends_quietly(capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("splat_numba.api.plan", interrupted)
    assert run(capsys, "explain", "window(64)", *SMALL) == (130, "", "interrupted\n")


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell")
def test_a_closed_pipe_and_no_output_at_all_end_quietly():
    """In one shell, because each start costs a second."""
    command = f"{sys.executable} -m splat_numba"
    script = f"""
        {command} source 'window(16)' --seq 64 | head -c 1 >/dev/null; echo "${{PIPESTATUS[0]}}"
        {command} explain 'window(16)' --seq 64 >&-; echo "$?"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)  # noqa: S607
    statuses = done.stdout.split()
    assert statuses[0] in {"0", "1"}  # the text may have been written whole before the pipe was closed
    assert statuses[1:] == ["0"]
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
